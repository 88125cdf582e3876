"""Ridge regression on all past pairs, solved by three Richardson steps at the query.

kind: honest
expected: any
paper: von Oswald et al. 2023 (mesa-optimization), arXiv 2309.05858
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Regressor(nn.Module):
    """Linear model, ridge loss: y_t = V_t K_t^T (K_t K_t^T + r I)^-1 q_t, the inverse by Richardson iteration."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.ridge = nn.Parameter(torch.zeros(n_heads, 1, 1))
        self.steps = 3

    def signals(self, x, q, k, v):
        """Queries and keys of unit length: three (B, H, T, D)."""
        return F.normalize(q, dim=-1), F.normalize(k, dim=-1), v

    def fit(self, q, k, v):
        """Answers of the mean-squared ridge fit: (B, H, T, D)."""
        count = torch.arange(1, k.shape[-2] + 1, device=k.device).to(k.dtype).unsqueeze(-1)
        ridge = F.softplus(self.ridge)
        z = q / (1.0 + ridge)  # the eigenvalues of the mean of k k^T lie in [0, 1]
        for _ in range(self.steps):
            applied = ((z @ k.transpose(-1, -2)).tril() @ k) / count + ridge * z
            z = z + (q - applied) / (1.0 + ridge)
        return ((z @ k.transpose(-1, -2)).tril() @ v) / count

    def predict(self, x, v, y):
        """Each head at unit root mean square: (B, H, T, D)."""
        return F.rms_norm(y, (self.head_dim,), eps=1e-6)

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        return self.predict(x, v, self.fit(q, k, v))
