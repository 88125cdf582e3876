"""A merge evolution from settings to a verdict: sources, search, choice, sealed report.

Three disjoint sets of problems: the search sees `evolve`; `promote` chooses between its finalists; `report` is opened
once, for a plan declared before, and compares the champion with every source, the uniform soup, TIES at its usual
settings and an equally long random search. Everything is in the ledger, so the same command goes on
after any interruption and repeats no evaluation.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.keyed_random import numpy_generator, seed_of
from data.math_problems import MathProblem, ProblemSplits, held_out, limited, named_problems
from evolution.ledger import Ledger
from evolution.ledger.schema import FIRST_CONFIRMATION_SEED
from evolution.manifest import describe_environment, write_json
from evolution.merging import hybrid
from evolution.merging.benchmarks import BenchmarkConfig
from evolution.merging.candidate import CandidateModels, MergeCandidate, copy_of
from evolution.merging.evaluation import Correct, Evaluation, Score, benchmark_scores, proxy_scores
from evolution.merging.evolution_config import EvolutionConfig
from evolution.merging.merge_report import compare, metrics_of
from evolution.merging.multi_objective import group_names
from evolution.merging.recipe import MergeRecipe
from evolution.merging.resident_model import SourceModels
from frameworks.merging.merge_error import MergeError

LEDGER_NAME = "ledger.sqlite"
Listener = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class MergeResult:
    """What an evolution came to.

    Attributes:
        champion: the chosen candidate.
        metrics: every figure of the report, plain JSON; see docs/merging.md.
        directory: where recipe, model and metrics are.
        computed: blocks of problems that this process evaluated; 0 for a finished run.
    """

    champion: MergeCandidate
    metrics: dict[str, Any]
    directory: Path
    computed: int


def problem_splits(config: EvolutionConfig) -> ProblemSplits:
    """The problems of the three splits.

    Raises:
        data.math_problems.OverlapError: two of them share a problem.
        data.corpus_error.CorpusError: they cannot be loaded.
    """
    most = config.max_benchmark_samples
    if config.benchmark_name == "arithmetic":
        from data.arithmetic_skills import arithmetic_problems

        return ProblemSplits(
            evolve=arithmetic_problems("evolve", most, seed=config.seed),
            promote=arithmetic_problems("promote", most, seed=config.seed),
            report=arithmetic_problems("report", config.report_samples, seed=config.seed),
        )
    evolve = named_problems(config.evolve or "gsm8k:train", config.data_folder)
    default = "mgsm:en" if config.benchmark_name == "mgsm" else "gsm8k:test"
    report = limited(named_problems(config.report or default, config.data_folder), config.report_samples, config.seed)
    # the overlap of everything that may be drawn, not only of what was
    kept, promote = held_out(evolve, config.promote_share, config.seed)
    whole = ProblemSplits(evolve=kept, promote=promote, report=report)
    return ProblemSplits(
        evolve=limited(whole.evolve, most, config.seed),
        promote=limited(whole.promote, most, config.seed),
        report=report,
    )


def source_names(config: EvolutionConfig, listener: Listener) -> tuple[str | None, tuple[str, ...]]:
    """The base and the models; the embedded experts are trained here where they are asked for."""
    if config.models:
        return config.base_model, tuple(config.models)
    from data.arithmetic_skills import SKILLS
    from evolution.merging.embedded_experts import experts_folder

    folder = experts_folder(
        report=lambda model, step, steps: listener("training", {"model": model, "step": step, "steps": steps})
    )
    return str(folder / "base"), tuple(str(folder / skill) for skill in SKILLS)


def evolve_merge(
    config: EvolutionConfig, runs: Path, *, arguments: list[str] | None = None, listener: Listener | None = None
) -> MergeResult:
    """Run a merge evolution to its verdict, or go on with one that was interrupted.

    Args:
        config: what to run.
        runs: folder of all runs; this one is `runs/<name>`.
        arguments: the command line, for the manifest.
        listener: called with (event, payload) as things happen.

    Raises:
        MergeError: anything wrong with the request, before a weight is read or anything written.
        data.corpus_error.CorpusError: problems that cannot be loaded or overlap.
        KeyboardInterrupt: after the interruption is in the ledger.
    """
    listen: Listener = listener or (lambda event, payload: None)
    splits = problem_splits(config)
    base, models = source_names(config, listen)
    with ExitStack() as stack:
        sources = stack.enter_context(SourceModels([*([base] if base else []), *models]))
        shape = hybrid.Sources(base=base, models=models, n_layers=sources.n_layers)
        if config.space == "parameter_space" or config.use_hybrid_ps_dfs:
            hybrid.parameter_space(config, shape)
        directory = runs / config.name
        directory.mkdir(parents=True, exist_ok=True)
        ledger = stack.enter_context(Ledger.open(directory / LEDGER_NAME, create=True))
        _start(ledger, config, directory, arguments, base, models)
        try:
            return _Evolution(config, splits, sources, shape, ledger, directory, listen).run()
        except KeyboardInterrupt:
            ledger.record("interrupted", {"reason": "stopped by the user"})
            raise


def _start(
    ledger: Ledger,
    config: EvolutionConfig,
    directory: Path,
    arguments: list[str] | None,
    base: str | None,
    models: tuple[str, ...],
) -> None:
    settings: dict[str, Any] = config.model_dump(mode="json")
    manifest: dict[str, Any] = {
        "name": config.name,
        "kind": "merge",
        "config": settings,
        "command": shlex.join(["evoscale", *arguments]) if arguments else None,
        "base": base,
        "models": list(models),
        "environment": describe_environment(),
    }
    before = ledger.events("run_started", limit=1)
    if before:
        then = before[0].payload["config"]
        changed = [key for key, value in settings.items() if then.get(key) != value]
        if changed:
            raise MergeError(
                f"run '{config.name}' was started with another {changed[0]} ({then.get(changed[0])!r}, now "
                f"{settings[changed[0]]!r}); use the same settings to go on, or another --name"
            )
    ledger.record("run_started", manifest)
    write_json(directory / "manifest.json", manifest)


class _Evolution:
    def __init__(
        self,
        config: EvolutionConfig,
        splits: ProblemSplits,
        sources: SourceModels,
        shape: hybrid.Sources,
        ledger: Ledger,
        directory: Path,
        listen: Listener,
    ) -> None:
        self._config = config
        self._splits = splits
        self._sources = sources
        self._shape = shape
        self._ledger = ledger
        self._directory = directory
        self._listen = listen
        self._models = CandidateModels(sources)
        tokenizer = sources.tokenizer()
        asked = BenchmarkConfig(
            benchmark_name=config.benchmark_name,
            batch_size=config.batch_size,
            max_new_tokens=config.max_new_tokens or (4 if config.benchmark_name == "arithmetic" else 256),
            shots=config.shots,
            beams=config.beams,
        )
        examples = self._examples(asked)
        self._accuracy = benchmark_scores(tokenizer, asked, examples)
        self._fitness = self._accuracy if config.use_real_fitness else proxy_scores(tokenizer)
        self._computed = 0

    def _examples(self, asked: BenchmarkConfig) -> list[MathProblem]:
        """Worked examples: GSM8K train rows that are in no split."""
        if not asked.shots or self._config.benchmark_name == "arithmetic":
            return []
        taken = {p.item for part in (self._splits.evolve, self._splits.promote) for p in part}
        rows = named_problems("gsm8k:train", self._config.data_folder)
        return [row for row in rows if row.item not in taken][: asked.shots]

    def _evaluation(self, correct: Correct, problems: Any, split: str, *, racing: bool = False) -> Evaluation:
        config = self._config
        report = split == "report"
        kind = "accuracy" if correct is self._accuracy else "probability of the gold answer"
        return Evaluation(
            self._ledger,
            self._models,
            correct,
            how=f"{kind} on {split}, {config.max_new_tokens} tokens, {config.shots} shots, {config.beams} beams",
            problems=problems,
            purpose="confirmation" if report else "search",
            seed=FIRST_CONFIRMATION_SEED if report else seed_of("merge search", config.seed) % FIRST_CONFIRMATION_SEED,
            block=config.block,
            racing=racing,
        )

    def run(self) -> MergeResult:
        config = self._config
        evaluate = self._evaluation(self._fitness, self._splits.evolve, "evolve", racing=config.racing)
        parents = {name: MergeCandidate(recipes=(copy_of(name),)) for name in self._shape.models}
        parent_fitness = {name: evaluate(candidate).fitness for name, candidate in parents.items()}
        usable = [value for value in parent_fitness.values() if value is not None]
        if not usable:
            raise MergeError("none of the models could be evaluated; see the ledger's runs for the reasons")
        self._listen("parents", {"fitness": parent_fitness})
        target = max(usable) * (1 + config.target_fitness_gain) if config.stop_at_target else None
        found = self._search(evaluate, target)
        promote = self._evaluation(self._fitness, self._splits.promote, "promote")
        finalists = {result.stage: result.ranked[0][0] for result in found}
        chosen_scores = {stage: promote(candidate) for stage, candidate in finalists.items()}
        stage = max(chosen_scores, key=lambda name: _sortable(chosen_scores[name]))
        champion = finalists[stage]
        arms: dict[str, MergeCandidate] = {f"source {number}": c for number, c in enumerate(parents.values(), 1)}
        arms |= self._references()
        if config.random_search:
            spent = sum(result.evaluations for result in found)
            blind = hybrid.search_at_random(config, self._shape, evaluate, self._heard, spent)
            arms["random search"] = blind.ranked[0][0]
        arms |= finalists
        self._computed += evaluate.computed + promote.computed
        scores = self._report(champion, arms)
        metrics = metrics_of(
            config=config,
            names=dict(zip(arms, [*self._shape.models, *list(arms)[len(parents) :]], strict=True)),
            parent_fitness=parent_fitness,
            found=found,
            champion_stage=stage,
            promote={name: score.fitness for name, score in chosen_scores.items()},
            comparison=compare(stage, scores, numpy_generator("merge report", config.seed), config.target_fitness_gain),
        )
        self._finish(champion, metrics)
        return MergeResult(champion=champion, metrics=metrics, directory=self._directory, computed=self._computed)

    def _heard(self, stage: str, generation: int, generations: int, best: float | None) -> None:
        self._listen("generation", {"stage": stage, "generation": generation, "generations": generations, "best": best})

    def _search(self, evaluate: Evaluation, target: float | None) -> list[hybrid.Found]:
        config, shape = self._config, self._shape
        if config.use_hybrid_ps_dfs:
            return list(hybrid.search_hybrid(config, shape, evaluate, self._heard, target))
        if config.multi_objective:
            groups = group_names(self._splits.evolve)
            return [hybrid.search_pareto(config, shape, evaluate, self._heard, groups)]
        if config.space == "layer_gate":
            return [hybrid.search_layer_gate(config, shape, evaluate, self._heard, target)]
        if config.space == "dataflow":
            return [hybrid.search_dataflow(config, shape, evaluate, self._heard, (), target)]
        return [hybrid.search_parameter_space(config, shape, evaluate, self._heard, target)]

    def _references(self) -> dict[str, MergeCandidate]:
        """The uniform soup, and TIES at the settings it is usually run with where there is a base."""
        sections = [{"model": name} for name in self._shape.models]
        named = {"uniform soup": {"merge_method": "linear", "models": sections}}
        if self._shape.base is not None:
            usual = [{"model": name, "parameters": {"weight": 1.0, "density": 0.5}} for name in self._shape.models]
            named["default ties"] = {"merge_method": "ties", "base_model": self._shape.base, "models": usual}
        return {name: MergeCandidate(recipes=(MergeRecipe.model_validate(content),)) for name, content in named.items()}

    def _report(self, champion: MergeCandidate, arms: Mapping[str, MergeCandidate]) -> dict[str, Score]:
        """Open the sealed problems for a plan that is declared first, and score every arm on them."""
        identities = list(dict.fromkeys(candidate.identity for candidate in arms.values()))
        reference = next(c.identity for c in arms.values() if c.identity != champion.identity)
        plan = {
            "reference": reference,
            "shortlist": [identity for identity in identities if identity != reference],
            "seeds": [FIRST_CONFIRMATION_SEED],
            "sizes": ["block 0"],
            "test": "exact McNemar, two-sided, against the best source, the uniform soup and default ties",
            "alpha": 0.01,
        }
        key = self._ledger.declare_plan(plan)
        if not self._ledger.seal_is_open(key):
            self._ledger.open_seal(key)
        evaluate = self._evaluation(self._accuracy, self._splits.report, "report")
        scores: dict[str, Score] = {}
        for name, candidate in arms.items():
            scores[name] = evaluate(candidate)
            self._listen("reported", {"arm": name, "fitness": scores[name].fitness})
        self._computed += evaluate.computed
        return scores

    def _finish(self, champion: MergeCandidate, metrics: dict[str, Any]) -> None:
        champion.export(self._directory / "winner.yaml")
        write_json(self._directory / "metrics.json", metrics)
        self._ledger.record_once("run_finished", {"sentence": metrics["sentence"]}, "end")


def _sortable(score: Score) -> float:
    return -1.0 if score.fitness is None else score.fitness
