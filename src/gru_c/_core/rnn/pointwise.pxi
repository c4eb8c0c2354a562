# The pointwise functions of the GRU, forward and backward. Included by kernels_*.pyx, each compiled
# for one instruction set. The contracts of the functions are in gemm/context.pxd, the planes of the
# gates in rnn/layout.pxd.
#
# A `vec` is as many floats or doubles as a register of the instruction set holds. Cython takes it
# for a scalar, the C compiler for a vector (vmath/vector.h). So the loops read as scalar formulas.
# Widths and leading dimensions come in bytes; in a function, `count` and `ld` count vectors.

from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memcpy, memset

from gru_c._core.gemm.context cimport (
    AS_DTYPE, BFLOAT16, BFLOAT16_BOTH, INT8, INT8_12_BITS, Activation, Activations, Context,
    GateView, Pointwise, View2, activate_t, column_sums_t, gemm_packed_t, gemm_t, multiply_rows_t,
    pointwise_backward_t, pointwise_forward_t, pack_small_t, quantize_rows_t, reset_backward_t,
    reset_forward_t, rows_t, small_steps_t,
)
from gru_c._core.rnn.layout cimport N_PLANE, Q_PLANE, R_PLANE, Z_PLANE
from gru_c._core.sizes cimport ceil_div

cdef extern from "kernels.h" nogil:
    ctypedef float vec_f32
    ctypedef double vec_f64
    ctypedef char vec_bytes
    vec_f32 sigmoid_f32(vec_f32 x) noexcept
    vec_f64 sigmoid_f64(vec_f64 x) noexcept
    vec_f32 tanh_f32(vec_f32 x) noexcept
    vec_f64 tanh_f64(vec_f64 x) noexcept
    vec_f32 nan_to_zero_f32(vec_f32 x) noexcept
    vec_f64 nan_to_zero_f64(vec_f64 x) noexcept
    vec_f32 activate_f32(const Activation *f, vec_f32 x) noexcept
    vec_f64 activate_f64(const Activation *f, vec_f64 x) noexcept
    vec_f32 derivative_f32(const Activation *f, vec_f32 y) noexcept
    vec_f64 derivative_f64(const Activation *f, vec_f64 y) noexcept
    void set_ends_f32(Activation *f) noexcept
    void set_ends_f64(Activation *f) noexcept
    gemm_t gemm_f32, gemm_f64, gemm_prefetch_f32, gemm_prefetch_f64    # functions in C
    gemm_packed_t gemm_packed_f32, gemm_packed_f64
    small_steps_t small_steps_f32, small_steps_f64, small_steps_any_f32, small_steps_any_f64
    pack_small_t pack_small_f32, pack_small_f64

cdef extern from "gates.h" nogil:
    ctypedef struct SigmoidTanhView "gru_gate_view":
        char *data
        Py_ssize_t ld
        Py_ssize_t plane

cdef extern from "gemm/config.h" nogil:
    Py_ssize_t MR "GRU_MR", NR "GRU_NR", KC "GRU_KC", UNIT "GRU_UNIT"
    Py_ssize_t PREFETCH_ROWS "GRU_PREFETCH_ROWS"

cdef extern from "platform.h" nogil:
    void prefetch_read "gru_prefetch_read"(const void *p)
    void prefetch_write "gru_prefetch_write"(void *p)

cdef enum:
    SUM_VECTORS = 16           # vectors of a row that are summed together
    SUM_BLOCK = 16             # rows in a chain of additions: 16 chains make a block of dW

ctypedef fused vec:
    vec_f32
    vec_f64

# Each function of the gates is compiled twice: for sigmoid and tanh, and for any activations.
ctypedef fused gate_view:
    SigmoidTanhView
    GateView


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


cdef inline vec activate(const Activation *f, vec x) noexcept nogil:
    if vec is vec_f32:
        return activate_f32(f, x)
    else:
        return activate_f64(f, x)


