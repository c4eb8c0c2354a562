"""The time loop over one direction of one layer: forward, and backward.

Shapes: T steps, N rows, I inputs, H hidden units, `padded` = H rounded up to 64 bytes. All buffers
are time-major; rows of the gate buffer are laid out in kernels.pxd.
"""

from gru_c._core.kernels cimport real
from gru_c._core.panels cimport Panels
from gru_c._core.threads cimport Barrier

# The factors of the products of the equations, named by what they take or give.
cdef struct Weights:
    Py_ssize_t inputs
    Py_ssize_t hidden
    Py_ssize_t padded
    Py_ssize_t padded_inputs
    Py_ssize_t gate_row     # from row to row of the gate buffer
    int itemsize
    bint reset_after
    void *bias              # (4 padded) for n r z q
    Panels[3] from_input    # x -> n, r, z
    Panels[3] from_hidden   # h -> r, z; then h -> q with reset_after, q = r h -> n without
    Panels fused            # h -> r z q or r z side by side, of few units; else no data
    Panels d_input          # da_n da_r da_z -> dx
    Panels d_hidden         # da_r da_z dq -> dh with reset_after, da_r da_z -> dh without
    Panels d_reset          # da_n -> d(r h) without reset_after

# Asked between chunks of steps, by thread 0 of a crew: whether the call is to stop. In a child that
# a signal handler forked, the rest of the crew does not exist.
cdef enum:
    GO_ON = 0
    STOP = 1
    FORKED = 2                 # a bit, STOP another

ctypedef int (*poll_t)(void *argument) noexcept nogil

# One call. g and h hold every step of a call that saves, else g holds `chunk` and h two steps.
cdef struct Sequence:
    Py_ssize_t steps
    Py_ssize_t rows
    Py_ssize_t chunk        # steps whose products with x are made at once
    bint save
    bint fused              # rows are few, and w.fused is there
    const void *x           # (T, N, x_row), x_row >= I
    Py_ssize_t x_row
    const void *source      # what x is to be a copy of, rows at t * source_step + n * source_row;
    Py_ssize_t source_step  # NULL: x is there already
    Py_ssize_t source_row
    void *g                 # (T or chunk, N, g_row): the gate buffer; with `save` its padding is
    Py_ssize_t g_row        # finite on entry
    void *h                 # (T + 1 or 2, N, padded): step t reads slot t (mod 2), writes the next
    void *output            # h after each step, at t * output_step + n * output_row; or NULL
    Py_ssize_t output_step
    Py_ssize_t output_row
    poll_t poll             # NULL: the call does not stop
    void *poll_argument
    int *stop               # the round at whose start the crew stops; 0 at first

cdef enum:
    SUM_LEVELS = 3             # at most, of the sums over all rows

# Gradients of the weights, or a part of their sums over the rows
cdef struct Sums:
    void *dweight_ih        # (3H, I rounded up to 64 bytes)
    void *dweight_hh        # (3H, padded)

# The backward of a call that saved. `chunk` steps are done before dx and dW of them.
cdef struct Gradients:
    void *dg                # (T, N, g_row), may be g: gradients of the pre-activations
    const void *d_output    # rows at t * d_output_step + n * d_output_row, or NULL
    Py_ssize_t d_output_step
    Py_ssize_t d_output_row
    void *dh                # (N, padded): in dL/dh_n, out dL/dh_0; its padding zero on entry
    void *dh_product        # (N, padded): of dL/dh_t the part that came through W_hh; zero on entry
    void *dq                # (N, padded): scratch, without reset_after; likewise
    void *dx                # (T, N, I)
    int levels
    Sums[SUM_LEVELS] sums   # level by level, see `d_weights`; the last becomes the gradients
    void *dbias             # (2, 4 padded): sums for n r z q, and the digits that they lack

# The part that one thread of a crew has in the time loop: some rows, or some units of all rows.
# Threads that share rows meet at the barrier in each step.
cdef struct Part:
    Py_ssize_t row
    Py_ssize_t row_end
    Py_ssize_t panel        # units in panels of 256 bytes
    Py_ssize_t panel_end
    Barrier *barrier
    int sharers             # of the rows: the crew or 1
    int index
    int crew
    void *scratch           # of a backward: scratch_size elements

cdef Py_ssize_t sum_steps(Py_ssize_t rows) noexcept nogil
cdef int sum_levels(Py_ssize_t steps, Py_ssize_t rows) noexcept nogil
cdef Part alone(const Part *part) noexcept nogil
cdef Py_ssize_t first_unit(const Weights *w, int index, int crew) noexcept nogil
cdef void forward(const Weights *w, const Sequence *s, real *g, const Part *part) noexcept nogil
cdef void backward(
    const Weights *w, const Sequence *s, const Gradients *d, real *dg,
    const Part *part) noexcept nogil
cdef Py_ssize_t scratch_size(const Weights *w, Py_ssize_t rows, const real *_) noexcept nogil
