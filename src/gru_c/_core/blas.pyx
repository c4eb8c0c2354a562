"""The one file that names BLAS routines."""

from libc.string cimport memset
from scipy.linalg.cython_blas cimport dgemm, sgemm

from gru_c._core.kernels cimport TILE_ROWS
from gru_c._core.rows cimport copy_rows, pieces

include "blas_int.pxi"

# OpenBLAS threads a product of more than this many multiply-adds. At or below it a call runs on the
# calling thread, wakes no pool, and stays clear of OpenBLAS#5836 (products of different transpose
# forms at once from several threads give wrong results).
cdef Py_ssize_t MOST_MULTIPLY_ADDS = 64 * 32 * 128


cdef void gemm(
    bint a_transposed, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
    const real *a, Py_ssize_t lda, const real *b, Py_ssize_t ldb,
    real *c, Py_ssize_t ldc,
) noexcept nogil:
    """C (m, n) += op(A) (m, k) . B (k, n), row-major.

    Row-major C = A B is column-major C^T = B^T A^T: the factors change places.
    """
    cdef:
        char *op_b = "N"
        char *op_a = "T" if a_transposed else "N"
        blas_int m_ = <blas_int> m, n_ = <blas_int> n, k_ = <blas_int> k
        blas_int lda_ = <blas_int> lda, ldb_ = <blas_int> ldb, ldc_ = <blas_int> ldc
        real one = 1
    if real is float:
        sgemm(op_b, op_a, &n_, &m_, &k_, &one, <float *> b, &ldb_, <float *> a, &lda_,
              &one, c, &ldc_)
    else:
        dgemm(op_b, op_a, &n_, &m_, &k_, &one, <double *> b, &ldb_, <double *> a, &lda_,
              &one, c, &ldc_)


cdef void copy_start(
    Py_ssize_t rows, Py_ssize_t columns, const real *start, Py_ssize_t start_row,
    real *c, Py_ssize_t c_row,
) noexcept nogil:
    cdef Py_ssize_t i
    if start != NULL:
        copy_rows(rows, columns * sizeof(real), start, start_row * sizeof(real),
                  c, c_row * sizeof(real))
        return
    for i in range(rows):
        memset(c + i * c_row, 0, columns * sizeof(real))


cdef void blas_product(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth, const real *a, Py_ssize_t a_row,
    const real *b, Py_ssize_t b_row, Py_ssize_t b_strip,
    const real *start, Py_ssize_t start_row, real *c, Py_ssize_t c_row,
) noexcept nogil:
    """C = START + A . B, the twin of the products in simd_real.h.

    B is one strip, as wide as a panel; b_strip goes unused.
    """
    cdef Py_ssize_t calls = pieces(rows, max(1, MOST_MULTIPLY_ADDS // (columns * depth))), m
    if start != c:
        copy_start(rows, columns, start, start_row, c, c_row)
    while rows > 0:
        m = pieces(rows, calls)                            # nearly equal heights
        gemm(False, m, columns, depth, a, max(a_row, depth), b, b_row, c, c_row)
        a += m * a_row
        c += m * c_row
        rows -= m
        calls -= 1


cdef void blas_product_far(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth, const real *a, Py_ssize_t a_row,
    const real *b, Py_ssize_t b_row, Py_ssize_t b_strip,
    const real *start, Py_ssize_t start_row, real *c, Py_ssize_t c_row,
    const char *ahead, Py_ssize_t ahead_step,
) noexcept nogil:
    """The same; nothing is asked for ahead."""
    blas_product(rows, columns, depth, a, a_row, b, b_row, b_strip, start, start_row, c, c_row)


cdef void blas_product_tiles(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth, const real *a,
    const real *b, Py_ssize_t b_row, Py_ssize_t b_strip, bint add, real *c, Py_ssize_t c_row,
) noexcept nogil:
    """C = A . B, or with `add` C += A . B, A in tiles."""
    cdef Py_ssize_t calls = pieces(rows, TILE_ROWS), m
    if not add:
        copy_start(rows, columns, <real *> NULL, 0, c, c_row)
    while rows > 0:
        m = pieces(rows, calls)                            # heights as in simd_real.h
        gemm(True, m, columns, depth, a, TILE_ROWS, b, b_row, c, c_row)
        a += TILE_ROWS * depth
        c += m * c_row
        rows -= m
        calls -= 1


INTEGER_SIZE = sizeof(blas_int)
