"""AdamW over flat buffers: clipping and the update are a handful of calls, however many parameters there are.

Every parameter becomes a view into one of at most two flat tensors (decayed matrices, everything
else), its gradient a view into a flat gradient that the backward adds into. On a small model on
one CPU thread the step is bound by the number of calls, and this removes some two hundred.
Each parameter starts on a 64-byte boundary, so the layout, and with it every rounding, is the
same in every process.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from training.run_spec import RunSpec

_ALIGNMENT = 16
"""Elements; 64 bytes in fp32."""


class FlatAdamW:
    """AdamW (Loshchilov & Hutter 2019) with the gradient clipped by its global norm.

    Args:
        parameters: the model's parameters, on their final device; their storage is replaced.
        spec: betas, weight decay and clip.

    Raises:
        ValueError: no trainable parameters.
        TypeError: a trainable parameter is not fp32.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], spec: RunSpec) -> None:
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        if not trainable:
            raise ValueError("the model has no trainable parameters")
        for parameter in trainable:
            if parameter.dtype != torch.float32:
                raise TypeError(
                    f"a trainable parameter of shape {tuple(parameter.shape)} is {parameter.dtype}; "
                    "only torch.float32 is trained"
                )
        self.clip = spec.clip
        decays = [parameter.ndim >= 2 and spec.weight_decay > 0 for parameter in trainable]
        self._groups = []
        settings = []
        for decayed in (True, False):
            members = [parameter for parameter, decay in zip(trainable, decays, strict=True) if decay == decayed]
            if members:
                flat = _flatten(members)
                self._groups.append(flat)
                settings.append({"params": [flat], "weight_decay": spec.weight_decay if decayed else 0.0})
        self._adamw = torch.optim.AdamW(
            settings, lr=spec.learning_rate, betas=(spec.beta1, spec.beta2), eps=1e-8, fused=True
        )

    def zero_grad(self) -> None:
        """Set every gradient to zero, in place."""
        for flat in self._groups:
            _gradient(flat).zero_()

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Clip and update. Nothing is read back from the device."""
        if self.clip > 0:
            gradients = [_gradient(flat) for flat in self._groups]
            norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
            norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
            factor = (self.clip / (norm + 1e-6)).clamp_(max=1.0)
            for gradient in gradients:
                gradient.mul_(factor)
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()

    def state(self) -> dict[str, Tensor]:
        """The moments and step counts by name, for a checkpoint; empty before the first step."""
        return {
            f"{index}.{name}": value
            for index, flat in enumerate(self._groups)
            for name, value in self._adamw.state[flat].items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave.

        Raises:
            ValueError: it belongs to other parameters.
        """
        for name, value in state.items():
            index, _, moment = name.partition(".")
            if int(index) >= len(self._groups):
                raise ValueError(f"optimiser state has a group {index}; this model has {len(self._groups)}")
            flat = self._groups[int(index)]
            if value.ndim and value.shape != flat.shape:
                raise ValueError(f"optimiser state {name} has shape {tuple(value.shape)}, expected {tuple(flat.shape)}")
            self._adamw.state[flat][moment] = value.clone()


def _flatten(parameters: list[nn.Parameter]) -> nn.Parameter:
    """One flat parameter of which all `parameters` become views, in order, gradients likewise."""
    offsets = []
    length = 0
    for parameter in parameters:
        offsets.append(length)
        length += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
    flat = nn.Parameter(torch.zeros(length, dtype=torch.float32, device=parameters[0].device))
    flat.grad = torch.zeros_like(flat)
    for parameter, offset in zip(parameters, offsets, strict=True):
        here = slice(offset, offset + parameter.numel())
        view = flat.data[here].view(parameter.shape)
        view.copy_(parameter.data)
        parameter.data = view
        parameter.grad = flat.grad[here].view(parameter.shape)
    return flat


def _gradient(flat: nn.Parameter) -> Tensor:
    gradient = flat.grad
    if gradient is None:
        raise RuntimeError("a flat parameter lost its gradient")
    return gradient
