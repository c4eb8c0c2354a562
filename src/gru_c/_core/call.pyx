"""One call of the core: its memory, and its split over threads."""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.string cimport memcpy, memset

from gru_c._core.kernels cimport PANEL_BYTES
from gru_c._core.recurrence cimport (
    Part, Sums, alone, backward, first_unit, forward, scratch_size, sum_levels, sum_steps,
)
from gru_c._core.rows cimport copy_rows, pieces, round_up
from gru_c._core.threads cimport Barrier, parallel, share, thread_limit, wait

cdef:
    # Of gate buffer whose input projection is made at once: it is read soon after, from L2.
    Py_ssize_t CHUNK_BYTES = 1 << 17
    # Where the weights of the input exceed L2, so many rows at least share a read of them.
    Py_ssize_t CACHED_BYTES = 1 << 19, CHUNK_ROWS = 64
    Py_ssize_t BACKWARD_ROWS = 512     # of a chunk of a backward, or one step
    Py_ssize_t FUSED_ROWS = 2          # at most, that the fused weights are for


# ---- forward -----------------------------------------------------------------------------------

cdef Outcome infer(
    Weights *w, Sequence *s, const void *h_0, Py_ssize_t h_0_row, void *h_n,
) noexcept nogil:
    cdef:
        Py_ssize_t h_bytes = 2 * s.rows * w.padded * w.itemsize, chunk = chunk_of(w, s)
        void *memory = PyMem_RawMalloc(h_bytes + chunk * s.rows * w.gate_row * w.itemsize
                                       + ALIGNMENT)
        char *end = aligned(memory)
        Outcome outcome
    if memory == NULL:
        return NO_MEMORY
    s.save, s.chunk = False, chunk
    s.h = take(&end, h_bytes)
    s.g = end
    outcome = run(w, s, h_0, h_0_row, h_n)
    PyMem_RawFree(memory)
    return outcome


cdef Outcome record(
    Weights *w, Sequence *s, const void *h_0, Py_ssize_t h_0_row, void *h_n,
) noexcept nogil:
    s.save, s.chunk = True, chunk_of(w, s)
    return run(w, s, h_0, h_0_row, h_n)


cdef Outcome run(
    Weights *w, Sequence *s, const void *h_0, Py_ssize_t h_0_row, void *h_n,
) noexcept nogil:
    """The forward on all threads, once memory and chunk are settled."""
    cdef Call call
    s.fused, s.g_row = w.fused.data != NULL and s.rows <= FUSED_ROWS, w.gate_row
    plan(&call, w, s, NULL)
    call.h_0, call.h_0_row, call.h_n = h_0, h_0_row, h_n
    parallel(forward_part, &call, call.threads)
    return STOPPED if call.stop else FINISHED


