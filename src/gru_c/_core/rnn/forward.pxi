# Forward: the time loop of one layer.
#
#     r  = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
#     z  = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
#     n  = tanh(W_in x + b_in + r * q),  q = W_hn h + b_hn           reset_after=True
#     n  = tanh(W_in x + b_in + W_hn q + b_hn),  q = r * h           reset_after=False
#     h' = n + z * (h - n)
#
# Rows are independent: a thread runs the time loop over one block of rows after the other. Only the
# products with h go step by step; few rows of few units have a kernel for that (small_steps.h).
# The products with x are made for a chunk of steps at once, short enough that its gates stay in a
# cache.

cdef enum:
    MAX_BLOCK_ROWS = 66            # of a block in the time loop: eleven microtiles
    PREFETCH_BYTES = 1 << 20       # of the next gates at most: L3 holds what L2 has evicted by then
    L2_WEIGHTS = 1 << 20           # bytes of the weights of a step that L2 holds


cdef void forward_rank(void *argument, int rank, int team) noexcept nogil:
    """All steps of one thread's rows or units: h_0 -> output, h_n, and in training `saved`."""
    cdef:
        Call *call = <Call *> argument
        Partition part = partition_of(call, rank, team), own = own_rows(&part), block, active
        Py_ssize_t blocks = ceil_div(part.row_end - part.row, MAX_BLOCK_ROWS), i, t
        Py_ssize_t chunks = ceil_div(call.steps, call.chunk), c, start, stop, s
        Py_ssize_t next_chunk = -call.chunk if call.reverse else call.chunk
        Prefetch next_gates = Prefetch(NULL, 0, 0)
        const Partition *now
        int round_ = 0
    load_state(call, &own)
    if call.mode == INFERENCE:                             # all chunks share one buffer
        clear_padding(call, 0, call.chunk, &part)
    barrier_wait(part.barrier, part.sharers)
    for i in range(blocks):
        block = block_of(&part, i, blocks)
        now = &block
        for c in range(chunks):
            round_ += 1
            if stops(call, round_):
                return
            start = mirrored(c, chunks, call.reverse) * call.chunk
            stop = min(start + call.chunk, call.steps)
            project_input(call, start, stop, &block)
            if call.small and not call.has_options:
                check_stop(call, &part, 1)
                small_steps(call, start, stop, &block)
                continue
            for s in range(stop - start):
                t = start + mirrored(s, stop - start, call.reverse)
                # In training the product for q prefetches.
                if call.mode == TRAINING and call.layer.reset_after:
                    next_gates = gates_to_prefetch(
                        call, &part, &block, t + next_chunk, 0, call.steps)
                if s + 1 == stop - start:
                    # Threads without a barrier stop at their next chunk.
                    check_stop(call, &part, round_ + 1 if part.sharers > 1 else 1)
                if call.ragged != NULL:
                    active = active_part(call, t, &block)
                    now = &active
                if now.row < now.row_end:
                    forward_step(call, t, now, &next_gates)
                elif s + 1 == stop - start:                # after check_stop, in every chunk
                    barrier_wait(part.barrier, part.sharers)
    store_state(call, &own)


