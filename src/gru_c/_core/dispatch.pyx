"""The choice of kernels: instruction set and engine of the products.

Products run on the register-blocked kernel of simd_real.h ("panel") or on GEMM from
scipy.linalg.cython_blas ("blas"), both on the same packed panels and both never in a piece large
enough for OpenBLAS to thread. On two cores of an AMD EPYC (Zen 4), one thread, float32, products
(N, H) x (H, 3H), the panel kernel beside BLAS on the same panels and one plain BLAS call, GFLOP/s:

    H    N      AVX-512                 AVX2 (OPENBLAS_CORETYPE=Haswell)
    128  1      57 /  51 /  55           42 /  3 /  3
    128  8     107 / 111 / 112           80 / 21 / 21
    128  32    114 / 116 /  70          110 / 57 / 60
    256  8     103 / 107 /  31           90 / 24 / 25
    512  2      80 /  74 /   9           45 /  6 /  6
    512  32    112 / 112 /  72          104 / 58 / 60

So the panel kernel is the default for every product; BLAS is its check, and the choice where a
compiler has no vector extensions. `GRU_C_ENGINE=blas` selects it.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer

from gru_c._core.blas cimport blas_product
from gru_c._core.kernels cimport PANEL_BYTES, Kernels, product_t

cdef extern from "cpu.h":
    bint cpu_has_avx512()
    bint cpu_has_avx2()


def supported():
    """Names of the instruction sets that this processor runs, the best first."""
    names = ["baseline"]
    if cpu_has_avx2():
        names.insert(0, "avx2")
        if cpu_has_avx512():
            names.insert(0, "avx512")
    return names


def bind(capsule, bint use_blas):
    """Make the tables in `capsule` (of a module kernels_*) the ones in use.

    Before any layer is packed: how that is done depends on them.
    """
    global kernels_f32, kernels_f64
    cdef Kernels *tables = <Kernels *> PyCapsule_GetPointer(capsule, "gru_c.kernels")
    kernels_f32 = tables[0]
    kernels_f64 = tables[1]
    if use_blas:
        kernels_f32.product = <product_t> blas_product[float]
        kernels_f64.product = <product_t> blas_product[double]
        kernels_f32.strip_bytes = kernels_f64.strip_bytes = PANEL_BYTES
