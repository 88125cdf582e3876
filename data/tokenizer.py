"""Byte-level BPE: any text to ids and back without loss.

Choices: byte-level, so no text is unknown and decode(encode(text)) == text; the end-of-document
token is id 0 and is never produced by a text that merely spells it; training reads at most
`TRAINING_SAMPLE_BYTES`, picked by document hash, because merges learned on more of the same
text hardly change while the time grows. Trained and used single-threaded unless
TOKENIZERS_PARALLELISM says otherwise or the text is large: a small corpus gains little, and threads
started here would make later forks of this process unsafe. Training on the
12 MB of the standard library at V=512 and encoding them takes about 6 s on one idle core.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.corpus_error import CorpusError

END_OF_DOCUMENT = "<|endoftext|>"
END_OF_DOCUMENT_ID = 0
N_BYTES = 256
MIN_VOCAB_SIZE = N_BYTES + 1
MAX_VOCAB_SIZE = 262_144
TRAINING_SAMPLE_BYTES = 32 * 2**20
_PARALLEL_FROM_BYTES = 128 * 2**20


class BytePairTokenizer:
    """A trained byte-level BPE.

    Attributes:
        hash: sha256 of what it does (its tokens in id order and its merges), independent of file layout.
    """

    def __init__(self, text: str) -> None:
        """From the JSON that `to_json` gives.

        Raises:
            CorpusError: the text is not such a tokenizer.
        """
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Any = Tokenizer.from_str(text)
            model = json.loads(text)["model"]
            vocabulary: dict[str, int] = model["vocab"]
        except Exception as error:  # tokenizers raises bare Exception
            raise CorpusError(
                f"the tokenizer cannot be read ({error}); delete the corpus folder to rebuild it"
            ) from error
        self._tokenizer.encode_special_tokens = True  # a text that spells the special token gets ordinary ids
        self._text = text
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        content = {
            "kind": "byte-level BPE",
            "end_of_document": END_OF_DOCUMENT_ID,
            "tokens": sorted(vocabulary, key=vocabulary.__getitem__),
            "merges": merges,
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        self.hash = hashlib.sha256(canonical.encode("ascii")).hexdigest()
        self.n_tokens = len(vocabulary)

    @property
    def to_json(self) -> str:
        """The text it can be made from again."""
        return self._text

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without an end-of-document token."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, each followed by the end-of-document token."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[*encoding.ids, END_OF_DOCUMENT_ID] for encoding in encodings]

    def decode(self, ids: Sequence[int] | npt.NDArray[Any]) -> str:
        """The text of `ids`; the end-of-document token reads `<|endoftext|>`.

        Raises:
            CorpusError: an id is outside the vocabulary.
        """
        numbers = [int(number) for number in np.asarray(ids).reshape(-1)]
        for number in numbers:
            if not 0 <= number < self.n_tokens:
                raise CorpusError(f"token id {number} is outside this tokenizer; allowed: 0 to {self.n_tokens - 1}")
        return str(self._tokenizer.decode(numbers, skip_special_tokens=False))


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> BytePairTokenizer:
    """Learns the merges from `texts`; the same texts in the same order give the same tokenizer.

    Args:
        texts: documents of the train split.
        vocab_size: most tokens it may have, counting the 256 bytes and the end-of-document token;
            a text with few distinct words can yield fewer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return BytePairTokenizer(tokenizer.to_str())


@contextmanager
def tokenizer_threads(n_bytes: int) -> Iterator[None]:
    """Sets TOKENIZERS_PARALLELISM for work on `n_bytes` of text, unless it is set, and puts it back."""
    name = "TOKENIZERS_PARALLELISM"
    if name in os.environ:
        yield
        return
    os.environ[name] = "true" if n_bytes >= _PARALLEL_FROM_BYTES else "false"
    try:
        yield
    finally:
        os.environ.pop(name, None)


def check_vocab_size(vocab_size: int) -> None:
    """Refuses a vocabulary that byte-level BPE cannot have.

    Raises:
        CorpusError: it is outside MIN_VOCAB_SIZE..MAX_VOCAB_SIZE.
    """
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
        raise CorpusError(
            f"vocab_size is {vocab_size:,}; allowed: {MIN_VOCAB_SIZE} (the 256 bytes and the end-of-document token) "
            f"to {MAX_VOCAB_SIZE:,}"
        )


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Little-endian uint16 where every id fits in it (ids up to 65,535), else uint32."""
    return np.dtype("<u2") if vocab_size - 1 <= np.iinfo(np.uint16).max else np.dtype("<u4")


@lru_cache(maxsize=8)
def tokenizer_at(path: Path, expected_hash: str) -> BytePairTokenizer:
    """The tokenizer in the file at `path`, read once per process.

    Raises:
        CorpusError: the file is missing, is not a tokenizer or is another one than `expected_hash`.
    """
    try:
        tokenizer = BytePairTokenizer(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"the tokenizer {str(path)!r} cannot be read ({error})") from error
    if tokenizer.hash != expected_hash:
        raise CorpusError(
            f"the tokenizer {str(path)!r} was changed since the corpus was built; delete its folder to rebuild it"
        )
    return tokenizer
