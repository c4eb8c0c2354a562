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
    Gradients, Part, Sequence, Weights, backward, d_inputs, d_weights, d_weights_scratch, forward,
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
                        Py_ssize_t h_0_row, char *output,
                        Py_ssize_t output_step, Py_ssize_t output_row) except -1:
        """Run without saving, in scratch memory of this call. Strides in elements."""
        cdef:
            Sequence s
            Run run
            Py_ssize_t row_bytes = rows * self.gate_row * self.itemsize
            Py_ssize_t h_bytes = rows * self.w.padded * self.itemsize, i
            void *memory
        s.chunk = self.chunk_of(steps, rows)
        s.steps, s.rows, s.save = steps, rows, False
        s.x, s.x_row = x, self.w.inputs
        s.output, s.output_step, s.output_row = output, output_step, output_row
        s.g_row = self.gate_row
        with nogil:
            memory = PyMem_RawMalloc(s.chunk * row_bytes + 2 * h_bytes + ALIGNMENT)
            if memory != NULL:
                s.h = <void *> ((<size_t> memory + ALIGNMENT - 1) & ~<size_t> (ALIGNMENT - 1))
                s.g = <char *> s.h + 2 * h_bytes
                memset(s.h, 0, h_bytes)
                for i in range(rows if h_0 != NULL else 0):
                    memcpy(<char *> s.h + i * self.w.padded * self.itemsize,
                           h_0 + i * h_0_row * self.itemsize, self.w.hidden * self.itemsize)
                plan(&run, &self.w, &s, NULL, self.itemsize)
                parallel(forward_part, &run, run.threads)
                PyMem_RawFree(memory)
        if memory == NULL:
            raise MemoryError(f"could not allocate the gate buffer of {rows} rows")
        return 0

    def infer(self, cnp.ndarray x, cnp.ndarray h_0, cnp.ndarray output,
              Py_ssize_t output_step, Py_ssize_t output_row):
        """Run without saving: x (T, N, I) contiguous, h_0 (N, H) of adjoining elements or None."""
        self.infer_rows(x.shape[0], x.shape[1], <char *> pointer(x), <char *> pointer(h_0),
                        0 if h_0 is None else h_0.strides[0] // self.itemsize,
                        <char *> pointer(output), output_step, output_row)

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
                        0, self.w.hidden)
        return True

    cdef bint fits(self, a, Py_ssize_t columns) noexcept:
        """Whether `a` is a plain array of our dtype, in C order, (columns,) or (N, columns)."""
        if not cnp.PyArray_CheckExact(a):
            return False
        return (cnp.PyArray_TYPE(a) == self.type_number and cnp.PyArray_ISCARRAY_RO(a)
                and 1 <= cnp.PyArray_NDIM(a) <= 2
                and cnp.PyArray_DIM(a, cnp.PyArray_NDIM(a) - 1) == columns)

    def record(self, cnp.ndarray x, Py_ssize_t x_row, cnp.ndarray g, cnp.ndarray h,
               cnp.ndarray output, Py_ssize_t output_step, Py_ssize_t output_row):
        """Run and save: x (T, N, x_row), g (T, N, gate_row), h (T + 1, N, padded) with h_0."""
        cdef:
            Sequence s
            Run run
        s.steps, s.rows, s.save = x.shape[0], x.shape[1], True
        s.chunk = self.chunk_of(s.steps, s.rows)
        s.x, s.x_row = pointer(x), x_row
        s.g, s.g_row, s.h = pointer(g), self.gate_row, pointer(h)
        s.output, s.output_step, s.output_row = pointer(output), output_step, output_row
        with nogil:
            plan(&run, &self.w, &s, NULL, self.itemsize)
            parallel(forward_part, &run, run.threads)

    def backward(self, cnp.ndarray x, Py_ssize_t x_row, cnp.ndarray g, dg, cnp.ndarray h,
                 d_output, Py_ssize_t d_output_step, Py_ssize_t d_output_row,
                 dh, dq, dx, dweight_ih, dweight_hh, dbias):
        """Gradients of a saved call; buffers as in recurrence.pxd, strides in elements."""
        cdef:
            Sequence s
            Gradients d
            Run run
        if self.backward_block is None:
            if self.itemsize == sizeof(float):
                self.pack_backward(<float *> pointer(self.weights[0]),
                                   <float *> pointer(self.weights[1]))
            else:
                self.pack_backward(<double *> pointer(self.weights[0]),
                                   <double *> pointer(self.weights[1]))
        s.steps, s.rows, s.chunk, s.save = g.shape[0], g.shape[1], g.shape[0], True
        s.x, s.x_row = pointer(x), x_row
        s.g, s.g_row, s.h = pointer(g), self.gate_row, pointer(h)
        d.dg, d.dh, d.dq = pointer(dg), pointer(dh), pointer(dq)
        d.d_output, d.d_output_step = pointer(d_output), d_output_step
        d.d_output_row = d_output_row
        d.dx, d.dx_row = pointer(dx), self.padded_inputs
        d.dweight_ih, d.dweight_hh = pointer(dweight_ih), pointer(dweight_hh)
        d.dbias = pointer(dbias)
        with nogil:
            plan(&run, &self.w, &s, &d, self.itemsize)
            run.scratch = PyMem_RawMalloc(run.threads * scratch_bytes(&run))
            if run.scratch != NULL:
                parallel(backward_part, &run, run.threads)
                parallel(gradients_part, &run, run.threads)
                PyMem_RawFree(run.scratch)
        if run.scratch == NULL:
            raise MemoryError("could not allocate scratch memory of the weight gradients")


