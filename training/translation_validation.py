"""Translates a held-out split with a model and scores it.

Choices: sentences of similar length share a batch; the limit of new tokens is the split's longest reference and the
task's extra, the same for every model that is compared.
"""

from __future__ import annotations

from dataclasses import replace

from data.translation import Sentences
from models.fsmt.decoding import Detokenizer, Search, pad_rows, translate
from models.fsmt.loader import Translator
from models.fsmt.tokenizer import encode_targets
from training.es_config import TaskSection
from training.translation_scores import CorpusScore, paired_bootstrap, score_corpus


class HeldOut:
    """One held-out split.

    Args:
        translator: its model translates, with the weights it has at the time.
        sentences: the split.
        task: search, limits and batch size.
    """

    def __init__(self, translator: Translator, sentences: Sentences, task: TaskSection) -> None:
        self._model = translator.model
        self._sentences = sentences
        self._task = task
        self._texts = Detokenizer(translator.tokenizer)
        room = translator.model.config.max_position_embeddings
        rows = [translator.tokenizer(text).input_ids for text in sentences.sources]
        self._rows = [row if len(row) <= room else [*row[: room - 1], row[-1]] for row in rows]
        longest = max(map(len, encode_targets(translator.tokenizer, sentences.targets)))
        self._limit = min(longest + task.extra_tokens, task.max_length, room - 1)
        self._search = Search(num_beams=task.num_beams, no_repeat_ngram_size=task.no_repeat_ngram_size)

    def translate(self, no_repeat_ngram_size: int | None = None) -> list[str]:
        """Translations in the split's order; the n-gram limit is the task's when None."""
        search = self._search
        if no_repeat_ngram_size is not None:
            search = replace(search, no_repeat_ngram_size=no_repeat_ngram_size)
        order = sorted(range(len(self._rows)), key=lambda row: (len(self._rows[row]), row))
        texts = [""] * len(order)
        for start in range(0, len(order), self._task.batch_size):
            part = order[start : start + self._task.batch_size]
            ids, mask = pad_rows([self._rows[row] for row in part], self._model.config.pad_token_id)
            found = self._texts.texts(translate(self._model, ids, mask, search, self._limit))
            for row, text in zip(part, found, strict=True):
                texts[row] = text
        return texts

    def score(self, translations: list[str]) -> CorpusScore:
        """Scores against the split's references."""
        return score_corpus(translations, self._sentences.targets)

    def compare(self, baseline: list[str], system: list[str]) -> dict[str, float]:
        """p-values of `system` against `baseline`; see `paired_bootstrap`."""
        return paired_bootstrap(baseline, system, self._sentences.targets)
