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
    """The saved activations of one layer; see Call for the buffers.

    A forward in windows saves one alone, which has `windows` instead.
    """
    cdef:
        Shape shape
        View3 input
        bint x_stays
        char *gates
        char *h
        RowOptions options
        object windows                 # of _checkpoint.py
    cdef readonly:
        Layer layer
        Memory memory

    def copy(self, str name):
        """A copy of what `name` is for all steps and rows: the input x, the hidden states before
        each step, or a plane of the gates: n, r, z or q."""
        cdef:
            PackedLayer *layer = &self.layer.packed
            const Extents *extents = &self.shape.x if name == "x" else &self.shape.output
            cnp.ndarray copy = new_array(extents, self.layer)
            Py_ssize_t size = extents.axes[extents.ndim - 1] * layer.context.itemsize
            View2 source
        if name == "x":
            source = View2(self.input.data, self.input.row)
        elif name == "hidden":
            source = View2(self.h + self.layer.reverse * self.shape.rows * layer.ld_h, layer.ld_h)
        else:
            source = View2(self.gates + "nrzq".index(name) * layer.plane, layer.ld_gates)
        copy_rows(self.shape.steps * self.shape.rows, size, source.data, source.ld,
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

    A forward in training takes what is saved; a backward takes the gradients and, unless it keeps
    them, the saved activations. Each stores its own at the end. After a MemoryError it puts back
    what it took.
    """
    cdef readonly:
        int form                       # how its arrays are arranged, see binding.pyx
        bint training
        bint has_options               # each forward in training has some: dropout, checkpoints
        list saved                     # one per layer; None: no forward, or its backward was run
        str unfinished                 # the call that an exception ended, until a forward trains
    cdef public:
        dict grads                     # of the parameters, or None
    cdef:
        list spare                     # consumed activations, whose memory is free
        unsigned long owner            # thread of the last call that took something, or 0

    def __init__(self, int form, bint training=True, bint has_options=False):
        self.form, self.training, self.has_options = form, training, has_options

    def __reduce__(self):
        """What the last calls left is not copied."""
        return TrainingState, (self.form, self.training, self.has_options)

    cdef void begin(self) noexcept:
        """A call of this thread begins. It has acquired nothing."""
        if self.owner == PyThread_get_thread_ident():
            self.owner = 0

    cdef list acquire(self, bint *has_saved):
        """Take the saved activations, else the spare memory, else None."""
        with cython.critical_section(self):
            found = self.saved if self.saved is not None else self.spare
            has_saved[0] = self.saved is not None
            self.saved = self.spare = None
            self.owner = PyThread_get_thread_ident()
        return found

    cdef void restore(self, list found, bint has_saved, dict grads=None) noexcept:
        """Put back what a call took, unless another has stored since, or the mode has changed."""
        with cython.critical_section(self):
            self.owner = 0
            if self.grads is None:
                self.grads = grads
            if self.saved is not None or self.spare is not None or not self.training:
                return
            if has_saved:
                self.saved = found
            else:
                self.spare = found

    cdef void store(self, list saved, const Call *calls, const Shape *shape) noexcept:
        """A forward has ended well. Nothing stays if the mode has changed meanwhile."""
        cdef:
            Py_ssize_t index
            Saved layer_saved
        for index in range(len(saved)):
            layer_saved = saved[index]
            layer_saved.shape = shape[0]
            layer_saved.input, layer_saved.x_stays = calls[index].input, calls[index].x_stays
            layer_saved.gates, layer_saved.h = calls[index].gates, calls[index].h
        self.keep(saved)

    cdef void keep(self, list saved) noexcept:
        """The rest of `store`, for saved activations that are complete."""
        with cython.critical_section(self):
            self.unfinished = None
            if self.training:
                self.saved = saved

    cdef dict consume(self, list saved, bint keep):
        """Begin a backward: take the gradients, and `saved` unless `keep`."""
        with cython.critical_section(self):
            if self.saved is saved:
                found, self.grads = self.grads, None
                if not keep:
                    self.saved = None
                self.owner = PyThread_get_thread_ident()
                return found
        _checks.refuse_replaced_forward()

    cdef void finish(self, dict grads, list consumed) noexcept:
        """A backward has ended well. The next forward may use the memory of what it consumed."""
        cdef Saved entry
        if consumed is not None:
            for entry in consumed:
                entry.options = None                       # which may hold masks of all steps
        with cython.critical_section(self):
            self.grads = grads
            if consumed is not None:
                self.spare = consumed if self.training else None

    cdef void claim(self) noexcept:
        """The call of this thread has acquired the contents. One by a signal handler resets it."""
        with cython.critical_section(self):
            self.owner = PyThread_get_thread_ident()

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