cdef inline vec derivative(const Activation *f, vec y) noexcept nogil:
    if vec is vec_f32:
        return derivative_f32(f, y)
    else:
        return derivative_f64(f, y)


# ---- activations: y = f(a), and da = dy f'(a), which follows from y ----------------------------

cdef inline vec activate_r_z(const gate_view *gates, vec a) noexcept nogil:
    if gate_view is SigmoidTanhView:
        return sigmoid(a)
    else:
        return activate(&gates.activations.r_z, a)


cdef inline vec activate_n(const gate_view *gates, vec a) noexcept nogil:
    if gate_view is SigmoidTanhView:
        return tanh(a)
    else:
        return activate(&gates.activations.n, a)


cdef inline vec undo_r_z(const gate_view *gates, vec dy, vec y) noexcept nogil:
    if gate_view is SigmoidTanhView:
        return dy * y * (1 - y)
    else:
        return dy * derivative(&gates.activations.r_z, y)


cdef inline vec undo_n(const gate_view *gates, vec dy, vec y) noexcept nogil:
    if gate_view is SigmoidTanhView:
        return dy * (1 - y * y)
    else:
        return dy * derivative(&gates.activations.n, y)


# ---- reset_after=True --------------------------------------------------------------------------

cdef void gates_forward(Py_ssize_t rows, Py_ssize_t width, const gate_view *gates,
                        const vec *h_prev, vec *h, Py_ssize_t ld_h, bint save) noexcept nogil:
    """r, z = f(a_r), f(a_z);  n = f_n(a_n + r q);  h = n + z (h_prev - n)."""
    cdef:
        Py_ssize_t i, j, count = width // sizeof(vec), plane = gates.plane // sizeof(vec)
        Py_ssize_t ld = gates.ld // sizeof(vec), ld_state = ld_h // sizeof(vec)
        Py_ssize_t next_g = PREFETCH_ROWS * ld, next_h = PREFETCH_ROWS * ld_state
        vec *g = <vec *> gates.data
        vec r, z, n
    for i in range(rows):
        # A loop of its own, so that n does not wait for r: 87 -> 94 GFLOP/s (H = 128, AVX2).
        for j in range(count):
            r = activate_r_z(gates, g[R_PLANE * plane + j])
            g[R_PLANE * plane + j] = r
        for j in range(count):
            r = g[R_PLANE * plane + j]
            z = activate_r_z(gates, g[Z_PLANE * plane + j])
            n = activate_n(gates, g[N_PLANE * plane + j] + r * g[Q_PLANE * plane + j])
            h[j] = n + z * (h_prev[j] - n)
            if i + PREFETCH_ROWS < rows:                   # beyond L2: 1.5 -> 1.0 ns per unit
                prefetch_write(g + next_g + j)
                prefetch_write(h + next_h + j)
            if save:
                g[N_PLANE * plane + j] = n
                g[Z_PLANE * plane + j] = z
        g += ld
        h_prev += ld_state
        h += ld_state


