"""The kernels of int8 weights, built for AVX-512 (F, VL, DQ, BW) with VNNI."""
include "rnn/pointwise.pxi"
include "rnn/context_int8.pxi"
cdef public void *gru_int8_avx512vnni_context() noexcept nogil: return filled_context()
