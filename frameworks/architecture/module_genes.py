"""Mutations of modules: width and depth, feed-forwards, norms, residuals, routers, conditioning, latents."""

from __future__ import annotations

from typing import Any

from frameworks.architecture.gene import Generator, Mutation, Tree, other, pick, routers, scaled, transformers

_ACTIVATIONS = ("gelu", "relu2", "silu", "swiglu", "geglu")
_NORMS = ("rmsnorm", "layernorm", "scalenorm")


def _change_depth(tree: Tree, rng: Generator) -> bool:
    module = pick(rng, transformers(tree))
    module["n_layers"] += 1 if module["n_layers"] == 1 or rng.random() < 0.5 else -1
    return True


def _change_mix_unit(tree: Tree, rng: Generator) -> bool:
    module = pick(rng, transformers(tree))
    unit = module["mix_unit"]
    if unit["kind"] == "single":
        extra: Tree = {"kind": pick(rng, ("attention", "retention", "linear", "ssm", "delta", "longconv"))}
        kind = pick(rng, ("par", "route"))
        module["mix_unit"] = {"kind": kind, "mixers": [unit["mixer"], extra]}
    elif rng.random() < 0.5:
        module["mix_unit"] = {"kind": "single", "mixer": pick(rng, unit["mixers"])}
    else:
        module["mix_unit"] = {"kind": "route" if unit["kind"] == "par" else "par", "mixers": unit["mixers"]}
    return True


def _change_merge(tree: Tree, rng: Generator) -> bool:
    found = [module["mix_unit"] for module in transformers(tree) if module["mix_unit"]["kind"] == "par"]
    if not found:
        return False
    unit = pick(rng, found)
    unit["merge"] = other(rng, ("add", "weighted_add", "concat"), unit["merge"])
    return True


def _change_ffn(tree: Tree, rng: Generator) -> bool:
    module = pick(rng, transformers(tree))
    kind = None if module["ffn"] is None else module["ffn"]["kind"]
    options: tuple[Any, ...] = (None, {"kind": "dense", "d_ff": 192}, {"kind": "moe", "experts": 4, "d_ff": 96})
    new = pick(rng, [option for option in options if (None if option is None else option["kind"]) != kind])
    module["ffn"] = None if new is None else dict(new)
    return True


def _change_ffn_width(tree: Tree, rng: Generator) -> bool:
    found = [module["ffn"] for module in transformers(tree) if module["ffn"]]
    if not found:
        return False
    ffn = pick(rng, found)
    ffn["d_ff"] = scaled(rng, ffn["d_ff"], least=16, most=1024)
    return True


def _change_activation(tree: Tree, rng: Generator) -> bool:
    found = [module["ffn"] for module in transformers(tree) if module["ffn"]]
    if not found:
        return False
    ffn = pick(rng, found)
    ffn["activation"] = other(rng, _ACTIVATIONS, ffn["activation"])
    return True


def _tune_experts(tree: Tree, rng: Generator) -> bool:
    found = [module["ffn"] for module in transformers(tree) if module["ffn"] and module["ffn"]["kind"] == "moe"]
    if not found:
        return False
    ffn = pick(rng, found)
    if rng.random() < 0.4:
        ffn["shared"] = not ffn["shared"]
    else:
        ffn["experts"] = other(rng, (2, 3, 4, 6, 8), ffn["experts"])
    return True


def _tune_router(tree: Tree, rng: Generator) -> bool:
    found = routers(tree)
    if not found:
        return False
    router = pick(rng, found)
    name = pick(rng, ("top_k", "temp", "balance"))
    if name == "top_k":
        router["top_k"] = other(rng, (1, 2, 3), router["top_k"])
    elif name == "temp":
        router["temp"] = other(rng, (0.5, 0.7, 1.0, 1.5, 2.0), router["temp"])
    else:
        router["balance"] = other(rng, (0.0, 0.003, 0.01, 0.03, 0.1), router["balance"])
    return True


def _change_norm(tree: Tree, rng: Generator) -> bool:
    holders = [*transformers(tree), tree["arch"]["readout"]]
    norm = pick(rng, holders)["norm"]
    if rng.random() < 0.8:
        norm["kind"] = other(rng, _NORMS, norm["kind"])
    else:
        norm["eps"] = other(rng, (1e-6, 1e-5, 1e-3), norm["eps"])
    return True


def _change_residual(tree: Tree, rng: Generator) -> bool:
    residual = pick(rng, transformers(tree))["residual"]
    name = pick(rng, ("placement", "parallel", "gain"))
    if name == "placement":
        residual["placement"] = other(rng, ("pre", "post", "sandwich"), residual["placement"])
    elif name == "parallel":
        residual["parallel"] = not residual["parallel"]
    else:
        residual["gain"] = other(rng, (0.5, 0.7, 1.0, 1.4), residual["gain"])
    return True


def _change_recurrence(tree: Tree, rng: Generator) -> bool:
    module = pick(rng, transformers(tree))
    if module["recurrence"] is None:
        module["recurrence"] = {"loops": 2, "inject": bool(rng.random() < 0.5)}
    elif rng.random() < 0.4:
        module["recurrence"] = None
    elif rng.random() < 0.5:
        module["recurrence"]["inject"] = not module["recurrence"]["inject"]
    else:
        module["recurrence"]["loops"] = other(rng, (2, 3, 4), module["recurrence"]["loops"])
    return True