cdef void project_input(const Call *call, Py_ssize_t t, Py_ssize_t stop,
                        const Partition *part) noexcept nogil:
    """a_n, a_r, a_z = b + W_i x of steps t .. stop."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t rows, steps, plane
        bint streams = exceeds_l2(layer.w_ih, part.row_end - part.row)
        GateView gates
        View2 x
        Prefetch prefetch = Prefetch(NULL, 0, 0)
    if call.mode == TRAINING:
        clear_padding(call, t, stop, part)
    if not call.x_in_place:
        copy_input(call, t, stop, part)
    while t < stop:
        steps = adjoining_steps(call, t, stop, part)
        rows = (rows_before(call, t + steps) - rows_before(call, t) if steps > 1
                else max(<Py_ssize_t> 0, min(part.row_end, active_rows(call, t)) - part.row))
        x = factor_rows(&layer.w_ih[0], 0, rows, input_rows(call, t, part.row), part)
        gates = gate_rows(call, call.gates, t, part.row)
        if call.merged:
            project_merged(call, rows, x, gates)
            t += steps
            continue
        for plane in range(3):
            if streams:                                    # each product prefetches the next panels
                prefetch = prefetch_panels(
                    &layer.w_ih[plane], end_of_panel(part.column, part.column_end), part.column_end)
            gemm(&layer.w_ih[plane], part.column, part.column_end, rows, x,
                 bias_row(layer, plane), plane_of(gates, plane),
                 &prefetch if streams or call.mode == TRAINING else NULL)
        t += steps


cdef void project_merged(const Call *call, Py_ssize_t rows, View2 x, GateView gates) noexcept nogil:
    """The same of rows that adjoin, in one product."""
    cdef const PackedMatrix *b = &call.layer.w_ih_merged
    gemm(b, 0, b.n, rows, x, bias_row(call.layer, N_PLANE), plane_of(gates, N_PLANE), NULL)


cdef Py_ssize_t adjoining_steps(const Call *call, Py_ssize_t t, Py_ssize_t stop,
                                const Partition *part) noexcept nogil:
    """Steps from t on whose rows of x and of the gates are evenly apart: stop - t, or 1."""
    cdef bint even = part.row == 0 and part.row_end == call.rows
    if call.ragged != NULL:
        even = even and (call.mode == TRAINING or call.chunk_packed)
    elif call.x_in_place:
        even = even and rows_adjoin(&call.input, call.rows)
    return stop - t if even else 1


cdef void small_steps(const Call *call, Py_ssize_t start, Py_ssize_t stop,
                      const Partition *part) noexcept nogil:
    """Steps start .. stop of a small layer. With options there is one; `end_step` follows."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t t = mirrored(0, stop - start, call.reverse) + start
        Py_ssize_t sign = -1 if call.reverse else 1
        SmallSteps s
    s.first_step, s.steps = call.first_step + start, stop - start
    s.rows, s.units = part.row_end - part.row, layer.hidden_size
    s.reset_after, s.save = layer.reset_after, call.mode == TRAINING
    s.weights, s.bias_q = layer.w_hh_small, bias_row(layer, Q_PLANE).data
    s.gates = gate_rows(call, call.gates, t, part.row)
    s.gates_step = sign * call.rows * layer.ld_gates
    s.h_in = h_in_rows(call, t, part.row)
    s.h_prev = state_before(call, t, part.row)
    s.h = state_after(call, t, part.row)
    s.ld_h, s.two_slots = layer.ld_h, call.mode == INFERENCE
    s.output, s.output_step, s.output_row = NULL, sign * call.output.step, call.output.row
    if call.output.data != NULL and not call.has_options:
        s.output = rows_at(&call.output, t, part.row).data
    layer.pointwise.small_steps(&s)


cdef void forward_step(const Call *call, Py_ssize_t t, const Partition *part,
                       const Prefetch *next_gates) noexcept nogil:
    """h after step t from h before it and the input projection."""
    cdef char *h = state_after(call, t, part.row)
    if call.small:
        small_steps(call, t, t + 1, part)
    else:
        large_step(call, t, part, next_gates)
    if call.has_options:
        end_step(call, h, t, part)
    elif call.output.data != NULL:
        store_output(call, h, t, part)
    barrier_wait(part.barrier, part.sharers)               # h_t of all units


cdef void large_step(const Call *call, Py_ssize_t t, const Partition *part,
                     const Prefetch *next_gates) noexcept nogil:
    """The same in products and pointwise functions, panel by panel."""
    cdef:
        const PackedLayer *layer = call.layer
        const Pointwise *pointwise = layer.pointwise
        Py_ssize_t rows = part.row_end - part.row, i, j, width
        bint save = call.mode == TRAINING
        GateView gates = gate_rows(call, call.gates, t, part.row), own_gates
        View2 n = plane_of(gates, N_PLANE), h_factor, q
        float least = h_range(layer)
        const char *h_prev = state_before(call, t, part.row)
        const char *h_in = h_in_rows(call, t, part.row)
        char *h = state_after(call, t, part.row)
    h_factor = factor_rows(layer.w_hh, least, rows, View2(<char *> h_in, layer.ld_h), part)
    for i in range(part.panels):
        j = panel_of(part, t, i)
        width = end_of_panel(j, part.column_end) - j
        own_gates = gates_from(gates, j)
        # a_r += W_hr h, a_z += W_hz h, q = W_hn h + b_hn
        project_state(call, gates, h_factor, t, i, part, next_gates)
        if layer.reset_after:
            # r, z, n, h' = n + z (h - n)
            pointwise.gates_forward(rows, width, &own_gates, h_prev + j, h + j, layer.ld_h, save)
        else:
            # r, q = r h
            pointwise.reset_forward(rows, width, &own_gates, h_in + j, layer.ld_h)
    if not layer.reset_after:
        barrier_wait(part.barrier, part.sharers)           # q of all units
        q = factor_rows(layer.w_hh, least, rows, plane_of(gates, Q_PLANE), part)
        for i in range(part.panels):
            j = panel_of(part, t, i)
            width = end_of_panel(j, part.column_end) - j
            # a_n += W_hn q
            gemm(&layer.w_hh[2], j, j + width, rows, q, n, n, NULL)
            own_gates = gates_from(gates, j)
            # z, n, h' = n + z (h - n)
            pointwise.blend_forward(rows, width, &own_gates, h_prev + j, h + j, layer.ld_h, save)


