"""Run a candidate in float64 throughout, even where its text asks for float32.

Leak checks need float64: an honest FFT-based layer differs by 1e-5 in float32 from rounding alone, as much as a real
leak; in float64 the two are ten orders apart. Blocks write `.float()`, `dtype=torch.float32` or a bare `torch.zeros`,
correct in training, where the model is float32. Inside `double_precision()` all of these mean float64. Rewriting calls
costs 2 us a call; `names_narrow_dtype` tells whether a text needs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_WIDER: dict[Any, Any] = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}
_WIDER_METHODS: dict[Any, Callable[..., Tensor]] = {
    Tensor.float: Tensor.double,
    Tensor.half: Tensor.double,
    Tensor.bfloat16: Tensor.double,
    getattr(Tensor, "cfloat"): getattr(Tensor, "cdouble"),  # noqa: B009  (the stubs miss both)
}


class _Widen(TorchFunctionMode):
    """Replaces narrow dtypes in every call of torch by their double-precision counterparts."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        func = _WIDER_METHODS.get(func, func)
        if any(isinstance(row, torch.dtype) for row in args):
            args = tuple(_WIDER.get(row, row) if isinstance(row, torch.dtype) else row for row in args)
        if not kwargs:
            return func(*args)
        dtype = kwargs.get("dtype")
        if dtype in _WIDER:
            kwargs = {**kwargs, "dtype": _WIDER[dtype]}
        return func(*args, **kwargs)


_NARROW = re.compile(r"\.float\b|\b(float32|float16|half|bfloat16|complex64|cfloat)\b|from torch import")


def names_narrow_dtype(block: str) -> bool:
    """Whether the text of a block mentions a float narrower than float64."""
    return _NARROW.search(block) is not None


@contextmanager
def double_precision(widen: bool = True) -> Iterator[None]:
    """float64 as default dtype and, with `widen`, in place of every narrower float a candidate names.

    Both are restored on the way out.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widen() if widen else nullcontext():
            yield
    finally:
        torch.set_default_dtype(before)
