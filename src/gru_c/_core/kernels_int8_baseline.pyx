"""The kernels of int8 weights, built for what every processor of the platform has."""
include "rnn/pointwise.pxi"
include "rnn/context_int8.pxi"
cdef public void *gru_int8_baseline_context() noexcept nogil: return filled_context()
