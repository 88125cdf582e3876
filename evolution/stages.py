"""Which sizes and seeds a candidate is measured at, and the RunSpecs that follow.

Stages come from the configuration, or else from the ladder. The first ones measure every
candidate as soon as it is proposed; later ones measure the best so far. A size that no
stage names is unseen until the confirmation.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evolution.config import ConfigError, EvolveConfig

if TYPE_CHECKING:
    from data.corpus import Corpus
    from training.ladder import Ladder
    from training.run_spec import DeviceKind, Precision, Purpose, RunSpec
    from training.tuned_settings import TunedSettings


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage with its index in the run; `in_loop` stages measure every candidate."""

    index: int
    size: str
    seeds: int
    keep: int | None
    steps: int | None

    @property
    def in_loop(self) -> bool:
        """True when every candidate enters this stage."""
        return self.keep is None


def resolve_stages(config: EvolveConfig, ladder: Ladder) -> tuple[Stage, ...]:
    """The stages of a run.

    Raises:
        ConfigError: a stage names a size that the ladder does not have.
    """
    known = [size.name for size in ladder.all_sizes]
    if config.stages is None:
        return tuple(Stage(index=index, steps=None, **stage.model_dump()) for index, stage in enumerate(ladder.stages))
    for index, section in enumerate(config.stages):
        check_size(section.size, known, f"stages[{index}].size", ladder.name)
    return tuple(Stage(index=index, **section.model_dump()) for index, section in enumerate(config.stages))


def confirmation_sizes(config: EvolveConfig, ladder: Ladder) -> tuple[str, ...]:
    """Where the shortlist is confirmed: every size of the ladder and its unseen one, unless configured.

    Raises:
        ConfigError: a size that the ladder does not have, or one named twice.
    """
    known = [size.name for size in ladder.all_sizes]
    chosen = config.confirmation.sizes
    if chosen is None:
        return tuple(known)
    for index, size in enumerate(chosen):
        check_size(size, known, f"confirmation.sizes[{index}]", ladder.name)
    if not chosen or len(set(chosen)) != len(chosen):
        raise ConfigError(f"confirmation.sizes is {chosen}; name at least one size and each once")
    return tuple(chosen)


def check_size(size: str, known: list[str], key: str, ladder: str) -> None:
    """Refuse a size the ladder does not have, naming the nearest one.

    Raises:
        ConfigError: unknown size.
    """
    if size not in known:
        near = difflib.get_close_matches(size, known, n=1, cutoff=0.3)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise ConfigError(f"{key}: ladder '{ladder}' has no size '{size}'{hint} Known: {', '.join(known)}")


def guard_sizes(ladder: Ladder, vocab_size: int) -> list[dict[str, int]]:
    """What the guards build: every size of the ladder, with the corpus's vocabulary."""
    return [
        {
            "d_model": size.d_model,
            "n_heads": size.n_heads,
            "n_layers": size.n_layers,
            "vocab_size": vocab_size,
            "seq_len": size.seq_len,
            "batch_size": size.batch_size,
        }
        for size in ladder.all_sizes
    ]


class RunFactory:
    """Turns (candidate, size, seed index, purpose) into a RunSpec.

    Seeds: search uses the run's own hundred of the search range, confirmation its own
    hundred of the confirmation range, so the two never meet and runs with different
    `seed` share none.

    Args:
        config, ladder, corpus, precision, device_kind: what all runs share.
        settings: tuned settings by candidate, for the confirmation; others run at the ladder's.
    """

    def __init__(
        self,
        config: EvolveConfig,
        ladder: Ladder,
        corpus: Corpus,
        precision: Precision,
        device_kind: DeviceKind,
        settings: Mapping[str, TunedSettings] | None = None,
    ) -> None:
        self._config = config
        self._ladder = ladder
        self._corpus = corpus
        self._precision = precision
        self._device_kind = device_kind
        self._settings = dict(settings or {})

    def search(self, candidate: str, stage: Stage, seed_index: int) -> RunSpec:
        """The run of a candidate in a stage of the search."""
        return self._spec(candidate, stage.size, self._seed("search", seed_index), "search", stage.steps)

    def confirmation(self, candidate: str, size: str, seed: int) -> RunSpec:
        """The run of a candidate in the confirmation, on the test split."""
        return self._spec(candidate, size, seed, "confirmation", settings=self._tuned(candidate, size))

    def tuning(self, candidate: str, size: str, seed_index: int, settings: Mapping[str, Any]) -> RunSpec:
        """The run of a candidate with `settings` in place of the ladder's, on a tuning seed."""
        return self._spec(candidate, size, self._seed("tuning", seed_index), "tuning", settings=settings)

    def assessment(self, candidate: str, stage: Stage, seed_index: int, factor: float = 1.0) -> RunSpec:
        """The run of a control arm on a seed of the tuning range, at `factor` times the ladder's learning rate."""
        seed = self._seed("tuning", seed_index)
        rate = self._ladder.size(stage.size).learning_rate * factor
        return self._spec(candidate, stage.size, seed, "tuning", stage.steps, {"learning_rate": rate})

    def confirmation_seeds(self) -> list[int]:
        """The predeclared fresh seeds."""
        return [self._seed("confirmation", index) for index in range(self._config.confirmation.seeds)]

    def n_parameters(self) -> dict[str, int]:
        """Non-embedding parameters of the reference at each size."""
        return {size.name: size.n_parameters for size in self._ladder.all_sizes}

    def guard_sizes(self) -> list[dict[str, int]]:
        """What the guards build: every size of the ladder."""
        return guard_sizes(self._ladder, self._corpus.vocab_size)

    def with_settings(self, settings: Mapping[str, TunedSettings]) -> RunFactory:
        """This factory, with tuned settings of some candidates in their confirmation."""
        return RunFactory(
            self._config, self._ladder, self._corpus, self._precision, self._device_kind, settings=settings
        )

    def _tuned(self, candidate: str, size: str) -> dict[str, Any]:
        settings = self._settings.get(candidate)
        return {} if settings is None else settings.overrides(self._ladder.size(size))

    def _seed(self, purpose: Purpose, index: int) -> int:
        from training.run_spec import seed_range

        seeds = seed_range(purpose)
        return seeds[(100 * self._config.seed + index) % len(seeds)]

    def _spec(
        self,
        candidate: str,
        size: str,
        seed: int,
        purpose: Purpose,
        steps: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> RunSpec:
        return self._ladder.run_spec(
            size,
            candidate=candidate,
            framework=self._config.framework,
            seed=seed,
            purpose=purpose,
            **({"steps": steps} | dict(settings or {})),
            vocab_size=self._corpus.vocab_size,
            corpus_hash=self._corpus.hash,
            tokenizer_hash=self._corpus.tokenizer_hash,
            precision=self._precision,
            device_kind=self._device_kind,
        )
