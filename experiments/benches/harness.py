"""`evoscale bench harness`: what a training step costs beside Hugging Face Trainer and the machine's own peak.

Everything is interleaved step by step and told as medians (see `training_race`). The peak is that of a product of two
1024 x 1024 fp32 matrices on one thread, measured at the start and again after every round; the fraction is the median
over rounds of the step's rate over that round's peak, so that a machine that others use slows both.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.benches.registry import Options
from experiments.benches.row import Row, Targets

if TYPE_CHECKING:
    from data.corpus import Corpus
    from training.run_spec import RunSpec

_WARM_UP = 2
_STEPS, _QUICK_STEPS = 12, 3


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One model and batch: 4 layers of width 144, 4 heads, 128 tokens."""

    vocab_size: int
    batch_size: int
    n_layers: int = 4
    d_model: int = 144
    n_heads: int = 4
    seq_len: int = 128


SETTINGS = (Setting(vocab_size=4096, batch_size=32), Setting(vocab_size=16_384, batch_size=8))
_QUICK = Setting(vocab_size=512, batch_size=2, n_layers=1, d_model=32, n_heads=2, seq_len=32)


def measure(options: Options, targets: Targets) -> Iterator[Row]:
    """Race the trainers, then measure the loss's memory, the processes and the workers; see the module."""
    yield targets.row("sgemm peak at the start, one thread", max(sgemm_rate() for _ in range(5)) / 1e9, "GFLOP/s")
    steps = _QUICK_STEPS if options.quick else _STEPS
    for setting in (_QUICK,) if options.quick else SETTINGS:
        yield from _race(setting, steps, targets)
    yield _memory_row(targets, *((512, 8192) if options.quick else (1024, 16_384)))
    if not options.quick:  # whole processes, whose start alone takes longer than a quick look should
        yield from _process_rows(targets)
    yield targets.row("evaluation's share of a demo run's CPU time", _evaluation_share(), "")
    yield from _gpu_rows(targets)


def _memory_row(targets: Targets, rows: int, vocab_size: int) -> Row:
    from experiments.benches.loss_memory import memory_share

    name = f"peak memory of the fused loss at V={vocab_size}"
    measured = memory_share(rows=rows, vocab_size=vocab_size, width=144)
    if measured is None:
        return targets.row(name, None, "of the naive loss's")
    share, fused, naive = measured
    return targets.row(name, share, f"of the naive loss's {naive / 2**20:.0f} MiB (fused {fused / 2**20:.0f} MiB)")


def _process_rows(targets: Targets) -> Iterator[Row]:
    from experiments.benches.training_processes import demo_speed_up, two_processes

    wall, cpu = two_processes(SETTINGS[0], rounds=4)
    yield targets.row("two one-thread processes over one two-thread process, total tokens/s", wall, "x")
    yield targets.row("the same in tokens a CPU second", cpu, "x")
    yield targets.row("demo ladder with 6 seeds: 2 workers over 1", demo_speed_up(share=8), "x")


def sgemm_rate(size: int = 1024) -> float:
    """FLOP/s of a square fp32 product on this thread, in CPU time."""
    import torch

    left, right = torch.ones(size, size), torch.ones(size, size)
    left @ right
    began = time.thread_time()
    for _ in range(3):
        left @ right
    return 3 * 2 * size**3 / max(1e-9, time.thread_time() - began)


def _race(setting: Setting, steps: int, targets: Targets) -> Iterator[Row]:
    from experiments.benches.peer_trainer import gpt2_of, peer_is_there, same_model_of, train_with_peer
    from experiments.benches.training_race import Contestant, Race
    from training.flops import training_flops

    corpus = bench_corpus(setting)
    spec = bench_spec(setting, corpus, steps + _WARM_UP)
    peaks: list[float] = []
    total = steps + _WARM_UP
    contestants: list[Contestant] = [lambda after: _train_ours(spec, corpus, after)]
    if peer_is_there():
        contestants += [
            lambda after: train_with_peer(gpt2_of(spec), spec, corpus, total, after),
            lambda after: train_with_peer(same_model_of(spec), spec, corpus, total, after),
        ]
    ours, *peers = Race(contestants, total, between=lambda: peaks.append(sgemm_rate())).run()
    at = f"V={setting.vocab_size} B={setting.batch_size}"
    tokens = setting.batch_size * setting.seq_len
    flops = training_flops(spec) / spec.steps
    yield targets.row(f"{at}: tokens a CPU second", tokens / ours.median_cpu(_WARM_UP), "tokens/s")
    for name, peer in itertools.zip_longest(("its GPT-2", "our model"), peers):
        row = f"{at}: speed over Hugging Face Trainer with {name}"
        if peer is None:
            yield targets.row(row, None, "x; install the extra dev, which has transformers and accelerate")
            continue
        yield targets.row(f"{at}: Hugging Face Trainer, {name}", tokens / peer.median_cpu(_WARM_UP), "tokens/s")
        yield targets.row(row, peer.median_cpu(_WARM_UP) / ours.median_cpu(_WARM_UP), "x in CPU time")
        ratio = peer.median_wall(_WARM_UP) / ours.median_wall(_WARM_UP)
        yield targets.row(f"{at}: the same in wall time, {name}", ratio, "x")
    rates = [flops / cpu / peak for cpu, peak in zip(ours.cpu[_WARM_UP:], peaks[_WARM_UP:], strict=True)]
    yield targets.row(f"{at}: share of the sgemm peak", statistics.median(rates), "of peak")


