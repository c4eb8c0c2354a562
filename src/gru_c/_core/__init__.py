"""The compiled core. Importing it chooses the kernels for this processor.

`GRU_C_ISA=baseline|avx2|avx512` forces a lower instruction set, `GRU_C_ENGINE=blas` the products
of BLAS instead of our microkernel. Both are read once, at import.
"""

import ctypes
import functools
import importlib
import os

from scipy.linalg import cython_blas

from gru_c._core import core, cpus
from gru_c._core.binding import BATCH_FIRST, CELL, SEQUENCE, STEP

# isort: split
from gru_c._core.binding import (
    Carry,
    CoreStream,
    Handle,
    Layer,
    TrainingState,
    backward,
    bind,
    bind_rounded,
    forward,
    marks,
    sort_by_length,
    sum_steps,
    swap,
    undo_window,
)
from gru_c._core.gemm import blas

ENGINES = ("panel", "blas")
BLAS_THREADS = ("scipy_openblas_get_num_threads", "openblas_get_num_threads", "MKL_Get_Max_Threads")


@functools.cache
def contexts(isa: str, engine: str) -> object:
    """The capsule of the contexts of an instruction set, with the products of an engine."""
    kernels = importlib.import_module(f"gru_c._core.kernels_{isa}").contexts
    return blas.contexts(kernels) if engine == "blas" else kernels


def bind_quantized(isa: str) -> None:
    """Layers of bfloat16 and of int8 made from now on use the kernels of an instruction set."""
    int8 = importlib.import_module(f"gru_c._core.kernels_int8_{core.int8_kernels(isa)}")
    bind_rounded(contexts(isa, "panel"), int8.context)


@functools.cache
def load_quantized() -> None:
    """Make layers of bfloat16 and of int8 possible; their kernels are not loaded before."""
    bind_quantized(isa)


def _choose_isa() -> str:
    supported = core.instruction_sets()
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
    if not value:                                          # not ours: ignored if it is no number
        count = _thread_count(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip())
    library = ctypes.CDLL(cython_blas.__file__)            # a look-up searches its links, too
    getter = next((getattr(library, name) for name in BLAS_THREADS if hasattr(library, name)), None)
    core.initialize(most, ctypes.cast(getter, ctypes.c_void_p).value if getter else 0)
    if count:
        core.set_num_threads(min(count, most))


isa = _choose_isa()
engine = _choose_engine()
_configure_threads()
bind(contexts(isa, engine))

STEPS = TrainingState(STEP, False)                         # of GRU.step, which saves nothing

__all__ = [
    "BATCH_FIRST",
    "CELL",
    "SEQUENCE",
    "STEPS",
    "Carry",
    "CoreStream",
    "Handle",
    "Layer",
    "TrainingState",
    "backward",
    "blas",
    "contexts",
    "core",
    "engine",
    "forward",
    "isa",
    "load_quantized",
    "marks",
    "sort_by_length",
    "sum_steps",
    "swap",
    "undo_window",
]
