"""Operators on the signals: what enters the mechanism as queries, keys and values (B, H, T, D).

Parameters belong to heads, with one value a channel at most, to stay within the parameter
cap. Where nothing else is said they start so that the parent's function is unchanged.
"""

from __future__ import annotations

from evolution.proposers.operators.edit import Edit
from evolution.proposers.operators.operator import Choice, edit_operator


def _lines(template: str, targets: str, **values: object) -> str:
    """One copy of the template for each target signal; {t} the signal, {i} its index."""
    return "\n".join(template.format(t=target, i=i, **values) for i, target in enumerate(targets))


def _short_convolution(choice: Choice) -> Edit:
    width, targets = int(choice["width"]), str(choice["targets"])
    return Edit(
        init=f"self.conv_taps = nn.Parameter(torch.zeros({len(targets)}, n_heads, 1, {width}, 1))",
        signals=_lines(
            "{t} = {t} + F.conv2d(F.pad({t}, (0, 0, {past}, 0)), self.conv_taps[{i}], groups={t}.shape[1])",
            targets,
            past=width - 1,
        ),
    )


def _token_shift(choice: Choice) -> Edit:
    targets = str(choice["targets"])
    return Edit(
        init=f"self.shift_mix = nn.Parameter(torch.zeros({len(targets)}, n_heads, 1, 1))",
        signals=_lines(
            "{t} = {t} + self.shift_mix[{i}] * (F.pad({t}, (0, 0, 1, 0))[..., :-1, :] - {t})",
            targets,
        ),
    )


def _smear_gate(choice: Choice) -> Edit:
    targets = str(choice["targets"])
    return Edit(
        init="self.smear_weight = nn.Parameter(torch.zeros(n_heads, head_dim))\n"
        "self.smear_bias = nn.Parameter(torch.full((n_heads,), -3.0))",
        signals="smear = (x.unflatten(-1, self.smear_weight.shape) * self.smear_weight).sum(-1)\n"
        "smear = torch.sigmoid(smear + self.smear_bias).transpose(1, 2).unsqueeze(-1)\n"
        + _lines("{t} = {t} + smear * (F.pad({t}, (0, 0, 1, 0))[..., :-1, :] - {t})", targets),
    )


def _qk_rms_norm(choice: Choice) -> Edit:
    return Edit(
        init="self.qk_gain = nn.Parameter(torch.ones(2, n_heads, 1, 1))",
        signals=_lines(
            "{t} = self.qk_gain[{i}] * {t} * torch.rsqrt({t}.square().mean(-1, keepdim=True) + 1e-6)",
            "qk",
        ),
    )


def _cosine_attention(choice: Choice) -> Edit:
    return Edit(
        init=f"self.cosine_scale = nn.Parameter(torch.full((n_heads, 1, 1), {float(choice['scale'])}))",
        signals="k = F.normalize(k, dim=-1)\nq = self.cosine_scale * F.normalize(q, dim=-1)",
    )


def _key_norm(choice: Choice) -> Edit:
    return Edit(signals="k = F.normalize(k, dim=-1) * k.shape[-1] ** 0.5")


def _rotation(share: int, base: int) -> str:
    """Rotate the first D // share pairs of channels of q and k; both operators use the same local names."""
    lines = [
        f"pairs = q.shape[-1] // {share}",
        f"angle = {float(base)} ** (-torch.arange(pairs, device=q.device) / max(pairs, 1))",
        "angle = torch.arange(q.shape[-2], device=q.device).unsqueeze(-1) * angle",
        "cosine, sine = angle.cos(), angle.sin()",
    ]
    for t in "qk":
        lines += [
            f"first, second, rest = {t}.split([pairs, pairs, {t}.shape[-1] - 2 * pairs], dim=-1)",
            f"{t} = torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=-1)",
        ]
    return "\n".join(lines)


def _rope(choice: Choice) -> Edit:
    return Edit(signals=_rotation(2, int(choice["base"])))


def _partial_rope(choice: Choice) -> Edit:
    return Edit(signals=_rotation(int(choice["share"]), int(choice["base"])))


def _delta_rule(choice: Choice) -> Edit:
    overlap = (
        "unit_key = F.normalize(k, dim=-1)\n"
        "overlap = torch.sigmoid(self.delta_strength) * (unit_key @ unit_key.transpose(-1, -2)).tril(-1)\n"
    )
    solve = "v = torch.linalg.solve_triangular(overlap, v.to(overlap.dtype), upper=False, unitriangular=True)"
    step = (
        "past_count = torch.arange(v.shape[-2], device=v.device).clamp(min=1).unsqueeze(-1)\n"
        "v = v - overlap / past_count @ v"
    )
    return Edit(
        init="self.delta_strength = nn.Parameter(torch.full((n_heads, 1, 1), -3.0))",
        signals=overlap + (solve if choice["method"] == "solve" else step),
    )


