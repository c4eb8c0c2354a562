"""The kernels of int8 weights, built for AVX2 with AVX-VNNI."""
include "rnn/pointwise.pxi"
include "rnn/context_int8.pxi"
cdef public void *gru_int8_avxvnni_context() noexcept nogil: return filled_context()
