# Packing: B into panels of micropanels, A into blocks of MR rows. The layouts are in context.pxd
# and microkernel.h, the blocking is in the Context.
#
# Panels are contiguous: strided ones lose a third of the speed to TLB misses at large sizes.

from gru_c._core.gemm.context cimport AS_DTYPE, BFLOAT16, BFLOAT16_BOTH, Storage

cdef extern from "gemm/config.h" nogil:
    Py_ssize_t PACK_PREFETCH_ROWS "GRU_PACK_PREFETCH_ROWS"
    void prefetch_source "__builtin_prefetch"(const void *p)


cdef Py_ssize_t micropanel_width(const Context *context, Py_ssize_t width) noexcept nogil:
    """Bytes of a row of the micropanels of a panel that is `width` wide."""
    return min(context.nr, width)


cdef inline Py_ssize_t panel_width(const PackedMatrix *b, Py_ssize_t first) noexcept nogil:
    """Bytes of a row of the panel that begins at column `first`.

    A whole panel, or what is left in whole lines. Behind other panels it may be half a line: one
    row of A, which is bound by L2, then reads no padding (160,1,64,200: 911 -> 885 us).
    """
    if first and b.n_computed - first <= LINE // 2:
        return LINE // 2
    return min(<Py_ssize_t> PANEL_BYTES, b.n - first)


cdef inline bint is_bfloat16(Storage storage) noexcept nogil:
    return storage == BFLOAT16 or storage == BFLOAT16_BOTH


cdef inline Py_ssize_t lines_of(Storage storage, Py_ssize_t k) noexcept nogil:
    """The lines of so many rows of B."""
    if storage == AS_DTYPE:
        return k
    return ceil_div(k, 2) if is_bfloat16(storage) else 2 + ceil_div(k, 4)


cdef Py_ssize_t packed_a_size(const Context *context, Py_ssize_t k, Py_ssize_t m) noexcept nogil:
    """Bytes that `pack_a` writes."""
    return ceil_div(m, context.mr) * context.mr * k * context.itemsize


cdef inline void copy_bytes(char *target, const char *source, Py_ssize_t size) noexcept nogil:
    """memcpy, inlined for the rows of a micropanel of AVX-512, of AVX2 and of the baseline."""
    if size == 256:
        memcpy(target, source, 256)
    elif size == 64:
        memcpy(target, source, 64)
    elif size == 32:
        memcpy(target, source, 32)
    else:
        memcpy(target, source, size)


cdef inline void copy_micropanel(Py_ssize_t rows, Py_ssize_t filled, Py_ssize_t nr, View2 b,
                                 char *target) noexcept nogil:
    """Copy `filled` bytes of each row, and fill it up to `nr` bytes with zeros."""
    cdef Py_ssize_t lines = ceil_div(filled, LINE), k, line
    for k in range(rows):
        for line in range(lines):
            prefetch_source(b.data + PACK_PREFETCH_ROWS * b.ld + LINE * line)
        copy_bytes(target, b.data, filled)
        if filled < nr:
            memset(target + filled, 0, nr - filled)
        b.data += b.ld
        target += nr


cdef void pack_panel(const Context *context, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t padded,
                     View2 b, char *panel) noexcept nogil:
    """Pack `width` bytes of each row of b into one panel, `padded` wide, of `rows` rows.

    Bytes from `width` on become zero. b is not read there.
    """
    cdef Py_ssize_t nr = micropanel_width(context, padded), first, i
    for i in range(padded // nr):
        first = i * nr
        copy_micropanel(rows, max(0, min(nr, width - first)), nr, View2(b.data + first, b.ld),
                        panel + rows * first)


cdef void pack_b(PackedMatrix *packed, Py_ssize_t segment, const real *b, Py_ssize_t b_row,
                 Py_ssize_t b_col, Py_ssize_t columns) noexcept nogil:
    """Fill a segment from b[k * b_row + j * b_col]; columns from `columns` on become zero.

    `b_row`, `b_col` and `columns` count elements.
    """
    cdef:
        Py_ssize_t itemsize = sizeof(real), length = packed.segments * packed.k
        Py_ssize_t panel, i, first, width, nr, filled
        char *target
    for panel in range(ceil_div(packed.n, PANEL_BYTES)):
        width = panel_width(packed, panel * PANEL_BYTES)
        nr = micropanel_width(packed.context, width)
        for i in range(width // nr):
            first = panel * PANEL_BYTES + i * nr
            target = packed.data + length * first + segment * packed.k * nr
            filled = max(0, min(nr, columns * itemsize - first))
            if b_col == 1:
                copy_micropanel(packed.k, filled, nr, View2(<char *> b + first, b_row * itemsize),
                                target)
            else:
                if filled < nr:
                    memset(target, 0, packed.k * nr)
                copy_transposed(packed.k, filled // itemsize, b + first // itemsize * b_col,
                                b_row, b_col, <real *> target, nr // itemsize)


cdef void copy_transposed(Py_ssize_t rows, Py_ssize_t columns, const real *b, Py_ssize_t b_row,
                          Py_ssize_t b_col, real *target, Py_ssize_t nr) noexcept nogil:
    """Reads a line of 16 elements at a time, so that each line is loaded once, not 16 times."""
    cdef Py_ssize_t k = 0, j, count
    while k < rows:
        count = min(<Py_ssize_t> 16, rows - k)
        for j in range(columns):
            if count == 16 and b_row == 1:                 # constants: the loop is unrolled
                copy_line(16, b + k + j * b_col, 1, target + k * nr + j, nr)
            else:
                copy_line(count, b + k * b_row + j * b_col, b_row, target + k * nr + j, nr)
        k += count


cdef inline void copy_line(Py_ssize_t rows, const real *b, Py_ssize_t b_row, real *target,
                           Py_ssize_t nr) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(rows):
        target[k * nr] = b[k * b_row]


cdef void pack_a(const Context *context, Py_ssize_t k, Py_ssize_t m, View2 a,
                 char *packed) noexcept nogil:
    """Pack A^T (m, k) from the k rows of a, m elements of each, for `gemm_packed`.

    Blocks have nearly equal heights. Where MR is 6, up to 5 elements past the end of a row of `a`
    are read; they fill the columns of a block past its height.
    """
    cdef Py_ssize_t size = context.mr * context.itemsize, left, height
    for left in range(ceil_div(m, context.mr), 0, -1):
        height = ceil_div(m, left)
        if size == 24:                                     # constant sizes: memcpy is inlined
            copy_rows(k, 24, a.data, a.ld, packed, size)
        elif size == 48:
            copy_rows(k, 48, a.data, a.ld, packed, size)
        else:
            copy_rows(k, height * context.itemsize, a.data, a.ld, packed, size)
        packed += k * size
        a.data += height * context.itemsize
        m -= height
