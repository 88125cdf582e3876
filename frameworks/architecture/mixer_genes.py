"""Mutations of mixers: their kind, heads, positions, stencils, caches and states."""

from __future__ import annotations

from typing import Any

from frameworks.architecture.gene import Generator, Mutation, Tree, mixers, mixers_of, other, pick, scaled, transformers

_KINDS = ("attention", "retention", "linear", "ssm", "delta", "longconv")
_HEADED = ("attention", "retention", "linear", "delta")
_QUANTISED = ("none", "fp8", "int8", "nf4")
_STENCILS: tuple[Tree, ...] = (
    {"kind": "local", "window": 16},
    {"kind": "dilated", "dilation": 2},
    {"kind": "block", "block": 16},
    {"kind": "ring", "block": 16},
    {"kind": "hybrid", "sinks": 2, "window": 16},
)
_POSITIONS: tuple[Any, ...] = (
    None,
    {"kind": "rope"},
    {"kind": "xpos"},
    {"kind": "alibi"},
    {"kind": "relbias"},
)


def _swap_mixer(tree: Tree, rng: Generator) -> bool:
    module = pick(rng, transformers(tree))
    new: Tree = {"kind": other(rng, _KINDS, pick(rng, mixers_of(module))["kind"])}
    if new["kind"] in _HEADED:
        new |= {"heads": 4, "head_dim": 16}
    unit = module["mix_unit"]
    if unit["kind"] == "single":
        unit["mixer"] = new
    else:
        unit["mixers"][int(rng.integers(len(unit["mixers"])))] = new
    return True


def _change_heads(tree: Tree, rng: Generator) -> bool:
    found = mixers(tree, *_HEADED)
    if not found:
        return False
    mixer = pick(rng, found)
    mixer["heads"] = scaled(rng, mixer["heads"], most=16)
    if mixer["kind"] == "attention":
        mixer["groups"] = mixer["heads"]
    return True


def _change_groups(tree: Tree, rng: Generator) -> bool:
    found = [mixer for mixer in mixers(tree, "attention") if mixer["heads"] > 1]
    if not found:
        return False
    mixer = pick(rng, found)
    divisors = [groups for groups in range(1, mixer["heads"] + 1) if mixer["heads"] % groups == 0]
    mixer["groups"] = other(rng, divisors, mixer["groups"])
    return True


def _change_head_dim(tree: Tree, rng: Generator) -> bool:
    found = [mixer for mixer in mixers(tree) if "head_dim" in mixer]
    if not found:
        return False
    mixer = pick(rng, found)
    mixer["head_dim"] = other(rng, (8, 16, 24, 32, 64), mixer["head_dim"])
    return True


def _change_position(tree: Tree, rng: Generator) -> bool:
    found = mixers(tree, "attention", "retention")
    if not found:
        return False
    mixer = pick(rng, found)
    kind = None if mixer.get("pos") is None else mixer["pos"]["kind"]
    allowed = _POSITIONS if mixer["kind"] == "attention" else _POSITIONS[:2]
    options = [option for option in allowed if (None if option is None else option["kind"]) != kind]
    new = pick(rng, options)
    mixer["pos"] = None if new is None else dict(new)
    return True


def _tune_position(tree: Tree, rng: Generator) -> bool:
    found = [mixer for mixer in mixers(tree, "attention", "retention") if mixer.get("pos")]
    if not found:
        return False
    mixer = pick(rng, found)
    pos = mixer["pos"]
    if pos["kind"] == "alibi":
        pos["slope"] = other(rng, (0.25, 0.5, 1.0, 2.0, 4.0), pos["slope"])
    elif pos["kind"] == "relbias":
        pos[pick(rng, ("buckets", "max_distance"))] = pick(rng, (8, 24, 32, 64))
    elif pos["kind"] == "xpos" or rng.random() < 0.35:
        name = "scale_base" if pos["kind"] == "xpos" and rng.random() < 0.5 else "theta"
        pos[name] = other(rng, (32.0, 100.0, 1000.0, 10_000.0, 50_000.0), pos[name])
    elif rng.random() < 0.4:
        pos["dims"] = other(rng, (None, 4, 8, 16, 32), pos["dims"])
    else:
        options: tuple[Any, ...] = (
            None,
            {"kind": "linear", "factor": 2.0},
            {"kind": "ntk", "factor": 4.0},
            {"kind": "yarn", "factor": 4.0, "original_len": 64},
        )
        pos["scaling"] = other(rng, options, pos["scaling"])
    return True


def _change_stencils(tree: Tree, rng: Generator) -> bool:
    found = mixers(tree, "attention")
    if not found:
        return False
    mixer = pick(rng, found)
    stencils = list(mixer["stencils"])
    if stencils and rng.random() < 0.5:
        stencils.pop(int(rng.integers(len(stencils))))
    else:
        stencils.append(dict(pick(rng, _STENCILS)))
    mixer["stencils"] = stencils
    return True


def _tune_stencil(tree: Tree, rng: Generator) -> bool:
    found = [stencil for mixer in mixers(tree, "attention") for stencil in mixer["stencils"]]
    if not found:
        return False
    stencil = pick(rng, found)
    name = pick(rng, sorted(set(stencil) - {"kind"}))
    stencil[name] = scaled(rng, stencil[name], least=2, most=1024)
    return True


def _change_qk_norm(tree: Tree, rng: Generator) -> bool:
    found = mixers(tree, "attention")
    if not found:
        return False
    mixer = pick(rng, found)
    mixer["qk_norm"] = other(rng, ("none", "rms", "layer"), mixer["qk_norm"])
    return True


