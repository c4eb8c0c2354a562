"""The kernels, built for what every processor of the platform has."""
include "rnn/pointwise.pxi"
include "rnn/contexts.pxi"
cdef public void *gru_baseline_contexts() noexcept nogil: return filled_contexts()
