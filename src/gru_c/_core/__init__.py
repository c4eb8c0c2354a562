"""The compiled core. Importing it chooses the kernels for this processor.

`GRU_C_ISA=baseline|avx2|avx512` forces a lower instruction set, `GRU_C_ENGINE=blas` the products
of BLAS in place of the panel kernel. Both are read once, at import.
"""

import importlib
import os

from gru_c._core import dispatch
from gru_c._core.blas import INTEGER_SIZE as blas_int_size

ENGINES = ("panel", "blas")


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


isa = _choose_isa()
engine = _choose_engine()
dispatch.bind(importlib.import_module(f"gru_c._core.kernels_{isa}").kernels, engine == "blas")

from gru_c._core.layer import PackedLayer, activation  # noqa: E402  (needs the kernels bound)

__all__ = ["PackedLayer", "activation", "blas_int_size", "dispatch", "engine", "isa"]
