"""What a kill, a full disk, a race or a damaged copy leaves behind: a whole corpus or none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.corpus import Corpus, CorpusConfig, CorpusError, load_corpus, open_corpus

CONFIG = CorpusConfig(max_bytes=400_000, vocab_size=300)
LOAD = "from data.corpus import *; print(load_corpus(CorpusConfig(max_bytes=400_000, vocab_size=300), 'cache').hash)"


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("stage", ["read", "tokenizer", "encode"])
def test_a_kill_leaves_no_half_corpus(stage: str, library: Corpus, tmp_path: Path) -> None:
    code = (
        "import os, signal; from data.corpus import *\n"
        f"die = lambda stage, done, total: stage == {stage!r} and os.kill(os.getpid(), signal.SIGKILL)\n"
        "load_corpus(CorpusConfig(max_bytes=400_000, vocab_size=300), 'cache', progress=die)"
    )
    process = start(code, tmp_path)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "cache" / "corpora").iterdir()
    assert left.name.startswith(".building-")
    with pytest.raises(CorpusError, match="is not a corpus folder"):
        open_corpus(left)
    assert load_corpus(CONFIG, tmp_path / "cache").hash == library.hash


def test_two_processes_at_once_build_the_same_corpus(library: Corpus, tmp_path: Path) -> None:
    processes = [start(LOAD, tmp_path) for _ in range(2)]
    for process in processes:
        out, error = process.communicate()
        assert (out.strip(), error) == (library.hash, "")
    assert [folder.name for folder in (tmp_path / "cache" / "corpora").iterdir()] == [library.directory.name]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(library: Corpus, tmp_path: Path) -> None:
    """Files may not grow beyond 100 kB in this process: writing fails midway as on a full disk."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n{LOAD}"
    process = start(code, tmp_path)
    _, error = process.communicate()
    assert process.returncode == 1
    assert "the corpus cache" in error.splitlines()[-1]
    assert "cannot be written (File too large)" in error.splitlines()[-1]
    assert list((tmp_path / "cache" / "corpora").iterdir()) == []


def test_a_cache_that_is_a_file_is_one_sentence(text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(CorpusError, match=r"the corpus cache .* cannot be written .* set EVOSCALE_CACHE"):
        load_corpus(CorpusConfig(source=str(text_file)), tmp_path / "cache")


def test_a_damaged_copy_is_built_again(text_file: Path, tmp_path: Path) -> None:
    config = CorpusConfig(source=str(text_file))
    first = load_corpus(config, tmp_path)
    whole = (first.directory / "train.tokens").read_bytes()
    (first.directory / "train.tokens").write_bytes(whole[:-100])
    assert load_corpus(config, tmp_path).hash == first.hash
    assert (first.directory / "train.tokens").read_bytes() == whole
    assert len(list((tmp_path / "corpora").iterdir())) == 1


def test_abandoned_work_is_removed_after_a_day(text_file: Path, tmp_path: Path) -> None:
    old, recent = (tmp_path / "corpora" / f".building-{age}" for age in ("old", "recent"))
    for folder in (old, recent):
        folder.mkdir(parents=True)
    long_ago = time.time() - 25 * 3600
    os.utime(old, (long_ago, long_ago))
    load_corpus(CorpusConfig(source=str(text_file)), tmp_path)
    assert not old.exists()
    assert recent.exists()


def test_a_source_that_changes_while_it_is_read_is_refused(text_file: Path, tmp_path: Path) -> None:
    def add(stage: str, done: int, total: int | None) -> None:
        text_file.write_text(text_file.read_text() + "\n\nWritten meanwhile.")

    with pytest.raises(CorpusError, match="changed while it was read"):
        load_corpus(CorpusConfig(source=str(text_file)), tmp_path / "cache", progress=add)
    assert list((tmp_path / "cache" / "corpora").iterdir()) == []


def test_others_may_read_the_cache(library: Corpus) -> None:
    assert library.directory.stat().st_mode & 0o055 == 0o055
    assert {file.name for file in library.directory.iterdir()} == {
        "meta.json",
        "tokenizer.json",
        "train.tokens",
        "search_validation.tokens",
        "confirmation_test.tokens",
    }
