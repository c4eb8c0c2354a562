"""The description of a call of one layer in one direction.

    size_t workspace_size(call, count)   plans the call; bytes of its workspace
    size_t saved_size(call)              of a planned call in TRAINING: of its saved activations
    Status forward(calls, count)         runs planned calls, once
    Status backward(calls, count)

`count` calls, 1 or 2, run side by side: the two directions of a layer, equal in mode, sizes,
options, need_dx and max_threads. Where they run at the same time, only the first polls.

The plan needs all but the memory that the two sizes are sequence for, an entry needs that, too. The
entries never allocate. T steps, N rows, I inputs, H hidden units. All arrays of a call have
the dtype of its layer. Strides count bytes and may be negative. The caller owns all memory. Only
what says "or NULL" may be NULL. Arrays must not overlap unless a comment says so. They must live
until the entry returns, or longer where a comment says so.
"""

from gru_c._core.gemm.context cimport Activations, Context, PackedMatrix, Pointwise, Storage
from gru_c._core.parallel.pool cimport Barrier

cdef enum:
    SUM_LEVELS = 3             # at most, of the sums of weight gradients over all rows

# (steps, rows, columns). For a matrix (rows, columns), `step` is 0.
cdef struct View3:
    char *data                 # NULL where there is no array
    Py_ssize_t step
    Py_ssize_t row
    Py_ssize_t column

# The weights of a layer, packed: immutable, shared by any number of calls at once. The matrices are
# the right factors of x and h in the forward; those named _t, of the gradients. `bias` and the
# matrices are in the memory given to place_forward_weights and place_backward_weights. That memory
# and the context outlive the layer.
cdef struct PackedLayer:
    const Context *context
    Py_ssize_t input_size
    Py_ssize_t hidden_size
    bint reset_after
    Storage storage_ih         # of w_ih; other than AS_DTYPE a layer has no backward
    Storage storage_hh         # of w_hh
    # Of the context: its sigmoid_tanh, or its any_activations, which alone read `activations`.
    const Pointwise *pointwise
    Activations activations
    Py_ssize_t plane           # bytes of the hidden units of a gate, whole lines
    Py_ssize_t ld_gates        # see leading_dimension
    Py_ssize_t ld_h
    char *bias                 # (4, plane): n r z q
    PackedMatrix[3] w_ih       # x -> n, r, z
    PackedMatrix[3] w_hh       # h -> r, z, and q with reset_after; else q = r h -> n
    # Of few units; else no data
    PackedMatrix w_ih_merged   # x -> n r z, side by side
    char *w_hh_small           # for `small_steps`
    # A layer for inference has no data in these.
    PackedMatrix w_ih_t        # da_n da_r da_z -> dx
    PackedMatrix w_hh_t        # da_r da_z dq -> dh_hidden with reset_after, da_r da_z without
    PackedMatrix w_hn_t        # da_n -> dq without reset_after

cdef enum Mode:
    INFERENCE                  # forward, nothing saved
    TRAINING                   # forward, activations saved
    BACKWARD

# What an entry returns. After STOPPED, discard all that it has written.
cdef enum Status:
    FINISHED
    STOPPED

# What `poll` returns, as bits. FORKED: this process is the child of a fork by a signal handler, and
# the other threads of the team are not in it.
cdef enum:
    GO_ON = 0
    STOP = 1
    FORKED = 2

ctypedef int (*poll_t)(void *argument) noexcept nogil

# One level of the sums of weight gradients: (3H, I) and (3H, H), rows padded to whole lines.
cdef struct Sums:
    char *dweight_ih
    char *dweight_hh

# Rows of different lengths. The rows of a call come longest first, so those of a step are a prefix.
# *Packed* rows lie step after step, without those that have ended: step t begins at offsets[t].
cdef struct Ragged:
    Py_ssize_t *order          # (N): where each row is in the caller's arrays
    Py_ssize_t *lengths        # (N): its steps, at most T
    Py_ssize_t *offsets        # (T + 1): rows of all steps before t

cdef enum:                     # bits of a mark, one for each step and row
    HELD = 1                   # the step does not count: the hidden state stays
    RESET = 2                  # the hidden state is zeroed before the step
    SILENT = 4                 # no step has counted yet: output is zero
    SILENT_REVERSE = 8         # the same from the end: SILENT << 1

