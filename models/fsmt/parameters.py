"""What an FSMT model's parameters are, and which of them evolve.

Choices: only matrices evolve: attention and feed-forward projections, and embedding tables. Biases, layer norms and
the sinusoidal positions stay frozen always. A tied table is one parameter with up to three uses, all perturbed alike.
`lora` evolves the attention projections; `full` all matrices; otherwise shell patterns (`*.encoder.*.fc?.weight`)
choose. Counts are taken from the built model, never estimated.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from models.fsmt.configuration import FsmtShape, fsmt_config
from models.fsmt.error import TranslationError, nearest

Part = Literal["attention", "feed_forward", "table", "position", "norm", "bias"]
EVOLVABLE: tuple[Part, ...] = ("attention", "feed_forward", "table")
MODES = ("lora", "full")
_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True, kw_only=True)
class Use:
    """One module that reads a matrix.

    Attributes:
        module: its name in the model.
        kind: `linear` or `embedding`.
        batch_dim: where the batch stands in its input: 1 inside layers (T, batch, E), 0 elsewhere.
    """

    module: str
    kind: Literal["linear", "embedding"]
    batch_dim: int


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One matrix that can evolve.

    Attributes:
        name: of the parameter; a tied table has the name of its first use.
        part: what it is.
        stack: "encoder" or "decoder"; a table that both read counts as "both".
        shape: (out, in).
        uses: the modules that read it.
    """

    name: str
    part: Part
    stack: str
    shape: tuple[int, int]
    uses: tuple[Use, ...]

    @property
    def count(self) -> int:
        """Entries of the matrix."""
        return self.shape[0] * self.shape[1]


def matrices(model: nn.Module) -> list[Matrix]:
    """Every matrix of an FSMT model that can evolve, in the model's order; tied ones once."""
    uses: dict[int, list[Use]] = {}
    names: dict[int, tuple[str, torch.Tensor]] = {}
    for module_name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            inside = ".layers." in module_name
            use = Use(module=module_name, kind="linear", batch_dim=1 if inside else 0)
        elif type(module) is nn.Embedding:  # not the sinusoidal positions, a subclass
            use = Use(module=module_name, kind="embedding", batch_dim=0)
        else:
            continue
        uses.setdefault(id(module.weight), []).append(use)
        names.setdefault(id(module.weight), (f"{module_name}.weight", module.weight))
    return [_matrix(name, weight, tuple(uses[key])) for key, (name, weight) in names.items()]


def _matrix(name: str, weight: torch.Tensor, uses: tuple[Use, ...]) -> Matrix:
    stacks = {"encoder" if ".encoder." in f".{use.module}" else "decoder" for use in uses}
    out, n_in = weight.shape
    return Matrix(
        name=name,
        part=_part(name, weight),
        stack=stacks.pop() if len(stacks) == 1 else "both",
        shape=(out, n_in),
        uses=uses,
    )


def _part(name: str, parameter: torch.Tensor) -> Part:
    if "embed_positions" in name:
        return "position"
    if "layer_norm" in name:
        return "norm"
    if parameter.dim() == 1:
        return "bias"
    if "embed_tokens" in name or "output_projection" in name:
        return "table"
    return "attention" if any(f".{projection}." in name for projection in _ATTENTION) else "feed_forward"


def select(model: nn.Module, mode: str, patterns: Sequence[str] | None = None) -> list[Matrix]:
    """The matrices that evolve.

    Args:
        model: an FSMT model.
        mode: one of MODES; not read where patterns are given.
        patterns: shell patterns of parameter names; a matrix evolves when any of them matches.

    Raises:
        TranslationError: unknown mode, a pattern that matches nothing, or nothing left to evolve.
    """
    found = matrices(model)
    if patterns is None:
        if mode not in MODES:
            raise TranslationError(f"unknown mode {mode!r}{nearest(mode, MODES) or ';'} allowed: {', '.join(MODES)}")
        return [matrix for matrix in found if mode == "full" or matrix.part == "attention"]
    names = [matrix.name for matrix in found]
    if not patterns:
        raise TranslationError(
            "the list of patterns is empty, so every parameter is frozen; give at least one, such as *.q_proj.weight"
        )
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            hint = nearest(pattern, names)
            raise TranslationError(
                f"pattern {pattern!r} matches none of the {len(names)} matrices, so it leaves everything frozen"
                f"{hint or ';'} they are named like {names[0]}, {names[1]}"
            )
    return [matrix for matrix in found if any(fnmatch.fnmatchcase(matrix.name, pattern) for pattern in patterns)]


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Entries per part and stack, such as {"encoder attention": ..., "table": ...}; tied tables once."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = _part(name, parameter)
        stack = "" if part in ("table", "position") else "encoder " if ".encoder." in name else "decoder "
        counts[f"{stack}{part}"] = counts.get(f"{stack}{part}", 0) + parameter.numel()
    return counts


def analyse(
    model: nn.Module, patterns: Sequence[str] | None = None, *, rank: int = 1, members: int = 256
) -> dict[str, Any]:
    """Measured counts of a model: per part, evolved and frozen under each mode, and the size of the noise.

    Args:
        model: an FSMT model; one on the meta device costs no memory.
        patterns: a further selection to count, see `select`.
        rank: of the low-rank noise.
        members: population the noise is counted for; antithetic, so half as many pairs are drawn.

    Returns:
        JSON values: `total`, `parts`, `modes` -> {matrices, evolved, frozen, low_rank_noise_bytes,
        full_rank_noise_bytes}; bytes are fp32 of all pairs.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    modes: dict[str, list[Matrix]] = {mode: select(model, mode) for mode in MODES}
    if patterns is not None:
        modes["patterns"] = select(model, "lora", patterns)
    table: dict[str, Any] = {}
    for mode, chosen in modes.items():
        evolved = sum(matrix.count for matrix in chosen)
        thin = sum(sum(matrix.shape) for matrix in chosen)
        table[mode] = {
            "matrices": len(chosen),
            "evolved": evolved,
            "frozen": total - evolved,
            "low_rank_noise_bytes": 4 * rank * thin * (members // 2),
            "full_rank_noise_bytes": 4 * evolved * (members // 2),
        }
    return {"total": total, "parts": count_parameters(model), "modes": table, "rank": rank, "members": members}


def meta_model(shape: FsmtShape, langs: tuple[str, str] = ("en", "de")) -> nn.Module:
    """A model without storage, for counting."""
    from transformers import FSMTForConditionalGeneration

    with torch.device("meta"):
        model = FSMTForConditionalGeneration(fsmt_config(shape, langs))
    model.tie_weights()
    return model  # type: ignore[no-any-return]  # transformers is not typed
