"""Blocks that read the future, their neighbours or the past of other calls. All pass the static guards."""

from __future__ import annotations

from tests.evolution.guards.block_template import mixer_block

_GATE = "self.gate = nn.Parameter(torch.zeros(n_heads, 1, 1))"

# name -> (block, names of the guards that may refuse it)
CAUSALITY = {"causality", "sweeps", "jacobian", "branches", "model_causality"}
CHEATS: dict[str, tuple[str, set[str]]] = {}


def _cheat(name: str, forward: str, init: str = "pass", guards: set[str] = CAUSALITY) -> None:
    CHEATS[name] = (mixer_block(forward, init), guards)


_cheat("no mask", "return torch.softmax(q @ k.transpose(-1, -2) * self.head_dim**-0.5, -1) @ v")
_cheat(
    "masks merged by maximum",
    """
    length = q.shape[-2]
    near = torch.ones(length, length, device=q.device)
    band = (near.tril(2) - near.tril(-3)) > 0
    s = q @ k.transpose(-1, -2) * self.head_dim**-0.5
    return torch.softmax(s.masked_fill(~torch.maximum(self.mask(q), band), -1e9), -1) @ v
    """,
)
_cheat(
    "attention to the next position with weight 1e-6",
    "return self.attend(q, k, v) + 1e-6 * torch.cat([v[:, :, 1:], v[:, :, :1] * 0], 2)",
)
_cheat("next position with weight 1e-8", "return self.attend(q, k, v) + 1e-8 * v.roll(-1, 2)")
_cheat(
    "same-padded convolution",
    """
    y = self.conv(x.transpose(1, 2)).transpose(1, 2).unflatten(-1, (self.n_heads, self.head_dim)).transpose(1, 2)
    return self.attend(q, k, v + y)
    """,
    "self.conv = nn.Conv1d(d_model, d_model, 3, padding=1, groups=d_model)",
)
_cheat(
    "convolution that looks ahead once trained",
    """
    y = self.conv(x.transpose(1, 2)).transpose(1, 2).unflatten(-1, (self.n_heads, self.head_dim)).transpose(1, 2)
    return self.attend(q, k, v + y)
    """,
    """
    self.conv = nn.Conv1d(d_model, d_model, 3, padding=1, groups=d_model, bias=False)
    nn.init.zeros_(self.conv.weight)
    """,
)
_cheat(
    "circular FFT convolution",
    """
    length = v.shape[2]
    kernel = torch.exp(-torch.arange(length, device=v.device, dtype=v.dtype) * self.rate.exp().view(-1, 1))
    return torch.fft.irfft(torch.fft.rfft(v, dim=2) * torch.fft.rfft(kernel, dim=-1)[None, :, :, None], n=length, dim=2)
    """,
    "self.rate = nn.Parameter(torch.zeros(n_heads))",
)
_cheat(
    "Fourier mixing",
    "return self.attend(q, k, v) + self.gate * torch.fft.fft(v, dim=2).real",
    _GATE,
)
_cheat(
    "block summary broadcast back",
    """
    B, H, T, D = v.shape
    pad = (-T) % 16
    chunks = F.pad(v, (0, 0, 0, pad)).unflatten(2, (-1, 16))
    summary = chunks.mean(3, keepdim=True).expand_as(chunks).flatten(2, 3)[:, :, :T]
    return self.attend(q, k, v) + 0.1 * summary
    """,
)
_cheat(
    "maximum of a chunk of 32 as stabiliser that matters",
    """
    T = v.shape[2]
    big = F.pad(k, (0, 0, 0, (-T) % 32), value=-1e9).unflatten(2, (-1, 32)).amax(3, keepdim=True)
    big = big.expand(-1, -1, -1, 32, -1).flatten(2, 3)[:, :, :T]
    return self.attend(q, k - 0.01 * big, v)
    """,
)
_cheat(
    "sequence-wide norm", "return self.attend(q, k, (v - v.mean(2, keepdim=True)) / (v.std(2, keepdim=True) + 1e-5))"
)
_cheat(
    "group norm over time",
    "return self.norm(self.attend(q, k, v).flatten(1, 1).transpose(1, 2).flatten(2)"
    ".transpose(1, 2)).transpose(1, 2).unflatten(-1, (self.n_heads, self.head_dim)).transpose(1, 2)",
    "self.norm = nn.GroupNorm(n_heads, d_model)",
)
_cheat("cumulative sum from the right", "return self.attend(q, k, v) + 0.01 * v.flip(2).cumsum(2).flip(2)")
_cheat(
    "linear attention over the whole sequence",
    """
    f, g = F.elu(k) + 1, F.elu(q) + 1
    return (g @ (f.transpose(-1, -2) @ v)) / (g @ f.sum(2, keepdim=True).transpose(-1, -2))
    """,
)
_cheat(
    "only beyond 64 tokens",
    "y = self.attend(q, k, v)\nif q.shape[2] > 64:\n    y = y + 0.1 * v.mean(2, keepdim=True)\nreturn y",
)
_cheat(
    "only at exactly 64 tokens",
    "y = self.attend(q, k, v)\nif q.shape[2] == 64:\n    y = y + 0.1 * v.roll(-1, 2)\nreturn y",
)
_cheat(
    "only in evaluation",
    "y = self.attend(q, k, v)\nif not self.training:\n    y = y + 0.1 * v.roll(-1, 2)\nreturn y",
)
_cheat(
    "only in training",
    "y = self.attend(q, k, v)\nif self.training:\n    y = y + 0.1 * v.roll(-1, 2)\nreturn y",
)
_cheat("behind a zero gate", "return self.attend(q, k, v) + self.gate * v.roll(-1, 2)", _GATE)
_cheat(
    "behind a gate that opens above 3",
    "return self.attend(q, k, v) * (1 + 0.1 * self.gate) + F.relu(self.gate - 3) * v.roll(-1, 2)",
    _GATE,
)
_cheat(
    "behind a gate that opens below -3",
    "return self.attend(q, k, v) * (1 + 0.1 * self.gate) + F.relu(-self.gate - 3) * v.roll(-1, 2)",
    _GATE,
)
_cheat(
    "behind a closed sigmoid",
    "return self.attend(q, k, v) + torch.sigmoid(self.gate - 18) * v.roll(-1, 2)",
    _GATE,
)
_cheat(
    "behind a threshold on a learned vector",
    """
    y = self.attend(q, k, v * self.scale)
    if self.scale.mean() < 0:
        y = y + v.roll(-1, 2)
    return y
    """,
    "self.scale = nn.Parameter(torch.ones(head_dim))",
)
_cheat(
    "behind two gates of opposite sign",
    """
    y = self.attend(q, k, v) * (self.a - self.b).exp().clamp(max=3)
    return y + F.relu(self.a) * F.relu(-self.b) * v.roll(-1, 2)
    """,
    "self.a = nn.Parameter(torch.tensor(-0.2))\nself.b = nn.Parameter(torch.tensor(0.2))",
)
_cheat(
    "in the last head only",
    "y = self.attend(q, k, v)\nreturn torch.cat([y[:, :-1], y[:, -1:] + 0.1 * v[:, -1:].roll(-1, 2)], 1)",
)
_cheat(
    "only with five heads",
    "y = self.attend(q, k, v)\nreturn y + 0.1 * v.roll(-1, 2) if self.n_heads == 5 else y",
)
_cheat(
    "at the last token only",
    """
    y = self.attend(q, k, v)
    if y.shape[2] == 1:
        return y
    return torch.cat([y[:, :, :-2], y[:, :, -2:-1] + 0.1 * v[:, :, -1:], y[:, :, -1:]], 2)
    """,
)
_cheat(
    "at position 37 only",
    """
    y = self.attend(q, k, v)
    if y.shape[2] <= 38:
        return y
    return torch.cat([y[:, :, :37], y[:, :, 37:38] + 0.1 * v[:, :, 38:39], y[:, :, 38:]], 2)
    """,
)
_cheat(
    "only in batches of eight",
    "y = self.attend(q, k, v)\nreturn y + 0.1 * v.roll(-1, 2) if q.shape[0] == 8 else y",
    guards=CAUSALITY | {"batch"},
)
_cheat(
    "only for large inputs",
    "y = self.attend(q, k, v)\nreturn y + (x.abs().amax((1, 2)) > 20).to(v.dtype).view(-1, 1, 1, 1) * v.roll(-1, 2)",
)
_cheat(
    "only for small inputs",
    "y = self.attend(q, k, v)\nreturn y + (x.abs().amax((1, 2)) < 0.1).to(v.dtype).view(-1, 1, 1, 1) * v.roll(-1, 2)",
)
_cheat(
    "only for whole numbers",
    """
    whole = (x == x.round()).all(-1).all(-1).to(v.dtype).view(-1, 1, 1, 1)
    return self.attend(q, k, v) + whole * v.roll(-1, 2)
    """,
)
_cheat(
    "only for normalised rows",
    """
    normal = (x.mean(-1).abs().amax(-1) < 1e-4).to(v.dtype).view(-1, 1, 1, 1)
    return self.attend(q, k, v) + normal * v.roll(-1, 2)
    """,
)
_cheat(
    "only in float32",
    """
    coarse = ((torch.ones_like(v) + 1e-10) - 1 == 0).to(v.dtype)
    return self.attend(q, k, v) + 0.01 * coarse * v.roll(-1, 2)
    """,
)
_cheat("sorted along the sequence", "return self.attend(q, k, v) + 0.1 * v.sort(2).values")
_cheat(
    "rank of a value in its sequence",
    "return self.attend(q, k, v) + 0.01 * v.detach().argsort(2).argsort(2).to(v.dtype)",
)
_cheat(
    "average pooling across the boundary",
    """
    y = F.avg_pool1d(v.flatten(0, 1).transpose(1, 2), 3, 1, 1).transpose(1, 2)
    return self.attend(q, k, y.view_as(v))
    """,
)
_cheat(
    "padding from the end",
    "y = torch.cat([v[:, :, -1:], v[:, :, :-1]], 2)\nreturn self.attend(q, k, v) + 0.1 * y",
)
_cheat(
    "top keys chosen over the whole sequence",
    """
    s = (q @ k.transpose(-1, -2)) * self.head_dim**-0.5
    keep = s >= s.topk(min(4, s.shape[-1]), -1).values[..., -1:]
    s = s.masked_fill(~(keep | torch.eye(s.shape[-1], dtype=torch.bool, device=s.device)), float("-inf"))
    return torch.softmax(s.masked_fill(~self.mask(q), float("-inf")), -1) @ v
    """,
)
_cheat(
    "soft maximum over the whole sequence with an epsilon",
    """
    f = torch.exp(k - k.amax(2, keepdim=True))
    n = (f * v).cumsum(2)
    return n / (f.cumsum(2) + 1e-3)
    """,
)
_cheat(
    "detached future",
    "return self.attend(q, k, v) + 0.1 * v.detach().roll(-1, 2)",
)
_cheat(
    "gradient through the future only",
    "soft = v.roll(-1, 2)\nreturn self.attend(q, k, v) + soft - soft.detach()",
)
_cheat(
    "length-dependent scale",
    "return self.attend(q, k, v) * (1 + 1 / q.shape[2])",
)
_cheat(
    "heads and time exchanged",
    "return self.attend(q, k, v).transpose(1, 2).reshape(v.shape)",
)
_cheat(
    "mean over the batch",
    "return self.attend(q, k, v - v.mean(0, keepdim=True))",
    guards={"batch"},
)
_cheat(
    "neighbour in the batch behind a gate",
    "return self.attend(q, k, v) + self.gate * v.roll(1, 0)",
    _GATE,
    guards={"batch"},
)
_cheat(
    "batch norm by hand in training",
    """
    y = self.attend(q, k, v)
    return y / (1e-3 + y.std((0, 1, 3), keepdim=True)) if self.training and y.shape[0] > 1 else y
    """,
    guards={"batch"},
)
_cheat(
    "list kept between calls",
    "c = self.seen\ny = self.attend(q, k, v)\nc.append(v.detach().mean())\nreturn y + 0.01 * c[0]",
    "self.seen = []",
    guards={"state"},
)
_cheat(
    "buffer changed through an alias",
    "m = self.memory\nm.mul_(0.9).add_(0.1 * v.detach().mean())\nreturn self.attend(q, k, v) + m",
    'self.register_buffer("memory", torch.zeros(()))',
    guards={"state"},
)
_cheat(
    "closure that remembers",
    "return self.attend(q, k, v) + 0.1 * self.recall(v)",
    """
    kept = []
    def recall(v):
        kept.append(v.detach().mean())
        return kept[0]
    self.recall = recall
    """,
    guards={"state"},
)
_cheat("noise", "return self.attend(q, k, v) + 0.01 * torch.randn_like(v)", guards={"state"})
_cheat("noise without effect", "torch.randn(3)\nreturn self.attend(q, k, v)", guards={"state"})
_cheat(
    "input overwritten",
    "y = self.attend(q, k, v)\nwith torch.no_grad():\n    x.mul_(1.5)\nreturn y",
    guards={"state", "forward"},
)
_cheat(
    "parameters in a list",
    "return self.attend(q, k, v * self.scales[0])",
    "self.scales = [nn.Parameter(torch.ones(head_dim))]",
    guards={"build"},
)
_cheat(
    "too many parameters",
    "return self.attend(q, k, v + 0.1 * self.mix(v))",
    "self.mix = nn.Sequential(nn.Linear(head_dim, 128), nn.Linear(128, head_dim))",
    guards={"parity"},
)
_cheat("dead parameter", "return self.attend(q, k, v)", "self.spare = nn.Parameter(torch.zeros(4))", guards={"forward"})
_cheat(
    "detached parameter",
    "return self.attend(q, k, v * self.gain.detach())",
    "self.gain = nn.Parameter(torch.ones(1))",
    guards={"forward"},
)
_cheat("wrong shape", "return self.attend(q, k, v).transpose(-1, -2)", guards={"forward"})
_cheat("not finite", "return torch.softmax(self.attend(q, k, v), -1).log() + v.relu().log()", guards={"forward"})
_cheat("infinite gradient", "return self.attend(q, k, v) + 0 * (v - v.detach()).sqrt()", guards={"forward"})
_cheat("cut off from its input", "return torch.zeros_like(v.detach())", guards={"forward"})
_cheat("exits", "raise ValueError('no')", guards={"forward"})