cdef struct Call:
    # ---- the description, which the caller fills. Inputs are only read.
    const PackedLayer *layer   # outlives the call, and its backward, which needs the transposes
    Mode mode
    Py_ssize_t steps           # T >= 1
    Py_ssize_t rows            # N >= 0
    bint reverse               # the time loop runs from step T - 1 to step 0
    View3 x                    # (T, N, I). A backward reads it if x_stays
    # The caller leaves x unchanged until the backward has ended, so no copy is saved. Requires
    # step = rows * row, column = itemsize, data and row multiples of itemsize, and that all `row`
    # bytes of a row can be read. Not with input_dropout, nor where ragged rows are not packed or
    # marks hold rows.
    bint x_stays
    View3 h_0                  # (N, H), or NULL for zeros. May be h_n
    # h_0 and h_n are slots of h: rows ld_h apart, zeros after the H units. The first step reads
    # h_0; the steps after it alternate. The last writes h_n if they are odd in number, else h_0.
    # Only of INFERENCE, without options.
    bint states_are_slots
    int first_step             # steps of the sequence before this call, modulo 2: a hint
    View3 output               # (T, N, H), contiguous columns, or NULL
    View3 h_n                  # (N, H), or NULL
    View3 d_output             # (T, N, H), or NULL for zeros
    View3 d_h_n                # (N, H), or NULL for zeros
    # dx and the gradients of the weights: all distances are multiples of itemsize.
    # (T, N, I), contiguous columns. May be d_output where I = H and one call runs. Of two calls
    # side by side, the second has a buffer here, which is added to dx of the first.
    View3 dx
    bint need_dx
    View3 dh_0                 # (N, H), or NULL
    char *dweight_ih           # (3H, I), C order
    char *dweight_hh           # (3H, H)
    char *dbias_ih             # (3H), or both NULL
    char *dbias_hh
    bint need_grads            # else no gradients of parameters
    bint accumulate            # they are added to what is there; else set
    # ---- options of rows, which a backward needs as its forward had them
    bint has_options           # some of these are not NULL
    const Ragged *ragged       # or NULL: all rows have T steps. Rows past their end are not touched
    bint x_packed              # with `ragged`: x is packed; else in the caller's order
    bint output_packed         # the same of output and d_output
    bint dx_packed
    const unsigned char *marks  # (T, N), rows longest first; or NULL
    # Multipliers, with contiguous columns and rows in the caller's order; or NULL.
    View3 dropout              # (T, N, H), of output
    View3 input_dropout        # (N, I), of x
    View3 recurrent_dropout    # (N, H), of h in the products with W_hh
    # ---- of a backward: both 0, or the call is one window of a sequence. Windows are whole blocks
    # of the sums, and some row has all steps of each. They are undone one by one, the last of the
    # forward first, with one workspace that keeps its contents. The first reads d_h_n; the last
    # writes dh_0 and the gradients of parameters.
    Py_ssize_t blocks_done     # blocks of rows in the windows that have been undone
    Py_ssize_t blocks_left     # in those that come later
    # ---- how it runs
    # saved_size bytes of any alignment. A forward in TRAINING writes them. The backward reads them
    # at the same address, with the same layer, steps, rows, reverse, options, x_stays and, if that,
    # x.
    void *saved
    bint keep_saved            # the backward leaves `saved` unchanged; else it may overwrite it
    # workspace_size bytes of any alignment, for this call alone. That of windows may move between
    # two of them, by whole lines.
    void *workspace
    int max_threads            # >= 1, for all calls that run side by side
    # Numbers below the smallest normal count as zero: on many processors arithmetic with them is
    # slow. The mode of the threads is restored. Not with `poll`, which would run in it.
    bint flush_denormals
    # Called on the calling thread after each chunk of steps, in a forward after that of each block
    # of rows. Or NULL; the plan sets it to NULL in a short call.
    poll_t poll
    void *poll_argument
    # ---- the plan, which `workspace_size` makes
    int team
    bint by_units              # the team partitions the units of all rows; else the rows
    bint merged                # one product with x for all gates: rows are few
    bint small                 # `small_steps` makes the products with h and the gates
    bint x_in_place            # products read the caller's x; no copy
    bint chunk_packed          # of ragged rows in inference: no two partitions share the buffers
    Py_ssize_t chunk           # steps whose products with x, or dx and dW, are made at once
    int levels                 # of `sums`
    Py_ssize_t blocks          # of rows that are summed, in all windows
    Py_ssize_t scratch_size    # bytes per thread, of a backward or of factors of int8 weights
    # ---- buffers, which the entry places
    View3 input                # what products read as x: (T or chunk, N, I)
    # Rows of T steps are packed; those of a chunk are if `chunk_packed`, else `rows` to a step.
    char *gates                # (T or chunk, N, ld_gates)
    # Saved: (T + 1, N, ld_h). Step t reads slot t and writes slot t + 1; with reverse it reads slot
    # t + 1 and writes slot t. A reset zeroes rows of the slot that its step reads.
    char *h
    # In inference: slot s is h_slots[s mod 2], (N, ld_h). In a call of one step they may be the
    # caller's h_0 and h_n.
    char *h_slots[2]
    char *h_in_slots[2]           # with recurrent_dropout: slot s times it is h_in_slots[s mod 2]
    char *dgates               # (T, N, ld_gates), may be `gates`
    char *dh                   # (N, ld_h): the part of dL/dh that goes through no product
    char *dh_hidden            # (N, ld_h): the part that came through W_hh
    char *dq                   # (N, ld_h), without reset_after
    char *dbias                # (2, 4, plane): sums for n r z q, and the rounding errors of these
    Sums[SUM_LEVELS] sums      # level by level; the last becomes the gradients
    char *scratch              # scratch_size bytes per thread
    # ---- the team
    Barrier barrier
    int stop_round             # threads stop at their first check in this round or later; 0: none
    const Call *beside         # the call that runs at the same time; or NULL

# What one thread of a team works on: some rows, or some units of all rows.
cdef struct Partition:
    int rank
    int team
    int sharers                # threads with the same rows: the team, or 1
    Py_ssize_t row
    Py_ssize_t row_end
    Py_ssize_t column          # units in bytes: whole half panels, or to the end
    Py_ssize_t column_end
    Py_ssize_t panels          # they are in, of the first and the last perhaps a half
    int first_step             # the call's
    Barrier *barrier           # the call's
    char *scratch              # the thread's
