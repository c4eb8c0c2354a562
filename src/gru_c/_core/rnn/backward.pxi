# Backward: undoes the forward from its last step to its first, chunk by chunk.
#
# dL/dh_t has two parts: `dh`, which goes through no product, and `dh_hidden`, which came through
# W_hh. They are added once, when both are complete. Adding the product to dh block by block would
# round the large sum each time. dx and the weight gradients are products over a chunk of steps,
# whose dgates are still in a cache: 87 -> 98 GFLOP/s (28,128,28,128).


cdef void backward_rank(void *argument, int rank, int team) noexcept nogil:
    """All steps of one thread's rows or units, and its part of dx and the weight gradients."""
    cdef:
        Call *call = <Call *> argument
        Partition part = partition_of(call, rank, team), own = own_rows(&part), block, active
        Py_ssize_t blocks = ceil_div(part.row_end - part.row, MAX_BLOCK_ROWS), i, t
        Py_ssize_t done = call.blocks_done
        Py_ssize_t chunks = ceil_div(call.steps, call.chunk), c, start, stop, s
        Py_ssize_t next_step = 1 if call.reverse else -1
        Prefetch next_gates
        const Partition *now
    if call.blocks_done == 0:
        init_gradients(call, &own)
    barrier_wait(part.barrier, part.sharers)
    for c in range(chunks):
        start = mirrored(c, chunks, not call.reverse) * call.chunk
        stop = min(start + call.chunk, call.steps)
        for i in range(blocks):
            block = block_of(&part, i, blocks)
            for s in range(stop - start):
                t = start + mirrored(s, stop - start, not call.reverse)
                next_gates = gates_to_prefetch(call, &part, &block, t + next_step, start, stop)
                now = &block
                if call.ragged != NULL:
                    active = active_part(call, t, &block)
                    now = &active
                if now.row < now.row_end:
                    backward_step(call, t, now, &next_gates)
        if c + 1 == chunks and call.blocks_left == 0:
            add_hidden_part(call, &part)
        check_stop(call, &part, <int> c + 1)
        barrier_wait(part.barrier, part.team)              # dgates of all rows and units
        if stops(call, <int> c + 1):
            return
        if call.need_dx:
            input_gradients(call, start, stop, &part)
        if call.need_grads:
            done = weight_gradients(call, start, stop, done, &part)
    if call.blocks_left == 0:
        store_gradients(call, &own)


cdef void backward_step(const Call *call, Py_ssize_t t, const Partition *part,
                        const Prefetch *next_gates) noexcept nogil:
    """Undo `forward_step`: dL/dh before step t from that after it, and the gates' gradients."""
    cdef:
        const PackedLayer *layer = call.layer
        const Pointwise *pointwise = layer.pointwise
        Py_ssize_t rows = part.row_end - part.row, j = part.column
        Py_ssize_t width = own_width(part, layer.plane)
        GateView gates = gates_from(gate_rows(call, call.gates, t, part.row), j)
        char *dgates = gate_rows(call, call.dgates, t, part.row).data
        const char *h_prev = state_before(call, t, part.row) + j
        char *dh = call.dh + part.row * layer.ld_h
        View2 dh_hidden = View2(call.dh_hidden + part.row * layer.ld_h, layer.ld_h)
    # store_output(h):  dh += dL/d output_t
    if call.d_output.data != NULL:
        add_output_gradient(call, dh, t, part)
    if layer.reset_after:
        # r, z, n, h' = n + z (h - n):  da_n, da_r, da_z, dq, dh = d z
        pointwise.gates_backward(rows, width, &gates, dgates + j, h_prev, dh + j,
                                 dh_hidden.data + j, layer.ld_h)
        if call.marks != NULL:
            zero_held(call, dgates, t, part)
    else:
        undo_reset_before(call, t, part)
    barrier_wait(part.barrier, part.sharers)               # da_r, da_z, dq of all units
    undo_project_state(call, t, part, next_gates)
    if call.has_options:
        undo_reset_and_drop(call, t, part)


