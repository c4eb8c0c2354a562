# A model in C: its options, its memory, its weights.

cdef enum:
    MAX_LAYERS = 1 << 20

cdef extern from "surface/standalone.h" nogil:
    const void *standalone_contexts "gru_contexts"()
    const void *standalone_int8_context "gru_int8_context"()

cdef extern from "gates.h" nogil:
    const int SIGMOID "GRU_SIGMOID"
    const int HARD_SIGMOID "GRU_HARD_SIGMOID"
    const int SCALED_TANH "GRU_SCALED_TANH"
    const int AFFINE "GRU_AFFINE"
    const int THRESHOLDED_RELU "GRU_THRESHOLDED_RELU"
    const int LEAKY_RELU "GRU_LEAKY_RELU"
    const int ELU "GRU_ELU"
    const int SOFTSIGN "GRU_SOFTSIGN"
    const int SOFTPLUS "GRU_SOFTPLUS"

cdef extern from "platform.h" nogil:
    void *gru_allocate(size_t size)

cdef extern from "stdint.h" nogil:
    const ptrdiff_t PTRDIFF_MAX
    const int INT32_MAX

cdef extern from *:
    """
    /* The options of version 1, with padding. */
    #define GRU_OLDEST_OPTIONS \
        ((offsetof(gru_options, flush_denormals) + sizeof(int) + 7) / 8 * 8)
    """
    const size_t OLDEST_OPTIONS "GRU_OLDEST_OPTIONS"

cdef int models                                            # that have been made

cdef const Context *contexts                               # of a kernels module; NULL in C
cdef const Context *rounded_contexts[STORAGES]             # of other storage; NULL until bound


cdef void set_contexts(const Context *of_float) noexcept nogil:
    """Layers made from now on are packed for these."""
    global contexts
    contexts = of_float


cdef void set_rounded_context(Storage storage, const Context *context) noexcept nogil:
    """The same of weights that are not stored as their dtype."""
    rounded_contexts[storage] = context


cdef const Context *context_of(Storage storage, size_t itemsize) noexcept nogil:
    """The context of a dtype, or of another storage; NULL for one that Python has not bound.

    A program without Python chooses by the processor.
    """
    cdef const Context *of_float = contexts
    if storage == AS_DTYPE:
        if of_float == NULL:
            of_float = <const Context *> standalone_contexts()
        return &of_float[itemsize == sizeof(double)]
    if rounded_contexts[storage] != NULL:
        return rounded_contexts[storage]
    if is_bfloat16(storage):
        return of_bfloat16(storage, <const Context *> standalone_contexts())
    return <const Context *> standalone_int8_context()


cdef const Context *of_bfloat16(Storage storage, const Context *of_float) noexcept nogil:
    """Of those of a kernels module."""
    return &of_float[2 if storage == BFLOAT16_BOTH else 0]


# ---- options -------------------------------------------------------------------------------------

cdef int read_options(const gru_options **options, gru_options *copy) noexcept nogil:
    """Let `options` be complete: itself, or a copy of an older version or of NULL."""
    cdef const gru_options *given = options[0]
    if given != NULL and given.struct_size == sizeof(gru_options):
        return GRU_OK
    memset(copy, 0, sizeof(gru_options))
    options[0] = copy
    if given == NULL:
        return GRU_OK
    if not OLDEST_OPTIONS <= given.struct_size < sizeof(gru_options):
        return GRU_BAD_OPTIONS_SIZE
    if given.struct_size % sizeof(void *) != 0:            # no version ends within a word
        return GRU_BAD_OPTIONS_SIZE
    memcpy(copy, given, given.struct_size)
    return GRU_OK


