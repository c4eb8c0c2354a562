"""One call of the core: its memory, and its split over threads. No Python object comes here.

Strides of the caller's arrays count elements.
"""

from gru_c._core.recurrence cimport Gradients, Sequence, Weights

cdef enum:
    ALIGNMENT = 64             # bytes: the widest register, and a line of the cache

# What a backward takes and gives beside the buffers of the core, contiguous but for rows of d_h_n.
cdef struct Arrays:
    const void *d_h_n          # (N, H), or NULL for zeros
    Py_ssize_t d_h_n_row
    void *dh_0                 # (N, H)
    void *dweight_ih           # (3H, I)
    void *dweight_hh           # (3H, H)
    void *dbias_ih             # (3H), or NULL
    void *dbias_hh

# How a call ends. Without memory nothing happened; what a stopped call wrote is of no use.
cdef enum Outcome:
    FINISHED
    NO_MEMORY
    STOPPED

# Run without saving, in scratch memory of this call: x, output and their strides stand in `s`, and
# the hook that may stop it.
cdef Outcome infer(
    Weights *w, Sequence *s, const void *h_0, Py_ssize_t h_0_row, void *h_n) noexcept nogil

# Run and save: g and h stand in `s`, too.
cdef Outcome record(
    Weights *w, Sequence *s, const void *h_0, Py_ssize_t h_0_row, void *h_n) noexcept nogil

# Gradients of a call that saved: x, g and h stand in `s`, dx and d_output in `d`; g is overwritten
# unless `keep`.
cdef Outcome differentiate(
    Weights *w, Sequence *s, Gradients *d, Arrays *out, bint keep) noexcept nogil
