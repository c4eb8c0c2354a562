"""The boundary between Python and the core: one direction of one layer, and what a forward left.

`infer`, `record` and `gradients` of a Layer take what was checked in Python: shapes and dtypes.
`step` and `run` of a Layer, `backward` and `backward_step` of a Trace look themselves whether their
arguments are just as the core wants them, and do everything then: after a pass over a few MB of
weights and gates Python's code is in no near cache, and a training call spent 0.35 ms there instead
of 0.1.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.ref cimport Py_REFCNT
from libc.stdlib cimport free
from libc.string cimport memset

import math
import os
import threading

import numpy as np

from gru_c import _checks
from gru_c._parameters import NAMES, frozen

from gru_c._core.call cimport (
    ALIGNMENT, NO_MEMORY, STOPPED, Arrays, Outcome, differentiate, infer, record,
)
from gru_c._core.dispatch cimport kernels
from gru_c._core.kernels cimport real
from gru_c._core.panels cimport Panels, pack
from gru_c._core.recurrence cimport FORKED, GO_ON, STOP, Gradients, Sequence, Weights
from gru_c._core.rows cimport round_up
from gru_c._core.threads cimport fork_count

cdef extern from "cpu.h" nogil:
    void *allocate_weights "gru_allocate_weights"(size_t size)

cdef extern from "atomic.h" nogil:
    long long gru_nanoseconds()

cdef extern from "Python.h":
    int check_signals "PyErr_CheckSignals"() noexcept      # an exception stays pending
    void *PyErr_Occurred()
    unsigned long PyThread_get_thread_ident() noexcept nogil

cnp.import_array()

cdef Py_ssize_t FUSED_UNITS = 32                 # of layers whose products are fused for few rows

cdef tuple ONE_LAYER = tuple(f"{name}_l0" for name in NAMES)      # names in a model of one layer


# ---- signals -----------------------------------------------------------------------------------

cdef long long POLL_NANOSECONDS = 50_000_000     # between two looks for signals, each with the GIL

cdef unsigned long main_thread = threading.main_thread().ident

# Of one call. The clock starts when the first chunk is done.
cdef struct Poll:
    long long due                                # by gru_nanoseconds


cdef int poll_signals(void *argument) noexcept nogil:
    """Run the handlers of signals that came; STOP if one of them raised an exception."""
    cdef:
        Poll *poll = <Poll *> argument
        long long now
        bint raised
        int forks = fork_count()
    now = gru_nanoseconds()
    if now < poll.due:
        return GO_ON
    if poll.due == 0:
        poll.due = now + POLL_NANOSECONDS
        return GO_ON
    with gil:
        raised = check_signals() != 0
    poll.due = gru_nanoseconds() + POLL_NANOSECONDS
    return (STOP if raised else GO_ON) | (FORKED if fork_count() != forks else GO_ON)


def follow_fork():
    """The thread that forked is the main thread of the child."""
    global main_thread
    main_thread = PyThread_get_thread_ident()


cdef inline void start_polling(Sequence *s, Poll *poll) noexcept:
    """Handlers run in the main thread alone: elsewhere there is nothing to look for."""
    poll.due = 0
    s.poll = NULL
    if PyThread_get_thread_ident() == main_thread:
        s.poll = poll_signals
    s.poll_argument = poll


cdef int raise_pending() except -1:
    """The exception of a signal handler, which stands already, or of a handler that forked."""
    if PyErr_Occurred() == NULL:
        raise RuntimeError("a signal handler forked this process in the middle of a call on "
                           "several threads, which cannot go on in the child")
    return -1


# ---- arrays ------------------------------------------------------------------------------------

cdef void *pointer(cnp.ndarray array) noexcept:
    """The address of the first element of an array that the caller keeps alive; NULL for None."""
    return NULL if array is None else cnp.PyArray_DATA(array)


cdef Py_ssize_t stride(cnp.ndarray a, int axis) noexcept:
    """In elements, of an axis counted from the last, -1; 0 for None or where there is no such."""
    if a is None or cnp.PyArray_NDIM(a) + axis < 0:
        return 0
    return cnp.PyArray_STRIDE(a, cnp.PyArray_NDIM(a) + axis) // cnp.PyArray_ITEMSIZE(a)


cdef Py_ssize_t row_count(a) noexcept:
    """N of an array (N, columns) or (columns,)."""
    return 1 if cnp.PyArray_NDIM(a) == 1 else cnp.PyArray_DIM(a, 0)


cdef bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two arrays in C order, or None, share memory."""
    cdef:
        char *start = <char *> pointer(a)
        char *other = <char *> pointer(b)
    if start == NULL or other == NULL:
        return False
    return start < other + cnp.PyArray_NBYTES(b) and other < start + cnp.PyArray_NBYTES(a)


