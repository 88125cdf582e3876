"""Operators on the coefficients: which function of the masked scores weighs the values.

The masked scores s (B, H, T, T) are -inf outside the past. A kernel replaces softmax's
exponential and must give exactly 0 there; only one kernel can be in place at a time.
"""

from __future__ import annotations

from evolution.proposers.operators.edit import UNNORMALISED, Edit
from evolution.proposers.operators.operator import Choice, edit_operator

_VISIBLE = "torch.isfinite(s)"


def _rectified_power(choice: Choice) -> Edit:
    power = int(choice["power"])
    return Edit(kernel=f"w = F.relu(1.0 + s / {power}).pow({power}) + 1e-4 * {_VISIBLE}")


def _sigmoid_coefficients(choice: Choice) -> Edit:
    return Edit(
        kernel="n_visible = torch.arange(1, s.shape[-1] + 1, device=s.device).unsqueeze(-1)\n"
        "w = torch.sigmoid(s - n_visible.log())",
        row_sum=UNNORMALISED,
    )


def _linear_attention(choice: Choice) -> Edit:
    feature = {"elu": "F.elu({t}) + 1.0", "relu": "F.relu({t}) + 1e-2", "exp": "torch.exp({t}.clamp(max=8.0))"}[
        str(choice["feature"])
    ]
    return Edit(
        signals="\n".join(f"{t} = {feature.format(t=t)}" for t in "qk"),
        kernel=f"w = F.relu(s) + 1e-6 * {_VISIBLE}",
    )


def _taylor_kernel(choice: Choice) -> Edit:
    return Edit(
        kernel=f"near = s.masked_fill(torch.isinf(s), 0.0)\nw = (1.0 + near + 0.5 * near.square()) * {_VISIBLE}"
    )


def _sparsemax(choice: Choice) -> Edit:
    return Edit(
        kernel="ranked = s.sort(dim=-1, descending=True).values\n"
        "total = ranked.cumsum(-1)\n"
        "rank = torch.arange(1, s.shape[-1] + 1, device=s.device)\n"
        "support = (1.0 + rank * ranked > total).sum(-1, keepdim=True)\n"
        "w = F.relu(s - (total.gather(-1, support - 1) - 1.0) / support)"
    )


def _attention_sink(choice: Choice) -> Edit:
    return Edit(
        init=f"self.sink_logit = nn.Parameter(torch.full((n_heads, 1, 1), {float(choice['start'])}))",
        kernel="w = torch.exp(s.clamp(max=30.0))",
        row_sum="w.sum(-1, keepdim=True) + torch.exp(self.sink_logit)",
    )


def _top_k(choice: Choice) -> Edit:
    return Edit(
        masked=f"least = s.topk(min({int(choice['k'])}, s.shape[-1]), dim=-1).values[..., -1:]\n"
        's = s.masked_fill(s < least, float("-inf"))'
    )


def _local_window(choice: Choice) -> Edit:
    size, growth = int(choice["size"]), int(choice["growth"])
    limit = f"{size}"
    lines = "lag = torch.arange(s.shape[-1], device=s.device)\nlag = lag.unsqueeze(-1) - lag\n"
    if growth > 1:
        limit = "window"
        lines += f"window = {size} * {growth} ** torch.arange(s.shape[1], device=s.device).view(-1, 1, 1)\n"
    return Edit(masked=lines + f's = s.masked_fill(lag >= {limit}, float("-inf"))')


def _differential(choice: Choice) -> Edit:
    return Edit(
        init="self.difference = nn.Parameter(torch.full((n_heads, 1, 1), -3.0))",
        coefficients="w = w / w.sum(-1, keepdim=True).clamp(min=1e-6)\n"
        "w = w - torch.sigmoid(self.difference) * w.roll(1, dims=1)",
    )


def _twicing(choice: Choice) -> Edit:
    return Edit(
        init="self.twice_gate = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        coefficients="w = w / w.sum(-1, keepdim=True).clamp(min=1e-6)\nw = w + self.twice_gate * (w - w @ w)",
    )


def _uniform_mixture(choice: Choice) -> Edit:
    return Edit(
        init="self.uniform_share = nn.Parameter(torch.full((n_heads, 1, 1), -4.0))",
        coefficients="w = w / w.sum(-1, keepdim=True).clamp(min=1e-6)\n"
        "uniform = torch.ones_like(w).tril()\n"
        "uniform = uniform / uniform.sum(-1, keepdim=True)\n"
        "w = w + torch.sigmoid(self.uniform_share) * (uniform - w)",
    )


COEFFICIENT_OPERATORS = (
    edit_operator(
        "rectified_power",
        paper="So et al. 2021 (squared ReLU, arXiv 2109.08668); Wortsman et al. 2023 (arXiv 2309.08586)",
        summary="coefficients relu(1 + s / p)^p in place of exp(s), exactly zero for poor matches",
        build=_rectified_power,
        choices={"power": (2, 3, 4)},
    ),
    edit_operator(
        "sigmoid_coefficients",
        paper="Ramapuram et al. 2024 (sigmoid self-attention, arXiv 2409.04431)",
        summary="each coefficient a sigmoid of its own score, rows not normalised",
        build=_sigmoid_coefficients,
    ),
    edit_operator(
        "linear_attention",
        paper="Katharopoulos et al. 2020 (linear transformers, arXiv 2006.16236)",
        summary="positive features of queries and keys, coefficients linear in their product",
        build=_linear_attention,
        excludes=("stick_breaking",),
        choices={"feature": ("elu", "relu", "exp")},
    ),
    edit_operator(
        "taylor_kernel",
        paper="Arora et al. 2024 (Based, arXiv 2402.18668)",
        summary="second-order Taylor polynomial in place of the exponential",
        build=_taylor_kernel,
    ),
    edit_operator(
        "sparsemax",
        paper="Martins and Astudillo 2016 (sparsemax, arXiv 1602.02068)",
        summary="projection of the scores onto the simplex, most coefficients exactly zero",
        build=_sparsemax,
    ),
    edit_operator(
        "attention_sink",
        paper="OpenAI 2025 (learned sink of gpt-oss, arXiv 2508.10925); Miller 2023 (softmax off by one)",
        summary="a learned constant in the denominator, so that a head can attend to nothing",
        build=_attention_sink,
        choices={"start": (-4.0, -2.0, 0.0)},
    ),
    edit_operator(
        "top_k",
        paper="Gupta et al. 2021 (top-k attention, arXiv 2106.06899)",
        summary="only the k best visible keys of each query keep a coefficient",
        build=_top_k,
        choices={"k": (4, 8, 16, 32)},
    ),
    edit_operator(
        "local_window",
        paper="Beltagy et al. 2020 (Longformer, arXiv 2004.05150)",
        summary="only the last few positions are visible, the same or growing from head to head",
        build=_local_window,
        choices={"size": (8, 16, 32), "growth": (1, 2, 4)},
    ),
    edit_operator(
        "differential",
        paper="Ye et al. 2024 (differential transformer, arXiv 2410.05258)",
        summary="each head's coefficients minus a learned share of its neighbour's, to cancel common noise",
        build=_differential,
    ),
    edit_operator(
        "twicing",
        paper="Abdullaev and Nguyen 2025 (twicing attention, arXiv 2503.00687)",
        summary="A becomes A + g (A - A A): smooth the residual of the smoothing too",
        build=_twicing,
    ),
    edit_operator(
        "uniform_mixture",
        paper="Zhang et al. 2018 (average attention network, arXiv 1805.00631)",
        summary="coefficients mixed with the uniform average of the past, share learned a head",
        build=_uniform_mixture,
    ),
)
