"""The paper's data-flow space (DFS): weights stay as they are, what evolves is the path a token takes through layers.

Akiba et al. 2024 (arXiv 2403.13187), section 3.2. All layers of all models stand in one row of M; the row is repeated r
times, and the indicators I in R^(M r) put layer i mod M on the path where I_i > 0. What enters layer j from layer i is
multiplied by W_ij, because a layer is not made for another's output; the first hop is not scaled. The first model's
embeddings, first and last layer, norm and head are the ends of every path. A candidate shares its layers with the
models it comes from: it has no weights of its own.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from frameworks.merging.merge_error import MergeError

Vector = NDArray[np.float64]
WMode = Literal["full", "per_hop", "none"]


@dataclass(frozen=True, kw_only=True)
class Path:
    """A way through layers.

    Attributes:
        layers: layer numbers in the row of all models' layers, ends included.
        scales: factor of what enters each of them; the first is 1.
    """

    layers: tuple[int, ...]
    scales: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class DataFlow:
    """Paths through fixed models.

    Attributes:
        n_models: how many; the first one has the ends.
        n_layers: of each.
        repetitions: r.
        w_mode: `full`: one scale for each pair of layers, M x M; `per_hop`: one for each place of the row, M r;
            `none`: all 1.
        scale_range: bounds of 1 + parameter.
        start: indicator of the first model's layers in the first repetition, at the start of a search; the others
            start at minus that.
    """

    n_models: int
    n_layers: int
    repetitions: int = 1
    w_mode: WMode = "per_hop"
    scale_range: tuple[float, float] = (0.5, 1.5)
    start: float = 0.25

    def __post_init__(self) -> None:
        """Raises: MergeError: a value outside its range."""
        if self.w_mode not in ("full", "per_hop", "none"):
            raise MergeError(f"w_mode is {self.w_mode!r}; allowed: full, per_hop, none")
        for name, least in (("n_models", 1), ("n_layers", 2), ("repetitions", 1)):
            if getattr(self, name) < least:
                raise MergeError(f"{name} is {getattr(self, name)!r}; a data flow needs at least {least}")

    @property
    def row(self) -> int:
        """M: layers of all models."""
        return self.n_models * self.n_layers

    @property
    def n_indicators(self) -> int:
        """T = M r."""
        return self.row * self.repetitions

    @property
    def n_dimensions(self) -> int:
        """Length of a vector: indicators, then scales."""
        return self.n_indicators + {"full": self.row**2, "per_hop": self.n_indicators, "none": 0}[self.w_mode]

    def start_vector(self) -> Vector:
        """A vector in [0, 1] whose path is the first model itself."""
        vector = np.full(self.n_dimensions, 0.5)
        vector[: self.n_indicators] = 0.5 - self.start / 2
        vector[: self.n_layers] = 0.5 + self.start / 2
        low, high = self.scale_range
        vector[self.n_indicators :] = (1.0 - low) / (high - low)
        return vector

    def decode(self, vector: Vector) -> Path:
        """The path of a vector in [0, 1]; an indicator is above zero where its value is above one half.

        Raises:
            MergeError: another length, or a value that is not finite.
        """
        if len(vector) != self.n_dimensions or not np.isfinite(vector).all():
            raise MergeError(f"expected {self.n_dimensions} finite values, got {vector!r:.80}")
        first, last = 0, self.n_layers - 1
        places = [place for place in range(self.n_indicators) if vector[place] > 0.5]
        # the ends are always there, so the first model's own first and last layer are not walked twice in a row
        inner = [place for place in places if place != first and place != last]
        layers = [first, *(place % self.row for place in inner), last]
        low, high = self.scale_range
        raw = low + (high - low) * vector[self.n_indicators :]
        scales = [1.0]
        for hop, (before, after) in enumerate(itertools.pairwise(layers), start=1):
            if self.w_mode == "full":
                scales.append(float(raw[before * self.row + after]))
            elif self.w_mode == "per_hop":
                scales.append(float(raw[inner[hop - 1] if hop <= len(inner) else last]))
            else:
                scales.append(1.0)
        return Path(layers=tuple(layers), scales=tuple(round(scale, 6) for scale in scales))


class ScaledLayer(nn.Module):
    """A decoder layer whose input is multiplied by a number first.

    Args:
        layer: the layer, shared, not copied.
        scale: the factor.
        position: its place on the path, which is its place in the key-value cache.
    """

    def __init__(self, layer: nn.Module, scale: float, position: int) -> None:
        super().__init__()
        self.layer = _at_position(layer, position)
        self.scale = scale

    def forward(self, hidden_states: Tensor, *arguments: Any, **named: Any) -> Any:
        """As the layer's own forward: (B, T, C) to what the layer gives."""
        scaled = hidden_states if self.scale == 1.0 else hidden_states * self.scale
        return self.layer(scaled, *arguments, **named)


