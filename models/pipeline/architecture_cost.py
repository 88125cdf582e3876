"""The cost of a whole architecture from the DSL alone: parameters, FLOPs, cache and state bytes.

A test holds every number to the built model: parameters counted, FLOPs by torch's counter, bytes in the caches.
"""

from __future__ import annotations

from frameworks.architecture.mixer import (
    AttentionMixer,
    DeltaMixer,
    LinearMixer,
    LongConvMixer,
    Mixer,
    NoCache,
    RetentionMixer,
    RingCache,
    SsmMixer,
    WindowCache,
)
from frameworks.architecture.position import LearnedPositions
from frameworks.architecture.schema import (
    Arch,
    LatentSamplerModule,
    ParallelUnit,
    RoutedUnit,
    Stage,
    TransformerModule,
)
from frameworks.architecture.wiring import inputs_of
from models.pipeline import decayed_attention, delta_rule
from models.pipeline.attention import attention_cost
from models.pipeline.conditioning import conditioning_cost
from models.pipeline.convolution import convolution_flops
from models.pipeline.cost import Cost, Shape, matrices
from models.pipeline.feed_forward import feed_forward_cost
from models.pipeline.latent import latent_cost
from models.pipeline.normalization import norm_parameters

_BYTES = 4


def architecture_cost(arch: Arch, *, vocab_size: int, batch: int, length: int, posterior: bool = False) -> Cost:
    """What the model of `arch` costs.

    Args:
        arch: the model part of an architecture.
        vocab_size: V.
        batch: B of the forward pass whose FLOPs are counted.
        length: T of that pass, and of the decoding whose bytes are counted (with batch 1).
        posterior: latents come from the encoder, as in training.
    """
    shape = Shape(batch=batch, length=length)
    d = arch.d_model
    cost = Cost(parameters=vocab_size * d, flops=2 * shape.tokens * d * vocab_size)
    if not arch.readout.tied:
        cost += Cost(parameters=vocab_size * d)
    cost += Cost(parameters=norm_parameters(arch.readout.norm, d))
    if isinstance(arch.embedding.pos, LearnedPositions):
        cost += Cost(parameters=arch.embedding.pos.max_len * d)
    if arch.embedding.norm is not None:
        cost += Cost(parameters=norm_parameters(arch.embedding.norm, d))
    cached = True
    for index, stage in enumerate(arch.pipeline):
        module = arch.modules[stage.module]
        if isinstance(module, LatentSamplerModule):
            cost += latent_cost(module, d, shape.tokens, posterior=posterior)
            continue
        cached = cached and not any(isinstance(m, AttentionMixer) and isinstance(m.kv, NoCache) for m in module.mixers)
        cost += _stage_cost(arch, index, stage, module, shape, posterior)
    if cached:
        return cost
    return Cost(parameters=cost.parameters, flops=cost.flops)


def _stage_cost(arch: Arch, index: int, stage: Stage, module: TransformerModule, shape: Shape, posterior: bool) -> Cost:
    d = arch.d_model
    cost = Cost(parameters=0 if inputs_of(arch, index) else d)
    inner = shape
    if module.hierarchy is not None:
        groups = shape.length // module.hierarchy.stride
        inner = Shape(batch=shape.batch, length=max(1, groups))
    stack = _stack_cost(arch, stage, module, inner)
    if module.hierarchy is not None:
        if inner.length != shape.length // module.hierarchy.stride:  # no group is whole: nothing runs
            stack = Cost(parameters=stack.parameters, state_bytes=stack.state_bytes)
        stack += Cost(state_bytes=2 * d * _BYTES)
    cost += stack.repeated(stage.repeat)
    if stage.mode == "encoder":
        return Cost(parameters=cost.parameters, flops=cost.flops if posterior else 0)
    return cost


def _stack_cost(arch: Arch, stage: Stage, module: TransformerModule, shape: Shape) -> Cost:
    d = arch.d_model
    layer = Cost()
    for spec in module.mixers:
        layer += mixer_cost(
            spec,
            d,
            shape,
            owns_keys=stage.kv_from is None,
            causal=stage.mode == "causal",
            source_window=_window_of(arch, stage.kv_from),
        )
    unit = module.mix_unit
    if isinstance(unit, RoutedUnit):
        count = len(unit.mixers)
        layer += matrices(d * count, shape.tokens) + Cost(flops=2 * shape.tokens * d * count)
    if isinstance(unit, ParallelUnit):
        if unit.merge == "concat":
            layer += matrices(len(unit.mixers) * d * d, shape.tokens)
        if unit.merge == "weighted_add":
            layer += Cost(parameters=len(unit.mixers))
    layer += Cost(parameters=_norms(module) * norm_parameters(module.norm, d))
    if module.cond is not None:
        layer += conditioning_cost(module.cond, d, shape.tokens).repeated(len(module.cond.where))
    loops = 1 if module.recurrence is None else module.recurrence.loops
    if module.ffn is not None and module.depth_router is None:
        layer += feed_forward_cost(module.ffn, d, shape.tokens)
    cost = layer.repeated(module.n_layers)
    if module.ffn is not None and module.depth_router is not None:
        parameters = feed_forward_cost(module.ffn, d, 1).parameters * module.n_layers
        flops = feed_forward_cost(module.ffn, d, shape.tokens * module.depth_router.top_k).flops
        cost += Cost(parameters=parameters, flops=flops)
    cost = cost.repeated(loops, shared=True)
    if module.depth_router is not None:
        cost += matrices(d * module.n_layers, shape.tokens)
    return cost


