"""The boundary between Python and the core: one direction of one layer, packed.

Everything that enters here was checked in Python (`gru_c/_layer.py`): shapes, dtypes, strides. The
methods take the pointers out of the arrays, release the GIL and call the core.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.string cimport memset

from gru_c._core.dispatch cimport kernels
from gru_c._core.kernels cimport real
from gru_c._core.panels cimport Panels, pack
from gru_c._core.recurrence cimport (
    Gradients, Part, Sequence, Weights, backward, d_inputs, d_weights, forward,
)
from gru_c._core.threads cimport Barrier, parallel, share, thread_limit

cdef Py_ssize_t ALIGNMENT = 64


cdef void *pointer(object array, int flags=PyBUF_STRIDES) except? NULL:
    """The address of the first element of an array that the caller keeps alive; NULL for None."""
    cdef Py_buffer view
    if array is None:
        return NULL
    PyObject_GetBuffer(array, &view, flags)
    cdef void *address = view.buf
    PyBuffer_Release(&view)
    return address


cdef void *writable(object array) except? NULL:
    return pointer(array, PyBUF_STRIDES | PyBUF_WRITABLE)


cdef class Block:
    """Aligned, zeroed memory that is freed with its owner."""
    cdef:
        void *memory
        char *start
        char *free

    def __cinit__(self, Py_ssize_t size):
        self.memory = PyMem_RawMalloc(size + ALIGNMENT)
        if self.memory == NULL:
            raise MemoryError(f"could not allocate {size} bytes for packed weights")
        self.start = <char *> ((<size_t> self.memory + ALIGNMENT - 1) & ~<size_t> (ALIGNMENT - 1))
        self.free = self.start
        memset(self.start, 0, size)

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    cdef void *take(self, Py_ssize_t size) noexcept:
        cdef void *taken = self.free
        self.free += size
        return taken


@cython.final
cdef class PackedLayer:
    """Weights of one direction of one layer in the order that the products want.

    Parameters: C-contiguous arrays weight_ih (3H, I), weight_hh (3H, H), and the biases (3H,) or
    None, gate order r z n, all of one dtype (float32 or float64, itemsize 4 or 8).
    """
    cdef:
        Weights w
        int itemsize
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

    def forward(self, Py_ssize_t steps, Py_ssize_t rows, x, Py_ssize_t x_row, g,
                Py_ssize_t chunk, h, bint save, output,
                Py_ssize_t output_step, Py_ssize_t output_row):
        """Run `steps` steps of `rows` rows; buffers as in recurrence.pxd, strides in elements."""
        cdef Sequence s
        s.steps, s.rows, s.chunk, s.save = steps, rows, chunk, save
        s.x, s.x_row = pointer(x), x_row
        s.g, s.g_row = writable(g), self.gate_row
        s.h, s.output = writable(h), writable(output)
        s.output_step, s.output_row = output_step, output_row
        cdef Run run
        with nogil:
            plan(&run, &self.w, &s, NULL, self.itemsize)
            parallel(forward_part, &run, run.threads)

    def backward(self, Py_ssize_t steps, Py_ssize_t rows, x, Py_ssize_t x_row, g, dg, h,
                 d_output, Py_ssize_t d_output_step, Py_ssize_t d_output_row,
                 dh, dq, dx, dweight_ih, dweight_hh, dbias):
        """Gradients of a saved call; buffers as in recurrence.pxd, strides in elements."""
        cdef:
            Sequence s
            Gradients d
        if self.backward_block is None:
            if self.itemsize == sizeof(float):
                self.pack_backward(<float *> pointer(self.weights[0]),
                                   <float *> pointer(self.weights[1]))
            else:
                self.pack_backward(<double *> pointer(self.weights[0]),
                                   <double *> pointer(self.weights[1]))
        s.steps, s.rows, s.chunk, s.save = steps, rows, steps, True
        s.x, s.x_row = pointer(x), x_row
        s.g, s.g_row, s.h = pointer(g), self.gate_row, pointer(h)
        d.dg, d.dh, d.dq = writable(dg), writable(dh), writable(dq)
        d.d_output, d.d_output_step = pointer(d_output), d_output_step
        d.d_output_row = d_output_row
        d.dx, d.dx_row = writable(dx), self.padded_inputs
        d.dweight_ih, d.dweight_hh = writable(dweight_ih), writable(dweight_hh)
        d.dbias = writable(dbias)
        cdef Run run
        with nogil:
            plan(&run, &self.w, &s, &d, self.itemsize)
            parallel(backward_part, &run, run.threads)
            parallel(gradients_part, &run, run.threads)


# ---- how a call is split over threads ----------------------------------------------------------

cdef struct Run:
    Weights *w
    Sequence *s
    Gradients *d
    int itemsize
    int threads
    bint by_units
    Barrier barrier

cdef:
    double LEAST_WORK = 1e6        # multiply-adds a thread: about 20 us
    double LEAST_STEP = 2e5        # multiply-adds a step and thread, where threads meet in each


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


cdef void gradients_of(Run *run, const real *dg, int index, int count) noexcept nogil:
    """dx by rows, the gradients of the weights by units."""
    cdef:
        Py_ssize_t rows = run.s.steps * run.s.rows, lanes = ALIGNMENT // run.itemsize
        Py_ssize_t groups = run.w.padded // lanes
    if run.d.dx != NULL:
        d_inputs(run.w, run.s, run.d, dg, share(rows, index, count), share(rows, index + 1, count))
    d_weights(run.w, run.s, run.d, dg,
              lanes * share(groups, index, count), lanes * share(groups, index + 1, count))


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
        void *target = writable(y)
        Py_ssize_t count = x.size
    if x.itemsize == sizeof(float):
        f32 = kernels(<float *> source)
        (f32.sigmoid if name == "sigmoid" else f32.tanh)(count, source, target)
    else:
        f64 = kernels(<double *> source)
        (f64.sigmoid if name == "sigmoid" else f64.tanh)(count, source, target)