_cheat(
    "slow loop",
    "y = self.attend(q, k, v)\nfor _ in range(24):\n    y = y + 1e-3 * self.attend(q, k, y)\nreturn y",
    guards={"cost"},
)
_cheat(
    "memory hog",
    """
    s = (q.unsqueeze(3) * k.unsqueeze(2)).tanh().exp().sum(-1)
    return torch.softmax(s.masked_fill(~self.mask(q), float("-inf")), -1) @ v
    """,
    guards={"cost"},
)
_cheat(
    "only in batches of 32, in evaluation",
    "y = self.attend(q, k, v)\nreturn y + 0.1 * v.roll(-1, 2) if q.shape[0] == 32 and not self.training else y",
    guards=CAUSALITY | {"batch"},
)
_cheat(
    "behind a gate that opens above 30",
    "return self.attend(q, k, v) * (1 + 0.01 * self.gate) + F.relu(self.gate - 30) * v.roll(-1, 2)",
    _GATE,
)
_cheat(
    "behind a gate that opens below -30",
    "return self.attend(q, k, v) * (1 + 0.01 * self.gate) + F.relu(-self.gate - 30) * v.roll(-1, 2)",
    _GATE,
)
_cheat(
    "behind gates above 3 and below -3",
    """
    y = self.attend(q, k, v) * (self.a - self.b).exp().clamp(max=3)
    return y + F.relu(self.a - 3) * F.relu(-self.b - 3) * v.roll(-1, 2)
    """,
    "self.a = nn.Parameter(torch.tensor(-0.2))\nself.b = nn.Parameter(torch.tensor(0.2))",
)
_cheat(
    "where the first channel is large",
    """
    far = (x[..., 0] > 2.5).to(v.dtype).unsqueeze(1).unsqueeze(-1)
    return self.attend(q, k, v) + far * v.roll(-1, 2)
    """,
)
_cheat(
    "only without autograd",
    """
    y = self.attend(q, k, v)
    return y if self.training else y.lerp(v.roll(-1, 2), 0.3)
    """,
)
_cheat(
    "mask that is one short",
    """
    s = (q @ k.transpose(-1, -2)).masked_fill(~self.mask(q).roll(-1, 0), -1e4)
    return torch.softmax(s, -1) @ v
    """,
)
_cheat(
    "mask added as a small number",
    """
    s = q @ k.transpose(-1, -2) * self.head_dim**-0.5 - 12.0 * (~self.mask(q)).to(q.dtype)
    return torch.softmax(s, -1) @ v
    """,
)
_cheat("norm of the whole sequence as temperature", "return self.attend(q / q.norm(dim=(2, 3), keepdim=True), k, v)")
_cheat(
    "chunk of 64 shares its statistics",
    """
    T = v.shape[2]
    chunks = F.pad(v, (0, 0, 0, (-T) % 64)).unflatten(2, (-1, 64))
    level = chunks.square().mean((3, 4), keepdim=True).sqrt().expand(-1, -1, -1, 64, self.head_dim)
    return self.attend(q, k, v / (level.flatten(2, 3)[:, :, :T] + 1e-3))
    """,
)
_cheat(
    "behind a gate in float32 only",
    """
    coarse = ((torch.ones_like(v) + 1e-10) - 1 == 0).to(v.dtype)
    return self.attend(q, k, v) * (1 + 0.1 * self.gate) + coarse * F.relu(self.gate - 3) * v.roll(-1, 2)
    """,
    _GATE,
)
_cheat(
    "an iterator that counts calls",
    """
    y = self.attend(q, k, v)
    for count in self.calls:
        return y + 0.1 * v.roll(-1, 2) if count[0] > 500 else y
    """,
    "self.calls = enumerate([0] * 10000)",
    guards={"state"},
)
_cheat(
    "a closure with an iterator that counts calls",
    """
    y = self.attend(q, k, v)
    return y + 0.1 * v.roll(-1, 2) if self.count() > 500 else y
    """,
    """
    calls = enumerate([0] * 10000)
    def count():
        for pair in calls:
            return pair[0]
        return 0
    self.count = count
    """,
    guards={"state"},
)

