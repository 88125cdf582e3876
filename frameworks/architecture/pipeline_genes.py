"""Mutations of the pipeline and of training: stages, wiring, embedding, readout, optimiser."""

from __future__ import annotations

import copy

from frameworks.architecture.gene import Generator, Mutation, Tree, mixers_of, other, pick


def _change_width(tree: Tree, rng: Generator) -> bool:
    tree["arch"]["d_model"] = other(rng, (32, 48, 64, 72, 80, 96, 128), tree["arch"]["d_model"])
    return True


def _add_stage(tree: Tree, rng: Generator) -> bool:
    """A copy of the last stage's module after it; both then evolve by themselves."""
    arch = tree["arch"]
    if len(arch["pipeline"]) >= 8:
        return False
    last = arch["pipeline"][-1]
    module, name = _fresh(arch["modules"], last["module"]), _fresh([s["name"] for s in arch["pipeline"]], last["name"])
    arch["modules"][module] = copy.deepcopy(arch["modules"][last["module"]])
    arch["pipeline"].append({"name": name, "module": module, "kv_from": last["kv_from"], "mem_from": last["mem_from"]})
    return True


def _remove_stage(tree: Tree, rng: Generator) -> bool:
    """Drop a stage; who read it reads what it read."""
    arch = tree["arch"]
    if len(arch["pipeline"]) < 2:
        return False
    index = int(rng.integers(len(arch["pipeline"])))
    gone = arch["pipeline"].pop(index)
    before = "embedding" if index == 0 else arch["pipeline"][index - 1]["name"]
    read = [before] if gone["inputs"] is None else gone["inputs"]
    for stage in arch["pipeline"]:
        if stage["inputs"] is not None and gone["name"] in stage["inputs"]:
            rest = [name for name in stage["inputs"] if name != gone["name"]]
            stage["inputs"] = list(dict.fromkeys([*rest, *read]))
        for field in ("kv_from", "mem_from"):
            if stage[field] == gone["name"]:
                stage[field] = None
        module = arch["modules"][stage["module"]]
        if module["kind"] == "transformer" and module["cond"] and module["cond"]["source"] == gone["name"]:
            module["cond"] = None
    used = {stage["module"] for stage in arch["pipeline"]}
    arch["modules"] = {name: module for name, module in arch["modules"].items() if name in used}
    return True


def _change_repeat(tree: Tree, rng: Generator) -> bool:
    stage = pick(rng, tree["arch"]["pipeline"])
    stage["repeat"] = other(rng, (1, 2, 3), stage["repeat"])
    return True


def _rewire(tree: Tree, rng: Generator) -> bool:
    arch = tree["arch"]
    if len(arch["pipeline"]) < 2:
        return False
    index = int(rng.integers(1, len(arch["pipeline"])))
    names = ["embedding", *(stage["name"] for stage in arch["pipeline"][:index])]
    stage = arch["pipeline"][index]
    read = [names[-1]] if stage["inputs"] is None else list(stage["inputs"])
    name = pick(rng, names)
    stage["inputs"] = (
        [n for n in read if n != name] if name in read and len(read) > 1 else list(dict.fromkeys([*read, name]))
    )
    return True


def _share_keys(tree: Tree, rng: Generator) -> bool:
    """Read an earlier stage's keys, or keys of its own again; the reader's attention is fitted to the source's."""
    arch = tree["arch"]
    index = int(rng.integers(len(arch["pipeline"])))
    stage = arch["pipeline"][index]
    if stage["kv_from"] is not None:
        stage["kv_from"] = None
        return True
    module = arch["modules"][stage["module"]]
    sources = []
    for item in arch["pipeline"][:index]:
        other_module = arch["modules"][item["module"]]
        if other_module["kind"] == "transformer":
            attention = [mixer for mixer in mixers_of(other_module) if mixer["kind"] == "attention"]
            sources += [(item["name"], attention[-1])] if attention else []
    if module["kind"] != "transformer" or not sources:
        return False
    name, theirs = pick(rng, sources)
    for mixer in mixers_of(module):
        if mixer["kind"] == "attention":
            for field in ("heads", "groups", "head_dim", "pos", "qk_norm"):
                mixer[field] = copy.deepcopy(theirs[field])
            mixer["kv"] = {"kind": "full"}
    stage["kv_from"], stage["mem_from"] = name, None
    return True


