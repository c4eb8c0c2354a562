"""The table of kernels that an instruction set supplies, and the layout that they work on.

A row of the *gate buffer* holds the four planes of one (step, row): new gate, reset gate, update
gate and q, each `padded` wide (the hidden size rounded up to 64 bytes):

    [ n | r | z | q ]        x feeds n r z, the hidden state feeds r z q

q is W_hn h + b_hn with reset_after and r * h without. A plane holds the pre-activation before the
gate arithmetic, the activation after it, and after the backward pass the gradient of the
pre-activation (da_n, da_r, da_z, dq).

Data pointers are to float or to double, by the table a function stands in. Rows and columns count
elements, `*_row` is the distance between rows. The gate kernels work on `units` columns, a multiple
of 64 bytes, of planes that are `padded` apart.
"""

ctypedef fused real:
    float
    double

# C (rows, columns) = START + A (rows, depth) . B (depth, columns); see simd_real.h
ctypedef void (*product_t)(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth, const void *a, Py_ssize_t a_row,
    const void *b, Py_ssize_t b_row, Py_ssize_t b_strip, const void *start, Py_ssize_t start_row,
    void *c, Py_ssize_t c_row) noexcept nogil

# The same where C is in no near cache: its lines are fetched ahead, and with each row of B memory
# from `ahead` on, `ahead_step` bytes further each time.
ctypedef void (*product_far_t)(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth, const void *a, Py_ssize_t a_row,
    const void *b, Py_ssize_t b_row, Py_ssize_t b_strip, const void *start, Py_ssize_t start_row,
    void *c, Py_ssize_t c_row, const char *ahead, Py_ssize_t ahead_step) noexcept nogil

# C = A . B, or with `add` C += A . B, where C is in no near cache and A in tiles (`pack_tiles`)
ctypedef void (*product_tiles_t)(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth, const void *a,
    const void *b, Py_ssize_t b_row, Py_ssize_t b_strip,
    bint add, void *c, Py_ssize_t c_row) noexcept nogil

# g, h_prev -> h; with `save` g keeps the activations
ctypedef void (*forward_t)(
    Py_ssize_t rows, Py_ssize_t units, Py_ssize_t padded, void *g, Py_ssize_t g_row,
    const void *h_prev, void *h, Py_ssize_t h_row, bint save) noexcept nogil

ctypedef void (*reset_t)(
    Py_ssize_t rows, Py_ssize_t units, Py_ssize_t padded, void *g, Py_ssize_t g_row,
    const void *h_prev, Py_ssize_t h_row) noexcept nogil

# g -> dg (may be g); dL/dh = dh + dh_product; dh becomes the part of dL/dh_prev that no product
# carries
ctypedef void (*backward_t)(
    Py_ssize_t rows, Py_ssize_t units, Py_ssize_t padded, const void *g, void *dg, Py_ssize_t g_row,
    const void *h_prev, void *dh, const void *dh_product, Py_ssize_t h_row) noexcept nogil

ctypedef void (*d_reset_t)(
    Py_ssize_t rows, Py_ssize_t units, Py_ssize_t padded, const void *g, void *dg, Py_ssize_t g_row,
    const void *h_prev, const void *dq, void *dh, Py_ssize_t h_row) noexcept nogil

# output = h
ctypedef void (*put_rows_t)(
    Py_ssize_t rows, Py_ssize_t units, const void *h, Py_ssize_t h_row,
    void *output, Py_ssize_t output_row) noexcept nogil

# dh += d_output
ctypedef void (*add_rows_t)(
    Py_ssize_t rows, Py_ssize_t units, const void *d_output, Py_ssize_t d_output_row,
    void *dh, Py_ssize_t h_row) noexcept nogil

# sums = the sum of the rows of g, or with `add` sums += it; `rest` is what sums are too short for
ctypedef void (*sum_rows_t)(
    Py_ssize_t rows, Py_ssize_t columns, const void *g, Py_ssize_t g_row,
    bint add, void *sums, void *rest) noexcept nogil

# y = f(x); `count` is a multiple of 64 bytes
ctypedef void (*map_t)(Py_ssize_t count, const void *x, void *y) noexcept nogil

cdef enum:
    PANEL_BYTES = 256          # of the columns of a panel: 4 registers of AVX-512
    TILE_ROWS = 6              # the most rows of a tile; simd.h says it, too

cdef struct Kernels:
    product_t product
    product_far_t product_far
    product_tiles_t product_tiles
    Py_ssize_t strip_bytes  # of the columns of B that products want to adjoin, see panels.pxd
    Py_ssize_t unit_bytes  # of which columns of a product are a multiple: 32, or 64 with BLAS
    forward_t gates        # reset_after=True: the whole gate arithmetic
    backward_t d_gates
    reset_t reset          # reset_after=False: the reset gate and q = r h_prev,
    forward_t blend        # then, once W_hn q stands in n, the rest
    backward_t d_blend
    d_reset_t d_reset
    put_rows_t put_output  # any number of units, output_row any, too
    add_rows_t add_d_output
    sum_rows_t sum_rows
    map_t sigmoid
    map_t tanh
