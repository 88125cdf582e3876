"""What a candidate may do to the process it runs in. Each function is the target of a sandboxed call."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time


def echo(value):
    return value


def where(_):
    return {"cwd": os.getcwd(), "pid": os.getpid(), "uid": os.getuid(), "home": os.environ["HOME"]}


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def raise_named(name):
    error = {"KeyboardInterrupt": KeyboardInterrupt, "GeneratorExit": GeneratorExit, "ValueError": ValueError}[name]
    raise error("on purpose")


def raise_unprintable(_):
    class UnprintableError(Exception):
        def __str__(self):
            raise SystemExit(9)

    raise UnprintableError


def leave(code):
    sys.exit(code)


def leave_at_once(code):
    os._exit(code)


def signal_self(number):
    os.kill(os.getpid(), number)
    time.sleep(60)


def segfault(_):
    ctypes.string_at(0)


def abort(_):
    print("last words", flush=True)
    os.abort()


def spin(_):
    while True:
        pass


def spin_in_children(number):
    for _ in range(number):
        if os.fork() == 0:
            while True:
                pass
    os.wait()


def spin_ignoring_signals(_):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU, signal.SIGALRM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass


def sleep_in_c(_):
    ctypes.CDLL(None).sleep(60)  # holds no GIL, but does not return to Python either


def sleep_in_c_holding_the_lock(_):
    ctypes.PyDLL(None).sleep(60)


def multiply_for_ever(size):
    import numpy

    big = numpy.ones((size, size))
    while True:
        big = big @ big / size


def eat_memory(_):
    kept = []
    while True:
        kept.append(bytearray(8 << 20))


def eat_memory_in_mappings(_):
    import mmap

    kept = []
    while True:
        block = mmap.mmap(-1, 8 << 20)  # shared: not counted by RLIMIT_DATA
        block.write(b"x" * (8 << 20))
        kept.append(block)


def eat_memory_in_children(_):
    for _ in range(8):
        if os.fork() == 0:
            kept = bytearray(b"x") * (40 << 20)
            time.sleep(60)
            os._exit(len(kept))
    time.sleep(60)


def share_memory_with_children(n_bytes):
    kept = bytearray(b"x") * n_bytes
    for _ in range(4):
        if os.fork() == 0:
            time.sleep(0.3)
            os._exit(0)
    for _ in range(4):
        os.wait()
    return len(kept)


def swallow_memory_errors(_):
    kept = []
    for _ in range(100_000):
        with contextlib.suppress(MemoryError):
            kept.append(bytearray(8 << 20))
    return len(kept) * 8 << 20


def fill_disk(folder):
    with contextlib.suppress(OSError):
        for number in range(10_000):
            with open(os.path.join(folder or os.getcwd(), f"{number}"), "wb") as file:
                file.write(b"x" * (1 << 20))
                file.flush()
    time.sleep(60 if folder else 0)
    # A checkout below /tmp is mounted there, so that a scratch folder in /tmp may hold folders that nobody wrote.
    return sum(entry.stat().st_size for entry in os.scandir(folder or os.getcwd()) if entry.is_file())


def fill_disk_with_a_deleted_file(folder):
    files = []
    for number in range(10_000):
        path = os.path.join(folder, str(number))
        files.append(open(path, "wb"))  # noqa: SIM115
        os.unlink(path)
        files[-1].write(b"x" * (1 << 20))
        files[-1].flush()
    return "filled"


def write_one_large_file(n_bytes):
    with open("large", "wb") as file:
        for _ in range(n_bytes >> 20):
            file.write(b"x" * (1 << 20))


def print_much(n_bytes):
    block = "x" * (1 << 20)
    for _ in range(n_bytes >> 20):
        sys.stdout.write(block)
    return "printed"


def leave_children_behind(folder):
    """Children in sessions of their own that would write to the folder later on."""
    for number in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(1.0)
                with open(os.path.join(folder, f"alive-{number}"), "w") as file:
                    file.write("still here")
            os._exit(0)
    return "left"


def spawn_a_program(_):
    subprocess.Popen(["sleep", "61"], start_new_session=True)
    return "spawned"


def leave_sleepers(_):
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
            os._exit(0)
    time.sleep(60)


def bomb_with_forks(_):
    while True:
        with contextlib.suppress(OSError):
            os.fork()


def start_many_threads(number):
    for _ in range(number):
        threading.Thread(target=time.sleep, args=(60,)).start()
    time.sleep(60)


def start_small_threads(number):
    threading.stack_size(64 << 10)
    start_many_threads(number)


def start_a_thread_and_return(_):
    threading.Thread(target=time.sleep, args=(60,)).start()
    return "returned"


def recurse(depth):
    return recurse(depth + 1) + 1


def recurse_in_c(_):
    sys.setrecursionlimit(1 << 30)
    nested = []
    for _ in range(10_000_000):
        nested = [nested]
    return repr(nested)


def connect(address):
    host, port = address
    with socket.create_connection((host, port), timeout=2) as connection:
        connection.sendall(b"stolen")
    return "connected"


def connect_to_abstract_socket(name):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("\0" + name)
    return "connected"


def resolve(name):
    return socket.gethostbyname(name)


def interfaces(_):
    return [name for _, name in socket.if_nameindex()]


def write_file(path):
    with open(path, "w") as file:
        file.write("was here")
    return "written"


def read_file(path):
    with open(path) as file:
        return file.read(1000)


def delete(paths):
    outcome = {}
    for path in paths:
        try:
            os.unlink(path)
            outcome[path] = "deleted"
        except OSError as error:
            outcome[path] = type(error).__name__
    return outcome


def exists(paths):
    return {path: os.path.lexists(path) for path in paths}


def environment(_):
    with open("/proc/self/environ") as file:
        initial = file.read()
    return {"os": dict(os.environ), "initial": initial}


def descriptors(_):
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


def processes(_):
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/status") as file:
                found[name] = file.readline().split()[1]
    return found


def attack_the_keeper(_):
    outcome = {}
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP, signal.SIGCHLD):
        with contextlib.suppress(OSError):
            os.kill(1, number)
    for path in ("/proc/1/mem", "/proc/1/environ", "/proc/1/maps", "/proc/1/root/", "/proc/1/cwd/"):
        try:
            os.listdir(path) if path.endswith("/") else os.read(os.open(path, os.O_RDONLY), 1)
            outcome[path] = "open"
        except OSError as error:
            outcome[path] = type(error).__name__
    return outcome


def refused_calls(_):
    """Calls that reach past the namespaces, each with the error it got (0: allowed)."""
    library = ctypes.CDLL(None, use_errno=True)
    calls = {
        "unshare user": lambda: library.unshare(0x10000000),
        "unshare mount": lambda: library.unshare(0x00020000),
        "mount": lambda: library.mount(b"none", b"/tmp", b"tmpfs", 0, None),
        "remount": lambda: library.mount(b"none", b"/usr", None, 32 | 4096, None),
        "umount": lambda: library.umount2(b"/proc", 2),
        "chroot": lambda: library.chroot(b"/tmp"),
        "ptrace": lambda: library.ptrace(16, 1, None, None),
        "keyctl": lambda: library.syscall(250 if os.uname().machine == "x86_64" else 219, 0, -4, 0),
        "sethostname": lambda: library.sethostname(b"x", 1),
        "mknod": lambda: library.mknod(b"/tmp/disk", 0o60600, 0xFE00),
        "memfd_create": lambda: library.memfd_create(b"x", 0),
        "setuid": lambda: library.setuid(12345),
        "limits of the keeper": lambda: library.prlimit(1, resource.RLIMIT_NOFILE, struct.pack("QQ", 3, 3), None),
        "cores of the keeper": lambda: library.sched_setaffinity(1, 8, struct.pack("Q", 1)),
        "scheduler of the keeper": lambda: library.sched_setscheduler(1, os.SCHED_IDLE, struct.pack("i", 0)),
        "priority of the user": lambda: library.setpriority(os.PRIO_USER, os.getuid(), 19),
        "socket past network namespaces": lambda: library.socket(40, socket.SOCK_STREAM, 0),
    }
    outcome = {}
    for name, call in calls.items():
        ctypes.set_errno(0)
        outcome[name] = ctypes.get_errno() if call() < 0 else 0
    return outcome


def capabilities(_):
    with open("/proc/self/status") as file:
        return {line.split(":")[0]: line.split()[1] for line in file if line.startswith(("Cap", "NoNew", "Seccomp"))}


def kernel_settings(paths):
    outcome = {}
    for path in paths:
        try:
            with open(path, "r+") as file:
                file.write(file.read())
            outcome[path] = "written"
        except OSError as error:
            outcome[path] = type(error).__name__
    return outcome


def not_json(kind):
    values = {
        "nan": float("nan"),
        "infinity": {"loss": float("inf")},
        "object": object(),
        "bytes": b"x",
        "set": {1},
        "huge": "x" * (17 << 20),
        "surrogate": "\ud800",
    }
    if kind == "deep":
        value = []
        for _ in range(5000):
            value = [value]
        return value
    return values[kind]


def forge(raw):
    """Write an answer of one's own to the result pipe and leave, as a hostile candidate would."""
    os.write(3, raw.encode())
    os._exit(0)


