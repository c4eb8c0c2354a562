# All layers and directions of a model: what lies between layers, and the order of the calls.
#
# Both directions of a layer read x and write their columns of output. Between layers, rows are
# packed. In a backward dx of a layer is the d_output of the layer below.


cdef void plan_stack(Stack *stack, Call *calls) noexcept nogil:
    """Fill in the calls, except for memory that is to be allocated, and the sizes of that."""
    cdef Py_ssize_t index
    begin_plan(stack)
    for index in range(stack.count):
        plan_in_stack(stack, &calls[index], index)
    end_plan(stack, calls)


cdef inline void begin_plan(Stack *stack) noexcept nogil:
    stack.between = stack.second_dx = stack.workspace = 0
    stack.buffers = 0


cdef void plan_in_stack(Stack *stack, Call *call, Py_ssize_t index) noexcept nogil:
    """Fill in one call."""
    cdef Py_ssize_t size
    if call.mode == BACKWARD:
        call.d_h_n = states_of(&stack.first_states, index)
        call.dh_0 = states_of(&stack.last_states, index)
    else:
        call.h_0 = states_of(&stack.first_states, index)
        call.h_n = states_of(&stack.last_states, index)
    if call.has_options:
        set_row_options(stack, call, index)
    if stack.count > 1:
        set_between(stack, call, index)
    size = workspace_size(call, <int> stack.directions)    # whole lines
    stack.workspace = max(stack.workspace, size)


cdef inline void end_plan(Stack *stack, const Call *first) noexcept nogil:
    """The size of all, from the first call."""
    stack.size = stack.workspace + LINE
    if stack.count > 1:
        plan_buffers(stack, first)


cdef inline View3 states_of(const View3 *states, Py_ssize_t index) noexcept nogil:
    """The states (N, H) of one call, or NULL."""
    cdef View3 view = View3(NULL, 0, states.row, states.column)
    if states.data != NULL:
        view.data = states.data + index * states.step
    return view


cdef void set_row_options(const Stack *stack, Call *call, Py_ssize_t index) noexcept nogil:
    """The options of one call; arrays of inner layers are packed."""
    cdef:
        Py_ssize_t D = stack.directions
        const View3 *multipliers
    call.x_packed = call.dx_packed = index >= D
    call.output_packed = index + D < stack.count
    if stack.multipliers != NULL:
        multipliers = stack.multipliers + 3 * index
        call.dropout, call.input_dropout = multipliers[0], multipliers[1]
        call.recurrent_dropout = multipliers[2]
        if call.dropout.data != NULL:                      # the columns of this direction
            call.dropout.data += index % D * call.layer.hidden_size * call.layer.context.itemsize


cdef void set_between(const Stack *stack, Call *call, Py_ssize_t index) noexcept nogil:
    """The views of arrays between layers, without their data; the columns of this direction."""
    cdef:
        Py_ssize_t D = stack.directions, H = call.layer.hidden_size
        Py_ssize_t itemsize = call.layer.context.itemsize, row = D * H * itemsize
        View3 between
    if reads_slots(stack, call):
        row = call.layer.ld_h
    between = View3(NULL, call.rows * row, row, itemsize)
    if index >= D:
        call.dx, call.need_dx = between, True
        if call.mode != BACKWARD:                          # which is told by its forward
            call.x = between
            call.x_stays = (call.mode == TRAINING and call.input_dropout.data == NULL
                            and not stack.has_held_steps)
    if index % D == 1:
        row = call.layer.input_size * itemsize
        call.dx, call.dx_packed = View3(NULL, call.rows * row, row, itemsize), True
    if index + D < stack.count:
        call.output = call.d_output = between
    if call.output.data != NULL:
        call.output.data += index % D * H * call.output.column
    if call.d_output.data != NULL:
        call.d_output.data += index % D * H * call.d_output.column


cdef inline bint reads_slots(const Stack *stack, const Call *call) noexcept nogil:
    """Whether a layer that trains reads what the one below saved: its hidden states are output."""
    return call.mode == TRAINING and stack.directions == 1 and stack.output_is_h


cdef void plan_buffers(Stack *stack, const Call *calls) noexcept nogil:
    """The sizes of arrays between layers. In a backward of one direction one is enough."""
    cdef:
        Py_ssize_t D = stack.directions
        Py_ssize_t rows = rows_before(calls, calls.steps), row = D * calls.layer.plane
    if stack.count > D and not reads_slots(stack, calls):
        stack.between = round_up(rows * row, LINE)
        if calls.mode != TRAINING:                         # else they are saved
            stack.buffers = 1 if calls.mode == BACKWARD and D == 1 else 2
    if calls.mode == BACKWARD and D == 2:
        row = max(row, calls.layer.input_size * calls.layer.context.itemsize)
        stack.second_dx = round_up(rows * row, LINE)
    stack.size = stack.buffers * stack.between + stack.second_dx + D * stack.workspace + LINE


cdef void connect_stack(const Stack *stack, Call *calls, void *memory) noexcept nogil:
    """Give the calls their memory: the buffers between layers, which alternate, and workspaces."""
    cdef:
        Py_ssize_t D = stack.directions, index
        char *start = <char *> whole_lines(<size_t> memory)
        char *second_dx = start + stack.buffers * stack.between
    calls.workspace = second_dx + stack.second_dx
    for index in range(1, stack.count):
        calls[index].workspace = <char *> calls.workspace + index % D * stack.workspace
        if index % D == 1:
            calls[index].dx.data = second_dx
        elif stack.buffers:
            connect_below(calls, index, D, start + index // D % stack.buffers * stack.between)


cdef void connect_below(Call *calls, Py_ssize_t index, Py_ssize_t D, char *buffer) noexcept nogil:
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


cdef size_t saved_size_of(const Stack *stack, Call *calls, Py_ssize_t index) noexcept nogil:
    """Bytes that a call in TRAINING saves: whole lines, then the array below its layer, if any."""
    cdef size_t size = round_up(saved_size(&calls[index]), LINE)
    if index >= stack.directions and index % stack.directions == 0:
        size += stack.between
    return size


cdef void connect_saved(const Stack *stack, Call *calls, Py_ssize_t index,
                        void *memory) noexcept nogil:
    """Give a call in TRAINING its `saved_size_of` bytes."""
    cdef Py_ssize_t D = stack.directions
    calls[index].saved = memory
    if stack.between and index >= D and index % D == 0:
        connect_below(calls, index, D,
                      <char *> memory + round_up(saved_size(&calls[index]), LINE))


cdef Status run_stack(const Stack *stack, Call *calls) noexcept nogil:
    """A backward begins with the last layer."""
    cdef:
        Py_ssize_t D = stack.directions, done = 0, index
        Status status = FINISHED
    while done < stack.count and status == FINISHED:
        index = done
        if calls.mode == BACKWARD:
            index = stack.count - D - done
            status = backward(&calls[index], <int> D)
        else:
            read_slots_below(calls, index)
            status = forward(&calls[index], <int> D)
        done += D
    return status


cdef inline void read_slots_below(Call *calls, Py_ssize_t index) noexcept nogil:
    """In training, the x of a layer above the first: the hidden states that the one below saved."""
    if calls[index].mode == TRAINING and index > 0 and calls[index].x.data == NULL:
        calls[index].x.data = calls[index - 1].h
        if not calls[index - 1].reverse:
            calls[index].x.data += calls[index].x.step
