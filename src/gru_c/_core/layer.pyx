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
from gru_c._core.recurrence cimport Gradients, Sequence, Weights, backward, forward

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
            Py_ssize_t K = w.inputs, H = w.hidden, P = w.padded, j
            real *bias
            Block block = Block(sizeof(real) * P * (3 * K + 3 * H + 4))
        allot(&w.from_input, block, 1, K, 3 * P, weight_ih)
        allot(&w.from_hidden, block, 1, H, 2 * P, weight_ih)
        allot(&w.to_new, block, 1, H, P, weight_ih)
        # Rows of the weights are units: B[k, j] = W[j, k]. Columns n r z; gates r z n are 0 1 2.
        pack(&w.from_input, 0, 0, H, weight_ih + 2 * H * K, 1, K)
        pack(&w.from_input, 0, P, H, weight_ih, 1, K)
        pack(&w.from_input, 0, 2 * P, H, weight_ih + H * K, 1, K)
        pack(&w.from_hidden, 0, 0, H, weight_hh, 1, H)
        pack(&w.from_hidden, 0, P, H, weight_hh + H * H, 1, H)
        pack(&w.to_new, 0, 0, H, weight_hh + 2 * H * H, 1, H)
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
            Py_ssize_t K = w.inputs, H = w.hidden, P = w.padded, Q = self.padded_inputs
            Block block = Block(sizeof(real) * 3 * H * (Q + P))
        allot(&w.d_input, block, 3, H, Q, weight_ih)
        pack(&w.d_input, 0, 0, K, weight_ih + 2 * H * K, K, 1)
        pack(&w.d_input, 1, 0, K, weight_ih, K, 1)
        pack(&w.d_input, 2, 0, K, weight_ih + H * K, K, 1)
        allot(&w.d_hidden, block, 3 if w.reset_after else 2, H, P, weight_ih)
        pack(&w.d_hidden, 0, 0, H, weight_hh, H, 1)
        pack(&w.d_hidden, 1, 0, H, weight_hh + H * H, H, 1)
        if w.reset_after:
            pack(&w.d_hidden, 2, 0, H, weight_hh + 2 * H * H, H, 1)
        else:
            allot(&w.d_reset, block, 1, H, P, weight_ih)
            pack(&w.d_reset, 0, 0, H, weight_hh + 2 * H * H, H, 1)
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
        with nogil:
            if self.itemsize == sizeof(float):
                forward(&self.w, &s, <float *> s.g)
            else:
                forward(&self.w, &s, <double *> s.g)

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
        with nogil:
            if self.itemsize == sizeof(float):
                backward(&self.w, &s, &d, <float *> d.dg)
            else:
                backward(&self.w, &s, &d, <double *> d.dg)


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
