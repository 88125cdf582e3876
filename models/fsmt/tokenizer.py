"""An FSMT tokenizer built from text: Moses words, joint byte pair encoding, files that transformers reads.

Choices: one vocabulary and one list of merges for both languages, so that tables can be tied. Ids 0 to 3 are <s>,
<pad>, </s> and <unk>, as in fairseq. The merges are learnt on Moses-tokenised words with the end of a word marked by
</w>, which is exactly what the tokenizer applies. The slow Python tokenizer is the only one there is; texts are
encoded once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.fsmt.error import TranslationError

if TYPE_CHECKING:
    from transformers import FSMTTokenizer

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
FILES = ("vocab-src.json", "vocab-tgt.json", "merges.txt")


def build_tokenizer(sources: Sequence[str], targets: Sequence[str], langs: tuple[str, str], size: int) -> FSMTTokenizer:
    """Learn a joint vocabulary; the files are written by `tokenizer.save_pretrained`.

    Args:
        sources, targets: sentences of the two languages.
        langs: source and target language.
        size: most entries of the vocabulary, special ones included.

    Raises:
        TranslationError: the texts are empty, or hold more different characters than `size` allows.
    """
    import tempfile

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    words = list(_moses(sources, langs[0])) + list(_moses(targets, langs[1]))
    if not any(words):
        raise TranslationError("no vocabulary can be learnt from empty sentences")
    learner = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(words, trainer)
    learnt = json.loads(learner.to_str())["model"]
    if len(learnt["vocab"]) > size:
        raise TranslationError(
            f"vocab_size {size} is too small: the characters alone make {len(learnt['vocab'])} entries"
        )
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in learnt["merges"]]
    with tempfile.TemporaryDirectory(prefix="evoscale-tokenizer-") as folder:
        vocabulary = json.dumps(learnt["vocab"], ensure_ascii=False, indent=0, sort_keys=True)
        for name in FILES[:2]:
            Path(folder, name).write_text(vocabulary, encoding="utf-8")
        Path(folder, FILES[2]).write_text("".join(f"{merge}\n" for merge in merges), encoding="utf-8")
        return open_tokenizer(Path(folder), langs)


def open_tokenizer(folder: Path, langs: tuple[str, str]) -> FSMTTokenizer:
    """The tokenizer whose files are in `folder`.

    Raises:
        TranslationError: a file is missing or is not what it should be; the message names it.
    """
    from transformers import FSMTTokenizer

    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise TranslationError(
            f"the tokenizer in {str(folder)!r} lacks {', '.join(missing)}; "
            f"an FSMT tokenizer is the files {', '.join(FILES)}"
        )
    paths = [str(folder / name) for name in FILES]
    try:
        return FSMTTokenizer(langs=list(langs), src_vocab_file=paths[0], tgt_vocab_file=paths[1], merges_file=paths[2])
    except (ValueError, UnicodeDecodeError) as error:
        raise TranslationError(f"the tokenizer in {str(folder)!r} cannot be read: {error}") from None


def encode_targets(tokenizer: FSMTTokenizer, sentences: Iterable[str]) -> list[list[int]]:
    """Token ids of sentences of the target language, with </s>: the tokenizer itself only encodes sources."""
    vocabulary = {piece: token for token, piece in tokenizer.decoder.items()}
    unknown = vocabulary[tokenizer.unk_token]
    rows = []
    for text in sentences:
        words = tokenizer.moses_tokenize(tokenizer.moses_pipeline(text, tokenizer.tgt_lang), tokenizer.tgt_lang)
        pieces = [piece for word in words if word for piece in tokenizer.bpe(word).split(" ")]
        rows.append([vocabulary.get(piece, unknown) for piece in pieces] + [vocabulary[tokenizer.sep_token]])
    return rows


def _moses(sentences: Iterable[str], lang: str) -> Iterable[str]:
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normalise, split = MosesPunctNormalizer(lang=lang).normalize, MosesTokenizer(lang=lang).tokenize
    for text in sentences:
        yield " ".join(split(normalise(text), aggressive_dash_splits=True, return_str=False, escape=True))
