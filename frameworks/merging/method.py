"""Name to merge method: what each needs, and the settings they share.

The methods are those of the literature, computed on d_i = x_i - base:

    linear            sum(w x) / sum(w)                              Wortsman et al. 2022
    slerp, nuslerp    along the great circle                         Shoemake 1985
    task_arithmetic   base + lambda sum(w d)                         Ilharco et al. 2023
    ties              top-k magnitude, elected signs, mean           Yadav et al. 2023
    dare_*            random drop and rescale                        Yu et al. 2024
    breadcrumbs*      drop outliers and small changes                Davari & Belilovsky 2024
    della*            drop by rank of magnitude in a row             Deep et al. 2024
    model_stock       between mean and base by the angle             Jang et al. 2024
    sce               variance select, energy weights, sign erase    Wan et al. 2024
    karcher           mean on the sphere                             Karcher 1977
    passthrough       one source as it is

Only names and plain values here, so that listing them imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Literal, get_args

from frameworks.merging.merge_error import MergeError, near_match

Sparsifier = Literal["none", "magnitude", "random", "outliers", "rank"]
Rescale = Literal["none", "l1", "density"]
SignElection = Literal["weighted", "unweighted"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One merge method.

    Attributes:
        name: as users write it.
        family: `average`, `sphere`, `task`, `stock`, `sce` or `copy`: which code computes it.
        needs_base: whether a base model is required; nuslerp takes one if it is given.
        least: fewest sources beside the base.
        most: most sources; None: any number.
        sparsifier: what is dropped from each d_i.
        consensus: whether signs are elected.
        normalize: default of the setting of that name.
        rescale: default of the setting of that name.
        permutation_equivariant: reordering the elements of all inputs reorders the output alike.
    """

    name: str
    family: Literal["average", "sphere", "task", "stock", "sce", "copy"]
    needs_base: bool = False
    least: int = 1
    most: int | None = None
    sparsifier: Sparsifier = "none"
    consensus: bool = False
    normalize: bool = False
    rescale: Rescale = "none"
    permutation_equivariant: bool = True

    @property
    def uses_density(self) -> bool:
        """Whether densities change its result."""
        return self.sparsifier != "none" or self.family == "sce"

    @property
    def is_random(self) -> bool:
        """Whether it draws masks."""
        return self.sparsifier in ("random", "rank")


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """Settings of a method; a field is read only by the methods named with it.

    Attributes:
        normalize: divide by the weights that took part (task family; linear).
        scale: lambda, the factor of the merged change (task family), or of the tensor (passthrough).
        rescale: how the mass that random dropping removed is restored: `l1` keeps the tensor's L1 norm (as
            mergekit does), `density` divides by the density (as the DARE paper does), `none` does not.
        sign_election: `weighted` elects on w_i d_i (as mergekit), `unweighted` on d_i (as the TIES paper).
        gamma: share of the largest changes that breadcrumbs drop.
        epsilon: half the range of della's keep probabilities.
        t: position between the two models of slerp, 0 is the base.
        max_iterations: most steps of karcher's fixed-point iteration.
    """

    normalize: bool = True
    scale: float = 1.0
    rescale: Rescale = "none"
    sign_election: SignElection = "weighted"
    gamma: float = 0.01
    epsilon: float = 0.15
    t: float = 0.5
    max_iterations: int = 100

    def __post_init__(self) -> None:
        """Raises: MergeError: a value outside its range."""
        if self.rescale not in get_args(Rescale):
            raise MergeError(f"rescale is {self.rescale!r}; allowed: {', '.join(get_args(Rescale))}")
        if self.sign_election not in get_args(SignElection):
            raise MergeError(f"sign_election is {self.sign_election!r}; allowed: {', '.join(get_args(SignElection))}")
        for name, low, high in (("gamma", 0.0, 1.0), ("epsilon", 0.0, 0.5), ("t", 0.0, 1.0)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise MergeError(f"{name} is {value!r}; it must lie in [{low:g}, {high:g}]")
        if self.max_iterations < 1:
            raise MergeError(f"max_iterations is {self.max_iterations!r}; it must be at least 1")


SETTING_NAMES = tuple(field.name for field in fields(MergeSettings))


def _task(name: str, sparsifier: Sparsifier = "none", **more: object) -> Method:
    return Method(name=name, family="task", needs_base=True, sparsifier=sparsifier, **more)  # type: ignore[arg-type]


@cache
def methods() -> dict[str, Method]:
    """All methods by name."""
    drawn: dict[str, object] = {"rescale": "l1", "permutation_equivariant": False}
    entries = [
        Method(name="linear", family="average", normalize=True),
        Method(name="slerp", family="sphere", least=2, most=2),
        Method(name="nuslerp", family="sphere", least=2, most=2),
        _task("task_arithmetic"),
        _task("ties", "magnitude", consensus=True, normalize=True),
        _task("dare_linear", "random", **drawn),
        _task("dare_ties", "random", consensus=True, **drawn),
        _task("breadcrumbs", "outliers"),
        _task("breadcrumbs_ties", "outliers", consensus=True),
        _task("della", "rank", consensus=True, normalize=True, **drawn),
        _task("della_linear", "rank", **drawn),
        Method(name="model_stock", family="stock", needs_base=True, least=2),
        Method(name="sce", family="sce", needs_base=True),
        Method(name="karcher", family="sphere"),
        Method(name="passthrough", family="copy", most=1),
    ]
    return {entry.name: entry for entry in entries}


def method(name: str) -> Method:
    """The method called `name`.

    Raises:
        MergeError: there is none; the message lists near matches and all names.
    """
    known = methods()
    if name not in known:
        raise MergeError(f"unknown merge_method {name!r}{near_match(name, known)} Known: {', '.join(known)}")
    return known[name]
