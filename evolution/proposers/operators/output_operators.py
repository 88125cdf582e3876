"""Operators on the outputs y (B, H, T, D), and on the term that only one framework has.

The framework's own optional method returns None in the shipped block: the log transition of
coefficient dynamics, the forgetting weights of the regression, the structured term of the mixer.
"""

from __future__ import annotations

from evolution.proposers.operators.edit import Edit
from evolution.proposers.operators.operator import Choice, edit_operator


def _head_rms_norm(choice: Choice) -> Edit:
    return Edit(
        init="self.output_gain = nn.Parameter(torch.ones(n_heads, 1, 1))",
        output="y = self.output_gain * y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5)",
    )


def _value_skip(choice: Choice) -> Edit:
    return Edit(
        init="self.skip_gate = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        output="y = y + self.skip_gate * v",
    )


def _value_locality(choice: Choice) -> Edit:
    width = int(choice["width"])
    return Edit(
        init=f"self.local_taps = nn.Parameter(torch.zeros(n_heads, 1, {width}, 1))",
        output=f"y = y + F.conv2d(F.pad(v, (0, 0, {width - 1}, 0)), self.local_taps, groups=v.shape[1])",
    )


def _running_mean(choice: Choice) -> Edit:
    return Edit(
        init="self.mean_gate = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        output="n_seen = torch.arange(1, v.shape[-2] + 1, device=v.device).unsqueeze(-1)\n"
        "y = y + self.mean_gate * v.cumsum(-2) / n_seen",
    )


def _recent_mean(choice: Choice) -> Edit:
    window = int(choice["window"])
    return Edit(
        init="self.recent_gate = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        output="recent = v.cumsum(-2)\n"
        f"recent = recent - F.pad(recent, (0, 0, {window}, 0))[..., : v.shape[-2], :]\n"
        f"n_recent = torch.arange(1, v.shape[-2] + 1, device=v.device).clamp(max={window}).unsqueeze(-1)\n"
        "y = y + self.recent_gate * recent / n_recent",
    )


def _output_scale(choice: Choice) -> Edit:
    shape = "n_heads, 1, head_dim" if choice["per"] == "channel" else "n_heads, 1, 1"
    return Edit(init=f"self.output_scale = nn.Parameter(torch.ones({shape}))", output="y = self.output_scale * y")


def _output_gate(choice: Choice) -> Edit:
    return Edit(
        init="self.output_gate = nn.Parameter(torch.zeros(n_heads, head_dim))",
        output="output_gate = (x.unflatten(-1, self.output_gate.shape) * self.output_gate).sum(-1)\n"
        "y = y * 2.0 * torch.sigmoid(output_gate).transpose(1, 2).unsqueeze(-1)",
    )


def _output_head_mixing(choice: Choice) -> Edit:
    return Edit(
        init="self.output_mixing = nn.Parameter(torch.eye(n_heads))",
        output='y = torch.einsum("gh,bhtd->bgtd", self.output_mixing, y)',
    )


def _output_shift(choice: Choice) -> Edit:
    return Edit(
        init="self.output_shift = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        output="y = y + self.output_shift * (F.pad(y, (0, 0, 1, 0))[..., :-1, :] - y)",
    )


def _scalar_transition(choice: Choice) -> Edit:
    return Edit(
        init="self.transition_weight = nn.Parameter(torch.zeros(n_heads, head_dim))\n"
        f"self.transition_bias = nn.Parameter(torch.full((n_heads, 1), {float(choice['bias'])}))",
        optional="transition = x.unflatten(-1, self.transition_weight.shape) * self.transition_weight\n"
        "return F.logsigmoid(transition.sum(-1).transpose(1, 2) + self.transition_bias)",
    )


def _forgetting_factor(choice: Choice) -> Edit:
    return Edit(
        init=f"self.forgetting_rate = nn.Parameter(torch.full((n_heads, 1, 1), {float(choice['log_rate'])}))",
        optional="pair_age = torch.arange(k.shape[-2], device=k.device)\n"
        "pair_age = (pair_age.unsqueeze(-1) - pair_age).clamp(min=0)\n"
        "return -torch.exp(self.forgetting_rate) * pair_age",
    )


