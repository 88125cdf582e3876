"""Standard members against their recurrences, one token at a time in float64, outputs and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from frameworks.attention.controls.registry import control
from frameworks.registry import framework

B, H, T, D = 2, 3, 21, 5
C = H * D


def block_of(name: str) -> nn.Module:
    """The control's block with its parameters moved off their start."""
    entry = control(name)
    made = getattr(entry.program().load(), framework(entry.framework).block_class)(C, H, D).double()
    numbers = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=numbers, dtype=torch.float64))
    return made


def gates(linear: nn.Linear, x: Tensor) -> Tensor:
    return linear(x).transpose(1, 2)  # (B, H, T)


def scan(q: Tensor, step) -> Tensor:
    """Run `step(state, t) -> (state, y_t)` over time from a zero state (B, H, D, D), rows values and columns keys."""
    state = q.new_zeros(B, H, D, D)
    outputs = []
    for t in range(q.shape[-2]):
        state, y = step(state, t)
        outputs.append(y)
    return torch.stack(outputs, dim=-2)


def read(state: Tensor, query: Tensor) -> Tensor:
    return (state @ query.unsqueeze(-1)).squeeze(-1)


def outer(value: Tensor, key: Tensor) -> Tensor:
    return value.unsqueeze(-1) * key.unsqueeze(-2)


def linear_attention(block, x, q, k, v):
    q, k = F.elu(q) + 1, F.elu(k) + 1
    sums = torch.zeros(B, H, D, dtype=x.dtype)

    def step(state, t):
        nonlocal sums
        state, sums = state + outer(v[:, :, t], k[:, :, t]), sums + k[:, :, t]
        return state, read(state, q[:, :, t]) / ((sums * q[:, :, t]).sum(-1, keepdim=True) + 1e-6)

    return scan(q, step)


def retention(block, x, q, k, v):
    decay = (1 - 2.0 ** (-5 - torch.arange(H, dtype=x.dtype))).view(1, H, 1, 1)

    def step(state, t):
        state = decay * state + outer(v[:, :, t], k[:, :, t] / D**0.5)
        return state, F.rms_norm(read(state, q[:, :, t]), (D,))

    return scan(q, step)


def mamba2(block, x, q, k, v):
    dt = F.softplus(gates(block.step, x))
    decay = torch.exp(-torch.exp(block.log_rate).view(1, H, 1) * dt)
    q, k = F.silu(q), F.silu(k)

    def step(state, t):
        state = decay[:, :, t, None, None] * state + outer(v[:, :, t], dt[:, :, t, None] * k[:, :, t])
        return state, read(state, q[:, :, t]) + block.skip[:, 0] * v[:, :, t]

    return scan(q, step)


def gated_linear_attention(block, x, q, k, v):
    decay = torch.exp(-torch.sigmoid(block.gate * k + block.gate_bias) / 16)

    def step(state, t):
        state = state * decay[:, :, t, None, :] + outer(v[:, :, t], k[:, :, t] / D**0.5)
        return state, F.rms_norm(read(state, q[:, :, t]), (D,))

    return scan(q, step)


def matrix_lstm(block, x, q, k, v):
    forget, start = torch.sigmoid(gates(block.forget, x)), torch.exp(gates(block.start, x))
    sums = torch.zeros(B, H, D, dtype=x.dtype)

    def step(state, t):
        nonlocal sums
        key = start[:, :, t, None] * k[:, :, t] / D**0.5
        state = forget[:, :, t, None, None] * state + outer(v[:, :, t], key)
        sums = forget[:, :, t, None] * sums + key
        return state, read(state, q[:, :, t]) / (sums * q[:, :, t]).sum(-1, keepdim=True).abs().clamp(min=1.0)

    return scan(q, step)


def delta_net(block, x, q, k, v):
    b = torch.sigmoid(gates(block.rate, x))
    q, k = F.normalize(F.silu(q), dim=-1), F.normalize(F.silu(k), dim=-1)

    def step(state, t):
        error = v[:, :, t] - read(state, k[:, :, t])
        state = state + outer(b[:, :, t, None] * error, k[:, :, t])
        return state, F.rms_norm(read(state, q[:, :, t]), (D,))

    return scan(q, step)


def gated_delta_net(block, x, q, k, v):
    b, keep = torch.sigmoid(gates(block.rate, x)), torch.sigmoid(gates(block.keep, x))
    q, k = F.normalize(F.silu(q), dim=-1), F.normalize(F.silu(k), dim=-1)
    eye = torch.eye(D, dtype=x.dtype)

    def step(state, t):
        rate = b[:, :, t, None, None]
        state = keep[:, :, t, None, None] * state @ (eye - rate * outer(k[:, :, t], k[:, :, t]))
        state = state + rate * outer(v[:, :, t], k[:, :, t])
        return state, F.rms_norm(read(state, q[:, :, t]), (D,))

    return scan(q, step)


def longhorn(block, x, q, k, v):
    """The implicit step as defined, argmin_S |S - S_{t-1}|^2 + b |v - S k|^2, by its normal equations."""
    b = F.softplus(gates(block.rate, x))
    q, k = q / D**0.5, k / D**0.5
    eye = torch.eye(D, dtype=x.dtype)

    def step(state, t):
        rate = b[:, :, t, None, None]
        system = eye + rate * outer(k[:, :, t], k[:, :, t])
        state = torch.linalg.solve(system, state + rate * outer(v[:, :, t], k[:, :, t]), left=False)
        return state, F.rms_norm(read(state, q[:, :, t]), (D,))

    return scan(q, step)


