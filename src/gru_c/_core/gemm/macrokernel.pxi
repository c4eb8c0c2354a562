# The macrokernel: C = C_INIT + A . B for a packed B. It loops over panels, segments of a panel, and
# blocks of KC rows. All rows of A are multiplied by one panel before the next.

from gru_c._core.gemm.context cimport gemm_t


cdef Prefetch prefetch_panels(const PackedMatrix *b, Py_ssize_t panel,
                              Py_ssize_t panel_end) noexcept nogil:
    """The memory of panels panel .. panel_end."""
    cdef:
        Py_ssize_t length = b.segments * b.k, first = panel * PANEL_BYTES
        Py_ssize_t width = max(0, min(panel_end * PANEL_BYTES, b.n) - first)
    return Prefetch(b.data + length * first, length * width, 0)


cdef Prefetch spread(const PackedMatrix *b, Py_ssize_t panels, Py_ssize_t m, View2 c,
                     const Prefetch *prefetch) noexcept nogil:
    """Set the step: spread evenly over all rows of B that microtiles read, at most a line each."""
    cdef Py_ssize_t reads, step
    if prefetch.size == 0:
        return Prefetch(c.data, 0, 0)
    reads = max(1, row_passes(b.context, m) * b.segments * b.k * panels)
    step = min(<Py_ssize_t> LINE, ceil_div(prefetch.size, reads))
    return Prefetch(prefetch.data, prefetch.size, step)


cdef inline Py_ssize_t row_passes(const Context *context, Py_ssize_t m) noexcept nogil:
    """How often microtiles read a row of the micropanels of a panel."""
    return ceil_div(m, context.mr) * (PANEL_BYTES // context.nr)


cdef inline Micropanels micropanels_of(const PackedMatrix *b, Py_ssize_t panel) noexcept nogil:
    """The micropanels of a panel, from its first row on."""
    cdef:
        Py_ssize_t length = b.segments * b.k, first = panel * PANEL_BYTES
        Py_ssize_t ld = micropanel_width(b.context, min(<Py_ssize_t> PANEL_BYTES, b.n - first))
    return Micropanels(b.data + length * first, ld, length * ld)


cdef inline Py_ssize_t computed_width(const PackedMatrix *b, Py_ssize_t panel) noexcept nogil:
    """Bytes of the columns of a panel that a product computes."""
    return min(<Py_ssize_t> PANEL_BYTES, b.n_computed - panel * PANEL_BYTES)


cdef inline View2 columns_from(View2 matrix, Py_ssize_t first) noexcept nogil:
    """The columns from byte `first` on, or NULL."""
    if matrix.data != NULL:
        matrix.data += first
    return matrix


cdef void gemm(const PackedMatrix *b, Py_ssize_t panel, Py_ssize_t panel_end, Py_ssize_t m, View2 a,
               View2 c_init, View2 c, const Prefetch *prefetch) noexcept nogil:
    """C = C_INIT + A . B, of panels panel .. panel_end of the columns.

    a, c_init and c are whole matrices, C's columns those of B. C_INIT is C, one row for all
    (ld = 0) or zeros (NULL). `prefetch` is NULL where all is cache-resident. Else C is prefetched,
    and its memory unless its size is 0.
    """
    cdef:
        const Context *context = b.context
        gemm_t kernel = context.gemm
        const Prefetch *part = NULL
        Prefetch next_part
        Micropanels micropanels
        Py_ssize_t block = b.k, pass_bytes = 0, first, segment, left, depth
        View2 init, target, a_part = a
    if prefetch == NULL and b.segments == 1 and b.k <= context.kc:
        # One visit to C: 151 -> 144 ns per step of three products (1000,1,1,40).
        for panel in range(panel, panel_end):
            first = panel * PANEL_BYTES
            micropanels = micropanels_of(b, panel)
            kernel(m, computed_width(b, panel), b.k, a, &micropanels, columns_from(c_init, first),
                   columns_from(c, first), NULL)
        return
    if block > context.kc:
        block = ceil_div(block, ceil_div(block, context.kc))
    if prefetch != NULL:
        kernel = context.gemm_prefetch
        next_part = spread(b, panel_end - panel, m, c, prefetch)
        part = &next_part
        pass_bytes = row_passes(context, m) * next_part.step
    for panel in range(panel, panel_end):
        first = panel * PANEL_BYTES
        micropanels = micropanels_of(b, panel)
        init, target = columns_from(c_init, first), columns_from(c, first)
        for segment in range(b.segments):
            a_part.data = a.data + segment * b.a_segment
            left = b.k
            while left > 0:
                depth = min(block, left)
                kernel(m, computed_width(b, panel), depth, a_part, &micropanels, init, target, part)
                left -= depth
                a_part.data += depth * context.itemsize
                micropanels.data += depth * micropanels.ld
                init = target
                if part != NULL:
                    next_part.data += depth * pass_bytes
