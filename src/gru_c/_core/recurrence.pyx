"""The time loop: forward and backward of one direction of one layer, on plain pointers.

    r  = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
    z  = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
    n  = tanh(W_in x + b_in + r * q),  q = W_hn h + b_hn           reset_after=True
    n  = tanh(W_in x + b_in + W_hn q + b_hn),  q = r * h           reset_after=False
    h' = n + z * (h - n)

Rows never meet: blocks of rows run the time loop one after the other. Only what needs the hidden
state goes step by step; the input projection, dx and the weight gradients are products over the
rows of a chunk of steps, whose gates are then still in a cache.
"""

from libc.string cimport memset

from gru_c._core.dispatch cimport kernels
from gru_c._core.kernels cimport TILE_ROWS, Kernels, real
from gru_c._core.panels cimport (
    Ahead, copy_panel, multiply, pack_tiles, panel_columns, panels_ahead, strip_columns,
)
from gru_c._core.rows cimport copy_rows, pieces, round_up
from gru_c._core.threads cimport share, wait

cdef extern from "atomic.h" nogil:
    int gru_atomic_load(const int *)
    void gru_atomic_store(int *, int)

cdef enum:
    MOST_ROWS = 66                 # of a block in the time loop: eleven tiles of the product kernel
    AHEAD_BYTES = 1 << 20          # asked for while a step is in work; what L2 drops is in L3 then
    NEAR_BYTES = 1 << 20           # of the weights of a step that L2 holds
    HALF_LINE = 32                 # bytes: the most of a line that no product writes, its unit
    SHORT_ROW = 448                # bytes; of 512 a panel would leave half of the L1 sets unused
    SUM_ROWS = 256                 # of a block in a sum over all T*N rows: a panel of it is 64 KB
    SUM_BLOCKS = 16                # of one level of such a sum, in the next

cdef enum:                     # the planes of a row of the gate buffer
    N_PLANE
    R_PLANE
    Z_PLANE
    Q_PLANE


