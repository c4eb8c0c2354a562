# A forward and a backward in windows of steps, which _checkpoint.py runs one after the other.


def sum_steps(Py_ssize_t rows):
    """A window has a multiple of so many steps, but the one at the end of the sequence."""
    return core_sum_steps(rows)


@cython.final
cdef class Carry:
    """What goes from the backward of a window to the next: a workspace for each layer."""
    cdef:
        Memory memory
        char *start                    # of the first workspace, at a line
        Py_ssize_t size                # of each
        Py_ssize_t done                # blocks of rows, in windows that are undone
        Py_ssize_t left                # in the others

    def __init__(self, Py_ssize_t steps, Py_ssize_t rows, cnp.ndarray offsets):
        """For a sequence, with the offsets of its Ragged or None."""
        cdef Ragged ragged = Ragged(NULL, NULL, NULL)
        if offsets is not None:
            ragged.offsets = <Py_ssize_t *> cnp.PyArray_DATA(offsets)
        self.left = sum_blocks(steps, rows, NULL if offsets is None else &ragged)

    cdef int fit(self, Py_ssize_t count, Py_ssize_t size) except -1:
        """Have workspaces of at least `size` bytes. A window at the end may have needed less."""
        cdef:
            Memory memory
            Py_ssize_t index
            char *start
        if size <= self.size:
            return 0
        memory = Memory(count * size + LINE)
        start = <char *> round_up(<Py_ssize_t> <size_t> memory.data, LINE)
        for index in range(count if self.size else 0):
            memcpy(start + index * size, self.start + index * self.size, self.size)
        self.memory, self.start, self.size = memory, start, size
        return 0

    cdef void connect(self, Call *calls, Py_ssize_t count) noexcept:
        """Give the calls their workspaces."""
        cdef Py_ssize_t index
        for index in range(count):
            calls[index].workspace = self.start + index * self.size


def undo_window(TrainingState state, cnp.ndarray d_output, cnp.ndarray d_h_n, cnp.ndarray dx,
                cnp.ndarray dh_0, bint need_grads, bint accumulate, Carry carry):
    """The backward of one window, which was the last forward of `state`; time-major, batched.

    Arrays may be None, but dh_0. All windows get the same d_h_n, which the first reads, and dh_0,
    which the last writes, as it does the gradients of the parameters.
    """
    cdef:
        list saved = state.saved
        RowOptions options = (<Saved> saved[0]).options
        Shape shape = (<Saved> saved[0]).shape
        Py_ssize_t blocks
        Call call
    state.begin()
    init_call(&call, BACKWARD, &shape)
    blocks = sum_blocks(shape.steps, shape.rows, &options.ragged if options.is_ragged else NULL)
    carry.left -= blocks
    call.blocks_done, call.blocks_left = carry.done, carry.left
    carry.done += blocks
    call.keep_saved, call.accumulate = False, accumulate
    call.need_dx, call.need_grads = dx is not None, need_grads
    set_sequence_view(&call.d_output, d_output, &shape)
    set_sequence_view(&call.dx, dx, &shape)
    run_layers(None, saved, &call, &shape, options, d_h_n, dh_0, state, carry)


cdef int run_windows(tuple layers, requested, const Shape *shape, RowOptions options, cnp.ndarray x,
                     cnp.ndarray h_0, cnp.ndarray output, cnp.ndarray h_n,
                     TrainingState state) except -1:
    """A forward in training of which each k-th state is saved."""
    cdef:
        bint has_saved
        Saved saved = Saved.__new__(Saved)
        list old = state.acquire(&has_saved)
    try:
        saved.layer, saved.options, saved.shape = layers[0], options, shape[0]
        saved.windows = requested.run_windows(shape.steps, layers, x, h_0, output, h_n,
                                              shape.time_axis == 1,
                                              (options.arrays, options.marks, options.masks))
        state.keep([saved])
    except MemoryError:
        state.restore(old, has_saved)
        raise
    except BaseException:
        state.claim()
        raise
    return 0


cdef int undo_windows(list saved, const Call *call, cnp.ndarray d_output, cnp.ndarray d_h_n,
                      cnp.ndarray dx, cnp.ndarray dh_0, TrainingState state) except -1:
    """The backward of such a forward."""
    cdef:
        dict grads, old = state.grads
        bint adds = call.accumulate and call.need_grads
        object windows = (<Saved> saved[0]).windows
    if adds and old is not None:
        check_gradients(old, windows.layers)
    old = state.consume(saved, False)
    try:
        grads = windows.backward(d_output, d_h_n, dx, dh_0, call.need_grads, old if adds else None)
    except MemoryError:
        state.restore(saved, True, old)
        raise
    except BaseException:
        state.claim()
        raise
    state.finish(grads if call.need_grads else old, None)
    return 0


cdef int check_gradients(dict grads, tuple layers) except -1:
    """Refuse gradients that others cannot be added to, before any window runs."""
    cdef Layer layer
    for layer in layers:
        for own, name in zip(NAMES, layer.names):
            if own in layer.weights:
                old_gradient(grads, name, layer.weights[own], layer)
    return 0
