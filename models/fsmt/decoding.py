"""Greedy and beam search, from padded batches to text.

Choices: `generate()` is used as it is, with a generation configuration of our own, so that a checkpoint's own limits
never decide; the number of new tokens is fixed by the caller, so that no row's result depends on its neighbours'
length. Text of equal token sequences is made once: members of a population often say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import FSMTForConditionalGeneration, FSMTTokenizer


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a translation is searched for.

    Attributes:
        num_beams: 1 is greedy.
        no_repeat_ngram_size: forbid n-grams of this size to come twice; 0: allow.
        length_penalty: exponent of the length in a beam's score.
    """

    num_beams: int = 1
    no_repeat_ngram_size: int = 0
    length_penalty: float = 1.0


def pad_rows(rows: Sequence[Sequence[int]], pad: int, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Rows of ids to (ids, mask), both (batch, T) int64, padded on the right.

    Args:
        rows: token ids.
        pad: id of the padding.
        length: T; the longest row when None.
    """
    width = max(map(len, rows)) if length is None else length
    ids = torch.full((len(rows), width), pad, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[place, : len(row)] = 1
    return ids, mask


@torch.no_grad()
def translate(
    model: FSMTForConditionalGeneration, ids: Tensor, mask: Tensor, search: Search, max_new_tokens: int
) -> Tensor:
    """Token ids (batch, 1 + n) of the best translations, n at most `max_new_tokens`; starts with </s>.

    Args:
        model: in evaluation mode.
        ids, mask: padded sources (batch, T).
        search: greedy or beams.
        max_new_tokens: limit of every row.
    """
    from transformers import GenerationConfig

    config = model.config
    chosen = GenerationConfig(
        max_length=1 + max_new_tokens,  # the decoder starts with one token
        num_beams=search.num_beams,
        no_repeat_ngram_size=search.no_repeat_ngram_size,
        length_penalty=search.length_penalty if search.num_beams > 1 else None,
        do_sample=False,
        early_stopping=search.num_beams > 1,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )
    found = model.generate(ids, attention_mask=mask, generation_config=chosen)
    return found  # type: ignore[no-any-return]  # transformers is not typed


class Detokenizer:
    """Token ids to text, each different sequence once.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: FSMTTokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = {tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.sep_token_id}
        self._texts: dict[tuple[int, ...], str] = {}

    def texts(self, sequences: Tensor) -> list[str]:
        """Text of each row (batch, n): what stands before the second </s>, special tokens left out."""
        found = []
        for row in sequences.tolist():
            key = self._content(row)
            if key not in self._texts:
                if len(self._texts) >= 50_000:
                    self._texts.clear()
                pieces = [self._tokenizer._convert_id_to_token(token) for token in key]
                self._texts[key] = self._tokenizer.convert_tokens_to_string(pieces)
            found.append(self._texts[key])
        return found

    def _content(self, row: list[int]) -> tuple[int, ...]:
        end = self._tokenizer.sep_token_id
        body = row[1:]
        if end in body:
            body = body[: body.index(end)]
        return tuple(token for token in body if token not in self._special)
