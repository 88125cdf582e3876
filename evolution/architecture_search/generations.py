"""Evolution over architectures: mutation, crossover and immigrants, PDH for the children, Pareto promotion of parents.

A child is drawn by key (seed, generation, number, attempt), so the same command proposes the same children however
often it is interrupted. A child that is known by identity, or behaves as a known one (the fingerprint), is dropped
before it costs anything; the reason is in the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.keyed_random import numpy_generator
from evolution.architecture_search.measuring import StretchMeasurement
from evolution.architecture_search.pareto import promoted
from evolution.architecture_search.pdh import Pdh
from evolution.architecture_search.schedule import run_pdh
from evolution.architecture_search.settings import EvolutionSettings
from evolution.architecture_search.sweep import deep_look, deepen, furthest_row, ranked
from evolution.architecture_search.table import Row, objectives
from evolution.architecture_search.workplace import register

if TYPE_CHECKING:
    from frameworks.architecture.schema import Architecture

_ATTEMPTS = 30
_IMMIGRANT_MUTATIONS = 5


class Generations:
    """One evolution.

    Args:
        measurement: trains.
        seeds: architectures to start from.
        settings: of the evolution.
        folder: where `evolution/gen_*/variant_*.yaml` go.
    """

    def __init__(
        self,
        measurement: StretchMeasurement,
        seeds: Sequence[Architecture],
        settings: EvolutionSettings,
        folder: Path,
    ) -> None:
        from frameworks.architecture.document import identity
        from models.pipeline.fingerprint import fingerprint

        self.measurement, self.seeds, self.settings, self.folder = measurement, list(seeds), settings, folder
        self.stages = tuple([settings.pdh_steps] * settings.pdh_stages)
        self.pdh = Pdh(self.stages)
        self.known: dict[str, Architecture] = {}
        self.fingerprints: dict[str, str] = {}
        self.rows: dict[str, Row] = {}
        self.origins: dict[str, dict[str, Any]] = {}
        for architecture in self.seeds:
            self._admit(architecture, identity(architecture), fingerprint(architecture), {"kind": "given"})

    def run(self) -> list[Row]:
        """All generations, then the deep look where one is set; rows best first."""
        deepen(self.measurement, self.seeds, self.pdh, horizon=self.horizon, start=0)
        self._measure(self.seeds)
        for generation in range(1, self.settings.generations + 1):
            children = self._children(generation)
            run_pdh(self.measurement, children, self.pdh, horizon=self.horizon)
            self.pdh.set_hurdle()
            self._measure(children)
        self._train_best_seed()
        return deep_look(self.measurement, self.known, ranked(list(self.rows.values())))

    def _train_best_seed(self) -> None:
        """Train the best seed as far as the leader, so that the report compares at equal steps."""
        from frameworks.architecture.document import identity

        furthest = max((row.steps for row in self.rows.values() if row.loss is not None), default=0)
        given = {identity(architecture) for architecture in self.seeds}
        best = next((row for row in ranked([self.rows[key] for key in given]) if row.loss is not None), None)
        if best is not None and best.steps < furthest:
            stops = [best.steps, furthest]
            self.rows[best.identity] = furthest_row(self.measurement, self.known[best.identity], stops, self.horizon)

    @property
    def horizon(self) -> int:
        """Steps of the learning-rate schedule: all stages."""
        return sum(self.stages)

    def _measure(self, members: Sequence[Architecture]) -> None:
        from frameworks.architecture.document import identity

        for architecture in members:
            key = identity(architecture)
            stops = [self.pdh.steps_after(stage) for stage in range(len(self.pdh.losses[key]))]
            self.rows[key] = furthest_row(self.measurement, architecture, stops, self.horizon)

    def _parents(self) -> list[Architecture]:
        """The best of the Pareto front over loss, FLOPs, parameters and bytes, among those trained furthest."""
        rows = [row for row in self.rows.values() if row.loss is not None]
        if not rows:
            return self.seeds
        furthest = max(row.steps for row in rows)
        deep = [row for row in rows if row.steps == furthest]
        keep = promoted([objectives(row) for row in deep], self.settings.top_k)
        return [self.known[deep[index].identity] for index in keep]

    def _children(self, generation: int) -> list[Architecture]:
        parents = self._parents()
        children: list[Architecture] = []
        for number in range(self.settings.population):
            child = self._child(parents, generation, number)
            if child is not None:
                children.append(child)
        return children

    def _child(self, parents: list[Architecture], generation: int, number: int) -> Architecture | None:
        from frameworks.architecture.document import identity, to_yaml
        from models.pipeline.fingerprint import fingerprint

        name = f"gen_{generation}_variant_{number}"
        for attempt in range(_ATTEMPTS):
            child, origin = self._draw(parents, generation, number, attempt, name)
            key = identity(child)
            reason = "known by identity" if key in self.known else self._too_large(child)
            mark = ""
            if reason is None:
                mark = fingerprint(child)
                twin = self.fingerprints.get(mark)
                reason = None if twin is None else f"behaves exactly as {twin}"
            if reason is not None:
                self.measurement.ledger.record_once(
                    "proposal", {"status": "duplicate", "reason": reason, **origin}, f"{name}:{attempt}"
                )
                continue
            self._admit(child, key, mark, origin)
            path = self.folder / "evolution" / f"gen_{generation}" / f"variant_{number}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(to_yaml(child), encoding="utf-8")
            return child
        return None

    def _draw(
        self, parents: list[Architecture], generation: int, number: int, attempt: int, name: str
    ) -> tuple[Architecture, dict[str, Any]]:
        from frameworks.architecture.gene import pick
        from frameworks.architecture.variation import crossover, mutate

        rng = numpy_generator("child", self.settings.seed, generation, number, attempt)
        if number >= self.settings.population - self.settings.immigrants:
            child = pick(rng, self.seeds)
            origin = {"kind": "immigrant", "parents": [child.name]}
            for _ in range(_IMMIGRANT_MUTATIONS):
                child = mutate(child, rng, name=name).architecture
            return child, origin
        parent = pick(rng, parents)
        if len(parents) > 1 and rng.random() < self.settings.crossover:
            second = pick(rng, [other for other in parents if other is not parent])
            crossed = crossover(parent, second, rng, name=name)
            if crossed is not None:
                return crossed.architecture, {"kind": "crossover", "parents": [parent.name, second.name]}
        mutant = mutate(parent, rng, name=name)
        return mutant.architecture, {"kind": mutant.operator, "parents": [parent.name]}

    def _too_large(self, child: Architecture) -> str | None:
        from models.pipeline.architecture_cost import architecture_cost

        vocabulary, most = self.measurement.corpus.vocab_size, self.settings.max_parameters
        cost = architecture_cost(child.arch, vocab_size=vocabulary, batch=1, length=1)
        return f"{cost.parameters:,} parameters exceed {most:,}" if cost.parameters > most else None

    def _admit(self, architecture: Architecture, key: str, mark: str, origin: dict[str, Any]) -> None:
        self.known[key] = architecture
        self.fingerprints[mark] = architecture.name
        self.origins[key] = origin
        register(self.measurement, architecture, origin)