def _change_hierarchy(tree: Tree, rng: Generator) -> bool:
    module = pick(rng, transformers(tree))
    if module["hierarchy"] is None:
        module["hierarchy"] = {"stride": pick(rng, (2, 4, 8)), "pool": pick(rng, ("mean", "last"))}
    elif rng.random() < 0.4:
        module["hierarchy"] = None
    elif rng.random() < 0.5:
        module["hierarchy"]["pool"] = other(rng, ("mean", "last"), module["hierarchy"]["pool"])
    else:
        module["hierarchy"]["stride"] = other(rng, (2, 4, 8), module["hierarchy"]["stride"])
    return True


def _change_depth_router(tree: Tree, rng: Generator) -> bool:
    found = [module for module in transformers(tree) if module["ffn"] and module["n_layers"] > 1]
    if not found:
        return False
    module = pick(rng, found)
    module["depth_router"] = None if module["depth_router"] else {"top_k": 1}
    return True


def _change_condition(tree: Tree, rng: Generator) -> bool:
    """Ops, branches or rank of a `cond`; with a source at hand also a new one, or none."""
    arch = tree["arch"]
    conditioned = [module for module in transformers(tree) if module["cond"]]
    index = int(rng.integers(len(arch["pipeline"])))
    stage = arch["pipeline"][index]
    module = arch["modules"][stage["module"]]
    earlier = [item["name"] for item in arch["pipeline"][:index] if item["mode"] != "encoder"]
    if module["kind"] == "transformer" and earlier and (not conditioned or rng.random() < 0.3):
        module["cond"] = None if module["cond"] else {"source": pick(rng, earlier), "ops": ["film"]}
        return True
    if not conditioned:
        return False
    cond = pick(rng, conditioned)["cond"]
    name = pick(rng, ("ops", "where", "rank"))
    if name == "rank":
        cond["rank"] = other(rng, (2, 4, 8, 16), cond["rank"])
    elif name == "where":
        cond["where"] = other(rng, (["mixer"], ["ffn"], ["mixer", "ffn"]), cond["where"])
    else:
        options = (["film"], ["add"], ["scale"], ["lora"], ["film", "lora"], ["add", "scale"])
        cond["ops"] = other(rng, options, cond["ops"])
    return True


def _tune_latent(tree: Tree, rng: Generator) -> bool:
    found = [module for module in tree["arch"]["modules"].values() if module["kind"] == "latent_sampler"]
    if not found:
        return False
    latent = pick(rng, found)
    name = pick(rng, ("bits", "code", "free_bits"))
    if name == "bits":
        latent["bits"] = other(rng, (4, 6, 8, 10, 16), latent["bits"])
    elif name == "code":
        latent["code"] = other(rng, ("joint", "factored"), latent["code"])
    else:
        latent["free_bits"] = other(rng, (0.1, 0.25, 0.5, 1.0, 2.0), latent["free_bits"])
    return True


MODULE_MUTATIONS = (
    Mutation(name="change_depth", description="a layer more or less", needs="a transformer", apply=_change_depth),
    Mutation(
        name="change_mix_unit",
        description="single, parallel or routed mixers",
        needs="a transformer",
        apply=_change_mix_unit,
    ),
    Mutation(name="change_merge", description="another merge", needs="a parallel unit", apply=_change_merge),
    Mutation(name="change_ffn", description="dense, sparse or none", needs="a transformer", apply=_change_ffn),
    Mutation(
        name="change_ffn_width",
        description="a wider or narrower feed-forward",
        needs="a feed-forward",
        apply=_change_ffn_width,
    ),
    Mutation(
        name="change_activation", description="another activation", needs="a feed-forward", apply=_change_activation
    ),
    Mutation(name="tune_experts", description="number of experts, the shared one", needs="moe", apply=_tune_experts),
    Mutation(name="tune_router", description="top-k, temperature or balance", needs="a router", apply=_tune_router),
    Mutation(name="change_norm", description="another norm or its epsilon", needs="a transformer", apply=_change_norm),
    Mutation(
        name="change_residual", description="placement, order or gain", needs="a transformer", apply=_change_residual
    ),
    Mutation(
        name="change_recurrence",
        description="loops over the same layers",
        needs="a transformer",
        apply=_change_recurrence,
    ),
    Mutation(
        name="change_hierarchy", description="layers at a coarser rate", needs="a transformer", apply=_change_hierarchy
    ),
    Mutation(
        name="change_depth_router",
        description="tokens choose among the layers' feed-forwards",
        needs="several layers with feed-forwards",
        apply=_change_depth_router,
    ),
    Mutation(
        name="change_condition",
        description="ops, branches, rank or source of conditioning",
        needs="a second stage or a cond",
        apply=_change_condition,
    ),
    Mutation(name="tune_latent", description="bits, code or free bits", needs="a latent_sampler", apply=_tune_latent),
)
