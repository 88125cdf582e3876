"""Frames between the supervisor and the warm parent, and the report that each worker's keeper sends back.

A frame is a 4-byte length and one JSON object, over a Unix stream socket; file descriptors ride on its first
byte. A report is a frame followed by the raw bytes of the worker's result, whose length the frame tells.
"""

from __future__ import annotations

import array
import json
import math
import os
import select
import socket
import struct
import time
from typing import Any

MAX_RESULT_BYTES = 16 << 20
"""Largest result a worker may send; a larger one is an invalid result."""

SETTLED = b"\n"
"""First byte of a worker's answer, written before any untrusted code runs: an answer that begins with it is the
target's, so that no target can pass its own failure off as the sandbox's."""

MAX_FRAME_BYTES = 256 << 20
MAX_OUTPUT_BYTES = 16 << 10

_LONGEST_WAIT = 60.0  # poll takes its time as a C int of milliseconds
_LENGTH = struct.Struct("!I")


def send_frame(channel: socket.socket, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
    """Send one frame. Raises: OSError: the other side is gone. ValueError: the frame is larger than allowed."""
    body = json.dumps(message).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"A request of {len(body):,} bytes is too large: at most {MAX_FRAME_BYTES:,} are allowed.")
    data = memoryview(_LENGTH.pack(len(body)) + body)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sent = channel.sendmsg([data], ancillary)
    channel.sendall(data[sent:])


def receive_frame(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive one frame and its descriptors. Raises: EOFError: the other side closed."""
    descriptors = array.array("i")
    head, ancillary, _, _ = channel.recvmsg(
        _LENGTH.size, socket.CMSG_LEN(4 * descriptors.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    head += _exactly(channel, _LENGTH.size - len(head)) if head else b""
    if not head:
        raise EOFError("the other side closed the channel")
    return json.loads(_exactly(channel, _LENGTH.unpack(head)[0])), list(descriptors)


def _exactly(channel: socket.socket, length: int) -> bytes:
    chunks = bytearray()
    while len(chunks) < length:
        chunk = channel.recv(min(length - len(chunks), 1 << 20))
        if not chunk:
            raise EOFError("the other side closed the channel within a frame")
        chunks += chunk
    return bytes(chunks)


def pack_report(head: dict[str, Any], result: bytes) -> bytes:
    """A report as bytes: a frame whose `result_bytes` tells how many raw bytes follow."""
    body = json.dumps({**head, "result_bytes": len(result)}).encode()
    return _LENGTH.pack(len(body)) + body + result


def read_report(descriptor: int, seconds: float) -> tuple[dict[str, Any], bytes] | None:
    """Read one report from a pipe, up to its end.

    Args:
        descriptor: read end of the keeper's pipe.
        seconds: how long to wait for its end.

    Returns:
        The head and the raw result, or None when the pipe ended without a whole report.

    Raises:
        TimeoutError: the pipe has neither ended nor delivered a report in time.
    """
    data = bytearray()
    until = time.monotonic() + seconds
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while True:
        left = until - time.monotonic()
        if left <= 0:
            if (report := _unpack_report(data)) is not None:
                return report  # whole, though somebody still holds the pipe
            raise TimeoutError("no report in time")
        if not poller.poll(min(left, _LONGEST_WAIT) * 1000):
            continue
        chunk = os.read(descriptor, 1 << 20)
        if not chunk:
            return _unpack_report(data)
        if len(data) <= MAX_RESULT_BYTES + (1 << 20):
            data += chunk


def _unpack_report(data: bytearray) -> tuple[dict[str, Any], bytes] | None:
    if len(data) < _LENGTH.size:
        return None
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    if len(data) < end:
        return None
    head = json.loads(bytes(data[_LENGTH.size : end]))
    result = bytes(data[end : end + head["result_bytes"]])
    return (head, result) if len(result) == head["result_bytes"] else None


def parse_answer(raw: bytes) -> Any:
    """The worker's answer as finite JSON whose every text can be written down; a text says what is wrong with it."""
    try:
        value = json.loads(raw, parse_float=_finite, parse_constant=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError, MemoryError) as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not finite")
    return value
