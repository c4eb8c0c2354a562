# The kernels: gate arithmetic, forward and backward. Compiled once per instruction set, by the
# modules kernels_*.pyx, and handed out as a table a dtype (kernels.pxd, which also says how a row
# of the gate buffer g is laid out).
#
# A `vec` is as many floats or doubles as a register of the instruction set holds; Cython takes it
# for a scalar, the C compiler for a vector (simd.h). So the loops below read as scalar formulas.

from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memcpy, memset

from gru_c._core.kernels cimport (
    Kernels, add_rows_t, backward_t, d_reset_t, forward_t, map_t, product_far_t, product_t,
    product_tiles_t, put_rows_t, reset_t, sum_rows_t,
)
from gru_c._core.rows cimport pieces

cdef extern from "simd.h" nogil:
    ctypedef float vec_f32
    ctypedef double vec_f64
    vec_f32 sigmoid_f32(vec_f32 x) noexcept
    vec_f64 sigmoid_f64(vec_f64 x) noexcept
    vec_f32 tanh_f32(vec_f32 x) noexcept
    vec_f64 tanh_f64(vec_f64 x) noexcept
    vec_f32 nan_to_zero_f32(vec_f32 x) noexcept
    vec_f64 nan_to_zero_f64(vec_f64 x) noexcept
    void product_f32() noexcept
    void product_f64() noexcept
    void product_far_f32() noexcept
    void product_far_f64() noexcept
    void product_tiles_f32() noexcept
    void product_tiles_f64() noexcept
    Py_ssize_t STRIP_BYTES

cdef extern from "cpu.h" nogil:
    void fetch "gru_fetch"(const void *p)
    void fetch_to_write "gru_fetch_to_write"(void *p)

cdef enum:
    ROWS_AHEAD = 4             # whose lines are asked for
    SUM_VECTORS = 16           # of a row at a time
    SUM_BLOCK = 16             # rows in a chain of additions: 16 chains make a block of d_weights

ctypedef fused vec:
    vec_f32
    vec_f64


cdef inline Py_ssize_t lanes(const vec *_) noexcept nogil:
    return sizeof(vec) // (sizeof(float) if vec is vec_f32 else sizeof(double))


cdef inline vec sigmoid(vec x) noexcept nogil:
    if vec is vec_f32:
        return sigmoid_f32(x)
    else:
        return sigmoid_f64(x)


cdef inline vec tanh(vec x) noexcept nogil:
    if vec is vec_f32:
        return tanh_f32(x)
    else:
        return tanh_f64(x)


cdef inline vec nan_to_zero(vec x) noexcept nogil:
    if vec is vec_f32:
        return nan_to_zero_f32(x)
    else:
        return nan_to_zero_f64(x)


# ---- reset_after=True -------------------------------------------------------------------------

