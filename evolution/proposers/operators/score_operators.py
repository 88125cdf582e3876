"""Operators on the scores s (B, H, T, T): row i the query, column j the key, before masking.

An entry may only use inputs up to its row's position; entries above the diagonal may hold
anything finite, since they are masked afterwards, but must not reach the ones below.
"""

from __future__ import annotations

from evolution.proposers.operators.edit import Edit
from evolution.proposers.operators.operator import Choice, edit_operator


def _distance(name: str) -> str:
    """Statements that put i - j, at least 0, into the variable `name` (T, T)."""
    return (
        f"{name} = torch.arange(s.shape[-1], device=s.device)\n{name} = ({name}.unsqueeze(-1) - {name}).clamp(min=0)\n"
    )


def _input_score(weight: str, name: str) -> str:
    """Statements that put one number a position and head, read from x, into `name` (B, H, T)."""
    return f"{name} = x.unflatten(-1, self.{weight}.shape) * self.{weight}\n{name} = {name}.sum(-1).transpose(1, 2)\n"


def _distance_bias(choice: Choice) -> Edit:
    measure = {
        "linear": "distance",
        "log": "4.0 * torch.log1p(distance)",
        "root": "2.0 * torch.sqrt(distance)",
    }[str(choice["measure"])]
    return Edit(
        init="self.distance_slope = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        scores=_distance("distance") + f"s = s - self.distance_slope * {measure}",
    )


def _alibi(choice: Choice) -> Edit:
    return Edit(
        init="powers = -8.0 * torch.arange(1, n_heads + 1) / n_heads\n"
        "self.alibi_slope = nn.Parameter(torch.ones(n_heads, 1, 1) * 2.0 ** powers.view(-1, 1, 1))",
        scores=_distance("steps_back") + "s = s - self.alibi_slope * steps_back",
    )


def _relative_bias(choice: Choice) -> Edit:
    window = int(choice["window"])
    return Edit(
        init=f"self.near_bias = nn.Parameter(torch.zeros(n_heads, {window}))",
        scores=_distance("offset") + f"s = s + self.near_bias[:, offset.clamp(max={window - 1})]",
    )


def _adaptive_span(choice: Choice) -> Edit:
    return Edit(
        init=f"self.log_span = nn.Parameter(torch.full((n_heads, 1, 1), math.log({float(choice['span'])})))",
        scores=_distance("reach") + f"s = s - F.softplus((reach - torch.exp(self.log_span)) / {float(choice['ramp'])})",
    )


def _multiscale_decay(choice: Choice) -> Edit:
    return Edit(
        scores=_distance("age")
        + "scale = torch.arange(s.shape[1], device=s.device).view(-1, 1, 1)\n"
        + f"s = s + age * torch.log1p(-(2.0 ** (-{float(choice['start'])} - scale)))"
    )


def _logit_soft_cap(choice: Choice) -> Edit:
    cap = float(choice["cap"])
    return Edit(scores=f"s = {cap} * torch.tanh(s / {cap})")


def _head_temperature(choice: Choice) -> Edit:
    return Edit(
        init="self.log_temperature = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        scores="s = s * torch.exp(self.log_temperature)",
    )


def _query_temperature(choice: Choice) -> Edit:
    return Edit(
        init="self.sharpness = nn.Parameter(torch.zeros(n_heads, head_dim))",
        scores=_input_score("sharpness", "sharp") + "s = s * 2.0 * torch.sigmoid(sharp).unsqueeze(-1)",
    )


def _log_length_scaling(choice: Choice) -> Edit:
    return Edit(
        init="self.length_slope = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        scores="log_length = torch.arange(1, s.shape[-1] + 1, device=s.device).log().unsqueeze(-1)\n"
        "s = s * (1.0 + self.length_slope * log_length)",
    )


