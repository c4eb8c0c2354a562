# Streams in Python: a gru_stream, and arrays for it.

cdef enum:
    RUN_STEPS = 256            # the most steps that are planned at once,
    RUN_ROWS = 1024            # and about the most rows in them, which need memory in between
    GIL_WORK = 50_000          # multiply-adds from which a call lets other threads have the GIL
    SIGNAL_WORK = 500_000_000  # multiply-adds between two checks for signals: some 20 ms


cdef class CoreStream:
    """The part of a Stream that runs: see gru_c.stream."""
    cdef:
        Memory memory
        Stream *stream
        Handle handle
        tuple layers               # of the handle
        dict attributes            # of the model, whose layers may be replaced
        int type_number
        Extents x
        Extents output
        Py_ssize_t max_steps       # planned at once
        Py_ssize_t work            # multiply-adds of a step
        bint busy
    cdef readonly:
        object model
        object batch_size          # None: arrays have no axis of rows
        Py_ssize_t num_threads

    def __cinit__(self, model, batch_size, Py_ssize_t num_threads):
        cdef:
            size_t size
            Py_ssize_t rows = 1 if batch_size is None else batch_size
        self.model, self.batch_size, self.num_threads = model, batch_size, num_threads
        self.attributes = model.__dict__
        self.max_steps = max(1, min(<Py_ssize_t> RUN_STEPS, RUN_ROWS // rows))
        self.use_layers()
        if stream_size(self.itemsize(), self.c_model(), rows, self.max_steps, num_threads, NULL,
                       &size) != GRU_OK:
            _checks.refuse_rows(batch_size)
        self.memory = Memory(size)
        stream_init(self.itemsize(), self.memory.data, size, self.c_model(), rows, self.max_steps,
                    num_threads, NULL, <gru_stream **> &self.stream)
        self.set_extents(rows)

    cdef inline size_t itemsize(self):
        return self.handle.model.context.itemsize

    cdef inline const gru_model *c_model(self):
        return <const gru_model *> self.handle.model

    cdef int use_layers(self) except -1:
        """Have the weights that the model has now. If that fails, those of before."""
        cdef:
            tuple layers = self.attributes["_layers"]
            Handle handle = Handle(layers), before = self.handle
        if before is not None and not alike(handle.model, before.model):
            raise RuntimeError("the model has other sizes or another dtype than the stream")
        self.layers, self.handle = layers, handle
        if self.stream != NULL:
            self.stream.model, self.stream.planned = handle.model, 0
        return 0

    cdef void set_extents(self, Py_ssize_t rows):
        """The shapes of a step's arrays, and its work."""
        cdef:
            const Model *model = self.handle.model
            Layer layer = self.layers[0]
        self.type_number = layer.type_number
        self.x.ndim = self.output.ndim = 1 if self.batch_size is None else 2
        self.x.axes[0] = self.output.axes[0] = rows        # the next overwrites what is absent
        self.x.axes[self.x.ndim - 1] = model.input_size
        self.output.axes[self.output.ndim - 1] = model.hidden_size
        self.work = 3 * rows * model.hidden_size * (
            model.input_size + model.hidden_size * (2 * model.count - 1))

    cdef int begin(self) except -1:
        """Before a call that another thread must not enter. New weights take effect here."""
        with cython.critical_section(self):
            if self.busy:
                raise RuntimeError("the stream is in use: a stream runs one call at a time; give "
                                   "each thread a stream of its own")
            if self.attributes["_layers"] is not self.layers:
                self.use_layers()
            self.busy = True
        return 0

    def step(self, x_t, out=None):
        """One step of all rows.

        Parameters
        ----------
        x_t : array (N, I), or (I,) without a batch size
        out : ndarray (N, H) or (H,), optional
            Receives the output; it may overlap `x_t`.

        Returns
        -------
        ndarray (N, H) or (H,)
            The hidden state of the last layer (`out`, if given).

        Raises
        ------
        ValueError, TypeError
            A shape or dtype does not fit. The states are as they were.
        RuntimeError
            Another thread is in a call of this stream.
        """
        cdef cnp.ndarray x = self.input_of(x_t), result
        if out is None:
            result = <cnp.ndarray> cnp.PyArray_EMPTY(
                self.output.ndim, self.output.axes, self.type_number, 0)
        else:
            result = self.output_of(out)
            if overlap(x, result):
                x = x.copy()
        self.begin()
        self.run_steps(1, <char *> cnp.PyArray_DATA(x), <char *> cnp.PyArray_DATA(result))
        self.busy = False
        if out is not None and out is not result:
            cnp.PyArray_CopyInto(out, result)
            return out
        return result

    cdef cnp.ndarray input_of(self, x_t):
        """x as an aligned array in C order, itself if it is one."""
        cdef cnp.ndarray x
        if (cnp.PyArray_CheckExact(x_t) and cnp.PyArray_TYPE(<cnp.ndarray> x_t) == self.type_number
                and fits(<cnp.ndarray> x_t, &self.x)
                and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> x_t)):
            return <cnp.ndarray> x_t
        x = _checks.array(x_t, "input", self.model.dtype)
        if not fits(x, &self.x):
            _checks.refuse_stream_input(x, as_tuple(&self.x))
        return <cnp.ndarray> cnp.PyArray_NewCopy(x, cnp.NPY_CORDER)

    cdef cnp.ndarray output_of(self, out):
        """`out`, or if it has gaps an array in its place."""
        cdef cnp.ndarray result = check_out(out, "out", &self.output, self.layers[0])
        if cnp.PyArray_ISCARRAY(result):
            return result
        return <cnp.ndarray> cnp.PyArray_EMPTY(
            self.output.ndim, self.output.axes, self.type_number, 0)

    def _run(self, cnp.ndarray x, cnp.ndarray output):
        """Steps in C order, time-major, of checked shapes. Handlers of signals run in between."""
        cdef:
            Py_ssize_t steps = cnp.PyArray_DIM(x, 0), done = 0, now
            Py_ssize_t most = max(<Py_ssize_t> 1, SIGNAL_WORK // (self.work * self.max_steps))
            char *x_data = <char *> cnp.PyArray_DATA(x)
            char *output_data = <char *> cnp.PyArray_DATA(output)
            bint raised = False
        self.begin()
        while done < steps and not raised:
            now = min(most * self.max_steps, steps - done)
            self.run_steps(now, x_data + done * self.stream.x.step,
                           output_data + done * self.stream.output.step)
            done += now
            raised = check_signals() != 0
        self.busy = False
        if raised:
            raise_pending(None)

    cdef void run_steps(self, Py_ssize_t steps, char *x, char *output) noexcept:
        cdef:
            gru_stream *stream = <gru_stream *> self.stream
            size_t itemsize = self.itemsize()
        if steps * self.work < GIL_WORK:
            stream_run(itemsize, stream, steps, x, output)
        else:
            with nogil:
                stream_run(itemsize, stream, steps, x, output)

    # ---- states ------------------------------------------------------------------------------

    def _get_state(self, cnp.ndarray state):
        """state (L, N, H), in C order."""
        self.begin()
        stream_get_state(self.itemsize(), <gru_stream *> self.stream, cnp.PyArray_DATA(state))
        self.busy = False

    def _set_state(self, cnp.ndarray state):
        self.begin()
        stream_set_state(self.itemsize(), <gru_stream *> self.stream, cnp.PyArray_DATA(state))
        self.busy = False

    def _reset(self, cnp.ndarray rows):
        """rows (N) of bytes, or None for all."""
        self.begin()
        stream_reset(self.itemsize(), <gru_stream *> self.stream, bytes_of(rows))
        self.busy = False

    def _copy_rows(self, cnp.ndarray order, cnp.ndarray targets, cnp.ndarray sources):
        """order (N) is 0 to N - 1; there are as many sources as targets, or one. All are
        Py_ssize_t. NumPy's own assignment may fail, without memory, with other errors."""
        cdef:
            Py_ssize_t *source_of = <Py_ssize_t *> cnp.PyArray_DATA(order)
            const Py_ssize_t *source = <const Py_ssize_t *> cnp.PyArray_DATA(sources)
            const Py_ssize_t *target = <const Py_ssize_t *> cnp.PyArray_DATA(targets)
            bint one = cnp.PyArray_SIZE(sources) == 1
            Py_ssize_t i
        for i in range(cnp.PyArray_SIZE(targets)):
            source_of[target[i]] = source[0 if one else i]
        self.begin()
        stream_copy_rows(self.itemsize(), <gru_stream *> self.stream,
                         <const ptrdiff_t *> source_of)
        self.busy = False

    @property
    def address(self):
        """A ``gru_stream *`` for the functions of gru_c.h, as an integer. C must not use it while
        Python does. It stays valid as long as the stream. New weights of the model take effect with
        the next call from Python, or when this is read."""
        self.begin()
        self.busy = False
        return <size_t> self.stream


cdef bint alike(const Model *a, const Model *b) noexcept:
    """Whether the memory of a stream of one fits the other."""
    return (a.context == b.context and a.count == b.count and a.input_size == b.input_size
            and a.hidden_size == b.hidden_size and a.directions == b.directions
            and a.reverse == b.reverse and a.reset_after == b.reset_after)