def _moving_average(choice: Choice) -> Edit:
    target = str(choice["target"])
    return Edit(
        init=f"self.smooth_rate = nn.Parameter(torch.full((n_heads, 1, 1), {float(choice['log_rate'])}))\n"
        "self.smooth_gate = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        signals=(
            f"smooth_step = torch.arange({target}.shape[-2], device={target}.device)\n"
            "smooth_age = (smooth_step.unsqueeze(-1) - smooth_step).clamp(min=0)\n"
            "smooth_decay = torch.exp(-torch.exp(self.smooth_rate) * smooth_age).tril()\n"
            "smooth_decay = smooth_decay / smooth_decay.sum(-1, keepdim=True)\n"
            f"{target} = {target} + self.smooth_gate * (smooth_decay @ {target} - {target})"
        ),
    )


def _shared_heads(choice: Choice) -> Edit:
    targets = str(choice["targets"])
    return Edit(
        init=f"self.share_mix = nn.Parameter(torch.zeros({len(targets)}, n_heads, 1, 1))",
        signals=_lines("{t} = {t} + self.share_mix[{i}] * ({t}.mean(1, keepdim=True) - {t})", targets),
    )


def _value_gate(choice: Choice) -> Edit:
    return Edit(
        init="self.value_gate = nn.Parameter(torch.zeros(n_heads, head_dim))",
        signals="value_gate = (x.unflatten(-1, self.value_gate.shape) * self.value_gate).sum(-1)\n"
        "v = v * 2.0 * torch.sigmoid(value_gate).transpose(1, 2).unsqueeze(-1)",
    )


def _centred_keys(choice: Choice) -> Edit:
    return Edit(
        init="self.centre_gate = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        signals="seen_count = torch.arange(1, k.shape[-2] + 1, device=k.device).unsqueeze(-1)\n"
        "k = k - self.centre_gate * k.cumsum(-2) / seen_count",
    )


_TARGETS = ("qkv", "qk", "kv", "k", "v")

SIGNAL_OPERATORS = (
    edit_operator(
        "short_convolution",
        paper="So et al. 2021 (Primer, arXiv 2109.08668)",
        summary="causal convolution over a few neighbouring positions, one set of taps a head",
        build=_short_convolution,
        choices={"width": (2, 3, 4, 5, 6), "targets": _TARGETS},
    ),
    edit_operator(
        "token_shift",
        paper="Peng et al. 2023 (RWKV, arXiv 2305.13048)",
        summary="learned mix of each position with the one before it",
        build=_token_shift,
        choices={"targets": _TARGETS},
    ),
    edit_operator(
        "smear_gate",
        paper="Olsson et al. 2022 (smeared keys, arXiv 2209.11895)",
        summary="mix with the position before it, as much as a gate on the input says",
        build=_smear_gate,
        choices={"targets": ("k", "v", "kv")},
    ),
    edit_operator(
        "qk_rms_norm",
        paper="Dehghani et al. 2023 (QK normalisation, arXiv 2302.05442)",
        summary="queries and keys of unit root mean square, with a learned gain a head",
        build=_qk_rms_norm,
    ),
    edit_operator(
        "cosine_attention",
        paper="Henry et al. 2020 (query-key normalisation, arXiv 2010.04245)",
        summary="cosine similarity with a learned scale a head",
        build=_cosine_attention,
        choices={"scale": (6.0, 12.0, 24.0)},
    ),
    edit_operator(
        "key_norm",
        paper="Schlag et al. 2021 (normalised keys of fast weights, arXiv 2102.11174)",
        summary="keys of fixed length, so that only queries set how sharp the coefficients are",
        build=_key_norm,
    ),
    edit_operator(
        "rope",
        paper="Su et al. 2021 (RoFormer, arXiv 2104.09864)",
        summary="rotary positions on all channels of queries and keys",
        build=_rope,
        choices={"base": (100, 1000, 10000)},
    ),
    edit_operator(
        "partial_rope",
        paper="Black et al. 2022 (GPT-NeoX-20B, arXiv 2204.06745)",
        summary="rotary positions on a share of the channels of queries and keys",
        build=_partial_rope,
        choices={"share": (4, 8), "base": (100, 1000, 10000)},
    ),
    edit_operator(
        "delta_rule",
        paper="Yang et al. 2024 (parallel DeltaNet, arXiv 2406.06484)",
        summary="values corrected for what earlier similar keys have stored already",
        build=_delta_rule,
        choices={"method": ("solve", "step")},
    ),
    edit_operator(
        "moving_average",
        paper="Ma et al. 2022 (Mega, arXiv 2209.10655)",
        summary="gated exponential moving average of one signal, rate and gate learned a head",
        build=_moving_average,
        choices={"target": ("q", "k", "v"), "log_rate": (-2.0, -1.0, 0.0)},
    ),
    edit_operator(
        "shared_heads",
        paper="Shazeer 2019 (multi-query attention, arXiv 1911.02150)",
        summary="learned interpolation of each head's keys or values towards their mean over heads",
        build=_shared_heads,
        choices={"targets": ("k", "v", "kv")},
    ),
    edit_operator(
        "value_gate",
        paper="Hua et al. 2022 (gated attention unit, arXiv 2202.10447)",
        summary="a gate on the input scales each value as it is written",
        build=_value_gate,
    ),
    edit_operator(
        "centred_keys",
        paper="Zhang et al. 2024 (smoothed keys of SageAttention, arXiv 2410.02367), here with a causal mean",
        summary="subtract a learned share of the running mean from the keys",
        build=_centred_keys,
    ),
)