cdef void gates_backward(Py_ssize_t rows, Py_ssize_t width, const gate_view *gates, vec *dg,
                         const vec *h_prev, vec *dh, const vec *dh_hidden,
                         Py_ssize_t ld_h) noexcept nogil:
    """Undo `gates_forward`: da_n, da_r, da_z, dq from n, r, z, q;  dh = d z with d = dL/dh."""
    cdef:
        Py_ssize_t i, j, k, count = width // sizeof(vec), plane = gates.plane // sizeof(vec)
        Py_ssize_t ld = gates.ld // sizeof(vec), ld_state = ld_h // sizeof(vec)
        Py_ssize_t next_g = PREFETCH_ROWS * ld, next_h = PREFETCH_ROWS * ld_state
        const vec *g = <const vec *> gates.data
        vec n, r, z, q, d, da_n, dq
    for i in range(rows):
        for j in range(count):
            if i + PREFETCH_ROWS < rows:                   # 0.74 -> 0.62 ns/unit (28,128,28,128)
                for k in range(4):
                    prefetch_read(g + next_g + k * plane + j)
                prefetch_read(h_prev + next_h + j)
            n = g[N_PLANE * plane + j]
            r = g[R_PLANE * plane + j]
            z = g[Z_PLANE * plane + j]
            q = g[Q_PLANE * plane + j]
            d = dh[j] + dh_hidden[j]
            da_n = undo_n(gates, d * (1 - z), n)           # n = f_n(a_n + r q)
            dq = da_n * r
            dg[N_PLANE * plane + j] = da_n
            if gate_view is SigmoidTanhView:
                dg[R_PLANE * plane + j] = dq * q * (1 - r)                 # da_n q r (1 - r)
            else:
                dg[R_PLANE * plane + j] = undo_r_z(gates, da_n * q, r)     # r = f(a_r)
            dg[Z_PLANE * plane + j] = undo_r_z(gates, d * (h_prev[j] - n), z)      # z = f(a_z)
            dg[Q_PLANE * plane + j] = dq
            dh[j] = d * z
        g += ld
        dg += ld
        h_prev += ld_state
        dh += ld_state
        dh_hidden += ld_state


# ---- reset_after=False: a product stands between the reset gate and the new gate ---------------

cdef void reset_forward(Py_ssize_t rows, Py_ssize_t width, const gate_view *gates,
                        const vec *h_prev, Py_ssize_t ld_h) noexcept nogil:
    """r = f(a_r);  q = r h_prev, the left factor of the product W_hn (r h)."""
    cdef:
        Py_ssize_t i, j, count = width // sizeof(vec), plane = gates.plane // sizeof(vec)
        Py_ssize_t ld = gates.ld // sizeof(vec), ld_state = ld_h // sizeof(vec)
        vec *g = <vec *> gates.data
        vec r
    for i in range(rows):
        for j in range(count):
            r = activate_r_z(gates, g[R_PLANE * plane + j])
            g[R_PLANE * plane + j] = r
            g[Q_PLANE * plane + j] = r * h_prev[j]
        g += ld
        h_prev += ld_state


cdef void blend_forward(Py_ssize_t rows, Py_ssize_t width, const gate_view *gates,
                        const vec *h_prev, vec *h, Py_ssize_t ld_h, bint save) noexcept nogil:
    """z = f(a_z);  n = f_n(a_n);  h = n + z (h_prev - n)."""
    cdef:
        Py_ssize_t i, j, count = width // sizeof(vec), plane = gates.plane // sizeof(vec)
        Py_ssize_t ld = gates.ld // sizeof(vec), ld_state = ld_h // sizeof(vec)
        vec *g = <vec *> gates.data
        vec z, n
    for i in range(rows):
        for j in range(count):
            z = activate_r_z(gates, g[Z_PLANE * plane + j])
            n = activate_n(gates, g[N_PLANE * plane + j])
            h[j] = n + z * (h_prev[j] - n)
            if save:
                g[N_PLANE * plane + j] = n
                g[Z_PLANE * plane + j] = z
        g += ld
        h_prev += ld_state
        h += ld_state


cdef void blend_backward(Py_ssize_t rows, Py_ssize_t width, const gate_view *gates, vec *dg,
                         const vec *h_prev, vec *dh, const vec *dh_hidden,
                         Py_ssize_t ld_h) noexcept nogil:
    """Undo `blend_forward`: da_n, da_z from n, z;  dh = d z with d = dL/dh."""
    cdef:
        Py_ssize_t i, j, count = width // sizeof(vec), plane = gates.plane // sizeof(vec)
        Py_ssize_t ld = gates.ld // sizeof(vec), ld_state = ld_h // sizeof(vec)
        const vec *g = <const vec *> gates.data
        vec n, z, d
    for i in range(rows):
        for j in range(count):
            n = g[N_PLANE * plane + j]
            z = g[Z_PLANE * plane + j]
            d = dh[j] + dh_hidden[j]
            dg[N_PLANE * plane + j] = undo_n(gates, d * (1 - z), n)        # n = f_n(a_n)
            dg[Z_PLANE * plane + j] = undo_r_z(gates, d * (h_prev[j] - n), z)      # z = f(a_z)
            dh[j] = d * z
        g += ld
        dg += ld
        h_prev += ld_state
        dh += ld_state
        dh_hidden += ld_state


