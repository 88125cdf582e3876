from __future__ import annotations

import pytest
import torch

from training.precision import choose_device, choose_precision


def test_a_cpu_gets_fp32_and_the_reason() -> None:
    precision, reason = choose_precision("cpu")
    assert precision == "fp32"
    assert "cpu" in reason
    assert choose_precision(torch.device("cpu")) == (precision, reason)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gets_what_it_multiplies_natively() -> None:
    precision, reason = choose_precision("cuda")
    native = torch.cuda.get_device_capability()[0] >= 8
    assert precision == ("bf16" if native else "fp32")
    assert torch.cuda.get_device_name() in reason


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_not_there() -> None:
    assert choose_precision("cuda") == ("fp32", "no CUDA device is available")
    assert choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match="no CUDA device is available; use 'cpu' or 'auto'"):
        choose_device("cuda")


def test_devices_have_names() -> None:
    assert choose_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="device 'gpu' is unknown; allowed: auto, cpu, cuda"):
        choose_device("gpu")
