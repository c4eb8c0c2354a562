"""The version, and what this installation runs on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gru_c import _checks, _core

if TYPE_CHECKING:
    from gru_c._types import Integer

__version__: str = "0.1.0"


def config() -> dict[str, str | int]:
    """What `show_config` prints, as a dict."""
    import numpy
    import scipy

    blas = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "gru_c": __version__,
        "instruction set": _core.isa,
        "instruction sets": ", ".join(_core.core.instruction_sets()),
        "engine": _core.engine,
        "int8": _core.core.int8_kernels(_core.isa),
        "bfloat16": _core.core.bfloat16_products(_core.isa),
        "threads": get_num_threads(),
        "BLAS": f"{blas['name']} {blas['version']}",
        "BLAS threads": _core.core.blas_num_threads() or "unknown",
        "BLAS integers": f"{8 * _core.blas.INTEGER_SIZE} bits",
        "Python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
    }


def set_num_threads(n: Integer) -> None:
    """Use at most `n` threads in a call, from the next one on, for the whole process.

    Up to 64, whatever the machine; a larger number means 64. Without it, as many as the process has
    processors (by its affinity mask and the CPU quota of its cgroup, rounded up) and BLAS has
    threads; the environment variable GRU_C_NUM_THREADS or OMP_NUM_THREADS asks for fewer. A call
    too small to gain uses fewer, so does one where threads have to wait for processors, and where
    threadpoolctl lowers the threads of BLAS, ours follow. Results do not depend on it.

    Examples
    --------
    >>> import gru_c
    >>> before = gru_c.get_num_threads()
    >>> gru_c.set_num_threads(1)
    >>> gru_c.get_num_threads()
    1
    >>> gru_c.set_num_threads(before)
    """
    _core.core.set_num_threads(_checks.size(n, "n"))


def get_num_threads() -> int:
    """The most threads that a call uses now."""
    return _core.core.get_num_threads()


def show_config() -> None:
    """Print the version, the instruction set in use, BLAS and its threads, and ours.

    Examples
    --------
    >>> import gru_c
    >>> gru_c.show_config()  # doctest: +ELLIPSIS
    gru_c             ...
    """
    for name, value in config().items():
        print(f"{name:<17} {value}")
