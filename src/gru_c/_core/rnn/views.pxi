# Where the rows, planes and panels of a call are, and copies from and to the caller's views.


cdef inline View2 rows_at(const View3 *view, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    """The rows of step t from `row` on."""
    return View2(view.data + t * view.step + row * view.row, view.row)


cdef inline View2 input_rows(const Call *call, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    """x of step t. In inference, a copy of x holds one chunk."""
    if call.mode == INFERENCE and not call.x_in_place:
        t = t % call.chunk
    return rows_at(&call.input, t, row)


cdef inline GateView gate_rows(const Call *call, char *gates, Py_ssize_t t,
                               Py_ssize_t row) noexcept nogil:
    """The gates of step t, or their gradients. In inference, the buffer holds one chunk."""
    cdef const PackedLayer *layer = call.layer
    if call.mode == INFERENCE:
        t = t % call.chunk
    return GateView(gates + (t * call.rows + row) * layer.ld_gates, layer.ld_gates, layer.plane,
                    &layer.activations)


cdef inline GateView gates_from(GateView gates, Py_ssize_t j) noexcept nogil:
    """The gates of the units from byte j on."""
    return GateView(gates.data + j, gates.ld, gates.plane, gates.activations)


cdef inline View2 plane_of(GateView gates, Py_ssize_t plane) noexcept nogil:
    return View2(gates.data + plane * gates.plane, gates.ld)


cdef inline char *state_rows(const Call *call, Py_ssize_t slot, Py_ssize_t row) noexcept nogil:
    """A slot of h: between steps slot - 1 and slot."""
    if call.mode == INFERENCE:
        return call.h_slots[slot & 1] + row * call.layer.ld_h
    return call.h + (slot * call.rows + row) * call.layer.ld_h


cdef inline Py_ssize_t mirrored(Py_ssize_t i, Py_ssize_t count, bint reverse) noexcept nogil:
    """The i-th of `count` from the start, or in reverse from the end."""
    return count - 1 - i if reverse else i


cdef inline View2 bias_row(const PackedLayer *layer, Py_ssize_t plane) noexcept nogil:
    return View2(layer.bias + plane * layer.plane, 0)


cdef inline Py_ssize_t panel_width(const PackedLayer *layer, Py_ssize_t panel) noexcept nogil:
    return min(<Py_ssize_t> PANEL_BYTES, layer.plane - panel * PANEL_BYTES)


cdef inline Py_ssize_t own_width(const Partition *part, Py_ssize_t width) noexcept nogil:
    """The part of the `width` bytes of all units that is the thread's."""
    return min(part.panel_end * PANEL_BYTES, width) - part.panel * PANEL_BYTES


cdef inline bint rows_adjoin(const View3 *view, Py_ssize_t rows) noexcept nogil:
    """Whether the rows of all steps are evenly apart."""
    return view.step == rows * view.row


cdef inline Py_ssize_t panel_of(const Partition *part, Py_ssize_t t, Py_ssize_t i) noexcept nogil:
    """The i-th panel of step t: back and forth, since the last panel read is still in a cache.

    46 -> 48 GFLOP/s (one row, H = 1024); 44 -> 60 (H = 1760, which exceeds L3, two threads).
    """
    return part.panel_end - 1 - i if t & 1 else part.panel + i


cdef Prefetch gates_to_prefetch(const Call *call, const Partition *part, const Partition *block,
                                Py_ssize_t t, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """The gates of step t of a block; outside the steps first .. last, those of the next block.

    A forward prefetches the gates of the next chunk: 88 -> 96 GFLOP/s (28,128,28,128).
    """
    cdef:
        Prefetch prefetch = Prefetch(NULL, 0, 0)
        Py_ssize_t rows = block.row_end - block.row, row = block.row
    if not first <= t < last:
        t += last - first if t < first else first - last
        row = block.row_end
    if rows >= call.layer.context.mr and part.sharers == 1 and row < part.row_end:
        prefetch.data = call.gates + (t * call.rows + row) * call.layer.ld_gates
        prefetch.size = min(<Py_ssize_t> PREFETCH_BYTES, rows * call.layer.ld_gates)
    return prefetch


# ---- the caller's views, which may have gaps between columns -------------------------------------

cdef bint reads_in_place(const View3 *view, Py_ssize_t itemsize) noexcept nogil:
    """Whether a product can read the rows in place: contiguous columns, aligned elements."""
    cdef size_t places = <size_t> view.data | <size_t> view.step | <size_t> view.row
    return view.column == itemsize and places % <size_t> itemsize == 0


cdef void copy_matrix(Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t itemsize, View2 source,
                      Py_ssize_t source_column, View2 target,
                      Py_ssize_t target_column) noexcept nogil:
    """target = source, with any strides of rows and columns."""
    cdef Py_ssize_t i, j
    if source_column == itemsize and target_column == itemsize:
        copy_rows(rows, columns * itemsize, source.data, source.ld, target.data, target.ld)
        return
    for i in range(rows):
        for j in range(columns):
            memcpy(target.data + i * target.ld + j * target_column,
                   source.data + i * source.ld + j * source_column, itemsize)
