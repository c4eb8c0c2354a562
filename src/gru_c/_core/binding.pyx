"""The boundary between Python and the core: arrays become views, and a call is described and run.

`forward` and `backward` serve every model and validate their arguments. `_checks` converts what is
no array of the dtype, and words the errors. All memory is allocated before a call begins, so a
MemoryError leaves the model as it was. A cell is a sequence of one step.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport (
    PyCapsule_GetContext, PyCapsule_GetPointer, PyCapsule_New, PyCapsule_SetContext,
)
from cpython.ref cimport Py_INCREF, Py_REFCNT, Py_XDECREF, PyObject
from libc.stddef cimport ptrdiff_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

import os
import threading

import numpy as np

from gru_c import _checks
from gru_c._parameters import NAMES, frozen

from gru_c.cython_gru cimport GRU_OK, gru_model, gru_stream

from gru_c._core.core cimport (
    connect_saved, connect_stack, fork_count, init_layer, mark_rows, max_threads, new_serial,
    of_bfloat16, pack_backward_weights, pack_forward_weights, place_backward_weights,
    place_forward_weights, plan_stack, run_stack, saved_size_of, set_activations, set_contexts,
    set_rounded_context, sort_rows, stream_copy_rows, stream_get_state, stream_init, stream_reset,
    stream_run, stream_set_state, stream_size, sum_blocks, unpack_rounded,
)
from gru_c._core.core cimport sum_steps as core_sum_steps
from gru_c._core.gemm.context cimport (
    AS_DTYPE, BFLOAT16, BFLOAT16_BOTH, INT8, INT8_12_BITS, Activation, Activations, Context,
    PackedMatrix, View2, real,
)
from gru_c._core.rnn.call cimport (
    BACKWARD, FORKED, GO_ON, HELD, INFERENCE, RESET, STOP, STOPPED, TRAINING, Call, Mode,
    PackedLayer, Ragged, Status, View3,
)
from gru_c._core.rnn.stack cimport Stack
from gru_c._core.sizes cimport LINE, copy_rows, round_up
from gru_c._core.surface.types cimport MODEL_TAG, Model, Stream

cnp.import_array()

# How the arrays of a model are arranged.
cdef enum:
    SEQUENCE_FORM              # x (T, N, I) or (T, I), h (L, N, H) or (L, H)
    BATCH_FIRST_FORM           # x (N, T, I)
    STEP_FORM                  # x (N, I) or (I,), h (L, N, H) or (L, H)
    CELL_FORM                  # x (N, I) or (I,), h (N, H) or (H,)

cdef enum:
    SMALL = 8192               # bytes of a workspace that needs no allocation

cdef struct Extents:
    int ndim
    cnp.npy_intp[3] axes

cdef struct Shape:             # of a call
    int form
    int time_axis              # of x, -1 where there is none
    int row_axis
    Py_ssize_t calls           # directions of all layers
    Py_ssize_t directions      # of a layer, 1 or 2
    Py_ssize_t steps
    Py_ssize_t rows
    Extents x
    Extents output
    Extents states             # of all layers

include "options.pxi"
include "saved.pxi"
include "layer.pxi"
include "handle.pxi"
include "stream.pxi"
include "signals.pxi"
include "windows.pxi"

SEQUENCE, BATCH_FIRST, STEP, CELL = SEQUENCE_FORM, BATCH_FIRST_FORM, STEP_FORM, CELL_FORM

# What hidden states and their gradients are called in errors, by form.
cdef tuple STATE_NAMES = ("h_0", "h_0", "h", "hidden")
cdef tuple GRADIENT_NAMES = ("d_h_n", "d_h_n", "d_h_n", "delta")
cdef tuple H_N_NAMES = ("h_n_out", "h_n_out", "out", "out")


# ---- arrays and their views ----------------------------------------------------------------------

cdef cnp.ndarray as_array(value, str name, Layer layer, TrainingState state):
    """`value` as an array of the layer's dtype in native byte order, itself if it is one."""
    cdef cnp.ndarray a
    if cnp.PyArray_CheckExact(value):
        a = <cnp.ndarray> value
        if cnp.PyArray_TYPE(a) == layer.type_number and cnp.PyArray_ISNOTSWAPPED(a):
            return a
    try:
        return _checks.array(value, name, layer.dtype)
    finally:
        state.begin()                                      # the conversion may have run the model


