"""The environment of a worker process, and the description of machine and software."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from . import processor
from .peers.base import AVX2_ENV

ROOT = Path(__file__).resolve().parents[1]

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "GRU_C_NUM_THREADS",
)
# What a user may have set for other reasons and would bend a measurement.
REMOVED = (
    *AVX2_ENV, "GRU_C_ISA", "OMP_WAIT_POLICY", "OMP_DYNAMIC", "OMP_PROC_BIND", "OMP_PLACES",
    "GOMP_SPINCOUNT", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_BLOCKTIME", "TF_ENABLE_ONEDNN_OPTS",
)

PACKAGES = [
    "gru-c", "numpy", "scipy", "torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorflow",
    "tensorflow-cpu", "keras", "jax", "jaxlib", "onednn-cpu-gomp", "matplotlib", "cython", "numba",
]


def worker_environment(threads: int, isa: str) -> dict[str, str]:
    """The variables of a process that measures `threads` threads with instruction set `isa`."""
    env = {name: value for name, value in os.environ.items() if name not in REMOVED}
    env |= {name: str(threads) for name in THREAD_VARIABLES}
    env["TF_NUM_INTEROP_THREADS"] = "1"
    env["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if isa == "avx2":
        env |= AVX2_ENV | {"GRU_C_ISA": "avx2"}
    return env


def processor_flags() -> set[str]:
    """What /proc/cpuinfo calls flags; empty where there is none."""
    return set(processor.cpuinfo().get("flags", "").split())


def cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Watch:
    """How much of the cores' time others had since this was made: a run beside them is worth less.

    `shares()` is {"others": fraction of the cores' time used by other processes, "stolen": by other
    machines on the same host}, empty where the system does not say.
    """

    def __init__(self):
        self.before = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds of the cores: all, used by others, stolen; zeros if the system does not say."""
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        except OSError:
            return 0, 0, 0
        tick = os.sysconf("SC_CLK_TCK")
        every = [int(field) / tick for field in fields]
        _, _, _, idle, waiting, _, _, stolen = every
        ours = sum(os.times()[:4])
        return sum(every), sum(every) - idle - waiting - stolen - ours, stolen

    def shares(self) -> dict[str, float]:
        every, *spent = (now - old for now, old in zip(self._now(), self.before, strict=True))
        if every <= 0:
            return {}
        names = ("others", "stolen")
        return {name: round(max(0.0, s / every), 3) for name, s in zip(names, spent, strict=True)}


def useful_isas(wanted: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """(those of `wanted` that make a difference here, why not the others)."""
    flags = processor_flags()
    if "avx2" not in wanted:
        return wanted, []
    if platform.machine().lower() not in ("x86_64", "amd64") or (flags and "avx2" not in flags):
        reason = "this processor has no AVX2"
    elif flags and "avx512f" not in flags:
        reason = "isa avx2 is the same as native on this processor"
    else:
        return wanted, []
    return tuple(isa for isa in wanted if isa != "avx2") or ("native",), [reason]


def useful_threads(wanted: tuple[int, ...]) -> tuple[tuple[int, ...], list[str]]:
    """(those of `wanted` that this process has cores for, why not the others)."""
    most = cores()
    too_many = [f"{n} threads: the process has {most} cores" for n in wanted if n > most]
    return tuple(n for n in wanted if n <= most) or (most,), too_many


def caches() -> dict[str, str]:
    """Sizes of the caches that the first core sees, such as {"L2": "1024K"}."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
        except OSError:
            continue
        found[f"L{level}{'' if kind == 'Unified' else kind[0].lower()}"] = size
    return found


def describe() -> dict[str, Any]:
    """CPU model, cores, caches, memory, system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    flags = processor_flags()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_tile")
    return {
        "processor": processor.name(),
        "cpu": processor.cpuinfo().get("model name") or platform.processor(),
        "architecture": platform.machine(),
        "cores": cores(),
        "caches": caches(),
        "vectors": [name for name in wanted if name in flags],
        "virtual": "hypervisor" in flags,
        "memory_gb": round(memory / 2**30, 1),
        "system": platform.platform(),
        "python": sys.version.split()[0],
    }


def versions() -> dict[str, str]:
    """Installed distributions that take part."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def revision() -> str:
    """The commit of the checkout, "+" behind it if a tracked file was changed."""
    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return ""
