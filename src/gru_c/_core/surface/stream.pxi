# Streams: the hidden states of N rows between calls, with calls planned once.
#
# The states of all layers lie in two slots, which steps read and write in turn: none is copied.


cdef int stream_place(Stream *stream, const gru_options *options, size_t *end) noexcept nogil:
    """Place what follows a Stream; the sizes are those of max_steps."""
    cdef:
        const Model *model = stream.model
        size_t states
        Py_ssize_t index
        Request request
        Call call
        int status
    if model.directions > 1 or model.reverse:
        return GRU_NOT_CAUSAL
    if stream.rows < 1 or stream.max_steps < 1:
        return GRU_BAD_SIZE
    # A run may have more steps than max_steps: distances are those of at least two
    new_request(&request, INFERENCE, <const gru_model *> model, max(2, stream.max_steps),
                stream.rows, stream.threads, options)
    status = check_request(&request, model.context.itemsize)
    if status != GRU_OK:
        return status
    stream.x, stream.output = request.x, request.output
    states = model.count * stream.rows * model.layers.ld_h
    stream.calls = <Call *> place(end, model.count * sizeof(Call))
    stream.states[0] = place(end, states)
    stream.states[1] = place(end, states)
    describe_stack(&request, NULL, &stream.stack)
    begin_plan(&stream.stack)
    for index in range(stream.stack.count - 1, -1, -1):
        plan_stream_call(stream, stream.max_steps, index, &call)
    end_plan(&stream.stack, &call)
    stream.size = stream.stack.size
    stream.memory = place(end, stream.size)
    return GRU_OK


cdef int stream_describe(Stream *stream, size_t itemsize, const gru_model *model, Py_ssize_t rows,
                         Py_ssize_t max_steps, int threads, const gru_options *options,
                         size_t *size) noexcept nogil:
    """All of a stream but its memory; its size in bytes, with its alignment."""
    cdef:
        size_t end = LINE
        int status = check_model(model, itemsize, True)
    if status != GRU_OK:
        return status
    memset(stream, 0, sizeof(Stream))
    stream.model, stream.rows, stream.max_steps = <const Model *> model, rows, max_steps
    stream.threads = threads
    place(&end, sizeof(Stream))
    status = stream_place(stream, options, &end)
    size[0] = end
    return status


cdef int stream_size(size_t itemsize, const gru_model *model, Py_ssize_t rows,
                     Py_ssize_t max_steps, int threads, const gru_options *options,
                     size_t *size) noexcept nogil:
    cdef:
        Stream stream
        size_t found
        int status = stream_describe(&stream, itemsize, model, rows, max_steps, threads, options,
                                     &found)
    if status == GRU_OK and size == NULL:
        return GRU_NULL_POINTER
    if status == GRU_OK:
        size[0] = found
    return status


cdef int stream_init(size_t itemsize, void *memory, size_t size, const gru_model *model,
                     Py_ssize_t rows, Py_ssize_t max_steps, int threads,
                     const gru_options *options, gru_stream **stream) noexcept nogil:
    cdef:
        Stream described
        size_t wanted, end = whole_lines(<size_t> memory)
        Stream *made = <Stream *> end
        int status = stream_describe(&described, itemsize, model, rows, max_steps, threads,
                                     options, &wanted)
    if status != GRU_OK:
        return status
    if memory == NULL or stream == NULL:
        return GRU_NULL_POINTER
    if size < wanted:
        return GRU_MEMORY_TOO_SMALL
    memset(memory, 0, wanted)                              # zero states, and no page is new later
    place(&end, sizeof(Stream))
    stream_place(&described, options, &end)
    made[0] = described
    made.tag = STREAM_TAG
    plan_stream(made, 1)
    stream[0] = <gru_stream *> made
    return GRU_OK


cdef int stream_new(size_t itemsize, const gru_model *model, Py_ssize_t rows, Py_ssize_t max_steps,
                    int threads, const gru_options *options, gru_stream **stream) noexcept nogil:
    cdef:
        size_t size
        void *memory
        int status = stream_size(itemsize, model, rows, max_steps, threads, options, &size)
    if status != GRU_OK:
        return status
    if stream == NULL:
        return GRU_NULL_POINTER
    memory = gru_allocate(size)
    if memory == NULL:
        return GRU_OUT_OF_MEMORY
    status = stream_init(itemsize, memory, size, model, rows, max_steps, threads, options, stream)
    (<Stream *> stream[0]).allocated = memory
    return status


cdef int stream_free(gru_stream *stream) noexcept nogil:
    cdef:
        Stream *given = <Stream *> stream
        void *memory
    if given == NULL:
        return GRU_OK
    if given.tag != STREAM_TAG or given.allocated == NULL:
        return GRU_NOT_A_STREAM
    memory = given.allocated
    given.tag = 0
    free(memory)
    return GRU_OK


# ---- running -------------------------------------------------------------------------------------

cdef void plan_stream(Stream *stream, Py_ssize_t steps) noexcept nogil:
    """Plan the calls for so many steps at a time."""
    cdef Py_ssize_t index
    stream.planned = steps
    begin_plan(&stream.stack)
    for index in range(stream.stack.count):
        plan_stream_call(stream, steps, index, &stream.calls[index])
    end_plan(&stream.stack, stream.calls)
    connect_stack(&stream.stack, stream.calls, stream.memory)