def _change_scores(tree: Tree, rng: Generator) -> bool:
    found = mixers(tree, "attention")
    if not found:
        return False
    mixer = pick(rng, found)
    if rng.random() < 0.5:
        mixer["softcap"] = other(rng, (None, 5.0, 15.0, 30.0), mixer["softcap"])
    else:
        mixer["qk_scale"] = other(rng, (None, 0.1, 0.5, 1.0), mixer["qk_scale"])
    return True


def _change_cache(tree: Tree, rng: Generator) -> bool:
    found = mixers(tree, "attention")
    if not found:
        return False
    mixer = pick(rng, found)
    options: tuple[Tree, ...] = (
        {"kind": "full"},
        {"kind": "window", "window": 32},
        {"kind": "ring", "window": 32},
        {"kind": "latent", "rank": 16},
        {"kind": "none"},
    )
    mixer["kv"] = dict(pick(rng, [option for option in options if option["kind"] != mixer["kv"]["kind"]]))
    return True


def _tune_cache(tree: Tree, rng: Generator) -> bool:
    found = [mixer["kv"] for mixer in mixers(tree, "attention") if mixer["kv"]["kind"] != "none"]
    if not found:
        return False
    kv = pick(rng, found)
    size = next((name for name in ("window", "rank") if name in kv), None)
    if size is not None and rng.random() < 0.5:
        kv[size] = scaled(rng, kv[size], least=4, most=8192 if size == "window" else 256)
    else:
        kv["quant"] = other(rng, _QUANTISED, kv["quant"])
    return True


def _change_decay(tree: Tree, rng: Generator) -> bool:
    found = mixers(tree, "retention")
    if not found:
        return False
    mixer = pick(rng, found)
    mixer["decay_shift"] = other(rng, (1, 2, 3, 4, 5, 6, 7), mixer["decay_shift"])
    return True


def _change_gate(tree: Tree, rng: Generator) -> bool:
    found = mixers(tree, "retention", "longconv", "delta")
    if not found:
        return False
    mixer = pick(rng, found)
    name = "gated" if mixer["kind"] == "delta" else "gate"
    mixer[name] = not mixer.get(name, True)
    return True


def _change_state(tree: Tree, rng: Generator) -> bool:
    found = mixers(tree, "ssm")
    if not found:
        return False
    mixer = pick(rng, found)
    if rng.random() < 0.6:
        mixer["d_state"] = scaled(rng, mixer["d_state"], least=4, most=64)
    else:
        mixer["expand"] = other(rng, (1, 2, 3), mixer["expand"])
    return True


def _change_kernel(tree: Tree, rng: Generator) -> bool:
    found = mixers(tree, "ssm", "delta", "longconv")
    if not found:
        return False
    mixer = pick(rng, found)
    if mixer["kind"] == "longconv":
        mixer["kernel_len"] = scaled(rng, mixer["kernel_len"], least=4, most=128)
    else:
        mixer["conv_kernel"] = other(rng, (1, 2, 3, 4, 6, 8), mixer["conv_kernel"])
    return True


def _change_features(tree: Tree, rng: Generator) -> bool:
    found = mixers(tree, "linear")
    if not found:
        return False
    mixer = pick(rng, found)
    mixer["feature_map"] = other(rng, ("elu", "exp", "squared_relu"), mixer["feature_map"])
    return True


def _change_chunk(tree: Tree, rng: Generator) -> bool:
    found = mixers(tree, "retention", "linear", "ssm", "delta")
    if not found:
        return False
    mixer = pick(rng, found)
    mixer["chunk"] = other(rng, (None, 16, 32, 64, 128), mixer["chunk"])
    return True


MIXER_MUTATIONS = (
    Mutation(name="swap_mixer", description="another kind of mixer", needs="a mixer", apply=_swap_mixer),
    Mutation(name="change_heads", description="more or fewer heads", needs="a mixer with heads", apply=_change_heads),
    Mutation(
        name="change_groups",
        description="other key/value heads: GQA, MQA or MHA",
        needs="attention with more than one head",
        apply=_change_groups,
    ),
    Mutation(name="change_head_dim", description="another head width", needs="heads", apply=_change_head_dim),
    Mutation(
        name="change_position",
        description="another kind of position",
        needs="attention or retention",
        apply=_change_position,
    ),
    Mutation(
        name="tune_position",
        description="theta, rotated dims, scaling, slope or buckets",
        needs="a mixer with positions",
        apply=_tune_position,
    ),
    Mutation(name="change_stencils", description="one stencil more or less", needs="attention", apply=_change_stencils),
    Mutation(name="tune_stencil", description="another reach", needs="a stencil", apply=_tune_stencil),
    Mutation(name="change_qk_norm", description="another query/key norm", needs="attention", apply=_change_qk_norm),
    Mutation(name="change_scores", description="soft cap or scale of scores", needs="attention", apply=_change_scores),
    Mutation(name="change_cache", description="another cache policy", needs="attention", apply=_change_cache),
    Mutation(
        name="tune_cache",
        description="window, rank or bits of the cache",
        needs="attention with a cache",
        apply=_tune_cache,
    ),
    Mutation(name="change_decay", description="faster or slower decay", needs="retention", apply=_change_decay),
    Mutation(
        name="change_gate",
        description="the gate on or off",
        needs="retention, delta or longconv",
        apply=_change_gate,
    ),
    Mutation(name="change_state", description="state width or expansion", needs="ssm", apply=_change_state),
    Mutation(
        name="change_kernel",
        description="another convolution width",
        needs="ssm, delta or longconv",
        apply=_change_kernel,
    ),
    Mutation(name="change_features", description="another feature map", needs="linear", apply=_change_features),
    Mutation(
        name="change_chunk",
        description="another chunk length",
        needs="retention, linear, ssm or delta",
        apply=_change_chunk,
    ),
)
