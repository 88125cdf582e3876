"""The weights of a fine-tuning: fp32 masters, stepped by a noiser, as a function of the fitness seen so far.

`apply` is all that ever changes them, and it draws its noise from the epoch's key: with the same start weights and
the same fitness vectors it gives the same bits. That is the checkpoint: fitness vectors are stored and replayed.
Nothing is ever perturbed in place.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from data.keyed_random import numpy_generator
from frameworks.noisers.noiser import Noiser, NoiserError, State
from frameworks.noisers.solver import SolverState, solve
from models.fsmt.error import TranslationError
from models.fsmt.factors import Factors, NoiseSource
from models.fsmt.parameters import Matrix
from training.es_config import EvolutionSection


def learning_rate_share(section: EvolutionSection, epoch: int, n_epochs: int) -> float:
    """The share of lr_scale that `epoch` (from 0) uses: held, then linear to lr_final in the last epoch."""
    hold = section.lr_hold * n_epochs
    if epoch < hold or n_epochs <= 1:
        return 1.0
    progress = (epoch + 1 - hold) / (n_epochs - hold)
    return 1.0 - (1.0 - section.lr_final) * progress


class EvolvedWeights:
    """The evolving matrices of a model.

    Args:
        model: fp32; the chosen matrices are changed in place by `apply`.
        chosen: the matrices that evolve.
        section: the strategy.
        noiser: shapes fitness and makes steps.
        seed: of the run's noise.
        n_epochs: length of the schedule.

    Raises:
        TranslationError: an override matches nothing, or full-rank noise does not fit the memory.
    """

    def __init__(
        self,
        model: nn.Module,
        chosen: list[Matrix],
        section: EvolutionSection,
        noiser: Noiser,
        *,
        seed: int,
        n_epochs: int,
    ) -> None:
        self._model = model
        self._section = section
        self._noiser = noiser
        self._seed = seed
        self._n_epochs = n_epochs
        self.chosen = chosen
        rank = section.rank if noiser.noise == "low_rank" else None
        self.noise = NoiseSource(run=seed, chosen=chosen, rank=rank, noise_reuse=section.noise_reuse)
        self._check_memory()
        self.sigma, self._lr = self._step_sizes()
        self._states: dict[str, State] = {matrix.name: {} for matrix in chosen}
        self._solvers: dict[str, SolverState] = {matrix.name: {} for matrix in chosen}
        self._average: dict[str, Tensor] | None = self.copy() if section.averaging else None
        members = section.parallel_generations_per_gpu
        self._signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(members // 2)
        self.groups = torch.arange(members) // section.generations_per_prompt

    def draw(self, epoch: int) -> dict[str, Factors]:
        """The noise of all pairs in `epoch`, by matrix."""
        return self.noise.draw(epoch, range(self._section.parallel_generations_per_gpu // 2))

    def apply(self, epoch: int, raw: Tensor, factors: Mapping[str, Factors] | None = None) -> float:
        """Step every matrix.

        Args:
            epoch: from 0.
            raw: fitness of every member (N,) fp64.
            factors: the epoch's noise where it is at hand; drawn otherwise, with the same result.

        Returns:
            RMS of the change over all evolved entries, in sigmas.

        Raises:
            NoiserError: the noiser gave a step of another shape, or one that is not finite.
        """
        factors = self.draw(epoch) if factors is None else factors
        share = learning_rate_share(self._section, epoch, self._n_epochs)
        fitness = self._noiser.shape_fitness(self._seen(epoch, raw), self.groups)
        squares, entries = 0.0, 0
        for matrix in self.chosen:
            delta = self._delta(matrix, factors[matrix.name], fitness, share)
            self._model.get_parameter(matrix.name).data += delta
            squares += float(delta.square().sum()) / self.sigma[matrix.name] ** 2
            entries += matrix.count
        if self._average is not None:
            for name, average in self._average.items():
                average.lerp_(self._model.get_parameter(name).data, 1.0 - self._section.averaging)
        return float((squares / entries) ** 0.5)

    def validated(self) -> dict[str, Tensor]:
        """The weights that are validated and saved, by name: the average where there is one, else a copy."""
        if self._average is None:
            return self.copy()
        return {name: average.clone() for name, average in self._average.items()}

    def copy(self) -> dict[str, Tensor]:
        """A copy of the evolving weights, by name."""
        return {matrix.name: self._model.get_parameter(matrix.name).data.clone() for matrix in self.chosen}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Put weights into the model."""
        for name, weight in weights.items():
            self._model.get_parameter(name).data.copy_(weight)

    def digest(self) -> str:
        """sha256 of the evolving weights' bytes, and of their average's."""
        found = hashlib.sha256()
        for weights in (self.copy(), self._average or {}):
            for name, weight in weights.items():
                found.update(name.encode())
                found.update(weight.contiguous().numpy().tobytes())
        return found.hexdigest()

    def _seen(self, epoch: int, raw: Tensor) -> Tensor:
        """The fitness that is learnt from; permuted within groups for the control."""
        if not self._section.permute_fitness:
            return raw
        draw = numpy_generator("es control", self._seed, epoch)
        size = self._section.generations_per_prompt
        rows = [torch.from_numpy(draw.permutation(size)) + size * group for group in range(self._section.n_groups)]
        return raw[torch.cat(rows)]

    def _delta(self, matrix: Matrix, factors: Factors, fitness: Tensor, share: float) -> Tensor:
        name = matrix.name
        sigma, lr = self.sigma[name], self._lr[name] * share
        delta, self._states[name] = self._noiser.update(
            factors.A, factors.B, self._signs, fitness, sigma, lr, self._states[name]
        )
        if tuple(delta.shape) != matrix.shape or not bool(torch.isfinite(delta).all()):
            what = "is not finite" if tuple(delta.shape) == matrix.shape else f"has shape {tuple(delta.shape)}"
            raise NoiserError(f"noiser {self._noiser.name}: the step of {name} {what}; expected finite {matrix.shape}")
        if lr > 0:
            delta, self._solvers[name] = solve(self._section.solver, delta, lr * sigma, self._solvers[name])
        return delta

    def _step_sizes(self) -> tuple[dict[str, float], dict[str, float]]:
        """Sigma and lr_scale by matrix, overrides applied."""
        sigma, lr = {}, {}
        for matrix in self.chosen:
            own_sigma, own_lr = self._section.sigma, self._section.lr_scale
            for override in self._section.overrides:
                if fnmatch.fnmatchcase(matrix.name, override.pattern):
                    own_sigma, own_lr = override.sigma or own_sigma, override.lr_scale or own_lr
            if self._section.relative_sigma:
                own_sigma *= float(self._model.get_parameter(matrix.name).data.square().mean().sqrt())
            sigma[matrix.name], lr[matrix.name] = own_sigma, own_lr
        for override in self._section.overrides:
            if not any(fnmatch.fnmatchcase(matrix.name, override.pattern) for matrix in self.chosen):
                raise TranslationError(
                    f"evolution.overrides: pattern {override.pattern!r} matches no evolving matrix; "
                    f"they are named like {self.chosen[0].name}"
                )
        return sigma, lr

    def _check_memory(self) -> None:
        import psutil

        pairs = self._section.parallel_generations_per_gpu // 2
        wanted = 4 * 3 * pairs * self.noise.floats_per_pair  # the noise, and its scaled copies in the forward
        there = psutil.virtual_memory().available
        if wanted > there:
            raise TranslationError(
                f"the noise of {pairs} pairs needs {wanted / 2**30:.1f} GiB and {there / 2**30:.1f} GiB are free; use "
                "noiser eggroll, a smaller rank, or a smaller parallel_generations_per_gpu"
            )
