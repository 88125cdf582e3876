"""Test-time regression: attention as a regression that is fitted anew at every position.

Wang et al. 2025 (arXiv 2501.12352). The keys and values seen so far are a data set; the
layer fits m_t = argmin_m 1/2 sum_{i<=t} g_i^(t) |v_i - m(k_i)|^2 and answers the query
with y_t = m_t(q_t). What may differ is the weight g of each pair, the class of functions
m, and the optimiser. Softmax attention is the local-constant (Nadaraya-Watson) fit with
an exponential kernel and equal weights; linear attention is one step of least squares
from zero; DeltaNet is online gradient descent; Longhorn is the implicit step.
"""

from __future__ import annotations

import math  # noqa: F401  (offered to the block)

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from frameworks.attention.shell import AttentionShell


class StandardTestTimeRegression(AttentionShell):
    """Nadaraya-Watson regression with kernel exp(q^T k / sqrt(D)) and equal weights, fused."""

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


# EVOLVE-BLOCK-START
class Regressor(nn.Module):
    """m_t = argmin_m 1/2 sum_{i<=t} g_i^(t) |v_i - m(k_i)|^2, answered at the query: y_t = m_t(q_t)."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim

    def signals(self, x, q, k, v):
        """Query points q and training pairs (k, v): x (B, T, C) and three (B, H, T, D) to three (B, H, T, D)."""
        return q, k, v

    def log_kernel(self, x, q, k):
        """log K(q_t, k_i), how near each training point is to the query: (B, H, T, T)."""
        bandwidth = self.head_dim**0.5
        s = q @ k.transpose(-1, -2) / bandwidth
        return s

    def log_weights(self, x, k):
        """log g_i^(t), how much pair i still counts at time t: (B, H, T, T) or (H, T, T); None for equal weights."""
        return None

    def fit(self, s, v):
        """The local-constant fit: weights exp(s), s (B, H, T, T) is -inf outside the past; values v (B, H, T, D)."""
        w = torch.exp(s - s.amax(-1, keepdim=True))
        return (w @ v) / w.sum(-1, keepdim=True)

    def predict(self, x, v, y):
        """The answers y (B, H, T, D) as they leave the regression."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        s = self.log_kernel(x, q, k)
        log_g = self.log_weights(x, k)
        if log_g is not None:
            s = s + log_g
        past = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).tril()
        y = self.fit(s.masked_fill(~past, float("-inf")), v)
        return self.predict(x, v, y)


# EVOLVE-BLOCK-END


class EvolvableTestTimeRegression(AttentionShell):
    """The shell around the evolvable block."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__(d_model, n_heads)
        self.mixer = Regressor(d_model=d_model, n_heads=n_heads, head_dim=self.head_dim)

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.mixer(x, q, k, v)