def _norms(module: TransformerModule) -> int:
    branches = 1 if module.ffn is None else 2
    if module.residual.placement == "sandwich":
        return 2 * branches
    return 1 if module.residual.placement == "post" and module.residual.parallel else branches


def _window_of(arch: Arch, name: str | None) -> int | None:
    if name is None:
        return None
    stage = next(stage for stage in arch.pipeline if stage.name == name)
    module = arch.modules[stage.module]
    if not isinstance(module, TransformerModule):
        return None
    last = [mixer for mixer in module.mixers if isinstance(mixer, AttentionMixer)][-1]
    return last.kv.window if isinstance(last.kv, WindowCache | RingCache) else None


def mixer_cost(
    spec: Mixer, d: int, shape: Shape, *, owns_keys: bool = True, causal: bool = True, source_window: int | None = None
) -> Cost:
    """What one mixer costs in a model of width `d`; the last three are read by attention, see `attention_cost`."""
    if isinstance(spec, AttentionMixer):
        return attention_cost(spec, d, shape, owns_keys=owns_keys, causal=causal, source_window=source_window)
    if isinstance(spec, LongConvMixer):
        cost = matrices((3 if spec.gate else 2) * d * d, shape.tokens)
        return cost + Cost(
            parameters=d * spec.kernel_len,
            flops=convolution_flops(d, spec.kernel_len, shape.tokens),
            state_bytes=_BYTES * d * (spec.kernel_len - 1),
        )
    if isinstance(spec, SsmMixer):
        return _ssm_cost(spec, d, shape)
    inner = spec.heads * spec.head_dim
    square = _BYTES * spec.heads * spec.head_dim * spec.head_dim
    common = {"batch": shape.batch, "heads": spec.heads, "length": shape.length, "key_width": spec.head_dim}
    if isinstance(spec, RetentionMixer):
        core = decayed_attention.flops(**common, shared=False, value_width=spec.head_dim, chunk=spec.chunk)
        return matrices((5 if spec.gate else 4) * d * inner, shape.tokens) + Cost(flops=core, state_bytes=square)
    if isinstance(spec, LinearMixer):
        core = decayed_attention.flops(**common, shared=False, value_width=spec.head_dim + 1, chunk=spec.chunk)
        held = square + _BYTES * inner
        return matrices(4 * d * inner, shape.tokens) + Cost(flops=core, state_bytes=held)
    return _delta_cost(spec, d, shape, common)


def _delta_cost(spec: DeltaMixer, d: int, shape: Shape, common: dict[str, int]) -> Cost:
    inner = spec.heads * spec.head_dim
    rates = 2 if spec.gated else 1
    core = delta_rule.flops(**common, value_width=spec.head_dim, chunk=spec.chunk)
    past = 3 * inner * (spec.conv_kernel - 1)
    return matrices(4 * d * inner + rates * d * spec.heads, shape.tokens) + Cost(
        parameters=3 * inner * spec.conv_kernel + rates * spec.heads + spec.head_dim,
        flops=core,
        state_bytes=_BYTES * (inner * spec.head_dim + past),
    )


def _ssm_cost(spec: SsmMixer, d: int, shape: Shape) -> Cost:
    inner = spec.expand * d
    heads = inner // spec.head_dim
    convolved = inner + 2 * spec.d_state
    core = decayed_attention.flops(
        batch=shape.batch,
        heads=heads,
        shared=True,
        length=shape.length,
        key_width=spec.d_state,
        value_width=spec.head_dim,
        chunk=spec.chunk,
    )
    weights = d * (2 * inner + 2 * spec.d_state + heads) + inner * d
    return matrices(weights, shape.tokens) + Cost(
        parameters=convolved * spec.conv_kernel + 3 * heads + inner,
        flops=core,
        state_bytes=_BYTES * (inner * spec.d_state + convolved * (spec.conv_kernel - 1)),
    )