cdef void reset_backward(Py_ssize_t rows, Py_ssize_t width, const gate_view *gates, vec *dg,
                         const vec *h_prev, const vec *dq, vec *dh, Py_ssize_t ld_h) noexcept nogil:
    """Undo `reset_forward`: da_r from r and dq = da_n W_hn;  dh += dq r."""
    cdef:
        Py_ssize_t i, j, count = width // sizeof(vec), plane = gates.plane // sizeof(vec)
        Py_ssize_t ld = gates.ld // sizeof(vec), ld_state = ld_h // sizeof(vec)
        const vec *g = <const vec *> gates.data
        vec r
    for i in range(rows):
        for j in range(count):
            r = g[R_PLANE * plane + j]
            dg[R_PLANE * plane + j] = undo_r_z(gates, dq[j] * h_prev[j], r)        # r = f(a_r)
            dh[j] = dh[j] + dq[j] * r                                      # q = r h_prev
        g += ld
        dg += ld
        h_prev += ld_state
        dq += ld_state
        dh += ld_state


# ---- the caller's rows: any width, any leading dimension ---------------------------------------

cdef void store_rows(Py_ssize_t rows, Py_ssize_t width, const void *source, Py_ssize_t ld_source,
                     void *target, Py_ssize_t ld_target) noexcept nogil:
    """target = source, of either dtype. Prefetches the target, which is the caller's memory."""
    cdef:
        Py_ssize_t i, j, count = width // sizeof(vec_bytes), next_row = PREFETCH_ROWS * ld_target
        size_t rest = width % sizeof(vec_bytes)
        const vec_bytes *s
        vec_bytes *t
    for i in range(rows):
        s = <const vec_bytes *> source
        t = <vec_bytes *> target
        for j in range(count):
            prefetch_write(<char *> (t + j) + next_row)
            t[j] = s[j]
        if rest:
            memcpy(t + count, s + count, rest)
        source = <const char *> source + ld_source
        target = <char *> target + ld_target


cdef void add_rows(Py_ssize_t rows, Py_ssize_t width, const vec *source, Py_ssize_t ld_source,
                   vec *target, Py_ssize_t ld_target) noexcept nogil:
    """target += source: undo `store_rows`, dh += dL/d output."""
    cdef:
        Py_ssize_t i, j, count = width // sizeof(vec)
        size_t rest = width % sizeof(vec)
        vec last, total
    for i in range(rows):
        for j in range(count):
            target[j] = target[j] + source[j]
        if rest:
            last = partial(source + count, rest)
            total = partial(target + count, rest) + last
            memcpy(target + count, &total, rest)
        source = <const vec *> (<const char *> source + ld_source)
        target = <vec *> (<char *> target + ld_target)


cdef void multiply_rows(Py_ssize_t rows, Py_ssize_t width, const vec *source, Py_ssize_t ld_source,
                        const vec *by, Py_ssize_t ld_by, vec *target,
                        Py_ssize_t ld_target) noexcept nogil:
    """target = source * by; dropout, and its backward."""
    cdef:
        Py_ssize_t i, j, count = width // sizeof(vec)
        size_t rest = width % sizeof(vec)
        vec last
    for i in range(rows):
        for j in range(count):
            target[j] = source[j] * by[j]
        if rest:
            last = partial(source + count, rest) * partial(by + count, rest)
            memcpy(target + count, &last, rest)
        source = <const vec *> (<const char *> source + ld_source)
        by = <const vec *> (<const char *> by + ld_by)
        target = <vec *> (<char *> target + ld_target)


