"""Keys carry the mean of the last completed block of 16.

kind: honest
expected: any
paper: the honest counterpart of the control block_summary
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Regressor(nn.Module):
    """The local-constant fit with keys that carry a summary of the block before their own."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.block = 16
        self.share = nn.Parameter(torch.full((n_heads, 1, 1), 0.1))

    def signals(self, x, q, k, v):
        """Query points q and pairs (k, v), keys with a share of the previous block's mean: three (B, H, T, D)."""
        batch, heads, length, dim = k.shape
        blocks = F.pad(k, (0, 0, 0, -length % self.block)).view(batch, heads, -1, self.block, dim)
        completed = F.pad(blocks.mean(-2, keepdim=True), (0, 0, 0, 0, 1, 0))[:, :, :-1]  # shifted by one block
        summary = completed.expand_as(blocks).reshape(batch, heads, -1, dim)
        return q, k + self.share * summary[..., :length, :], v

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
