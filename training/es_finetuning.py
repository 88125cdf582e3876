"""Fine-tuning of a translation model by evolution strategies, from the start model to the test report.

An epoch draws the population's noise, lets all members translate the epoch's prompts, and steps the weights by their
fitness. Every so often the validation split is translated; the best weights there are kept, and the test split is
translated twice, once by the start model and once by those. The checkpoint is the fitness vectors so far and the
sha256 of the weights they must lead to: a resumed run replays the steps, without translating anything, and refuses to
go on unless it arrives at the same bits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.keyed_random import torch_generator
from data.translation import Sentences, TranslationData
from frameworks.noisers.conduct import faults
from frameworks.noisers.noiser import Noiser, NoiserError
from models.fsmt.error import TranslationError
from models.fsmt.loader import Translator
from models.fsmt.parameters import select
from training.checkpoint import CheckpointStore, write_atomically
from training.es_config import FinetuneConfig
from training.es_population import Evaluation, Population
from training.es_weights import EvolvedWeights
from training.translation_scores import CorpusScore
from training.translation_validation import HeldOut

Listener = Callable[[str, Mapping[str, Any]], None]
_FREE = (("name",), ("training", "log_output_every"), ("training", "checkpoint_every"))
"""Settings that may differ between a run and its resumption."""


@dataclass
class _Progress:
    """What a run has done so far; all of it is in the checkpoint."""

    fitness: list[Tensor]
    log: list[dict[str, Any]]
    best_epoch: int
    best_score: float
    waited: int
    cpu_seconds: float


class Finetuning:
    """One fine-tuning.

    Args:
        config: what to do.
        translator: the start model; its evolving matrices are changed.
        data: the task's sentences, of the model's language pair.
        noiser: shapes fitness and makes steps.
        directory: of the run: checkpoints, log.jsonl, result.json and the tuned model.
        listener: called with (event, payload); events are validation, epoch, resumed and test.

    Raises:
        TranslationError: wrong language pair, nothing evolves, or too few sentences; nothing is written before.
        NoiserError: the noiser breaks its contract on drawn numbers, see `conduct`.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        translator: Translator,
        data: TranslationData,
        noiser: Noiser,
        directory: Path,
        listener: Listener | None = None,
    ) -> None:
        translator.check_langs(data.src_lang, data.tgt_lang)
        for check, reason in faults(noiser, torch_generator("es conduct")).items():
            raise NoiserError(f"noiser {noiser.name} failed the check '{check}': {reason}")
        self._config = config
        self._translator = translator
        self._directory = directory
        self._listen: Listener = listener or (lambda event, payload: None)
        training, task = config.training, config.task
        chosen = select(translator.model, config.model.mode, config.model.evolve_patterns)
        self._weights = EvolvedWeights(
            translator.model, chosen, config.evolution, noiser, seed=training.seed, n_epochs=training.num_epochs
        )
        self._population = Population(
            translator,
            self._weights,
            _short_enough(data.train, translator, config),
            config.evolution,
            task,
            seed=training.seed,
        )
        self._validation = HeldOut(translator, data.validation.take(task.validation_size), task)
        self._test = HeldOut(translator, data.test.take(task.test_size), task)
        self._start = self._weights.copy()
        self._identity = _identity(config, data, self._weights.digest())
        self._store = CheckpointStore(directory / "checkpoints")

    def run(self) -> dict[str, Any]:
        """Fine-tune to the end, from where an earlier run of the same stopped; returns the result as JSON values.

        Raises:
            TranslationError: the folder holds another run, or its replay does not reach the stored weights.
        """
        progress, best = self._resume()
        written = self._directory / "result.json"
        if self._finished(progress) and written.is_file():
            result: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
            return result
        while not self._finished(progress):
            epoch = len(progress.fitness)
            improved = self._epoch(epoch, progress)
            if improved:
                best = self._weights.validated()
            if len(progress.fitness) % self._config.training.checkpoint_every == 0 or self._finished(progress):
                self._save(progress)
        return self._report(progress, best)

    def _epoch(self, epoch: int, progress: _Progress) -> bool:
        """One epoch; True when its weights are the best so far on validation."""
        began = time.process_time()
        factors = self._weights.draw(epoch)
        evaluation = self._population.evaluate(epoch, factors)
        step = self._weights.apply(epoch, evaluation.raw, factors)
        progress.fitness.append(evaluation.raw)
        entry = self._entry(epoch, evaluation, step)
        improved = False
        training = self._config.training
        if (epoch + 1) % training.validate_every == 0 or epoch + 1 == training.num_epochs:
            score = self._validate(self._weights.validated())
            improved = score.selection > progress.best_score
            progress.waited = 0 if improved else progress.waited + 1
            if improved:
                progress.best_epoch, progress.best_score = epoch + 1, score.selection
            entry |= {"validation": score.to_json(), "best_epoch": progress.best_epoch}
        progress.cpu_seconds += time.process_time() - began
        entry["cpu_seconds"] = round(progress.cpu_seconds, 2)
        progress.log.append(entry)
        self._listen("epoch", entry)
        return improved

    def _entry(self, epoch: int, evaluation: Evaluation, step: float) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "epoch": epoch + 1,
            "fitness": round(evaluation.mean, 6),
            "deviation": round(float(evaluation.raw.std()), 6),
            "flat_groups": round(evaluation.flat_share(self._weights.groups), 4),
            "length_ratio": round(evaluation.length_ratio, 4),
            "step": round(step, 4),
        }
        if (epoch + 1) % self._config.training.log_output_every == 0:
            entry["example"] = dict(zip(("source", "reference", "translation"), evaluation.example, strict=True))
        return entry

    def _validate(self, weights: Mapping[str, Tensor]) -> CorpusScore:
        masters = self._weights.copy()
        self._weights.load(weights)
        try:
            return self._validation.score(self._validation.translate())
        finally:
            self._weights.load(masters)

    def _finished(self, progress: _Progress) -> bool:
        training = self._config.training
        patient = training.patience is None or progress.waited < training.patience
        return len(progress.fitness) >= training.num_epochs or not patient

    # Checkpoints.

    def _save(self, progress: _Progress) -> None:
        members = self._config.evolution.parallel_generations_per_gpu
        fitness = torch.stack(progress.fitness) if progress.fitness else torch.empty(0, members, dtype=torch.float64)
        state = {key: value for key, value in vars(progress).items() if key != "fitness"}
        payload = {
            "identity": json.dumps(self._identity, sort_keys=True),
            "fitness": fitness,
            "progress": json.dumps(state),
            "digest": self._weights.digest(),
        }
        self._store.save(len(progress.fitness), payload)
        log = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in progress.log)
        write_atomically(self._directory / "log.jsonl", log.encode())

    def _resume(self) -> tuple[_Progress, dict[str, Tensor]]:
        """Where the run stands, with the model's weights brought there, and the best weights so far."""
        stored = self._store.load_newest()
        if stored is None:
            score = self._validate(self._start)
            self._listen("validation", {"epoch": 0, "validation": score.to_json()})
            first = {"epoch": 0, "validation": score.to_json()}
            progress = _Progress([], [first], best_epoch=0, best_score=score.selection, waited=0, cpu_seconds=0.0)
            self._save(progress)
            return progress, self._weights.validated()
        _check_identity(json.loads(stored["identity"]), self._identity, self._directory)
        progress = _Progress(fitness=list(stored["fitness"]), **json.loads(stored["progress"]))
        best = self._weights.validated()
        for epoch, raw in enumerate(progress.fitness):
            self._weights.apply(epoch, raw)
            if epoch + 1 == progress.best_epoch:
                best = self._weights.validated()
        if self._weights.digest() != stored["digest"]:
            raise TranslationError(
                f"the run in {str(self._directory)!r} cannot go on here: replaying its {len(progress.fitness)} epochs "
                "gives other weights than it had (another machine or version of torch?); start it under another name"
            )
        self._listen("resumed", {"epochs": len(progress.fitness), "best_epoch": progress.best_epoch})
        return progress, best

    # The end.

    def _report(self, progress: _Progress, best: dict[str, Tensor]) -> dict[str, Any]:
        """Test start and best weights, save the model, and write the result."""
        texts: dict[str, dict[int, list[str]]] = {}
        plain = self._config.task.no_repeat_ngram_size
        for name, weights in (("start", self._start), ("tuned", best)):
            self._weights.load(weights)
            texts[name] = {size: self._test.translate(size) for size in sorted({plain, 2})}
        result = {
            "epochs": len(progress.fitness),
            "best_epoch": progress.best_epoch,
            "cpu_seconds": round(progress.cpu_seconds, 1),
            "start_validation": progress.log[0]["validation"],
            "best_validation": progress.log[progress.best_epoch]["validation"],
            "test": self._comparison(texts["start"][plain], texts["tuned"][plain]),
            "test_no_repeat_2": self._comparison(texts["start"][2], texts["tuned"][2]),
            "permuted_fitness": self._config.evolution.permute_fitness,
        }
        self._translator.save(self._directory / "model")
        write_atomically(self._directory / "result.json", (json.dumps(result, indent=2) + "\n").encode())
        self._listen("test", result)
        return result

    def _comparison(self, start: list[str], tuned: list[str]) -> dict[str, Any]:
        return {
            "start": self._test.score(start).to_json(),
            "tuned": self._test.score(tuned).to_json(),
            "p": self._test.compare(start, tuned),
        }


