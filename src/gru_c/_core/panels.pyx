"""Packing and the products: loops over blocks and panels around the kernel `product`."""

from libc.string cimport memcpy, memset

from gru_c._core.dispatch cimport kernels
from gru_c._core.kernels cimport Kernels, real

cdef:
    Py_ssize_t PANEL_BYTES = 256     # 4 registers of AVX-512
    Py_ssize_t BLOCK_ROWS = 128      # a block of a panel is 32 KB: the first-level cache
    Py_ssize_t OUTER_ROWS = 64       # of a product over all T*N rows: 16 KB on the stack


cdef inline Py_ssize_t count(Py_ssize_t length, Py_ssize_t piece) noexcept nogil:
    """Pieces that a length takes."""
    return (length + piece - 1) // piece


cdef inline Py_ssize_t panel_columns(const real *_) noexcept nogil:
    return PANEL_BYTES // sizeof(real)


cdef void pack(
    Panels *panels, Py_ssize_t segment, Py_ssize_t first_column, Py_ssize_t columns,
    const real *b, Py_ssize_t b_row, Py_ssize_t b_col,
) noexcept nogil:
    """Set columns first_column .. first_column + columns of a segment to b[k * b_row + j * b_col].

    `panels.data` was zeroed before: padding columns stay zero.
    """
    cdef:
        Py_ssize_t wide = panel_columns(b), k, j, column, i, block, height, first, width
        real *target
    for i in range(count(panels.depth, BLOCK_ROWS)):
        block = i * BLOCK_ROWS
        height = min(BLOCK_ROWS, panels.depth - block)
        for j in range(columns):
            column = first_column + j
            first = column // wide * wide
            width = min(wide, panels.columns - first)
            target = (<real *> panels.data + (segment * panels.depth + block) * panels.columns
                      + height * first + column - first)
            for k in range(height):
                target[k * width] = b[(block + k) * b_row + j * b_col]


cdef void multiply(
    const Panels *panels, Py_ssize_t rows, const real *a, Py_ssize_t a_row, Py_ssize_t a_segment,
    const real *start, Py_ssize_t start_row, real *c, Py_ssize_t c_row,
) noexcept nogil:
    """C (rows, columns) = START + A . B; START may be C, a bias row (start_row = 0) or NULL."""
    cdef:
        const Kernels *kernel = kernels(a)
        const real *b = <const real *> panels.data
        Py_ssize_t wide = panel_columns(a), segment, i, block, height, j, first, width
    for segment in range(panels.segments):
        for i in range(count(panels.depth, BLOCK_ROWS)):
            block = i * BLOCK_ROWS
            height = min(BLOCK_ROWS, panels.depth - block)
            for j in range(count(panels.columns, wide)):
                first = j * wide
                width = min(wide, panels.columns - first)
                kernel.product(
                    rows, width, height, a + segment * a_segment + block, a_row, 1, b, width,
                    start + first if start != NULL else NULL, start_row, c + first, c_row)
                b += height * width
            start = c
            start_row = c_row


cdef void multiply_transposed(
    Py_ssize_t rows, Py_ssize_t m, const real *a, Py_ssize_t a_row,
    Py_ssize_t columns, const real *b, Py_ssize_t b_row,
    real *c, Py_ssize_t c_row, bint accumulate,
) noexcept nogil:
    """C (m, columns) = A^T . B over `rows` rows, added to C with `accumulate`.

    Rows of C are written up to the next multiple of 64 bytes. Block after block of rows, a panel of
    B is copied to the stack: strided panels lose a third to TLB misses and cache conflicts.
    """
    cdef:
        const Kernels *kernel = kernels(a)
        char[16384 + 64] memory
        real *panel = <real *> ((<size_t> memory + 63) & ~<size_t> 63)
        Py_ssize_t wide = panel_columns(a), lanes = 64 // sizeof(real)
        Py_ssize_t i, block, height, j, first, width, padded, k
    for i in range(count(rows, OUTER_ROWS)):
        block = i * OUTER_ROWS
        height = min(OUTER_ROWS, rows - block)
        for j in range(count(columns, wide)):
            first = j * wide
            width = min(wide, columns - first)
            padded = (width + lanes - 1) // lanes * lanes
            for k in range(height):
                memcpy(panel + k * padded, b + (block + k) * b_row + first, width * sizeof(real))
                memset(panel + k * padded + width, 0, (padded - width) * sizeof(real))
            kernel.product(
                m, padded, height, a + block * a_row, 1, a_row, panel, padded,
                c + first if accumulate or block > 0 else NULL, c_row, c + first, c_row)
