"""Precision by capability: bf16 where the hardware multiplies it natively and training gains, else fp32."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from training.run_spec import DeviceKind, Precision


def choose_device(requested: str) -> DeviceKind:
    """`cpu` or `cuda`; `auto` takes a GPU where there is one.

    Raises:
        ValueError: another name, or `cuda` where there is no GPU.
    """
    if requested not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device {requested!r} is unknown; allowed: auto, cpu, cuda")
    if requested == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if requested == "cuda":
        raise ValueError("device 'cuda' was asked for and no CUDA device is available; use 'cpu' or 'auto'")
    return "cpu"


def choose_precision(device: torch.device | str) -> tuple[Precision, str]:
    """The precision to train with on `device`, and why.

    CPUs always get fp32: without bf16 instructions a bf16 product is emulated, hundreds of times
    slower, and with them small products gain nothing.
    """
    import torch

    device = torch.device(device)
    if device.type != "cuda":
        return "fp32", f"{device.type}: bf16 is emulated or no faster here"
    if not torch.cuda.is_available():
        return "fp32", "no CUDA device is available"
    major, minor = torch.cuda.get_device_capability(device)
    name = torch.cuda.get_device_name(device)
    if major >= 8:
        return "bf16", f"{name} (compute capability {major}.{minor}) multiplies bf16 natively"
    return "fp32", f"{name} (compute capability {major}.{minor}) has no native bf16, which needs 8.0"
