"""Causal blocks of many kinds; no guard may refuse one of them."""

from __future__ import annotations

from tests.evolution.guards.block_template import mixer_block

HONEST: dict[str, str] = {}


def _honest(name: str, forward: str, init: str = "pass") -> None:
    HONEST[name] = mixer_block(forward, init)


_honest("softmax attention", "return self.attend(q, k, v)")
_honest("fused attention", "return F.scaled_dot_product_attention(q, k, v, is_causal=True)")
_honest("identity", "return v")
_honest(
    "FFT convolution, zero padded",
    """
    T = v.shape[2]
    time = torch.arange(T, device=v.device, dtype=torch.float32)
    kernel = torch.exp(-time * F.softplus(self.rate).unsqueeze(-1))
    f = torch.fft.rfft(v.float(), n=2 * T, dim=2) * torch.fft.rfft(kernel, n=2 * T, dim=-1)[None, :, :, None]
    return self.attend(q, k, v) + torch.fft.irfft(f, n=2 * T, dim=2)[:, :, :T].to(v.dtype)
    """,
    "self.rate = nn.Parameter(torch.linspace(-2, 1, n_heads))",
)
_honest(
    "cumulative mean",
    "n = torch.arange(1, v.shape[2] + 1, device=v.device, dtype=v.dtype).view(1, 1, -1, 1)\n"
    "return torch.sigmoid(self.gate) * self.attend(q, k, v) + v.cumsum(2) / n",
    "self.gate = nn.Parameter(torch.zeros(n_heads, 1, 1))",
)
_honest(
    "linear attention by cumulative sums",
    "f, g = F.elu(k) + 1, F.elu(q) + 1\nstate = torch.einsum('bhtd,bhte->bhtde', f, v).cumsum(2)\n"
    "return torch.einsum('bhtd,bhtde->bhte', g, state) / (g * f.cumsum(2)).sum(-1, keepdim=True)",
)
_honest(
    "chunkwise linear attention",
    """
    B, H, T, D = v.shape
    C = 16
    pad = (-T) % C
    q, k, v = (F.pad(a, (0, 0, 0, pad)).unflatten(2, (-1, C)) for a in (q, k, v))
    local = (q @ k.transpose(-1, -2)).tril() @ v
    state = (k.transpose(-1, -2) @ v).cumsum(2)
    before = F.pad(state, (0, 0, 0, 0, 1, 0))[:, :, :-1]
    return ((local + q @ before) / T**0).flatten(2, 3)[:, :, :T] * self.head_dim**-1
    """,
)
_honest(
    "retention with a learned decay",
    """
    T = q.shape[2]
    i = torch.arange(T, device=q.device)
    gap = (i[:, None] - i[None, :]).clamp(min=0)
    log_decay = F.logsigmoid(self.decay).view(-1, 1, 1)
    d = torch.exp(gap * log_decay) * self.mask(q)
    return ((q @ k.transpose(-1, -2)) * self.head_dim**-0.5 * d) @ v
    """,
    "self.decay = nn.Parameter(torch.linspace(1, 4, n_heads))",
)
_honest(
    "gated decay from the input",
    """
    a = F.logsigmoid(self.to_decay(x)).transpose(1, 2).cumsum(2)
    s = q @ k.transpose(-1, -2) * self.head_dim**-0.5 + a.unsqueeze(-1) - a.unsqueeze(-2)
    return torch.softmax(s.masked_fill(~self.mask(q), float("-inf")), -1) @ v
    """,
    "self.to_decay = nn.Linear(d_model, n_heads, bias=False)",
)
_honest("running maximum", "return self.attend(q, k, v) + 0.1 * v.cummax(2).values")
_honest("running log-sum-exp", "return self.attend(q, k, v) + 0.1 * v.logcumsumexp(2)")
_honest("sorted over channels", "return self.attend(q, k, v).sort(-1).values")
_honest("sorted over heads", "return self.attend(q, k, v) + 0.1 * v.sort(1).values")
_honest(
    "norm at each position",
    "return self.norm(self.attend(F.normalize(q, dim=-1), F.rms_norm(k, (self.head_dim,)), v)) * self.head_dim**0.5",
    "self.norm = nn.LayerNorm(head_dim)",
)
_honest(
    "rotary positions",
    """
    half = self.head_dim // 2
    angle = torch.arange(q.shape[2], device=q.device, dtype=torch.float32)[:, None] * self.frequency
    cos, sin = angle.cos(), angle.sin()
    def turn(a):
        left, right = a[..., :half], a[..., half:]
        return torch.cat([left * cos - right * sin, left * sin + right * cos], -1).type_as(a)
    return self.attend(turn(q), turn(k), v)
    """,
    'self.register_buffer("frequency", 10000.0 ** (-torch.arange(head_dim // 2) / (head_dim // 2)), persistent=False)',
)
_honest(
    "convolution padded on the left",
    """
    y = self.conv(F.pad(x.transpose(1, 2), (3, 0))).transpose(1, 2)
    y = y.unflatten(-1, (self.n_heads, self.head_dim)).transpose(1, 2)
    return self.attend(q, k, v + F.silu(y))
    """,
    """
    self.conv = nn.Conv1d(d_model, d_model, 4, groups=d_model, bias=False)
    nn.init.normal_(self.conv.weight, std=0.02)
    """,
)
_honest(
    "convolution padded on both sides and cut",
    "y = self.conv(v.flatten(0, 1).transpose(1, 2))[..., :v.shape[2]].transpose(1, 2)\n"
    "return self.attend(q, k, v + y.reshape(v.shape))",
    "self.conv = nn.Conv1d(head_dim, head_dim, 3, padding=2, groups=head_dim)",
)
_honest(
    "delta rule by a triangular solve",
    """
    k = F.normalize(k, dim=-1)
    b = torch.sigmoid(self.to_beta(x)).transpose(1, 2).unsqueeze(-1)
    system = torch.eye(q.shape[2], device=q.device, dtype=q.dtype) + (b * (k @ k.transpose(-1, -2))).tril(-1)
    u = torch.linalg.solve_triangular(system, b * v, upper=False, unitriangular=True)
    return (q @ k.transpose(-1, -2)).tril() @ u * self.head_dim**-0.5
    """,
    "self.to_beta = nn.Linear(d_model, n_heads, bias=False)",
)
_honest(
    "inverse of a lower triangular matrix",
    """
    k = F.normalize(k, dim=-1)
    system = torch.eye(q.shape[2], device=q.device, dtype=q.dtype) + 0.5 * (k @ k.transpose(-1, -2)).tril(-1)
    return (q @ k.transpose(-1, -2)).tril() @ (torch.linalg.inv(system) @ v) * self.head_dim**-0.5
    """,
)
_honest(
    "block-local attention",
    """
    B, H, T, D = v.shape
    W = 16
    pad = (-T) % W
    q, k, v = (F.pad(a, (0, 0, 0, pad)).unflatten(2, (-1, W)) for a in (q, k, v))
    back = lambda a: torch.cat([F.pad(a, (0, 0, 0, 0, 1, 0))[:, :, :-1], a], 3)
    i = torch.arange(W, device=q.device)
    seen = torch.cat([i[None, :] > i[:, None], i[None, :] <= i[:, None]], -1)
    first = torch.arange(q.shape[2], device=q.device).view(-1, 1, 1) > 0
    seen = seen & (first | (torch.arange(2 * W, device=q.device) >= W))
    s = (q @ back(k).transpose(-1, -2) * D**-0.5).masked_fill(~seen, float("-inf"))
    return (torch.softmax(s, -1) @ back(v)).flatten(2, 3)[:, :, :T]
    """,
)
_honest(
    "sliding window",
    """
    i = torch.arange(q.shape[2], device=q.device)
    gap = i[:, None] - i[None, :]
    s = (q @ k.transpose(-1, -2) * self.head_dim**-0.5).masked_fill((gap < 0) | (gap >= 8), float("-inf"))
    return torch.softmax(s, -1) @ v
    """,
)
_honest(
    "top four keys of the past",
    """
    s = (q @ k.transpose(-1, -2) * self.head_dim**-0.5).masked_fill(~self.mask(q), float("-inf"))
    keep = s >= s.topk(min(4, s.shape[-1]), -1).values[..., -1:]
    return torch.softmax(s.masked_fill(~keep, float("-inf")), -1).nan_to_num() @ v
    """,
)
_honest(
    "distance penalty",
    """
    i = torch.arange(q.shape[2], device=q.device, dtype=q.dtype)
    bias = (i[:, None] - i[None, :]).abs() * -self.slope.exp().view(-1, 1, 1)
    s = (q @ k.transpose(-1, -2) * self.head_dim**-0.5 + bias).masked_fill(~self.mask(q), -torch.inf)
    return torch.softmax(s, -1) @ v
    """,
    "self.slope = nn.Parameter(torch.zeros(n_heads))",
)
_honest(
    "attention sink and soft cap",
    """
    s = 10 * torch.tanh(q @ k.transpose(-1, -2) * self.head_dim**-0.5 / 10)
    s = s.masked_fill(~self.mask(q), torch.finfo(s.dtype).min)
    sink = self.sink.view(1, -1, 1, 1).expand(s.shape[0], -1, s.shape[2], 1)
    return torch.softmax(torch.cat([sink, s], -1), -1)[..., 1:] @ v
    """,
    "self.sink = nn.Parameter(torch.zeros(n_heads))",
)
_honest(
    "zero gate on the past",
    "return self.attend(q, k, v) + self.gate * F.pad(v, (0, 0, 1, 0))[:, :, :-1]",
    "self.gate = nn.Parameter(torch.zeros(n_heads, 1, 1))",
)
_honest(
    "token shift in place",
    "y = v.clone()\ny[:, :, 1:] += 0.5 * v[:, :, :-1]\nreturn self.attend(q, k, y)",
)
_honest(
    "gaussian kernel regression",
    """
    d = (q.square().sum(-1, keepdim=True) + k.square().sum(-1).unsqueeze(-2) - 2 * q @ k.transpose(-1, -2)).clamp(min=0)
    w = torch.exp(-d * torch.exp(self.width).view(-1, 1, 1)).masked_fill(~self.mask(q), 0)
    return (w @ v) / (w.sum(-1, keepdim=True) + 1e-6)
    """,
    "self.width = nn.Parameter(torch.full((n_heads,), -2.0))",
)
_honest(
    "ridge regression at every position",
    """
    q, k = q[..., :6], k[..., :6]
    outer = torch.einsum('bhtd,bhte->bhtde', k, k).cumsum(2)
    cross = torch.einsum('bhtd,bhte->bhtde', k, v).cumsum(2)
    eye = torch.eye(6, device=q.device, dtype=q.dtype)
    return torch.einsum('bhtd,bhtde->bhte', q, torch.linalg.solve(outer + F.softplus(self.ridge) * eye, cross))
    """,
    "self.ridge = nn.Parameter(torch.tensor(1.0))",
)
_honest(
    "exponential features stabilised by the running maximum",
    """
    strength = k.mean(-1)
    top = strength.cummax(2).values
    w = torch.exp(strength.unsqueeze(2) - top.unsqueeze(3)).masked_fill(~self.mask(q), 0)
    return (w @ v) / (w.sum(-1, keepdim=True) + 1e-6)
    """,
)
_honest(
    "low-rank mixing with random features",
    """
    f = torch.exp(k @ self.features - k.square().sum(-1, keepdim=True) / 2)
    g = torch.exp(q @ self.features - q.square().sum(-1, keepdim=True) / 2)
    s = (g @ f.transpose(-1, -2)).tril()
    return (s @ v) / (s.sum(-1, keepdim=True) + 1e-6)
    """,
    'self.register_buffer("features", torch.randn(head_dim, 24) * head_dim**-0.25)',
)
_honest(
    "two attentions subtracted",
    """
    half = self.head_dim // 2
    one = self.attend(q[..., :half], k[..., :half], v)
    two = self.attend(q[..., half:], k[..., half:], v)
    return one - torch.sigmoid(self.weight).view(-1, 1, 1) * two
    """,
    "self.weight = nn.Parameter(torch.zeros(n_heads))",
)
_honest(
    "einops and a module list",
    """
    y = einops.rearrange(v, "b h t d -> b t (h d)")
    for layer in self.layers:
        y = y + 0.1 * torch.tanh(y * layer.weight)
    return self.attend(q, k, einops.rearrange(y, "b t (h d) -> b h t d", h=self.n_heads))
    """,
    "self.layers = nn.ModuleList([nn.LayerNorm(d_model, bias=False) for _ in range(2)])",
)
HONEST["einops and a module list"] = "import einops\n\n" + HONEST["einops and a module list"]