cdef void project_state(const Call *call, GateView gates, View2 h, Py_ssize_t t, Py_ssize_t i,
                        const Partition *part,
                        const Prefetch *next_gates) noexcept nogil:
    """a_r += W_hr h, a_z += W_hz h, with reset_after q = W_hn h + b_hn: the i-th panel of step t.

    Where weights exceed L2, each product prefetches those of the next: 102 -> 106 GFLOP/s
    (10,64,161,1760). Else the product for q prefetches a part of `next_gates`.
    """
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t rows = part.row_end - part.row, panels = part.panels, size
        Py_ssize_t first = panel_of(part, t, i), last = end_of_panel(first, part.column_end)
        Py_ssize_t next_first
        int count = 3 if layer.reset_after else 2, gate
        bint streams = exceeds_l2(layer.w_hh, rows)
        View2 c
        Prefetch prefetch
    size = next_gates.size // panels
    for gate in range(count):                              # the planes r, z, q
        c = plane_of(gates, R_PLANE + gate)
        prefetch = Prefetch(next_gates.data + i * size, size, 0)
        if streams and gate + 1 < count:
            prefetch = prefetch_panels(&layer.w_hh[gate + 1], first, last)
        elif streams and i + 1 < panels:
            next_first = panel_of(part, t, i + 1)
            prefetch = prefetch_panels(
                &layer.w_hh[0], next_first, end_of_panel(next_first, part.column_end))
        gemm(&layer.w_hh[gate], first, last, rows, h,
             bias_row(layer, Q_PLANE) if gate == 2 else c, c,
             &prefetch if streams or gate == 2 and call.mode == TRAINING else NULL)


cdef inline View2 factor_rows(const PackedMatrix *b, float least, Py_ssize_t rows, View2 a,
                              const Partition *part) noexcept nogil:
    """Rows as factors of a packed matrix: themselves, or in the thread's scratch in fewer bits.

    Threads that share rows each have all of them: to quantize them takes less than a barrier.
    """
    cdef View2 quantized
    if b.context.quantize_rows == NULL:
        return a
    quantized = View2(part.scratch, quantized_row(b.storage, b.k))
    b.context.quantize_rows(rows, b.k, a.data, a.ld, least, b.storage == INT8_12_BITS,
                            quantized.data, quantized.ld)
    return quantized


cdef inline Py_ssize_t quantized_row(Storage storage, Py_ssize_t k) noexcept nogil:
    """Bytes of a row from `quantize_rows`."""
    if storage == BFLOAT16_BOTH:
        return k * sizeof(float)
    # k bytes or twice as many, and room for their signs (AVX2); a scale and an offset
    return 2 * round_up(k, 4) * (2 if storage == INT8_12_BITS else 1) + 2 * sizeof(float)


cdef inline float h_range(const PackedLayer *layer) noexcept nogil:
    """What |h| does not exceed if h_0 does not; 0 where it is not known."""
    return 1 if layer.pointwise == &layer.context.sigmoid_tanh else 0


cdef void store_output(const Call *call, const char *h, Py_ssize_t t,
                       const Partition *part) noexcept nogil:
    """output_t = h_t; rows of the caller's array are not padded."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t first = part.column
        Py_ssize_t width = own_width(part, layer.hidden_size * layer.context.itemsize)
        View2 output
    output = rows_at(&call.output, t, part.row)
    layer.context.store_rows(part.row_end - part.row, width, h + first, layer.ld_h,
                             output.data + first, output.ld)


cdef void end_step(const Call *call, const char *h, Py_ssize_t t,
                   const Partition *part) noexcept nogil:
    """What options do to h_t and to output_t, and to h before the next step."""
    if call.marks != NULL:
        hold_states(call, t, part)
    if call.output.data != NULL:
        store_output_rows(call, h, t, part)
    reset_and_drop(call, t + 1 - 2 * call.reverse, part)


cdef void store_output_rows(const Call *call, const char *h, Py_ssize_t t,
                            const Partition *part) noexcept nogil:
    """The same with options: times the multipliers, and zeros before a step has counted."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t first = part.column, row = part.row, count
        Py_ssize_t width = own_width(part, layer.hidden_size * layer.context.itemsize)
        View3 output = columns_of(&call.output, first), dropout = columns_of(&call.dropout, first)
        View2 target
    while row < part.row_end:
        count = row_run(call, call.output_packed and dropout.data == NULL, row, part.row_end)
        target = view_rows(call, &output, call.output_packed, t, row)
        if call.marks != NULL and has_mark(call, t, row, SILENT << call.reverse):
            memset(target.data, 0, width)
        else:
            store_times(call, count, width, View2(<char *> h + first, layer.ld_h), &dropout, t,
                        row, target)
        h += count * layer.ld_h
        row += count