cdef bint as_flag(value, str name) except? True:
    return value is True or value is not False and _checks.flag(value, name)


cdef int check_input(cnp.ndarray x, int form, tuple layers, Shape *shape) except -1:
    """Set the shape of a call. Refuses an x that does not fit."""
    cdef:
        int ndim = cnp.PyArray_NDIM(x), least = 2 if form <= BATCH_FIRST_FORM else 1, axis
        bint stacked = form != CELL_FORM, batched = ndim > least
        Layer layer = layers[0]
    if not least <= ndim <= least + 1:
        _checks.refuse_input_ndim(form, x)
    if cnp.PyArray_DIM(x, ndim - 1) != layer.packed.input_size:
        _checks.refuse_input_size(x, layer.packed.input_size)
    shape.form, shape.calls = form, len(layers)
    shape.directions = directions_of(layers)
    shape.time_axis = shape.row_axis = -1
    shape.steps = shape.rows = 1
    shape.x.ndim = ndim
    for axis in range(ndim):
        shape.x.axes[axis] = cnp.PyArray_DIM(x, axis)
    if form <= BATCH_FIRST_FORM:
        shape.time_axis = 1 if form == BATCH_FIRST_FORM and batched else 0
        shape.steps = shape.x.axes[shape.time_axis]
    if batched:
        shape.row_axis = 1 - shape.time_axis if form <= BATCH_FIRST_FORM else 0
        shape.rows = shape.x.axes[shape.row_axis]
    if shape.steps == 0:
        _checks.refuse_no_steps(x)
    shape.output = shape.x
    shape.output.axes[ndim - 1] = shape.directions * layer.packed.hidden_size
    shape.states.ndim = stacked + batched + 1
    shape.states.axes[0] = shape.calls                     # the next overwrites what is absent
    shape.states.axes[stacked] = shape.rows
    shape.states.axes[stacked + batched] = layer.packed.hidden_size
    return 0


cdef Py_ssize_t directions_of(tuple layers):
    """Two, if every second layer runs in reverse."""
    return 2 if len(layers) > 1 and not layers[0].reverse and layers[1].reverse else 1


cdef bint fits(cnp.ndarray a, const Extents *extents) noexcept:
    return (cnp.PyArray_NDIM(a) == extents.ndim
            and memcmp(cnp.PyArray_DIMS(a), extents.axes,
                       extents.ndim * sizeof(cnp.npy_intp)) == 0)


cdef tuple as_tuple(const Extents *extents):
    return tuple([extents.axes[axis] for axis in range(extents.ndim)])


cdef cnp.ndarray new_array(const Extents *extents, Layer layer):
    """An uninitialized array."""
    return <cnp.ndarray> cnp.PyArray_EMPTY(extents.ndim, <cnp.npy_intp *> extents.axes,
                                           layer.type_number, 0)


cdef cnp.ndarray new_rows(const Extents *extents, Layer layer, RowOptions options):
    """An array for rows of a sequence; zeros stay past the end of a row."""
    if options is None or not options.is_ragged:
        return new_array(extents, layer)
    return <cnp.ndarray> cnp.PyArray_ZEROS(extents.ndim, <cnp.npy_intp *> extents.axes,
                                           layer.type_number, 0)


cdef cnp.ndarray check_array(value, str name, const Extents *expected, Layer layer,
                             TrainingState state, x):
    """`value` as an array of the expected shape. `x` is that of a forward, for its errors."""
    cdef cnp.ndarray a = as_array(value, name, layer, state)
    if not fits(a, expected):
        _checks.refuse_shape(state.form, a, name, as_tuple(expected), x)
    return a


cdef cnp.ndarray check_out(out, str name, const Extents *expected, Layer layer):
    """`out` as an array that takes results."""
    cdef cnp.ndarray a
    if not cnp.PyArray_CheckExact(out):
        _checks.refuse_other_output(out, name)
    a = <cnp.ndarray> out
    if not (cnp.PyArray_TYPE(a) == layer.type_number and cnp.PyArray_ISNOTSWAPPED(a)
            and fits(a, expected) and cnp.PyArray_ISWRITEABLE(a)):
        _checks.refuse_output(a, name, as_tuple(expected), layer.dtype)
    return a