# ---- how a call is split over threads ----------------------------------------------------------

cdef struct Run:
    Weights *w
    Sequence *s
    Gradients *d
    int itemsize
    int threads
    bint by_units
    Barrier barrier
    void *scratch              # of the weight gradients, a piece a thread

cdef:
    double LEAST_WORK = 1e6        # multiply-adds a thread: about 20 us
    double LEAST_STEP = 2e4        # the same of a step, where threads meet in each: 0.4 us


cdef void plan(Run *run, Weights *w, Sequence *s, Gradients *d, int itemsize) noexcept nogil:
    """Threads for a call: by rows where there are enough, else by units, else one.

    Rows need nothing of each other. Units need a barrier in each step, and pay once the weights are
    larger than a core's caches or the step is long.
    """
    cdef:
        double step = 3.0 * w.hidden * w.hidden * s.rows
        double work = s.steps * (step + 3.0 * w.hidden * w.inputs * s.rows)
        Py_ssize_t units = w.padded * itemsize // 256
        int limit = thread_limit()
    run.w, run.s, run.d, run.itemsize = w, s, d, itemsize
    run.barrier = Barrier(0, 0)
    run.by_units = run.s.rows < 4 * limit
    run.threads = <int> min(<double> limit, work / LEAST_WORK)
    if run.by_units:
        run.threads = <int> min(<double> min(<Py_ssize_t> run.threads, units), step / LEAST_STEP)
    run.threads = max(1, run.threads)


cdef Part part_of(Run *run, int index, int count) noexcept nogil:
    cdef:
        Py_ssize_t panels = (run.w.padded * run.itemsize + 255) // 256
        Part part = Part(0, run.s.rows, 0, panels, &run.barrier, 1)
    if run.by_units:
        part.panel = share(panels, index, count)
        part.panel_end = share(panels, index + 1, count)
        part.sharers = count
    else:
        part.row = share(run.s.rows, index, count)
        part.row_end = share(run.s.rows, index + 1, count)
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


cdef void gradients_part(void *argument, int index, int count) noexcept nogil:
    cdef Run *run = <Run *> argument
    if run.itemsize == sizeof(float):
        gradients_of(run, <float *> run.d.dg, index, count)
    else:
        gradients_of(run, <double *> run.d.dg, index, count)


cdef Py_ssize_t scratch_bytes(Run *run) noexcept nogil:
    """Of a thread's piece: whole lines, so that no two threads write to one."""
    cdef Py_ssize_t size
    if run.itemsize == sizeof(float):
        size = sizeof(float) * d_weights_scratch(run.w, run.s, <float *> NULL)
    else:
        size = sizeof(double) * d_weights_scratch(run.w, run.s, <double *> NULL)
    return (size // ALIGNMENT + 2) * ALIGNMENT


cdef void gradients_of(Run *run, const real *dg, int index, int count) noexcept nogil:
    """dx by rows, the gradients of the weights by units."""
    cdef:
        Py_ssize_t rows = run.s.steps * run.s.rows, lanes = ALIGNMENT // run.itemsize
        Py_ssize_t groups = run.w.padded // lanes
        char *scratch = <char *> run.scratch + index * scratch_bytes(run) + ALIGNMENT - 1
    if run.d.dx != NULL:
        d_inputs(run.w, run.s, run.d, dg, share(rows, index, count), share(rows, index + 1, count))
    d_weights(run.w, run.s, run.d, dg,
              lanes * share(groups, index, count), lanes * share(groups, index + 1, count),
              <real *> (<size_t> scratch & ~<size_t> (ALIGNMENT - 1)))


cdef Py_ssize_t row_count(a) noexcept:
    """N of an array (N, columns) or (columns,)."""
    return 1 if cnp.PyArray_NDIM(a) == 1 else cnp.PyArray_DIM(a, 0)


cdef Py_ssize_t round_up(Py_ssize_t count, Py_ssize_t multiple) noexcept:
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