# ---- rows that hold or lose their state ----------------------------------------------------------

cdef void hold_states(const Call *call, Py_ssize_t t, const Partition *part) noexcept nogil:
    """h_t = h_{t-1} in rows that are held.

    With z = 1 in them, the backward needs no line for dh_{t-1} = d z. Nor does a NaN of h reach
    other rows, with r = q = 0.
    """
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t row, first = part.column, width = own_width(part, layer.plane)
        GateView gates
    for row in range(part.row, part.row_end):
        if not has_mark(call, t, row, HELD):
            continue
        memcpy(state_after(call, t, row) + first, state_before(call, t, row) + first, width)
        if call.mode == TRAINING:
            gates = gates_from(gate_rows(call, call.gates, t, row), first)
            memset(plane_of(gates, R_PLANE).data, 0, width)
            set_ones(layer.context.itemsize, width, plane_of(gates, Z_PLANE).data)
            memset(plane_of(gates, Q_PLANE).data, 0, width)


cdef void set_ones(Py_ssize_t itemsize, Py_ssize_t size, char *data) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size // itemsize):
        if itemsize == sizeof(float):
            (<float *> data)[i] = 1
        else:
            (<double *> data)[i] = 1


cdef void reset_and_drop(const Call *call, Py_ssize_t t, const Partition *part) noexcept nogil:
    """Before step t: h = 0 in rows that are reset, and h times its multipliers for the products."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t first = part.column, width = own_width(part, layer.plane)
        Py_ssize_t slot = t + call.reverse, row = part.row, count
        View3 multipliers = columns_of(&call.recurrent_dropout, first)
        char *h
    if not 0 <= t < call.steps:
        return
    for row in range(part.row, part.row_end if call.marks != NULL else part.row):
        if has_mark(call, t, row, RESET):
            memset(state_rows(call, slot, row) + first, 0, width)
    if multipliers.data == NULL:
        return
    width = own_width(part, layer.hidden_size * layer.context.itemsize)
    row = part.row
    while row < part.row_end:
        count = row_run(call, False, row, part.row_end)
        h = call.h_in_slots[slot & 1] + row * layer.ld_h + first
        store_times(call, count, width, View2(state_rows(call, slot, row) + first, layer.ld_h),
                    &multipliers, t, row, View2(h, layer.ld_h))
        row += count


# ---- before, between and after the steps ---------------------------------------------------------

cdef inline Py_ssize_t steps_of(const Call *call, Py_ssize_t row) noexcept nogil:
    return call.steps if call.ragged == NULL else call.ragged.lengths[row]


cdef void load_state(const Call *call, const Partition *part) noexcept nogil:
    """The slot of h that the first step of a row reads = h_0, or zeros."""
    cdef Py_ssize_t row = part.row, count, steps
    if call.states_are_slots:
        return
    if not call.has_options:
        load_state_rows(call, row, part.row_end - row, call.steps)
        return
    while row < part.row_end:
        count = row_run(call, False, row, part.row_end)
        steps = steps_of(call, row)
        load_state_rows(call, row, count, steps)
        reset_and_drop_first(call, row, count, steps, part)
        row += count


cdef inline void load_state_rows(const Call *call, Py_ssize_t row, Py_ssize_t rows,
                                 Py_ssize_t steps) noexcept nogil:
    """The same for rows of so many steps."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t itemsize = layer.context.itemsize
        char *h = state_rows(call, mirrored(0, steps + 1, call.reverse), row)
        View2 h_0 = view_rows(call, &call.h_0, False, 0, row)
    if call.h_0.data == NULL or layer.plane > layer.hidden_size * itemsize:
        memset(h, 0, rows * layer.ld_h)
    if call.h_0.data != NULL and h != h_0.data:
        copy_matrix(rows, layer.hidden_size, itemsize, h_0, call.h_0.column, View2(h, layer.ld_h),
                    itemsize)


