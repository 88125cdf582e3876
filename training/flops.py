"""Matrix FLOPs: counted analytically for the reference, measured for a candidate.

A multiply and an add are two FLOPs; only matrix products count (embedding look-ups, norms,
GELU and softmax are left out, as torch's counter leaves them out). Causal attention is
counted over the full T x T square, which is what the plain form computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.run_spec import RunSpec

if TYPE_CHECKING:
    from torch import Tensor

    from models.language_model import LanguageModel


def forward_flops(*, d_model: int, n_layers: int, vocab_size: int, seq_len: int) -> int:
    """FLOPs of one forward pass over one sequence of `seq_len` tokens with softmax attention.

    A layer has 12 d^2 weights a token in its six projections and two T x T products; the head
    multiplies by the embedding.
    """
    projections = 2 * seq_len * 12 * d_model**2
    attention = 2 * 2 * seq_len**2 * d_model
    head = 2 * seq_len * d_model * vocab_size
    return n_layers * (projections + attention) + head


def training_flops(spec: RunSpec) -> int:
    """FLOPs of a whole run with softmax attention: three times the forward (the backward is twice it)."""
    sequences = spec.steps * spec.batch_size
    forward = forward_flops(
        d_model=spec.d_model, n_layers=spec.n_layers, vocab_size=spec.vocab_size, seq_len=spec.seq_len
    )
    return 3 * forward * sequences


def measured_flops(model: LanguageModel, x: Tensor, y: Tensor) -> int:
    """FLOPs of one forward and backward of the loss, counted by torch while they run.

    The model's gradients are not kept and the global random state is put back; its buffers may
    move if the candidate moves them. Products whose count torch does not know are not counted.

    Args:
        model: any language model.
        x: tokens (B, T).
        y: targets (B, T).
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from training.fused_loss import fused_linear_cross_entropy

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    counter = FlopCounterMode(display=False)
    # Fused attention kernels are unknown to the counter on CPU and counted with recomputation on GPU.
    with torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH), counter:
        loss = fused_linear_cross_entropy(model.hidden(x), model.embedding.weight, y, ignore_index=None)
        torch.autograd.grad(loss, parameters, allow_unused=True)
    return int(counter.get_total_flops())
