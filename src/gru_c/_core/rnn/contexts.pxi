# The contexts of float and double, each filled with the kernels of its instruction set. Included by
# kernels_*.pyx, after rnn/pointwise.pxi.

cdef Context[2] contexts_of_isa                            # float, double


cdef void fill(Context *context, const vec *_) noexcept nogil:
    """Fill one Context. The casts only change the type of the data pointers."""
    if vec is vec_f32:
        context.itemsize = sizeof(float)
        context.gemm[AS_DTYPE] = gemm_f32
        context.gemm_prefetch[AS_DTYPE] = gemm_prefetch_f32
        context.gemm[BFLOAT16] = gemm_bfloat16
        context.gemm_prefetch[BFLOAT16] = gemm_prefetch_bfloat16
        context.gemm_packed = gemm_packed_f32
        context.set_ends = set_ends_f32
        context.pack_small = pack_small_f32
        context.sigmoid_tanh.small_steps = small_steps_f32
        context.any_activations.small_steps = small_steps_any_f32
    else:
        context.itemsize = sizeof(double)
        context.gemm[AS_DTYPE] = gemm_f64
        context.gemm_prefetch[AS_DTYPE] = gemm_prefetch_f64
        context.gemm_packed = gemm_packed_f64
        context.set_ends = set_ends_f64
        context.pack_small = pack_small_f64
        context.sigmoid_tanh.small_steps = small_steps_f64
        context.any_activations.small_steps = small_steps_any_f64
    context.mr = MR
    context.nr = NR
    context.kc = KC
    context.unit = UNIT
    fill_forward(context, <const vec *> NULL)
    fill_backward(&context.sigmoid_tanh, <const SigmoidTanhView *> NULL, <const vec *> NULL)
    fill_backward(&context.any_activations, <const GateView *> NULL, <const vec *> NULL)
    context.add_rows = <rows_t> add_rows[vec]
    context.column_sums = <column_sums_t> column_sums[vec]


cdef void fill_backward(Pointwise *functions, const gate_view *_, const vec *__) noexcept nogil:
    functions.gates_backward = <pointwise_backward_t> gates_backward[gate_view, vec]
    functions.blend_backward = <pointwise_backward_t> blend_backward[gate_view, vec]
    functions.reset_backward = <reset_backward_t> reset_backward[gate_view, vec]


cdef Context *filled_contexts() noexcept nogil:
    """The contexts of float and double. A C program may call this, too: no Python is needed."""
    fill(&contexts_of_isa[0], <const vec_f32 *> NULL)
    fill(&contexts_of_isa[1], <const vec_f64 *> NULL)
    return contexts_of_isa


contexts = PyCapsule_New(filled_contexts(), "gru_c.contexts", NULL)
