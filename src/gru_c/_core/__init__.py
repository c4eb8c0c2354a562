"""The compiled core. Importing it chooses the kernels for this processor.

`GRU_C_ISA=baseline|avx2|avx512` forces a lower instruction set, `GRU_C_ENGINE=blas` the products
of BLAS in place of the panel kernel. Both are read once, at import.
"""

import ctypes
import importlib
import os

from scipy.linalg import cython_blas

from gru_c._core import cpus, dispatch, threads
from gru_c._core.blas import INTEGER_SIZE as blas_int_size

ENGINES = ("panel", "blas")
BLAS_THREADS = ("scipy_openblas_get_num_threads", "openblas_get_num_threads", "MKL_Get_Max_Threads")


def _choose_isa() -> str:
    supported = dispatch.supported()
    isa = os.environ.get("GRU_C_ISA") or supported[0]
    if isa not in ("baseline", "avx2", "avx512"):
        raise ImportError(f"GRU_C_ISA must be 'baseline', 'avx2' or 'avx512', got {isa!r}")
    if isa not in supported:
        raise ImportError(f"GRU_C_ISA={isa}, but this processor supports only {supported}")
    return isa


def _choose_engine() -> str:
    engine = os.environ.get("GRU_C_ENGINE") or "panel"
    if engine not in ENGINES:
        raise ImportError(f"GRU_C_ENGINE must be 'panel' or 'blas', got {engine!r}")
    return engine


def _thread_count(value: str) -> int:
    """A positive integer in ASCII digits, however many; 0 if it is none."""
    if not (value.isascii() and value.isdecimal()):
        return 0
    return int(value.lstrip("0")[:9] or "0")               # int() refuses thousands of digits


def _configure_threads() -> None:
    """As many threads as this process has processors, or fewer if the environment says so."""
    most = cpus.available()
    value = os.environ.get("GRU_C_NUM_THREADS", "")
    count = _thread_count(value)
    if value and not count:
        raise ImportError(f"GRU_C_NUM_THREADS must be a positive integer, got {value!r}")
    if not value:                                          # not ours: what is no number, we ignore
        count = _thread_count(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip())
    library = ctypes.CDLL(cython_blas.__file__)            # a look-up goes on to what it links to
    getter = next((getattr(library, name) for name in BLAS_THREADS if hasattr(library, name)), None)
    threads.configure(most, ctypes.cast(getter, ctypes.c_void_p).value if getter else 0)
    if count:
        threads.choose(min(count, most))


isa = _choose_isa()
engine = _choose_engine()
_configure_threads()
dispatch.bind(importlib.import_module(f"gru_c._core.kernels_{isa}").kernels, engine == "blas")

from gru_c._core.layer import Layer, Trace, activation, swap  # noqa: E402  (kernels are bound now)

__all__ = ["Layer", "Trace", "activation", "blas_int_size", "dispatch", "engine", "isa",
           "swap", "threads"]
