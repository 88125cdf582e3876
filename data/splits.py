"""Which document belongs to which split.

Choices: documents are put in order of the sha256 of their text. The first belong to
confirmation_test until its share is filled, the next to search_validation, the rest to train. The order
depends on the texts alone, so identical documents are always on the same side and no text is
in two splits. The held-out share is 5 % of the text but at least 200 kB where the corpus allows (about
80,000 tokens at V=512), at most 15 % of a small corpus and at most 16 MiB of a large one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from data.corpus_error import CorpusError

Split = Literal["train", "search_validation", "confirmation_test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SPLIT_RULE = "by sha256 order: confirmation_test, search_validation (5 %, 200 kB..15 %, 16 MiB at most each), train; 1"

_SHARE = 0.05
_SHARE_OF_SMALL = 0.15
_USABLE_BYTES = 200_000
_MOST_BYTES = 16 * 2**20


def held_out_bytes(total_bytes: int) -> int:
    """The size each of the two held-out splits aims for, in bytes of text."""
    return int(min(max(_SHARE * total_bytes, _USABLE_BYTES), _SHARE_OF_SMALL * total_bytes, _MOST_BYTES))


def assign_splits(digests: Sequence[bytes], sizes: Sequence[int]) -> list[int]:
    """The split of every document, as an index into SPLITS.

    Args:
        digests: sha256 of each document's text.
        sizes: bytes of each document.

    Raises:
        CorpusError: fewer than three different documents.
    """
    weights: dict[bytes, int] = {}
    for digest, size in zip(digests, sizes, strict=True):
        weights[digest] = weights.get(digest, 0) + size
    if len(weights) < len(SPLITS):
        raise CorpusError(
            f"the corpus holds {len(weights)} different documents and its {len(SPLITS)} splits need at least one each; "
            "use a larger text, or separate its documents by blank lines"
        )
    share = held_out_bytes(sum(sizes))
    order = sorted(weights)
    held_out = [SPLITS.index("confirmation_test"), SPLITS.index("search_validation")]
    of_digest = dict.fromkeys(order, SPLITS.index("train"))
    position = 0
    for waiting, split in enumerate(held_out):
        filled = 0
        must_remain = len(held_out) - waiting
        while position < len(order) - must_remain and (filled == 0 or filled + weights[order[position]] / 2 <= share):
            of_digest[order[position]] = split
            filled += weights[order[position]]
            position += 1
    return [of_digest[digest] for digest in digests]
