"""Outputs may depend on earlier positions only: change what comes later and compare.

A layer is probed as it is trained (batch, length, float32, both modes) and, in float64, at other lengths, at weights
away from initialisation and on unusual inputs, because a leak can hide behind any of these: a gate that opens in
training, a length, a mode, a magnitude, one position, one head. At the smallest size every cut of the training length
is tried at once, one row each. Lengths, cuts, states and inputs vary with the probe seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evolution.guards.inputs import KINDS, sequence_inputs
from evolution.guards.parameter_states import STATES, settled_layer
from evolution.guards.prefix import Leak, Run, change_suffix, prefix_leak, truncation_leak
from evolution.guards.report import GuardReport
from evolution.guards.rounding import BFLOAT16, FLOAT32, FLOAT64, Tolerance
from evolution.guards.subject import EVALUATION_BATCHES, ProbedSize, Subject, mixer

NAME = "causality"
ALLOWED = "output t may depend on inputs 0..t only: mask, shift or pad on the left so that nothing later enters"
_EXHAUSTIVE_ELEMENTS = 4_000_000
_ORDINARY = ("normalised", "normal", "embedding")
_TOLERANCES = {"float64": FLOAT64, "float32": FLOAT32, "autocast": BFLOAT16}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a probe runs: size, weights, mode, precision, shape and input."""

    size: ProbedSize
    state: str
    mode: str
    precision: str
    batch: int
    length: int
    kind: str
    index: int


def check(subject: Subject) -> GuardReport:
    """All prefix probes, cheapest settings first; stops at the first confirmed leak."""
    probes = _Probes(subject)
    for setting, leak in probes.leaks():
        if leak is not None:
            return _refusal(setting, leak)
    reason = f"{probes.count} prefix probes, no output depended on a later position"
    return GuardReport(guard=NAME, passed=True, reason=reason, evidence={"probes": probes.count})


def _refusal(setting: Setting, leak: Leak) -> GuardReport:
    source = f"position {leak.from_position}" if leak.from_position is not None else f"positions after {leak.after}"
    evidence = {
        **leak.evidence(),
        "mode": setting.mode,
        "precision": setting.precision,
        "weights": setting.state,
        "inputs": setting.kind,
        "d_model": setting.size.d_model,
        "n_heads": setting.size.n_heads,
    }
    reason = (
        f"output at position {leak.to_position} changes by {leak.leak:.2g} (relative) with the input at {source} "
        f"(length {leak.length}, batch {leak.batch}, {setting.mode} mode, {setting.state} weights, {setting.kind} "
        f"inputs, {setting.precision}); {ALLOWED}"
    )
    return GuardReport(guard=NAME, passed=False, reason=reason, evidence=evidence)


Probe = Callable[[Setting, torch.Generator, Tolerance], Leak | None]