def _forgetting_gate(choice: Choice) -> Edit:
    return Edit(
        init="self.forget_weight = nn.Parameter(torch.zeros(n_heads, head_dim))\n"
        f"self.forget_bias = nn.Parameter(torch.full((n_heads, 1), {float(choice['bias'])}))",
        scores=_input_score("forget_weight", "forget")
        + "forget = F.logsigmoid(forget + self.forget_bias).cumsum(-1)\n"
        + "s = s + (forget.unsqueeze(-1) - forget.unsqueeze(-2)).clamp(max=0.0)",
    )


def _input_gate(choice: Choice) -> Edit:
    return Edit(
        init="self.input_weight = nn.Parameter(torch.zeros(n_heads, head_dim))",
        scores=_input_score("input_weight", "importance") + "s = s + importance.unsqueeze(-2)",
    )


def _talking_heads(choice: Choice) -> Edit:
    return Edit(
        init="self.head_mixing = nn.Parameter(torch.eye(n_heads))",
        scores='s = torch.einsum("gh,bhij->bgij", self.head_mixing, s)',
    )


def _implicit_step(choice: Choice) -> Edit:
    return Edit(
        init="self.step_size = nn.Parameter(torch.full((n_heads, 1), -4.0))",
        scores="s = s - torch.log1p(torch.exp(self.step_size) * k.square().sum(-1)).unsqueeze(-2)",
    )


def _key_bias(choice: Choice) -> Edit:
    return Edit(
        init="self.key_bias = nn.Parameter(torch.zeros(n_heads, 1, head_dim))",
        scores="s = s + (self.key_bias * k).sum(-1).unsqueeze(-2)",
    )


def _self_bias(choice: Choice) -> Edit:
    return Edit(
        init="self.self_bias = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        scores="s = s + self.self_bias * torch.eye(s.shape[-1], device=s.device)",
    )


def _first_token_bias(choice: Choice) -> Edit:
    return Edit(
        init="self.first_bias = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        scores="s = s + self.first_bias * (torch.arange(s.shape[-1], device=s.device) == 0)",
    )


def _contextual_position(choice: Choice) -> Edit:
    return Edit(
        init="self.crossing_slope = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        scores="crossed = torch.sigmoid(s).tril()\n"
        "s = s - self.crossing_slope * (crossed.sum(-1, keepdim=True) - crossed.cumsum(-1))",
    )


def _stick_breaking(choice: Choice) -> Edit:
    return Edit(
        scores="left_over = F.logsigmoid(-s).tril()\n"
        "s = F.logsigmoid(s) + left_over.sum(-1, keepdim=True) - left_over.cumsum(-1)"
    )


def _score_convolution(choice: Choice) -> Edit:
    shift = {
        "diagonal": "F.pad(s, (1, 0, 1, 0))[..., :-1, :-1]",
        "keys": "F.pad(s, (1, 0))[..., :-1]",
        "queries": "F.pad(s, (0, 0, 1, 0))[..., :-1, :]",
    }[str(choice["along"])]
    return Edit(
        init="self.score_tap = nn.Parameter(torch.zeros(n_heads, 1, 1))",
        scores=f"s = s + self.score_tap * {shift}",
    )