cdef int read_activation(int name, int default, double alpha, double beta, double clip,
                         Activation *f) noexcept nogil:
    """What the core is told of an activation: its own functions, of which others are cases."""
    cdef:
        int[13] functions = [0, SIGMOID, SCALED_TANH, THRESHOLDED_RELU, SOFTSIGN, SOFTPLUS, AFFINE,
                             HARD_SIGMOID, AFFINE, LEAKY_RELU, THRESHOLDED_RELU, SCALED_TANH, ELU]
    if not 0 <= name < 13 or not isfinite(alpha) or not isfinite(beta):
        return GRU_BAD_OPTION
    if name == GRU_ACTIVATION_DEFAULT:
        name = default
    if name == GRU_ACTIVATION_TANH:
        alpha = beta = 1
    elif name == GRU_ACTIVATION_RELU:
        alpha = beta = 0
    elif name == GRU_ACTIVATION_LINEAR:
        alpha, beta = 1, 0
    elif name in (GRU_ACTIVATION_LEAKY_RELU, GRU_ACTIVATION_ELU) and alpha < 0:
        return GRU_BAD_OPTION                              # the derivative comes from the result
    f[0] = Activation(functions[name], alpha, beta, clip, 0, 0)
    return GRU_OK


cdef int read_activations(const gru_options *options, Activations *found,
                          bint *others) noexcept nogil:
    """The activations of a model; `others` is False for sigmoid and tanh without a clip."""
    cdef:
        double clip = options.clip if options.clip != 0 else INFINITY
        int status
    if not clip > 0:
        return GRU_BAD_OPTION
    status = read_activation(
        options.recurrent_activation, GRU_ACTIVATION_SIGMOID, options.recurrent_activation_alpha,
        options.recurrent_activation_beta, clip, &found.r_z)
    if status == GRU_OK:
        status = read_activation(
            options.activation, GRU_ACTIVATION_TANH, options.activation_alpha,
            options.activation_beta, clip, &found.n)
    others[0] = (clip != INFINITY
                 or options.activation not in (GRU_ACTIVATION_DEFAULT, GRU_ACTIVATION_TANH)
                 or options.recurrent_activation not in (GRU_ACTIVATION_DEFAULT,
                                                         GRU_ACTIVATION_SIGMOID))
    return status


cdef int read_storage(const gru_options *options, size_t itemsize,
                      Storage *storage) noexcept nogil:
    """How the weights of a model are stored."""
    storage[0] = AS_DTYPE
    if options.weights == GRU_WEIGHTS_BFLOAT16 and options.x_bits in (0, 16):
        storage[0] = BFLOAT16_BOTH if options.x_bits == 16 else BFLOAT16
    elif options.weights == GRU_WEIGHTS_INT8 and options.x_bits in (0, 8, 12):
        storage[0] = INT8_12_BITS if options.x_bits == 12 else INT8
    elif options.weights != GRU_WEIGHTS_DTYPE or options.x_bits != 0:
        return GRU_BAD_OPTION
    if storage[0] != AS_DTYPE and (itemsize != sizeof(float) or options.training):
        return GRU_BAD_OPTION
    return GRU_OK