cdef cnp.ndarray rows_of(a):
    """`_checks.rows`, which most arrays pass as they are."""
    if a is None or cnp.PyArray_CheckExact(a) and cnp.PyArray_ISCARRAY_RO(a):
        return a
    return _checks.rows(a)


cdef cnp.ndarray new_array(int type_number, int ndim, Py_ssize_t a, Py_ssize_t b, Py_ssize_t c):
    """Of the last `ndim` of the extents a, b, c."""
    cdef cnp.npy_intp[3] extents = [a, b, c]
    return cnp.PyArray_EMPTY(ndim, extents + 3 - ndim, type_number, 0)


def aligned_zeros(shape, dtype):
    """np.zeros at a multiple of 64 bytes, the width of a vector and of a cache line.

    Zeros, for products leave up to half a line of padding as it is, and gates go over it.
    """
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    offset = -memory.ctypes.data % ALIGNMENT
    return memory[offset : offset + size].view(dtype).reshape(shape)


cdef class Block:
    """Aligned, zeroed memory that is freed with its owner; `allot` hands it out piece by piece."""
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


cdef void allot(Panels *panels, Block block, Py_ssize_t segments, Py_ssize_t depth,
                Py_ssize_t columns, const real *_) noexcept:
    """Give `panels` its shape and its part of the block."""
    panels.segments, panels.depth = segments, depth
    panels.columns = round_up(columns, ALIGNMENT // sizeof(real))
    panels.used = round_up(columns, kernels(_).unit_bytes // sizeof(real))
    panels.data = block.take(sizeof(real) * segments * depth * panels.columns)


# ---- one direction of one layer ------------------------------------------------------------------

@cython.final
cdef class Layer:
    """Weights (read-only arrays, gate order r z n) and the same packed as the products want them.

    A Layer never changes. New weights make a new one, so that a call in another thread, or the
    backward of an earlier forward, keeps the weights that it began with. Sequences are time-major,
    x (T, N, I), h (N, H), all of one dtype, float32 or float64.
    """
    cdef:
        Weights w
        int type_number                # NumPy's
        Block forward_block
        Block backward_block           # made when first needed
    cdef readonly:
        dict weights
        bint reset_after
        Py_ssize_t input_size
        Py_ssize_t hidden_size
        object dtype

    def __init__(self, dict weights, bint reset_after):
        cdef Py_ssize_t lanes
        self.weights = {name: frozen(weights[name]) for name in NAMES if name in weights}
        self.reset_after = reset_after
        self.hidden_size = self.weights["weight_hh"].shape[1]
        self.input_size = self.weights["weight_ih"].shape[1]
        self.dtype = self.weights["weight_hh"].dtype
        self.type_number = self.dtype.num
        self.w.itemsize = self.dtype.itemsize
        self.w.inputs, self.w.hidden = self.input_size, self.hidden_size
        self.w.reset_after = reset_after
        lanes = ALIGNMENT // self.w.itemsize
        self.w.padded = round_up(self.w.hidden, lanes)
        self.w.padded_inputs = round_up(self.w.inputs, lanes)
        # A line more than the four planes: rows a multiple of 4 KB apart would share cache sets.
        self.w.gate_row = 4 * self.w.padded + lanes
        weight_ih, weight_hh, bias_ih, bias_hh = map(self.weights.get, NAMES)
        if self.w.itemsize == sizeof(float):
            self.pack_forward(<float *> pointer(weight_ih), <float *> pointer(weight_hh),
                              <float *> pointer(bias_ih), <float *> pointer(bias_hh))
        else:
            self.pack_forward(<double *> pointer(weight_ih), <double *> pointer(weight_hh),
                              <double *> pointer(bias_ih), <double *> pointer(bias_hh))

    def __reduce__(self):
        return Layer, (self.weights, self.reset_after)

    def replaced(self, weights):
        """A layer with some of the parameters new."""
        return Layer(self.weights | weights, self.reset_after)

    # ---- packing

    cdef int pack_forward(self, const real *weight_ih, const real *weight_hh,
                          const real *bias_ih, const real *bias_hh) except -1:
        cdef:
            Weights *w = &self.w
            Py_ssize_t K = w.inputs, H = w.hidden, P = w.padded, i, j
            Py_ssize_t[3] gates = [2, 0, 1]                # of n r z in weights stacked r z n
            Py_ssize_t fused = (3 if w.reset_after else 2) if P <= FUSED_UNITS else 0
            Block block = Block(sizeof(real) * P * (3 * K + (3 + fused) * H + 4))
            real *bias = <real *> block.take(sizeof(real) * 4 * P)
        # Rows of the weights are units: B[k, j] = W[j, k].
        for i in range(3):
            allot(&w.from_input[i], block, 1, K, H, weight_ih)
            pack(&w.from_input[i], 0, weight_ih + gates[i] * H * K, 1, K, H)
        for i in range(3):
            allot(&w.from_hidden[i], block, 1, H, H, weight_hh)
            pack(&w.from_hidden[i], 0, weight_hh + i * H * H, 1, H, H)
        if fused:
            allot(&w.fused, block, 1, H, fused * P, weight_hh)
            self.pack_fused(fused, weight_hh)
        if bias_ih != NULL:
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

    cdef int pack_fused(self, int gates, const real *weight_hh) except -1:
        """W_hr, W_hz and with reset_after W_hn side by side, each with its padding."""
        cdef:
            Py_ssize_t H = self.w.hidden, P = self.w.padded, gate, j, k
            real *b = <real *> PyMem_Calloc(H * gates * P, sizeof(real))
        if b == NULL:
            raise MemoryError("could not allocate memory to pack weights")
        for gate in range(gates):
            for j in range(H):
                for k in range(H):
                    b[(k * gates + gate) * P + j] = weight_hh[(gate * H + j) * H + k]
        pack(&self.w.fused, 0, b, gates * P, 1, gates * P)
        PyMem_Free(b)
        return 0

    cdef int pack_backward(self, const real *weight_ih, const real *weight_hh) except -1:
        cdef:
            Weights *w = &self.w
            Py_ssize_t K = w.inputs, H = w.hidden, P = w.padded, Q = w.padded_inputs, i
            Py_ssize_t[3] gates = [2, 0, 1]
            Block block = Block(sizeof(real) * 3 * H * (Q + P))
        allot(&w.d_input, block, 3, H, K, weight_ih)
        for i in range(3):
            pack(&w.d_input, i, weight_ih + gates[i] * H * K, K, 1, K)
        allot(&w.d_hidden, block, 3 if w.reset_after else 2, H, H, weight_hh)
        for i in range(w.d_hidden.segments):
            pack(&w.d_hidden, i, weight_hh + i * H * H, H, 1, H)
        if not w.reset_after:
            allot(&w.d_reset, block, 1, H, H, weight_hh)
            pack(&w.d_reset, 0, weight_hh + 2 * H * H, H, 1, H)
        self.backward_block = block
        return 0

    # ---- whole sequences

    def infer(self, x, h_0, output, output_step, output_row, h_n=None):
        """Run without saving: x (T, N, I), h_0 (N, H) or None; strides in elements.

        Hidden states of all steps go to `output`, the last also to h_n (N, H), contiguous.
        """
        cdef cnp.ndarray state = rows_of(h_0)
        self.infer_rows(x.shape[0], x.shape[1], pointer(x), pointer(state), stride(state, -2),
                        pointer(output), output_step, output_row, pointer(h_n))

    cdef int infer_rows(self, Py_ssize_t steps, Py_ssize_t rows, const void *x, const void *h_0,
                        Py_ssize_t h_0_row, void *output, Py_ssize_t output_step,
                        Py_ssize_t output_row, void *h_n) except -1:
        cdef:
            Sequence s
            Poll poll
            Outcome outcome
        start_polling(&s, &poll)
        s.steps, s.rows, s.x, s.x_row, s.source = steps, rows, x, self.w.inputs, NULL
        s.output, s.output_step, s.output_row = output, output_step, output_row
        with nogil:
            outcome = infer(&self.w, &s, h_0, h_0_row, h_n)
        if outcome == STOPPED:
            raise_pending()
        if outcome == NO_MEMORY:
            raise MemoryError(f"could not allocate the gate buffer of {rows} rows")
        return 0

    def record(self, x, h_0, output, output_step, output_row, h_n=None, Tape old=None,
               bint own=False):
        """The same, and save: the tape. `old` lends its buffers.

        With `own`, x is a tape's, which nobody changes: no copy then.
        """
        cdef:
            cnp.ndarray source = x if own else rows_of(x)
            cnp.ndarray state = rows_of(h_0)
        return self.record_rows(
            source.shape[0], source.shape[1], pointer(source), stride(source, -3),
            stride(source, -2), pointer(state), stride(state, -2), pointer(output), output_step,
            output_row, pointer(h_n), old, source if own else None)

    cdef Tape record_rows(self, Py_ssize_t steps, Py_ssize_t rows, const void *x, Py_ssize_t x_step,
                          Py_ssize_t x_row, const void *h_0, Py_ssize_t h_0_row, void *output,
                          Py_ssize_t output_step, Py_ssize_t output_row, void *h_n, Tape old,
                          cnp.ndarray own):
        """With `own`, which holds x, there is no copy of x."""
        cdef:
            Sequence s
            Poll poll
            Outcome outcome
            Tape tape = Tape.__new__(Tape)
        start_polling(&s, &poll)
        s.steps, s.rows = steps, rows
        tape.layer = self
        if old is not None and old.fits(&s, &self.w):
            tape.x, tape.g, tape.h = old.x, old.g, old.h
        else:
            tape.g = aligned_zeros((steps, rows, self.w.gate_row), self.dtype)
            tape.h = aligned_zeros((steps + 1, rows, self.w.padded), self.dtype)
        if own is not None:
            tape.x = own
        elif tape.x is None:
            tape.x = new_array(self.type_number, 3, steps, rows, self.w.inputs)
        s.source, s.source_step, s.source_row = x, x_step, x_row
        if own is not None:
            s.source = NULL
        s.x, s.x_row = pointer(tape.x), stride(tape.x, -2)
        s.g, s.h = pointer(tape.g), pointer(tape.h)
        s.output, s.output_step, s.output_row = output, output_step, output_row
        with nogil:
            outcome = record(&self.w, &s, h_0, h_0_row, h_n)
        if outcome == STOPPED:
            raise_pending()
        return tape

    cdef int record_alone(self, Trace trace, tuple shape, Py_ssize_t steps, Py_ssize_t rows,
                          const void *x, const void *h_0, void *output, void *h_n) except -1:
        """`record_rows` of arrays in C order, as all that the trace keeps: of x of this shape.

        Where an exception ends it, `forward` has the trace lose what was there.
        """
        cdef Py_ssize_t K = self.w.inputs, H = self.w.hidden
        old = trace.lend(1)[0]
        trace.keep([self.record_rows(steps, rows, x, rows * K, K, h_0, H, output, rows * H, H,
                                     h_n, old, None)], shape)
        return 0

    def gradients(self, Tape tape, d_output, d_h_n, bint keep, tuple names, dict old):
        """dx (T, N, I), dh_0 (N, H) and the dict of the parameters' gradients, by these names.

        `d_output` is (T, N, H) or None, `d_h_n` (N, H) or None. The gate buffer of the tape is
        overwritten unless `keep`. What nobody else holds of the gradients `old` always is.
        """
        T, N = tape.steps(), tape.rows()
        dx = new_array(self.type_number, 3, T, N, self.w.inputs)
        dh_0 = new_array(self.type_number, 2, 1, N, self.w.hidden)
        grads = self.gradients_rows(tape, rows_of(d_output), rows_of(d_h_n), dx, dh_0, keep,
                                    names, old)
        return dx, dh_0, grads

    cdef dict gradients_rows(self, Tape tape, cnp.ndarray d_output, cnp.ndarray d_h_n,
                             cnp.ndarray dx, cnp.ndarray dh_0, bint keep, tuple names,
                             dict old):
        """The gradients of the parameters, by these names; d_h_n may be (1, N, H) or (H,)."""
        cdef:
            Sequence s
            Gradients d
            Arrays out
            Poll poll
            Outcome outcome
            dict grads = {}
            void *data[4]
            Py_ssize_t i
        with cython.critical_section(self):
            if self.backward_block is None:
                weight_ih, weight_hh = self.weights["weight_ih"], self.weights["weight_hh"]
                if self.w.itemsize == sizeof(float):
                    self.pack_backward(<float *> pointer(weight_ih), <float *> pointer(weight_hh))
                else:
                    self.pack_backward(<double *> pointer(weight_ih), <double *> pointer(weight_hh))
        for i in range(4):
            weight = self.weights.get(NAMES[i])
            data[i] = NULL
            if weight is not None:
                grad = self.array_again(old, names[i], weight)
                grads[names[i]] = grad
                data[i] = pointer(grad)
        out = Arrays(pointer(d_h_n), stride(d_h_n, -2), pointer(dh_0), data[0], data[1],
                     data[2], data[3])
        s.steps, s.rows = tape.steps(), tape.rows()
        s.x, s.x_row = pointer(tape.x), stride(tape.x, -2)
        s.g, s.h = pointer(tape.g), pointer(tape.h)
        d.d_output, d.dx = pointer(d_output), pointer(dx)
        d.d_output_step, d.d_output_row = stride(d_output, -3), stride(d_output, -2)
        start_polling(&s, &poll)
        tape.spent = not keep                              # before a handler can run
        with nogil:
            outcome = differentiate(&self.w, &s, &d, &out, keep)
        if outcome == STOPPED:
            raise_pending()
        if outcome == NO_MEMORY:
            tape.spent = False
            raise MemoryError(f"could not allocate the gradients of {s.rows} rows")
        return grads

    cdef cnp.ndarray array_again(self, dict old, str name, cnp.ndarray like):
        """The array of this name in `old`, if it is shaped `like` and nobody else holds it, or new.

        New memory costs its page faults: training of 10,64,161,1760, dW_hh 37 MB, 1.6 % faster.
        """
        cdef int ndim = cnp.PyArray_NDIM(like)
        found = old.get(name)
        if (Py_REFCNT(found) == 2                          # the dict's, and `found`
                and self.fits(found, ndim, cnp.PyArray_DIM(like, ndim - 1))
                and cnp.PyArray_SAMESHAPE(found, like) and cnp.PyArray_ISWRITEABLE(found)
                and cnp.PyArray_CHKFLAGS(found, cnp.NPY_ARRAY_OWNDATA)):
            return found
        return cnp.PyArray_EMPTY(ndim, cnp.PyArray_DIMS(like), self.type_number, 0)

    # ---- where the arguments are just as the core wants them

    cdef bint fits(self, a, int ndim, Py_ssize_t columns) noexcept:
        """Whether `a` is a plain array of our dtype, in C order, with so many axes and columns."""
        if not cnp.PyArray_CheckExact(a):
            return False
        return (cnp.PyArray_TYPE(a) == self.type_number and cnp.PyArray_ISCARRAY_RO(a)
                and cnp.PyArray_NDIM(a) == ndim and cnp.PyArray_DIM(a, ndim - 1) == columns)

    cdef bint fits_rows(self, a, Py_ssize_t first, Py_ssize_t rows) noexcept:
        """The same of hidden states (first, N, H) of N = `rows`; None fits, too."""
        return a is None or (self.fits(a, 3, self.w.hidden) and cnp.PyArray_DIM(a, 0) == first
                             and cnp.PyArray_DIM(a, 1) == rows)

    def step(self, x, h, out, Trace trace):
        """One step where x (N, I) or (I,), h (or None) and out are just as the core wants them.

        Else nothing happens and the answer is False: the caller finds out what to do, or to say.
        With a trace, it keeps what its `backward_step` needs.
        """
        cdef:
            Py_ssize_t rows, K = self.w.inputs, H = self.w.hidden
            int ndim
            void *x_data
            void *h_data
            void *out_data
        if not cnp.PyArray_CheckExact(x):
            return False
        ndim = cnp.PyArray_NDIM(x)
        if not (1 <= ndim <= 2 and self.fits(x, ndim, K) and self.fits(out, ndim, H)
                and cnp.PyArray_ISWRITEABLE(out) and (h is None or self.fits(h, ndim, H))):
            return False
        rows = row_count(x)
        if row_count(out) != rows or h is not None and row_count(h) != rows:
            return False
        x_data, h_data, out_data = pointer(x), pointer(h), pointer(out)
        if overlap(x, out) or h_data != out_data and overlap(h, out):
            return False                                   # a row's output could be another's input
        if trace is None:
            self.infer_rows(1, rows, x_data, h_data, H, out_data, 0, H, NULL)
        else:
            self.record_alone(trace, x.shape, 1, rows, x_data, h_data, out_data, NULL)
        return True

    def run(self, x, h_0, Trace trace):
        """The forward of a model of one layer: (output, h_n), or None, and nothing happened.

        None where x (T, N, I) or h_0 (1, N, H) is not just as the core wants it. With a trace, it
        keeps what its `backward` needs.
        """
        cdef:
            Py_ssize_t T, N, K = self.w.inputs, H = self.w.hidden
            cnp.ndarray output
            cnp.ndarray h_n
        if not self.fits(x, 3, K):
            return None
        T, N = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
        if T == 0 or not self.fits_rows(h_0, 1, N):
            return None
        output = new_array(self.type_number, 3, T, N, H)
        h_n = new_array(self.type_number, 3, 1, N, H)
        if trace is None:
            self.infer_rows(T, N, pointer(x), pointer(h_0), H, pointer(output), N * H, H,
                            pointer(h_n))
        else:
            self.record_alone(trace, (T, N, K), T, N, pointer(x), pointer(h_0), pointer(output),
                              pointer(h_n))
        return output, h_n


# ---- what a forward left -------------------------------------------------------------------------

@cython.final
cdef class Tape:
    """What a forward that saves leaves for its backward; the buffers are reused by the next one."""
    cdef readonly:
        Layer layer
        cnp.ndarray x                  # (T, N, I), a copy, or the output of the tape below
        cnp.ndarray g                  # (T, N, gate_row): n r z q, see kernels.pxd
        cnp.ndarray h                  # (T + 1, N, padded)
        bint spent                     # a backward has begun to write its gradients over g

    cdef Py_ssize_t steps(self) noexcept:
        return cnp.PyArray_DIM(self.g, 0)

    cdef Py_ssize_t rows(self) noexcept:
        return cnp.PyArray_DIM(self.g, 1)

    cdef bint fits(self, const Sequence *s, const Weights *w) noexcept:
        """Whether the buffers serve another call."""
        return self.steps() == s.steps and self.rows() == s.rows and self.layer.w.padded == w.padded

    def output(self):
        """The hidden states (T, N, H), a view."""
        return self.h[1:, :, : self.layer.hidden_size]

    def plane(self, int index):
        """A copy (T, N, H) of one plane of the gate buffer."""
        start = index * self.layer.w.padded
        return self.g[..., start : start + self.layer.hidden_size].copy()


@cython.final
cdef class Trace:
    """What the last forward in training mode left in a model, and the gradients of its backward."""
    cdef readonly:
        list tapes                     # one a layer, or None: no forward, or its backward was run
        tuple shape                    # of the forward's input
        str unfinished                 # the call that an exception ended, until a forward ends well
    cdef:
        list spare                     # tapes used up: their buffers
    cdef public:
        dict grads                     # of the parameters, or None

    def lend(self, Py_ssize_t count):
        """Tapes of the last forward (or None) whose buffers the next may have: it is over then."""
        cdef list found
        cdef bint held
        with cython.critical_section(self):
            found = self.tapes or self.spare or [None] * count
            self.tapes = self.spare = None                 # none until the buffers are whole again
            held = Py_REFCNT(found) > 1
            for tape in found:                             # the list's reference, and `tape`
                held = held or Py_REFCNT(tape) > 2
        return [None] * count if held else found           # held: a cell's backward reads them

    def keep(self, list tapes, tuple shape):
        """The tapes of a forward, and the shape of its input."""
        with cython.critical_section(self):
            self.tapes, self.shape, self.unfinished = tapes, shape, None

    def saved(self):
        """(tapes, shape) of one forward; tapes None if there is none."""
        with cython.critical_section(self):
            return self.tapes, self.shape

    def lose(self, str call):
        """An exception ended this call: nothing is left of it, nor of earlier ones."""
        with cython.critical_section(self):
            self.tapes = self.spare = self.grads = None
            self.unfinished = call

    def take(self, list tapes):
        """The tapes are the caller's now: their planes become gradients. `give_back` then.

        False where they are no longer there: another call came between.
        """
        with cython.critical_section(self):
            if self.tapes is not tapes:
                return False
            self.tapes = None
            return True

    def put_back(self, list tapes, tuple shape, str call):
        """After a MemoryError in a backward: the tapes, if they are as the forward left them.

        A forward that came meanwhile stays.
        """
        if any([(<Tape> tape).spent for tape in tapes]):
            self.lose(call)
            return
        with cython.critical_section(self):
            if self.tapes is None:
                self.tapes, self.shape, self.unfinished = tapes, shape, None

    def take_grads(self):
        """The last gradients, for their memory; {} where somebody holds the dict."""
        with cython.critical_section(self):
            found = self.grads
            self.grads = None                              # none until they are whole again
        return found if found is not None and Py_REFCNT(found) == 1 else {}

    def give_back(self, list tapes):
        """Tapes used up: a forward may have their buffers."""
        with cython.critical_section(self):
            self.spare = tapes

    def drop(self):
        """Forget the forward."""
        with cython.critical_section(self):
            self.tapes = self.spare = None

    def backward(self, d_output, d_h_n):
        """The backward of a model of one layer: (dx, dh_0), or None, and nothing happened.

        None where d_output (T, N, H) or d_h_n (1, N, H) is not just as the core wants it.
        """
        cdef:
            Tape tape
            Layer layer
            Py_ssize_t T, N
            list tapes = self.tapes
        if tapes is None or len(self.shape) != 3:
            return None
        tape = tapes[0]
        layer = tape.layer
        T, N = tape.steps(), tape.rows()
        if not (layer.fits_rows(d_output, T, N) and layer.fits_rows(d_h_n, 1, N)):
            return None
        dx = new_array(layer.type_number, 3, T, N, layer.w.inputs)
        dh_0 = new_array(layer.type_number, 3, 1, N, layer.w.hidden)
        shape = self.shape
        if not self.take(tapes):
            return None
        try:
            self.grads = layer.gradients_rows(tape, d_output, d_h_n, dx, dh_0, False, ONE_LAYER,
                                              self.take_grads())
        except MemoryError:
            self.put_back(tapes, shape, "backward")
            raise
        self.give_back(tapes)
        return dx, dh_0

    def backward_step(self, delta):
        """The backward of a cell's step: (dx, dh), or None, and nothing happened.

        None where delta, (N, H) or (H,), is not just as the core wants it. The tape stays: a cell's
        gates can be read, and its backward run again.
        """
        cdef:
            Tape tape
            Layer layer
            int ndim
            list tapes = self.tapes
        if tapes is None:
            return None
        tape = tapes[0]
        layer = tape.layer
        ndim = len(self.shape)
        if not (layer.fits(delta, ndim, layer.w.hidden) and row_count(delta) == tape.rows()):
            return None
        dx = new_array(layer.type_number, ndim, 1, tape.rows(), layer.w.inputs)
        dh = new_array(layer.type_number, ndim, 1, tape.rows(), layer.w.hidden)
        self.grads = layer.gradients_rows(tape, None, delta, dx, dh, True, NAMES,
                                          self.take_grads())
        return dx, dh


def swap(dict attributes, str name, old, new):
    """Replace `old` by `new` if it is still there; whether it was.

    No thread and no signal handler comes between: nothing here runs Python code.
    """
    with cython.critical_section(attributes):
        if attributes.get(name) is not old:
            return False
        attributes[name] = new
        return True


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


os.register_at_fork(after_in_child=follow_fork)