class _Probes:
    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.count = 0
        self._layers: dict[tuple[str, str, str], nn.Module | None] = {}
        offset = subject.probe_seed
        weights = any(True for _ in mixer(subject.layer(subject.smallest)).parameters())
        # States other than init, starting somewhere else for every seed; a block without weights has none.
        self.moved = [STATES[1 + (offset + i) % (len(STATES) - 1)] for i in range(len(STATES) - 1)] if weights else []

    def leaks(self) -> Iterator[tuple[Setting, Leak | None]]:
        """Every probe in order."""
        for settings, probe in (
            (self._training_settings(), self._pair),
            (self._single_settings(), self._every_cut),
            (self._length_settings(), self._pair_and_truncate),
            (self._input_settings(), self._pair),
        ):
            for setting in settings:
                yield setting, self._run(setting, probe)

    def _run(self, setting: Setting, probe: Probe) -> Leak | None:
        self.count += 1
        generator = self.subject.generator("causality", setting.index, setting.length, setting.batch, setting.state)
        double = setting.precision == "float64"
        tolerance = _TOLERANCES[setting.precision]
        if setting.state in ("init", "near") and setting.kind in _ORDINARY:
            tolerance = tolerance.at_ordinary_weights()
        try:
            with self.subject.in_double() if double else nullcontext():
                return probe(setting, generator, tolerance)
        except RuntimeError:
            if setting.state == "init" and setting.kind in _ORDINARY and setting.precision != "autocast":
                raise
            return None  # a singular matrix far from where the block will live decides nothing

    def _training_settings(self) -> Iterator[Setting]:
        """As trained and evaluated: every size, both modes, float32 and float64, some weights."""
        index = 0
        for number, size in enumerate(self.subject.sizes):
            state = self.moved[number % len(self.moved)] if self.moved else "init"
            for precision, weights, mode in (
                ("float64", "init", "train"),
                ("float64", "init", "eval"),
                ("float64", state, ("train", "eval")[number % 2]),
                ("float32", "init", "train"),
                ("float32", "init", "eval"),
                ("float32", state, ("eval", "train")[number % 2]),
                *((("autocast", "init", "train"),) if size is self.subject.smallest else ()),
            ):
                index += 1
                yield Setting(
                    size=size,
                    state=weights,
                    mode=mode,
                    precision=precision,
                    batch=size.batch_size * (EVALUATION_BATCHES if (precision, mode) == ("float32", "eval") else 1),
                    length=size.seq_len,
                    kind="normalised",
                    index=index,
                )

    def _single_settings(self) -> Iterator[Setting]:
        """Every cut at initialisation; at every other state half of them, the odd and the even ones in turns."""
        size = self.subject.smallest
        most = max(1, _EXHAUSTIVE_ELEMENTS // (size.n_heads * size.seq_len**2))
        for index, state in enumerate(("init", *self.moved)):
            cuts = size.seq_len - 1 if index == 0 else size.seq_len // 2
            yield Setting(
                size=size,
                state=state,
                mode=("train", "eval")[(index + index // 2 + self.subject.probe_seed) % 2],
                precision="float64",
                batch=1 + min(cuts, most),
                length=size.seq_len,
                kind=("normalised", "normal")[index % 2],
                index=100 + index,
            )

    def _length_settings(self) -> Iterator[Setting]:
        size = self.subject.smallest
        trained = size.seq_len
        drawn = self.subject.integers(0, 10**6, 8, "lengths")
        lengths = [2, 3, 2 * (2 + drawn[0] % 12) + 1, 15 + drawn[1] % 3, 31 + drawn[2] % 3, trained - 1, trained + 1]
        lengths += [trained + 2 + drawn[3] % trained, 2 * trained + drawn[4] % 3]
        lengths += [64, 128]  # whole blocks of the usual sizes, whatever the trained length
        for index, length in enumerate(lengths):
            yield Setting(
                size=self.subject.sizes[index % len(self.subject.sizes)],
                state=self._state(index, (index + drawn[5]) % 2 == 0),
                mode=("train", "eval")[(index + drawn[6]) % 2],
                precision="float64",
                batch=(1, 2, 3, 5)[(index + drawn[7]) % 4],
                length=max(length, 2),
                kind="normalised",
                index=200 + index,
            )

    def _input_settings(self) -> Iterator[Setting]:
        for index, kind in enumerate(KINDS[1:]):
            size = self.subject.sizes[(index + self.subject.probe_seed) % len(self.subject.sizes)]
            yield Setting(
                size=size,
                state=self._state(index, index % 2 == 0),
                mode=("eval", "train")[index % 2],
                precision="float64",
                batch=size.batch_size,
                length=size.seq_len,
                kind=kind,
                index=300 + index,
            )

    def _state(self, index: int, init: bool) -> str:
        return "init" if init or not self.moved else self.moved[index % len(self.moved)]

    def _layer(self, setting: Setting) -> nn.Module | None:
        """The layer in its state, cached; None when no finite output is near that state."""
        size = setting.size
        key = (size.name, setting.state, setting.precision)
        if key not in self._layers:
            double = setting.precision == "float64"
            self._layers[key] = settled_layer(self.subject, size, setting.state, double=double)
        layer_or_none = self._layers[key]
        return None if layer_or_none is None else layer_or_none.train(setting.mode == "train")

    def _inputs(self, setting: Setting, generator: torch.Generator, kind: str, rows: int) -> Tensor:
        x = sequence_inputs(kind, rows, setting.length, setting.size.d_model, generator)
        return x.to(self.subject.device, torch.float64 if setting.precision == "float64" else torch.float32)

    def _runner(self, layer: nn.Module, setting: Setting) -> Run:
        """A forward as the harness makes it: with a graph in training, without one in evaluation."""
        autocast = setting.precision == "autocast"

        def run(x: Tensor) -> Tensor:
            with torch.inference_mode(setting.mode == "eval"):
                with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
                    found: Tensor = layer(x)
            return found.detach().float() if autocast else found.detach()

        return run

    def _pair(self, setting: Setting, generator: torch.Generator, tolerance: Tolerance) -> Leak | None:
        """Two calls on whole batches; each row has a cut of its own, the first and the last token among them."""
        layer = self._layer(setting)
        if layer is None:
            return None
        x = self._inputs(setting, generator, setting.kind, setting.batch)
        other = self._inputs(setting, generator, setting.kind, setting.batch)
        if setting.index % 3 == 2:
            other = other * 20.0
        cuts = torch.randint(0, setting.length - 1, (setting.batch,), generator=generator).tolist()
        cuts[0] = setting.length - 2
        if setting.batch > 1:
            cuts[1] = 0
        changed = change_suffix(x, other, cuts)
        run = self._runner(layer, setting)
        base = run(x)
        if setting.state == "init" and setting.kind in _ORDINARY and not bool(torch.isfinite(base).all()):
            raise RuntimeError(  # a probe of what is not finite would find nothing
                f"outputs are not finite at length {setting.length}, batch {setting.batch}, {setting.mode} mode, "
                f"{setting.precision}"
            )
        return prefix_leak(run, x, changed, cuts, tolerance, generator, [*layer.parameters()], base)

    def _every_cut(self, setting: Setting, generator: torch.Generator, tolerance: Tolerance) -> Leak | None:
        """One call: row 0 is the base, every other row differs from it behind its own cut."""
        layer = self._layer(setting)
        if layer is None:
            return None
        length, rows = setting.length, setting.batch
        tried = torch.arange(length - 1)
        if rows < length:
            tried = tried[setting.index % 2 :: 2]
            tried = tried[torch.randperm(len(tried), generator=generator)[: rows - 1]]
        cuts = [length - 1, *tried.tolist()]
        x = self._inputs(setting, generator, setting.kind, 1).expand(len(cuts), -1, -1)
        other = self._inputs(setting, generator, setting.kind, len(cuts))
        changed = change_suffix(x, other, cuts)
        run = self._runner(layer, setting)
        outputs = run(changed)
        base = outputs[:1].expand_as(outputs)

        def known(rows: Tensor) -> Tensor:
            return outputs if rows is changed else run(rows)

        return prefix_leak(known, x, changed, cuts, tolerance, generator, [*layer.parameters()], base)

    def _pair_and_truncate(self, setting: Setting, generator: torch.Generator, tolerance: Tolerance) -> Leak | None:
        """A pair, then two runs on prefixes alone, one of them a single token."""
        leak = self._pair(setting, generator, tolerance)
        layer = self._layer(setting)
        if leak is not None or layer is None:
            return leak
        x = self._inputs(setting, generator, setting.kind, setting.batch)
        run = self._runner(layer, setting)
        base = run(x)
        for cut in (0, int(torch.randint(0, setting.length - 1, (), generator=generator))):
            leak = truncation_leak(run, x, cut, tolerance, generator, [*layer.parameters()], base)
            if leak is not None:
                return leak
        return None
