"""The kernels, built for AVX-512 (F, VL, DQ, BW)."""
include "rnn/pointwise.pxi"
include "rnn/contexts.pxi"
cdef public void *gru_avx512_contexts() noexcept nogil: return filled_contexts()
