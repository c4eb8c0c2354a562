# The gradients that need no time loop, chunk by chunk: dx, and the sums over all rows, dW, dbias.

cdef enum:
    SUM_ROWS = 256                 # of a block in a sum over all rows: a panel of it is 64 KB
    SUM_BLOCKS = 16                # sums of a level that are added to the next together
    SHORT_ROW = 448                # bytes; at 512, a panel would use only half of the sets of L1


cdef void input_gradients(const Call *call, Py_ssize_t start, Py_ssize_t stop,
                          const Partition *part) noexcept nogil:
    """project_input:  dx = [da_n da_r da_z] W_ih of steps start .. stop.

    The team partitions the rows. The product writes whole units, which may exceed a row of dx.
    Where rows are no whole lines, or not evenly apart, it writes to scratch memory.
    """
    cdef:
        const PackedMatrix *w = &call.layer.w_ih_t
        Py_ssize_t row = rows_before(call, start), total = rows_before(call, stop) - row, rows
        Py_ssize_t first = partition(total, part.rank, part.team)
        Py_ssize_t last = partition(total, part.rank + 1, part.team)
        Py_ssize_t size = call.layer.input_size * call.layer.context.itemsize
        bint direct = (w.n == size and call.input_dropout.data == NULL
                       and (call.dx_packed if call.ragged != NULL
                            else rows_adjoin(&call.dx, call.rows)))
        GateView dgates = gate_rows(call, call.dgates, start, 0)
        View2 target = View2(part.scratch, w.n)
        Prefetch only_c = Prefetch(NULL, 0, 0)
    while first < last:
        rows = min(<Py_ssize_t> MAX_BLOCK_ROWS, last - first)          # cache-resident
        if direct:
            target = View2(call.dx.data + (row + first) * call.dx.row, call.dx.row)
        gemm(w, 0, w.n, rows,
             View2(dgates.data + first * dgates.ld, dgates.ld), View2(NULL, 0), target,
             &only_c if direct else NULL)
        if not direct:
            store_input_gradients(call, start, row + first, rows, target)
        first += rows


cdef void store_input_gradients(const Call *call, Py_ssize_t t, Py_ssize_t first, Py_ssize_t rows,
                                View2 source) noexcept nogil:
    """Copy rows first .. first + rows of all steps to their places in dx; none is before step t."""
    cdef:
        Py_ssize_t size = call.layer.input_size * call.layer.context.itemsize, row, row_end, count
    if call.ragged == NULL and call.input_dropout.data == NULL and rows_adjoin(&call.dx, call.rows):
        copy_rows(rows, size, source.data, source.ld, call.dx.data + first * call.dx.row,
                  call.dx.row)
        return
    while rows > 0:
        t = step_of(call, t, first)
        row = first - rows_before(call, t)
        row_end = min(row + rows, active_rows(call, t))
        count = row_run(call, call.dx_packed and call.input_dropout.data == NULL, row, row_end)
        # dx = dL/d(x times its multipliers), times them
        store_times(call, count, size, source, &call.input_dropout, t, row,
                    view_rows(call, &call.dx, call.dx_packed, t, row))
        source.data += count * source.ld
        first += count
        rows -= count


cdef void add_input_gradients(const Call *call, const Call *other) noexcept nogil:
    """dx of the first of two calls += dx of the second."""
    cdef:
        Py_ssize_t size = call.layer.input_size * call.layer.context.itemsize, t, row, rows, count
        View2 dx, more
    for t in range(call.steps):
        row, rows = 0, active_rows(call, t)
        while row < rows:
            count = row_run(call, call.dx_packed, row, rows)
            dx = view_rows(call, &call.dx, call.dx_packed, t, row)
            more = view_rows(other, &other.dx, other.dx_packed, t, row)
            call.layer.context.add_rows(count, size, more.data, more.ld, dx.data, dx.ld)
            row += count


# ---- sums over all rows --------------------------------------------------------------------------

