# The plan of a call: threads, what each works on, chunks of steps, and where a call may stop.

cdef enum:
    CHUNK_BYTES = 1 << 17          # of the gates of a chunk of a forward: L2 holds them
    L2_INPUT_WEIGHTS = 1 << 19     # bytes of input weights; beyond, a chunk has about CHUNK_ROWS
    CHUNK_ROWS = 64                # rows, which share one read of the weights
    BACKWARD_ROWS = 512            # the most rows in a chunk of a backward, unless it is one step
    MERGED_ROWS = 2                # the most rows that use the merged weights of x
    SMALL_TOTAL = 120              # the most units of all rows that `small_steps` computes,
    # or without reset_after; but one row, or with it two, always
    SMALL_TOTAL_BEFORE = 80
    THREAD_WORK = 1000000          # the fewest multiply-adds per thread: about 20 us
    STEP_WORK = 20000              # the same per step, where the team meets in every step: 0.4 us
    MANY_WEIGHTS = 1 << 23         # bytes of a layer
    SHARE_BYTES = PANEL_BYTES // 2  # of the units that go to one thread together


cdef void plan_call(Call *call, int count) noexcept nogil:
    """Set the chunks, the team, and whether x is read in place."""
    cdef const PackedLayer *layer = call.layer
    call.chunk = backward_chunk(call) if call.mode == BACKWARD else forward_chunk(call)
    call.merged = layer.w_ih_merged.data != NULL and call.rows <= MERGED_ROWS
    call.x_in_place = call.x_stays
    if call.mode == INFERENCE:
        call.x_in_place = (reads_in_place(&call.x, layer.context.itemsize)
                           and call.input_dropout.data == NULL
                           and (call.ragged == NULL or call.x_packed))
    call.team, call.by_units = 1, False
    if call.max_threads > 1:
        plan_team(call, count)
    call.small = is_small(call)
    call.chunk_packed = call.team == 1 or call.by_units
    call.barrier = Barrier(0, 0, False)
    call.stop_round = 0
    call.beside = NULL
    if call.steps <= call.chunk and call.rows <= BACKWARD_ROWS:      # too short to stop in
        call.poll = NULL