cdef cnp.ndarray kept_from(cnp.ndarray a, cnp.ndarray target):
    """`a`, or a copy if writing to `target` could change it."""
    return a.copy() if a is not None and target is not None and overlap(a, target) else a


cdef inline Py_ssize_t column_stride(cnp.ndarray a) noexcept:
    cdef int last = cnp.PyArray_NDIM(a) - 1
    if cnp.PyArray_DIM(a, last) == 1:                      # NumPy leaves it undefined
        return cnp.PyArray_ITEMSIZE(a)
    return cnp.PyArray_STRIDE(a, last)


cdef inline void set_view(View3 *view, cnp.ndarray a, int step_axis, int row_axis) noexcept:
    """The view of an array; NULL for None. An axis that is not there is -1."""
    view.data = NULL
    if a is None:
        return
    view.data = <char *> cnp.PyArray_DATA(a)
    view.step = cnp.PyArray_STRIDE(a, step_axis) if step_axis >= 0 else 0
    view.row = cnp.PyArray_STRIDE(a, row_axis) if row_axis >= 0 else 0
    view.column = column_stride(a)


cdef void set_sequence_view(View3 *view, cnp.ndarray a, const Shape *shape) noexcept:
    """The view of an array with the axes of x. An axis of length 1 gets an even stride."""
    set_view(view, a, shape.time_axis, shape.row_axis)
    if shape.rows == 1:
        view.row = view.step
    if shape.steps == 1:
        view.step = shape.rows * view.row


cdef inline void set_states_view(View3 *view, cnp.ndarray a, const Shape *shape) noexcept:
    """The view of the hidden states of all layers; NULL for None."""
    cdef bint stacked = shape.form != CELL_FORM
    set_view(view, a, 0 if stacked else -1, stacked if shape.row_axis >= 0 else -1)


cdef inline char *extreme(cnp.ndarray a, int sign) noexcept:
    """The address of the element that is first (-1) or last (1) in memory."""
    cdef:
        char *address = <char *> cnp.PyArray_DATA(a)
        Py_ssize_t reach
        int axis
    for axis in range(cnp.PyArray_NDIM(a)):
        reach = cnp.PyArray_STRIDE(a, axis) * (cnp.PyArray_DIM(a, axis) - 1)
        if sign * reach > 0:
            address += reach
    return address


cdef bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether the address ranges of two arrays of one dtype intersect."""
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a)
    if cnp.PyArray_SIZE(a) == 0 or cnp.PyArray_SIZE(b) == 0:
        return False
    return extreme(a, -1) < extreme(b, 1) + size and extreme(b, -1) < extreme(a, 1) + size


cdef bint same_memory(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two arrays of one shape have the same elements in the same places."""
    return (cnp.PyArray_DATA(a) == cnp.PyArray_DATA(b)
            and memcmp(cnp.PyArray_STRIDES(a), cnp.PyArray_STRIDES(b),
                       cnp.PyArray_NDIM(a) * sizeof(cnp.npy_intp)) == 0)


cdef inline void init_call(Call *call, Mode mode, const Shape *shape) noexcept:
    """Set what the calls of all layers share. Arrays of a sequence are absent."""
    call.mode, call.steps, call.rows = mode, shape.steps, shape.rows
    call.x_stays = call.reverse = call.accumulate = call.has_options = False
    call.states_are_slots = call.flush_denormals = False
    call.need_dx = call.need_grads = True
    call.blocks_done = call.blocks_left = 0
    call.output.data = call.d_output.data = call.dx.data = NULL
    call.ragged, call.marks = NULL, NULL
    call.dropout.data = call.input_dropout.data = call.recurrent_dropout.data = NULL
    call.max_threads = max_threads()
    call.poll = NULL
    if PyThread_get_thread_ident() == main_thread:         # in another no handler runs
        call.poll = poll_signals


# ---- forward -------------------------------------------------------------------------------------

