# What a forward leaves for its backward: memory, saved activations, the state of a model.

cdef extern from "platform.h" nogil:
    void *gru_allocate(size_t size)

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept nogil
    int PyTraceMalloc_Track(unsigned int domain, size_t address, size_t size) noexcept
    int PyTraceMalloc_Untrack(unsigned int domain, size_t address) noexcept


@cython.final
cdef class Memory:
    """Bytes that are freed with their owner, and that tracemalloc sees."""
    cdef:
        void *data
        size_t size

    def __cinit__(self, size_t size):
        self.data = gru_allocate(size)
        if self.data == NULL:
            raise MemoryError(f"could not allocate {size} bytes")
        self.size = size
        PyTraceMalloc_Track(0, <size_t> self.data, size)

    def __dealloc__(self):
        PyTraceMalloc_Untrack(0, <size_t> self.data)
        free(self.data)


@cython.final
cdef class Saved:
    """The saved activations of one layer; see Call for the buffers."""
    cdef:
        Memory memory
        Shape shape
        View3 input
        bint x_stays
        char *gates
        char *h
    cdef readonly:
        Layer layer

    @property
    def address(self):
        return <size_t> self.memory.data

    def x(self):
        """A copy of the input, of all steps and rows."""
        return self.rows(self.input.data, 0, self.input.row, self.layer.input_size)

    def hidden(self):
        """A copy of the hidden states before each step."""
        cdef Py_ssize_t ld_h = self.layer.packed.ld_h
        return self.rows(self.h, self.layer.reverse * self.shape.rows * ld_h, ld_h,
                         self.layer.hidden_size)

    def gate(self, int plane):
        """A copy of one plane of the gates: 0 n, 1 r, 2 z, 3 q."""
        return self.rows(self.gates, plane * self.layer.packed.plane,
                         self.layer.packed.ld_gates, self.layer.hidden_size)

    cdef cnp.ndarray rows(self, char *data, Py_ssize_t first, Py_ssize_t ld, Py_ssize_t columns):
        cdef:
            Py_ssize_t size = columns * self.layer.packed.context.itemsize
            cnp.ndarray copy = new_array(&self.shape, columns, self.layer)
        copy_rows(self.shape.steps * self.shape.rows, size, data + first, ld,
                  cnp.PyArray_DATA(copy), size)
        return copy


cdef bint unshared(list saved) noexcept:
    """Whether nobody but the caller holds saved activations, or their memory."""
    cdef:
        Saved entry
        Memory memory
    if Py_REFCNT(saved) > 1:
        return False
    for entry in saved:
        memory = entry.memory
        if Py_REFCNT(entry) > 2 or Py_REFCNT(memory) > 2:  # the owner's reference, and ours here
            return False
    return True


@cython.final
cdef class TrainingState:
    """How a model runs, what its last forward in training mode left, and the last gradients.

    A call that writes acquires the contents and stores its own at the end. In between, the state is
    empty. A call that runs out of memory restores what it acquired.
    """
    cdef readonly:
        int form                       # how its arrays are arranged, see binding.pyx
        bint training
        list saved                     # one per layer; None: no forward, or its backward was run
        str unfinished                 # the call that an exception ended; None after a forward
    cdef public:
        dict grads                     # of the parameters, or None
    cdef:
        Shape shape                    # of the forward
        list spare                     # consumed activations, whose memory is free
        unsigned long owner            # thread of the call that has acquired the contents, or 0

    def __init__(self, int form, bint training=True):
        self.form, self.training = form, training

    def __reduce__(self):
        """What the last calls left is not copied."""
        return TrainingState, (self.form, self.training)

    cdef void begin(self) noexcept:
        """A call of this thread begins. It has acquired nothing."""
        if self.owner == PyThread_get_thread_ident():
            self.owner = 0

    cdef void own(self) noexcept:
        """The call of this thread has acquired the contents, even if a handler called the model."""
        with cython.critical_section(self):
            self.owner = PyThread_get_thread_ident()

    cdef list acquire(self, bint *has_saved):
        """Take the saved activations, else the spare memory, else None."""
        with cython.critical_section(self):
            found = self.saved if self.saved is not None else self.spare
            has_saved[0] = self.saved is not None
            self.saved = self.spare = None
            self.owner = PyThread_get_thread_ident()
        return found

    cdef void restore(self, list found, bint has_saved) noexcept:
        """Undo `acquire`, unless another call has stored something since."""
        with cython.critical_section(self):
            self.owner = 0
            if self.saved is not None or self.spare is not None or not self.training:
                return
            if has_saved:
                self.saved = found
            else:
                self.spare = found

    cdef void store(self, list saved, const Shape *shape) noexcept:
        """A forward has ended well. Nothing stays if the mode has changed meanwhile."""
        with cython.critical_section(self):
            self.unfinished = None
            if self.training:
                self.saved, self.shape = saved, shape[0]

    cdef bint consume(self, list saved, bint keep) noexcept:
        """Begin a backward. It takes `saved` unless `keep`. False if another call has taken it."""
        with cython.critical_section(self):
            if self.saved is not saved:
                return False
            if not keep:
                self.saved = None
            self.owner = PyThread_get_thread_ident()
            return True

    cdef dict acquire_grads(self):
        with cython.critical_section(self):
            found = self.grads
            self.grads = None
        return found

    cdef void recycle(self, list saved) noexcept:
        """Leave the memory of consumed activations to the next forward."""
        with cython.critical_section(self):
            self.spare = saved if self.training else None

    def abort(self, str call):
        """An exception ended a call of this thread. Drop the contents if it had acquired them."""
        with cython.critical_section(self):
            if self.owner == PyThread_get_thread_ident():
                self.owner = 0
                self.saved = self.spare = self.grads = None
                self.unfinished = call

    def train(self, bint training):
        """Set the mode. Inference drops the saved activations."""
        with cython.critical_section(self):
            self.training = training
            if not training:
                self.saved = self.spare = None
