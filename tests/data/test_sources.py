"""Names to sources, and what each of them reads."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from data.corpus_error import CorpusError
from data.sources import StandardLibrary, source_of
from data.tinystories import TinyStories


def find(name: str) -> object:
    return source_of(name, text_field="text", seed=0, max_bytes=None)


def test_the_library_is_its_own_text_without_tests() -> None:
    files = StandardLibrary().files
    assert files == sorted(files)
    assert len(files) > 400
    assert {"os.py", "json/decoder.py", "asyncio/tasks.py"} <= set(files)
    parts = {part for file in files for part in file.split("/")}
    assert not parts & {"test", "tests", "idle_test", "site-packages", "__pycache__"}
    assert not any(part.startswith(("config-", "_sysconfigdata")) for part in parts)


@pytest.mark.skipif(sys.version_info[:3] != (3, 11, 7), reason="the measured counts are those of Python 3.11.7")
def test_the_library_of_the_measured_build() -> None:
    library = StandardLibrary()
    assert len(library.files) == 732
    assert sum(len(document.encode()) for document in library.documents()) == pytest.approx(12.08e6, rel=0.001)


def test_library_files_keep_their_own_encoding(tmp_path: Path) -> None:
    (tmp_path / "pkg" / "test").mkdir(parents=True)
    (tmp_path / "b.py").write_bytes("# coding: latin-1\n# caf\xe9\n".encode("latin-1"))
    (tmp_path / "pkg" / "a.py").write_bytes("x = 'ü'\r\n".encode())
    (tmp_path / "pkg" / "test" / "c.py").write_text("hidden = 1\n")
    (tmp_path / "note.txt").write_text("no Python\n")
    library = StandardLibrary(tmp_path)
    assert library.files == ["b.py", "pkg/a.py"]
    assert list(library.documents()) == ["# coding: latin-1\n# café\n", "x = 'ü'\n"]


def test_the_fingerprint_follows_content_and_names(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    seen = [StandardLibrary(tmp_path).fingerprint()]
    (tmp_path / "a.py").write_text("x = 2\n")
    seen.append(StandardLibrary(tmp_path).fingerprint())
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    seen.append(StandardLibrary(tmp_path).fingerprint())
    assert len(set(seen)) == 3
    assert seen[-1] == StandardLibrary(tmp_path).fingerprint()


def test_a_library_without_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"holds no \.py files; allowed instead: the source stories"):
        StandardLibrary(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stdlb", r"unknown corpus source 'stdlb'; did you mean 'stdlib'\? allowed: stdlib, stories, tinystories, or"),
        ("tinystory", "did you mean 'tinystories'"),
        ("wikipedia", "unknown corpus source 'wikipedia'; allowed: stdlib"),
        ("", "is a folder"),
        ("nowhere/text.txt", "does not exist"),
        ("text.doc", "has the extension '.doc'; allowed: .txt, .jsonl, .parquet"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        find(name)


def test_tinystories_from_the_hub_cache_needs_no_network(tmp_path: Path) -> None:
    repository = tmp_path / "datasets--roneneldan--TinyStories"
    data = repository / "snapshots" / ("a" * 40) / "data"
    data.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    for part in (0, 1):
        rows = pyarrow.table({"text": [f"Story {part}{row}." for row in range(3)]})
        pyarrow.parquet.write_table(rows, data / f"train-0000{part}-of-00002-abc.parquet")
    source = TinyStories(tmp_path)
    assert list(source.documents()) == [f"Story {part}{row}." for part in (0, 1) for row in range(3)]
    assert source.fingerprint() == TinyStories(tmp_path).fingerprint()


@pytest.mark.parametrize("hub", ["refuses", pytest.param("is silent", marks=pytest.mark.slow)])
def test_tinystories_offline_is_one_quick_sentence(hub: str, tmp_path: Path) -> None:
    """In a fresh process whose hub refuses connections, or takes them and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    if hub == "refuses":
        listener.close()
    code = (
        "import time; from data.corpus import *; start = time.monotonic()\n"
        "try: load_corpus(CorpusConfig(source='tinystories'), 'cache')\n"
        "except CorpusError as error: print(error); print(time.monotonic() - start)"
    )
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    listener.close()
    sentence, seconds = done.stdout.strip().split("\n")
    assert "cannot be fetched from the Hugging Face hub" in sentence
    assert "allowed without internet: the sources stdlib and stories, or the path of a .txt" in sentence
    assert float(seconds) < 60
