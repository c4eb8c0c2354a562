# One function of gru_c.h: its arguments are checked, its calls described, planned and run.
#
# The memory of a call begins with the calls and, in inference, what the options say of its rows. A
# forward in training leaves the latter at the start of `saved`, for its backward.


cdef size_t at_end(const void *memory, size_t size) noexcept nogil:
    """The address after memory, the last one if there is none so large."""
    return <size_t> memory + min(size, <size_t> -1 - <size_t> memory)


cdef int check_request(Request *request, size_t itemsize) noexcept nogil:
    """The model, the options, the sizes, and the distances between rows."""
    cdef:
        const Model *model = request.model
        const gru_options *options
        int status = check_model(<const gru_model *> model, itemsize, True)
        double bytes_of_row
    if status == GRU_OK:
        status = read_options(&request.options, &request.copy)
    if status != GRU_OK:
        return status
    options = request.options
    if request.steps < 1 or request.rows < 0:
        return GRU_BAD_SIZE
    if request.threads < 1:
        return GRU_BAD_THREADS
    if request.mode != INFERENCE and not model.training:
        return GRU_NO_TRAINING
    bytes_of_row = 16.0 * itemsize * model.count * (model.input_size + 2.0 * model.hidden_size + 64)
    if bytes_of_row * (2.0 + request.steps) * (1.0 + request.rows) >= <double> PTRDIFF_MAX:
        return GRU_BAD_SIZE
    status = set_distances(request)
    if status == GRU_OK and options.x_stays and request.mode == TRAINING and not may_stay(request):
        status = GRU_BAD_OPTION
    return status


cdef bint may_stay(const Request *request) noexcept nogil:
    """Whether a backward can read the caller's x: in C order, and all of it counts."""
    cdef:
        const gru_options *options = request.options
        Py_ssize_t row = request.model.input_size * request.model.context.itemsize
    return (options.lengths == NULL and options.mask == NULL and options.dropout_masks == NULL
            and request.x.row == row and request.x.step == request.rows * row)


cdef int set_distances(Request *request) noexcept nogil:
    """The views of the caller's arrays, without their data."""
    cdef:
        const Model *model = request.model
        const gru_options *options = request.options
        Py_ssize_t outputs = model.directions * model.hidden_size
        bint back = request.mode == BACKWARD
        int status
    status = set_distance(request, &request.x, options.x_step, options.x_row, model.input_size)
    if status == GRU_OK and not back:
        status = set_distance(request, &request.output, options.output_step, options.output_row,
                              outputs)
    if status == GRU_OK and back:
        status = set_distance(request, &request.output, options.d_output_step,
                              options.d_output_row, outputs)
    if status == GRU_OK and back:
        status = set_distance(request, &request.dx, options.dx_step, options.dx_row,
                              model.input_size)
    return status


cdef int set_distance(const Request *request, View3 *view, Py_ssize_t step, Py_ssize_t row,
                      Py_ssize_t columns) noexcept nogil:
    """Distances in bytes, from those in elements; 0, 0 is C order."""
    cdef:
        Py_ssize_t itemsize = request.model.context.itemsize
        double reach = (fabs(<double> step) * request.steps
                        + fabs(<double> row) * max(<Py_ssize_t> 1, request.rows))
    if step == 0 and row == 0 or request.steps == 1 and request.rows == 1 or request.rows == 0:
        step, row = request.rows * columns, columns
    elif step == 0 and request.steps > 1 or row == 0 and request.rows > 1:
        return GRU_BAD_OPTION                              # one of a pair has been forgotten
    if reach * itemsize >= <double> PTRDIFF_MAX:
        return GRU_BAD_SIZE
    view.step, view.row, view.column = step * itemsize, row * itemsize, itemsize
    if request.rows == 1:
        view.row = view.step
    if request.steps == 1:
        view.step = request.rows * view.row
    return GRU_OK


# ---- options of rows -----------------------------------------------------------------------------