SCORE_OPERATORS = (
    edit_operator(
        "distance_bias",
        paper="Chi et al. 2022 (KERPLE, arXiv 2205.09921)",
        summary="a learned slope a head, from zero, on the distance, its logarithm or its root",
        build=_distance_bias,
        choices={"measure": ("linear", "log", "root")},
    ),
    edit_operator(
        "alibi",
        paper="Press et al. 2022 (ALiBi, arXiv 2108.12409), with slopes that are learned on",
        summary="scores fall with the distance, from geometric slopes over the heads",
        build=_alibi,
    ),
    edit_operator(
        "relative_bias",
        paper="Raffel et al. 2020 (T5, arXiv 1910.10683)",
        summary="a learned bias a head for each near distance, shared beyond",
        build=_relative_bias,
        choices={"window": (4, 8, 16, 32)},
    ),
    edit_operator(
        "adaptive_span",
        paper="Sukhbaatar et al. 2019 (adaptive attention span, arXiv 1905.07799)",
        summary="scores fall off beyond a reach that each head learns",
        build=_adaptive_span,
        choices={"span": (8, 16, 32), "ramp": (4, 8)},
    ),
    edit_operator(
        "multiscale_decay",
        paper="Sun et al. 2023 (RetNet, arXiv 2307.08621)",
        summary="fixed exponential decay, slower from head to head",
        build=_multiscale_decay,
        choices={"start": (2, 3, 4, 5)},
    ),
    edit_operator(
        "logit_soft_cap",
        paper="Gemma Team 2024 (Gemma 2, arXiv 2408.00118)",
        summary="scores bent smoothly to a largest magnitude",
        build=_logit_soft_cap,
        choices={"cap": (5, 10, 20, 50)},
    ),
    edit_operator(
        "head_temperature",
        paper="Lee et al. 2021 (learnable temperature, arXiv 2112.13492)",
        summary="a learned temperature a head",
        build=_head_temperature,
    ),
    edit_operator(
        "query_temperature",
        paper="Zhang et al. 2024 (selective self-attention, arXiv 2411.12892)",
        summary="a temperature that each query reads from the input",
        build=_query_temperature,
    ),
    edit_operator(
        "log_length_scaling",
        paper="Chiang and Cholak 2022 (arXiv 2202.12172); Nakanishi 2025 (scalable softmax, arXiv 2501.19399)",
        summary="scores grow with the logarithm of how many positions are visible",
        build=_log_length_scaling,
    ),
    edit_operator(
        "forgetting_gate",
        paper="Lin et al. 2025 (forgetting transformer, arXiv 2503.02130)",
        summary="a gate on the input decides how much of the past each step forgets",
        build=_forgetting_gate,
        choices={"bias": (2.0, 4.0)},
    ),
    edit_operator(
        "input_gate",
        paper="Beck et al. 2024 (exponential input gate of xLSTM, arXiv 2405.04517)",
        summary="a weight for each key, read from the input",
        build=_input_gate,
    ),
    edit_operator(
        "talking_heads",
        paper="Shazeer et al. 2020 (talking-heads attention, arXiv 2003.02436)",
        summary="scores mixed across heads by a learned matrix",
        build=_talking_heads,
    ),
    edit_operator(
        "implicit_step",
        paper="Liu et al. 2024 (Longhorn, arXiv 2407.14207)",
        summary="a key counts b / (1 + b |k|^2), the weight of an implicit online step",
        build=_implicit_step,
    ),
    edit_operator(
        "key_bias",
        paper="Dai et al. 2019 (global content bias of Transformer-XL, arXiv 1901.02860)",
        summary="a query-independent score for each key",
        build=_key_bias,
    ),
    edit_operator(
        "self_bias",
        paper="Lee et al. 2021 (locality self-attention, arXiv 2112.13492)",
        summary="a learned bias a head on a position's score with itself",
        build=_self_bias,
    ),
    edit_operator(
        "first_token_bias",
        paper="Xiao et al. 2023 (streaming attention sinks, arXiv 2309.17453)",
        summary="a learned bias a head on the first position",
        build=_first_token_bias,
    ),
    edit_operator(
        "contextual_position",
        paper="Golovneva et al. 2024 (contextual position encoding, arXiv 2405.18719)",
        summary="a bias on how many relevant keys lie between, not on how many positions",
        build=_contextual_position,
    ),
    edit_operator(
        "stick_breaking",
        paper="Tan et al. 2024 (stick-breaking attention, arXiv 2410.17980)",
        summary="the nearest matching keys take their share first, earlier ones what is left",
        build=_stick_breaking,
        excludes=("linear_attention",),  # it turns scores into log shares, never above 0, where that kernel is 0
    ),
    edit_operator(
        "score_convolution",
        paper="Golovneva et al. 2025 (multi-token attention, arXiv 2504.00927)",
        summary="each score adds a learned share of its neighbour along keys, queries or both",
        build=_score_convolution,
        choices={"along": ("diagonal", "keys", "queries")},
    ),
)