# Decisions whose other side would leak, or fail, and that are right as they are.
_honest("no mask for a single token", "return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)")
_honest(
    "mask skipped for a single token",
    """
    s = q @ k.mT * self.head_dim**-0.5
    if q.shape[2] > 1:
        s = s.masked_fill(~self.mask(q), float("-inf"))
    return torch.softmax(s, -1) @ v
    """,
)
_honest(
    "an optional mask and a causal flag",
    """
    s = q @ k.mT * self.head_dim**-0.5
    visible = self.mask(q) if self.causal else None
    if visible is not None:
        s = s.masked_fill(~visible, float("-inf"))
    return torch.softmax(s, -1) @ v
    """,
    "self.causal = True",
)
_honest(
    "too long a sequence is an error",
    "if q.shape[2] > 4096:\n    raise ValueError(f'{q.shape[2]} tokens')\nreturn self.attend(q, k, v)",
)
_honest(
    "a bias for at most 200 distances",
    """
    length = q.shape[2]
    if length > 200:
        raise ValueError(f"{length} tokens; at most 200 are allowed")
    places = torch.arange(length, device=q.device)
    far = (places[:, None] - places[None]).clamp(min=0)
    s = q @ k.mT * self.head_dim**-0.5 + self.bias.to(q.dtype)[far] * 0.1
    return torch.softmax(s.masked_fill(~self.mask(q), float("-inf")), -1) @ v
    """,
    "self.register_buffer('bias', torch.linspace(0, -5, 200))",
)
_honest(
    "convolution with a masked kernel",
    """
    taps = self.taps * (torch.arange(5, device=v.device) <= 2).to(v.dtype)
    y = F.conv1d(v.flatten(0, 1).mT, taps, padding=2, groups=self.head_dim)
    return self.attend(q, k, v) + y.mT.reshape(v.shape)
    """,
    "self.taps = nn.Parameter(0.1 * torch.randn(head_dim, 1, 5))",
)
_honest(
    "window that is full when short",
    """
    length, window = q.shape[2], 300
    visible = self.mask(q)
    if length > window:
        visible = visible & ~torch.ones_like(visible).tril(-window)
    return torch.softmax((q @ k.mT * self.head_dim**-0.5).masked_fill(~visible, float("-inf")), -1) @ v
    """,
)
_honest(
    "FFT at the next power of two",
    """
    length = v.shape[2]
    size = 1
    while size < 2 * length:
        size = 2 * size
    kernel = torch.exp(-torch.arange(length, device=v.device, dtype=v.dtype) * self.rate.exp().view(-1, 1))
    spectrum = torch.fft.rfft(v, n=size, dim=2) * torch.fft.rfft(kernel, n=size)[None, :, :, None]
    return torch.fft.irfft(spectrum, n=size, dim=2)[:, :, :length]
    """,
    "self.rate = nn.Parameter(torch.zeros(n_heads))",
)
_honest(
    "loop over time",
    """
    state, rows, keep = torch.zeros_like(v[:, :, 0]), [], torch.sigmoid(self.keep)
    for t in range(v.shape[2]):
        state = keep * state + (1 - keep) * v[:, :, t]
        rows.append(state)
    return self.attend(q, k, v) + torch.stack(rows, 2)
    """,
    "self.keep = nn.Parameter(torch.zeros(n_heads, 1))",
)
_honest(
    "float32 on purpose",
    "return torch.softmax((q.float() @ k.float().mT).masked_fill(~self.mask(q), "
    "torch.finfo(torch.float32).min), -1).to(v.dtype) @ v",
)