cdef Rows place_rows(const Request *request, size_t *end) noexcept nogil:
    """Place what the options say of rows. The sizes are those for any lengths and marks."""
    cdef:
        const gru_options *options = request.options
        Py_ssize_t T = request.steps, N = request.rows, index = sizeof(Py_ssize_t)
        Rows rows
    memset(&rows, 0, sizeof(Rows))
    rows.is_ragged = options.lengths != NULL
    if rows.is_ragged:
        rows.ragged.order = <Py_ssize_t *> place(end, N * index)
        rows.ragged.lengths = <Py_ssize_t *> place(end, N * index)
        rows.ragged.offsets = <Py_ssize_t *> place(end, (T + 1) * index)
        rows.firsts = <Py_ssize_t *> place(end, (T + 1) * index)
    if options.mask != NULL or options.resets != NULL:
        rows.marks = <unsigned char *> place(end, T * N)
    if options.dropout_masks != NULL:
        rows.multipliers = <View3 *> place(end, 3 * request.model.count * sizeof(View3))
    rows.has_options = rows.is_ragged or rows.marks != NULL or rows.multipliers != NULL
    rows.has_held_steps = options.mask != NULL
    rows.output_is_h = not rows.is_ragged and options.resets == NULL
    return rows


cdef int check_lengths(const Request *request, Py_ssize_t *longest) noexcept nogil:
    """Steps of the longest row, at least 1."""
    cdef:
        const ptrdiff_t *lengths = request.options.lengths
        Py_ssize_t row
    longest[0] = request.steps if lengths == NULL else 1
    for row in range(request.rows if lengths != NULL else 0):
        if not 0 <= lengths[row] <= request.steps:
            return GRU_BAD_LENGTHS
        longest[0] = max(longest[0], lengths[row])
    return GRU_OK


cdef void fill_rows(const Request *request, Rows *rows) noexcept nogil:
    cdef:
        const gru_options *options = request.options
        Ragged *ragged = &rows.ragged if rows.is_ragged else NULL
        Py_ssize_t index
    if rows.is_ragged:
        sort_rows(<const Py_ssize_t *> options.lengths, request.rows, request.steps, ragged,
                  rows.firsts)
    if rows.marks != NULL:
        mark_rows(options.mask, options.resets, ragged, request.steps, request.rows, rows.marks)
    for index in range(request.model.count if rows.multipliers != NULL else 0):
        set_multipliers(request, index, &rows.multipliers[3 * index])
        if rows.multipliers[3 * index].data != NULL:
            rows.output_is_h = False


cdef void set_multipliers(const Request *request, Py_ssize_t index,
                          View3 *views) noexcept nogil:
    """The multipliers of output, x and h of one call."""
    cdef:
        const Model *model = request.model
        const void *const *masks = request.options.dropout_masks + 3 * index
        Py_ssize_t itemsize = model.context.itemsize, D = model.directions
        Py_ssize_t output = D * model.hidden_size * itemsize
        Py_ssize_t inputs = model.input_size * itemsize if index < D else output
    views[0] = View3(<char *> masks[0], request.rows * output, output, itemsize)
    if index + D >= model.count:                           # the output of the model is left alone
        views[0].data = NULL
    views[1] = View3(<char *> masks[1], 0, inputs, itemsize)
    views[2] = View3(<char *> masks[2], 0, model.hidden_size * itemsize, itemsize)


# ---- calls ---------------------------------------------------------------------------------------

cdef void describe_call(const Request *request, Py_ssize_t index, Py_ssize_t steps,
                        const Rows *rows, Call *call) noexcept nogil:
    """One call of a model, but what the stack sets. `rows` is NULL for the sizes of any rows."""
    cdef:
        const Model *model = request.model
        bint back = request.mode == BACKWARD
    memset(call, 0, sizeof(Call))
    call.layer, call.mode = &model.layers[index], request.mode
    call.steps, call.rows = steps, request.rows
    call.reverse = model.reverse or index % model.directions == 1
    call.x, call.x_stays = request.x, request.options.x_stays and request.mode != INFERENCE
    if back:
        call.d_output, call.dx = request.output, request.dx
    else:
        call.output = request.output
    call.need_dx, call.need_grads = call.dx.data != NULL, request.gradients != NULL
    call.accumulate, call.keep_saved = request.options.accumulate, request.options.keep_saved
    call.flush_denormals = request.options.flush_denormals != 0
    call.max_threads = min(request.threads, <int> MAX_THREADS)
    if rows == NULL:                                       # any rows
        call.need_dx = call.need_grads = True
        call.x.column = 0 if request.mode == INFERENCE else call.x.column
        return
    call.has_options = rows.has_options
    call.ragged = &rows.ragged if rows.is_ragged else NULL
    call.marks = rows.marks