cdef void plan_stream_call(Stream *stream, Py_ssize_t steps, Py_ssize_t index,
                           Call *call) noexcept nogil:
    """The call of one layer, which products read x of in place: it is aligned."""
    memset(call, 0, sizeof(Call))
    call.layer, call.mode = &stream.model.layers[index], INFERENCE
    call.steps, call.rows = steps, stream.rows
    call.x, call.output = stream.x, stream.output
    call.max_threads = min(stream.threads, <int> MAX_THREADS)
    call.flush_denormals = call.states_are_slots = True
    plan_in_stack(&stream.stack, call, index)


cdef inline char *slot_of(const Stream *stream, int slot, Py_ssize_t index) noexcept nogil:
    """The states (N, ld_h) of a layer."""
    return stream.states[slot] + index * stream.rows * stream.model.layers.ld_h


cdef void run_steps(Stream *stream, char *x, char *output) noexcept nogil:
    """The planned number of steps."""
    cdef:
        Py_ssize_t index, last = stream.stack.count - 1
        int slot = stream.slot
    for index in range(last + 1):
        stream.calls[index].first_step = slot
        stream.calls[index].h_0.data = slot_of(stream, slot, index)
        stream.calls[index].h_n.data = slot_of(stream, 1 - slot, index)
    stream.calls[0].x.data = x
    stream.calls[last].output.data = output
    run_stack(&stream.stack, stream.calls)
    stream.slot = slot ^ <int> (stream.planned & 1)


cdef void run_stream(Stream *stream, Py_ssize_t steps, char *x, char *output) noexcept nogil:
    """Any number of steps, at most max_steps at a time."""
    cdef Py_ssize_t now
    while steps > 0:
        now = min(steps, stream.max_steps)
        if now != stream.planned:
            plan_stream(stream, now)
        run_steps(stream, x, output)
        x += now * stream.x.step
        if output != NULL:
            output += now * stream.output.step
        steps -= now


cdef inline int check_stream(const gru_stream *stream, size_t itemsize) noexcept nogil:
    cdef const Stream *given = <const Stream *> stream
    if given == NULL:
        return GRU_NULL_POINTER
    if given.tag != STREAM_TAG:
        return GRU_NOT_A_STREAM
    return (GRU_OTHER_DTYPE if <size_t> given.model.context.itemsize != itemsize else GRU_OK)


cdef int stream_run(size_t itemsize, gru_stream *stream, Py_ssize_t steps, const void *x,
                    void *output) noexcept nogil:
    cdef int status = check_stream(stream, itemsize)
    if status != GRU_OK:
        return status
    if steps < 0:
        return GRU_BAD_SIZE
    if x == NULL and steps > 0:
        return GRU_NULL_POINTER
    if misaligned(itemsize, x, output):
        return GRU_MISALIGNED
    run_stream(<Stream *> stream, steps, <char *> x, <char *> output)
    return GRU_OK


# ---- states --------------------------------------------------------------------------------------

cdef int stream_reset(size_t itemsize, gru_stream *stream,
                      const unsigned char *rows) noexcept nogil:
    cdef:
        Stream *given = <Stream *> stream
        Py_ssize_t index, row, ld
        int status = check_stream(stream, itemsize)
    if status != GRU_OK:
        return status
    ld = given.model.layers.ld_h
    for index in range(given.stack.count):
        for row in range(given.rows):
            if rows == NULL or rows[row]:
                memset(slot_of(given, given.slot, index) + row * ld, 0, ld)
    return GRU_OK


cdef int stream_get_state(size_t itemsize, const gru_stream *stream, void *state) noexcept nogil:
    cdef:
        const Stream *given = <const Stream *> stream
        Py_ssize_t width
        int status = check_stream(stream, itemsize)
    if status != GRU_OK:
        return status
    if state == NULL:
        return GRU_NULL_POINTER
    if misaligned(itemsize, state, NULL):
        return GRU_MISALIGNED
    width = given.model.hidden_size * itemsize
    copy_rows(given.stack.count * given.rows, width, given.states[given.slot],
              given.model.layers.ld_h, state, width)
    return GRU_OK


cdef int stream_set_state(size_t itemsize, gru_stream *stream, const void *state) noexcept nogil:
    cdef:
        Stream *given = <Stream *> stream
        Py_ssize_t width
        int status = check_stream(stream, itemsize)
    if status != GRU_OK:
        return status
    if state == NULL:
        return GRU_NULL_POINTER
    if misaligned(itemsize, state, NULL):
        return GRU_MISALIGNED
    width = given.model.hidden_size * itemsize
    copy_rows(given.stack.count * given.rows, width, state, width, given.states[given.slot],
              given.model.layers.ld_h)
    return GRU_OK


cdef int stream_copy_rows(size_t itemsize, gru_stream *stream,
                          const ptrdiff_t *source) noexcept nogil:
    """All states go to the other slot, each row from its source."""
    cdef:
        Stream *given = <Stream *> stream
        Py_ssize_t index, row, ld
        int status = check_stream(stream, itemsize)
    if status != GRU_OK:
        return status
    if source == NULL:
        return GRU_NULL_POINTER
    for row in range(given.rows):
        if not 0 <= source[row] < given.rows:
            return GRU_BAD_ROW
    ld = given.model.layers.ld_h
    for index in range(given.stack.count):
        for row in range(given.rows):
            memcpy(slot_of(given, 1 - given.slot, index) + row * ld,
                   slot_of(given, given.slot, index) + source[row] * ld, ld)
    given.slot = 1 - given.slot
    return GRU_OK