cdef void plan_team(Call *call, int count) noexcept nogil:
    """How many threads, and what they partition. Calls side by side have half of the threads each.

    The team partitions the rows where there are enough: rows are independent. Partitioning the
    units costs a barrier per step, but each thread then reads only its own weights. That pays with
    few rows and many weights: 93 -> 102 GFLOP/s per core (50,16,512,1024). Five panels are 2.5 for
    each of two threads: 343 -> 303 us (40,4,100,320).
    """
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t limit = call.max_threads // count
        Py_ssize_t weights = weight_bytes(layer.w_ih) + weight_bytes(layer.w_hh)
        double step = 3.0 * layer.hidden_size * layer.hidden_size * call.rows
        double team = min(<double> limit, work_of(call) / THREAD_WORK)
    call.by_units = call.rows < 4 * limit or call.rows < 16 * limit and weights > MANY_WEIGHTS
    if call.by_units:
        team = min(min(team, layer.plane // PANEL_BYTES), step / STEP_WORK)
    call.team = max(1, <int> team)


cdef inline bint is_small(const Call *call) noexcept nogil:
    """Whether `small_steps` is faster than products, which read weights once for six rows.

    Without reset_after it takes two passes.
    """
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t units = call.rows * layer.hidden_size
    if layer.w_hh_small == NULL or call.team > 1 and call.by_units:
        return False
    if layer.reset_after:
        return call.rows <= 2 or units <= SMALL_TOTAL
    return call.rows == 1 or units <= SMALL_TOTAL_BEFORE


cdef inline Py_ssize_t weight_bytes(const PackedMatrix *gates) noexcept nogil:
    """Of the packed weights of three gates."""
    return 3 * gates.lines * gates.n


cdef double work_of(const Call *call) noexcept nogil:
    """Multiply-adds of a forward."""
    cdef const PackedLayer *layer = call.layer
    return (3.0 * layer.hidden_size * (layer.hidden_size + layer.input_size)
            * rows_before(call, call.steps))


cdef int team_of_two(const Call *calls) noexcept nogil:
    """Threads of two calls side by side; 1 where it is faster to run one after the other."""
    if calls.max_threads < 2 or work_of(calls) < THREAD_WORK:
        return 1
    return calls[0].team + calls[1].team


cdef Py_ssize_t forward_chunk(const Call *call) noexcept nogil:
    """Steps whose input projection is made at once."""
    cdef:
        const PackedLayer *layer = call.layer
        Py_ssize_t chunk
    if call.steps == 1:
        return 1
    chunk = CHUNK_BYTES // max(1, call.rows * layer.ld_gates)
    if weight_bytes(layer.w_ih) > L2_INPUT_WEIGHTS:
        chunk = max(chunk, CHUNK_ROWS // max(1, call.rows))
    return max(1, min(chunk, call.steps))


cdef Py_ssize_t backward_chunk(const Call *call) noexcept nogil:
    """Steps that are undone before their dx and dW are made: whole blocks of the sums."""
    cdef Py_ssize_t steps = sum_steps(call.rows)
    return min(call.steps, steps * max(1, BACKWARD_ROWS // max(1, steps * call.rows)))


cdef inline Partition partition_of(Call *call, int rank, int team) noexcept nogil:
    cdef:
        Py_ssize_t plane = call.layer.plane, panels = ceil_div(plane, PANEL_BYTES), shares
        Partition part = Partition(
            rank, team, 1, 0, call.rows, 0, plane, panels, call.first_step,
            &call.barrier, NULL)
    if call.by_units:
        shares = ceil_div(plane, SHARE_BYTES)
        part.column = SHARE_BYTES * partition(shares, rank, team)
        part.column_end = min(SHARE_BYTES * partition(shares, rank + 1, team), plane)
        part.panels = ceil_div(part.column_end, PANEL_BYTES) - part.column // PANEL_BYTES
        part.sharers = team
    elif team > 1:
        part.row = first_row(call, rank, team)
        part.row_end = first_row(call, rank + 1, team)
    if call.mode == BACKWARD or call.mode == INFERENCE and call.scratch_size:
        part.scratch = call.scratch + rank * call.scratch_size
    return part


cdef Py_ssize_t first_row(const Call *call, int rank, int team) noexcept nogil:
    """The first row of a thread. Threads have equal numbers of rows, over all steps."""
    cdef Py_ssize_t row = 0, left
    if call.ragged == NULL:
        return partition(call.rows, rank, team)
    left = partition(rows_before(call, call.steps), rank, team)
    while row < call.rows and left > 0:
        left -= call.ragged.lengths[row]
        row += 1
    return call.rows if rank == team else row


cdef Partition own_rows(const Partition *part) noexcept nogil:
    """The same with only the rows that no other thread of the team has."""
    return block_of(part, part.rank, part.team) if part.sharers > 1 else part[0]


cdef Partition block_of(const Partition *part, Py_ssize_t i, Py_ssize_t blocks) noexcept nogil:
    """The same with one of nearly equal blocks of its rows."""
    cdef:
        Partition block = part[0]
        Py_ssize_t rows = part.row_end - part.row
    if blocks == 1:                                        # no divisions in a small call
        return block
    block.row = part.row + partition(rows, i, blocks)
    block.row_end = part.row + partition(rows, i + 1, blocks)
    return block


# ---- stopping ----------------------------------------------------------------------------------

# Threads that share a barrier must stop at the same place. They count rounds, one per chunk. Before
# a barrier, thread 0 publishes the round to stop at; after it, every thread compares its own. A
# plain flag would not do: after one barrier, a slow thread could read one set for the next.

cdef inline void check_stop(Call *call, const Partition *part, int round_) noexcept nogil:
    """Thread 0 asks whether to stop, and publishes the round.

    Of two calls at the same time, the one on the caller's thread asks; the other follows it.
    """
    cdef int answer = GO_ON
    if part.rank != 0:
        return
    if call.poll != NULL:
        answer = call.poll(call.poll_argument)
    elif call.beside != NULL and atomic_load(&call.beside.stop_round):
        answer = STOP
    if answer & STOP or answer & FORKED and (part.team > 1 or call.beside != NULL):
        part.barrier.abandoned = answer & FORKED != 0
        atomic_store(&call.stop_round, round_)


cdef inline bint stops(const Call *call, int round_) noexcept nogil:
    cdef int stop = atomic_load(&call.stop_round)
    return 0 < stop <= round_