cdef void reset_and_drop_first(const Call *call, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t steps,
                               const Partition *part) noexcept nogil:
    """`reset_and_drop` of all units for the first step of rows that have so many."""
    cdef:
        Partition all_units = part[0]
        Py_ssize_t slot, ld = call.layer.ld_h
    for slot in range(2 if call.recurrent_dropout.data != NULL else 0):
        memset(call.h_in_slots[slot] + row * ld, 0, rows * ld)         # the padding is read, too
    all_units.row, all_units.row_end = row, row + rows
    all_units.column, all_units.column_end = 0, call.layer.plane
    if steps > 0:
        reset_and_drop(call, mirrored(0, steps, call.reverse), &all_units)


cdef void store_state(const Call *call, const Partition *part) noexcept nogil:
    """h_n = the slot of h that the last step of a row wrote."""
    cdef Py_ssize_t row = part.row, count
    if call.h_n.data == NULL or call.states_are_slots:
        return
    if not call.has_options:
        store_state_rows(call, row, part.row_end - row, call.steps)
        return
    while row < part.row_end:
        count = row_run(call, False, row, part.row_end)
        store_state_rows(call, row, count, steps_of(call, row))
        row += count


cdef inline void store_state_rows(const Call *call, Py_ssize_t row, Py_ssize_t rows,
                                  Py_ssize_t steps) noexcept nogil:
    """The same for rows of so many steps."""
    cdef:
        const PackedLayer *layer = call.layer
        char *h = state_rows(call, mirrored(steps, steps + 1, call.reverse), row)
        View2 h_n = view_rows(call, &call.h_n, False, 0, row)
    if h != h_n.data:
        copy_matrix(rows, layer.hidden_size, layer.context.itemsize, View2(h, layer.ld_h),
                    layer.context.itemsize, h_n, call.h_n.column)


cdef void copy_input(const Call *call, Py_ssize_t t, Py_ssize_t stop,
                     const Partition *part) noexcept nogil:
    """Copy x of steps t .. stop to `input`, times its multipliers.

    In training x may change before the backward; in inference products cannot read it in place.
    """
    cdef:
        const PackedLayer *layer = call.layer
        Partition own = own_rows(part)
        Py_ssize_t rows = own.row_end - own.row
    if not call.has_options and rows == call.rows and rows_adjoin(&call.x, rows):
        copy_matrix((stop - t) * rows, layer.input_size, layer.context.itemsize,
                    rows_at(&call.x, t, own.row), call.x.column, input_rows(call, t, own.row),
                    layer.context.itemsize)
        t = stop
    while t < stop:
        copy_step(call, t, &own)
        t += 1
    barrier_wait(part.barrier, part.sharers)


cdef void copy_step(const Call *call, Py_ssize_t t, const Partition *part) noexcept nogil:
    """Copy x of one step; zeros where a row is held, since that x may be NaN."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t row = part.row, row_end = min(part.row_end, active_rows(call, t)), count
        Py_ssize_t itemsize = layer.context.itemsize, size = layer.input_size * itemsize
        View2 target
    while row < row_end:
        count = row_run(call, call.x_packed and call.input_dropout.data == NULL, row, row_end)
        target = input_rows(call, t, row)
        if call.marks != NULL and has_mark(call, t, row, HELD):
            memset(target.data, 0, size)
        else:
            copy_matrix(count, layer.input_size, itemsize,
                        view_rows(call, &call.x, call.x_packed, t, row), call.x.column, target,
                        itemsize)
            if call.input_dropout.data != NULL:
                store_times(call, count, size, target, &call.input_dropout, t, row, target)
        row += count


cdef void clear_padding(const Call *call, Py_ssize_t t, Py_ssize_t stop,
                        const Partition *part) noexcept nogil:
    """Zero the half line of padding that products do not write.

    Merged ones do, but for q, which `small_steps` does not keep.
    The pointwise functions read it, and fresh memory may hold denormals. With a constant size,
    memset is inlined: 45.1 -> 44.2 us (50,6,64,36).
    """
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t computed = layer.w_ih[0].n_computed, row, row_end = part.row_end, plane
        GateView gates
    if computed == layer.plane or call.merged and call.small or part.column_end < layer.plane:
        return
    while t < stop:
        gates = gate_rows(call, call.gates, t, part.row)
        if call.mode == TRAINING:
            row_end = min(part.row_end, active_rows(call, t))
        for row in range(row_end - part.row):
            for plane in range(4):
                memset(gates.data + row * gates.ld + plane * gates.plane + computed, 0, LINE // 2)
        t += 1


cdef inline bint exceeds_l2(const PackedMatrix *gates, Py_ssize_t rows) noexcept nogil:
    """Whether the weights of three products exceed L2, and rows are enough to prefetch them."""
    return rows >= gates.context.mr and weight_bytes(gates) > L2_WEIGHTS