def forward(tuple layers, x, h_0, h_n_out, TrainingState state, requested):
    """Run all layers. Returns (output, h_n) of a sequence, h_n of a step or cell.

    `h_n_out` receives h_n; it may be h_0 itself. `requested` are the options of a sequence, see
    `_options.py`, or None.
    """
    cdef:
        Layer layer = layers[0]
        cnp.ndarray x_array, h_array = None, output = None, h_n
        Shape shape
        Call call
        RowOptions options = None
        int form = state.form
        bint training = state.training
        object result
    state.begin()
    x_array = as_array(x, "input", layer, state)
    check_input(x_array, form, layers, &shape)
    if h_0 is not None:
        h_array = check_array(h_0, STATE_NAMES[form], &shape.states, layer, state, x_array)
    if h_n_out is None:
        h_n = new_array(&shape.states, layer)
    else:
        h_n = check_out(h_n_out, H_N_NAMES[form], &shape.states, layer)
        x_array = kept_from(x_array, h_n)                  # a row's output could be another's input
        if h_array is not None and not same_memory(h_array, h_n):
            h_array = kept_from(h_array, h_n)
    if form > BATCH_FIRST_FORM:
        result = h_n
    elif requested is None:
        output = new_array(&shape.output, layer)
        result = (output, h_n)
    else:
        if requested.out is not None:
            check_output(requested.out, &shape, layer, h_n)
            x_array, h_array = kept_from(x_array, requested.out), kept_from(h_array, requested.out)
        options = arranged_options(requested, &shape, training)
        state.begin()                                      # a conversion may have run the model
        output = output_array(requested, options, &shape, layer)
        result = (output if requested.out is None else requested.out, h_n)
    if training and not layer.training:
        layers = tuple([each.for_mode(True) for each in layers])
    if training and requested is not None and requested.checkpoint is not None:
        run_windows(layers, requested, &shape, options, x_array, h_array, output, h_n, state)
    else:
        init_call(&call, TRAINING if training else INFERENCE, &shape)
        set_sequence_view(&call.x, x_array, &shape)
        set_sequence_view(&call.output, output, &shape)
        run_layers(layers, None, &call, &shape, options, h_array, h_n,
                   state if training else None, None)
    if options is not None and requested.out is not None and output is not requested.out:
        cnp.PyArray_CopyInto(requested.out, output)
    return result


cdef RowOptions arranged_options(requested, Shape *shape, bint training):
    """The options for the core. Steps past the longest row are left out."""
    cdef RowOptions options = RowOptions(requested.arrange(
        shape.steps, shape.rows, shape.row_axis >= 0, shape.time_axis == 1, training))
    if options.is_ragged:
        shape.steps = options.steps
    return options


cdef int check_output(out, const Shape *shape, Layer layer, cnp.ndarray h_n) except -1:
    """Refuse an `out` that cannot take the output."""
    if overlap(check_out(out, "out", &shape.output, layer), h_n):
        _checks.refuse_overlap(out, h_n)
    return 0


cdef cnp.ndarray output_array(requested, RowOptions options, const Shape *shape, Layer layer):
    """The array of output, or None. Rows past their end are zero.

    It is the caller's, unless that has gaps between columns.
    """
    cdef cnp.ndarray out = requested.out
    if not requested.return_output:
        return None
    if out is None or column_stride(out) != cnp.PyArray_ITEMSIZE(out):
        return new_rows(&shape.output, layer, options)
    if options.is_ragged:
        out.fill(0)
    return out