def forge_and_return(raw):
    os.write(3, raw.encode())
    return 2


def forge_and_leave(raw):
    os.write(3, raw.encode())
    os._exit(70)


def forge_by_size(n_bytes):
    block = b"[" * (1 << 20)
    for _ in range(n_bytes >> 20):
        os.write(3, block)
    os._exit(0)


def leave_traps(folder):
    os.symlink("/etc/passwd", os.path.join(folder, "link"))
    os.symlink("/", os.path.join(folder, "checkpoint"))
    os.mkfifo(os.path.join(folder, "pipe"))
    os.mkdir(os.path.join(folder, "closed"))
    os.symlink("/root", os.path.join(folder, "closed", "deep"))
    os.chmod(os.path.join(folder, "closed"), 0)
    with open(os.path.join(folder, "plain"), "w") as file:
        file.write("kept")
    os.chmod(os.path.join(folder, "plain"), 0o6755)
    return "left"


def close_everything(_):
    os.closerange(0, 256)
    time.sleep(60)


def close_the_result(value):
    os.close(3)
    return value


def stop_self(_):
    os.kill(os.getpid(), signal.SIGSTOP)


def replace_json(value):
    json.dumps = lambda *arguments, **options: "{"
    return value


def random_numbers(_):
    import random

    return [random.random() for _ in range(3)]


def loaded_modules(names):
    return {name: name in sys.modules for name in names}


def first_optimiser_step(_):
    """Seconds that building a small model, one step and a second step take."""
    import torch

    began = time.perf_counter()
    model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.GELU(), torch.nn.Linear(32, 32))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    seconds = []
    for _ in range(2):
        optimiser.zero_grad()
        model(torch.ones(8, 32)).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "threads": torch.get_num_threads()}


def random_tensor(_):
    import torch

    return torch.rand(3).tolist()


def allocate_tensor(n_bytes):
    import torch

    return int(torch.ones(n_bytes, dtype=torch.uint8).max())


def write_bytecode(_):
    """Import a module that lies in scratch and look for a cache of it."""
    before = set(os.listdir("."))
    with open("fresh_module.py", "w") as file:
        file.write("value = 1\n")
    sys.path.insert(0, os.getcwd())
    import fresh_module

    return {"value": fresh_module.value, "files": sorted(set(os.listdir(".")) - before)}
