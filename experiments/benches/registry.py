"""Name to bench. Targets are text, so that listing the benches imports none of them."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.benches.row import Row, Targets, targets_of


class UnknownNameError(ValueError):
    """No bench of that name; the message lists near matches and all names."""


class UnusableOptionError(UnknownNameError):
    """An option that the bench does not read."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a bench may be asked for.

    Attributes:
        quick: only a small part of it, to see that it runs.
        programs: folder of further programs to try (`guards`).
        workers: worker processes; None: one a core.
    """

    quick: bool = False
    programs: Path | None = None
    workers: int | None = None


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One bench.

    Attributes:
        name: how users call it.
        promises: what it measures, in one line.
        target: "module:function"; the function takes (Options, Targets) and yields rows.
        reads: optional options it reads, beside `quick`.
    """

    name: str
    promises: str
    target: str
    reads: frozenset[str] = frozenset()

    def run(self, options: Options) -> Iterator[Row]:
        """Measure; rows come as soon as they are known.

        Raises:
            UnusableOptionError: an option is given that this bench does not read.
        """
        for name in ("programs", "workers"):
            if getattr(options, name) is not None and name not in self.reads:
                raise UnusableOptionError(f"bench '{self.name}' does not read --{name}")
        module, _, function = self.target.partition(":")
        measure: Callable[[Options, Targets], Iterable[Row]] = getattr(importlib.import_module(module), function)
        yield from measure(options, targets_of(self.name))


_BENCHES = (
    Bench(
        name="es",
        promises="a population translates in one pass, exactly, at nearly the cost of plain translation",
        target="experiments.benches.es:measure",
    ),
    Bench(
        name="faults",
        promises="every fault of a candidate or an endpoint ends in its typed outcome and harms nothing else",
        target="experiments.benches.faults:measure",
    ),
    Bench(
        name="guards",
        promises="every known cheat is rejected before training, and no honest program is",
        target="experiments.benches.guards:measure",
        reads=frozenset({"programs", "workers"}),
    ),
    Bench(
        name="mixers",
        promises="chunkwise mixers are faster than softmax attention on long sequences, and no slower form is taken",
        target="experiments.benches.mixers:measure",
    ),
    Bench(
        name="harness",
        promises="a training step is fast beside Hugging Face Trainer and the machine's peak, and uses little memory",
        target="experiments.benches.harness:measure",
    ),
    Bench(
        name="proposers",
        promises="the embedded LLM works, replays exactly, keeps to budgets; the bandit finds the best proposer",
        target="experiments.benches.proposers:measure",
    ),
    Bench(
        name="orchestration",
        promises="an iteration costs milliseconds beside training and LLM, and no more when the run is long",
        target="experiments.benches.orchestration:measure",
    ),
    Bench(
        name="merge",
        promises="merging is faster than the naive algorithm and needs the memory of one model",
        target="experiments.benches.merge:measure",
    ),
    Bench(
        name="sandbox",
        promises="isolation costs milliseconds a worker, and guards under 1.5 s a candidate",
        target="experiments.benches.sandbox:measure",
    ),
    Bench(
        name="verdicts",
        promises="false promotions, peeking, power and the coverage of scaling fits are what theory says",
        target="experiments.benches.verdicts:measure",
    ),
    Bench(
        name="racing",
        promises="a race picks the winner of full training, or its statistical equal, for a quarter of the tokens",
        target="experiments.benches.racing:measure",
    ),
)


def benches() -> dict[str, Bench]:
    """All benches by name, in the order they are shown."""
    return {bench.name: bench for bench in _BENCHES}


def bench(name: str) -> Bench:
    """The bench called `name`.

    Raises:
        UnknownNameError: there is none; the message lists near matches and all names.
    """
    known = benches()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.4)
    hint = f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else "."
    raise UnknownNameError(f"unknown bench {name!r}{hint} Known: {', '.join(known)}")