cdef int run_layers(tuple layers, list saved, Call *whole, const Shape *shape, RowOptions options,
                    cnp.ndarray h_first, cnp.ndarray h_last, TrainingState state,
                    Carry carry) except -1:
    """One call per layer and direction: plan all, allocate, run all.

    `h_first` and `h_last` are h_0 and h_n of a forward, d_h_n and dh_0 of a backward. A forward
    saves if it is given a state. A backward of a window is given a `carry`.
    """
    cdef:
        Py_ssize_t count = shape.calls
        bint back = whole.mode == BACKWARD
        Call *calls = whole if count == 1 else <Call *> PyMem_RawMalloc(count * sizeof(Call))
        char[SMALL] small
        Stack stack
        void *memory = NULL
        dict grads
        long long due = 0
        Status status
    whole.poll_argument = &due
    try:
        if calls != NULL:
            describe_calls(calls, layers, saved, whole, shape, options)
            describe_stack(&stack, shape, options, h_first, h_last)
            plan_stack(&stack, calls)
            if carry is not None:
                carry.fit(count, stack.workspace)
                stack.size -= shape.directions * stack.workspace
            memory = small if stack.size <= SMALL else PyMem_RawMalloc(stack.size)
        if memory == NULL:
            raise MemoryError("could not allocate the workspace of a call")
        connect_stack(&stack, calls, memory)
        if carry is not None:
            carry.connect(calls, count)
        if back:
            grads = consume(saved, calls, whole, state)
        elif state is not None:
            saved = new_saved(layers, calls, options, &stack, state)
        with nogil:
            status = run_stack(&stack, calls)
        if status == STOPPED:
            raise_pending(state)
        if back:
            state.finish(grads, None if whole.keep_saved else saved)
        elif state is not None:
            state.store(saved, calls, shape)
    finally:
        if memory != <void *> small:
            PyMem_RawFree(memory)
        if calls != whole:
            PyMem_RawFree(calls)
    return 0


cdef void describe_calls(Call *calls, tuple layers, list saved, Call *whole, const Shape *shape,
                         RowOptions options) noexcept:
    """What each call is told of its layer, its rows and its forward. `calls` may be `whole`."""
    cdef:
        Py_ssize_t index
        Layer layer
        Saved layer_saved
    if options is not None:
        set_options(whole, options)
    for index in range(shape.calls):
        if calls != whole:
            calls[index] = whole[0]
        if whole.mode == BACKWARD:
            layer_saved = saved[index]
            layer = layer_saved.layer
            calls[index].saved = layer_saved.memory.data
            calls[index].x, calls[index].x_stays = layer_saved.input, layer_saved.x_stays
        else:
            layer = layers[index]
        calls[index].layer, calls[index].reverse = &layer.packed, layer.reverse


cdef void describe_stack(Stack *stack, const Shape *shape, RowOptions options, cnp.ndarray h_first,
                         cnp.ndarray h_last) noexcept:
    stack.count, stack.directions = shape.calls, shape.directions
    set_states_view(&stack.first_states, h_first, shape)
    set_states_view(&stack.last_states, h_last, shape)
    stack.multipliers = NULL if options is None else options.multipliers
    stack.output_is_h = options is None or options.output_is_h
    stack.has_held_steps = options is not None and options.has_held_steps


cdef inline bint suits(Memory memory, size_t size) noexcept:
    """Whether memory is large enough, and not much too large: ragged batches differ in size."""
    return size <= memory.size <= 2 * size


cdef list new_saved(tuple layers, Call *calls, RowOptions options, const Stack *stack,
                    TrainingState state):
    """Saved activations with memory; earlier ones give theirs if it suits."""
    cdef:
        list saved = [], old
        bint has_saved, reuse
        Py_ssize_t index
        size_t size
        Saved new
    old = state.acquire(&has_saved)
    try:
        reuse = old is not None and len(old) == len(layers) and unshared(old)
        for index in range(len(layers)):
            size = saved_size_of(stack, calls, index)
            new = Saved.__new__(Saved)
            new.layer, new.options = layers[index], options
            if reuse and suits((<Saved> old[index]).memory, size):
                new.memory = (<Saved> old[index]).memory
            else:
                new.memory = Memory(size)
            connect_saved(stack, calls, index, new.memory.data)
            saved.append(new)
    except BaseException:
        state.restore(old, has_saved)
        raise
    return saved


# ---- backward ------------------------------------------------------------------------------------