cdef Py_ssize_t chunk_of(const Weights *w, const Sequence *s) noexcept nogil:
    """How many steps have their input projection made at once."""
    cdef:
        Py_ssize_t chunk = CHUNK_BYTES // max(1, s.rows * w.gate_row * w.itemsize)
    if 3 * w.padded * w.inputs * w.itemsize > CACHED_BYTES:
        chunk = max(chunk, CHUNK_ROWS // max(1, s.rows))
    return max(1, min(chunk, s.steps))


cdef void start(const Call *call, const Part *part) noexcept nogil:
    """h_0, or zeros, into the first slot of h: rows of the part."""
    cdef:
        const Weights *w = call.w
        Py_ssize_t row = w.padded * w.itemsize, rows = part.row_end - part.row
        Py_ssize_t h_0_row = call.h_0_row * w.itemsize
        char *h = <char *> call.s.h + part.row * row
    if call.h_0 == NULL or w.padded > w.hidden:
        memset(h, 0, rows * row)
    if call.h_0 != NULL:
        copy_rows(rows, w.hidden * w.itemsize, <const char *> call.h_0 + part.row * h_0_row,
                  h_0_row, h, row)


cdef void finish(const Call *call, const Part *part) noexcept nogil:
    """h_n (N, H) out of the last slot of h, unless NULL: rows of the part."""
    cdef:
        const Weights *w = call.w
        const Sequence *s = call.s
        Py_ssize_t row = w.padded * w.itemsize, H = w.hidden * w.itemsize
        Py_ssize_t slot = s.steps if s.save else s.steps & 1
    if call.h_n != NULL:
        copy_rows(part.row_end - part.row, H,
                  <const char *> s.h + (slot * s.rows + part.row) * row, row,
                  <char *> call.h_n + part.row * H, H)


# ---- backward ----------------------------------------------------------------------------------

cdef Outcome differentiate(
    Weights *w, Sequence *s, Gradients *d, Arrays *out, bint keep,
) noexcept nogil:
    cdef:
        Call call
        void *memory
    s.save, s.g_row = True, w.gate_row
    s.chunk = sum_steps(s.rows)                            # whole blocks of `d_weights`
    s.chunk = min(s.steps, s.chunk * max(1, BACKWARD_ROWS // max(1, s.chunk * s.rows)))
    d.dg = NULL if keep else s.g
    plan(&call, w, s, d)
    call.out = out
    memory = PyMem_RawMalloc(lay_out(&call, NULL))
    if memory == NULL:
        return NO_MEMORY
    lay_out(&call, memory)
    parallel(backward_part, &call, call.threads)
    PyMem_RawFree(memory)
    return STOPPED if call.stop else FINISHED


cdef Py_ssize_t lay_out(Call *call, void *memory) noexcept nogil:
    """Give the buffers of a backward their places in `memory`; how many bytes that takes.

    Gradients of weights whose rows are whole vectors are made where the caller wants them.
    """
    cdef:
        Weights *w = call.w
        Gradients *d = call.d
        char *end = aligned(memory)
        Py_ssize_t state = call.s.rows * w.padded * w.itemsize
        int level
        bint last
    d.levels = sum_levels(call.s.steps, call.s.rows)
    if d.dg != call.s.g:
        d.dg = take(&end, call.s.steps * call.s.rows * w.gate_row * w.itemsize)
    d.dh = take(&end, state)
    d.dh_product = take(&end, state)
    d.dbias = take(&end, 8 * w.padded * w.itemsize)
    d.dq = take(&end, 0 if w.reset_after else state)
    for level in range(d.levels):
        last = level == d.levels - 1
        d.sums[level].dweight_ih = call.out.dweight_ih
        d.sums[level].dweight_hh = call.out.dweight_hh
        if not last or w.padded_inputs != w.inputs:
            d.sums[level].dweight_ih = take(&end, 3 * w.hidden * w.padded_inputs * w.itemsize)
        if not last or w.padded != w.hidden:
            d.sums[level].dweight_hh = take(&end, 3 * w.hidden * w.padded * w.itemsize)
    call.scratch = <char *> take(&end, call.threads * call.scratch_bytes)
    return end - <char *> memory + ALIGNMENT


cdef void scatter(const Call *call, const Part *part) noexcept nogil:
    """Set what the core adds to: dh and dq of rows of the part; sums over no rows are zero."""
    cdef:
        const Weights *w = call.w
        const Gradients *d = call.d
        Py_ssize_t H = w.hidden * w.itemsize, P = w.padded * w.itemsize
        Py_ssize_t rows = part.row_end - part.row, d_h_n_row = call.out.d_h_n_row * w.itemsize
        char *dh = <char *> d.dh + part.row * P
    memset(dh, 0, rows * P)
    memset(<char *> d.dh_product + part.row * P, 0, rows * P)
    if not w.reset_after:
        memset(<char *> d.dq + part.row * P, 0, rows * P)
    if call.out.d_h_n != NULL:
        copy_rows(rows, H, <const char *> call.out.d_h_n + part.row * d_h_n_row, d_h_n_row, dh, P)
    if part.index == 0 and call.s.rows == 0:
        memset(d.dbias, 0, 4 * P)
        memset(d.sums[0].dweight_ih, 0, 3 * H * w.padded_inputs)
        memset(d.sums[0].dweight_hh, 0, 3 * P * w.hidden)


cdef void gather(const Call *call, const Part *part) noexcept nogil:
    """Bring the gradients where the caller wants them: of rows of the part, and of its units."""
    cdef:
        const Weights *w = call.w
        const Gradients *d = call.d
        const Sums *sums = &d.sums[d.levels - 1]
        Arrays *out = call.out
        Py_ssize_t H = w.hidden * w.itemsize, P = w.padded * w.itemsize, gate, row
        Py_ssize_t inputs = w.inputs * w.itemsize, padded_inputs = w.padded_inputs * w.itemsize
        Py_ssize_t first = first_unit(w, part.index, part.crew)
        Py_ssize_t units = min(first_unit(w, part.index + 1, part.crew), w.hidden) - first
        Py_ssize_t size = units * w.itemsize
        char *dbias = <char *> d.dbias + first * w.itemsize                    # n r z q
        Py_ssize_t[3] planes = [1, 2, 0]                   # of the gates r z n in it
        Py_ssize_t[3] hidden_planes = [1, 2, 3 if w.reset_after else 0]
    copy_rows(part.row_end - part.row, H, <char *> d.dh + part.row * P, P,
              <char *> out.dh_0 + part.row * H, H)
    for gate in range(3 if units > 0 else 0):
        row = gate * w.hidden + first
        if sums.dweight_ih != out.dweight_ih:
            copy_rows(units, inputs, <char *> sums.dweight_ih + row * padded_inputs, padded_inputs,
                      <char *> out.dweight_ih + row * inputs, inputs)
        if sums.dweight_hh != out.dweight_hh:
            copy_rows(units, H, <char *> sums.dweight_hh + row * P, P,
                      <char *> out.dweight_hh + row * H, H)
        if out.dbias_ih != NULL:
            memcpy(<char *> out.dbias_ih + row * w.itemsize, dbias + planes[gate] * P, size)
            memcpy(<char *> out.dbias_hh + row * w.itemsize, dbias + hidden_planes[gate] * P, size)


cdef char *aligned(void *memory) noexcept nogil:
    """The first place in `memory` for a buffer."""
    return <char *> ((<size_t> memory + ALIGNMENT - 1) & ~<size_t> (ALIGNMENT - 1))


cdef void *take(char **end, Py_ssize_t size) noexcept nogil:
    """The next piece of memory, of whole lines."""
    cdef void *piece = end[0]
    end[0] += round_up(size, ALIGNMENT)
    return piece


# ---- the split over threads --------------------------------------------------------------------

cdef struct Call:
    Weights *w
    Sequence *s
    const void *h_0            # of a forward: (N, H), rows h_0_row apart, or NULL for zeros
    Py_ssize_t h_0_row
    void *h_n                  # (N, H), or NULL
    Gradients *d               # of a backward, else NULL
    Arrays *out
    int threads
    bint by_units
    Barrier barrier
    int stop                   # see Sequence
    char *scratch              # of a backward, a piece a thread
    Py_ssize_t scratch_bytes   # of a piece, a multiple of 64

cdef:
    double LEAST_WORK = 1e6        # multiply-adds a thread: about 20 us
    double LEAST_STEP = 2e4        # the same of a step, where threads meet in each: 0.4 us
    Py_ssize_t MANY_WEIGHTS = 1 << 23                      # bytes, of a layer


cdef void plan(Call *call, Weights *w, Sequence *s, Gradients *d) noexcept nogil:
    """Threads for a call: by rows where there are enough, else by units, else one.

    Rows need nothing of each other. Units need a barrier in each step, but each thread reads its
    own weights only: with few rows and many weights that pays (50,16,512,1024: 102 instead of 93
    GFLOP/s a core).
    """
    cdef:
        double step = 3.0 * w.hidden * w.hidden * s.rows
        double work = s.steps * (step + 3.0 * w.hidden * w.inputs * s.rows)
        Py_ssize_t units = w.padded * w.itemsize // PANEL_BYTES
        Py_ssize_t weights = 3 * w.padded * (w.inputs + w.hidden) * w.itemsize
        int limit = thread_limit()
    call.w, call.s, call.d = w, s, d
    call.barrier = Barrier(0, 0, False)
    call.stop = 0
    s.stop = &call.stop
    if s.steps <= s.chunk and s.rows <= BACKWARD_ROWS:     # one chunk: nowhere to stop
        s.poll = NULL
    call.by_units = s.rows < 4 * limit or s.rows < 16 * limit and weights > MANY_WEIGHTS
    call.threads = <int> min(<double> limit, work / LEAST_WORK)
    if call.by_units:
        call.threads = <int> min(<double> min(<Py_ssize_t> call.threads, units), step / LEAST_STEP)
    call.threads = max(1, call.threads)
    call.scratch_bytes = 0
    if d != NULL and w.itemsize == sizeof(float):
        call.scratch_bytes = sizeof(float) * scratch_size(w, s.chunk * s.rows, <float *> NULL)
    elif d != NULL:
        call.scratch_bytes = sizeof(double) * scratch_size(w, s.chunk * s.rows, <double *> NULL)
    call.scratch_bytes = round_up(call.scratch_bytes, ALIGNMENT)


cdef Part part_of(Call *call, int index, int count) noexcept nogil:
    cdef:
        Py_ssize_t panels = pieces(call.w.padded * call.w.itemsize, PANEL_BYTES)
        Part part = Part(0, call.s.rows, 0, panels, &call.barrier, 1, index, count, NULL)
    if call.by_units:
        part.panel = share(panels, index, count)
        part.panel_end = share(panels, index + 1, count)
        part.sharers = count
    else:
        part.row = share(call.s.rows, index, count)
        part.row_end = share(call.s.rows, index + 1, count)
    if call.d != NULL:
        part.scratch = call.scratch + index * call.scratch_bytes
    return part


cdef void forward_part(void *argument, int index, int count) noexcept nogil:
    cdef:
        Call *call = <Call *> argument
        Part part = part_of(call, index, count)
        Part own = alone(&part)
    start(call, &own)
    wait(part.barrier, part.sharers)
    if call.w.itemsize == sizeof(float):
        forward(call.w, call.s, <float *> call.s.g, &part)
    else:
        forward(call.w, call.s, <double *> call.s.g, &part)
    finish(call, &own)


cdef void backward_part(void *argument, int index, int count) noexcept nogil:
    cdef:
        Call *call = <Call *> argument
        Part part = part_of(call, index, count)
        Part own = alone(&part)
    scatter(call, &own)
    wait(part.barrier, part.sharers)
    if call.w.itemsize == sizeof(float):
        backward(call.w, call.s, call.d, <float *> call.d.dg, &part)
    else:
        backward(call.w, call.s, call.d, <double *> call.d.dg, &part)
    gather(call, &own)
