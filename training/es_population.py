"""The fitness of a whole population: prompts drawn, translated by all members at once, scored.

Choices: all members of an epoch are padded alike and may say equally much, so that a member's translations do not
depend on who shares its forward pass; `members_per_forward` only cuts the batch, between pairs. Prompts come from
permutations of the training split, one after another, keyed by their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from data.keyed_random import numpy_generator
from data.translation import Sentences
from models.fsmt.decoding import Detokenizer, Search, pad_rows, translate
from models.fsmt.error import TranslationError
from models.fsmt.factors import Factors
from models.fsmt.loader import Translator
from models.fsmt.perturbation import perturbed
from models.fsmt.tokenizer import encode_targets
from training.es_config import EvolutionSection, TaskSection
from training.es_weights import EvolvedWeights
from training.translation_scores import SentenceFitness


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one epoch's population did.

    Attributes:
        raw: fitness of every member (N,) fp64, 0 to 1.
        example: (source, reference, translation) of the first member.
        length_ratio: characters of all translations over characters of their references.
    """

    raw: Tensor
    example: tuple[str, str, str]
    length_ratio: float

    @property
    def mean(self) -> float:
        """Mean fitness."""
        return float(self.raw.mean())

    def flat_share(self, groups: Tensor) -> float:
        """Share of groups whose members all have the same fitness, from which nothing is learnt."""
        rows = self.raw.view(int(groups.max()) + 1, -1)
        return float((rows.max(1).values == rows.min(1).values).double().mean())


class Population:
    """Measures populations.

    Args:
        translator: model and tokenizer.
        weights: what evolves in it.
        train: where prompts are drawn.
        evolution, task: the configuration.
        seed: of the prompts.

    Raises:
        TranslationError: fewer training sentences than one epoch draws.
    """

    def __init__(
        self,
        translator: Translator,
        weights: EvolvedWeights,
        train: Sentences,
        evolution: EvolutionSection,
        task: TaskSection,
        *,
        seed: int,
    ) -> None:
        if len(train) < evolution.prompts_per_epoch:
            raise TranslationError(
                f"an epoch draws {evolution.prompts_per_epoch} prompts and the training split has {len(train)}; "
                "use more sentences or a smaller population"
            )
        self._translator = translator
        self._weights = weights
        self._train = train
        self._evolution = evolution
        self._task = task
        self._seed = seed
        self._texts = Detokenizer(translator.tokenizer)
        self._fitness = SentenceFitness(task.chrf_weight)
        self._orders: dict[int, list[int]] = {}

    def evaluate(self, epoch: int, factors: Mapping[str, Factors]) -> Evaluation:
        """Translate and score the epoch's prompts with every member.

        Args:
            epoch: from 0.
            factors: the noise of all pairs, see `EvolvedWeights.draw`.
        """
        prompts = self.prompts(epoch)
        members = self._evolution.parallel_generations_per_gpu
        size, per_member = self._evolution.generations_per_prompt, self._evolution.prompts_per_group
        rows = [
            prompts[(member // size) * per_member + place] for member in range(members) for place in range(per_member)
        ]
        texts = self._translated(rows, per_member, factors)
        references = [self._train.targets[row] for row in rows]
        scores = [self._fitness(text, reference) for text, reference in zip(texts, references, strict=True)]
        raw = torch.tensor(scores, dtype=torch.float64).view(members, per_member).mean(1)
        characters = sum(map(len, references))
        return Evaluation(
            raw=raw,
            example=(self._train.sources[rows[0]], references[0], texts[0]),
            length_ratio=sum(map(len, texts)) / max(characters, 1),
        )

    def prompts(self, epoch: int) -> list[int]:
        """Rows of the training split that `epoch` translates, without repeats within a pass over the split."""
        count, total = self._evolution.prompts_per_epoch, len(self._train)
        return [self._order(place // total)[place % total] for place in range(epoch * count, (epoch + 1) * count)]

    def _order(self, number: int) -> list[int]:
        if number not in self._orders:
            draw = numpy_generator("es prompts", self._seed, number)
            self._orders[number] = draw.permutation(len(self._train)).tolist()
        return self._orders[number]

    def _translated(self, rows: list[int], per_member: int, factors: Mapping[str, Factors]) -> list[str]:
        """Texts of all rows, members one after the other."""
        tokenizer, model = self._translator.tokenizer, self._translator.model
        sources = {row: tokenizer(self._train.sources[row]).input_ids for row in set(rows)}
        targets = encode_targets(tokenizer, [self._train.targets[row] for row in set(rows)])
        room = model.config.max_position_embeddings
        sources = {row: ids if len(ids) <= room else [*ids[: room - 1], ids[-1]] for row, ids in sources.items()}
        ids, mask = pad_rows([sources[row] for row in rows], model.config.pad_token_id)
        limit = min(max(map(len, targets)) + self._task.extra_tokens, self._task.max_length, room - 1)
        search = Search(num_beams=self._task.num_beams, no_repeat_ngram_size=self._task.no_repeat_ngram_size)
        step = self._evolution.members_per_forward or self._evolution.parallel_generations_per_gpu
        texts: list[str] = []
        for first in range(0, self._evolution.parallel_generations_per_gpu, step):
            count = min(step, self._evolution.parallel_generations_per_gpu - first)
            chunk = {name: factor.narrow(first // 2, count // 2) for name, factor in factors.items()}
            part = slice(first * per_member, (first + count) * per_member)
            with perturbed(model, self._weights.chosen, chunk, self._weights.sigma):
                texts += self._texts.texts(translate(model, ids[part], mask[part], search, limit))
        return texts