cdef void describe_stack(const Request *request, const Rows *rows, Stack *stack) noexcept nogil:
    cdef:
        Py_ssize_t itemsize = request.model.context.itemsize
        Py_ssize_t row = request.model.hidden_size * itemsize
    stack.count, stack.directions = request.model.count, request.model.directions
    stack.first_states = View3(request.first_states, request.rows * row, row, itemsize)
    stack.last_states = View3(request.last_states, request.rows * row, row, itemsize)
    stack.multipliers = NULL if rows == NULL else rows.multipliers
    stack.output_is_h = rows == NULL or rows.output_is_h
    stack.has_held_steps = rows != NULL and rows.has_held_steps


cdef size_t head_size(const Request *request) noexcept nogil:
    """Bytes of a workspace before the memory of the stack."""
    cdef size_t end = LINE
    place(&end, request.model.count * sizeof(Call))
    if request.mode == INFERENCE:
        place_rows(request, &end)
    return end


cdef size_t workspace_for_any(const Request *request) noexcept nogil:
    """Bytes of a workspace for any lengths and marks, of a checked request."""
    cdef:
        Py_ssize_t index, more = 0
        Stack stack
        Call call
    describe_stack(request, NULL, &stack)
    stack.output_is_h = False                              # so there are buffers between layers
    begin_plan(&stack)
    for index in range(stack.count - 1, -1, -1):
        describe_call(request, index, request.steps, NULL, &call)
        suppose_options(request, &call)
        plan_in_stack(&stack, &call, index)
        more = max(more, (max_team(&call) - call.team) * call.scratch_size)
    stack.workspace += round_up(more, LINE)
    end_plan(&stack, &call)
    return head_size(request) + stack.size


cdef Py_ssize_t max_team(const Call *call) noexcept nogil:
    """The largest team. With fewer threads, a call that partitioned units may partition rows."""
    return <Py_ssize_t> max(<double> call.team,
                            min(<double> call.max_threads, work_of(call) / THREAD_WORK))


cdef void suppose_options(const Request *request, Call *call) noexcept nogil:
    """For a plan alone: options that need the most memory of those that there will be."""
    cdef const gru_options *options = request.options
    if options.lengths != NULL or options.mask != NULL or options.resets != NULL:
        call.marks = <const unsigned char *> call
    if options.dropout_masks != NULL:
        call.input_dropout.data = call.recurrent_dropout.data = <char *> call
    call.has_options = call.marks != NULL or call.input_dropout.data != NULL


