# Where the rows, planes and panels of a call are, and copies from and to the caller's views.


cdef inline View2 rows_at(const View3 *view, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    """The rows of step t from `row` on."""
    return View2(view.data + t * view.step + row * view.row, view.row)


cdef inline View3 columns_of(const View3 *view, Py_ssize_t first) noexcept nogil:
    """The columns from byte `first` on, or NULL."""
    cdef View3 columns = view[0]
    if view.data != NULL:
        columns.data += first
    return columns


cdef inline Py_ssize_t rows_before(const Call *call, Py_ssize_t t) noexcept nogil:
    """Rows of all steps before t."""
    return t * call.rows if call.ragged == NULL else call.ragged.offsets[t]


cdef inline Py_ssize_t active_rows(const Call *call, Py_ssize_t t) noexcept nogil:
    """Rows that have a step t: the first ones."""
    return (call.rows if call.ragged == NULL
            else call.ragged.offsets[t + 1] - call.ragged.offsets[t])


cdef inline Py_ssize_t buffer_row(const Call *call, Py_ssize_t t) noexcept nogil:
    """Where the rows of step t begin in a buffer: of a chunk in inference, else of T steps."""
    if call.mode != INFERENCE:
        return rows_before(call, t)
    if call.ragged != NULL and call.chunk_packed:
        return rows_before(call, t) - rows_before(call, t - t % call.chunk)
    return t % call.chunk * call.rows


cdef inline View2 view_rows(const Call *call, const View3 *view, bint packed, Py_ssize_t t,
                            Py_ssize_t row) noexcept nogil:
    """The rows of step t from `row` on in a view of the description; see `row_run`."""
    if call.ragged == NULL:
        return rows_at(view, t, row)
    if packed:
        return View2(view.data + (rows_before(call, t) + row) * view.row, view.row)
    return rows_at(view, t, call.ragged.order[row])


cdef inline Py_ssize_t row_run(const Call *call, bint packed, Py_ssize_t row,
                               Py_ssize_t row_end) noexcept nogil:
    """How many rows from `row` on go together: all; with marks or in the caller's order, one."""
    if call.marks == NULL and (call.ragged == NULL or packed):
        return row_end - row
    return min(<Py_ssize_t> 1, row_end - row)


cdef inline Py_ssize_t step_of(const Call *call, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    """The step of a row of all steps, t or later."""
    while rows_before(call, t + 1) <= row:
        t += 1
    return t


cdef inline View2 input_rows(const Call *call, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    """x of step t as products read it."""
    if call.x_in_place:
        return view_rows(call, &call.input, True, t, row)
    return View2(call.input.data + (buffer_row(call, t) + row) * call.input.row, call.input.row)


cdef inline GateView gate_rows(const Call *call, char *gates, Py_ssize_t t,
                               Py_ssize_t row) noexcept nogil:
    """The gates of step t, or their gradients."""
    cdef const PackedLayer *layer = call.layer
    return GateView(gates + (buffer_row(call, t) + row) * layer.ld_gates, layer.ld_gates,
                    layer.plane, &layer.activations)


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


cdef inline char *state_before(const Call *call, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    """h that step t reads."""
    return state_rows(call, t + call.reverse, row)


cdef inline char *state_after(const Call *call, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    """h that step t makes."""
    return state_rows(call, t + 1 - call.reverse, row)


cdef void store_times(const Call *call, Py_ssize_t rows, Py_ssize_t width, View2 source,
                      const View3 *multipliers, Py_ssize_t t, Py_ssize_t row,
                      View2 target) noexcept nogil:
    """target = source times the multipliers of rows of step t, if there are any."""
    cdef:
        const Context *context = call.layer.context
        View2 by
    if multipliers.data == NULL:
        context.store_rows(rows, width, source.data, source.ld, target.data, target.ld)
        return
    by = view_rows(call, multipliers, False, t, row)
    context.multiply_rows(rows, width, source.data, source.ld, by.data, by.ld, target.data,
                          target.ld)


cdef inline const char *h_in_rows(const Call *call, Py_ssize_t t,
                                  Py_ssize_t row) noexcept nogil:
    """What W_hh multiplies in step t: h before it, or h times its multipliers."""
    if call.recurrent_dropout.data == NULL:
        return state_before(call, t, row)
    return call.h_in_slots[t + call.reverse & 1] + row * call.layer.ld_h


cdef inline bint has_mark(const Call *call, Py_ssize_t t, Py_ssize_t row, int mark) noexcept nogil:
    return call.marks[t * call.rows + row] & mark


cdef inline Py_ssize_t mirrored(Py_ssize_t i, Py_ssize_t count, bint reverse) noexcept nogil:
    """The i-th of `count` from the start, or in reverse from the end."""
    return count - 1 - i if reverse else i


cdef inline View2 bias_row(const PackedLayer *layer, Py_ssize_t plane) noexcept nogil:
    return View2(layer.bias + plane * layer.plane, 0)


cdef inline Py_ssize_t own_width(const Partition *part, Py_ssize_t width) noexcept nogil:
    """The part of the `width` bytes of all units that is the thread's."""
    return min(part.column_end, width) - part.column


cdef inline bint rows_adjoin(const View3 *view, Py_ssize_t rows) noexcept nogil:
    """Whether the rows of all steps are evenly apart."""
    return view.step == rows * view.row


cdef inline Py_ssize_t panel_of(const Partition *part, Py_ssize_t t, Py_ssize_t i) noexcept nogil:
    """The first column of the i-th panel of step t, which ends at `end_of_panel`.

    Back and forth, since the last panel read is still in a cache: 46 -> 48 GFLOP/s (one row, H =
    1024); 44 -> 60 (H = 1760, which exceeds L3, two threads). The steps of a stream go on so: 12.4
    -> 11.5 us (1,1,64,320).
    """
    if t + part.first_step & 1:
        i = part.panels - 1 - i
    return max(part.column, (part.column & -PANEL_BYTES) + i * PANEL_BYTES)


cdef Partition active_part(const Call *call, Py_ssize_t t, const Partition *part) noexcept nogil:
    """The same with only the rows that have a step t."""
    cdef Partition active = part[0]
    active.row_end = max(part.row, min(part.row_end, active_rows(call, t)))
    return active


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
        prefetch.data = gate_rows(call, call.gates, t, row).data
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
