"""Softmax mixing on features after a long causal convolution, by FFT with zero padding.

kind: honest
expected: any
paper: the honest counterpart of the control unpadded_fft_mixer
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Mixer(nn.Module):
    """Softmax M on features plus their long decaying convolution, the Toeplitz product done by a padded FFT."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.gain = nn.Parameter(torch.full((n_heads, 1, 1), 0.1))
        self.rate = nn.Parameter(torch.logspace(0, -3, n_heads, base=2.0).view(n_heads, 1, 1))

    def signals(self, x, q, k, v):
        """Generators q, k and features v plus their long convolution: three (B, H, T, D)."""
        length = v.shape[-2]
        time = torch.arange(length, device=v.device, dtype=self.rate.dtype).view(1, length, 1)
        kernel = self.gain * torch.exp(-F.softplus(self.rate) * time)  # (H, T, 1)
        size = 2 * length  # room for the whole linear convolution, so that nothing wraps round
        spectrum = torch.fft.rfft(v.to(self.rate.dtype), n=size, dim=-2) * torch.fft.rfft(kernel, n=size, dim=-2)
        long = torch.fft.irfft(spectrum, n=size, dim=-2)[..., :length, :]
        return q, k, v + long.to(v.dtype)

    def factors(self, x, q, k):
        """The low-rank factors L and R with M built from L R^T: two (B, H, T, D)."""
        left = q * self.head_dim**-0.5
        right = k
        return left, right

    def structure(self, x, length):
        """A structured term added to L R^T, (H, T, T) or (B, H, T, T), such as a Toeplitz matrix; None for none."""
        return None

    def entries(self, s, lower):
        """Turn s (B, H, T, T) into the entries of M, zero wherever `lower` (T, T) is false."""
        s = s.masked_fill(~lower, float("-inf"))
        m = torch.softmax(s, dim=-1)
        return m

    def mixing_matrix(self, x, q, k):
        """M(X): (B, H, T, T)."""
        left, right = self.factors(x, q, k)
        s = left @ right.transpose(-1, -2)
        toeplitz = self.structure(x, s.shape[-1])
        if toeplitz is not None:
            s = s + toeplitz
        lower = torch.ones(s.shape[-1], s.shape[-1], dtype=torch.bool, device=s.device).tril()
        return self.entries(s, lower)

    def output(self, x, v, y):
        """The mixed features y (B, H, T, D) as they leave the mixer."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        y = self.mixing_matrix(x, q, k) @ v
        return self.output(x, v, y)