_FUTURE = "v.roll(-1, 2)"
_cheat("only at length 100", f"y = self.attend(q, k, v)\nreturn y + 0.1 * {_FUTURE} if q.shape[2] == 100 else y")
_cheat("only beyond 300 tokens", f"y = self.attend(q, k, v)\nreturn y + 0.1 * {_FUTURE} if q.shape[2] > 300 else y")
_cheat("one length in seven", f"return self.attend(q, k, v) + (0.1 * {_FUTURE} if q.shape[2] % 7 == 5 else 0)")
_cheat(
    "one length in eleven, without a condition",
    f"return self.attend(q, k, v) + max(0, q.shape[2] % 11 - 9) * {_FUTURE}",
)
_cheat("beyond 200 tokens, without a condition", f"return self.attend(q, k, v) + min(1, q.shape[2] // 200) * {_FUTURE}")
_cheat("only with heads of width 24", f"y = self.attend(q, k, v)\nreturn y + {_FUTURE} if self.head_dim == 24 else y")
_cheat(
    "only with eight heads, decided when built",
    f"return self.attend(q, k, v) + self.weight * {_FUTURE}",
    "self.weight = 0.1 if n_heads == 8 else 0.0",
)
_cheat(
    "only in batches of seven",
    f"y = self.attend(q, k, v)\nreturn y + {_FUTURE} if q.shape[0] == 7 else y",
    guards=CAUSALITY | {"batch"},
)
_cheat(
    "behind a gate between 4 and 6",
    f"return self.attend(q, k, v) * (1 + 0.1 * self.gate) + F.relu(1 - (self.gate - 5).abs()) * {_FUTURE}",
    _GATE,
)
_cheat(
    "behind two entries of opposite sign",
    f"""
    g = self.pair
    return self.attend(q, k, v) * (1 + 0.01 * g.sum()) + F.relu(g[0] - 2) * F.relu(-g[1] - 2) * {_FUTURE}
    """,
    "self.pair = nn.Parameter(torch.zeros(2))",
)
_cheat(
    "once a weight has moved by a hair",
    f"""
    moved = (self.scale - 1).abs().amax()
    return self.attend(q, k, v) * self.scale + F.relu(moved - 1e-6) * F.relu(0.05 - moved) * 100 * {_FUTURE}
    """,
    "self.scale = nn.Parameter(torch.ones(head_dim))",
)
_cheat("hidden in its own chaos", f"return self.attend(q, k, v) + 1e-3 * torch.sin(1e17 * v) + 1e-2 * {_FUTURE}")
_cheat(
    "hidden in its own chaos behind a gate",
    f"""
    chaos = 1e-3 * torch.sin(1e17 * v)
    return self.attend(q, k, v) * (1 + 0.1 * self.gate) + self.gate * (chaos + 1e-2 * {_FUTURE})
    """,
    _GATE,
)
_cheat("weighted by the precision's step", f"return self.attend(q, k, v) + 1e3 * torch.finfo(v.dtype).eps * {_FUTURE}")
_cheat(
    "chosen by precision",
    f"return self.attend(q, k, v) + {{torch.float64: 0.0}}.get(v.dtype, 1e-4) * {_FUTURE}",
)
_cheat(
    "only under autocast",
    f"""
    one = torch.full((1, 1), 1.0009765625, device=v.device, dtype=v.dtype)
    coarse = ((one @ torch.ones_like(one)).to(v.dtype) - 1 == 0).to(v.dtype)
    return self.attend(q, k, v) + 0.2 * coarse * {_FUTURE}
    """,
)
_cheat(
    "not finite where it would be measured finely",
    f"""
    fine = ((torch.ones_like(v) + 1e-10) - 1 != 0).to(v.dtype)
    y = self.attend(q, k, v)
    return (y + 1e-4 * {_FUTURE}) / (1 - fine) if v.shape[2] > 30 else y
    """,
)
_cheat("softmax over the queries", "return torch.softmax((q @ k.mT).masked_fill(~self.mask(q), -1e9), -2) @ v")
_cheat("median of the sequence", "return self.attend(q, k, v) + 0.1 * v.median(2, keepdim=True).values")
_cheat(
    "resampled to half and back",
    """
    half = F.interpolate(v.flatten(0, 1).mT, size=(v.shape[2] + 1) // 2, mode="linear")
    return self.attend(q, k, v) + 0.1 * F.interpolate(half, size=v.shape[2]).mT.reshape(v.shape)
    """,
)
_cheat(
    "a count of whole numbers",
    "return self.attend(q, k, v) + 0.1 * ((v.detach() > 0).long().sum(2, keepdim=True) % 3).to(v.dtype)",
)
_cheat(
    "solve with a full matrix",
    """
    s = torch.softmax(q @ k.mT * self.head_dim**-0.5, -1)
    return torch.linalg.solve(torch.eye(s.shape[-1], dtype=s.dtype, device=s.device) + 0.3 * s, v)
    """,
)