cdef void undo_reset_before(const Call *call, Py_ssize_t t, const Partition *part) noexcept nogil:
    """The pointwise functions of reset_after=False, and the product between them."""
    cdef:
        const PackedLayer *layer = call.layer
        const Pointwise *pointwise = layer.pointwise
        Py_ssize_t rows = part.row_end - part.row, j = part.column
        Py_ssize_t width = own_width(part, layer.plane)
        Py_ssize_t state = part.row * layer.ld_h
        GateView gates = gates_from(gate_rows(call, call.gates, t, part.row), j)
        GateView dgates = gate_rows(call, call.dgates, t, part.row)
        const char *h_prev = state_before(call, t, part.row) + j
        View2 dq = View2(call.dq + state, layer.ld_h)
    # z, n, h' = n + z (h - n):  da_n, da_z, dh = d z
    pointwise.blend_backward(rows, width, &gates, dgates.data + j, h_prev, call.dh + state + j,
                             call.dh_hidden + state + j, layer.ld_h)
    if call.marks != NULL:
        zero_held(call, dgates.data, t, part)
    barrier_wait(part.barrier, part.sharers)               # da_n of all units
    # a_n += W_hn q:  dq = da_n W_hn
    gemm(&layer.w_hn_t, part.column, part.column_end, rows, View2(dgates.data, dgates.ld),
         View2(NULL, 0), dq, NULL)
    if call.recurrent_dropout.data != NULL:
        undo_recurrent_dropout(call, dq.data, part)
    # r, q = r h:  da_r, dh += dq r
    pointwise.reset_backward(rows, width, &gates, dgates.data + j, h_prev, dq.data + j,
                             call.dh + state + j, layer.ld_h)
    if call.marks != NULL:
        zero_held(call, dgates.data, t, part)


cdef void zero_held(const Call *call, char *dgates, Py_ssize_t t,
                    const Partition *part) noexcept nogil:
    """The gates of held rows get no gradient, not even that of a NaN."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t row, plane, width = own_width(part, layer.plane)
    dgates += part.column
    for row in range(part.row, part.row_end):
        if has_mark(call, t, row, HELD):
            for plane in range(4):
                memset(dgates + plane * layer.plane, 0, width)
        dgates += layer.ld_gates


cdef void undo_project_state(const Call *call, Py_ssize_t t, const Partition *part,
                             const Prefetch *next_gates) noexcept nogil:
    """a_r += W_hr h, a_z += W_hz h, q = W_hn h + b_hn:  dh_hidden = [da_r da_z dq] W_hh.

    Without reset_after the product has no dq: `undo_reset_before` has used it.
    """
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t rows = part.row_end - part.row, panels = part.panels, i, first
        GateView dgates = gate_rows(call, call.dgates, t, part.row)
        View2 da_r = plane_of(dgates, R_PLANE)             # the first of the segments
        View2 dh_hidden = View2(call.dh_hidden + part.row * layer.ld_h, layer.ld_h)
        Prefetch prefetch = Prefetch(NULL, next_gates.size // panels, 0)
    for i in range(panels):
        first = panel_of(part, t, i)
        prefetch.data = next_gates.data + i * prefetch.size
        gemm(&layer.w_hh_t, first, end_of_panel(first, part.column_end), rows, da_r,
             View2(NULL, 0), dh_hidden, &prefetch if prefetch.size else NULL)


cdef void undo_reset_and_drop(const Call *call, Py_ssize_t t,
                              const Partition *part) noexcept nogil:
    """h times its multipliers for the products, h = 0 in rows that are reset before step t."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t row, offset, width = own_width(part, layer.plane)
    if call.recurrent_dropout.data != NULL:
        undo_recurrent_dropout(call, call.dh_hidden + part.row * layer.ld_h, part)
    for row in range(part.row, part.row_end if call.marks != NULL else part.row):
        if has_mark(call, t, row, RESET):
            offset = row * layer.ld_h + part.column
            memset(call.dh + offset, 0, width)
            memset(call.dh_hidden + offset, 0, width)


cdef void undo_recurrent_dropout(const Call *call, char *d, const Partition *part) noexcept nogil:
    """Gradients of h times its multipliers, times them; `d` are those of the rows of the part."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t first = part.column, row = part.row, count
        Py_ssize_t width = own_width(part, layer.hidden_size * layer.context.itemsize)
        View3 multipliers = columns_of(&call.recurrent_dropout, first)
        View2 rows = View2(d + first, layer.ld_h)
    while row < part.row_end:
        count = row_run(call, False, row, part.row_end)
        store_times(call, count, width, rows, &multipliers, 0, row, rows)
        rows.data += count * rows.ld
        row += count


cdef void add_output_gradient(const Call *call, char *dh, Py_ssize_t t,
                              const Partition *part) noexcept nogil:
    """dh += dL/d output_t, times the multipliers of output; rows of the caller are not padded.

    Rows with gaps between columns or with multipliers go through scratch memory.
    """
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t itemsize = layer.context.itemsize, row = part.row, count
        Py_ssize_t first = part.column
        Py_ssize_t width = own_width(part, layer.hidden_size * itemsize)
        View3 dropout = columns_of(&call.dropout, first)
        View2 d_output, scratch = View2(part.scratch, layer.plane)
        bint in_place = reads_in_place(&call.d_output, itemsize)
    dh += first
    while row < part.row_end:
        count = row_run(call, call.output_packed and dropout.data == NULL, row, part.row_end)
        d_output = view_rows(call, &call.d_output, call.output_packed, t, row)
        d_output.data += first // itemsize * call.d_output.column
        if not in_place:
            copy_matrix(count, width // itemsize, itemsize, d_output, call.d_output.column, scratch,
                        itemsize)
            d_output = scratch
        if dropout.data != NULL:
            store_times(call, count, width, d_output, &dropout, t, row, scratch)
            d_output = scratch
        if call.marks == NULL or not has_mark(call, t, row, SILENT << call.reverse):
            layer.context.add_rows(count, width, d_output.data, d_output.ld, dh, layer.ld_h)
        dh += count * layer.ld_h
        row += count


cdef void add_hidden_part(const Call *call, const Partition *part) noexcept nogil:
    """dh += dh_hidden, which makes it dL/dh_0."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t first = part.column, place = part.row * layer.ld_h + first
    layer.context.add_rows(
        part.row_end - part.row, own_width(part, layer.plane), call.dh_hidden + place, layer.ld_h,
        call.dh + place, layer.ld_h)


