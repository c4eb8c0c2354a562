"""The one file that multiplies by BLAS: contexts with products of scipy.linalg.cython_blas.

The core reaches it through the Context alone. A micropanel is a whole panel, and no call is large
enough for OpenBLAS to thread.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.limits cimport INT_MAX
from libc.stdlib cimport malloc
from libc.string cimport memcpy
from scipy.linalg.cython_blas cimport dgemm, sgemm

from gru_c._core.gemm.context cimport (
    AS_DTYPE, PANEL_BYTES, Context, Micropanels, Prefetch, View2, gemm_packed_t, real,
)
from gru_c._core.sizes cimport LINE, ceil_div, copy_rows

include "blas_int.pxi"

INTEGER_SIZE = sizeof(blas_int)

# OpenBLAS threads a product of more than this many multiply-adds. At or below it a call runs on the
# calling thread, wakes no pool, and stays clear of OpenBLAS#5836 (products of different transpose
# forms at once from several threads give wrong results).
cdef Py_ssize_t MAX_MULTIPLY_ADDS = 64 * 32 * 128

cdef enum:
    MR = 64                    # rows of a block of packed A; 6 -> 64: 84 -> 38 us (64 x 64 x 256)


cdef void call_gemm(bint a_transposed, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real *a,
                    Py_ssize_t lda, const Micropanels *b, real beta, View2 c) noexcept nogil:
    """C (m, n) = beta C + op(A) (m, k) . B (k, n), row-major; n and lda count elements.

    Row-major C = A B is column-major C^T = B^T A^T: the factors change places.
    """
    cdef:
        char *op_b = "N"
        char *op_a = "T" if a_transposed else "N"
        Py_ssize_t itemsize = sizeof(real)
        blas_int m_ = <blas_int> m, n_ = <blas_int> n, k_ = <blas_int> k
        blas_int lda_ = <blas_int> (lda if a_transposed or m > 1 else k)  # one row may have any lda
        blas_int ldb_ = <blas_int> max(b.ld // itemsize, n)
        blas_int ldc_ = <blas_int> max(c.ld // itemsize, n)
        real one = 1
    if real is float:
        sgemm(op_b, op_a, &n_, &m_, &k_, &one, <float *> b.data, &ldb_, <float *> a, &lda_,
              &beta, <float *> c.data, &ldc_)
    else:
        dgemm(op_b, op_a, &n_, &m_, &k_, &one, <double *> b.data, &ldb_, <double *> a, &lda_,
              &beta, <double *> c.data, &ldc_)


cdef Py_ssize_t max_rows(Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """Rows of C in one call."""
    return max(1, MAX_MULTIPLY_ADDS // max(1, n * k))


cdef void multiply(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real *a, Py_ssize_t lda,
                   const Micropanels *b, View2 c_init, View2 c) noexcept nogil:
    """C = C_INIT + A . B in calls of nearly equal height.

    Rows of A that overlap, run backwards or are too far apart for BLAS's lda go one by one.
    """
    cdef:
        Py_ssize_t size = n // <Py_ssize_t> sizeof(real), height, left
        Py_ssize_t most = max_rows(size, k) if k <= lda <= INT_MAX else 1
        real beta = 0 if c_init.data == NULL else 1
    if c_init.data != NULL and c_init.data != c.data:
        copy_rows(m, n, c_init.data, c_init.ld, c.data, c.ld)
    for left in range(ceil_div(m, most), 0, -1):
        height = ceil_div(m, left)
        call_gemm(False, height, size, k, a, lda, b, beta, c)
        a += height * lda
        c.data += height * c.ld
        m -= height


cdef void multiply_packed(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real *a,
                          const Micropanels *b, bint accumulate, View2 c) noexcept nogil:
    """C = A . B, or C += A . B: packed A block by block, each in calls of nearly equal height."""
    cdef:
        Py_ssize_t size = n // <Py_ssize_t> sizeof(real), blocks, left, rows, row, height
        real beta = 1 if accumulate else 0
    for blocks in range(ceil_div(m, MR), 0, -1):
        rows = ceil_div(m, blocks)
        m -= rows
        row = 0
        for left in range(ceil_div(rows, max_rows(size, k)), 0, -1):
            height = ceil_div(rows - row, left)
            call_gemm(True, height, size, k, a + row, MR, b, beta, c)
            c.data += height * c.ld
            row += height
        a += MR * k


cdef void gemm_f32(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, View2 a, const Micropanels *b,
                   View2 c_init, View2 c, const Prefetch *prefetch) noexcept nogil:
    multiply(m, n, k, <const float *> a.data, a.ld // <Py_ssize_t> sizeof(float), b, c_init, c)


cdef void gemm_f64(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, View2 a, const Micropanels *b,
                   View2 c_init, View2 c, const Prefetch *prefetch) noexcept nogil:
    multiply(m, n, k, <const double *> a.data, a.ld // <Py_ssize_t> sizeof(double), b, c_init, c)


def contexts(capsule):
    """The contexts in `capsule`, of a kernels module, with their products on BLAS.

    They live as long as the process: packed matrices point to them.
    """
    cdef:
        Context *source = <Context *> PyCapsule_GetPointer(capsule, "gru_c.contexts")
        Context *target = <Context *> malloc(2 * sizeof(Context))
        Py_ssize_t i
    if target == NULL:
        raise MemoryError
    memcpy(target, source, 2 * sizeof(Context))
    target[0].gemm[AS_DTYPE] = target[0].gemm_prefetch[AS_DTYPE] = gemm_f32
    target[1].gemm[AS_DTYPE] = target[1].gemm_prefetch[AS_DTYPE] = gemm_f64
    target[0].gemm_packed = <gemm_packed_t> multiply_packed[float]
    target[1].gemm_packed = <gemm_packed_t> multiply_packed[double]
    for i in range(2):
        target[i].mr = MR
        target[i].nr = PANEL_BYTES
        target[i].pack_small = NULL
        target[i].unit = LINE          # else the rounding of the last half line depends on m
    return PyCapsule_New(target, "gru_c.contexts", NULL)