cdef void gates(
    Py_ssize_t rows, Py_ssize_t units, Py_ssize_t padded, vec *g, Py_ssize_t g_row,
    const vec *h_prev, vec *h, Py_ssize_t h_row, bint save,
) noexcept nogil:
    """r, z = sigmoid(a_r), sigmoid(a_z);  n = tanh(a_n + r q);  h = n + z (h_prev - n)."""
    cdef:
        Py_ssize_t i, j, step = lanes(g), plane = padded // step
        Py_ssize_t g_ahead = ROWS_AHEAD * (g_row // step), h_ahead = ROWS_AHEAD * (h_row // step)
        vec r, z, n
    for i in range(rows):
        for j in range(units // step):                     # apart, or the chain of n follows r's:
            r = sigmoid(g[plane + j])                      # AVX2, H = 128: 94 instead of 87 GFLOP/s
            g[plane + j] = r
        for j in range(units // step):
            r = g[plane + j]
            z = sigmoid(g[2 * plane + j])
            n = tanh(g[j] + r * g[3 * plane + j])
            h[j] = n + z * (h_prev[j] - n)
            if i + ROWS_AHEAD < rows:                      # in far memory: 1.0, not 1.5 ns a unit
                fetch_to_write(g + g_ahead + j)
                fetch_to_write(h + h_ahead + j)
            if save:
                g[j] = n
                g[2 * plane + j] = z
        g += g_row // step
        h_prev += h_row // step
        h += h_row // step


cdef void d_gates(
    Py_ssize_t rows, Py_ssize_t units, Py_ssize_t padded, const vec *g, vec *dg, Py_ssize_t g_row,
    const vec *h_prev, vec *dh, const vec *dh_product, Py_ssize_t h_row,
) noexcept nogil:
    """The twin of `gates`: da_n, da_r, da_z, dq from n, r, z, q;  dh becomes d z, d = dL/dh."""
    cdef:
        Py_ssize_t i, j, k, step = lanes(g), plane = padded // step
        Py_ssize_t g_ahead = ROWS_AHEAD * (g_row // step), h_ahead = ROWS_AHEAD * (h_row // step)
        vec n, r, z, q, d, da_n, dq
    for i in range(rows):
        for j in range(units // step):
            if i + ROWS_AHEAD < rows:                      # 28,128,28,128: 0.62 instead of 0.74 ns
                for k in range(4):
                    fetch(g + g_ahead + k * plane + j)
                fetch(h_prev + h_ahead + j)
            n = g[j]
            r = g[plane + j]
            z = g[2 * plane + j]
            q = g[3 * plane + j]
            d = dh[j] + dh_product[j]
            da_n = d * (1 - z) * (1 - n * n)
            dq = da_n * r
            dg[j] = da_n
            dg[plane + j] = dq * q * (1 - r)               # = dr r (1 - r), dr = da_n q
            dg[2 * plane + j] = d * (h_prev[j] - n) * z * (1 - z)
            dg[3 * plane + j] = dq
            dh[j] = d * z
        g += g_row // step
        dg += g_row // step
        h_prev += h_row // step
        dh += h_row // step
        dh_product += h_row // step


# ---- reset_after=False: a product stands between the reset gate and the new gate ----------------

cdef void reset(
    Py_ssize_t rows, Py_ssize_t units, Py_ssize_t padded, vec *g, Py_ssize_t g_row,
    const vec *h_prev, Py_ssize_t h_row,
) noexcept nogil:
    """r = sigmoid(a_r);  q = r h_prev, the left factor of the product W_hn (r h)."""
    cdef:
        Py_ssize_t i, j, step = lanes(g), plane = padded // step
        vec r
    for i in range(rows):
        for j in range(units // step):
            r = sigmoid(g[plane + j])
            g[plane + j] = r
            g[3 * plane + j] = r * h_prev[j]
        g += g_row // step
        h_prev += h_row // step


cdef void blend(
    Py_ssize_t rows, Py_ssize_t units, Py_ssize_t padded, vec *g, Py_ssize_t g_row,
    const vec *h_prev, vec *h, Py_ssize_t h_row, bint save,
) noexcept nogil:
    """z = sigmoid(a_z);  n = tanh(a_n);  h = n + z (h_prev - n)."""
    cdef:
        Py_ssize_t i, j, step = lanes(g), plane = padded // step
        vec z, n
    for i in range(rows):
        for j in range(units // step):
            z = sigmoid(g[2 * plane + j])
            n = tanh(g[j])
            h[j] = n + z * (h_prev[j] - n)
            if save:
                g[j] = n
                g[2 * plane + j] = z
        g += g_row // step
        h_prev += h_row // step
        h += h_row // step


cdef void d_blend(
    Py_ssize_t rows, Py_ssize_t units, Py_ssize_t padded, const vec *g, vec *dg, Py_ssize_t g_row,
    const vec *h_prev, vec *dh, const vec *dh_product, Py_ssize_t h_row,
) noexcept nogil:
    """The twin of `blend`: da_n, da_z from n, z;  dh becomes d z, d = dL/dh."""
    cdef:
        Py_ssize_t i, j, step = lanes(g), plane = padded // step
        vec n, z, d
    for i in range(rows):
        for j in range(units // step):
            n = g[j]
            z = g[2 * plane + j]
            d = dh[j] + dh_product[j]
            dg[j] = d * (1 - z) * (1 - n * n)
            dg[2 * plane + j] = d * (h_prev[j] - n) * z * (1 - z)
            dh[j] = d * z
        g += g_row // step
        dg += g_row // step
        h_prev += h_row // step
        dh += h_row // step
        dh_product += h_row // step


cdef void d_reset(
    Py_ssize_t rows, Py_ssize_t units, Py_ssize_t padded, const vec *g, vec *dg, Py_ssize_t g_row,
    const vec *h_prev, const vec *dq, vec *dh, Py_ssize_t h_row,
) noexcept nogil:
    """The twin of `reset`, dq = da_n W_hn: da_r from r;  dh += dq r."""
    cdef:
        Py_ssize_t i, j, step = lanes(g), plane = padded // step
        vec r
    for i in range(rows):
        for j in range(units // step):
            r = g[plane + j]
            dg[plane + j] = dq[j] * h_prev[j] * r * (1 - r)
            dh[j] = dh[j] + dq[j] * r
        g += g_row // step
        dg += g_row // step
        h_prev += h_row // step
        dq += h_row // step
        dh += h_row // step


# ---- the caller's rows, which are not padded ----------------------------------------------------

cdef void put_output(
    Py_ssize_t rows, Py_ssize_t units, const vec *h, Py_ssize_t h_row,
    vec *output, Py_ssize_t output_row,
) noexcept nogil:
    """output = h; the rows to come are asked for ahead, for the caller's memory is far."""
    cdef:
        Py_ssize_t i, j, step = lanes(h), item = sizeof(vec) // step
        size_t rest = units % step * item
        vec *ahead
    for i in range(rows):
        ahead = <vec *> (<char *> output + ROWS_AHEAD * output_row * item)
        for j in range(units // step):
            fetch_to_write(ahead + j)
            output[j] = h[j]
        if rest:
            memcpy(output + units // step, h + units // step, rest)
        h += h_row // step
        output = <vec *> (<char *> output + output_row * item)


cdef void add_d_output(
    Py_ssize_t rows, Py_ssize_t units, const vec *d_output, Py_ssize_t d_output_row,
    vec *dh, Py_ssize_t h_row,
) noexcept nogil:
    """The twin of `put_output`: dh += dL/d output."""
    cdef:
        Py_ssize_t i, j, step = lanes(d_output), item = sizeof(vec) // step
        size_t rest = units % step * item
        vec last
    for i in range(rows):
        for j in range(units // step):
            dh[j] = dh[j] + d_output[j]
        if rest:
            memset(&last, 0, sizeof(vec))
            memcpy(&last, d_output + units // step, rest)
            dh[units // step] = dh[units // step] + last
        d_output = <const vec *> (<const char *> d_output + d_output_row * item)
        dh += h_row // step


# ---- small ones --------------------------------------------------------------------------------

cdef void sum_rows(
    Py_ssize_t rows, Py_ssize_t columns, const vec *g, Py_ssize_t g_row, bint add,
    vec *sums, vec *rest,
) noexcept nogil:
    """sums = sum_i g[i], or with `add` sums += it, the digits that sums lack kept in `rest`.

    Rows are summed in blocks, the blocks in a total. So the rounding error grows with the length of
    these two sums, not with the number of rows or of calls.
    """
    cdef:
        Py_ssize_t step = lanes(g), row = g_row // step, count = columns // step
        Py_ssize_t part, first, last, block, top, i, j
        vec block_sum[SUM_VECTORS]
        vec total[SUM_VECTORS]
    for part in range(pieces(count, SUM_VECTORS)):
        first = part * SUM_VECTORS
        last = min(first + SUM_VECTORS, count)
        for block in range(pieces(rows, SUM_BLOCK)):
            top = block * SUM_BLOCK
            for j in range(first, last):
                block_sum[j - first] = g[top * row + j]
            for i in range(top + 1, min(top + SUM_BLOCK, rows)):
                for j in range(first, last):
                    fetch(g + (i + ROWS_AHEAD) * row + j)
                    block_sum[j - first] = block_sum[j - first] + g[i * row + j]
            for j in range(last - first):
                total[j] = total[j] + block_sum[j] if block else block_sum[j]
        add_totals(last - first, total, add, sums + first, rest + first)


cdef inline void add_totals(
    Py_ssize_t count, const vec *total, bint add, vec *sums, vec *rest,
) noexcept nogil:
    """sums + rest += total, or = total; `rest` is the rounding error of sums (Knuth's TwoSum).

    An infinite sum has none, and stays infinite.
    """
    cdef:
        Py_ssize_t j
        vec term, sum_, added
    if not add:
        memcpy(sums, total, count * sizeof(vec))
        memset(rest, 0, count * sizeof(vec))
        return
    for j in range(count):
        term = total[j] + rest[j]
        sum_ = sums[j] + term
        added = sum_ - sums[j]
        rest[j] = nan_to_zero((sums[j] - (sum_ - added)) + (term - added))
        sums[j] = sum_


cdef void map_sigmoid(Py_ssize_t count, const vec *x, vec *y) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(count // lanes(x)):
        y[j] = sigmoid(x[j])


cdef void map_tanh(Py_ssize_t count, const vec *x, vec *y) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(count // lanes(x)):
        y[j] = tanh(x[j])


# ---- the tables --------------------------------------------------------------------------------

cdef Kernels[2] tables                                                 # float, double


cdef void fill(Kernels *table, const vec *_) noexcept:
    """The casts only forget what the data pointers point to."""
    if vec is vec_f32:
        table.product = <product_t> product_f32
        table.product_far = <product_far_t> product_far_f32
        table.product_tiles = <product_tiles_t> product_tiles_f32
    else:
        table.product = <product_t> product_f64
        table.product_far = <product_far_t> product_far_f64
        table.product_tiles = <product_tiles_t> product_tiles_f64
    table.strip_bytes = STRIP_BYTES
    table.unit_bytes = 32
    table.gates = <forward_t> gates[vec]
    table.d_gates = <backward_t> d_gates[vec]
    table.reset = <reset_t> reset[vec]
    table.blend = <forward_t> blend[vec]
    table.d_blend = <backward_t> d_blend[vec]
    table.d_reset = <d_reset_t> d_reset[vec]
    table.put_output = <put_rows_t> put_output[vec]
    table.add_d_output = <add_rows_t> add_d_output[vec]
    table.sum_rows = <sum_rows_t> sum_rows[vec]
    table.sigmoid = <map_t> map_sigmoid[vec]
    table.tanh = <map_t> map_tanh[vec]


fill(&tables[0], <const vec_f32 *> NULL)
fill(&tables[1], <const vec_f64 *> NULL)
kernels = PyCapsule_New(&tables, "gru_c.kernels", NULL)