cdef size_t saved_for_any(const Request *request) noexcept nogil:
    """Bytes of `saved`, likewise."""
    cdef:
        Py_ssize_t index
        size_t end = LINE
        Stack stack
        Call call
    describe_stack(request, NULL, &stack)
    stack.output_is_h = False
    begin_plan(&stack)
    place_saved_head(request, &end, NULL)
    for index in range(stack.count - 1, -1, -1):
        describe_call(request, index, request.steps, NULL, &call)
        plan_in_stack(&stack, &call, index)
        call.x_in_place = call.x_in_place and index == 0 and request.options.x_stays
        place(&end, saved_size(&call))
    end_plan(&stack, &call)
    return end + stack.between * (stack.count // stack.directions - 1)


cdef Rows place_saved_head(const Request *request, size_t *end, SavedCall **calls) noexcept nogil:
    """Place what a forward in training leaves before the saved activations."""
    cdef void *placed
    place(end, sizeof(SavedHead))
    placed = place(end, request.model.count * sizeof(SavedCall))
    if calls != NULL:
        calls[0] = <SavedCall *> placed
    return place_rows(request, end)


# ---- forward -------------------------------------------------------------------------------------

cdef int run_forward(Request *request, size_t itemsize, void *saved, size_t saved_bytes,
                     void *workspace, size_t workspace_bytes) noexcept nogil:
    """Of a checked request. `saved` is for TRAINING."""
    cdef:
        size_t end = whole_lines(<size_t> workspace), saved_end = whole_lines(<size_t> saved)
        Call *calls = <Call *> place(&end, request.model.count * sizeof(Call))
        bint training = request.mode == TRAINING
        SavedHead *head = <SavedHead *> saved_end
        SavedCall *saved_calls = NULL
        Rows rows
        Stack stack
        Py_ssize_t longest, index
        int status = check_lengths(request, &longest)
    if status != GRU_OK:
        return status
    if training:
        rows = place_saved_head(request, &saved_end, &saved_calls)
    else:
        rows = place_rows(request, &end)
    if end > at_end(workspace, workspace_bytes) or saved_end > at_end(saved, saved_bytes):
        return GRU_MEMORY_TOO_SMALL
    if training:                                           # not what was there before
        head.model = NULL
    fill_rows(request, &rows)
    describe_stack(request, &rows, &stack)
    for index in range(stack.count):
        describe_call(request, index, longest, &rows, &calls[index])
    plan_stack(&stack, calls)
    if end + stack.size > at_end(workspace, workspace_bytes):
        return GRU_MEMORY_TOO_SMALL
    connect_stack(&stack, calls, <void *> end)
    if training and not place_saved_calls(&stack, calls, saved_calls, &saved_end,
                                          at_end(saved, saved_bytes)):
        return GRU_MEMORY_TOO_SMALL
    zero_past_ends(request, &rows, &request.output,
                   request.model.directions * request.model.hidden_size * itemsize)
    run_stack(&stack, calls)
    if training:
        for index in range(stack.count):
            saved_calls[index].input = calls[index].input
            saved_calls[index].x_stays = calls[index].x_stays
        head[0] = SavedHead(request.model, request.model.serial, saved_bytes, request.steps,
                            request.rows, longest, rows, saved_calls)
    return GRU_OK


cdef bint place_saved_calls(const Stack *stack, Call *calls, SavedCall *saved_calls, size_t *end,
                            size_t limit) noexcept nogil:
    """Give all calls memory for what they save. False if it ends past `limit`."""
    cdef Py_ssize_t index
    for index in range(stack.count):
        saved_calls[index].saved = place(end, saved_size_of(stack, calls, index))
        if end[0] > limit:
            return False
        connect_saved(stack, calls, index, saved_calls[index].saved)
    return True


cdef void zero_past_ends(const Request *request, const Rows *rows, const View3 *view,
                         Py_ssize_t width) noexcept nogil:
    """Zeros in the steps that a row does not have. `view` may be NULL."""
    cdef:
        const Ragged *ragged = &rows.ragged
        Py_ssize_t row, t
    for row in range(request.rows if rows.is_ragged and view.data != NULL else 0):
        for t in range(ragged.lengths[row], request.steps):
            memset(view.data + t * view.step + ragged.order[row] * view.row, 0, width)


# ---- backward ------------------------------------------------------------------------------------

cdef int run_backward(Request *request, size_t itemsize, void *saved, size_t saved_bytes,
                      void *workspace, size_t workspace_bytes) noexcept nogil:
    """Of a checked request."""
    cdef:
        size_t end = whole_lines(<size_t> workspace)
        Call *calls = <Call *> place(&end, request.model.count * sizeof(Call))
        SavedHead *head = <SavedHead *> whole_lines(<size_t> saved)
        Stack stack
        Py_ssize_t index
    if <size_t> (head + 1) > at_end(saved, saved_bytes):
        return GRU_MEMORY_TOO_SMALL
    if not is_saved(head, request):
        return GRU_NOT_SAVED
    if saved_bytes < head.size or end > at_end(workspace, workspace_bytes):
        return GRU_MEMORY_TOO_SMALL
    describe_stack(request, &head.options, &stack)
    for index in range(stack.count):
        describe_call(request, index, head.run, &head.options, &calls[index])
        calls[index].saved = head.calls[index].saved
        calls[index].x, calls[index].x_stays = (head.calls[index].input,
                                                head.calls[index].x_stays)
        if request.gradients != NULL:
            set_gradients(&calls[index], request.gradients + 4 * index)
    plan_stack(&stack, calls)
    if end + stack.size > at_end(workspace, workspace_bytes):
        return GRU_MEMORY_TOO_SMALL
    connect_stack(&stack, calls, <void *> end)
    zero_past_ends(request, &head.options, &request.dx, request.model.input_size * itemsize)
    if not request.options.keep_saved:
        head.model = NULL
    run_stack(&stack, calls)
    return GRU_OK


cdef bint is_saved(const SavedHead *head, const Request *request) noexcept nogil:
    """Whether a forward of this model and these sizes has written it, where it is now."""
    cdef size_t end = <size_t> head
    place(&end, sizeof(SavedHead))
    return (head.model == request.model and head.serial == request.model.serial
            and head.steps == request.steps and head.rows == request.rows
            and <size_t> head.calls == end)


cdef inline void set_gradients(Call *call, char **gradients) noexcept nogil:
    call.dweight_ih, call.dweight_hh = gradients[0], gradients[1]
    call.dbias_ih, call.dbias_hh = gradients[2], gradients[3]


cdef int check_gradients(const Request *request) noexcept nogil:
    """Weights have a gradient; biases have both or none."""
    cdef:
        Py_ssize_t index, i
        char **gradients = request.gradients
    for index in range(request.model.count if gradients != NULL else 0):
        if (gradients[0] == NULL or gradients[1] == NULL
                or (gradients[2] == NULL) != (gradients[3] == NULL)):
            return GRU_NULL_POINTER
        for i in range(4):
            if <size_t> gradients[i] % request.model.context.itemsize != 0:
                return GRU_MISALIGNED
        gradients += 4
    return GRU_OK


# ---- the functions of gru_c.h --------------------------------------------------------------------

cdef int workspace_size_for(size_t itemsize, const gru_model *model, int which, Py_ssize_t steps,
                            Py_ssize_t rows, int threads, const gru_options *options,
                            size_t *size) noexcept nogil:
    cdef:
        Request request
        int status
    if which not in (GRU_INFERENCE, GRU_TRAINING, GRU_BACKWARD):
        return GRU_BAD_OPTION
    new_request(&request, <Mode> which, model, steps, rows, threads, options)
    status = check_request(&request, itemsize)
    if status == GRU_OK and size == NULL:
        return GRU_NULL_POINTER
    if status == GRU_OK:
        size[0] = workspace_for_any(&request)
    return status


cdef int saved_size_for(size_t itemsize, const gru_model *model, Py_ssize_t steps, Py_ssize_t rows,
                        const gru_options *options, size_t *size) noexcept nogil:
    cdef:
        Request request
        int status
    new_request(&request, TRAINING, model, steps, rows, 1, options)
    status = check_request(&request, itemsize)
    if status == GRU_OK and size == NULL:
        return GRU_NULL_POINTER
    if status == GRU_OK:
        size[0] = saved_for_any(&request)
    return status


cdef void new_request(Request *request, Mode mode, const gru_model *model, Py_ssize_t steps,
                      Py_ssize_t rows, int threads, const gru_options *options) noexcept nogil:
    """Of a function of gru_c.h; no arrays yet."""
    memset(request, 0, sizeof(Request))
    request.model, request.mode = <const Model *> model, mode
    request.steps, request.rows, request.threads = steps, rows, threads
    request.options = options


cdef int forward_for(size_t itemsize, Mode mode, const gru_model *model, Py_ssize_t steps,
                     Py_ssize_t rows, const void *x, const void *h_0, void *output, void *h_n,
                     void *saved, size_t saved_bytes, void *workspace, size_t workspace_bytes,
                     int threads, const gru_options *options) noexcept nogil:
    cdef:
        Request request
        int status
    new_request(&request, mode, model, steps, rows, threads, options)
    status = check_request(&request, itemsize)
    if status != GRU_OK:
        return status
    if x == NULL or workspace == NULL or mode == TRAINING and saved == NULL:
        return GRU_NULL_POINTER
    if misaligned(itemsize, h_0, h_n) or misaligned(itemsize, x, output):
        return GRU_MISALIGNED
    request.x.data, request.output.data = <char *> x, <char *> output
    request.first_states, request.last_states = <char *> h_0, <char *> h_n
    # Before `saved` is written
    if mode == TRAINING and (saved_bytes < saved_for_any(&request)
                             or workspace_bytes < workspace_for_any(&request)):
        return GRU_MEMORY_TOO_SMALL
    return run_forward(&request, itemsize, saved, saved_bytes, workspace, workspace_bytes)


cdef int backward_for(size_t itemsize, const gru_model *model, Py_ssize_t steps, Py_ssize_t rows,
                      const void *d_output, const void *d_h_n, void *dx, void *dh_0,
                      void *const *gradients, void *saved, size_t saved_bytes, void *workspace,
                      size_t workspace_bytes, int threads,
                      const gru_options *options) noexcept nogil:
    cdef:
        Request request
        int status
    new_request(&request, BACKWARD, model, steps, rows, threads, options)
    status = check_request(&request, itemsize)
    if status != GRU_OK:
        return status
    if saved == NULL or workspace == NULL:
        return GRU_NULL_POINTER
    if misaligned(itemsize, d_h_n, dh_0) or misaligned(itemsize, d_output, dx):
        return GRU_MISALIGNED
    request.output.data, request.dx.data = <char *> d_output, <char *> dx
    request.first_states, request.last_states = <char *> d_h_n, <char *> dh_0
    request.gradients = <char **> gradients
    status = check_gradients(&request)
    if status == GRU_OK:
        status = run_backward(&request, itemsize, saved, saved_bytes, workspace, workspace_bytes)
    return status
