"""GEMM of scipy.linalg.cython_blas, row-major and in either dtype."""

from gru_c._core.kernels cimport real

cdef void gemm(
    bint a_transposed, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
    const real *a, Py_ssize_t lda, const real *b, Py_ssize_t ldb,
    real *c, Py_ssize_t ldc) noexcept nogil

cdef void blas_product(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth, const real *a, Py_ssize_t a_row,
    const real *b, Py_ssize_t b_row, Py_ssize_t b_strip,
    const real *start, Py_ssize_t start_row, real *c, Py_ssize_t c_row) noexcept nogil

cdef void blas_product_far(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth, const real *a, Py_ssize_t a_row,
    const real *b, Py_ssize_t b_row, Py_ssize_t b_strip,
    const real *start, Py_ssize_t start_row, real *c, Py_ssize_t c_row,
    const char *ahead, Py_ssize_t ahead_step) noexcept nogil

cdef void blas_product_tiles(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth, const real *a,
    const real *b, Py_ssize_t b_row, Py_ssize_t b_strip,
    bint add, real *c, Py_ssize_t c_row) noexcept nogil
