"""A sketch of an architecture: mermaid text, and what each stage is in a few words."""

from __future__ import annotations

from typing import Any

from frameworks.architecture.mixer import AttentionMixer, Mixer
from frameworks.architecture.schema import Architecture, LatentSamplerModule, RoutedUnit, TransformerModule
from frameworks.architecture.wiring import EMBEDDING, inputs_of


def mermaid(architecture: Architecture) -> str:
    """A mermaid flow chart: solid arrows are inputs, dotted ones conditions, keys and memories."""
    arch = architecture.arch
    lines = ["flowchart TD", f'    {EMBEDDING}["Embedding (d_model {arch.d_model})"]']
    for index, stage in enumerate(arch.pipeline):
        module = arch.modules[stage.module]
        lines.append(f'    s_{stage.name}["{stage_text(architecture, index)}"]')
        for name in inputs_of(arch, index):
            lines.append(f"    {name if name == EMBEDDING else 's_' + name} --> s_{stage.name}")
        source = module.cond.source if isinstance(module, TransformerModule) and module.cond else None
        for label, read in (("condition", source), ("keys", stage.kv_from), ("memory", stage.mem_from)):
            if read is not None:
                lines.append(f"    s_{read} -. {label} .-> s_{stage.name}")
    lines += ['    out["Readout"]', f"    s_{arch.pipeline[-1].name} --> out"]
    return "\n".join(lines)


def stage_text(architecture: Architecture, index: int) -> str:
    """One stage in words."""
    stage = architecture.arch.pipeline[index]
    module = architecture.arch.modules[stage.module]
    if isinstance(module, LatentSamplerModule):
        return f"{stage.name}: latent sampler, {module.bits} bits"
    unit = module.mix_unit
    joined = " + ".join(mixer_text(mixer) for mixer in module.mixers)
    if isinstance(unit, RoutedUnit):
        joined = f"route top {unit.router.top_k} of {joined}"
    parts = [joined, "no feed-forward" if module.ffn is None else f"{module.ffn.kind} feed-forward {module.ffn.d_ff}"]
    extras: dict[str, Any] = {"recurrent": module.recurrence, "coarse": module.hierarchy, "depth": module.depth_router}
    parts += [name for name, value in extras.items() if value is not None]
    times = module.n_layers * stage.repeat
    seen = "sees the future, training only" if stage.mode == "encoder" else ""
    return f"{stage.name}: {times} x ({', '.join(parts)})" + (f", {seen}" if seen else "")


def mixer_text(mixer: Mixer) -> str:
    """One mixer in words."""
    if not isinstance(mixer, AttentionMixer):
        return mixer.kind
    reach = "".join(f" {stencil.kind}" for stencil in mixer.stencils)
    pos = f" {mixer.pos.kind}" if mixer.pos else ""
    return f"attention {mixer.heads}/{mixer.groups}{reach}{pos}"