def _attach_memory(tree: Tree, rng: Generator) -> bool:
    arch = tree["arch"]
    index = int(rng.integers(len(arch["pipeline"])))
    stage = arch["pipeline"][index]
    if stage["mem_from"] is not None:
        stage["mem_from"] = None
        return True
    earlier = [item["name"] for item in arch["pipeline"][:index]]
    if not earlier:
        return False
    stage["mem_from"], stage["kv_from"] = pick(rng, earlier), None
    return True


def _change_embedding(tree: Tree, rng: Generator) -> bool:
    embedding = tree["arch"]["embedding"]
    if rng.random() < 0.3:
        embedding["norm"] = None if embedding["norm"] else {"kind": pick(rng, ("rmsnorm", "layernorm", "scalenorm"))}
        return True
    kind = None if embedding["pos"] is None else embedding["pos"]["kind"]
    options = (None, {"kind": "sinusoidal"}, {"kind": "learned", "max_len": 2048})
    new = pick(rng, [option for option in options if (None if option is None else option["kind"]) != kind])
    embedding["pos"] = None if new is None else dict(new)
    return True


def _change_readout(tree: Tree, rng: Generator) -> bool:
    readout = tree["arch"]["readout"]
    if rng.random() < 0.5:
        readout["tied"] = not readout["tied"]
    else:
        readout["softcap"] = other(rng, (None, 10.0, 30.0), readout["softcap"])
    return True


def _tune_training(tree: Tree, rng: Generator) -> bool:
    train = tree["train"]
    name = pick(rng, ("lr", "lr", "lr", "weight_decay", "beta1", "beta2", "clip", "warmup_fraction", "schedule"))
    if name == "lr":
        train["lr"] = float(min(0.05, max(1e-4, train["lr"] * pick(rng, (0.5, 0.7, 1.4, 2.0)))))
    elif name == "schedule":
        train["schedule"] = other(rng, ("cosine", "constant"), train["schedule"])
    else:
        options = {
            "weight_decay": (0.0, 0.01, 0.1),
            "beta1": (0.8, 0.9, 0.95),
            "beta2": (0.9, 0.95, 0.99),
            "clip": (0.5, 1.0, 2.0),
            "warmup_fraction": (0.02, 0.05, 0.1, 0.2),
        }
        train[name] = other(rng, options[name], train[name])
    return True


def _fresh(taken: object, name: str) -> str:
    names = set(taken) if isinstance(taken, list | dict) else set()
    stem = name.rstrip("0123456789_") or "m"
    number = 2
    while f"{stem[:30]}_{number}" in names:
        number += 1
    return f"{stem[:30]}_{number}"


PIPELINE_MUTATIONS = (
    Mutation(name="change_width", description="another model width", needs="nothing", apply=_change_width),
    Mutation(name="add_stage", description="a copy of the last stage", needs="fewer than 8 stages", apply=_add_stage),
    Mutation(name="remove_stage", description="one stage less", needs="two stages", apply=_remove_stage),
    Mutation(name="change_repeat", description="copies of a stage in a row", needs="a stage", apply=_change_repeat),
    Mutation(name="rewire", description="other inputs of a stage", needs="two stages", apply=_rewire),
    Mutation(
        name="share_keys", description="read an earlier stage's keys", needs="two attention stages", apply=_share_keys
    ),
    Mutation(
        name="attach_memory",
        description="attend to an earlier stage's output",
        needs="two stages",
        apply=_attach_memory,
    ),
    Mutation(
        name="change_embedding",
        description="positions or norm of the embedding",
        needs="nothing",
        apply=_change_embedding,
    ),
    Mutation(name="change_readout", description="tied head or soft cap", needs="nothing", apply=_change_readout),
    Mutation(name="tune_training", description="one setting of the optimiser", needs="nothing", apply=_tune_training),
)
