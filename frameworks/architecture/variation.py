"""Children of architectures: one mutation, or a crossover of two, seeded and always legal.

Whether a child also builds another model than its parent is for `models.pipeline.fingerprint` to say.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from frameworks.architecture.document import ArchitectureError, architecture_from, identity, tree_of
from frameworks.architecture.gene import Generator, Mutation, Tree, pick
from frameworks.architecture.mixer_genes import MIXER_MUTATIONS
from frameworks.architecture.module_genes import MODULE_MUTATIONS
from frameworks.architecture.pipeline_genes import PIPELINE_MUTATIONS
from frameworks.architecture.schema import Architecture

MUTATIONS: tuple[Mutation, ...] = (*MIXER_MUTATIONS, *MODULE_MUTATIONS, *PIPELINE_MUTATIONS)
_TRIES = 60


@dataclass(frozen=True, kw_only=True)
class Child:
    """A legal architecture, and how it came to be.

    Attributes:
        architecture: the child.
        operator: name of the mutation, or `crossover`.
    """

    architecture: Architecture
    operator: str


def apply_mutation(
    architecture: Architecture, mutation: Mutation, rng: Generator, *, name: str | None = None
) -> Architecture | None:
    """The child by this mutation, or None where its precondition is not met or what it drew is not legal.

    Args:
        architecture: the parent.
        mutation: one of MUTATIONS.
        rng: decides what is drawn.
        name: of the child; None keeps the parent's.
    """
    tree = copy.deepcopy(tree_of(architecture))
    if not mutation.apply(tree, rng):
        return None
    return _legal(tree, name, architecture)


def mutate(architecture: Architecture, rng: Generator, *, name: str | None = None) -> Child:
    """A child by one mutation, drawn until one fits.

    Raises:
        ArchitectureError: no mutation fits after 60 draws.
    """
    for _ in range(_TRIES):
        mutation = pick(rng, MUTATIONS)
        child = apply_mutation(architecture, mutation, rng, name=name)
        if child is not None:
            return Child(architecture=child, operator=mutation.name)
    raise ArchitectureError(f"{architecture.name}: no mutation fits after {_TRIES} draws")


def crossover(first: Architecture, second: Architecture, rng: Generator, *, name: str | None = None) -> Child | None:
    """`first` with one part of `second`: a transformer module, the readout, the embedding, or the training settings.

    Returns:
        The child, or None where nothing that `second` has fits or would change anything.
    """
    for _ in range(_TRIES):
        tree, giver = copy.deepcopy(tree_of(first)), copy.deepcopy(tree_of(second))
        part = pick(rng, ("module", "module", "module", "readout", "embedding", "train"))
        if part == "train":
            tree["train"] = giver["train"] | {key: tree["train"][key] for key in ("seq_len", "batch_size")}
        elif part == "module":
            _exchange_module(tree, giver, rng)
        else:
            tree["arch"][part] = giver["arch"][part]
        child = _legal(tree, name, first)
        if child is not None:
            return Child(architecture=child, operator="crossover")
    return None


def _exchange_module(tree: Tree, giver: Tree, rng: Generator) -> None:
    mine = [key for key, module in tree["arch"]["modules"].items() if module["kind"] == "transformer"]
    theirs = [module for module in giver["arch"]["modules"].values() if module["kind"] == "transformer"]
    key = pick(rng, mine)
    kept = tree["arch"]["modules"][key]["cond"]
    tree["arch"]["modules"][key] = pick(rng, theirs) | {"cond": kept}


def _legal(tree: Tree, name: str | None, parent: Architecture) -> Architecture | None:
    if name is not None:
        tree["name"] = name
    try:
        child = architecture_from(tree)
    except ArchitectureError:
        return None
    return None if identity(child) == identity(parent) else child
