"""Loads and saves FSMT models; refuses what would be silently wrong.

Choices: `from_pretrained` fills a table that a checkpoint lacks with random numbers and only reports it. A checkpoint
of tied tables that is opened with `tie_word_embeddings` false loses two of its three tables that way. Here the
loading report decides: any missing or mismatched weight is an error. Weights are fp32 masters, and the model is in
evaluation mode: dropout of 0.1 is on by default.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.fsmt.error import TranslationError
from models.fsmt.tokenizer import FILES, open_tokenizer

if TYPE_CHECKING:
    from transformers import FSMTForConditionalGeneration, FSMTTokenizer


@dataclass(frozen=True, kw_only=True)
class Translator:
    """A model and its tokenizer.

    Attributes:
        model: fp32, in evaluation mode.
        tokenizer: its FSMT tokenizer.
        name: where it came from.
    """

    model: FSMTForConditionalGeneration
    tokenizer: FSMTTokenizer
    name: str

    @property
    def langs(self) -> tuple[str, str]:
        """Source and target language."""
        source, target = self.model.config.langs
        return source, target

    def check_langs(self, src_lang: str, tgt_lang: str) -> None:
        """Refuse a task in other languages.

        Raises:
            TranslationError: the pair is not the model's.
        """
        if self.langs != (src_lang, tgt_lang):
            raise TranslationError(
                f"the task translates {src_lang}-{tgt_lang} and the model {self.name!r} {'-'.join(self.langs)}; "
                f"set task.src_lang and task.tgt_lang to {self.langs[0]} and {self.langs[1]}, or choose another model"
            )

    def save(self, folder: Path) -> None:
        """Write model and tokenizer into `folder`, made if missing; a folder of this kind is loaded by `load_fsmt`."""
        folder.mkdir(parents=True, exist_ok=True)
        with _quiet():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def load_fsmt(name: str) -> Translator:
    """Load a model from a local folder or the hub.

    Args:
        name: a folder with config.json, weights and tokenizer files, or a hub name such as `facebook/wmt19-en-de`.

    Raises:
        TranslationError: nothing there, not an FSMT model, a tokenizer file is missing, or weights are missing or of
            another shape, so that they would be left random.
    """
    folder = _folder_of(name)
    config = _config_of(folder, name)
    langs = tuple(config["langs"])
    tokenizer = open_tokenizer(folder, (langs[0], langs[1]))
    model = _load_weights(folder, name)
    _check_vocabulary(tokenizer, model, name)
    return Translator(model=model.float().eval(), tokenizer=tokenizer, name=name)


def _folder_of(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith(".") or name.count("/") != 1 or path.exists():
        raise TranslationError(
            f"model {name!r}: no such folder; allowed: a folder with an FSMT checkpoint, a hub name such as "
            "facebook/wmt19-en-de, or embedded"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.safetensors", "pytorch_model*.bin"]))
    except Exception as error:  # network, names, permissions: the hub has many errors and one remedy
        raise TranslationError(
            f"model {name!r} could not be fetched from the hub ({type(error).__name__}); "
            "give a local folder, or model.name=embedded, which needs no network"
        ) from None


def _config_of(folder: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TranslationError(f"model {name!r} has no config.json") from None
    except ValueError as error:
        raise TranslationError(f"model {name!r}: config.json is not valid JSON: {error}") from None
    if not isinstance(config, dict) or config.get("model_type") != "fsmt":
        kind = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        raise TranslationError(f"model {name!r} is of type {kind!r}; allowed: 'fsmt'")
    langs = config.get("langs")
    if not isinstance(langs, list) or len(langs) != 2:
        raise TranslationError(f"model {name!r}: langs is {langs!r}; it must name a source and a target language")
    return config


def _load_weights(folder: Path, name: str) -> FSMTForConditionalGeneration:
    from transformers import FSMTForConditionalGeneration

    try:
        with _quiet():  # the report it would print is read here
            model, report = FSMTForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise TranslationError(f"model {name!r}: the weights cannot be loaded: {reason}") from None
    random = sorted(key for key in report["missing_keys"] if not key.endswith("embed_positions.weight"))
    random += sorted(str(key[0]) if isinstance(key, tuple) else str(key) for key in report["mismatched_keys"])
    if random:
        tied = " (a checkpoint of tied tables? then config.json must say tie_word_embeddings true)"
        hint = tied if any("embed_tokens" in key or "output_projection" in key for key in random) else ""
        raise TranslationError(
            f"model {name!r}: the checkpoint lacks {', '.join(random[:4])}{', ...' if len(random) > 4 else ''}, "
            f"{len(random)} weights that would be left random{hint}"
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no warnings of transformers within the block."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _check_vocabulary(tokenizer: FSMTTokenizer, model: FSMTForConditionalGeneration, name: str) -> None:
    sizes = (
        ("source", tokenizer.src_vocab_size, model.config.src_vocab_size, FILES[0]),
        ("target", tokenizer.tgt_vocab_size, model.config.tgt_vocab_size, FILES[1]),
    )
    for side, entries, rows, file in sizes:
        if entries > rows:
            raise TranslationError(
                f"model {name!r}: {file} has {entries} entries and the {side} table {rows} rows; they belong to "
                "different models"
            )