cdef inline vec partial(const vec *source, size_t size) noexcept nogil:
    """The first bytes of a vector, and zeros."""
    cdef vec found
    memset(&found, 0, sizeof(vec))
    memcpy(&found, source, size)
    return found


# ---- sums of rows, activations -----------------------------------------------------------------

cdef void column_sums(Py_ssize_t rows, Py_ssize_t width, View2 source, bint accumulate, vec *sums,
                      vec *rest) noexcept nogil:
    """sums = sum_i source[i], or with `accumulate` sums += it.

    Rows are summed in blocks, and the blocks in a total, so the rounding error grows with the
    length of these two sums, not with the number of rows or of calls.
    """
    cdef:
        Py_ssize_t ld = source.ld // sizeof(vec), count = width // sizeof(vec)
        Py_ssize_t part, first, last, block, top, i, j
        const vec *s = <const vec *> source.data
        vec block_sum[SUM_VECTORS]
        vec total[SUM_VECTORS]
    for part in range(ceil_div(count, SUM_VECTORS)):
        first = part * SUM_VECTORS
        last = min(first + SUM_VECTORS, count)
        for block in range(ceil_div(rows, SUM_BLOCK)):
            top = block * SUM_BLOCK
            for j in range(first, last):
                block_sum[j - first] = s[top * ld + j]
            for i in range(top + 1, min(top + SUM_BLOCK, rows)):
                for j in range(first, last):
                    prefetch_read(s + (i + PREFETCH_ROWS) * ld + j)
                    block_sum[j - first] = block_sum[j - first] + s[i * ld + j]
            for j in range(last - first):
                total[j] = total[j] + block_sum[j] if block else block_sum[j]
        add_totals(last - first, total, accumulate, sums + first, rest + first)


cdef inline void add_totals(Py_ssize_t count, const vec *total, bint accumulate, vec *sums,
                            vec *rest) noexcept nogil:
    """sums + rest += total, or = total; `rest` is the rounding error of sums (Knuth's TwoSum).

    The error of an infinite sum is set to 0, so that the sum stays infinite.
    """
    cdef:
        Py_ssize_t j
        vec term, sum_, added
    if not accumulate:
        memcpy(sums, total, count * sizeof(vec))
        memset(rest, 0, count * sizeof(vec))
        return
    for j in range(count):
        term = total[j] + rest[j]
        sum_ = sums[j] + term
        added = sum_ - sums[j]
        rest[j] = nan_to_zero((sums[j] - (sum_ - added)) + (term - added))
        sums[j] = sum_


cdef void activate_all(Py_ssize_t size, const Activation *f, const vec *x, vec *y) noexcept nogil:
    cdef Py_ssize_t j, count = size // sizeof(vec)
    for j in range(count):
        y[j] = activate(f, x[j])


# ---- what the contexts of floats and of int8 share -----------------------------------------------

cdef void fill_forward(Context *context, const vec *_) noexcept nogil:
    """Fill in the functions of a forward but for products. The casts change types of pointers."""
    context.small_vector = sizeof(vec)
    fill_gates(&context.sigmoid_tanh, <const SigmoidTanhView *> NULL, <const vec *> NULL)
    fill_gates(&context.any_activations, <const GateView *> NULL, <const vec *> NULL)
    context.store_rows = store_rows
    context.multiply_rows = <multiply_rows_t> multiply_rows[vec]
    context.activate = <activate_t> activate_all[vec]


cdef void fill_gates(Pointwise *functions, const gate_view *_, const vec *__) noexcept nogil:
    functions.gates_forward = <pointwise_forward_t> gates_forward[gate_view, vec]
    functions.reset_forward = <reset_forward_t> reset_forward[gate_view, vec]
    functions.blend_forward = <pointwise_forward_t> blend_forward[gate_view, vec]
