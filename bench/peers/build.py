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


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base) / "gru_c-bench"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def compiler(language: str) -> str:
    """The C or C++ compiler: $CC or $CXX, else the usual names."""
    choices = {"c": ("CC", ("gcc", "cc", "clang")), "c++": ("CXX", ("g++", "clang++"))}
    variable, names = choices[language]
    for name in (os.environ.get(variable), *names):
        if name and (path := shutil.which(name)):
            return path
    raise Unsupported(f"no {language} compiler found (set ${variable})")


def shared_library(source: Path, flags: Sequence[str], language: str = "c") -> Path:
    """Path of `source` compiled with `flags`; the name carries a hash of all that went into it."""
    program = compiler(language)
    # What -march=native depends on: a cache on a shared disk is not used on another processor.
    native = [cpuinfo().get(name, sys.platform) for name in ("model name", "flags", "Features")]
    key = "\0".join([program, source.read_text(), *flags, *native])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    target = cache_directory() / f"{source.stem}-{digest}.so"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / target.name
        command = [program, str(source), "-shared", "-fPIC", "-o", str(made), *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Unsupported(f"{source.name} does not compile: {done.stderr.strip()[-500:]}")
        os.replace(made, target)  # in one step, so that a process beside never sees half a file
    return target
