"""What an instruction set, or BLAS, supplies: kernels and their blocking, one Context per dtype.

Widths of rows and leading dimensions (`ld`) count bytes, as NumPy's strides do, so no code outside
the kernels depends on the dtype. `m` and `k` count rows.

Below, C (m, n) = C_INIT + A (m, k) . B (k, n), all row-major. B is packed: a *panel* is PANEL_BYTES
of its columns, the last may be narrower (`panel_width`). Within a panel lie contiguous
*micropanels*, NR wide, line after line. A *line* holds a row of B, or several where its elements
are narrower than those of C (see `Storage`). A microkernel computes a *microtile* of C, at most MR
rows by NR, in registers.
"""

ctypedef fused real:
    float
    double

cdef extern from "gemm/views.h":
    enum:
        PANEL_BYTES "GRU_PANEL_BYTES"

    ctypedef struct View2 "gru_view2":
        char *data
        Py_ssize_t ld

    ctypedef struct Micropanels "gru_micropanels":
        const char *data
        Py_ssize_t ld
        Py_ssize_t stride

    ctypedef struct Prefetch "gru_prefetch":
        const char *data
        Py_ssize_t size
        Py_ssize_t step

cdef extern from "gates.h":
    ctypedef struct Activation "gru_activation":
        int function
        double alpha
        double beta
        double clip
        double low
        double high

    ctypedef struct Activations "gru_activations":
        Activation r_z
        Activation n

    ctypedef struct GateView "gru_gate_view":
        char *data
        Py_ssize_t ld
        Py_ssize_t plane
        const Activations *activations

    ctypedef struct SmallSteps "gru_small_steps":
        Py_ssize_t first_step
        Py_ssize_t steps
        Py_ssize_t rows
        Py_ssize_t units
        bint reset_after
        bint save
        const char *weights
        const char *bias_q
        GateView gates
        Py_ssize_t gates_step
        const char *h_in
        const char *h_prev
        char *h
        Py_ssize_t ld_h
        bint two_slots
        char *output
        Py_ssize_t output_step
        Py_ssize_t output_row

# How the elements of a packed matrix are stored. A column has itemsize bytes of each line.
ctypedef int Storage

cdef enum:
    AS_DTYPE                   # a line is a row
    BFLOAT16                   # two rows, the first in the low half of a float
    BFLOAT16_BOTH              # the same; A has rows of `quantize_rows`, too
    # Four rows, a byte each, after a line of scales (float) and one of offsets (int32). A has rows
    # of `quantize_rows`.
    INT8
    INT8_12_BITS               # A has two bytes for each element
    STORAGES

# One panel of C. `c_init` may be C itself, one row for all (ld = 0: a bias), or NULL for zeros.
# Unless `c_init` is C, C is not read. n is a multiple of `unit`. Contract: gemm/microkernel.h.
# `prefetch` is NULL in `gemm`, and not NULL in `gemm_prefetch`, which also prefetches C.
ctypedef void (*gemm_t)(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, View2 a, const Micropanels *b,
                        View2 c_init, View2 c, const Prefetch *prefetch) noexcept nogil

# C = A . B, or with `accumulate` C += A . B, where A is packed (`pack_a`) and C exceeds L2.
ctypedef void (*gemm_packed_t)(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const void *a,
                               const Micropanels *b, bint accumulate, View2 c) noexcept nogil

# Pointwise functions work on `width` bytes of each plane, a multiple of LINE.

# gates, h_prev -> h; with `save` the gates keep their activations. h_prev and h have `ld_h`.
ctypedef void (*pointwise_forward_t)(
    Py_ssize_t rows, Py_ssize_t width, const GateView *gates, const void *h_prev, void *h,
    Py_ssize_t ld_h, bint save) noexcept nogil

# gates -> dgates, which has the strides of the gates and may be the gates. On entry
# dL/dh = dh + dh_hidden; on exit dh is the part of dL/dh_prev that goes through no product.
ctypedef void (*pointwise_backward_t)(
    Py_ssize_t rows, Py_ssize_t width, const GateView *gates, void *dgates, const void *h_prev,
    void *dh, const void *dh_hidden, Py_ssize_t ld_h) noexcept nogil

# reset_after=False: r = f(a_r), q = r h_prev; and its backward from dq.
ctypedef void (*reset_forward_t)(Py_ssize_t rows, Py_ssize_t width, const GateView *gates,
                                 const void *h_prev, Py_ssize_t ld_h) noexcept nogil
ctypedef void (*reset_backward_t)(
    Py_ssize_t rows, Py_ssize_t width, const GateView *gates, void *dgates, const void *h_prev,
    const void *dq, void *dh, Py_ssize_t ld_h) noexcept nogil