cdef Py_ssize_t sum_steps(Py_ssize_t rows) noexcept nogil:
    """Steps in a block of a sum: at most SUM_ROWS rows, or one step."""
    return max(1, SUM_ROWS // max(1, rows))


cdef Py_ssize_t sum_blocks(Py_ssize_t steps, Py_ssize_t rows, const Ragged *ragged) noexcept nogil:
    """Blocks of rows in a sum over all steps."""
    cdef Py_ssize_t together = sum_steps(rows), blocks = 0, t = 0, stop
    if ragged == NULL:
        return ceil_div(steps, together) * ceil_div(rows, SUM_ROWS)
    while t < steps:
        stop = min(t + together, steps)
        blocks += ceil_div(ragged.offsets[stop] - ragged.offsets[t], SUM_ROWS)
        t = stop
    return blocks


cdef int sum_levels(Py_ssize_t blocks) noexcept nogil:
    cdef int levels = 1
    while blocks > SUM_BLOCKS and levels < SUM_LEVELS:
        blocks = ceil_div(blocks, SUM_BLOCKS)
        levels += 1
    return levels


cdef Py_ssize_t first_unit(const PackedLayer *layer, int rank, int team) noexcept nogil:
    """The first unit whose weight gradients this thread computes."""
    return LINE * partition(layer.plane // LINE, rank, team) // layer.context.itemsize


cdef Py_ssize_t own_units(const PackedLayer *layer, const Partition *part) noexcept nogil:
    """How many they are: none where there are more threads than lines of units."""
    cdef Py_ssize_t last = min(first_unit(layer, part.rank + 1, part.team), layer.hidden_size)
    return max(0, last - first_unit(layer, part.rank, part.team))


cdef Py_ssize_t sum_scratch(const Call *call, Py_ssize_t rows) noexcept nogil:
    """Bytes that `add_block` needs for a block of so many rows."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t units = layer.plane // layer.context.itemsize
        Py_ssize_t size = rows * PANEL_BYTES + 4 * packed_a_size(layer.context, rows, units)
    return size if h_in_adjoins(call) else size + rows * layer.ld_h


cdef Py_ssize_t weight_gradients(const Call *call, Py_ssize_t start, Py_ssize_t stop,
                                 Py_ssize_t done, const Partition *part) noexcept nogil:
    """dW_ih += [da_r da_z da_n]^T x, dW_hh += [da_r da_z dq]^T h, and the biases, of a chunk.

    Adding rows one by one to a running sum loses digits as the sum grows. So rows are summed in
    blocks, and blocks in the first level of `sums`. After each SUM_BLOCKS blocks, that is added to
    the second level, and so on. Blocks are numbered from the forward's first step on, and come in
    reverse: what is summed with what depends on the rows of each step and the direction, not on
    chunks or threads. The team partitions the units, so one thread computes each sum. `start` is a
    multiple of `sum_steps`. Returns the number of blocks done, `done` before.
    """
    cdef:
        Py_ssize_t steps = sum_steps(call.rows), groups = ceil_div(stop - start, steps)
        Py_ssize_t i, j, t, parts, first, rows, block, row, row_end
        bint new_sum
    for i in range(groups):
        t = start + mirrored(i, groups, not call.reverse) * steps
        first = rows_before(call, t)
        rows = rows_before(call, min(t + steps, stop)) - first
        parts = ceil_div(rows, SUM_ROWS)
        for j in range(parts):
            row = partition(rows, mirrored(j, parts, not call.reverse), parts)
            row_end = partition(rows, mirrored(j, parts, not call.reverse) + 1, parts)
            done += 1
            block = call.blocks - done
            new_sum = call.levels > 1 and (block + 1) % SUM_BLOCKS == 0
            add_block(call, t, first + row, row_end - row, done == 1, new_sum, part)
            carry(call, block, part)
    return done


cdef void add_block(const Call *call, Py_ssize_t t, Py_ssize_t row, Py_ssize_t rows,
                    bint first_block, bint new_sum, const Partition *part) noexcept nogil:
    """Add rows row .. row + rows of all steps, none before step t, to the first level.

    The first block of a sequence sets the level, and so does `new_sum`. The biases have no levels.
    """
    cdef:
        const PackedLayer *layer = call.layer
        const Context *context = layer.context
        Py_ssize_t H = layer.hidden_size, itemsize = context.itemsize, plane
        Py_ssize_t first = first_unit(layer, part.rank, part.team)
        Py_ssize_t last = first_unit(layer, part.rank + 1, part.team)
        Py_ssize_t units = own_units(layer, part), place = first * itemsize
        bint add = not (first_block or new_sum)
        View2 dgates = View2(call.dgates + row * layer.ld_gates + place, layer.ld_gates)
        View2 x = View2(call.input.data + row * call.input.row, call.input.row)
        View2 h = View2(state_rows(call, call.reverse, 0) + row * layer.ld_h, layer.ld_h)
        View2 q = View2(call.gates + row * layer.ld_gates + Q_PLANE * layer.plane, layer.ld_gates)
        View2 dw_ih = View2(call.sums[0].dweight_ih + first * layer.w_ih_t.n, layer.w_ih_t.n)
        View2 dw_hh = View2(call.sums[0].dweight_hh + first * layer.plane, layer.plane)
        char *packed = part.scratch + rows * PANEL_BYTES
        int[3] to_input = [R_PLANE, Z_PLANE, N_PLANE]      # the order of the weights
        int[3] to_hidden = [R_PLANE, Z_PLANE, Q_PLANE]
    if units == 0:
        return
    if not h_in_adjoins(call):
        h.data = packed + 4 * packed_a_size(context, rows, layer.plane // itemsize)
        copy_h_in(call, t, row, rows, h)
    for plane in range(4 if layer.reset_after else 3):
        context.column_sums(rows, (last - first) * itemsize, dgates, not first_block,
                            call.dbias + plane * layer.plane + place,
                            call.dbias + (4 + plane) * layer.plane + place)
        pack_a(context, rows, units, dgates, packed + plane * packed_a_size(context, rows, units))
        dgates.data += layer.plane
    # a_r, a_z, a_n = b + W_i x:  dW_ih += [da_r da_z da_n]^T x
    add_products(call, rows, units, to_input, 3, x, layer.input_size * itemsize, dw_ih, add, part)
    # a_r += W_hr h, a_z += W_hz h, q = W_hn h + b_hn:  dW_hh += [da_r da_z dq]^T h
    add_products(call, rows, units, to_hidden, 3 if layer.reset_after else 2, h, H * itemsize,
                 dw_hh, add, part)
    if not layer.reset_after:
        # a_n += W_hn q:  dW_hn += da_n^T q
        dw_hh.data += 2 * H * layer.plane
        add_products(call, rows, units, to_input + 2, 1, q, H * itemsize, dw_hh, add, part)


cdef void add_products(const Call *call, Py_ssize_t rows, Py_ssize_t units, const int *planes,
                       int count, View2 b, Py_ssize_t width, View2 c, bint accumulate,
                       const Partition *part) noexcept nogil:
    """C_i = A_i^T . B, or += with `accumulate`; A_i are packed planes, C_i gates of c.

    Short rows of B are read in place: 127 -> 120 us for dW (24,32,8,64, two threads).
    """
    cdef:
        const Context *context = call.layer.context
        Py_ssize_t panel, j, n, padded, nr, gate
        char *packed = part.scratch + rows * PANEL_BYTES
        Py_ssize_t packed_size = packed_a_size(context, rows, units)
        Micropanels micropanels
        View2 b_panel
    for panel in range(ceil_div(width, PANEL_BYTES)):
        j = panel * PANEL_BYTES
        n = round_up(min(<Py_ssize_t> PANEL_BYTES, width - j), context.unit)
        padded = round_up(n, LINE)
        nr = micropanel_width(context, padded)
        b_panel = View2(b.data + j, b.ld)
        if b.ld <= SHORT_ROW and j + n <= b.ld:
            micropanels = Micropanels(b_panel.data, b.ld, nr)
        else:
            pack_panel(context, rows, min(<Py_ssize_t> PANEL_BYTES, width - j), padded, b_panel,
                       part.scratch)
            micropanels = Micropanels(part.scratch, nr, rows * nr)
        for gate in range(count):
            context.gemm_packed(
                units, n, rows, packed + planes[gate] * packed_size, &micropanels, accumulate,
                View2(c.data + gate * call.layer.hidden_size * c.ld + j, c.ld))


cdef bint h_in_adjoins(const Call *call) noexcept nogil:
    """Whether what W_hh multiplied lies in `h`, row for row beside the gates."""
    return call.ragged == NULL and call.marks == NULL and call.recurrent_dropout.data == NULL


cdef void copy_h_in(const Call *call, Py_ssize_t t, Py_ssize_t first, Py_ssize_t rows,
                    View2 target) noexcept nogil:
    """Copy what W_hh multiplied, for rows first .. first + rows of all steps; none before step t.

    Of held rows, zeros: their h may be NaN.
    """
    cdef:
        Py_ssize_t row, row_end, count
        Py_ssize_t size = call.layer.hidden_size * call.layer.context.itemsize
    memset(target.data, 0, rows * target.ld)               # products read the padding, too
    while rows > 0:
        t = step_of(call, t, first)
        row = first - rows_before(call, t)
        row_end = min(row + rows, active_rows(call, t))
        count = row_run(call, call.recurrent_dropout.data == NULL, row, row_end)
        if call.marks == NULL or not has_mark(call, t, row, HELD):
            store_times(call, count, size,
                        View2(state_before(call, t, row), call.layer.ld_h),
                        &call.recurrent_dropout, t, row, target)
        target.data += count * target.ld
        first += count
        rows -= count


cdef void carry(const Call *call, Py_ssize_t block, const Partition *part) noexcept nogil:
    """Add each level of the sums that ends with this block to the next."""
    cdef:
        Py_ssize_t size = 1                                # of a sum of the level, in blocks
        int level
        bint new_sum
    for level in range(call.levels - 1):
        size *= SUM_BLOCKS
        if block % size:
            return
        new_sum = level + 2 < call.levels and (block // size + 1) % SUM_BLOCKS == 0
        add_sums(call, level, block + size >= call.blocks or new_sum, part)


cdef void add_sums(const Call *call, int level, bint first, const Partition *part) noexcept nogil:
    """Add this thread's units of a level to the next, which they set with `first`."""
    cdef:
        const PackedLayer *layer = call.layer
        rows_t store = layer.context.store_rows if first else layer.context.add_rows
        const Sums *source = &call.sums[level]
        const Sums *target = &call.sums[level + 1]
        Py_ssize_t unit = first_unit(layer, part.rank, part.team), H = layer.hidden_size, gate
        Py_ssize_t units = own_units(layer, part)
        Py_ssize_t inputs = layer.w_ih_t.n, hidden = layer.plane
    for gate in range(3):
        store(1, units * inputs, source.dweight_ih + (gate * H + unit) * inputs, 0,
              target.dweight_ih + (gate * H + unit) * inputs, 0)
        store(1, units * hidden, source.dweight_hh + (gate * H + unit) * hidden, 0,
              target.dweight_hh + (gate * H + unit) * hidden, 0)
