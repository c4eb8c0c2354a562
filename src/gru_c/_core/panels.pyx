"""Packing, and products with packed matrices: loops over panels around the kernel `product`."""

from libc.string cimport memcpy, memset

from gru_c._core.dispatch cimport kernels
from gru_c._core.kernels cimport PANEL_BYTES, TILE_ROWS, Kernels, real
from gru_c._core.rows cimport pieces

cdef extern from "cpu.h" nogil:
    void fetch "gru_fetch"(const void *p)

cdef Py_ssize_t BLOCK_ROWS = 1024      # rows of B between two visits to C
cdef Py_ssize_t ROWS_AHEAD = 8         # whose lines are asked for while a panel is copied


cdef Py_ssize_t panel_columns(const real *_) noexcept nogil:
    return PANEL_BYTES // sizeof(real)


cdef Py_ssize_t strip_columns(const real *a, Py_ssize_t width) noexcept nogil:
    """Columns of the strips of a panel that is `width` wide."""
    return min(<Py_ssize_t> (kernels(a).strip_bytes // sizeof(real)), width)


cdef void pack(
    Panels *panels, Py_ssize_t segment,
    const real *b, Py_ssize_t b_row, Py_ssize_t b_col, Py_ssize_t columns,
) noexcept nogil:
    """Fill a segment from b[k * b_row + j * b_col]; columns from `columns` on become zero."""
    cdef:
        Py_ssize_t wide = panel_columns(b), depth = panels.segments * panels.depth
        Py_ssize_t panel, first, width
        real *target
    for panel in range(pieces(panels.columns, wide)):
        first = panel * wide
        width = min(wide, panels.columns - first)
        target = <real *> panels.data + depth * first
        target += segment * panels.depth * strip_columns(b, width)
        copy_panel(panels.depth, min(width, columns - first), width,
                   b + first * b_col, b_row, b_col, target, depth)


cdef inline void copy_strip_row(void *target, const void *source, Py_ssize_t size) noexcept nogil:
    """memcpy, without a call for the usual sizes: AVX-512's and AVX2's."""
    if size == 256:
        memcpy(target, source, 256)
    elif size == 64:
        memcpy(target, source, 64)
    else:
        memcpy(target, source, size)


cdef void copy_panel(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t padded,
    const real *b, Py_ssize_t b_row, Py_ssize_t b_col, real *panel, Py_ssize_t depth,
) noexcept nogil:
    """Rows of a panel whose strips are `depth` rows long; columns from `columns` on become zero.

    A transposed B is read a line of 16 elements at a time, or each would be fetched 16 times.
    """
    cdef:
        Py_ssize_t width = strip_columns(b, padded), strip, first, filled, line, j, k
        real *target
    for strip in range(padded // width):
        first = strip * width
        filled = max(0, min(width, columns - first))
        target = panel + depth * first
        for k in range(rows):
            if b_col == 1:
                for line in range(pieces(filled * sizeof(real), 64)):
                    fetch(<const char *> (b + (k + ROWS_AHEAD) * b_row + first) + 64 * line)
                copy_strip_row(target + k * width, b + k * b_row + first, filled * sizeof(real))
            if filled < width:
                memset(target + k * width + filled, 0, (width - filled) * sizeof(real))
        for line in range(pieces(rows, 16) if b_col != 1 else 0):
            for j in range(filled):
                for k in range(16 * line, min(16 * line + 16, rows)):
                    target[k * width + j] = b[k * b_row + (first + j) * b_col]


cdef void multiply(
    const Panels *panels, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t rows, const real *a, Py_ssize_t a_row, Py_ssize_t a_segment,
    const real *start, Py_ssize_t start_row, real *c, Py_ssize_t c_row, const Ahead *ahead,
) noexcept nogil:
    """C = START + A . B, of which panels first .. last of the columns.

    START may be C, a bias row (start_row = 0) or NULL. `ahead` is NULL where all is near: told
    apart here, once, for a row of 16 units takes nanoseconds.
    """
    if ahead == NULL:
        walk(False, panels, first, last, rows, a, a_row, a_segment, start, start_row, c, c_row,
             NULL, 0)
    else:
        walk(True, panels, first, last, rows, a, a_row, a_segment, start, start_row, c, c_row,
             <const char *> (c if ahead.bytes == 0 else ahead.data), ahead.bytes)


cdef inline void walk(
    bint far, const Panels *panels, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t rows, const real *a, Py_ssize_t a_row, Py_ssize_t a_segment,
    const real *start, Py_ssize_t start_row, real *c, Py_ssize_t c_row,
    const char *ahead, Py_ssize_t ahead_bytes,
) noexcept nogil:
    """Panel by panel, in each the segments of the depth, in each its blocks."""
    cdef:
        const Kernels *kernel = kernels(a)
        const real *b
        const real *from_
        Py_ssize_t wide = panel_columns(a), length = panels.segments * panels.depth
        Py_ssize_t panel, segment, k, depth, column, width, used, strip, from_row
        Py_ssize_t block = panels.depth, passes = 0, ahead_step = 0
    if block > BLOCK_ROWS:                                 # a division takes as long as a small row
        block = pieces(block, pieces(block, BLOCK_ROWS))
    if far and ahead_bytes:                                # evenly, at most a line at a time
        passes = pieces(rows, TILE_ROWS) * (wide // strip_columns(a, wide))
        ahead_step = min(64, pieces(ahead_bytes, passes * length * (last - first)))
    for panel in range(first, last):
        column = panel * wide
        width = min(wide, panels.columns - column)
        used = min(width, panels.used - column)
        strip = strip_columns(a, width)
        b = <const real *> panels.data + length * column
        from_ = start + column if start != NULL else NULL
        from_row = start_row
        for segment in range(panels.segments):
            k = 0
            while k < panels.depth:
                depth = min(block, panels.depth - k)
                if far:
                    kernel.product_far(
                        rows, used, depth, a + segment * a_segment + k, a_row,
                        b, strip, length * strip, from_, from_row, c + column, c_row,
                        ahead, ahead_step)
                    ahead += passes * depth * ahead_step
                else:
                    kernel.product(
                        rows, used, depth, a + segment * a_segment + k, a_row,
                        b, strip, length * strip, from_, from_row, c + column, c_row)
                k += depth
                b += depth * strip
                from_ = c + column
                from_row = c_row


cdef Ahead panels_ahead(
    const Panels *panels, Py_ssize_t first, Py_ssize_t last, const real *_,
) noexcept nogil:
    """Panels first .. last, to be asked for ahead."""
    cdef:
        Py_ssize_t length = panels.segments * panels.depth, column = first * panel_columns(_)
        Py_ssize_t width = max(0, min(last * panel_columns(_), panels.columns) - column)
    return Ahead(<real *> panels.data + length * column, length * width * sizeof(real))


cdef void pack_tiles(
    Py_ssize_t depth, Py_ssize_t rows, const real *a, Py_ssize_t a_row, real *tiles,
) noexcept nogil:
    """A^T (rows, depth) for `product_tiles`: tiles of nearly equal height, each column by column.

    A column of a lower tile has some elements too many, which A must have, too.
    """
    cdef Py_ssize_t left, k, height
    for left in range(pieces(rows, TILE_ROWS), 0, -1):
        height = pieces(rows, left)
        for k in range(depth):
            memcpy(tiles, a + k * a_row, TILE_ROWS * sizeof(real))
            tiles += TILE_ROWS
        a += height
        rows -= height