cdef bint sums_are_exact(Storage storage, Py_ssize_t inputs, Py_ssize_t units) noexcept nogil:
    """Whether 32 bits hold the sums of int8 over all inputs, and over all units."""
    cdef Py_ssize_t top = 2047 if storage == INT8_12_BITS else 127
    return (storage == AS_DTYPE or is_bfloat16(storage)
            or inputs <= INT32_MAX // (127 * top) and units <= INT32_MAX // (127 * 127))


# ---- memory --------------------------------------------------------------------------------------

cdef int describe_model(Model *model, size_t itemsize, Py_ssize_t input_size,
                        Py_ssize_t hidden_size, const gru_options *options) noexcept nogil:
    """All of a model but its memory."""
    cdef:
        Py_ssize_t layers = options.num_layers if options.num_layers != 0 else 1, D
        double units = hidden_size, inputs = max(<double> input_size, 2.0 * hidden_size)
        Storage storage
        int status = read_storage(options, itemsize, &storage)
    if input_size < 1 or hidden_size < 1 or not 0 < layers <= MAX_LAYERS:
        return GRU_BAD_SIZE
    if options.bidirectional and options.reverse:
        return GRU_BAD_OPTION
    if status != GRU_OK:
        return status
    D = 2 if options.bidirectional else 1
    # Packed for both passes, with padding to panels
    if 16.0 * itemsize * layers * D * (units + 64) * (units + inputs + 128) >= <double> PTRDIFF_MAX:
        return GRU_BAD_SIZE
    if not sums_are_exact(storage, max(input_size, D * hidden_size if layers > 1 else 0),
                          hidden_size):
        return GRU_BAD_SIZE
    memset(model, 0, sizeof(Model))
    model.context, model.storage = context_of(storage, itemsize), storage
    if model.context == NULL:                              # cython_gru binds all
        return GRU_BAD_OPTION
    model.input_size, model.hidden_size, model.directions = input_size, hidden_size, D
    model.count = layers * D
    model.reset_after, model.reverse = not options.reset_before, options.reverse != 0
    model.training = options.training != 0
    return GRU_OK


cdef size_t place_model(Model *model, void *memory) noexcept nogil:
    """Place what follows a Model. Returns the size in bytes, with the model and its alignment."""
    cdef:
        size_t end = whole_lines(<size_t> memory)
        Py_ssize_t index, inputs
        PackedLayer layer
    place(&end, sizeof(Model))
    model.layers = <PackedLayer *> place(&end, model.count * sizeof(PackedLayer))
    model.is_packed = <unsigned char *> place(&end, model.count)
    for index in range(model.count):
        inputs = model.input_size
        if index >= model.directions:
            inputs = model.directions * model.hidden_size
        init_layer(&layer, model.storage, model.context.itemsize, inputs, model.hidden_size,
                   model.reset_after)
        end += place_forward_weights(&layer, <void *> end)
        if model.training:
            end += place_backward_weights(&layer, <void *> end)
        if memory != NULL:
            model.layers[index] = layer
    return end - <size_t> memory + LINE


cdef int prepare_model(size_t itemsize, Py_ssize_t input_size, Py_ssize_t hidden_size,
                       const gru_options *options, Model *model, Activations *activations,
                       bint *others) noexcept nogil:
    """All that the arguments say of a model; see `read_activations`."""
    cdef:
        gru_options copy
        int status = read_options(&options, &copy)
    if status == GRU_OK:
        status = describe_model(model, itemsize, input_size, hidden_size, options)
    if status == GRU_OK:
        status = read_activations(options, activations, others)
    return status


cdef int model_size(size_t itemsize, Py_ssize_t input_size, Py_ssize_t hidden_size,
                    const gru_options *options, size_t *size) noexcept nogil:
    cdef:
        Model model
        Activations activations
        bint others
        int status
    if size == NULL:
        return GRU_NULL_POINTER
    status = prepare_model(itemsize, input_size, hidden_size, options, &model, &activations,
                           &others)
    if status == GRU_OK:
        size[0] = place_model(&model, NULL)
    return status


cdef int model_init(size_t itemsize, void *memory, size_t size, Py_ssize_t input_size,
                    Py_ssize_t hidden_size, const gru_options *options,
                    gru_model **model) noexcept nogil:
    cdef:
        Model described
        Model *made = <Model *> whole_lines(<size_t> memory)
        Activations activations
        bint others
        Py_ssize_t index
        size_t wanted
        int status
    if memory == NULL or model == NULL:
        return GRU_NULL_POINTER
    status = prepare_model(itemsize, input_size, hidden_size, options, &described, &activations,
                           &others)
    if status != GRU_OK:
        return status
    wanted = place_model(&described, NULL)
    if size < wanted:
        return GRU_MEMORY_TOO_SMALL
    memset(memory, 0, wanted)                              # padding of weights is read
    place_model(&described, memory)
    made[0] = described
    for index in range(made.count if others else 0):
        set_activations(&made.layers[index], activations)
    made.serial = new_serial()
    made.tag = MODEL_TAG
    model[0] = <gru_model *> made
    return GRU_OK


cdef int new_serial() noexcept nogil:
    """A number for a model, by which `saved` recognises it."""
    return atomic_add(&models, 1)


cdef int model_new(size_t itemsize, Py_ssize_t input_size, Py_ssize_t hidden_size,
                   const gru_options *options, gru_model **model) noexcept nogil:
    cdef:
        size_t size
        void *memory
        int status = model_size(itemsize, input_size, hidden_size, options, &size)
    if model == NULL:
        return GRU_NULL_POINTER
    if status != GRU_OK:
        return status
    memory = gru_allocate(size)
    if memory == NULL:
        return GRU_OUT_OF_MEMORY
    model_init(itemsize, memory, size, input_size, hidden_size, options, model)
    (<Model *> model[0]).allocated = memory
    return GRU_OK


cdef int model_free(gru_model *model) noexcept nogil:
    cdef:
        Model *given = <Model *> model
        void *memory
    if given == NULL:
        return GRU_OK
    if given.tag != MODEL_TAG or given.allocated == NULL:
        return GRU_NOT_A_MODEL
    memory = given.allocated
    given.tag = 0
    free(memory)
    return GRU_OK


# ---- weights -------------------------------------------------------------------------------------

cdef int model_pack(gru_model *model, Py_ssize_t index, const real *weight_ih,
                    const real *weight_hh, const real *bias_ih, const real *bias_hh) noexcept nogil:
    cdef:
        Model *given = <Model *> model
        PackedLayer *layer
        int status = check_model(model, sizeof(real), False)
    if status != GRU_OK:
        return status
    if not 0 <= index < given.count:
        return GRU_BAD_SIZE
    if weight_ih == NULL or weight_hh == NULL or (bias_ih == NULL) != (bias_hh == NULL):
        return GRU_NULL_POINTER
    if given.is_packed[index]:
        return GRU_ALREADY_PACKED
    if misaligned(sizeof(real), weight_ih, weight_hh) or misaligned(sizeof(real), bias_ih, bias_hh):
        return GRU_MISALIGNED
    layer = &given.layers[index]
    pack_forward_weights(layer, weight_ih, weight_hh, bias_ih, bias_hh)
    if given.training:
        pack_backward_weights(layer, weight_ih, weight_hh)
    given.is_packed[index] = 1
    given.packed += 1
    return GRU_OK


cdef int check_model(const gru_model *model, size_t itemsize, bint packed) noexcept nogil:
    """Whether it is a model of the dtype; with `packed`, whether it can run."""
    cdef const Model *given = <const Model *> model
    if given == NULL:
        return GRU_NULL_POINTER
    if given.tag != MODEL_TAG:
        return GRU_NOT_A_MODEL
    if <size_t> given.context.itemsize != itemsize:
        return GRU_OTHER_DTYPE
    return GRU_NOT_PACKED if packed and given.packed < given.count else GRU_OK


cdef inline bint misaligned(size_t itemsize, const void *a, const void *b) noexcept nogil:
    """Whether one of two arrays is not aligned as its type is."""
    return (<size_t> a | <size_t> b) % itemsize != 0


cdef int model_shape(const gru_model *model, ptrdiff_t *shape) noexcept nogil:
    cdef const Model *given = <const Model *> model
    if given == NULL or shape == NULL:
        return GRU_NULL_POINTER
    if given.tag != MODEL_TAG:
        return GRU_NOT_A_MODEL
    shape[0], shape[1] = given.input_size, given.hidden_size
    shape[2], shape[3] = given.count // given.directions, given.directions
    shape[4] = given.context.itemsize
    return GRU_OK
