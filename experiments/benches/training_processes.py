"""How work is best spread over cores: one-thread processes against one process with two threads, and workers."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.benches.harness import Setting
    from training.outcome import Outcome
    from training.run_spec import RunSpec

_STEPS_A_ROUND = 3


def two_processes(setting: Setting, rounds: int) -> tuple[float, float]:
    """Total tokens/s of two one-thread processes over those of one two-thread process, in wall and in CPU time.

    The three processes live through all rounds; in each round first the pair works side by side, then the one.
    """
    from experiments.benches.harness import bench_corpus

    bench_corpus(setting)  # built once, before anyone times anything
    context = multiprocessing.get_context("spawn")
    workers = []
    for threads in (1, 1, 2):
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, setting, threads), daemon=True)
        process.start()
        workers.append((process, here))
    pipes = [pipe for _, pipe in workers]
    try:
        for pipe in pipes:
            pipe.recv()
        wall, cpu = [], []
        for _ in range(rounds + 1):
            pair_wall, pair_cpu = _round(pipes[:2])
            one_wall, one_cpu = _round(pipes[2:])
            wall.append(2 * one_wall / pair_wall)
            cpu.append(2 * one_cpu / pair_cpu)
    finally:
        for process, _ in workers:
            process.kill()
            process.join()
    return statistics.median(wall[1:]), statistics.median(cpu[1:])


def _round(pipes: list[Connection]) -> tuple[float, float]:
    began = time.perf_counter()
    for pipe in pipes:
        pipe.send("go")
    cpu = sum(float(pipe.recv()) for pipe in pipes)
    return time.perf_counter() - began, cpu


def _work(pipe: Connection, setting: Setting, threads: int) -> None:
    """Train for ever, `_STEPS_A_ROUND` steps for each word received; answers with the CPU seconds they took."""
    import torch

    from experiments.benches.harness import bench_corpus, bench_spec
    from models.language_model import attention_class
    from training.trainer import Trainer

    torch.set_num_threads(threads)
    corpus = bench_corpus(setting)
    spec = bench_spec(setting, corpus, 1_000_000)
    state = {"done": 0, "cpu": 0.0}

    def after_step() -> bool:
        state["done"] += 1
        if state["done"] % _STEPS_A_ROUND == 0:
            pipe.send(time.process_time() - state["cpu"])
            pipe.recv()
            state["cpu"] = time.process_time()
        return False

    Trainer(spec, corpus, attention_class(spec.framework), should_stop=after_step).run()


def demo_speed_up(share: int) -> float:
    """Wall time of the demo ladder with 6 seeds on one worker over that on two; runs have 1/`share` of their steps."""
    from concurrent.futures import ProcessPoolExecutor

    from data.corpus import CorpusConfig, load_corpus
    from training.executors.local import LocalExecutor
    from training.flops import training_flops
    from training.ladder import ladder

    rungs = ladder("demo")
    corpus = load_corpus(CorpusConfig(source=rungs.corpus, vocab_size=rungs.vocab_size))
    specs = [
        rungs.run_spec(
            size,
            candidate="standard",
            framework="coefficient_dynamics",
            seed=seed,
            purpose="search",
            corpus_hash=corpus.hash,
            tokenizer_hash=corpus.tokenizer_hash,
            steps=max(1, size.steps // share),
        )
        for size in rungs.sizes
        for seed in range(6)
    ]
    specs.sort(key=lambda spec: -training_flops(spec))
    seconds = {}
    for workers in (1, 2):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            list(pool.map(_measure, specs[-workers:] * 2, [str(corpus.directory)] * 2 * workers))  # warm

            def measure(spec: RunSpec, source: str | None, pool: ProcessPoolExecutor = pool) -> Outcome:
                return pool.submit(_measure, spec, str(corpus.directory)).result()

            began = time.perf_counter()
            with LocalExecutor(workers, measure) as executor:
                futures = [executor.submit(spec) for spec in specs]
                unfinished = [f for f in futures if f.result().status != "completed"]
            seconds[workers] = time.perf_counter() - began
            if unfinished:
                raise RuntimeError(f"{len(unfinished)} reference runs did not complete")
    return seconds[1] / seconds[2]


def _measure(spec: RunSpec, corpus_dir: str) -> Outcome:
    from training.outcome import outcome_from_json
    from training.worker import measure

    return outcome_from_json(measure({"spec": spec.model_dump(mode="json"), "corpus_dir": corpus_dir}))
