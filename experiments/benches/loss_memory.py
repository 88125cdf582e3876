"""Peak memory of the fused and of the naive loss, forward and backward, each in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys

_PROGRAM = """
import sys, torch
from training import fused_loss
torch.set_num_threads(1)
form, rows, vocab, width = sys.argv[1], *map(int, sys.argv[2:])
loss_of = getattr(fused_loss, form)
hidden = torch.randn(rows, width, requires_grad=True)
weight = torch.randn(vocab, width, requires_grad=True)
targets = torch.randint(0, vocab, (rows,))
# What the library itself takes on its first call is not the loss's.
loss_of(hidden[:8], weight[:64], targets[:8] % 64).backward()
hidden.grad = weight.grad = None
def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forget the peak so far
before = status("VmRSS")
loss_of(hidden, weight, targets).backward()
print((status("VmHWM") - before) * 1024)
"""


def memory_share(*, rows: int, vocab_size: int, width: int) -> tuple[float, int, int] | None:
    """The fused loss's peak as a share of the naive one's, and both in bytes.

    The peak is the growth of the process's largest resident memory over one forward and backward, gradients of
    `hidden` (rows, width) and `weight` (vocab_size, width) included. None where the system does not tell it (only
    Linux lets a process forget its peak).
    """
    if not os.access("/proc/self/clear_refs", os.W_OK):
        return None
    fused = _growth("fused_linear_cross_entropy", rows, vocab_size, width)
    naive = _growth("naive_linear_cross_entropy", rows, vocab_size, width)
    return fused / max(1, naive), fused, naive


def _growth(form: str, *sizes: int) -> int:
    command = [sys.executable, "-c", _PROGRAM, form, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"measuring {form} failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(done.stdout)
