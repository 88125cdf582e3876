"""Linear attention as one step of least squares from zero, averaged over the pairs.

kind: honest
expected: any
paper: von Oswald et al. 2023, arXiv 2212.07677
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Regressor(nn.Module):
    """Linear model, one gradient step from zero: m_t = (1 / t) sum_i v_i k_i^T, brought to unit scale."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim

    def signals(self, x, q, k, v):
        """Query points q and training pairs (k, v): three (B, H, T, D)."""
        return q, k, v

    def log_kernel(self, x, q, k):
        """The linear kernel itself, q_t^T k_i, with no exponential to follow: (B, H, T, T)."""
        return q @ k.transpose(-1, -2) * self.head_dim**-0.5

    def fit(self, s, v):
        """The mean of past targets weighted by s (B, H, T, T), zero outside the past: (B, H, T, D)."""
        count = torch.arange(1, s.shape[-1] + 1, device=s.device).to(s.dtype).unsqueeze(-1)
        return (s @ v) / count

    def predict(self, x, v, y):
        """Each head at unit root mean square: (B, H, T, D)."""
        return F.rms_norm(y, (self.head_dim,), eps=1e-6)

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        y = self.fit(self.log_kernel(x, q, k).tril(), v)
        return self.predict(x, v, y)
