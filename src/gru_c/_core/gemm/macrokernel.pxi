# The macrokernel: C = C_INIT + A . B for a packed B. It loops over panels, segments of a panel, and
# blocks of KC rows. All rows of A are multiplied by one panel before the next. Columns are counted
# in bytes: `first` and `last` are whole half panels, or the end.

from gru_c._core.gemm.context cimport AS_DTYPE, gemm_t


cdef inline Py_ssize_t end_of_panel(Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Where the panel of column `first` ends, or `last` before it."""
    return min((first | PANEL_BYTES - 1) + 1, last)


cdef Prefetch prefetch_panels(const PackedMatrix *b, Py_ssize_t first,
                              Py_ssize_t last) noexcept nogil:
    """The memory of columns first .. last; of half a panel, about as much of the panel."""
    cdef Py_ssize_t length = b.segments * b.lines
    return Prefetch(b.data + length * first, length * max(0, last - first), 0)


cdef Prefetch spread(const PackedMatrix *b, Py_ssize_t width, Py_ssize_t m, View2 c,
                     const Prefetch *prefetch) noexcept nogil:
    """Set the step: spread evenly over all rows of B that microtiles read, at most a line each."""
    cdef Py_ssize_t reads, step
    if prefetch.size == 0:
        return Prefetch(c.data, 0, 0)
    reads = max(1, row_passes(b.context, m, width) * b.segments * b.k)
    step = min(<Py_ssize_t> LINE, ceil_div(prefetch.size, reads))
    return Prefetch(prefetch.data, prefetch.size, step)


cdef inline Py_ssize_t row_passes(const Context *context, Py_ssize_t m,
                                  Py_ssize_t width) noexcept nogil:
    """How often microtiles read a row of the micropanels of so many columns."""
    return ceil_div(m, context.mr) * ceil_div(width, context.nr)


cdef inline Micropanels micropanels_of(const PackedMatrix *b, Py_ssize_t first) noexcept nogil:
    """The micropanels from column `first` to the end of its panel, from its first row on."""
    cdef:
        Py_ssize_t length = b.segments * b.lines, offset = first & PANEL_BYTES - 1, rest
        Py_ssize_t ld = micropanel_width(b.context, panel_width(b, first - offset))
        Micropanels micropanels = Micropanels(b.data + length * (first - offset), ld, length * ld)
    if offset:                                             # no division in a small call
        rest = offset % ld
        micropanels.data += length * (offset - rest) + rest
    return micropanels


cdef inline View2 columns_from(View2 matrix, Py_ssize_t first) noexcept nogil:
    """The columns from byte `first` on, or NULL."""
    if matrix.data != NULL:
        matrix.data += first
    return matrix


cdef void gemm(const PackedMatrix *b, Py_ssize_t first, Py_ssize_t last, Py_ssize_t m, View2 a,
               View2 c_init, View2 c, const Prefetch *prefetch) noexcept nogil:
    """C = C_INIT + A . B, of columns first .. last.

    a, c_init and c are whole matrices, C's columns those of B. C_INIT is C, one row for all
    (ld = 0) or zeros (NULL). `prefetch` is NULL where all is cache-resident. Else C is prefetched,
    and its memory unless its size is 0.
    """
    cdef:
        const Context *context = b.context
        gemm_t kernel = b.gemm
        const Prefetch *part = NULL
        Prefetch next_part
        Micropanels micropanels
        Py_ssize_t block = b.k, pass_bytes = 0, end, segment, left, depth
        View2 init, target, a_part = a
    last = min(last, b.n_computed)
    if prefetch == NULL and b.one_visit:
        # One visit to C: 151 -> 144 ns per step of three products (1000,1,1,40).
        while first < last:
            end = end_of_panel(first, last)
            micropanels = micropanels_of(b, first)
            kernel(m, end - first, b.k, a, &micropanels, columns_from(c_init, first),
                   columns_from(c, first), NULL)
            first = end
        return
    if block > context.kc and b.storage == AS_DTYPE:       # else a line holds several rows
        block = ceil_div(block, ceil_div(block, context.kc))
    if prefetch != NULL:
        kernel = b.gemm_prefetch
        next_part = spread(b, last - first, m, c, prefetch)
        part = &next_part
        pass_bytes = (row_passes(context, m, min(<Py_ssize_t> PANEL_BYTES, last - first))
                      * next_part.step)
    while first < last:
        end = end_of_panel(first, last)
        micropanels = micropanels_of(b, first)
        init, target = columns_from(c_init, first), columns_from(c, first)
        for segment in range(b.segments):
            a_part.data = a.data + segment * b.a_segment
            left = b.k
            while left > 0:
                depth = min(block, left)
                kernel(m, end - first, depth, a_part, &micropanels, init, target, part)
                left -= depth
                a_part.data += depth * context.itemsize
                init = target
                if part != NULL:
                    next_part.data += depth * pass_bytes
                micropanels.data += depth * micropanels.ld
        first = end
