"""The process behind `LocalModel`: serves one GGUF file on loopback, prints its address, ends with its parent."""

from __future__ import annotations

import os
import sys
import threading


def serve(path: str, context: int) -> None:
    """Serve until standard input ends."""
    # llama.cpp writes its log to the process's standard output; the address goes to a copy of it.
    told = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import xllamacpp

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)  # requests in progress are nobody's any more

    threading.Thread(target=watch, daemon=True).start()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_ctx = context
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.n_threads_http = 2
    parameters.cache_prompt = False
    parameters.warmup = False
    parameters.ui = False
    parameters.offline = True
    parameters.verbosity = -1
    try:
        server = xllamacpp.Server(parameters)
    except Exception as error:
        os.write(told, f"{type(error).__name__}: {' '.join(str(error).split())}\n".encode())
        os._exit(1)
    os.write(told, f"{server.listening_address}\n".encode())
    threading.Event().wait()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
