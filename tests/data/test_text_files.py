"""Local files as documents, and one clear sentence for each way that a file can be unusable."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.corpus_error import CorpusError
from data.text_files import PIECE_CHARACTERS, pieces, read_documents


def documents(path: Path, content: bytes | str, text_field: str = "text") -> list[str]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_documents(path, text_field))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("one\ntwo\n\nthree", ["one\ntwo", "three"]),
        ("one\r\ntwo\r\n\r\nthree\r\n", ["one\ntwo", "three"]),
        ("one\n \t\n\n\n  two\n", ["one", "  two"]),
        ("one\n\ntwo<|endoftext|>\nthree\n", ["one\n\ntwo", "three"]),
        ("\ufeffone\n\ntwo", ["one", "two"]),
        ("\n\n\n", []),
    ],
)
def test_text_is_split_at_markers_or_blank_lines(tmp_path: Path, content: str, expected: list[str]) -> None:
    assert documents(tmp_path / "a.txt", content) == expected


@pytest.mark.parametrize("separator", ["\n\n", "\r\n\r\n", "<|endoftext|>", "\né\n\n"])
def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str) -> None:
    """Separators, characters and line ends that lie across block borders are seen whole."""
    text = separator.join(f"document {n}\r\nline ü{'x' * (n % 7)}" for n in range(40))
    whole = documents(tmp_path / "a.txt", text)
    for size in (1, 2, 3, 5, 13):
        monkeypatch.setattr("data.text_files._BLOCK_BYTES", size)
        assert list(read_documents(tmp_path / "a.txt", "text")) == whole
    assert len(whole) == 40


@given(st.text(alphabet="ab \n", max_size=300))
def test_pieces_join_to_the_text(text: str) -> None:
    long = text * (1 + 3 * PIECE_CHARACTERS // max(1, len(text)))
    cut = list(pieces(long))
    joined = "".join(cut)
    assert long.startswith(joined)
    assert not long[len(joined) :].strip(), "only blank text at the end is left out"
    assert all(len(piece) <= PIECE_CHARACTERS for piece in cut)


def test_pieces_end_at_line_ends() -> None:
    cut = list(pieces("a line of text\n" * 10_000))
    assert len(cut) == 3
    assert all(piece.endswith("text\n") for piece in cut)


def test_one_endless_line_is_cut_like_a_whole_document(tmp_path: Path) -> None:
    text = "word " * 100_000
    assert documents(tmp_path / "a.txt", text) == list(pieces(text))


def test_a_marker_at_the_cut_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block ends inside the marker just where an endless document would be cut."""
    monkeypatch.setattr("data.text_files._BLOCK_BYTES", PIECE_CHARACTERS + 2)
    first = "x" * (PIECE_CHARACTERS - 4)
    assert documents(tmp_path / "a.txt", f"{first}<|endoftext|>second") == [first, "second"]


def test_large_files_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_text("A paragraph of some length.\n\n" * 800_000)
    tracemalloc.start()
    n = sum(1 for _ in read_documents(path, "text"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 800_000
    assert peak < path.stat().st_size / 2


def test_jsonl_and_parquet_give_their_field(tmp_path: Path) -> None:
    texts = ["first\n\nstill first", "second ü", "third \u2028 still third"]
    lines = "\n".join(json.dumps({"story": text, "n": 1}, ensure_ascii=False) for text in texts) + "\n\n"
    assert documents(tmp_path / "a.jsonl", lines, "story") == texts
    pyarrow.parquet.write_table(pyarrow.table({"story": [*texts, None]}), tmp_path / "a.parquet")
    assert list(read_documents(tmp_path / "a.parquet", "story")) == texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty; it needs text"),
        ("a.txt", b"some text\0more", "is not text: it holds a NUL byte at position 9"),
        ("a.txt", b"caf\xe9 au lait", "is not UTF-8: byte 0xe9 at position 3"),
        ("a.txt", b"cut \xc3", "is not UTF-8: byte 0xc3 at position 4"),
        ("a.csv", b"x", "has the extension '.csv'; allowed: .txt, .jsonl, .parquet"),
        ("a", b"x", "has no extension; allowed: .txt"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "line 2 of .* is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n\n["x"]\n', "line 3 of .* is a JSON list"),
        ("a.jsonl", b'{"text": 7}\n', "the field 'text' in line 1 of .* is 7; it must be a string"),
        ("a.jsonl", b'{"story": "x", "id": 1}\n', "line 1 of .* has no field 'text'; fields there: 'story', 'id'"),
        ("a.jsonl", b"[" * 100_000, "line 1 of .* is not JSON"),
        ("a.parquet", b"PAR1 nonsense", "is not a readable parquet file"),
    ],
)
def test_unusable_files_say_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(CorpusError, match=message) as caught:
        documents(tmp_path / name, content)
    assert "\n" not in str(caught.value)


def test_positions_count_from_the_start_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.text_files._BLOCK_BYTES", 4)
    with pytest.raises(CorpusError, match="byte 0xc3 at position 7"):
        documents(tmp_path / "a.txt", b"abcdefg\xc3(h")
    with pytest.raises(CorpusError, match="NUL byte at position 9"):
        documents(tmp_path / "a.txt", b"abcdefghi\0")


def test_parquet_without_the_column_lists_the_columns(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"story": ["x"], "id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match="no column 'text'; columns there: 'story', 'id'"):
        list(read_documents(tmp_path / "a.parquet", "text"))
    with pytest.raises(CorpusError, match=r"the column 'id' of .* holds int64; it must hold strings"):
        list(read_documents(tmp_path / "a.parquet", "id"))


def test_missing_files_name_their_neighbours(tmp_path: Path) -> None:
    (tmp_path / "stories.txt").write_text("x")
    with pytest.raises(CorpusError, match=r"does not exist; did you mean 'stories.txt'\?"):
        list(read_documents(tmp_path / "storys.txt", "text"))
    with pytest.raises(CorpusError, match=r"the folder .* does not exist either"):
        list(read_documents(tmp_path / "nowhere" / "a.txt", "text"))
    with pytest.raises(CorpusError, match="is a folder; give one file"):
        list(read_documents(tmp_path, "text"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_files_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    path.chmod(0)
    with pytest.raises(CorpusError, match="cannot be read"):
        list(read_documents(path, "text"))
