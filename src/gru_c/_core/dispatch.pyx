"""The choice of kernels: instruction set and engine of the products.

Products run on the register-blocked kernel of simd_real.h ("panel") or on GEMM from
scipy.linalg.cython_blas ("blas"), both on packed panels, and BLAS never in a piece large
enough for OpenBLAS to thread. GFLOP/s of a layer's inference with each (T = 20, I = H, float32, one
thread of an AMD EPYC, Zen 4; OpenBLAS 0.3.30, for AVX2 with OPENBLAS_CORETYPE=Haswell), printed
by `python bench/engines.py`:

    H    N     AVX-512: panel  BLAS     AVX2: panel  BLAS
    128  1                67    63               65     6
    128  8               107   104              100    33
    128  32              107   106              101    55
    256  8               112   110              104    30
    256  64              109   108              105    39
    512  2                94    96               77    10
    512  32              111   109              105    23

So the panel kernel is the default for every product; BLAS is its check, and the choice where a
compiler has no vector extensions. `GRU_C_ENGINE=blas` selects it.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer

from gru_c._core.blas cimport blas_product, blas_product_far, blas_product_tiles
from gru_c._core.kernels cimport (
    PANEL_BYTES, Kernels, product_far_t, product_t, product_tiles_t,
)

cdef extern from "cpu.h":
    bint cpu_has_avx512 "gru_cpu_has_avx512"()
    bint cpu_has_avx2 "gru_cpu_has_avx2"()


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
        kernels_f32.product_far = <product_far_t> blas_product_far[float]
        kernels_f64.product_far = <product_far_t> blas_product_far[double]
        kernels_f32.product_tiles = <product_tiles_t> blas_product_tiles[float]
        kernels_f64.product_tiles = <product_tiles_t> blas_product_tiles[double]
        kernels_f32.strip_bytes = kernels_f64.strip_bytes = PANEL_BYTES
        # GEMM rounds a row of an odd half line as the number of rows will have it.
        kernels_f32.unit_bytes = kernels_f64.unit_bytes = 64