# Rows of any width and any ld of the caller's array: target = source, and target += source.
ctypedef void (*rows_t)(
    Py_ssize_t rows, Py_ssize_t width, const void *source, Py_ssize_t ld_source, void *target,
    Py_ssize_t ld_target) noexcept nogil

# target = source * by, of any width; target may be source.
ctypedef void (*multiply_rows_t)(
    Py_ssize_t rows, Py_ssize_t width, const void *source, Py_ssize_t ld_source, const void *by,
    Py_ssize_t ld_by, void *target, Py_ssize_t ld_target) noexcept nogil

# Rows of float as factors of rounded weights, for one kind of products.
#
# int8 (gemm/int8.h): k bytes, in groups of four; with AVX2 as many signs; then the scale, a float,
# and an offset, an int32. Values are scaled by the largest of the row, at least `least`, to
# -127 .. 127, or with 12 bits to -2047 .. 2047: then all high bytes come before all low ones.
#
# bfloat16 (gemm/bfloat16.h): pairs, in the order of k, where the processor multiplies these, else
# floats of the same values. The other arguments count for nothing.
ctypedef void (*quantize_rows_t)(
    Py_ssize_t rows, Py_ssize_t k, const void *source, Py_ssize_t ld_source, float least,
    bint twelve_bits, char *target, Py_ssize_t ld_target) noexcept nogil

# sums = the sum of the rows, or with `accumulate` sums += it; `rest` is the rounding error of sums.
ctypedef void (*column_sums_t)(Py_ssize_t rows, Py_ssize_t width, View2 source, bint accumulate,
                               void *sums, void *rest) noexcept nogil

# y = f(x); `size` in bytes, a multiple of LINE
ctypedef void (*activate_t)(Py_ssize_t size, const Activation *f, const void *x,
                            void *y) noexcept nogil

# f.low, f.high = f(-clip), f(clip), in the bits of the kernels
ctypedef void (*set_ends_t)(Activation *f) noexcept nogil

# Steps of a small layer, and its W_hh for them, from where each vector of columns begins: those of
# r, of z and of q or n. See gates.h and rnn/small_steps.h.
ctypedef void (*small_steps_t)(const SmallSteps *steps) noexcept nogil
ctypedef void (*pack_small_t)(Py_ssize_t units, bint reset_after, const Micropanels *w_hh,
                              char *packed) noexcept nogil

# The functions of the gates
cdef struct Pointwise:
    pointwise_forward_t gates_forward          # reset_after=True: all of it
    pointwise_backward_t gates_backward
    reset_forward_t reset_forward              # reset_after=False: first the reset gate,
    pointwise_forward_t blend_forward          # then, when n holds a_n, the rest
    pointwise_backward_t blend_backward
    reset_backward_t reset_backward
    small_steps_t small_steps

cdef struct Context:
    Py_ssize_t itemsize
    # Blocking
    Py_ssize_t mr              # rows of a microtile, and of a block of packed A
    Py_ssize_t nr              # bytes of a row of a micropanel
    Py_ssize_t kc              # rows of B between two visits to C
    Py_ssize_t unit            # bytes of which n is a multiple
    # Products
    gemm_t[STORAGES] gemm
    gemm_t[STORAGES] gemm_prefetch
    quantize_rows_t quantize_rows  # NULL: A is not rounded
    int int8_offset            # that it adds to each byte of int8, and products subtract
    gemm_packed_t gemm_packed
    pack_small_t pack_small    # NULL: no layer counts as small
    Py_ssize_t small_vector    # bytes of a vector in small_steps
    # Pointwise
    Pointwise sigmoid_tanh     # r and z by sigmoid, n by tanh, no clip
    Pointwise any_activations  # those of the GateView
    rows_t store_rows          # any width
    rows_t add_rows
    multiply_rows_t multiply_rows
    column_sums_t column_sums
    activate_t activate
    set_ends_t set_ends

# B (k, n), packed for one context, or several such *segments* of equal n and k, one below another.
# Each segment multiplies its own columns of A.
cdef struct PackedMatrix:
    const Context *context
    Storage storage
    char *data                 # segments * lines * n bytes
    Py_ssize_t segments
    Py_ssize_t a_segment       # bytes from the columns of A for one segment to those for the next
    Py_ssize_t k               # rows of B in a segment
    Py_ssize_t lines           # that hold them
    Py_ssize_t n               # bytes of the columns with padding, a multiple of LINE
    Py_ssize_t n_computed      # of them computed by a product, a multiple of `unit`
    # What follows from these, for `gemm`
    bint one_visit             # a product without prefetch visits C once
    gemm_t gemm                # of the context, for this storage
    gemm_t gemm_prefetch
