"""The boundary between Python and the core: arrays become views, and a call is described and run.

`forward` and `backward` serve every model and validate their arguments. `_checks` converts what is
no array of the dtype, and words the errors. All memory is allocated before a call begins, so a
MemoryError leaves the model as it was. A cell is a sequence of one step.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_REFCNT
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

import os
import threading

from gru_c import _checks
from gru_c._parameters import NAMES, frozen

from gru_c._core.core cimport (
    fork_count, init_layer, max_threads, pack_backward_weights, pack_forward_weights,
    place_backward_weights, place_forward_weights, saved_size, set_activations, sum_blocks,
    workspace_size,
)
from gru_c._core.core cimport backward as run_backward, forward as run_forward
from gru_c._core.core cimport sum_steps as core_sum_steps
from gru_c._core.gemm.context cimport Activation, Activations, Context, View2, real
from gru_c._core.rnn.call cimport (
    BACKWARD, FINISHED, FORKED, GO_ON, HELD, INFERENCE, RESET, SILENT,
    SILENT_REVERSE, STOP, STOPPED, TRAINING, Call, Mode, PackedLayer, Ragged, Status, View3,
)
from gru_c._core.sizes cimport LINE, copy_rows, round_up

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


cdef void set_state_view(View3 *view, cnp.ndarray a, const Shape *shape, Py_ssize_t index) noexcept:
    """The view of the hidden states of one layer; NULL for None."""
    cdef bint stacked = shape.form != CELL_FORM
    set_view(view, a, -1, stacked if shape.row_axis >= 0 else -1)
    if stacked and a is not None:
        view.data += index * cnp.PyArray_STRIDE(a, 0)


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


cdef struct Plan:              # bytes of the memory of all calls
    Py_ssize_t between         # of each buffer between two layers
    int buffers                # how many of them
    Py_ssize_t second_dx       # of dx of the second direction
    Py_ssize_t workspace       # of a call
    Py_ssize_t size            # of all, but the workspaces of a Carry


cdef int run_layers(tuple layers, list saved, Call *whole, const Shape *shape, RowOptions options,
                    cnp.ndarray h_first, cnp.ndarray h_last, TrainingState state,
                    Carry carry) except -1:
    """One call per layer and direction: plan all, allocate, run all.

    `h_first` and `h_last` are h_0 and h_n of a forward, d_h_n and dh_0 of a backward. A forward
    saves if it is given a state. A backward of a window is given a `carry`.
    """
    cdef:
        Py_ssize_t count = shape.calls, directions = shape.directions, index, done
        bint back = whole.mode == BACKWARD
        Call *calls = whole if count == 1 else <Call *> PyMem_RawMalloc(count * sizeof(Call))
        char[SMALL] small
        Plan plan
        void *memory = NULL
        dict grads
        long long due = 0
        Status status = FINISHED
    whole.poll_argument = &due
    try:
        if calls != NULL:
            plan_calls(&plan, layers, saved, calls, whole, shape, options, h_first, h_last)
            if carry is not None:
                carry.fit(count, plan.workspace)
                plan.size -= directions * plan.workspace
            memory = small if plan.size <= SMALL else PyMem_RawMalloc(plan.size)
        if memory == NULL:
            raise MemoryError("could not allocate the workspace of a call")
        connect(calls, shape, &plan, memory)
        if carry is not None:
            carry.connect(calls, count)
        if back:
            grads = consume(saved, calls, whole, state)
        elif state is not None:
            saved = new_saved(layers, calls, shape, options, &plan, state)
        with nogil:
            for done in range(count if directions == 1 else count // 2):
                index = count - directions * (done + 1) if back else directions * done
                connect_saved(calls, index)
                status = (run_backward(&calls[index], directions) if back
                          else run_forward(&calls[index], directions))
                if status == STOPPED:
                    break
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


cdef void plan_calls(Plan *plan, tuple layers, list saved, Call *calls, const Call *whole,
                     const Shape *shape, RowOptions options, cnp.ndarray h_first,
                     cnp.ndarray h_last) noexcept:
    """Fill in the calls, except for memory that is to be allocated, and the sizes of that.

    Both directions of a layer read x and write their columns of output. Between layers, rows are
    packed. In a backward dx of a layer is the d_output of the layer below.
    """
    cdef:
        Py_ssize_t index
        bint back = whole.mode == BACKWARD
        Layer layer
        Saved layer_saved
        Py_ssize_t size
        Call *call
    plan[0] = Plan(0, 0, 0, 0, 0)
    for index in range(shape.calls):
        call = &calls[index]
        if call != whole:
            call[0] = whole[0]
        layer = (<Saved> saved[index]).layer if back else <Layer> layers[index]
        call.layer, call.reverse = &layer.packed, layer.reverse
        set_state_view(&call.d_h_n if back else &call.h_0, h_first, shape, index)
        set_state_view(&call.dh_0 if back else &call.h_n, h_last, shape, index)
        if options is not None:
            set_options(call, options, shape, index)
        if shape.calls > 1:
            set_between(call, shape, options, index)
        if back:
            layer_saved = saved[index]
            call.saved = layer_saved.memory.data
            call.x, call.x_stays = layer_saved.input, layer_saved.x_stays
        size = workspace_size(call, shape.directions)      # whole lines
        plan.workspace = max(plan.workspace, size)
    plan.size = plan.workspace + LINE
    if shape.calls > 1:
        plan_buffers(plan, calls, shape, options)


cdef void set_between(Call *call, const Shape *shape, RowOptions options,
                      Py_ssize_t index) noexcept:
    """The views of arrays between layers, without their data; the columns of this direction."""
    cdef:
        Py_ssize_t D = shape.directions, H = call.layer.hidden_size
        Py_ssize_t itemsize = call.layer.context.itemsize, row = D * H * itemsize
        View3 between
    if reads_slots(call, shape, options):
        row = call.layer.ld_h
    between = View3(NULL, call.rows * row, row, itemsize)
    if index >= D:
        call.x, call.dx, call.need_dx = between, between, True
        call.x_stays = (call.mode == TRAINING and call.input_dropout.data == NULL
                        and (options is None or not options.has_held_steps))
    if index % D == 1:
        row = call.layer.input_size * itemsize
        call.dx, call.dx_packed = View3(NULL, call.rows * row, row, itemsize), True
    if index + D < shape.calls:
        call.output = call.d_output = between
    if call.output.data != NULL:
        call.output.data += index % D * H * call.output.column
    if call.d_output.data != NULL:
        call.d_output.data += index % D * H * call.d_output.column


cdef inline bint reads_slots(const Call *call, const Shape *shape, RowOptions options) noexcept:
    """Whether a layer that trains reads what the one below saved: its hidden states are output."""
    return (call.mode == TRAINING and shape.directions == 1
            and (options is None or options.output_is_h))


cdef void plan_buffers(Plan *plan, const Call *calls, const Shape *shape,
                       RowOptions options) noexcept:
    """The sizes of arrays between layers. In a backward of one direction one is enough."""
    cdef:
        Py_ssize_t D = shape.directions
        Py_ssize_t rows = shape.steps * shape.rows, row = D * calls.layer.plane
    if options is not None and options.is_ragged:
        rows = options.ragged.offsets[shape.steps]
    if shape.calls > D and not reads_slots(calls, shape, options):
        plan.between = round_up(rows * row, LINE)
        if calls.mode != TRAINING:                         # else they are saved
            plan.buffers = 1 if calls.mode == BACKWARD and D == 1 else 2
    if calls.mode == BACKWARD and D == 2:
        row = max(row, calls.layer.input_size * calls.layer.context.itemsize)
        plan.second_dx = round_up(rows * row, LINE)
    plan.size = plan.buffers * plan.between + plan.second_dx + D * plan.workspace + LINE


cdef void connect(Call *calls, const Shape *shape, const Plan *plan, void *memory) noexcept:
    """Give the calls their memory: the buffers between layers, which alternate, and workspaces."""
    cdef:
        Py_ssize_t D = shape.directions, index
        char *start = <char *> round_up(<Py_ssize_t> <size_t> memory, LINE)
        char *second_dx = start + plan.buffers * plan.between
    calls.workspace = second_dx + plan.second_dx
    for index in range(1, shape.calls):
        calls[index].workspace = calls.workspace + index % D * plan.workspace
        if index % D == 1:
            calls[index].dx.data = second_dx
        elif plan.buffers:
            connect_below(calls, index, D, start + index // D % plan.buffers * plan.between)


cdef void connect_below(Call *calls, Py_ssize_t index, Py_ssize_t D, char *buffer) noexcept:
    """The array between a layer, whose first call is `index`, and the one below it."""
    cdef:
        Py_ssize_t i, width = calls.layer.hidden_size * calls.layer.context.itemsize
    if calls.mode == BACKWARD:
        calls[index].dx.data = buffer
    for i in range(D):
        if calls.mode != BACKWARD:
            calls[index + i].x.data = buffer
        calls[index - D + i].output.data = buffer + i * width
        calls[index - D + i].d_output.data = buffer + i * width


cdef inline void connect_saved(Call *calls, Py_ssize_t index) noexcept nogil:
    """In training, the x of a layer above the first: the hidden states that the one below saved."""
    if calls[index].mode == TRAINING and index > 0 and calls[index].x.data == NULL:
        calls[index].x.data = calls[index - 1].h
        if not calls[index - 1].reverse:
            calls[index].x.data += calls[index].x.step


cdef inline bint suits(Memory memory, size_t size) noexcept:
    """Whether memory is large enough, and not much too large: ragged batches differ in size."""
    return size <= memory.size <= 2 * size


cdef list new_saved(tuple layers, Call *calls, const Shape *shape, RowOptions options,
                    const Plan *plan, TrainingState state):
    """Saved activations with memory; earlier ones give theirs if it suits.

    The first direction of a layer also has the array between that layer and the one below.
    """
    cdef:
        list saved = [], old
        bint has_saved, reuse
        Py_ssize_t index, D = shape.directions
        size_t size, between
        Saved new
    old = state.acquire(&has_saved)
    try:
        reuse = old is not None and len(old) == len(layers) and unshared(old)
        for index in range(len(layers)):
            size = round_up(saved_size(&calls[index]), LINE)
            between = plan.between if index >= D and index % D == 0 else 0
            new = Saved.__new__(Saved)
            new.layer, new.options = layers[index], options
            if reuse and suits((<Saved> old[index]).memory, size + between):
                new.memory = (<Saved> old[index]).memory
            else:
                new.memory = Memory(size + between)
            calls[index].saved = new.memory.data
            if between:
                connect_below(calls, index, D, <char *> new.memory.data + size)
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
