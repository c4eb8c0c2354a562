"""Packing, and products with packed matrices: loops over panels around the kernel `product`."""

from libc.string cimport memcpy, memset

from gru_c._core.dispatch cimport kernels
from gru_c._core.kernels cimport Kernels, real

cdef:
    Py_ssize_t PANEL_BYTES = 256     # 4 registers of AVX-512
    Py_ssize_t BLOCK_ROWS = 512      # rows of B between two visits to C


cdef Py_ssize_t panel_columns(const real *_) noexcept nogil:
    return PANEL_BYTES // sizeof(real)


cdef Py_ssize_t pieces(Py_ssize_t length, Py_ssize_t piece) noexcept nogil:
    """How many pieces a length takes."""
    return (length + piece - 1) // piece


cdef void pack(
    Panels *panels, Py_ssize_t segment,
    const real *b, Py_ssize_t b_row, Py_ssize_t b_col, Py_ssize_t columns,
) noexcept nogil:
    """Fill a segment from b[k * b_row + j * b_col]; columns from `columns` on become zero."""
    cdef:
        Py_ssize_t wide = panel_columns(b), panel, first, width, j, k
        real *target
    for panel in range(pieces(panels.columns, wide)):
        first = panel * wide
        width = min(wide, panels.columns - first)
        target = <real *> panels.data + panels.depth * (panels.segments * first + segment * width)
        for j in range(width):
            for k in range(panels.depth):
                target[k * width + j] = (
                    b[k * b_row + (first + j) * b_col] if first + j < columns else 0)


cdef void multiply(
    const Panels *panels, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t rows, const real *a, Py_ssize_t a_row, Py_ssize_t a_segment,
    const real *start, Py_ssize_t start_row, real *c, Py_ssize_t c_row,
) noexcept nogil:
    """C = START + A . B, of which panels first .. last of the columns.

    START may be C, a bias row (start_row = 0) or NULL.
    """
    cdef:
        const Kernels *kernel = kernels(a)
        const real *b
        const real *from_
        Py_ssize_t wide = panel_columns(a), panel, segment, block, depth, column, width, from_row
    for panel in range(first, last):
        column = panel * wide
        width = min(wide, panels.columns - column)
        b = <const real *> panels.data + panels.segments * panels.depth * column
        from_ = start + column if start != NULL else NULL
        from_row = start_row
        for segment in range(panels.segments):
            for block in range(pieces(panels.depth, BLOCK_ROWS)):
                depth = min(BLOCK_ROWS, panels.depth - block * BLOCK_ROWS)
                kernel.product(
                    rows, width, depth, a + segment * a_segment + block * BLOCK_ROWS, a_row, 1,
                    b, width, from_, from_row, c + column, c_row)
                b += depth * width
                from_ = c + column
                from_row = c_row


cdef void copy_panel(
    Py_ssize_t rows, Py_ssize_t columns, const real *b, Py_ssize_t b_row,
    Py_ssize_t padded, real *panel,
) noexcept nogil:
    """A contiguous panel of some rows of B, zeros in its columns from `columns` on."""
    cdef Py_ssize_t k
    for k in range(rows):
        memcpy(panel + k * padded, b + k * b_row, columns * sizeof(real))
        memset(panel + k * padded + columns, 0, (padded - columns) * sizeof(real))
