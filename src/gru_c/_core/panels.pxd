"""Matrices packed once into contiguous panels, and products with them.

The right factor B of A . B is cut into blocks of at most 128 rows and those into panels of 256
bytes of columns, so that a panel of a block is contiguous and stays in the first-level cache while
the rows of A go past it (contiguous panels lose nothing to TLB misses at large sizes). A may hold
its columns in `segments` pieces, `a_segment` elements apart: the planes of the gate buffer.
"""

from gru_c._core.kernels cimport real

cdef struct Panels:
    Py_ssize_t segments
    Py_ssize_t depth           # rows of B in a segment
    Py_ssize_t columns         # of B, a multiple of 64 bytes
    void *data                 # segments * depth * columns elements

cdef void pack(
    Panels *panels, Py_ssize_t segment, Py_ssize_t first_column, Py_ssize_t columns,
    const real *b, Py_ssize_t b_row, Py_ssize_t b_col) noexcept nogil

cdef void multiply(
    const Panels *panels, Py_ssize_t rows, const real *a, Py_ssize_t a_row, Py_ssize_t a_segment,
    const real *start, Py_ssize_t start_row, real *c, Py_ssize_t c_row) noexcept nogil

cdef void multiply_transposed(
    Py_ssize_t rows, Py_ssize_t m, const real *a, Py_ssize_t a_row,
    Py_ssize_t columns, const real *b, Py_ssize_t b_row,
    real *c, Py_ssize_t c_row, bint accumulate) noexcept nogil