def _shallow(module: nn.Module) -> Any:
    """A copy of a module that shares parameters and sub-modules but not the tables that name them."""
    twin = copy.copy(module)
    twin.__dict__ = dict(module.__dict__)
    for table in ("_modules", "_parameters", "_buffers"):
        twin.__dict__[table] = dict(module.__dict__[table])
    return twin


def _at_position(layer: nn.Module, position: int) -> nn.Module:
    """The layer with its attention at another place of the key-value cache; weights are shared."""
    twin = _shallow(layer)
    for name, child in layer.named_children():
        if hasattr(child, "layer_idx"):
            moved = _shallow(child)
            moved.layer_idx = position
            twin._modules[name] = moved
    return twin  # type: ignore[no-any-return]


def dataflow_model(models: Sequence[Any], path: Path) -> Any:
    """A model that runs tokens along a path; it has `generate` and shares all weights.

    Args:
        models: transformers causal language models of one architecture, with their layers in `model.layers`.
        path: layers counted through all of them.

    Raises:
        MergeError: a model of another build, or a layer that does not exist.
    """
    rows = []
    for number, model in enumerate(models, 1):
        layers = getattr(getattr(model, "model", None), "layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise MergeError(f"model {number} ({type(model).__name__}) has no model.layers; a data flow cannot run it")
        rows += list(layers)
    beyond = [layer for layer in path.layers if not 0 <= layer < len(rows)]
    if beyond:
        raise MergeError(f"the path has layer {beyond[0]}; the models have {len(rows)} layers in all")
    if len(path.scales) != len(path.layers):
        raise MergeError(f"the path has {len(path.layers)} layers and {len(path.scales)} scales; they must be as many")
    shell = _shallow(models[0])
    inner = _shallow(models[0].model)
    config = copy.deepcopy(models[0].config)
    config.num_hidden_layers = len(path.layers)
    if getattr(config, "layer_types", None) is not None:
        kinds = [kind for model in models for kind in model.config.layer_types]
        config.layer_types = [kinds[layer] for layer in path.layers]
    steps = zip(path.layers, path.scales, strict=True)
    inner._modules["layers"] = nn.ModuleList(
        ScaledLayer(rows[layer], scale, position) for position, (layer, scale) in enumerate(steps)
    )
    inner.config = config
    shell.config = config
    shell._modules["model"] = inner
    return shell.eval()


def naive_dataflow_logits(models: Sequence[Any], path: Path, input_ids: Tensor) -> Tensor:
    """The oracle: every layer called in turn, no cache, no padding. input_ids (B, T) to logits (B, T, V)."""
    import torch

    first = models[0].model
    rows = [layer for model in models for layer in model.model.layers]
    hidden = first.embed_tokens(input_ids)
    length = input_ids.shape[1]
    positions = torch.arange(length).unsqueeze(0)
    rotary = first.rotary_emb(hidden, position_ids=positions)
    mask = torch.full((length, length), float("-inf")).triu(1)[None, None]
    for layer, scale in zip(path.layers, path.scales, strict=True):
        hidden = rows[layer](hidden * scale, attention_mask=mask, position_embeddings=rotary, position_ids=positions)
    logits: Tensor = models[0].lm_head(first.norm(hidden))
    return logits
