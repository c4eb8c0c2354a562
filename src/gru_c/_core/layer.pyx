"""The boundary between Python and the core: one direction of one layer, packed.

Everything that enters here was checked in Python (`gru_c/_layer.py`): shapes, dtypes, strides. The
methods take the pointers out of the arrays, release the GIL and call the core.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from gru_c._core.dispatch cimport kernels
from gru_c._core.kernels cimport real
from gru_c._core.panels cimport Panels, pack
from gru_c._core.recurrence cimport (
    Gradients, Part, Sequence, Weights, backward, forward, scratch_size,
)
from gru_c._core.threads cimport Barrier, parallel, share, thread_limit

cdef extern from "cpu.h" nogil:
    void *allocate_weights(size_t size)

cnp.import_array()

cdef:
    Py_ssize_t ALIGNMENT = 64
    # Of gate buffer whose input projection is made at once: it is read soon after, from L2.
    Py_ssize_t CHUNK_BYTES = 1 << 17
    # Where the weights of the input exceed L2, so many rows at least share a read of them.
    Py_ssize_t CACHED_BYTES = 1 << 19, CHUNK_ROWS = 64
    Py_ssize_t BACKWARD_ROWS = 512     # of a chunk of a backward, or one step


cdef void *pointer(cnp.ndarray array) noexcept:
    """The address of the first element of an array that the caller keeps alive; NULL for None."""
    return NULL if array is None else cnp.PyArray_DATA(array)


cdef class Block:
    """Aligned, zeroed memory that is freed with its owner; `take` hands it out piece by piece."""
    cdef:
        void *memory
        Py_ssize_t taken

    def __cinit__(self, Py_ssize_t size):
        self.memory = allocate_weights(size)
        if self.memory == NULL:
            raise MemoryError(f"could not allocate {size} bytes for packed weights")
        memset(self.memory, 0, size)

    def __dealloc__(self):
        free(self.memory)

    cdef void *take(self, Py_ssize_t size) noexcept:
        cdef void *piece = <char *> self.memory + self.taken
        self.taken += size
        return piece


@cython.final
cdef class PackedLayer:
    """Weights of one direction of one layer in the order that the products want.

    Parameters: C-contiguous arrays weight_ih (3H, I), weight_hh (3H, H), and the biases (3H,) or
    None, gate order r z n, all of one dtype (float32 or float64, itemsize 4 or 8).
    """
    cdef:
        Weights w
        int itemsize
        int type_number                # NumPy's
        object weights                 # the arrays: the backward panels are made when first needed
        Block forward_block
        Block backward_block
    cdef readonly:
        Py_ssize_t padded              # H, rounded up to 64 bytes
        Py_ssize_t padded_inputs
        Py_ssize_t gate_row            # row length of the gate buffer

    def __init__(self, weight_ih, weight_hh, bias_ih, bias_hh, bint reset_after):
        cdef Py_ssize_t lanes
        self.itemsize = weight_ih.itemsize
        self.type_number = weight_ih.dtype.num
        self.weights = (weight_ih, weight_hh)
        lanes = ALIGNMENT // self.itemsize
        self.w.inputs = weight_ih.shape[1]
        self.w.hidden = weight_hh.shape[1]
        self.w.padded = self.padded = round_up(self.w.hidden, lanes)
        self.padded_inputs = round_up(self.w.inputs, lanes)
        # A line more than the four planes: rows a multiple of 4 KB apart would share cache sets.
        self.gate_row = 4 * self.padded + lanes
        self.w.reset_after = reset_after
        if self.itemsize == sizeof(float):
            self.pack_forward(<float *> pointer(weight_ih), <float *> pointer(weight_hh),
                              <float *> pointer(bias_ih), <float *> pointer(bias_hh))
        else:
            self.pack_forward(<double *> pointer(weight_ih), <double *> pointer(weight_hh),
                              <double *> pointer(bias_ih), <double *> pointer(bias_hh))

    cdef int pack_forward(self, const real *weight_ih, const real *weight_hh,
                          const real *bias_ih, const real *bias_hh) except -1:
        cdef:
            Weights *w = &self.w
            Py_ssize_t K = w.inputs, H = w.hidden, P = w.padded, i, j
            Py_ssize_t[3] gates = [2, 0, 1]                # of n r z in weights stacked r z n
            real *bias
            Block block = Block(sizeof(real) * P * (3 * K + 3 * H + 4))
        # Rows of the weights are units: B[k, j] = W[j, k].
        for i in range(3):
            allot(&w.from_input[i], block, 1, K, P, weight_ih)
            pack(&w.from_input[i], 0, weight_ih + gates[i] * H * K, 1, K, H)
        for i in range(3):
            allot(&w.from_hidden[i], block, 1, H, P, weight_hh)
            pack(&w.from_hidden[i], 0, weight_hh + i * H * H, 1, H, H)
        if bias_ih != NULL:
            bias = <real *> block.take(sizeof(real) * 4 * P)
            for j in range(H):
                bias[P + j] = bias_ih[j] + bias_hh[j]
                bias[2 * P + j] = bias_ih[H + j] + bias_hh[H + j]
                bias[j] = bias_ih[2 * H + j]
                if w.reset_after:
                    bias[3 * P + j] = bias_hh[2 * H + j]
                else:
                    bias[j] += bias_hh[2 * H + j]
            w.bias = bias
        self.forward_block = block
        return 0

    cdef int pack_backward(self, const real *weight_ih, const real *weight_hh) except -1:
        cdef:
            Weights *w = &self.w
            Py_ssize_t K = w.inputs, H = w.hidden, P = w.padded, Q = self.padded_inputs, i
            Py_ssize_t[3] gates = [2, 0, 1]
            Block block = Block(sizeof(real) * 3 * H * (Q + P))
        allot(&w.d_input, block, 3, H, Q, weight_ih)
        for i in range(3):
            pack(&w.d_input, i, weight_ih + gates[i] * H * K, K, 1, K)
        allot(&w.d_hidden, block, 3 if w.reset_after else 2, H, P, weight_hh)
        for i in range(w.d_hidden.segments):
            pack(&w.d_hidden, i, weight_hh + i * H * H, H, 1, H)
        if not w.reset_after:
            allot(&w.d_reset, block, 1, H, P, weight_hh)
            pack(&w.d_reset, 0, weight_hh + 2 * H * H, H, 1, H)
        self.backward_block = block
        return 0

    cdef Py_ssize_t chunk_of(self, Py_ssize_t steps, Py_ssize_t rows) noexcept:
        """How many steps have their input projection made at once."""
        cdef:
            Py_ssize_t row_bytes = max(1, rows * self.gate_row * self.itemsize)
            Py_ssize_t weight_bytes = 3 * self.w.padded * self.w.inputs * self.itemsize
            Py_ssize_t chunk = CHUNK_BYTES // row_bytes
        if weight_bytes > CACHED_BYTES:
            chunk = max(chunk, CHUNK_ROWS // max(1, rows))
        return max(1, min(chunk, steps))

    cdef int infer_rows(self, Py_ssize_t steps, Py_ssize_t rows, const char *x, const char *h_0,
                        Py_ssize_t h_0_row, char *output, Py_ssize_t output_step,
                        Py_ssize_t output_row, char *h_n) except -1:
        """Run without saving, in scratch memory of this call. Strides in elements."""
        cdef:
            Sequence s
            Run run
            Py_ssize_t row_bytes = rows * self.gate_row * self.itemsize
            Py_ssize_t h_bytes = rows * self.w.padded * self.itemsize
            void *memory
        s.chunk = self.chunk_of(steps, rows)
        s.steps, s.rows, s.save = steps, rows, False
        s.x, s.x_row, s.source = x, self.w.inputs, NULL
        s.output, s.output_step, s.output_row = output, output_step, output_row
        s.g_row = self.gate_row
        with nogil:
            memory = PyMem_RawMalloc(s.chunk * row_bytes + 2 * h_bytes + ALIGNMENT)
            if memory != NULL:
                s.h = <void *> ((<size_t> memory + ALIGNMENT - 1) & ~<size_t> (ALIGNMENT - 1))
                s.g = <char *> s.h + 2 * h_bytes
                self.start(&s, h_0, h_0_row)
                plan(&run, &self.w, &s, NULL, self.itemsize)
                parallel(forward_part, &run, run.threads)
                self.finish(&s, h_n)
                PyMem_RawFree(memory)
        if memory == NULL:
            raise MemoryError(f"could not allocate the gate buffer of {rows} rows")
        return 0

    cdef void start(self, Sequence *s, const char *h_0, Py_ssize_t h_0_row) noexcept nogil:
        """h_0, or zeros, into the first slot of h."""
        cdef Py_ssize_t row = self.w.padded * self.itemsize
        if h_0 == NULL or self.w.padded > self.w.hidden:
            memset(s.h, 0, s.rows * row)
        if h_0 != NULL:
            copy_rows(s.rows, self.w.hidden * self.itemsize, h_0, h_0_row * self.itemsize,
                      <char *> s.h, row)

    cdef void finish(self, Sequence *s, char *h_n) noexcept nogil:
        """h_n (N, H) out of the last slot of h, unless NULL."""
        cdef:
            Py_ssize_t row = self.w.padded * self.itemsize, H = self.w.hidden * self.itemsize
            Py_ssize_t slot = s.steps if s.save else s.steps & 1
        if h_n != NULL:
            copy_rows(s.rows, H, <char *> s.h + slot * s.rows * row, row, h_n, H)

    def infer(self, cnp.ndarray x, cnp.ndarray h_0, cnp.ndarray output,
              Py_ssize_t output_step, Py_ssize_t output_row, cnp.ndarray h_n):
        """Run without saving: x (T, N, I) and h_n (N, H) or None contiguous, h_0 (N, H) or None."""
        self.infer_rows(x.shape[0], x.shape[1], <char *> pointer(x), <char *> pointer(h_0),
                        self.stride(h_0, 0), <char *> pointer(output), output_step, output_row,
                        <char *> pointer(h_n))

    cdef Py_ssize_t stride(self, cnp.ndarray a, int axis) noexcept:
        """In elements; 0 for None."""
        return 0 if a is None else cnp.PyArray_STRIDE(a, axis) // self.itemsize

    def step(self, x, h, out):
        """One step where x, h (or None) and out are arrays just as the core wants them.

        Else nothing happens and the answer is False: the caller finds out what to do, or to say.
        """
        cdef:
            Py_ssize_t rows
            char *x_data
            char *out_data
        if not (self.fits(x, self.w.inputs) and self.fits(out, self.w.hidden)
                and (h is None or self.fits(h, self.w.hidden))):
            return False
        rows = row_count(x)
        x_data = <char *> pointer(x)
        out_data = <char *> pointer(out)
        if row_count(out) != rows or not cnp.PyArray_ISWRITEABLE(out):
            return False
        if cnp.PyArray_NDIM(x) != cnp.PyArray_NDIM(out):
            return False
        if h is not None and (row_count(h) != rows or cnp.PyArray_NDIM(x) != cnp.PyArray_NDIM(h)):
            return False
        if (x_data < out_data + rows * self.w.hidden * self.itemsize
                and out_data < x_data + rows * self.w.inputs * self.itemsize):
            return False                                   # a row's output could be another's input
        self.infer_rows(1, rows, x_data, <char *> pointer(h), self.w.hidden, out_data,
                        0, self.w.hidden, NULL)
        return True

    cdef bint fits(self, a, Py_ssize_t columns) noexcept:
        """Whether `a` is a plain array of our dtype, in C order, (columns,) or (N, columns)."""
        if not cnp.PyArray_CheckExact(a):
            return False
        return (cnp.PyArray_TYPE(a) == self.type_number and cnp.PyArray_ISCARRAY_RO(a)
                and 1 <= cnp.PyArray_NDIM(a) <= 2
                and cnp.PyArray_DIM(a, cnp.PyArray_NDIM(a) - 1) == columns)

    def record(self, cnp.ndarray x, cnp.ndarray saved, cnp.ndarray g, cnp.ndarray h,
               cnp.ndarray h_0, cnp.ndarray output, Py_ssize_t output_step, Py_ssize_t output_row,
               cnp.ndarray h_n):
        """Run and save: x (T, N, I), saved (T, N, x_row), g (T, N, gate_row), h (T + 1, N, padded).

        `saved` becomes a copy of x, unless it is x. Rows of x and h_0 are contiguous.
        """
        cdef:
            Sequence s
            Run run
            char *h_0_data = <char *> pointer(h_0)
            char *h_n_data = <char *> pointer(h_n)
            Py_ssize_t h_0_row = self.stride(h_0, 0)
        s.steps, s.rows, s.save = x.shape[0], x.shape[1], True
        s.chunk = self.chunk_of(s.steps, s.rows)
        s.x, s.x_row = pointer(saved), self.stride(saved, 1)
        s.source = NULL if saved is x else pointer(x)
        s.source_step, s.source_row = self.stride(x, 0), self.stride(x, 1)
        s.g, s.g_row, s.h = pointer(g), self.gate_row, pointer(h)
        s.output, s.output_step, s.output_row = pointer(output), output_step, output_row
        with nogil:
            self.start(&s, h_0_data, h_0_row)
            plan(&run, &self.w, &s, NULL, self.itemsize)
            parallel(forward_part, &run, run.threads)
            self.finish(&s, h_n_data)

    def backward(self, cnp.ndarray x, cnp.ndarray g, cnp.ndarray h,
                 cnp.ndarray d_output, cnp.ndarray d_h_n, cnp.ndarray dx, cnp.ndarray dh_0,
                 cnp.ndarray dweight_ih, cnp.ndarray dweight_hh,
                 cnp.ndarray dbias_ih, cnp.ndarray dbias_hh, bint keep):
        """Gradients of a saved call, into dx and those after it, contiguous.

        d_output (T, N, H) and d_h_n (N, H), or None, have contiguous rows. g is overwritten unless
        `keep`.
        """
        cdef:
            Sequence s
            Gradients d
            Run run
            Gathered out = Gathered(
                pointer(d_h_n), self.stride(d_h_n, 0), pointer(dh_0), pointer(dweight_ih),
                pointer(dweight_hh), pointer(dbias_ih), pointer(dbias_hh))
            void *memory
        if self.backward_block is None:
            if self.itemsize == sizeof(float):
                self.pack_backward(<float *> pointer(self.weights[0]),
                                   <float *> pointer(self.weights[1]))
            else:
                self.pack_backward(<double *> pointer(self.weights[0]),
                                   <double *> pointer(self.weights[1]))
        s.steps, s.rows, s.save = g.shape[0], g.shape[1], True
        s.chunk = max(1, min(s.steps, BACKWARD_ROWS // max(1, s.rows)))
        s.x, s.x_row = pointer(x), self.stride(x, 1)
        s.g, s.g_row, s.h = pointer(g), self.gate_row, pointer(h)
        d.d_output, d.dx, d.dg = pointer(d_output), pointer(dx), NULL if keep else s.g
        d.d_output_step, d.d_output_row = self.stride(d_output, 0), self.stride(d_output, 1)
        with nogil:
            plan(&run, &self.w, &s, &d, self.itemsize)
            memory = PyMem_RawMalloc(self.lay_out(&run, &out, NULL))
            if memory != NULL:
                self.lay_out(&run, &out, <char *> memory)
                self.scatter(&run, &out)
                parallel(backward_part, &run, run.threads)
                self.gather(&run, &out)
                PyMem_RawFree(memory)
        if memory == NULL:
            raise MemoryError(f"could not allocate the gradients of {s.rows} rows")

    cdef Py_ssize_t lay_out(self, Run *run, Gathered *out, char *memory) noexcept nogil:
        """Give the buffers of a backward their places in `memory`; how many bytes that takes.

        Gradients of weights whose rows are whole vectors are made where the caller wants them.
        """
        cdef:
            Weights *w = run.w
            Gradients *d = run.d
            char *end = <char *> ((<size_t> memory + ALIGNMENT - 1) & ~<size_t> (ALIGNMENT - 1))
            Py_ssize_t state = run.s.rows * w.padded * self.itemsize
        d.dweight_ih, d.dweight_hh = out.dweight_ih, out.dweight_hh
        if d.dg != run.s.g:
            d.dg = take(&end, run.s.steps * run.s.rows * self.gate_row * self.itemsize)
        d.dh = take(&end, state)
        d.dq = take(&end, 0 if w.reset_after else state)
        d.dbias = take(&end, 4 * w.padded * self.itemsize)
        if self.padded_inputs != w.inputs:
            d.dweight_ih = take(&end, 3 * w.hidden * self.padded_inputs * self.itemsize)
        if w.padded != w.hidden:
            d.dweight_hh = take(&end, 3 * w.hidden * w.padded * self.itemsize)
        run.scratch = <char *> take(&end, run.threads * run.scratch_bytes)
        return end - memory + ALIGNMENT

    cdef void scatter(self, Run *run, Gathered *out) noexcept nogil:
        """Set what the core adds to."""
        cdef Py_ssize_t H = self.w.hidden * self.itemsize, P = self.w.padded * self.itemsize
        memset(run.d.dbias, 0, 4 * P)
        memset(run.d.dh, 0, run.s.rows * P)
        if out.d_h_n != NULL:
            copy_rows(run.s.rows, H, <char *> out.d_h_n, out.d_h_n_row * self.itemsize,
                      <char *> run.d.dh, P)
        if run.s.rows == 0:                                # sums over no rows
            memset(run.d.dweight_ih, 0, 3 * H * self.padded_inputs)
            memset(run.d.dweight_hh, 0, 3 * P * self.w.hidden)

    cdef void gather(self, Run *run, Gathered *out) noexcept nogil:
        """Bring the gradients where the caller wants them."""
        cdef:
            Py_ssize_t H = self.w.hidden * self.itemsize, P = self.w.padded * self.itemsize
            Py_ssize_t inputs = self.w.inputs * self.itemsize
            char *dbias = <char *> run.d.dbias             # n r z q
        copy_rows(run.s.rows, H, <char *> run.d.dh, P, <char *> out.dh_0, H)
        if run.d.dweight_ih != out.dweight_ih:
            copy_rows(3 * self.w.hidden, inputs, <char *> run.d.dweight_ih,
                      self.padded_inputs * self.itemsize, <char *> out.dweight_ih, inputs)
        if run.d.dweight_hh != out.dweight_hh:
            copy_rows(3 * self.w.hidden, H, <char *> run.d.dweight_hh, P,
                      <char *> out.dweight_hh, H)
        if out.dbias_ih != NULL:
            copy_rows(2, H, dbias + P, P, <char *> out.dbias_ih, H)
            copy_rows(2, H, dbias + P, P, <char *> out.dbias_hh, H)
            memcpy(<char *> out.dbias_ih + 2 * H, dbias, H)
            memcpy(<char *> out.dbias_hh + 2 * H, dbias + (3 * P if self.w.reset_after else 0), H)


# What a backward gets beside the buffers of the core, and gives.
cdef struct Gathered:
    void *d_h_n
    Py_ssize_t d_h_n_row
    void *dh_0              # (N, H)
    void *dweight_ih        # (3H, I)
    void *dweight_hh        # (3H, H)
    void *dbias_ih          # (3H)
    void *dbias_hh


cdef void copy_rows(Py_ssize_t rows, Py_ssize_t size, const char *source, Py_ssize_t source_row,
                    char *target, Py_ssize_t target_row) noexcept nogil:
    """Sizes in bytes."""
    cdef Py_ssize_t i
    for i in range(rows):
        memcpy(target + i * target_row, source + i * source_row, size)


cdef void *take(char **end, Py_ssize_t size) noexcept nogil:
    """The next piece of memory, of whole lines."""
    cdef void *piece = end[0]
    end[0] += round_up(size, ALIGNMENT)
    return piece


# ---- how a call is split over threads ----------------------------------------------------------

cdef struct Run:
    Weights *w
    Sequence *s
    Gradients *d
    int itemsize
    int threads
    bint by_units
    Barrier barrier
    char *scratch              # of a backward, a piece a thread
    Py_ssize_t scratch_bytes   # of a piece, a multiple of 64

cdef:
    double LEAST_WORK = 1e6        # multiply-adds a thread: about 20 us
    double LEAST_STEP = 2e4        # the same of a step, where threads meet in each: 0.4 us
    Py_ssize_t MANY_WEIGHTS = 1 << 23                      # bytes, of a layer


cdef void plan(Run *run, Weights *w, Sequence *s, Gradients *d, int itemsize) noexcept nogil:
    """Threads for a call: by rows where there are enough, else by units, else one.

    Rows need nothing of each other. Units need a barrier in each step, but each thread reads its
    own weights only: with few rows and many weights that pays (50,16,512,1024: 102 instead of 93
    GFLOP/s a core).
    """
    cdef:
        double step = 3.0 * w.hidden * w.hidden * s.rows
        double work = s.steps * (step + 3.0 * w.hidden * w.inputs * s.rows)
        Py_ssize_t units = w.padded * itemsize // 256
        Py_ssize_t weights = 3 * w.padded * (w.inputs + w.hidden) * itemsize
        int limit = thread_limit()
    run.w, run.s, run.d, run.itemsize = w, s, d, itemsize
    run.barrier = Barrier(0, 0)
    run.by_units = s.rows < 4 * limit or s.rows < 16 * limit and weights > MANY_WEIGHTS
    run.threads = <int> min(<double> limit, work / LEAST_WORK)
    if run.by_units:
        run.threads = <int> min(<double> min(<Py_ssize_t> run.threads, units), step / LEAST_STEP)
    run.threads = max(1, run.threads)
    run.scratch_bytes = 0
    if d != NULL and itemsize == sizeof(float):
        run.scratch_bytes = sizeof(float) * scratch_size(w, s.chunk * s.rows, <float *> NULL)
    elif d != NULL:
        run.scratch_bytes = sizeof(double) * scratch_size(w, s.chunk * s.rows, <double *> NULL)
    run.scratch_bytes = round_up(run.scratch_bytes, ALIGNMENT)


cdef Part part_of(Run *run, int index, int count) noexcept nogil:
    cdef:
        Py_ssize_t panels = (run.w.padded * run.itemsize + 255) // 256
        Part part = Part(0, run.s.rows, 0, panels, &run.barrier, 1, index, count, NULL)
    if run.by_units:
        part.panel = share(panels, index, count)
        part.panel_end = share(panels, index + 1, count)
        part.sharers = count
    else:
        part.row = share(run.s.rows, index, count)
        part.row_end = share(run.s.rows, index + 1, count)
    if run.d != NULL:
        part.scratch = run.scratch + index * run.scratch_bytes
    return part


cdef void forward_part(void *argument, int index, int count) noexcept nogil:
    cdef:
        Run *run = <Run *> argument
        Part part = part_of(run, index, count)
    if run.itemsize == sizeof(float):
        forward(run.w, run.s, <float *> run.s.g, &part)
    else:
        forward(run.w, run.s, <double *> run.s.g, &part)


cdef void backward_part(void *argument, int index, int count) noexcept nogil:
    cdef:
        Run *run = <Run *> argument
        Part part = part_of(run, index, count)
    if run.itemsize == sizeof(float):
        backward(run.w, run.s, run.d, <float *> run.d.dg, &part)
    else:
        backward(run.w, run.s, run.d, <double *> run.d.dg, &part)


cdef Py_ssize_t row_count(a) noexcept:
    """N of an array (N, columns) or (columns,)."""
    return 1 if cnp.PyArray_NDIM(a) == 1 else cnp.PyArray_DIM(a, 0)


cdef Py_ssize_t round_up(Py_ssize_t count, Py_ssize_t multiple) noexcept nogil:
    return (count + multiple - 1) // multiple * multiple


cdef void allot(Panels *panels, Block block, Py_ssize_t segments, Py_ssize_t depth,
                Py_ssize_t columns, const real *_) noexcept:
    """Give `panels` its shape and its part of the block."""
    panels.segments, panels.depth, panels.columns = segments, depth, columns
    panels.data = block.take(sizeof(real) * segments * depth * columns)


def activation(name, x, y):
    """y = sigmoid(x) or tanh(x) by the kernels; for tests. Contiguous, a multiple of 64 bytes."""
    cdef:
        void *source = pointer(x)
        void *target = pointer(y)
        Py_ssize_t count = x.size
    if x.itemsize == sizeof(float):
        f32 = kernels(<float *> source)
        (f32.sigmoid if name == "sigmoid" else f32.tanh)(count, source, target)
    else:
        f64 = kernels(<double *> source)
        (f64.sigmoid if name == "sigmoid" else f64.tanh)(count, source, target)
