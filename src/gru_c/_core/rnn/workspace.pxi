# Memory of a call: the saved activations and the workspace. For each, one function places the
# buffers; given NULL, it only returns their size.

cdef struct Bump:                  # a bump allocator on addresses; started at 0, it only measures
    size_t start
    size_t end


cdef inline Bump bump_from(void *memory) noexcept nogil:
    """Start at the first whole line."""
    return Bump(<size_t> memory, <size_t> memory + LINE - 1 & ~<size_t> (LINE - 1))


cdef inline char *place(Bump *bump, Py_ssize_t size) noexcept nogil:
    """The next buffer, of whole lines."""
    cdef size_t address = bump.end
    bump.end += <size_t> size + LINE - 1 & ~<size_t> (LINE - 1)
    return <char *> address


cdef inline size_t bump_size(const Bump *bump) noexcept nogil:
    """Bytes of all buffers, with room to align the first."""
    return bump.end - bump.start + LINE


cdef size_t saved_size(const Call *call) noexcept nogil:
    cdef Call sized = call[0]
    return place_saved(&sized, NULL)


cdef size_t place_saved(Call *call, void *memory) noexcept nogil:
    """Place the buffers that a forward leaves for its backward."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t rows = call.steps * call.rows
        Bump bump = bump_from(memory)
    call.gates = place(&bump, rows * layer.ld_gates)
    call.h = place(&bump, (rows + call.rows) * layer.ld_h)
    call.input = call.x
    if not call.x_stays:
        place_input(call, &bump, call.steps)
    return bump_size(&bump)


cdef size_t workspace_size(Call *call) noexcept nogil:
    """Plan the call. Returns the bytes of its workspace."""
    plan_call(call)
    return place_workspace(call, NULL)


cdef size_t place_workspace(Call *call, void *memory) noexcept nogil:
    """Place the buffers of this call alone."""
    cdef Bump bump = bump_from(memory)
    if call.mode == INFERENCE:
        place_inference(call, &bump)
    elif call.mode == BACKWARD:
        place_backward(call, &bump)
    return bump_size(&bump)


cdef void place_inference(Call *call, Bump *bump) noexcept nogil:
    """Two steps of h, and a chunk of the gates and of x, unless x is read in place."""
    cdef const PackedLayer *layer = call.layer
    call.h_slots[0] = place(bump, call.rows * layer.ld_h)
    call.h_slots[1] = place(bump, call.rows * layer.ld_h)
    call.gates = place(bump, call.chunk * call.rows * layer.ld_gates)
    call.input = call.x
    if not call.x_in_place:
        place_input(call, bump, call.chunk)


cdef void use_states_in_place(Call *call) noexcept nogil:
    """A single step reads h_0 and writes h_n in place, if they are laid out as slots of h."""
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


cdef void place_input(Call *call, Bump *bump, Py_ssize_t steps) noexcept nogil:
    """Room for a copy of x."""
    cdef Py_ssize_t size = call.layer.input_size * call.layer.context.itemsize
    call.input = View3(place(bump, steps * call.rows * size), call.rows * size, size,
                       call.layer.context.itemsize)


cdef void place_backward(Call *call, Bump *bump) noexcept nogil:
    """Weight gradients go straight to the caller's arrays where their rows are whole lines."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t H = layer.hidden_size, itemsize = layer.context.itemsize
        Py_ssize_t state = call.rows * layer.ld_h
        int level
        bint last
    call.dgates = call.gates
    if call.keep_saved:
        call.dgates = place(bump, call.steps * call.rows * layer.ld_gates)
    call.dh = place(bump, state)
    call.dh_hidden = place(bump, state)
    call.dq = place(bump, 0 if layer.reset_after else state)
    call.dbias = place(bump, 8 * layer.plane)
    call.levels = sum_levels(call.steps, call.rows)
    for level in range(call.levels):
        last = level == call.levels - 1
        call.sums[level] = Sums(call.dweight_ih, call.dweight_hh)
        if not last or layer.w_ih_t.n != layer.input_size * itemsize:
            call.sums[level].dweight_ih = place(bump, 3 * H * layer.w_ih_t.n)
        if not last or layer.plane != H * itemsize:
            call.sums[level].dweight_hh = place(bump, 3 * H * layer.plane)
    call.scratch_size = round_up(backward_scratch(call), LINE)
    call.scratch = place(bump, call.team * call.scratch_size)


cdef Py_ssize_t backward_scratch(const Call *call) noexcept nogil:
    """Bytes per thread: for sums over rows, rows of dx, or rows of a d_output with gaps."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t rows = min(<Py_ssize_t> MAX_BLOCK_ROWS, call.chunk * call.rows)
    return max(sum_scratch(layer, call.chunk * call.rows), rows * max(layer.w_ih_t.n, layer.plane))
