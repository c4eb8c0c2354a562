"""Matrices packed once into contiguous panels, and products with them.

The right factor B of A . B is cut into panels of 256 bytes of columns, each contiguous (strided
ones lose a third to TLB misses at large sizes), and a panel into contiguous strips of columns as
wide as a tile of the kernel: all of it with AVX-512, 64 bytes with AVX2. All rows of A go past a
panel before the next. The kernel takes a row of a strip every 12 to 24 cycles, which the
second-level cache supplies with ease, so blocks of rows are long: of 128, 512 and 1024 rows came
70, 90 and 100 GFLOP/s at T,N,I,H = 50,16,512,1024. A may hold its columns in `segments` pieces,
`a_segment` elements apart: the planes of the gate buffer.
"""

from gru_c._core.kernels cimport real

cdef struct Panels:
    Py_ssize_t segments
    Py_ssize_t depth           # rows of B in a segment
    Py_ssize_t columns         # of B with padding, a multiple of 64 bytes
    Py_ssize_t used            # of them, those that products compute
    void *data                 # segments * depth * columns elements

# What a product asks of memory in passing: the lines of C, which is in no near cache then, and
# `bytes` from `data` on, which something after the product will want.
cdef struct Ahead:
    const void *data
    Py_ssize_t bytes

cdef Py_ssize_t panel_columns(const real *_) noexcept nogil

cdef void pack(
    Panels *panels, Py_ssize_t segment,
    const real *b, Py_ssize_t b_row, Py_ssize_t b_col, Py_ssize_t columns) noexcept nogil

cdef void multiply(
    const Panels *panels, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t rows, const real *a, Py_ssize_t a_row, Py_ssize_t a_segment,
    const real *start, Py_ssize_t start_row, real *c, Py_ssize_t c_row,
    const Ahead *ahead) noexcept nogil

cdef Py_ssize_t strip_columns(const real *_, Py_ssize_t width) noexcept nogil

cdef void copy_panel(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t padded,
    const real *b, Py_ssize_t b_row, Py_ssize_t b_col, real *panel, Py_ssize_t depth) noexcept nogil

cdef Ahead panels_ahead(
    const Panels *panels, Py_ssize_t first, Py_ssize_t last, const real *_) noexcept nogil

cdef void pack_tiles(
    Py_ssize_t depth, Py_ssize_t rows, const real *a, Py_ssize_t a_row, real *tiles) noexcept nogil
