"""Compiles the benchmark's small C and C++ sources into shared libraries, once, in a user cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..processor import cpuinfo
from .base import Unsupported


def shared_library(source: Path, flags: Sequence[str], headers: Sequence[Path] = ()) -> Path:
    """Path of `source` compiled with `flags`; the name carries a hash of all that went into it.

    `headers` are those of its files that may change while flags and versions stay.
    """
    variable, usual = ("CXX", "c++") if source.suffix == ".cpp" else ("CC", "cc")
    program = shutil.which(os.environ.get(variable, "")) or shutil.which(usual)
    if program is None:
        raise Unsupported(f"no compiler found for {source.name} (set ${variable})")
    # What -march=native depends on: a cache on a shared disk is not used on another processor.
    native = [cpuinfo().get(name, sys.platform) for name in ("model name", "flags", "Features")]
    texts = [path.read_text() for path in (source, *headers)]
    key = "\0".join([program, *texts, *flags, *native])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gru_c-bench"
    target = cache / f"{source.stem}-{digest}.so"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        made = Path(scratch) / target.name
        command = [program, str(source), "-shared", "-fPIC", "-o", str(made), *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Unsupported(f"{source.name} does not compile: {done.stderr.strip()[-500:]}")
        os.replace(made, target)  # in one step, so that a process beside never sees half a file
    return target