def _toeplitz_structure(choice: Choice) -> Edit:
    band = int(choice["band"])
    return Edit(
        init=f"self.toeplitz_band = nn.Parameter(torch.zeros(n_heads, {band}))",
        optional="diagonal = torch.arange(length, device=x.device)\n"
        "diagonal = (diagonal.unsqueeze(-1) - diagonal).clamp(min=0)\n"
        f"return self.toeplitz_band[:, diagonal.clamp(max={band - 1})] * (diagonal < {band})",
    )


OUTPUT_OPERATORS = (
    edit_operator(
        "head_rms_norm",
        paper="Sun et al. 2023 (normalised heads of RetNet, arXiv 2307.08621)",
        summary="each head's output to unit root mean square, with a learned gain",
        build=_head_rms_norm,
    ),
    edit_operator(
        "value_skip",
        paper="Noci et al. 2023 (shaped attention, arXiv 2306.17759)",
        summary="add a learned share of the position's own value",
        build=_value_skip,
    ),
    edit_operator(
        "value_locality",
        paper="Dong et al. 2021 (locally enhanced positions of CSWin, arXiv 2107.00652)",
        summary="add a causal convolution of the values, beside the coefficients",
        build=_value_locality,
        choices={"width": (2, 3, 4, 5)},
    ),
    edit_operator(
        "running_mean",
        paper="Zhang et al. 2018 (average attention network, arXiv 1805.00631)",
        summary="add a learned share of the mean of all values so far",
        build=_running_mean,
    ),
    edit_operator(
        "recent_mean",
        paper="Wu et al. 2019 (lightweight convolutions, arXiv 1901.10430)",
        summary="add a learned share of the mean of the last few values",
        build=_recent_mean,
        choices={"window": (2, 4, 8, 16)},
    ),
    edit_operator(
        "output_scale",
        paper="Touvron et al. 2021 (LayerScale, arXiv 2103.17239)",
        summary="a learned scale a head or channel on the output",
        build=_output_scale,
        choices={"per": ("head", "channel")},
    ),
    edit_operator(
        "output_gate",
        paper="Qiu et al. 2025 (gated attention, arXiv 2505.06708)",
        summary="a gate on the input scales each head's output",
        build=_output_gate,
    ),
    edit_operator(
        "output_head_mixing",
        paper="Shazeer et al. 2020 (talking-heads attention, arXiv 2003.02436)",
        summary="outputs mixed across heads by a learned matrix",
        build=_output_head_mixing,
    ),
    edit_operator(
        "output_shift",
        paper="Peng et al. 2023 (token shift of RWKV, arXiv 2305.13048)",
        summary="mix each output with the one of the position before it",
        build=_output_shift,
    ),
    edit_operator(
        "scalar_transition",
        paper="Dao and Gu 2024 (Mamba-2, arXiv 2405.21060)",
        summary="A_t a scalar in (0, 1) that each head reads from the input",
        build=_scalar_transition,
        choices={"bias": (3.0, 5.0)},
        frameworks=("coefficient_dynamics",),
    ),
    edit_operator(
        "forgetting_factor",
        paper="Wang et al. 2025 (test-time regression, arXiv 2501.12352), after recursive least squares",
        summary="older pairs count less in the fit, at a rate each head learns",
        build=_forgetting_factor,
        choices={"log_rate": (-5.0, -4.0, -3.0)},
        frameworks=("test_time_regression",),
    ),
    edit_operator(
        "toeplitz_structure",
        paper="Qin et al. 2023 (Toeplitz neural network, arXiv 2305.04749)",
        summary="a learned banded Toeplitz matrix added to the low-rank product",
        build=_toeplitz_structure,
        choices={"band": (4, 8, 16)},
        frameworks=("matrix_mixer",),
    ),
)
