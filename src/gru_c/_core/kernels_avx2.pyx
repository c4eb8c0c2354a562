"""The kernels, built for AVX2 with FMA."""
include "rnn/pointwise.pxi"
include "rnn/contexts.pxi"
cdef public void *gru_avx2_contexts() noexcept nogil: return filled_contexts()