def _short_enough(train: Sentences, translator: Translator, config: FinetuneConfig) -> Sentences:
    """Training pairs whose words alone do not exceed the limit of tokens."""
    limit = min(config.task.max_length, translator.model.config.max_position_embeddings)
    kept = [
        (source, target)
        for source, target in zip(train.sources, train.targets, strict=True)
        if len(source.split()) < limit and len(target.split()) < limit
    ]
    if not kept:
        raise TranslationError(f"no training sentence is shorter than task.max_length {config.task.max_length} tokens")
    return Sentences(sources=tuple(row[0] for row in kept), targets=tuple(row[1] for row in kept))


def _identity(config: FinetuneConfig, data: TranslationData, start: str) -> dict[str, Any]:
    """What a run's result depends on, flat."""
    tree = config.model_dump(mode="json")
    for *sections, key in _FREE:
        node = tree
        for section in sections:
            node = node[section]
        del node[key]
    flat: dict[str, Any] = {"data": data.hash(), "start weights": start}
    for section in ("model", "evolution", "training", "task"):
        flat |= {f"{section}.{key}": value for key, value in tree[section].items()}
    return flat


def _check_identity(stored: Mapping[str, Any], now: Mapping[str, Any], directory: Path) -> None:
    changed = [key for key in now if stored.get(key) != now[key]]
    if changed:
        shown = "; ".join(f"{key} was {stored.get(key)!r}, now {now[key]!r}" for key in changed[:3])
        raise TranslationError(
            f"the run in {str(directory)!r} was started with other settings ({shown}); use the same ones to go on, or "
            "another --name"
        )