cdef inline real *gates_of(const Sequence *s, real *g, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    """The gate buffer of a step and row."""
    return g + ((t if s.save else t % s.chunk) * s.rows + row) * s.g_row


cdef inline real *state_of(
    const Weights *w, const Sequence *s, const real *_, Py_ssize_t t, Py_ssize_t row,
) noexcept nogil:
    """The hidden state that step t reads; step t - 1 wrote it."""
    return <real *> s.h + ((t if s.save else t & 1) * s.rows + row) * w.padded


cdef inline const real *bias_of(const Weights *w, const real *_, Py_ssize_t plane) noexcept nogil:
    return <const real *> w.bias + plane * w.padded


cdef inline Py_ssize_t panel_of(const Part *part, Py_ssize_t t, Py_ssize_t i) noexcept nogil:
    """The i-th panel of step t: back and forth, for what a step read last is still in a cache.

    One row, H = 1024: 48 instead of 46 GFLOP/s; H = 1760, more than L3 holds, on two threads: 60
    instead of 44.
    """
    return part.panel_end - 1 - i if t & 1 else part.panel + i


cdef Part alone(const Part *part) noexcept nogil:
    """The part again, of its rows only those that no other thread has."""
    cdef:
        Part found = part[0]
        Py_ssize_t rows = part.row_end - part.row
    if part.sharers > 1:
        found.row = part.row + share(rows, part.index, part.crew)
        found.row_end = part.row + share(rows, part.index + 1, part.crew)
    return found


cdef Py_ssize_t first_unit(const Weights *w, int index, int crew) noexcept nogil:
    """Where the units begin whose weight gradients are the thread's `index`."""
    cdef Py_ssize_t lanes = 64 // w.itemsize
    return lanes * share(w.padded // lanes, index, crew)


cdef Part block_of(const Part *part, Py_ssize_t block, Py_ssize_t blocks) noexcept nogil:
    """The part again, of its rows only one of nearly equal blocks."""
    cdef:
        Part found = part[0]
        Py_ssize_t rows = part.row_end - part.row
    found.row = part.row + rows * block // blocks
    found.row_end = part.row + rows * (block + 1) // blocks
    return found


cdef Ahead next_gates(
    const Weights *w, const Sequence *s, const Part *part, const Part *block,
    Py_ssize_t t, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """The gate buffer of step t of a block, to be asked for ahead.

    Beyond the steps first .. last it is the next block's. Calls that save only. A forward asks for
    what the next chunk projects into: 28,128,28,128 at 96 instead of 88 GFLOP/s there.
    """
    cdef:
        Ahead ahead = Ahead(NULL, 0)
        Py_ssize_t rows = block.row_end - block.row, row = block.row
    if not first <= t < last:
        t += last - first if t < first else first - last
        row = block.row_end
    if rows >= TILE_ROWS and part.sharers == 1 and row < part.row_end:
        ahead.data = <const char *> s.g + (t * s.rows + row) * s.g_row * w.itemsize
        ahead.bytes = min(AHEAD_BYTES, rows * s.g_row * w.itemsize)
    return ahead


# ---- stopping ----------------------------------------------------------------------------------

# Threads that share a barrier must stop at the same place. They count rounds, one a chunk: thread 0
# publishes, before a barrier, the round to stop at, and behind the barrier every thread compares
# its own. A plain flag would not do: a slow thread could still read at one barrier what is meant
# for the next.

cdef inline void poll(const Sequence *s, const Part *part, int round_) noexcept nogil:
    """Thread 0 asks whether to stop, and publishes the round."""
    cdef int answer
    if s.poll == NULL or part.index != 0:
        return
    answer = s.poll(s.poll_argument)
    if answer & STOP or answer & FORKED and part.crew > 1:
        part.barrier.abandoned = answer & FORKED != 0
        gru_atomic_store(s.stop, round_)


cdef inline bint stops(const Sequence *s, int round_) noexcept nogil:
    """Whether the call ends at this round."""
    cdef int stop = 0 if s.poll == NULL else gru_atomic_load(s.stop)
    return 0 < stop <= round_


# ---- forward -----------------------------------------------------------------------------------

cdef void forward(const Weights *w, const Sequence *s, real *g, const Part *part) noexcept nogil:
    """Run all steps; with `save`, g and h keep what `backward` needs."""
    cdef:
        Py_ssize_t blocks = pieces(part.row_end - part.row, MOST_ROWS), i, t
        Part block
        Ahead ahead = Ahead(NULL, 0)
        int round_ = 0
    for i in range(blocks):
        block = block_of(part, i, blocks)
        if not s.save:
            clear_padding(w, s, g, &block)
        for t in range(s.steps):
            if t % s.chunk == 0:
                round_ += 1
                if stops(s, round_):
                    return
                project(w, s, g, t, min(t + s.chunk, s.steps), &block)
            if s.save and w.reset_after:                   # asked for where q is made
                ahead = next_gates(w, s, part, &block, t + s.chunk, 0, s.steps)
            if (t + 1) % s.chunk == 0 or t + 1 == s.steps:  # threads without a barrier stop at once
                poll(s, part, round_ + 1 if part.sharers > 1 else 1)
            step(w, s, g, t, &block, &ahead)


cdef bint are_far(const Weights *w, Py_ssize_t depth, Py_ssize_t rows) noexcept nogil:
    """Whether L2 does not hold the weights of three products, and asking for them ahead pays."""
    return rows >= TILE_ROWS and 3 * depth * w.padded * w.itemsize > NEAR_BYTES


cdef void clear_padding(
    const Weights *w, const Sequence *s, real *g, const Part *part,
) noexcept nogil:
    """Zero the half line that products leave as it is where a layer ends in half a vector.

    Gates go over it, and what lies in new memory may be denormal.
    """
    cdef:
        Py_ssize_t used = w.from_input[0].used, t, row, plane
        real *gates
    if used == w.padded or part.panel_end * panel_columns(g) < w.padded:
        return
    for t in range(s.chunk):
        gates = gates_of(s, g, t, part.row)
        for row in range(part.row_end - part.row):
            for plane in range(4):
                memset(gates + row * s.g_row + plane * w.padded + used, 0, HALF_LINE)


cdef void project(
    const Weights *w, const Sequence *s, real *g, Py_ssize_t t, Py_ssize_t stop, const Part *part,
) noexcept nogil:
    """a_n, a_r, a_z = b + W_i x for steps t .. stop."""
    cdef:
        Py_ssize_t rows = part.row_end - part.row, steps = 1, plane
        bint far = are_far(w, w.inputs, rows)
        const real *x
        real *target
        Ahead ahead = Ahead(NULL, 0)
    if s.source != NULL:
        save_input(s, g, t, stop, part)
    if rows == s.rows:                                     # then the steps are one run of rows
        steps = stop - t
    while t < stop:
        x = <const real *> s.x + (t * s.rows + part.row) * s.x_row
        target = gates_of(s, g, t, part.row)
        for plane in range(3):
            if far:                                        # each asks for the next
                ahead = panels_ahead(&w.from_input[plane], part.panel + 1, part.panel_end, g)
            multiply(&w.from_input[plane], part.panel, part.panel_end, steps * rows, x, s.x_row, 0,
                     bias_of(w, g, plane), 0, target + plane * w.padded, s.g_row,
                     &ahead if far or s.save else NULL)
        if s.fused and w.reset_after:                      # the product with h adds to q, too
            kernels(g).put_output(steps * rows, w.padded, bias_of(w, g, Q_PLANE), 0,
                                  target + Q_PLANE * w.padded, s.g_row)
        t += steps


cdef void save_input(
    const Sequence *s, const real *_, Py_ssize_t t, Py_ssize_t stop, const Part *part,
) noexcept nogil:
    """x = source of steps t .. stop: a copy, for the caller may change it before the backward."""
    cdef:
        Part own = alone(part)
        const real *source
        real *x
    while t < stop:
        source = <const real *> s.source + t * s.source_step + own.row * s.source_row
        x = <real *> s.x + (t * s.rows + own.row) * s.x_row
        copy_rows(own.row_end - own.row, s.x_row * sizeof(real),
                  source, s.source_row * sizeof(real), x, s.x_row * sizeof(real))
        t += 1
    wait(part.barrier, part.sharers)


cdef void step(
    const Weights *w, const Sequence *s, real *g, Py_ssize_t t, const Part *part,
    const Ahead *next_,
) noexcept nogil:
    """h_t from h_{t-1} and the input projection."""
    cdef:
        const Kernels *kernel = kernels(g)
        Py_ssize_t rows = part.row_end - part.row, wide = panel_columns(g), i, panel, j, units
        real *n = gates_of(s, g, t, part.row)
        real *q = n + Q_PLANE * w.padded
        const real *h_prev = state_of(w, s, g, t, part.row)
        real *h = state_of(w, s, g, t + 1, part.row)
    for i in range(part.panel_end - part.panel):
        panel = panel_of(part, t, i)
        j = panel * wide
        units = min(wide, w.padded - j)
        add_hidden(w, s, n, h_prev, t, i, part, next_)
        if w.reset_after:
            kernel.gates(rows, units, w.padded, n + j, s.g_row, h_prev + j, h + j, w.padded, s.save)
        else:
            kernel.reset(rows, units, w.padded, n + j, s.g_row, h_prev + j, w.padded)
    if not w.reset_after:
        wait(part.barrier, part.sharers)                   # q = r h of all units
        for i in range(part.panel_end - part.panel):
            panel = panel_of(part, t, i)
            j = panel * wide
            units = min(wide, w.padded - j)
            multiply(&w.from_hidden[2], panel, panel + 1, rows, q, s.g_row, 0,
                     n, s.g_row, n, s.g_row, NULL)
            kernel.blend(rows, units, w.padded, n + j, s.g_row, h_prev + j, h + j, w.padded, s.save)
    if s.output != NULL:
        copy_output(w, s, h, t, part)
    wait(part.barrier, part.sharers)                       # h_t of all units


cdef void add_hidden(
    const Weights *w, const Sequence *s, real *n, const real *h_prev, Py_ssize_t t, Py_ssize_t i,
    const Part *part, const Ahead *next_,
) noexcept nogil:
    """a_r += W_hr h, a_z += W_hz h and with reset_after q = b + W_hn h, the i-th panel of step t.

    Few units of few rows take one product, whose chains go side by side: 1000 steps of one row and
    16 units in 89 instead of 120 us. Of more weights than L2 holds each product asks for the next
    one's: 10,64,161,1760 at 106 instead of 102 GFLOP/s. Else q's asks for a share of `next_`.
    """
    cdef:
        Py_ssize_t rows = part.row_end - part.row
        Py_ssize_t panel = panel_of(part, t, i), after = panel_of(part, t, i + 1), size
        int gates = 3 if w.reset_after else 2, gate
        bint far = are_far(w, w.hidden, rows)
        const real *start
        real *target
        Ahead ahead
    if s.fused:
        multiply(&w.fused, 0, pieces(w.fused.columns, panel_columns(n)), rows, h_prev, w.padded, 0,
                 n + w.padded, s.g_row, n + w.padded, s.g_row, NULL)
        return
    size = next_.bytes // (part.panel_end - part.panel)
    for gate in range(gates):                              # the planes r, z, q
        target = n + (R_PLANE + gate) * w.padded
        start = bias_of(w, n, Q_PLANE) if gate == 2 else target
        ahead = Ahead(<const char *> next_.data + i * size, size)
        if far and gate + 1 < gates:
            ahead = panels_ahead(&w.from_hidden[gate + 1], panel, panel + 1, n)
        elif far and i + 1 < part.panel_end - part.panel:
            ahead = panels_ahead(&w.from_hidden[0], after, after + 1, n)
        multiply(&w.from_hidden[gate], panel, panel + 1, rows, h_prev, w.padded, 0,
                 start, 0 if gate == 2 else s.g_row, target, s.g_row,
                 &ahead if far or gate == 2 and s.save else NULL)


cdef void copy_output(
    const Weights *w, const Sequence *s, const real *h, Py_ssize_t t, const Part *part,
) noexcept nogil:
    """output_t = h_t; the caller's rows are not padded."""
    cdef:
        Py_ssize_t first = part.panel * panel_columns(h)
        Py_ssize_t units = min(part.panel_end * panel_columns(h), w.hidden) - first
        real *output = <real *> s.output + t * s.output_step + part.row * s.output_row + first
    kernels(h).put_output(part.row_end - part.row, units, h + first, w.padded,
                          output, s.output_row)


# ---- backward ----------------------------------------------------------------------------------

cdef void backward(
    const Weights *w, const Sequence *s, const Gradients *d, real *dg, const Part *part,
) noexcept nogil:
    """All gradients, chunk by chunk from the last step; dh enters as dL/dh_n, leaves as dL/dh_0.

    dg of a chunk is used while it is in a cache: dx and dW of 28,128,28,128 at 98 instead of 87
    GFLOP/s.
    """
    cdef:
        Py_ssize_t blocks = pieces(part.row_end - part.row, MOST_ROWS), i, t, stop = s.steps, start
        Part block
        Ahead ahead
        int round_ = 0
    while stop > 0:
        start = (stop - 1) // s.chunk * s.chunk
        for i in range(blocks):
            block = block_of(part, i, blocks)
            for t in range(stop - 1, start - 1, -1):
                ahead = next_gates(w, s, part, &block, t - 1, start, stop)
                d_step(w, s, d, dg, t, &block, &ahead)
        if start == 0:
            add_product(w, d, dg, part)
        round_ += 1
        poll(s, part, round_)
        wait(part.barrier, part.crew)                      # dg of all rows and units
        if stops(s, round_):
            return
        d_inputs(w, s, d, gates_of(s, dg, start, 0), start, stop, part)
        d_weights(w, s, d, gates_of(s, dg, start, 0), start, stop, part)
        stop = start


cdef void d_step(
    const Weights *w, const Sequence *s, const Gradients *d, real *dg, Py_ssize_t t,
    const Part *part, const Ahead *next_,
) noexcept nogil:
    """The twin of `step`: dL/dh_{t-1} from dL/dh_t, and the gradients of the pre-activations.

    What comes through W_hh stays apart from the rest of dL/dh until it is whole: added to the rest
    block by block, each addition would round the large sum.
    """
    cdef:
        const Kernels *kernel = kernels(dg)
        Ahead ahead
        Py_ssize_t rows = part.row_end - part.row, j = part.panel * panel_columns(dg)
        Py_ssize_t units = min(part.panel_end * panel_columns(dg), w.padded) - j, i, panel
        const real *g = gates_of(s, <real *> s.g, t, part.row)
        real *dn = gates_of(s, dg, t, part.row)
        real *dr = dn + R_PLANE * w.padded
        const real *h_prev = state_of(w, s, dg, t, part.row)
        real *dh = <real *> d.dh + part.row * w.padded
        real *dh_product = <real *> d.dh_product + part.row * w.padded
        real *dq = <real *> d.dq + part.row * w.padded
    if d.d_output != NULL:
        add_output_gradient(w, d, dh, t, part)
    if w.reset_after:
        kernel.d_gates(rows, units, w.padded, g + j, dn + j, s.g_row, h_prev + j, dh + j,
                       dh_product + j, w.padded)
    else:
        kernel.d_blend(rows, units, w.padded, g + j, dn + j, s.g_row, h_prev + j, dh + j,
                       dh_product + j, w.padded)
        wait(part.barrier, part.sharers)                   # da_n of all units
        multiply(&w.d_reset, part.panel, part.panel_end, rows, dn, s.g_row, 0,
                 <real *> NULL, 0, dq, w.padded, NULL)
        kernel.d_reset(rows, units, w.padded, g + j, dn + j, s.g_row, h_prev + j, dq + j, dh + j,
                       w.padded)
    wait(part.barrier, part.sharers)                       # da_r, da_z and dq of all units
    ahead.bytes = next_.bytes // (part.panel_end - part.panel)
    for i in range(part.panel_end - part.panel):
        panel = panel_of(part, t, i)
        ahead.data = <const char *> next_.data + i * ahead.bytes
        multiply(&w.d_hidden, panel, panel + 1, rows, dr, s.g_row, w.padded,
                 <real *> NULL, 0, dh_product, w.padded, &ahead if ahead.bytes else NULL)


cdef void add_product(
    const Weights *w, const Gradients *d, const real *_, const Part *part,
) noexcept nogil:
    """dh += dh_product, which makes it dL/dh_0."""
    cdef:
        Py_ssize_t first = part.panel * panel_columns(_)
        Py_ssize_t units = min(part.panel_end * panel_columns(_), w.padded) - first
        Py_ssize_t place = part.row * w.padded + first
    kernels(_).add_d_output(part.row_end - part.row, units, <real *> d.dh_product + place, w.padded,
                            <real *> d.dh + place, w.padded)


cdef void add_output_gradient(
    const Weights *w, const Gradients *d, real *dh, Py_ssize_t t, const Part *part,
) noexcept nogil:
    """dh += dL/d output_t; the caller's rows are not padded."""
    cdef:
        Py_ssize_t first = part.panel * panel_columns(dh)
        Py_ssize_t units = min(part.panel_end * panel_columns(dh), w.hidden) - first
        const real *d_output = (
            <const real *> d.d_output + t * d.d_output_step + part.row * d.d_output_row + first)
    kernels(dh).add_d_output(part.row_end - part.row, units, d_output, d.d_output_row,
                             dh + first, w.padded)


# ---- of a chunk of steps -----------------------------------------------------------------------

cdef void d_inputs(
    const Weights *w, const Sequence *s, const Gradients *d, const real *dg,
    Py_ssize_t start, Py_ssize_t stop, const Part *part,
) noexcept nogil:
    """dx = [da_n da_r da_z] W_ih of steps start .. stop; the crew shares their rows.

    Rows of the product are whole vectors; where those of dx are not, it is made in scratch memory.
    """
    cdef:
        Py_ssize_t first = share((stop - start) * s.rows, part.index, part.crew), rows
        Py_ssize_t last = share((stop - start) * s.rows, part.index + 1, part.crew)
        Py_ssize_t columns = w.d_input.columns
        Ahead far = Ahead(NULL, 0)
        real *dx
        real *target
    while first < last:
        rows = min(MOST_ROWS, last - first)                # stay in the second-level cache
        dx = <real *> d.dx + (start * s.rows + first) * w.inputs
        target = dx if columns == w.inputs else <real *> part.scratch
        multiply(&w.d_input, 0, pieces(columns, panel_columns(dg)), rows,
                 dg + first * s.g_row, s.g_row, w.padded,
                 <real *> NULL, 0, target, columns, &far if target == dx else NULL)
        if target != dx:
            copy_rows(rows, w.inputs * sizeof(real), target, columns * sizeof(real),
                      dx, w.inputs * sizeof(real))
        first += rows


cdef Py_ssize_t tiles_size(Py_ssize_t rows, Py_ssize_t units) noexcept nogil:
    """Elements of a plane of `units` in tiles."""
    return round_up(units, TILE_ROWS) * rows


cdef Py_ssize_t scratch_size(const Weights *w, Py_ssize_t rows, const real *_) noexcept nogil:
    """Elements that `d_inputs` or `d_weights` of a chunk of so many rows wants."""
    rows = min(SUM_ROWS, rows)
    return max(rows * panel_columns(_) + 4 * tiles_size(rows, w.padded),
               min(MOST_ROWS, rows) * w.d_input.columns)


cdef Py_ssize_t sum_steps(Py_ssize_t rows) noexcept nogil:
    """Steps of a block of `d_weights`: of at most SUM_ROWS rows, or one step."""
    return max(1, SUM_ROWS // max(1, rows))


cdef Py_ssize_t step_blocks(Py_ssize_t rows) noexcept nogil:
    """Blocks of a step: one, more where it has more than SUM_ROWS rows, none without rows."""
    return pieces(rows, SUM_ROWS)


cdef int sum_levels(Py_ssize_t steps, Py_ssize_t rows) noexcept nogil:
    """How many levels the sums of `d_weights` need."""
    cdef Py_ssize_t blocks = pieces(steps, sum_steps(rows)) * step_blocks(rows)
    cdef int levels = 1
    while blocks > SUM_BLOCKS and levels < SUM_LEVELS:
        blocks = pieces(blocks, SUM_BLOCKS)
        levels += 1
    return levels


cdef void d_weights(
    const Weights *w, const Sequence *s, const Gradients *d, const real *dg,
    Py_ssize_t start, Py_ssize_t stop, const Part *part,
) noexcept nogil:
    """dW_ih += [da_r da_z da_n]^T x, dW_hh += [da_r da_z dq]^T h, and the biases, of a chunk.

    A sum over many rows loses digits where each is added to the large sum of all before. So rows
    are summed in blocks, blocks in the first level of `sums`, SUM_BLOCKS of them are added to the
    second level at once, and so on. Blocks are numbered from step 0 on: what is summed with what
    depends on T and N alone, not on chunks or threads. The crew shares the units, so that each sum
    is one thread's. `start` is a multiple of `sum_steps`.
    """
    cdef:
        Py_ssize_t steps = sum_steps(s.rows), parts = step_blocks(s.rows), t = stop, i
        Py_ssize_t first, last, row, block, blocks = pieces(s.steps, steps) * parts
    while t > start:
        t = (t - 1) // steps * steps
        first, last = t * s.rows, min(t + steps, s.steps) * s.rows
        for i in range(parts - 1, -1, -1):
            block = t // steps * parts + i
            row = first + share(last - first, <int> i, <int> parts)
            add_rows(w, s, d, dg + (row - start * s.rows) * s.g_row, row,
                     first + share(last - first, <int> i + 1, <int> parts) - row,
                     block == blocks - 1, d.levels > 1 and (block + 1) % SUM_BLOCKS == 0, part)
            carry(w, d, block, blocks, dg, part)


cdef void carry(
    const Weights *w, const Gradients *d, Py_ssize_t block, Py_ssize_t blocks, const real *_,
    const Part *part,
) noexcept nogil:
    """Add each level of the sums that ends with this block to the next."""
    cdef:
        Py_ssize_t unit = 1
        int level
        bint set_
    for level in range(d.levels - 1):
        unit *= SUM_BLOCKS
        if block % unit:
            return
        set_ = block + unit >= blocks or (
            level + 2 < d.levels and (block // unit + 1) % SUM_BLOCKS == 0)
        add_sums(w, &d.sums[level], &d.sums[level + 1], set_, _, part)


cdef void add_sums(
    const Weights *w, const Sums *source, const Sums *target, bint set_, const real *_,
    const Part *part,
) noexcept nogil:
    """target += source, of the units of the part; with `set_`, target = source."""
    cdef:
        Py_ssize_t P = w.padded, Q = w.d_input.columns, plane
        Py_ssize_t first = first_unit(w, part.index, part.crew)
        Py_ssize_t units = max(0, min(first_unit(w, part.index + 1, part.crew), w.hidden) - first)
    for plane in range(3):
        add_elements(<real *> source.dweight_ih + (plane * w.hidden + first) * Q,
                     <real *> target.dweight_ih + (plane * w.hidden + first) * Q, units * Q, set_)
        add_elements(<real *> source.dweight_hh + (plane * w.hidden + first) * P,
                     <real *> target.dweight_hh + (plane * w.hidden + first) * P, units * P, set_)


cdef void add_elements(
    const real *source, real *target, Py_ssize_t count, bint set_,
) noexcept nogil:
    """target += source, or target = source; `count` is a multiple of 64 bytes."""
    if set_:
        kernels(source).put_output(1, count, source, 0, target, 0)
    else:
        kernels(source).add_d_output(1, count, source, 0, target, 0)


cdef void add_rows(
    const Weights *w, const Sequence *s, const Gradients *d, const real *dg,
    Py_ssize_t row, Py_ssize_t rows, bint first_rows, bint new_level, const Part *part,
) noexcept nogil:
    """Add rows row .. row + rows of all T*N to the first level, or begin it with them.

    It begins with the first rows of all, and anew with `new_level`; the biases have no levels.
    """
    cdef:
        bint set_ = first_rows or new_level
        Py_ssize_t P = w.padded, plane, first = first_unit(w, part.index, part.crew)
        Py_ssize_t last = first_unit(w, part.index + 1, part.crew)
        Py_ssize_t units = min(last, w.hidden) - first
        real *panel = <real *> part.scratch
        real *tiles = panel + rows * panel_columns(dg)
        real *dweight_ih = <real *> d.sums[0].dweight_ih + first * w.d_input.columns
        real *dweight_hh = <real *> d.sums[0].dweight_hh + first * P
        real *dbias = <real *> d.dbias + first
        const real *x = <const real *> s.x + row * s.x_row
        const real *h = <const real *> s.h + row * P
        const real *q = <const real *> s.g + row * s.g_row + Q_PLANE * P
        int[3] to_input = [R_PLANE, Z_PLANE, N_PLANE]      # the order of the weights
        int[3] to_hidden = [R_PLANE, Z_PLANE, Q_PLANE]
    if units <= 0:                                         # more threads than vectors of units
        return
    for plane in range(4 if w.reset_after else 3):
        kernels(dg).sum_rows(rows, last - first, dg + first + plane * P, s.g_row, not first_rows,
                             dbias + plane * P, dbias + (4 + plane) * P)
        pack_tiles(rows, units, dg + first + plane * P, s.g_row,
                   tiles + plane * tiles_size(rows, units))
    add_products(rows, units, tiles, to_input, 3, w.inputs, x, s.x_row, panel,
                 dweight_ih, w.d_input.columns, w.hidden, set_)
    add_products(rows, units, tiles, to_hidden, 3 if w.reset_after else 2, w.hidden, h, P, panel,
                 dweight_hh, P, w.hidden, set_)
    if not w.reset_after:                                  # dW_hn = da_n^T q, q = r h
        add_products(rows, units, tiles, to_input + 2, 1, w.hidden, q, s.g_row, panel,
                     dweight_hh + 2 * w.hidden * P, P, w.hidden, set_)


cdef void add_products(
    Py_ssize_t rows, Py_ssize_t units, const real *tiles, const int *planes, int count,
    Py_ssize_t columns, const real *b, Py_ssize_t b_row, real *panel,
    real *c, Py_ssize_t c_row, Py_ssize_t c_units, bint set_,
) noexcept nogil:
    """C_i += A_i^T . B, A_i the planes in `tiles`, C_i `c_units` rows after one another.

    With `set_`, C_i is set, whatever it held. Short rows of B are read where they lie: dW of
    24,32,8,64 on two threads 120 instead of 127 us.
    """
    cdef:
        Py_ssize_t wide = panel_columns(b), lanes = 64 // sizeof(real), block, j, k
        Py_ssize_t filled, used, padded, strip, from_row, from_strip
        const real *from_
        real *target
    for block in range(pieces(columns, wide)):
        j = block * wide
        filled = min(wide, columns - j)
        used = round_up(filled, kernels(b).unit_bytes // sizeof(real))
        padded = round_up(filled, lanes)
        strip = strip_columns(b, padded)
        if b_row * sizeof(real) <= SHORT_ROW and j + used <= b_row:
            from_, from_row, from_strip = b + j, b_row, strip
        else:
            copy_panel(rows, filled, padded, b + j, b_row, 1, panel, rows)
            from_, from_row, from_strip = panel, strip, rows * strip
        for k in range(count):
            target = c + k * c_units * c_row + j
            kernels(b).product_tiles(
                units, used, rows, tiles + planes[k] * tiles_size(rows, units),
                from_, from_row, from_strip, not set_, target, c_row)