# ---- before and after the time loop --------------------------------------------------------------

cdef void init_gradients(const Call *call, const Partition *part) noexcept nogil:
    """dh = dL/dh_n, and zeros in all else that is added to. Sums over no rows are zero."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t H = layer.hidden_size, row = part.row, count
        Py_ssize_t size = (part.row_end - row) * layer.ld_h, place = row * layer.ld_h
    memset(call.dh + place, 0, size)
    memset(call.dh_hidden + place, 0, size)
    if not layer.reset_after:
        memset(call.dq + place, 0, size)
    while call.d_h_n.data != NULL and row < part.row_end:
        count = row_run(call, False, row, part.row_end)
        copy_matrix(count, H, layer.context.itemsize, view_rows(call, &call.d_h_n, False, 0, row),
                    call.d_h_n.column, View2(call.dh + row * layer.ld_h, layer.ld_h),
                    layer.context.itemsize)
        row += count
    if part.rank == 0 and call.blocks == 0 and call.need_grads:
        memset(call.dbias, 0, 4 * layer.plane)
        memset(call.sums[0].dweight_ih, 0, 3 * H * layer.w_ih_t.n)
        memset(call.sums[0].dweight_hh, 0, 3 * H * layer.plane)


cdef void store_gradients(const Call *call, const Partition *part) noexcept nogil:
    """Copy the gradients to the caller's arrays: dh_0 of own rows, the others of own units."""
    cdef:
        const PackedLayer *layer = call.layer
        const Sums *sums = &call.sums[call.levels - 1]
        Py_ssize_t itemsize = layer.context.itemsize, H = layer.hidden_size, gate, unit
        Py_ssize_t inputs = layer.input_size * itemsize, hidden = H * itemsize
        Py_ssize_t first = first_unit(layer, part.rank, part.team), row = part.row, count
        Py_ssize_t units = own_units(layer, part)
        const char *dbias = call.dbias + first * itemsize                  # planes n r z q
        int[3] planes = [R_PLANE, Z_PLANE, N_PLANE]        # the order of the biases
        int[3] hidden_planes = [R_PLANE, Z_PLANE, Q_PLANE if layer.reset_after else N_PLANE]
    while row < part.row_end and call.dh_0.data != NULL:
        count = row_run(call, False, row, part.row_end)
        copy_matrix(count, H, itemsize, View2(call.dh + row * layer.ld_h, layer.ld_h), itemsize,
                    view_rows(call, &call.dh_0, False, 0, row), call.dh_0.column)
        row += count
    for gate in range(3 if units > 0 and call.need_grads else 0):
        unit = gate * H + first
        if sums.dweight_ih != call.dweight_ih:
            store_gradient(call, units, inputs, sums.dweight_ih + unit * layer.w_ih_t.n,
                           layer.w_ih_t.n, call.dweight_ih + unit * inputs)
        if sums.dweight_hh != call.dweight_hh:
            store_gradient(call, units, hidden, sums.dweight_hh + unit * layer.plane, layer.plane,
                           call.dweight_hh + unit * hidden)
        if call.dbias_ih != NULL:
            store_gradient(call, 1, units * itemsize, dbias + planes[gate] * layer.plane, 0,
                           call.dbias_ih + unit * itemsize)
            store_gradient(call, 1, units * itemsize, dbias + hidden_planes[gate] * layer.plane, 0,
                           call.dbias_hh + unit * itemsize)


cdef void store_gradient(const Call *call, Py_ssize_t rows, Py_ssize_t width, const char *source,
                         Py_ssize_t ld, char *target) noexcept nogil:
    """target = source, or += with `accumulate`; the caller's rows adjoin."""
    if call.accumulate:
        call.layer.context.add_rows(rows, width, source, ld, target, width)
    else:
        copy_rows(rows, width, source, ld, target, width)