def backward(TrainingState state, d_output, d_h_n, accumulate=False, need_dx=True, need_grads=True):
    """Gradients of the last forward: (dx, dh_0), and those of the parameters in `state.grads`.

    Returns None if nothing is saved. A cell keeps its saved activations; a sequence consumes them.
    """
    cdef:
        list saved
        Shape shape
        Layer layer
        Call call
        RowOptions options
        cnp.ndarray d_output_array = None, d_h_n_array = None, dx = None, dh_0
    state.begin()
    with cython.critical_section(state):
        saved = state.saved
    if saved is None:
        return None
    layer, shape = (<Saved> saved[0]).layer, (<Saved> saved[0]).shape
    options = (<Saved> saved[0]).options
    if d_output is not None:
        d_output_array = check_array(d_output, "d_output", &shape.output, layer, state, None)
    if d_h_n is not None or shape.form == CELL_FORM:
        d_h_n_array = check_array(d_h_n, GRADIENT_NAMES[shape.form], &shape.states, layer, state,
                                  None)
    init_call(&call, BACKWARD, &shape)
    call.keep_saved = shape.form == CELL_FORM
    call.accumulate = as_flag(accumulate, "accumulate")
    call.need_dx, call.need_grads = as_flag(need_dx, "need_dx"), as_flag(need_grads, "need_grads")
    if call.need_dx:
        dx = new_rows(&shape.x, layer, options)
    dh_0 = new_array(&shape.states, layer)
    if (<Saved> saved[0]).windows is not None:
        undo_windows(saved, &call, d_output_array, d_h_n_array, dx, dh_0, state)
    else:
        set_sequence_view(&call.d_output, d_output_array, &shape)
        set_sequence_view(&call.dx, dx, &shape)
        run_layers(None, saved, &call, &shape, options, d_h_n_array, dh_0, state, None)
    return dx, dh_0


cdef dict consume(list saved, Call *calls, const Call *whole, TrainingState state):
    """Take the saved activations, and give the calls arrays for the gradients of the parameters."""
    cdef:
        dict grads = {}, old
        Layer layer
        Py_ssize_t index, i
        char *data[4]
    old = state.consume(saved, whole.keep_saved)
    if not whole.need_grads or whole.blocks_left:
        return old
    try:
        for index in range(len(saved)):
            layer = (<Saved> saved[index]).layer
            for i in range(4):
                weight = layer.weights.get(NAMES[i])
                data[i] = NULL
                if weight is not None:
                    grad = gradient_array(old, layer.names[i], weight, layer, whole.accumulate)
                    grads[layer.names[i]] = grad
                    data[i] = <char *> cnp.PyArray_DATA(grad)
            calls[index].dweight_ih, calls[index].dweight_hh = data[0], data[1]
            calls[index].dbias_ih, calls[index].dbias_hh = data[2], data[3]
            calls[index].accumulate = whole.accumulate and old is not None
    except BaseException:
        state.restore(saved, True, old)
        raise
    return grads


cdef cnp.ndarray gradient_array(dict old, str name, cnp.ndarray weight, Layer layer,
                                bint accumulate):
    """The old gradient if nobody else holds it or its dict, else a new array like the weight.

    To accumulate, that is a copy of the old one, which may be anything that the caller put there.
    New memory costs page faults: 1.6 % of the training of 10,64,161,1760, whose dW_hh has 37 MB.
    """
    if old is not None and Py_REFCNT(old) == 1:            # the caller's reference
        found = old.get(name)
        if (Py_REFCNT(found) == 2                          # the dict's, and `found`
                and cnp.PyArray_CheckExact(found)
                and cnp.PyArray_TYPE(found) == layer.type_number and cnp.PyArray_ISCARRAY(found)
                and cnp.PyArray_SAMESHAPE(found, weight)
                and cnp.PyArray_CHKFLAGS(found, cnp.NPY_ARRAY_OWNDATA)):
            return found
    if accumulate and old is not None:
        return <cnp.ndarray> cnp.PyArray_NewCopy(old_gradient(old, name, weight, layer),
                                                 cnp.NPY_CORDER)
    return <cnp.ndarray> cnp.PyArray_EMPTY(
        cnp.PyArray_NDIM(weight), cnp.PyArray_DIMS(weight), layer.type_number, 0)


cdef cnp.ndarray old_gradient(dict old, str name, cnp.ndarray weight, Layer layer):
    """An array that the caller may have put there."""
    cdef cnp.ndarray found = _checks.array(old.get(name), f"grads[{name!r}]", layer.dtype)
    _checks.shape(found, (<object> weight).shape, f"grads[{name!r}]")
    return found


def swap(dict attributes, str name, old, new):
    """Replace `old` by `new` if it is still there. Returns whether it was.

    Atomic: nothing here runs Python code, so no thread or signal handler can interfere.
    """
    with cython.critical_section(attributes):
        if attributes.get(name) is not old:
            return False
        attributes[name] = new
        return True
