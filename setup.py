"""The extension modules; everything else about the package is in pyproject.toml.

Environment: GRU_C_NATIVE=1 compiles everything for the building machine's own processor
(-march=native); GRU_C_DEBUG=1 compiles Cython with all checks on; GRU_C_CFLAGS appends flags.
"""

import os
import platform
import shlex
from pathlib import Path

import Cython
import numpy
import scipy
from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = Path("src/gru_c/_core")
DEBUG = os.environ.get("GRU_C_DEBUG") == "1"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "cdivision": True,
    "show_performance_hints": True,
}

# No fast-math: it breaks the rounding by a magic number in exp, and linked in, it turns denormals
# off for the whole process of whoever imports us.
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
FLAGS += ["-fvisibility=hidden", "-Wno-unused-function"]
if os.environ.get("GRU_C_NATIVE") == "1":
    FLAGS += ["-march=native"]
FLAGS += shlex.split(os.environ.get("GRU_C_CFLAGS", ""))
STRIP = platform.system() == "Linux" and not DEBUG and "-g" not in FLAGS

X86 = platform.machine().lower() in ("x86_64", "amd64")
X86 = X86 and "arm64" not in os.environ.get("ARCHFLAGS", "")       # a cross-build on macOS
ISA_FLAGS = {"baseline": []}
if X86:
    avx2 = ["-mavx2", "-mfma"]
    ISA_FLAGS["avx2"] = avx2
    ISA_FLAGS["avx512"] = [*avx2, "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw"]

# Without contraction of multiply and add, so that all give the same bits. Sums of integers may wrap
# around on the way to a result in range.
INT8_FLAGS = ["-ffp-contract=off", "-fwrapv", "-DGRU_C_INT8"]
INT8_KERNELS = {f"int8_{isa}": [*flags, *INT8_FLAGS] for isa, flags in {
    "baseline": [],
    **({"avx2": ["-mavx2"], "avxvnni": ["-mavx2", "-mavxvnni"],
        "avx512vnni": [*ISA_FLAGS["avx512"], "-mavx512vnni"]} if X86 else {}),
}.items()}
KERNELS = ISA_FLAGS | INT8_KERNELS

# Headers of `cdef public` functions, which Cython writes.
GENERATED = [CORE / "core.h", *(CORE / f"kernels_{name}.h" for name in KERNELS)]


def write_blas_int() -> None:
    """scipy up to 1.17 has `int` in cython_blas, later ones a typedef that may be 64 bits wide."""
    signatures = (Path(scipy.__file__).parent / "linalg" / "cython_blas.pxd").read_text()
    if "blas_int" in signatures:
        line = "from scipy.linalg.cython_blas cimport blas_int\n"
    else:
        line = "ctypedef int blas_int\n"
    target = CORE / "gemm" / "blas_int.pxi"
    if not target.exists() or target.read_text() != line:
        target.write_text(line)


def extension(name: str, flags: list[str]) -> Extension:
    """The module `name` of the package, with dots where it is in a folder."""
    return Extension(
        f"gru_c.{name}",
        [f"src/gru_c/{name.replace('.', '/')}.pyx"],
        include_dirs=[str(CORE), str(CORE.parent / "include"), numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")]
        + [("GRU_C_DEBUG", "1")] * DEBUG,
        extra_compile_args=FLAGS + flags,
        # The names of functions stay: tools/count_instructions.py and profilers read them.
        extra_link_args=["-Wl,--strip-debug"] if STRIP else [],
        depends=[str(path) for pattern in ("*.h", "*.pxi", "*.pxd")
                 for path in CORE.parent.rglob(pattern) if path not in GENERATED],
    )


write_blas_int()
modules = [extension("cython_gru", [])]
modules += [extension(f"_core.{name}", []) for name in ("core", "binding", "testing", "gemm.blas")]
modules += [extension(f"_core.kernels_{name}", flags) for name, flags in KERNELS.items()]

# Time stamps alone would compile C that Cython made with another NumPy, or with other flags.
made_with = repr((Cython.__version__, numpy.__version__, DIRECTIVES, FLAGS, os.environ.get("CC")))
record = Path("build/made_with")
same = record.exists() and record.read_text() == made_with
modules = cythonize(modules, compiler_directives=DIRECTIVES, annotate=DEBUG, nthreads=2,
                    force=not same)
record.parent.mkdir(exist_ok=True)
record.write_text(made_with)
setup(ext_modules=modules)
