# The context of int8 weights: products of int8, and the pointwise functions of float once more,
# compiled without contraction of multiply and add. Included by kernels_int8_*.pyx, after
# rnn/pointwise.pxi.

from gru_c._core.sizes cimport LINE

cdef extern from "gemm/int8.h" nogil:
    gemm_t gemm_int8, gemm_int8_12_bits                    # functions in C
    quantize_rows_t quantize_rows
    Py_ssize_t INT8_MR
    int INT8_FLIP

cdef enum:
    ANY_K = 1 << 30            # rows of B: a product visits C once

cdef Context context_of_isa


cdef Context *filled_context() noexcept nogil:
    """The context. A C program may call this, too: no Python is needed."""
    context_of_isa.itemsize = sizeof(float)
    context_of_isa.mr, context_of_isa.nr = INT8_MR, NR
    context_of_isa.kc, context_of_isa.unit = ANY_K, LINE
    context_of_isa.gemm[INT8] = context_of_isa.gemm_prefetch[INT8] = gemm_int8
    context_of_isa.gemm[INT8_12_BITS] = gemm_int8_12_bits
    context_of_isa.gemm_prefetch[INT8_12_BITS] = gemm_int8_12_bits
    context_of_isa.quantize_rows, context_of_isa.int8_offset = quantize_rows, INT8_FLIP
    fill_forward(&context_of_isa, <const vec_f32 *> NULL)
    context_of_isa.set_ends = set_ends_f32
    context_of_isa.pack_small = pack_small_f32
    context_of_isa.sigmoid_tanh.small_steps = small_steps_f32
    context_of_isa.any_activations.small_steps = small_steps_any_f32
    return &context_of_isa


context = PyCapsule_New(filled_context(), "gru_c.context_int8", NULL)