def semiseparable_mixer(block, x, q, k, v):
    decay = torch.sigmoid(gates(block.gate, x))

    def step(state, t):
        state = decay[:, :, t, None, None] * state + outer(v[:, :, t], k[:, :, t])
        return state, read(state, q[:, :, t]) / D**0.5 + block.diagonal[:, 0] * v[:, :, t]

    return scan(q, step)


def low_rank_decay_mixer(block, x, q, k, v):
    decay = torch.exp(-F.softplus(block.rate)).view(1, H, 1, 1)
    q, k = F.elu(q) + 1, F.elu(k) + 1
    sums = torch.zeros(B, H, D, dtype=x.dtype)

    def step(state, t):
        nonlocal sums
        state = decay * state + outer(v[:, :, t], k[:, :, t])
        sums = decay[..., 0] * sums + k[:, :, t]
        return state, read(state, q[:, :, t]) / ((sums * q[:, :, t]).sum(-1, keepdim=True) + 1e-6)

    return scan(q, step)


def toeplitz_mixer(block, x, q, k, v):
    """A state of 8 numbers a channel, each with its own decay."""
    decay = torch.exp(-F.softplus(block.rates)).view(1, H, 1, 8)
    state = torch.zeros(B, H, D, 8, dtype=x.dtype)
    outputs = []
    for t in range(T):
        feature = torch.sigmoid(k[:, :, t]) * v[:, :, t]
        state = decay * state + feature.unsqueeze(-1)
        y = (state * block.amplitudes.view(1, H, 1, 8)).sum(-1) + block.diagonal * feature
        outputs.append(torch.sigmoid(q[:, :, t]) * y)
    return torch.stack(outputs, dim=-2)


def stick_breaking_attention(block, x, q, k, v):
    share = torch.sigmoid(q @ k.transpose(-1, -2) / D**0.5)
    outputs = []
    for t in range(T):
        left, y = torch.ones(B, H, 1, dtype=x.dtype), torch.zeros(B, H, D, dtype=x.dtype)
        for j in range(t, -1, -1):
            y = y + left * share[:, :, t, j, None] * v[:, :, j]
            left = left * (1 - share[:, :, t, j, None])
        outputs.append(y)
    return torch.stack(outputs, dim=-2)


def short_convolution_dynamics(block, x, q, k, v):
    return _softmax(*(_convolved(z, block.taps[part]) for part, z in enumerate((q, k, v))))


def _convolved(z: Tensor, taps: Tensor) -> Tensor:
    """Tap by tap: channel d of head h at time t, taps shared by groups of four channels, the last one is lag 0."""
    out = []
    for t in range(T):
        row = torch.zeros(B, H, D, dtype=z.dtype)
        for lag in range(min(4, t + 1)):
            own = torch.stack([taps[:, d // 4, 3 - lag] for d in range(D)], dim=-1)
            row = row + own * z[:, :, t - lag]
        out.append(row)
    return torch.stack(out, dim=-2)


def _softmax(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    scores = q @ k.transpose(-1, -2) / D**0.5 + bias
    return scores.masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(), float("-inf")).softmax(-1) @ v


def distance_bias_dynamics(block, x, q, k, v):
    bias = torch.tensor([[float(j - i) for j in range(T)] for i in range(T)], dtype=x.dtype)
    return _softmax(q, k, v, block.slope.view(H, 1, 1) * bias)


def forgetting_transformer(block, x, q, k, v):
    forget = torch.sigmoid(gates(block.forget, x))
    rows = [
        [forget[:, :, j + 1 : i + 1].prod(-1).log() if j <= i else torch.zeros(B, H) for j in range(T)]
        for i in range(T)
    ]
    return _softmax(q, k, v, torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2))


def window_16(block, x, q, k, v):
    far = torch.tensor([[i - j >= 16 for j in range(T)] for i in range(T)])
    return _softmax(q, k, v, torch.zeros(T, T, dtype=x.dtype).masked_fill(far, float("-inf")))


ORACLES = [
    linear_attention,
    retention,
    mamba2,
    gated_linear_attention,
    matrix_lstm,
    delta_net,
    gated_delta_net,
    longhorn,
    semiseparable_mixer,
    low_rank_decay_mixer,
    toeplitz_mixer,
    stick_breaking_attention,
    forgetting_transformer,
    window_16,
]
CASES = [(oracle.__name__, oracle) for oracle in ORACLES]
for _home in ("dynamics", "regression", "mixer"):
    CASES += [(f"short_convolution_{_home}", short_convolution_dynamics)]
    CASES += [(f"distance_bias_{_home}", distance_bias_dynamics)]


@pytest.mark.parametrize(("name", "oracle"), CASES, ids=[name for name, _ in CASES])
def test_control_equals_its_recurrence(name, oracle):
    block = block_of(name)
    numbers = torch.Generator().manual_seed(1)
    x = torch.randn(B, T, C, generator=numbers, dtype=torch.float64, requires_grad=True)
    q, k, v = torch.randn(3, B, H, T, D, generator=numbers, dtype=torch.float64).requires_grad_().unbind(0)
    probe = torch.randn(B, H, T, D, generator=numbers, dtype=torch.float64)
    wanted = oracle(block, x, q, k, v)
    found = block(x, q, k, v)
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-8)
    inputs = [q, k, v, *block.parameters()]
    expected = torch.autograd.grad((wanted * probe).sum(), inputs)
    for seen, gradient in zip(torch.autograd.grad((found * probe).sum(), inputs), expected, strict=True):
        torch.testing.assert_close(seen, gradient, atol=1e-8, rtol=1e-7)
