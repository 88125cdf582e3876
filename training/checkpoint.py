"""Checkpoints that are whole or are not used.

A checkpoint is one file: a line with the format's name and the sha256 of what follows, then a
`torch.save` archive of plain tensors, numbers and strings (read back with `weights_only=True`,
so a file from elsewhere cannot run code). It is written to a temporary file, flushed to disk and
renamed, so a crash at any moment leaves the previous file untouched. `latest.ckpt` is another name
for the newest. A file that does not match its sha256 is told in one sentence and set aside as
`*.corrupt`; the one before it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch

_MAGIC = b"evoscale-checkpoint-1 "
_NAME = re.compile(r"step_(\d{8})\.ckpt")
LATEST = "latest.ckpt"


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file and the reason."""


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was found and set aside."""


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, on disk before it is visible; on any failure the old file stays.

    Raises:
        OSError: the disk is full or the directory is not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            reason = f"could not be written ({error.strerror}); what was there before is kept"
            raise OSError(error.errno, reason, str(path)) from None
        raise
    _flush_directory(path.parent)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The payload that `CheckpointStore.save` wrote to `path`.

    Raises:
        CheckpointError: the file is missing, truncated, altered, or not a checkpoint.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror or error}") from None
    head, separator, body = content.partition(b"\n")
    if not separator or not head.startswith(_MAGIC):
        raise CheckpointError(f"checkpoint {path} ({len(content):,} bytes) does not begin as a checkpoint does")
    if hashlib.sha256(body).hexdigest().encode() != head.removeprefix(_MAGIC):
        raise CheckpointError(f"checkpoint {path} ({len(content):,} bytes) is truncated or altered: its sha256 differs")
    try:
        payload = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"checkpoint {path} cannot be decoded: {reason}") from None
    if not isinstance(payload, dict):
        raise CheckpointError(f"checkpoint {path} holds a {type(payload).__name__}, expected a dict")
    return payload


class CheckpointStore:
    """The checkpoints of one run in one directory.

    Args:
        directory: made if missing.
        keep: how many of the newest to keep; None keeps all. At least 2, so that there is always
            a previous one.

    Raises:
        ValueError: `keep` below 2.
    """

    def __init__(self, directory: Path | str, *, keep: int | None = 2) -> None:
        if keep is not None and keep < 2:
            raise ValueError(f"keep={keep}: must be at least 2, so that a damaged newest checkpoint has a previous one")
        self.directory = Path(directory)
        self.keep = keep
        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in self.directory.glob(".*.tmp"):  # of a process killed while it wrote
            leftover.unlink(missing_ok=True)

    def save(self, step: int, payload: dict[str, Any]) -> Path:
        """Write the checkpoint of `step`, point `latest.ckpt` at it and drop the oldest.

        Args:
            step: steps done.
            payload: tensors, numbers, strings, and lists and dicts of them.

        Raises:
            OSError: it cannot be written; what was there stays.
        """
        buffer = io.BytesIO()
        torch.save(payload, buffer)
        body = buffer.getvalue()
        head = _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n"
        path = self.directory / f"step_{step:08d}.ckpt"
        write_atomically(path, head + body)
        self._point_latest_at(path)
        if self.keep is not None:
            for old in self.paths()[: -self.keep]:
                old.unlink(missing_ok=True)
        return path

    def paths(self) -> list[Path]:
        """The checkpoints there are, oldest first; none of them is verified."""
        return sorted(path for path in self.directory.iterdir() if _NAME.fullmatch(path.name))

    def load_newest(self) -> dict[str, Any] | None:
        """The newest payload that is whole, or None where there is none and a run starts afresh.

        Warns:
            CheckpointWarning: once for every damaged file, which is renamed to `*.corrupt`.
        """
        candidates = self.paths()[::-1]
        for position, path in enumerate(candidates):
            try:
                return read_checkpoint(path)
            except CheckpointError as error:
                path.replace(path.with_name(path.name + ".corrupt"))
                rest = candidates[position + 1 :]
                then = f"trying the one before it, {rest[0].name}" if rest else "starting afresh"
                warnings.warn(f"{error}; {then}", CheckpointWarning, stacklevel=2)
        return None

    def _point_latest_at(self, path: Path) -> None:
        temporary = self.directory / f".{LATEST}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
            os.replace(temporary, self.directory / LATEST)
        except OSError:  # a file system without hard links
            write_atomically(self.directory / LATEST, path.read_bytes())


def _flush_directory(directory: Path) -> None:
    """Make a rename in `directory` durable, where the platform allows it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
