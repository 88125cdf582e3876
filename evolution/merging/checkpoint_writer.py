"""Writes a model tensor by tensor, piece by piece, so that its size never matters; all or nothing.

Everything goes to a hidden folder beside the target, which takes the target's name only when the last byte is on
the disk.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from evolution.merging.checkpoint import DTYPES, tensor_bytes
from frameworks.merging.merge_error import MergeError

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
SHARD_BYTES = 5 << 30
"""Most bytes of tensors in one file, unless one tensor alone has more."""

Pieces = Callable[[], Iterable[Tensor]]


class CheckpointWriter:
    """A context manager over a model that is being written.

    Args:
        target: the folder that will hold it; it may exist if it is empty.
        shapes: name -> (shape, dtype) of every tensor, in the order they will be written.
        shard_bytes: most bytes in a file.

    Raises:
        MergeError: the target holds something, or its parent folder does not exist.
    """

    def __init__(
        self,
        target: Path,
        shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        check_target(target)
        self._target = target
        self._shapes = shapes
        self._folder = target.with_name(f".{target.name}.{os.getpid()}.partial")
        self._shards = _shards(shapes, shard_bytes)
        self._file: IO[bytes] | None = None
        self._open: list[str] = []

    def __enter__(self) -> CheckpointWriter:
        self._folder.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._close()
        complete = not self._open and not self._shards
        if kind is None and complete:
            if self._target.exists():
                self._target.rmdir()
            self._folder.rename(self._target)
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        if kind is None:
            raise ValueError(f"not every announced tensor was written to {self._target}")

    def write(self, name: str, pieces: Iterable[Tensor]) -> None:
        """Write the next tensor from its pieces, cast to the dtype that was announced.

        Raises:
            ValueError: another tensor is next, or the pieces have another size.
        """
        if not self._open:
            self._next_file()
        if not self._open or self._open[0] != name:
            raise ValueError(f"tensor {name!r} is out of turn; next is {self._open[:1]}")
        shape, dtype = self._shapes[name]
        written = 0
        assert self._file is not None
        for piece in pieces:
            for content in tensor_bytes(piece.to(dtype)):
                self._file.write(content)
            written += piece.numel()
        if written != math.prod(shape):
            raise ValueError(f"tensor {name!r} has {written} elements; announced were {math.prod(shape)}")
        self._open.pop(0)

    def write_text(self, name: str, text: str) -> None:
        """Write a small file beside the tensors."""
        (self._folder / name).write_text(text, encoding="utf-8")

    def copy(self, file: Path) -> None:
        """Copy a file, such as a tokenizer, beside the tensors."""
        shutil.copyfile(file, self._folder / file.name)

    def _next_file(self) -> None:
        self._close()
        if not self._shards:
            return
        file_name, names = self._shards.pop(0)
        self._file = (self._folder / file_name).open("wb")
        self._file.write(_header(names, self._shapes))
        self._open = list(names)
        if file_name != "model.safetensors":
            self._index(file_name, names)

    def _index(self, file_name: str, names: list[str]) -> None:
        index = self._folder / "model.safetensors.index.json"
        content: dict[str, Any] = {"metadata": {"total_size": 0}, "weight_map": {}}
        if index.exists():
            content = json.loads(index.read_text(encoding="utf-8"))
        content["metadata"]["total_size"] += sum(_bytes(self._shapes[name]) for name in names)
        content["weight_map"].update(dict.fromkeys(names, file_name))
        index.write_text(json.dumps(content, indent=2), encoding="utf-8")

    def _close(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def check_target(target: Path) -> None:
    """Refuse a folder that cannot be written to, or would be written over.

    Raises:
        MergeError: see there.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise MergeError(f"{target} exists and is not empty; give another folder, or remove it")
    if not target.absolute().parent.is_dir():
        raise MergeError(f"{target}: the folder {target.absolute().parent} does not exist")


def _bytes(entry: tuple[tuple[int, ...], torch.dtype]) -> int:
    shape, dtype = entry
    return math.prod(shape) * dtype.itemsize


def _shards(shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]], most: int) -> list[tuple[str, list[str]]]:
    groups: list[list[str]] = [[]]
    size = 0
    for name, entry in shapes.items():
        if groups[-1] and size + _bytes(entry) > most:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += _bytes(entry)
    if len(groups) == 1:
        return [("model.safetensors", groups[0])]
    n = len(groups)
    return [(f"model-{number:05d}-of-{n:05d}.safetensors", names) for number, names in enumerate(groups, 1)]


def _header(names: list[str], shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in names:
        shape, dtype = shapes[name]
        size = _bytes(shapes[name])
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight
    return len(text).to_bytes(8, "little") + text
