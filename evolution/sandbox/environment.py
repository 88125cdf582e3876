"""The environment of the warm parent and so of every worker: made from nothing, by an allow-list."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

_PASSED_ON = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUDA_HOME",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES",
    "PATH",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TZ",
)
_FIXED = {
    "CUDA_MODULE_LOADING": "LAZY",
    "HOME": "/tmp",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONNOUSERSITE": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking whether a GPU is there must not start the driver before a fork
    "TMPDIR": "/tmp",
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/torchinductor",
    "USER": "worker",
    "LOGNAME": "worker",
}
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)


def worker_environment(supervisor: Mapping[str, str], import_path: Sequence[str]) -> dict[str, str]:
    """The environment for the warm parent.

    Args:
        supervisor: the supervisor's own environment; only names on the allow-list are taken from it.
        import_path: folders to import from, in order (the supervisor's sys.path).
    """
    environment = {name: supervisor[name] for name in _PASSED_ON if name in supervisor}
    environment.setdefault("PATH", os.defpath)
    environment.setdefault("LANG", "C.UTF-8")
    environment["PYTHONPATH"] = os.pathsep.join(path for path in import_path if path and os.path.exists(path))
    return {**environment, **_FIXED}


def check_extra_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Variables for one call, checked. Raises: ValueError: a name looks like a secret's, or a value is no text."""
    for name, value in extra.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name or "\0" in name + value:
            raise ValueError(f"The environment variable {name!r}={value!r} is not a pair of texts.")
        if _SECRET.search(name):
            raise ValueError(f"The environment variable {name!r} looks like a secret: a worker may not have it.")
    return dict(extra)
