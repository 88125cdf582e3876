"""Whole corpora: the same everywhere, without overlap, checked before use."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from data.corpus import SPLITS, Corpus, CorpusConfig, CorpusError, load_corpus, open_corpus
from data.tokenizer import END_OF_DOCUMENT, train_tokenizer

SPLIT_FILES = [f"{split}.tokens" for split in SPLITS]


def documents(corpus: Corpus, split: str) -> list[str]:
    return corpus.decode(corpus.tokens(split)[:]).split(END_OF_DOCUMENT)[:-1]


def test_the_default_is_the_standard_library() -> None:
    assert CorpusConfig().source == "stdlib"
    assert (CorpusConfig().vocab_size, CorpusConfig().text_field, CorpusConfig().max_bytes) == (512, "text", None)
    with pytest.raises(ValidationError):
        CorpusConfig(vocabulary=512)  # type: ignore[call-arg]


def test_tokens_are_mapped_packed_and_within_the_vocabulary(library: Corpus) -> None:
    for split in SPLITS:
        tokens = library.tokens(split)
        assert isinstance(tokens, np.memmap)
        assert tokens.dtype == np.uint16
        assert len(tokens) == library.n_tokens(split) > 10_000
        assert int(tokens.max()) < library.vocab_size == 300
        with pytest.raises(ValueError, match="read-only"):
            tokens[0] = 1


def test_large_vocabularies_take_four_bytes(text_file: Path, tmp_path: Path) -> None:
    corpus = load_corpus(CorpusConfig(source=str(text_file), vocab_size=70_000), tmp_path)
    assert corpus.tokens("train").dtype == np.uint32
    assert documents(corpus, "train")[0].startswith("Paragraph ")


def test_splits_hold_every_document_once_and_share_none(text_file: Path, tmp_path: Path) -> None:
    corpus = load_corpus(CorpusConfig(source=str(text_file)), tmp_path)
    held = [set(documents(corpus, split)) for split in SPLITS]
    assert sum(len(texts) for texts in held) == 60
    assert set.union(*held) == {text.strip("\n") for text in text_file.read_text().split("\n\n")}


def test_duplicates_stay_together(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"Text number {n % 40}, some words of it. " * 4}) for n in range(200)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    corpus = load_corpus(CorpusConfig(source=str(tmp_path / "a.jsonl"), vocab_size=260), tmp_path)
    held = [documents(corpus, split) for split in SPLITS]
    assert [len(texts) for texts in held] == [5 * len(set(texts)) for texts in held]
    assert sum(len(set(texts)) for texts in held) == 40


def test_held_out_splits_are_usable_on_small_corpora(library: Corpus) -> None:
    for split in ("search_validation", "confirmation_test"):
        entry = library.meta["splits"][split]
        assert 0.10 * library.meta["text_bytes"] < entry["text_bytes"] < 0.25 * library.meta["text_bytes"]


def test_the_tokenizer_learns_from_the_train_split_alone(library: Corpus) -> None:
    assert train_tokenizer(documents(library, "train"), vocab_size=300).hash == library.tokenizer_hash
    everything = [text for split in SPLITS for text in documents(library, split)]
    assert train_tokenizer(everything, vocab_size=300).hash != library.tokenizer_hash


@pytest.mark.parametrize("source", ["stdlib", "stories"])
def test_builds_are_identical_whatever_the_hash_seed_and_threads(source: str, tmp_path: Path) -> None:
    config = f"CorpusConfig(source={source!r}, max_bytes=150_000)"
    code = f"from data.corpus import *; print(load_corpus({config}, 'cache').hash)"
    seen = set()
    for number, threads in enumerate(["false", "true"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        environment = os.environ | {"PYTHONHASHSEED": str(number + 1), "TOKENIZERS_PARALLELISM": threads}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
        (built,) = (folder / "cache" / "corpora").iterdir()
        seen.add(
            (done.stdout, *((built / name).read_bytes() for name in [*SPLIT_FILES, "tokenizer.json", "meta.json"]))
        )
    assert len(seen) == 1


def test_the_hash_follows_texts_and_vocabulary(library: Corpus, cache: Path, tmp_path: Path) -> None:
    again = load_corpus(CorpusConfig(max_bytes=400_000, vocab_size=300), tmp_path)
    assert (again.hash, again.tokenizer_hash) == (library.hash, library.tokenizer_hash)
    more = load_corpus(CorpusConfig(max_bytes=500_000, vocab_size=300), cache)
    larger = load_corpus(CorpusConfig(max_bytes=400_000, vocab_size=301), cache)
    assert len({library.hash, more.hash, larger.hash}) == 3
    assert larger.tokenizer_hash != library.tokenizer_hash


def test_the_same_text_by_another_way_is_the_same_corpus(text_file: Path, tmp_path: Path) -> None:
    texts = text_file.read_text().split("\n\n")
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    (tmp_path / "marked.txt").write_text("<|endoftext|>".join(texts))
    paths = [text_file, tmp_path / "a.jsonl", tmp_path / "marked.txt"]
    corpora = [load_corpus(CorpusConfig(source=str(path)), tmp_path) for path in paths]
    assert len({corpus.hash for corpus in corpora}) == 1
    assert len({corpus.directory for corpus in corpora}) == 3


def test_the_cache_is_found_again_and_follows_the_content(text_file: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    config = CorpusConfig(source=str(text_file))
    first = load_corpus(config, tmp_path, progress=lambda stage, done, total: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["read", "tokenizer", "encode"]
    stages.clear()
    again = load_corpus(config, tmp_path, progress=lambda stage, done, total: stages.append(stage))
    assert (again, stages) == (first, [])
    text_file.write_text(text_file.read_text() + "\n\nOne more paragraph.")
    assert load_corpus(config, tmp_path).hash != first.hash


def test_the_cache_folder_comes_from_the_environment(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOSCALE_CACHE", str(tmp_path / "here"))
    assert load_corpus(CorpusConfig(source=str(text_file))).directory.parent == tmp_path / "here" / "corpora"
    monkeypatch.delenv("EVOSCALE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (tmp_path / ".cache" / "evoscale") in load_corpus(CorpusConfig(source=str(text_file))).directory.parents


def test_a_corpus_goes_to_another_process(library: Corpus) -> None:
    content = pickle.dumps(library)
    assert len(content) < 10_000
    copy = pickle.loads(content)
    assert copy == library
    assert np.array_equal(copy.tokens("train"), library.tokens("train"))
    assert copy.decode(copy.encode("def f(): return 'ü'")) == "def f(): return 'ü'"


def test_unknown_splits_are_refused(library: Corpus) -> None:
    with pytest.raises(
        CorpusError, match=r"unknown split 'validation'; did you mean 'search_validation'\? allowed: train,"
    ):
        library.tokens("validation")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 256}, "vocab_size is 256; allowed: 257"),
        ({"vocab_size": 10**6}, "vocab_size is 1,000,000; allowed: 257"),
        ({"max_bytes": 0}, "max_bytes is 0; allowed: 1 or more"),
        ({"max_bytes": 10}, "holds no document that fits in max_bytes 10; it needs text"),
        ({"max_bytes": 500}, r"holds 2 different documents and its 3 splits need at least one each"),
        ({"source": "stdlb"}, "did you mean 'stdlib'"),
    ],
)
def test_unusable_settings_are_refused(
    change: dict[str, object], message: str, text_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(CorpusError, match=message) as caught:
        load_corpus(CorpusConfig.model_validate({"source": str(text_file)} | change), tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("corpora/*")), "a refused corpus leaves nothing behind"


def test_a_corpus_too_small_for_its_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree\n\nfour\n")
    with pytest.raises(CorpusError, match=r"is too small: its 15 bytes leave \d+ tokens for \w+ and each split needs"):
        load_corpus(CorpusConfig(source=str(tmp_path / "a.txt")), tmp_path)
    (tmp_path / "blank.txt").write_text("\n \n\n")
    with pytest.raises(CorpusError, match="the corpus 'blank' holds no document; it needs text"):
        load_corpus(CorpusConfig(source=str(tmp_path / "blank.txt")), tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def change_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [*SPLIT_FILES, "tokenizer.json"])
@pytest.mark.parametrize(
    ("damage", "message"), [(cut, "and must hold"), (change_one_byte, "was changed"), (Path.unlink, "is missing")]
)
def test_damage_is_found_before_use(name: str, damage: object, message: str, library: Corpus, tmp_path: Path) -> None:
    folder = shutil.copytree(library.directory, tmp_path / "copy")
    assert open_corpus(folder).hash == library.hash
    damage(folder / name)  # type: ignore[operator]
    with pytest.raises(CorpusError, match=message) as caught:
        open_corpus(folder)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (None, "is not a corpus folder"),
        ("{", "is broken"),
        ("[]", "is broken"),
        ('{"format": 1}', "is broken"),
        ('{"format": 99}', "has format 99; this version reads 1"),
    ],
)
def test_broken_descriptions_are_refused(meta: str | None, message: str, tmp_path: Path) -> None:
    if meta is not None:
        (tmp_path / "meta.json").write_text(meta)
    with pytest.raises(CorpusError, match=message):
        open_corpus(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("vocab_size", 301), ("entropy_floor", 1.0), ("texts_sha256", "0" * 64)])
def test_a_changed_description_is_refused(key: str, value: object, library: Corpus, tmp_path: Path) -> None:
    folder = shutil.copytree(library.directory, tmp_path / "copy")
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {key: value}))
    with pytest.raises(CorpusError, match=r"meta\.json' was changed"):
        open_corpus(folder)


def test_checking_again_is_cheap(library: Corpus) -> None:
    open_corpus(library.directory)
    start = time.perf_counter()
    for _ in range(20):
        open_corpus(library.directory)
    assert (time.perf_counter() - start) / 20 < 0.05


@pytest.mark.parametrize("real_text", ["tinyshakespeare/input.txt", "tinystories/smallgpt_0.9M.txt"], indirect=True)
def test_real_text(real_text: Path, tmp_path: Path) -> None:
    corpus = load_corpus(CorpusConfig(source=str(real_text)), tmp_path)
    assert all(corpus.n_tokens(split) > 30_000 for split in SPLITS), "evaluation uses 30,000 tokens or more"
    held = [set(documents(corpus, split)) for split in SPLITS]
    assert not held[0] & held[1] | held[0] & held[2] | held[1] & held[2]
    assert all(text in real_text.read_text() for text in [*held[1], *held[2]])


@pytest.mark.slow
def test_the_whole_standard_library(tmp_path: Path) -> None:
    start = time.process_time()
    corpus = load_corpus(CorpusConfig(), tmp_path)
    assert time.process_time() - start < 30
    assert corpus.n_tokens("train") > 3_000_000
    assert all(corpus.n_tokens(split) > 100_000 for split in SPLITS)