def _train_ours(spec: RunSpec, corpus: Corpus, after_step: Callable[[], None]) -> None:
    from models.language_model import attention_class
    from training.trainer import Trainer

    def stop() -> bool:
        after_step()
        return False

    Trainer(spec, corpus, attention_class(spec.framework), should_stop=stop).run()


def bench_corpus(setting: Setting) -> Corpus:
    """The standard library's text with the setting's vocabulary; cached."""
    from data.corpus import CorpusConfig, load_corpus

    return load_corpus(CorpusConfig(source="stdlib", vocab_size=setting.vocab_size, max_bytes=4_000_000))


def bench_spec(setting: Setting, corpus: Corpus, steps: int, device_kind: str = "cpu") -> RunSpec:
    """The run of a setting with softmax attention."""
    from training.precision import choose_precision
    from training.run_spec import RunSpec

    return RunSpec.model_validate(
        {
            "candidate": "standard",
            "framework": "coefficient_dynamics",
            "size": f"d{setting.d_model}",
            "d_model": setting.d_model,
            "n_layers": setting.n_layers,
            "n_heads": setting.n_heads,
            "vocab_size": setting.vocab_size,
            "seq_len": setting.seq_len,
            "batch_size": setting.batch_size,
            "steps": steps,
            "learning_rate": 1e-3,
            "weight_decay": 0.1,
            "seed": 1,
            "purpose": "search",
            "eval_split": "search_validation",
            "eval_every": steps,
            "eval_tokens": setting.seq_len,
            "corpus_hash": corpus.hash,
            "tokenizer_hash": corpus.tokenizer_hash,
            "device_kind": device_kind,
            "precision": choose_precision(device_kind)[0],
        }
    )


def _evaluation_share() -> float:
    """Share of the CPU time of a run at the demo's smallest size that its evaluations take."""
    from data.batches import evaluation_windows
    from data.corpus import CorpusConfig, load_corpus
    from models.language_model import attention_class, create_language_model
    from training.evaluation import evaluate
    from training.ladder import ladder
    from training.trainer import Trainer

    rungs = ladder("demo")
    corpus = load_corpus(CorpusConfig(source="stdlib", vocab_size=rungs.vocab_size))
    size = rungs.sizes[0]
    spec = rungs.run_spec(
        size.model_copy(update={"steps": 60, "eval_every": 60, "eval_tokens": size.seq_len}),
        candidate="standard",
        framework="coefficient_dynamics",
        seed=1,
        purpose="search",
        corpus_hash=corpus.hash,
        tokenizer_hash=corpus.tokenizer_hash,
    )
    marks: list[float] = []

    def mark() -> bool:
        marks.append(time.thread_time())
        return False

    Trainer(spec, corpus, attention_class(spec.framework), should_stop=mark).run()
    step = statistics.median(b - a for a, b in itertools.pairwise(marks[5:-1]))
    model = create_language_model(
        "coefficient_dynamics",
        vocab_size=spec.vocab_size,
        d_model=spec.d_model,
        n_layers=spec.n_layers,
        n_heads=spec.n_heads,
    )
    x, y = evaluation_windows(corpus.tokens("search_validation"), seq_len=spec.seq_len, max_tokens=size.eval_tokens)
    seconds = []
    for _ in range(5):
        began = time.thread_time()
        evaluate(model, x, y, batch_size=4 * spec.batch_size)
        seconds.append(time.thread_time() - began)
    evaluations = statistics.median(seconds) * (size.steps // size.eval_every)
    return evaluations / (evaluations + step * size.steps)


def _gpu_rows(targets: Targets) -> Iterator[Row]:
    """Model FLOPs utilisation where a GPU is present; no row where none is."""
    import torch

    if not torch.cuda.is_available():
        return
    from experiments.benches.gpu_utilisation import gpu_utilisation

    for name, value, unit in gpu_utilisation(SETTINGS[1]):
        yield targets.row(name, value, unit)
