"""What only the whole pipeline can tell: that every name leads to an earlier stage and nothing is without effect."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from frameworks.architecture.mixer import AttentionMixer, FullCache, LatentCache, SsmMixer

if TYPE_CHECKING:
    from frameworks.architecture.schema import Arch, LatentSamplerModule, Stage, TransformerModule

EMBEDDING = "embedding"
"""What a stage calls the token vectors among its inputs."""


def inputs_of(arch: Arch, index: int) -> tuple[str, ...]:
    """The names that stage `index` sums, with the default resolved."""
    given = arch.pipeline[index].inputs
    if given is not None:
        return given
    return (EMBEDDING,) if index == 0 else (arch.pipeline[index - 1].name,)


def check_wiring(arch: Arch) -> None:
    """Raise ValueError where the pipeline cannot be built or holds a part that nothing reads."""
    from frameworks.architecture.schema import LatentSamplerModule

    seen: dict[str, Stage] = {}
    for index, stage in enumerate(arch.pipeline):
        where = f"pipeline stage {stage.name!r}"
        if stage.name in seen or stage.name == EMBEDDING:
            raise ValueError(f"{where}: the name is taken; every stage needs a name of its own")
        if stage.module not in arch.modules:
            raise ValueError(f"{where}: unknown module {stage.module!r}{_near(stage.module, arch.modules)}")
        module = arch.modules[stage.module]
        for name in inputs_of(arch, index):
            if name != EMBEDDING and name not in seen:
                raise ValueError(f"{where}: inputs: no earlier stage {name!r}{_near(name, [EMBEDDING, *seen])}")
        if len(set(inputs_of(arch, index))) < len(inputs_of(arch, index)):
            raise ValueError(f"{where}: inputs names a stage twice")
        if isinstance(module, LatentSamplerModule):
            _check_sampler(arch, index, seen, where)
        else:
            _check_transformer(arch, index, module, seen, where)
        seen[stage.name] = stage
    _check_all_used(arch)


def _check_sampler(arch: Arch, index: int, seen: dict[str, Stage], where: str) -> None:
    stage = arch.pipeline[index]
    for name in ("kv_from", "mem_from"):
        if getattr(stage, name) is not None:
            raise ValueError(f"{where}: {name} means nothing to a latent_sampler")
    if stage.repeat != 1 or stage.mode != "causal":
        raise ValueError(f"{where}: a latent_sampler has repeat 1 and mode causal")
    names = inputs_of(arch, index)
    if not names or any(name == EMBEDDING or seen[name].mode != "encoder" for name in names):
        raise ValueError(f"{where}: a latent_sampler reads encoder stages only, got inputs {list(names)}")


def _check_transformer(arch: Arch, index: int, module: TransformerModule, seen: dict[str, Stage], where: str) -> None:
    stage = arch.pipeline[index]
    read = [name for name in inputs_of(arch, index) if name != EMBEDDING]
    named = {"kv_from": stage.kv_from, "mem_from": stage.mem_from}
    if module.cond is not None:
        named["cond.source"] = module.cond.source
    for field, name in named.items():
        if name is not None and name not in seen:
            raise ValueError(f"{where}: {field}: no earlier stage {name!r}{_near(name, seen)}")
    for name in [*read, *(name for name in named.values() if name is not None)]:
        if seen[name].mode == "encoder" and stage.mode != "encoder":
            raise ValueError(f"{where}: reads the encoder stage {name!r}, which sees the future; "
                             "only a latent_sampler may")  # fmt: skip
    for name in [*read, *(named[field] for field in ("kv_from", "mem_from") if named[field] is not None)]:
        if name is not None and arch.modules[seen[name].module].kind == "latent_sampler":
            raise ValueError(f"{where}: reads the latent_sampler {name!r} as a stream; use cond.source")
    attention = [mixer for mixer in module.mixers if isinstance(mixer, AttentionMixer)]
    for mixer in module.mixers:
        if isinstance(mixer, SsmMixer) and (mixer.expand * arch.d_model) % mixer.head_dim:
            raise ValueError(f"{where}: ssm head_dim={mixer.head_dim} does not divide expand * d_model = "
                             f"{mixer.expand * arch.d_model}")  # fmt: skip
    if stage.kv_from is not None and stage.mem_from is not None:
        raise ValueError(f"{where}: kv_from and mem_from both say where keys and values come from; give one")
    if (stage.kv_from or stage.mem_from) and not attention:
        raise ValueError(f"{where}: kv_from and mem_from need an attention mixer")
    if module.hierarchy is not None and (stage.kv_from or stage.mem_from or module.cond or stage.mode == "encoder"):
        raise ValueError(f"{where}: hierarchy runs at another rate; it goes with no kv_from, mem_from, cond or encoder")
    if stage.kv_from is not None:
        _check_shared_keys(arch, stage.kv_from, seen, attention, where)
    if stage.mode == "encoder":
        _check_encoder(module, stage, where)


def _check_shared_keys(
    arch: Arch, source: str, seen: dict[str, Stage], attention: list[AttentionMixer], where: str
) -> None:
    other: TransformerModule | LatentSamplerModule = arch.modules[seen[source].module]
    mixers = [] if other.kind == "latent_sampler" else [m for m in other.mixers if isinstance(m, AttentionMixer)]
    if not mixers or other.kind == "latent_sampler" or other.hierarchy is not None or seen[source].kv_from is not None:
        raise ValueError(f"{where}: kv_from {source!r} has no keys of its own at this rate to share")
    theirs = mixers[-1]
    for mine in attention:
        same = (mine.groups, mine.head_dim, mine.pos) == (theirs.groups, theirs.head_dim, theirs.pos)
        if not same or mine.kv != FullCache() or mine.qk_norm != theirs.qk_norm:
            raise ValueError(f"{where}: kv_from {source!r}: groups, head_dim, pos and qk_norm must be equal there and "
                             "here, and the kv policy here must be the default, because it is the source's that "
                             "counts")  # fmt: skip


def _check_encoder(module: TransformerModule, stage: Stage, where: str) -> None:
    mixer = module.mixers[0]
    if len(module.mixers) != 1 or not isinstance(mixer, AttentionMixer):
        raise ValueError(f"{where}: an encoder has one attention mixer, the only kind that runs both ways")
    allowed = mixer.kv == FullCache() or (isinstance(mixer.kv, LatentCache) and mixer.kv.quant == "none")
    if mixer.stencils or not allowed or stage.kv_from is not None:
        raise ValueError(f"{where}: an encoder has no stencils, no kv_from and no cache policy: it never decodes")


def _check_all_used(arch: Arch) -> None:
    used_modules = {stage.module for stage in arch.pipeline}
    for name in arch.modules:
        if name not in used_modules:
            raise ValueError(f"module {name!r} is used by no stage")
    read = {arch.pipeline[-1].name}
    for index, stage in enumerate(arch.pipeline):
        module = arch.modules[stage.module]
        read.update(inputs_of(arch, index))
        read.update(name for name in (stage.kv_from, stage.mem_from) if name is not None)
        if module.kind == "transformer" and module.cond is not None:
            read.add(module.cond.source)
    for stage in arch.pipeline:
        if stage.name not in read:
            raise ValueError(f"pipeline stage {stage.name!r} is read by no later stage")
    last = arch.pipeline[-1]
    if last.mode == "encoder" or arch.modules[last.module].kind != "transformer":
        raise ValueError(f"the last stage {last.name!r} must be a causal transformer; the readout reads it")


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return (f"; did you mean {near[0]!r}?" if near else ".") + f" Known here: {', '.join(names) or 'none'}"
