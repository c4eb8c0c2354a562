# Memory of a call: the saved activations and the workspace. For each, one function places the
# buffers. Given NULL it makes pointers that nobody may use; only the size that it returns counts.

# `end` is where the next buffer begins. Sizes include a line, to align the first buffer.

cdef inline size_t whole_lines(size_t size) noexcept nogil:
    return size + LINE - 1 & ~<size_t> (LINE - 1)


cdef inline char *place(size_t *end, Py_ssize_t size) noexcept nogil:
    """The next buffer, of whole lines."""
    cdef size_t address = end[0]
    end[0] += whole_lines(size)
    return <char *> address


cdef size_t saved_size(Call *call) noexcept nogil:
    """Of a planned call."""
    return place_saved(call, NULL)


cdef size_t place_saved(Call *call, void *memory) noexcept nogil:
    """Place the buffers that a forward leaves for its backward."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t rows = rows_before(call, call.steps)
        size_t end = whole_lines(<size_t> memory)
    call.gates = place(&end, rows * layer.ld_gates)
    call.h = place(&end, (call.steps + 1) * call.rows * layer.ld_h)
    place_input(call, &end, rows)
    return end - <size_t> memory + LINE


cdef size_t workspace_size(Call *call, int count) noexcept nogil:
    """Plan a call, of `count` that run side by side. Returns the bytes of its workspace."""
    plan_call(call, count)
    return place_workspace(call, NULL)


cdef size_t place_workspace(Call *call, void *memory) noexcept nogil:
    """Place the buffers of this call alone."""
    cdef size_t end = whole_lines(<size_t> memory)
    if call.mode == INFERENCE:                             # two steps of h, a chunk of gates and x
        if call.states_are_slots:
            call.h_slots[0], call.h_slots[1] = call.h_0.data, call.h_n.data
        else:
            place_two(call, call.h_slots, &end)
        call.gates = place(&end, call.chunk * call.rows * call.layer.ld_gates)
        place_input(call, &end, call.chunk * call.rows)
        call.scratch_size = 0
        if call.layer.context.quantize_rows != NULL:
            call.scratch_size = factor_scratch(call)
            call.scratch = place(&end, call.team * call.scratch_size)
    elif call.mode == BACKWARD:
        place_backward(call, &end)
    if call.has_options and call.recurrent_dropout.data != NULL and call.mode != BACKWARD:
        place_two(call, call.h_in_slots, &end)
    return end - <size_t> memory + LINE


cdef Py_ssize_t factor_scratch(const Call *call) noexcept nogil:
    """Of a thread, for `factor_rows`: x of a chunk, or h of a step."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t rows = min(call.rows, <Py_ssize_t> MAX_BLOCK_ROWS)
        Py_ssize_t steps = call.chunk if rows == call.rows else 1      # see `adjoining_steps`
    return round_up(rows * max(steps * quantized_row(layer.storage_ih, layer.input_size),
                               quantized_row(layer.storage_hh, layer.hidden_size)), LINE)


cdef inline void place_two(const Call *call, char **slots, size_t *end) noexcept nogil:
    """Two slots of all rows."""
    slots[0] = place(end, call.rows * call.layer.ld_h)
    slots[1] = place(end, call.rows * call.layer.ld_h)


cdef void use_states_in_place(Call *call) noexcept nogil:
    """A single step reads h_0 and writes h_n in place, if they are laid out as slots of h."""
    if call.ragged != NULL or call.marks != NULL:          # they have another order, or h_0 changes
        return
    if is_state(call, &call.h_n):
        call.h_slots[1 - call.reverse] = call.h_n.data
    if is_state(call, &call.h_0) and call.h_0.data != call.h_n.data:
        call.h_slots[call.reverse] = call.h_0.data


cdef bint is_state(const Call *call, const View3 *view) noexcept nogil:
    """Whether a view (N, H) can be a slot of h: whole lines of units, rows ld_h apart."""
    cdef const PackedLayer *layer = call.layer
    return (view.data != NULL and layer.plane == layer.hidden_size * layer.context.itemsize
            and (call.rows == 1 or view.row == layer.ld_h)
            and reads_in_place(view, layer.context.itemsize))


cdef void place_input(Call *call, size_t *end, Py_ssize_t rows) noexcept nogil:
    """x in place, or room for a copy of so many rows."""
    cdef Py_ssize_t size = call.layer.input_size * call.layer.context.itemsize
    call.input = call.x
    if not call.x_in_place:
        call.input = View3(place(end, rows * size), call.rows * size, size,
                           call.layer.context.itemsize)


cdef void place_backward(Call *call, size_t *end) noexcept nogil:
    """The last level of the sums is the caller's arrays where their rows are whole lines.

    What windows share comes before what depends on their steps.
    """
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t H = layer.hidden_size, itemsize = layer.context.itemsize
        Py_ssize_t state = call.rows * layer.ld_h, chunk_rows = call.chunk * call.rows
        int level
        bint last, one_window = call.blocks_done + call.blocks_left == 0
    call.dgates = call.gates
    if call.keep_saved:
        call.dgates = place(end, rows_before(call, call.steps) * layer.ld_gates)
    call.dh = place(end, state)
    call.dh_hidden = place(end, state)
    call.dq = place(end, 0 if layer.reset_after else state)
    call.dbias = place(end, 8 * layer.plane)
    call.blocks = (call.blocks_done + sum_blocks(call.steps, call.rows, call.ragged)
                   + call.blocks_left)
    call.levels = sum_levels(call.blocks)
    for level in range(call.levels if call.need_grads else 0):
        last = level == call.levels - 1 and one_window and not call.accumulate
        call.sums[level] = Sums(call.dweight_ih, call.dweight_hh)
        if not last or layer.w_ih_t.n != layer.input_size * itemsize:
            call.sums[level].dweight_ih = place(end, 3 * H * layer.w_ih_t.n)
        if not last or layer.plane != H * itemsize:
            call.sums[level].dweight_hh = place(end, 3 * H * layer.plane)
    # Per thread: for sums over rows, rows of dx, or rows of a d_output with gaps.
    call.scratch_size = round_up(max(
        sum_scratch(call, min(<Py_ssize_t> SUM_ROWS, chunk_rows)),
        min(<Py_ssize_t> MAX_BLOCK_ROWS, chunk_rows) * max(layer.w_ih_t.n, layer.plane)), LINE)
    call.scratch = place(end, call.team * call.scratch_size)
