"""The kernels of int8 weights, built for AVX2."""
include "rnn/pointwise.pxi"
include "rnn/context_int8.pxi"
cdef public void *gru_int8_avx2_context() noexcept nogil: return filled_context()
