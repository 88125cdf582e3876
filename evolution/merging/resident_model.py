"""One model in memory whose weights are written in place, candidate after candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evolution.merging.checkpoint import Checkpoint, find_model
from evolution.merging.compatibility import check_compatible
from evolution.merging.merge_plan import merged, plan_merge
from evolution.merging.recipe import MergeRecipe
from frameworks.merging.flat_tensor import FlatTensor, InMemory
from frameworks.merging.merge_error import MergeError
from frameworks.merging.top_magnitudes import CutCache

KEPT_ELEMENTS = 200_000_000
"""Sources with at most this many elements in all are kept in memory; larger ones are read by slice each time."""


class SourceModels:
    """The models of a search, opened once; a context manager.

    Args:
        names: paths or names on the hub, the base first where there is one.

    Attributes:
        names: as given.
        tensors: model -> name -> tensor.

    Raises:
        MergeError: they cannot be merged with each other; only headers are read before that is known.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(dict.fromkeys(names))
        self._stack = ExitStack()
        try:
            self.checkpoints = {name: self._stack.enter_context(Checkpoint(find_model(name))) for name in self.names}
            probe = MergeRecipe.model_validate(
                {"merge_method": "linear", "models": [{"model": name} for name in self.names]}
            )
            check_compatible(probe, self.checkpoints)
        except BaseException:
            self._stack.close()
            raise
        size = sum(math.prod(t.shape) for checkpoint in self.checkpoints.values() for t in checkpoint.tensors.values())
        keep = size <= KEPT_ELEMENTS
        self.tensors: dict[str, dict[str, FlatTensor]] = {
            name: {key: InMemory(tensor.whole()) if keep else tensor for key, tensor in checkpoint.tensors.items()}
            for name, checkpoint in self.checkpoints.items()
        }
        self._cuts = CutCache()

    def __enter__(self) -> SourceModels:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def n_layers(self) -> int:
        """Layers of every model."""
        return self.checkpoints[self.names[0]].n_layers

    def folder(self, name: str) -> Path:
        """Where a model's config and tokenizer are."""
        return self.checkpoints[name].folder

    def load(self, name: str) -> Any:
        """A fresh transformers model with the weights of `name`, in fp32."""
        from transformers import AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # one bar a model would bury the search's own lines
        return AutoModelForCausalLM.from_pretrained(self.folder(name), dtype=torch.float32).eval()

    def tokenizer(self) -> Any:
        """The tokenizer of the first model that has one.

        Raises:
            MergeError: none has one.
        """
        from transformers import AutoTokenizer

        for name in self.names:
            if self.checkpoints[name].tokenizer_files():
                return AutoTokenizer.from_pretrained(self.folder(name))
        raise MergeError(f"none of {', '.join(self.names)} has a tokenizer beside its weights")

    def write(self, recipe: MergeRecipe, model: Any) -> None:
        """Merge by `recipe` into the weights of `model`, in place.

        Raises:
            MergeError: the merge fails; the model then holds a mixture and must be written again before use.
        """
        targets = _weights_by_name(model)
        with torch.no_grad():
            for plan in plan_merge(recipe, self.tensors):
                target = targets.get(plan.name)
                if target is None:
                    raise MergeError(
                        f"the model has no weight {plan.name!r}; {', '.join(list(targets)[:3])}, ... exist"
                    )
                flat = target.view(-1)
                start = 0
                for piece in merged(recipe, plan, self._cuts):
                    flat[start : start + len(piece)] = piece.to(flat.dtype)
                    start += len(piece)

    def merged_model(self, recipe: MergeRecipe) -> Any:
        """A fresh model with the merged weights; raises as `write` does."""
        model = self.load(self.names[0])
        self.write(recipe, model)
        return model


def _weights_by_name(model: Any) -> Mapping[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_contiguous()}
