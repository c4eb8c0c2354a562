# The contexts of float, of double, and of float with both factors of products rounded to bfloat16,
# filled with the kernels of an instruction set. Included by kernels_*.pyx, after rnn/pointwise.pxi.

cdef extern from "kernels.h" nogil:
    gemm_t gemm_bfloat16, gemm_prefetch_bfloat16, gemm_pairs, gemm_prefetch_pairs
    quantize_rows_t round_rows, pair_rows
    bint HAVE_PAIRS

cdef extern from "platform.h" nogil:
    bint has_bfloat16 "gru_bfloat16"()

cdef Context[3] contexts_of_isa                            # float, double, BFLOAT16_BOTH


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


cdef void fill_bfloat16(Context *context) noexcept nogil:
    """That of float with other products."""
    context.pack_small = NULL                              # `small_steps` would not round h
    context.gemm[BFLOAT16_BOTH] = gemm_bfloat16
    context.gemm_prefetch[BFLOAT16_BOTH] = gemm_prefetch_bfloat16
    context.quantize_rows = round_rows
    if HAVE_PAIRS and has_bfloat16():
        context.gemm[BFLOAT16_BOTH] = gemm_pairs
        context.gemm_prefetch[BFLOAT16_BOTH] = gemm_prefetch_pairs
        context.quantize_rows = pair_rows


cdef Context *filled_contexts() noexcept nogil:
    """The contexts. A C program may call this, too: no Python is needed."""
    fill(&contexts_of_isa[0], <const vec_f32 *> NULL)
    fill(&contexts_of_isa[1], <const vec_f64 *> NULL)
    contexts_of_isa[2] = contexts_of_isa[0]
    fill_bfloat16(&contexts_of_isa[2])
    return contexts_of_isa


contexts = PyCapsule_New(filled_contexts(), "gru_c.contexts", NULL)
