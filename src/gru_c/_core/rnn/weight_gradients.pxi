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
        Py_ssize_t first = partition((stop - start) * call.rows, part.rank, part.team), rows
        Py_ssize_t last = partition((stop - start) * call.rows, part.rank + 1, part.team)
        Py_ssize_t size = call.layer.input_size * call.layer.context.itemsize
        Py_ssize_t row = start * call.rows
        bint direct = w.n == size and rows_adjoin(&call.dx, call.rows)
        GateView dgates = gate_rows(call, call.dgates, start, 0)
        View2 target = View2(part.scratch, w.n)
        Prefetch only_c = Prefetch(NULL, 0, 0)
    while first < last:
        rows = min(<Py_ssize_t> MAX_BLOCK_ROWS, last - first)          # cache-resident
        if direct:
            target = View2(call.dx.data + (row + first) * call.dx.row, call.dx.row)
        gemm(w, 0, ceil_div(w.n, PANEL_BYTES), rows,
             View2(dgates.data + first * dgates.ld, dgates.ld), View2(NULL, 0), target,
             &only_c if direct else NULL)
        if not direct:
            store_input_gradients(call, row + first, rows, target)
        first += rows


cdef void store_input_gradients(const Call *call, Py_ssize_t first, Py_ssize_t rows,
                                View2 source) noexcept nogil:
    """Copy rows first .. first + rows of all T*N to their places in dx."""
    cdef:
        Py_ssize_t size = call.layer.input_size * call.layer.context.itemsize, count
        Py_ssize_t t = first // call.rows, row = first % call.rows
        bint even = rows_adjoin(&call.dx, call.rows)
        View2 target
    while rows > 0:
        count = rows if even else min(rows, call.rows - row)
        target = rows_at(&call.dx, t, row)
        copy_rows(count, size, source.data, source.ld, target.data, target.ld)
        source.data += count * source.ld
        rows -= count
        row = 0
        t += 1


# ---- sums over all rows --------------------------------------------------------------------------

cdef Py_ssize_t sum_steps(Py_ssize_t rows) noexcept nogil:
    """Steps in a block of a sum: at most SUM_ROWS rows, or one step."""
    return max(1, SUM_ROWS // max(1, rows))


cdef int sum_levels(Py_ssize_t steps, Py_ssize_t rows) noexcept nogil:
    cdef:
        Py_ssize_t blocks = ceil_div(steps, sum_steps(rows)) * ceil_div(rows, SUM_ROWS)
        int levels = 1
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


cdef Py_ssize_t sum_scratch(const PackedLayer *layer, Py_ssize_t rows) noexcept nogil:
    """Bytes that `add_block` needs in a chunk of so many rows."""
    rows = min(<Py_ssize_t> SUM_ROWS, rows)
    return rows * PANEL_BYTES + 4 * packed_a_size(
        layer.context, rows, layer.plane // layer.context.itemsize)


cdef void weight_gradients(const Call *call, Py_ssize_t start, Py_ssize_t stop,
                           const Partition *part) noexcept nogil:
    """dW_ih += [da_r da_z da_n]^T x, dW_hh += [da_r da_z dq]^T h, and the biases, of a chunk.

    Adding rows one by one to a running sum loses digits as the sum grows. So rows are summed in
    blocks, and blocks in the first level of `sums`. After each SUM_BLOCKS blocks, that is added to
    the second level, and so on. Blocks are numbered from the forward's first step on, and come in
    reverse: what is summed with what depends on T, N and the direction, not on chunks or threads.
    The team partitions the units, so one thread computes each sum. `start` is a multiple of
    `sum_steps`.
    """
    cdef:
        Py_ssize_t steps = sum_steps(call.rows), parts = ceil_div(call.rows, SUM_ROWS), first, last
        Py_ssize_t blocks = ceil_div(call.steps, steps) * parts, block, row, i
        Py_ssize_t count = ceil_div(stop - start, steps) * parts     # in this chunk
        bint new_sum
    for i in range(count):
        block = start // steps * parts + mirrored(i, count, not call.reverse)
        first = block // parts * steps * call.rows
        last = min(first + steps * call.rows, call.steps * call.rows)
        row = first + partition(last - first, block % parts, parts)
        last = first + partition(last - first, block % parts + 1, parts)
        block = mirrored(block, blocks, call.reverse)
        new_sum = call.levels > 1 and (block + 1) % SUM_BLOCKS == 0
        add_block(call, row, last - row, block == blocks - 1, new_sum, part)
        carry(call, block, blocks, part)


cdef void add_block(const Call *call, Py_ssize_t row, Py_ssize_t rows, bint first_block,
                    bint new_sum, const Partition *part) noexcept nogil:
    """Add rows row .. row + rows of all T*N to the first level.

    The first block of a call sets the level, and so does `new_sum`. The biases have no levels.
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
        View2 h = View2(state_rows(call, call.reverse, row), layer.ld_h)
        View2 q = View2(call.gates + row * layer.ld_gates + Q_PLANE * layer.plane, layer.ld_gates)
        View2 dw_ih = View2(call.sums[0].dweight_ih + first * layer.w_ih_t.n, layer.w_ih_t.n)
        View2 dw_hh = View2(call.sums[0].dweight_hh + first * layer.plane, layer.plane)
        char *packed = part.scratch + rows * PANEL_BYTES
        int[3] to_input = [R_PLANE, Z_PLANE, N_PLANE]      # the order of the weights
        int[3] to_hidden = [R_PLANE, Z_PLANE, Q_PLANE]
    if units == 0:
        return
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


cdef void carry(const Call *call, Py_ssize_t block, Py_ssize_t blocks,
                const Partition *part) noexcept nogil:
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
        add_sums(call, level, block + size >= blocks or new_sum, part)


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
