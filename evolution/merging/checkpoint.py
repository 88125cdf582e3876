"""A model on disk: config, tokenizer, and tensors that are read by slice and never mapped into memory.

The safetensors format is a length, a JSON header and raw bytes, so a slice is one positioned
read. A map would be simpler, but its pages count as resident memory.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frameworks.merging.merge_error import MergeError

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""What can be merged, by its name in the format."""
_OTHER_DTYPES = frozenset({"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "F8_E4M3", "F8_E5M2"})
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
)
_VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_MOST_HEADER = 100 << 20


@dataclass(frozen=True, kw_only=True)
class FileTensor:
    """A tensor in a file; a `frameworks.merging.flat_tensor.FlatTensor`."""

    path: Path
    descriptor: int
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self, start: int, stop: int) -> Tensor:
        """Elements start..stop, freshly read: (stop - start,).

        Raises:
            MergeError: the file ends before them.
        """
        size = self.dtype.itemsize
        buffer = np.empty((stop - start) * size, dtype=np.uint8)
        done = 0
        while done < len(buffer):
            got = os.preadv(self.descriptor, [buffer.data[done:]], self.offset + start * size + done)
            if got <= 0:
                raise MergeError(f"{self.path} ends early: a tensor's bytes are missing")
            done += got
        return torch.from_numpy(buffer).view(self.dtype)

    def whole(self) -> Tensor:
        """The whole tensor in its shape."""
        return self.read(0, math.prod(self.shape)).reshape(self.shape)


class Checkpoint:
    """A model in a folder, or one .safetensors file; a context manager that closes its files.

    Args:
        path: the folder or file.

    Attributes:
        path: as given.
        config: config.json; empty for a single file without one beside it.
        tensors: name -> tensor.

    Raises:
        MergeError: nothing usable there; only headers are read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: dict[str, FileTensor] = {}
        self._descriptors: list[int] = []
        if not path.exists():
            raise MergeError(f"model {str(path)!r}: no such folder or file")
        self.folder = path if path.is_dir() else path.parent
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not files:
            raise MergeError(f"model {str(path)!r} holds no .safetensors file; convert it first")
        self.config = self._read_config()
        try:
            for file in files:
                self._open(file)
            self._check_index()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _read_config(self) -> dict[str, Any]:
        try:
            loaded = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise MergeError(f"model {str(self.path)!r}: config.json cannot be read: {error}") from None
        if not isinstance(loaded, dict):
            raise MergeError(f"model {str(self.path)!r}: config.json holds no keys and values")
        return loaded

    def _open(self, file: Path) -> None:
        descriptor = os.open(file, os.O_RDONLY)
        self._descriptors.append(descriptor)
        size = os.fstat(descriptor).st_size
        length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
        if size < 8 or not 2 <= length <= min(_MOST_HEADER, size - 8):
            raise MergeError(f"{file} is no safetensors file: its header would be {length} bytes of {size}")
        try:
            header = json.loads(os.pread(descriptor, length, 8))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            for name, entry in entries.items():
                self._add(file, descriptor, 8 + length, size, name, entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, MergeError):
                raise
            raise MergeError(f"{file} is no safetensors file: {error}") from None

    def _add(self, file: Path, descriptor: int, data: int, size: int, name: str, entry: Mapping[str, Any]) -> None:
        kind = entry["dtype"]
        if kind not in DTYPES:
            if kind not in _OTHER_DTYPES:
                raise MergeError(f"{file}: tensor {name!r} has the unknown dtype {kind!r}")
            raise MergeError(f"{file}: tensor {name!r} is {kind}; allowed: {', '.join(DTYPES)}")
        begin, end = entry["data_offsets"]
        shape = tuple(int(length) for length in entry["shape"])
        if end - begin != math.prod(shape) * DTYPES[kind].itemsize or data + end > size:
            raise MergeError(f"{file} is cut off or damaged: tensor {name!r} would end at byte {data + end} of {size}")
        if name in self.tensors:
            raise MergeError(f"model {str(self.path)!r} holds tensor {name!r} in two files")
        self.tensors[name] = FileTensor(
            path=file, descriptor=descriptor, offset=data + begin, shape=shape, dtype=DTYPES[kind]
        )

    def _check_index(self) -> None:
        index = self.folder / "model.safetensors.index.json"
        if self.path.is_dir() and index.exists():
            listed = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {})
            missing = sorted(set(listed) - set(self.tensors))
            if missing:
                raise MergeError(
                    f"model {str(self.path)!r} lacks {len(missing)} tensors of its index, such as {missing[0]!r}"
                )

    @property
    def n_layers(self) -> int:
        """Layers, by the tensors' names."""
        return 1 + max((layer_of(name) or 0 for name in self.tensors if layer_of(name) is not None), default=-1)

    def tokenizer_files(self) -> list[Path]:
        """What travels with the tokenizer."""
        return [self.folder / name for name in _TOKENIZER_FILES if (self.folder / name).is_file()]

    @functools.cached_property
    def vocabulary_hash(self) -> str | None:
        """sha256 of the tokenizer's vocabulary; None without one."""
        for name in _VOCABULARY_FILES:
            file = self.folder / name
            if file.is_file():
                return hashlib.sha256(_vocabulary_bytes(file)).hexdigest()
        return None


def _vocabulary_bytes(file: Path) -> bytes:
    """What decides how text becomes tokens: padding and truncation settings are left out."""
    content = file.read_bytes()
    if file.name != "tokenizer.json":
        return content
    loaded = json.loads(content)
    kept = {key: value for key, value in loaded.items() if key not in ("padding", "truncation", "version")}
    return json.dumps(kept, sort_keys=True).encode()


def layer_of(name: str) -> int | None:
    """The layer a tensor belongs to, by its name; None for embeddings, final norm and head."""
    parts = name.split(".")
    for before, part in itertools.pairwise(parts):
        if before in ("layers", "h", "blocks", "layer") and part.isdigit():
            return int(part)
    return None


def renumbered(name: str, layer: int) -> str:
    """The same tensor's name in another layer."""
    parts = name.split(".")
    for place, (before, part) in enumerate(itertools.pairwise(parts)):
        if before in ("layers", "h", "blocks", "layer") and part.isdigit():
            parts[place + 1] = str(layer)
            break
    return ".".join(parts)


def find_model(name: str) -> Path:
    """Where a model is: a local path, or the hub's cache for `owner/name`, fetched if need be.

    Raises:
        MergeError: it is neither; nothing is fetched for a name that looks like a path.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    looks_like_hub = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.parent.is_dir()
    if not looks_like_hub:
        raise MergeError(f"model {name!r}: no such folder or file")
    try:
        from huggingface_hub import snapshot_download

        patterns = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MergeError(f"model {name!r}: no such folder, and the hub does not give it: {reason}") from None


def tensor_bytes(piece: Tensor) -> Iterator[memoryview]:
    """The raw bytes of a tensor, as the format stores them."""
    flat = piece.contiguous().view(torch.uint8) if piece.numel() else piece.to(torch.uint8)
    yield flat.numpy().data
