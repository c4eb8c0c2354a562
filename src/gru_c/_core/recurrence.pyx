"""The time loop: forward and backward of one direction of one layer, on plain pointers.

    r  = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
    z  = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
    n  = tanh(W_in x + b_in + r * q),  q = W_hn h + b_hn           reset_after=True
    n  = tanh(W_in x + b_in + W_hn q + b_hn),  q = r * h           reset_after=False
    h' = n + z * (h - n)

Rows never meet: blocks of rows run the whole time loop one after the other. Only what needs the
hidden state stands in the time loop; dx and the weight gradients are products over all T*N rows
after it.
"""

from libc.string cimport memcpy

from gru_c._core.dispatch cimport kernels
from gru_c._core.kernels cimport Kernels, real
from gru_c._core.panels cimport multiply, multiply_transposed

cdef Py_ssize_t MOST_ROWS = 48                             # of a block: eight tiles of the kernel


cdef inline real *gates_of(const Weights *w, const Sequence *s, real *g, Py_ssize_t t,
                           Py_ssize_t row) noexcept nogil:
    """The gate buffer of a step and row."""
    return g + ((t if s.save else t % s.chunk) * s.rows + row) * s.g_row


cdef inline real *state_of(const Weights *w, const Sequence *s, real *_, Py_ssize_t t,
                           Py_ssize_t row) noexcept nogil:
    """The hidden state that step t reads; step t - 1 wrote it."""
    return <real *> s.h + ((t if s.save else t & 1) * s.rows + row) * w.padded


cdef void forward(const Weights *w, const Sequence *s, real *g) noexcept nogil:
    """Run all steps; with `save`, g and h keep what `backward` needs."""
    cdef:
        Py_ssize_t blocks = (s.rows + MOST_ROWS - 1) // MOST_ROWS, block, first, last, t
    for block in range(blocks):
        first = block * s.rows // blocks
        last = (block + 1) * s.rows // blocks
        for t in range(s.steps):
            if t % s.chunk == 0:
                project(w, s, g, t, min(t + s.chunk, s.steps), first, last)
            step(w, s, g, t, first, last)


cdef void project(
    const Weights *w, const Sequence *s, real *g,
    Py_ssize_t start, Py_ssize_t stop, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """a_n a_r a_z = b + W_i x for rows first .. last of steps start .. stop."""
    cdef:
        Py_ssize_t t = start, rows = last - first, steps = 1
        const real *x
    if rows == s.rows:                                     # then the steps are one run of rows
        steps = stop - start
    while t < stop:
        x = <const real *> s.x + (t * s.rows + first) * s.x_row
        multiply(&w.from_input, steps * rows, x, s.x_row, 0,
                 <const real *> w.bias, 0, gates_of(w, s, g, t, first), s.g_row)
        t += steps


cdef void step(
    const Weights *w, const Sequence *s, real *g, Py_ssize_t t, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """h_t from h_{t-1} and the input projection."""
    cdef:
        const Kernels *kernel = kernels(g)
        real *n = gates_of(w, s, g, t, first)
        real *r = n + w.padded
        real *q = n + 3 * w.padded
        const real *bias = <const real *> w.bias
        real *h_prev = state_of(w, s, g, t, first)
        real *h = state_of(w, s, g, t + 1, first)
        Py_ssize_t rows = last - first, i
    multiply(&w.from_hidden, rows, h_prev, w.padded, 0, r, s.g_row, r, s.g_row)
    if w.reset_after:
        multiply(&w.to_new, rows, h_prev, w.padded, 0,
                 bias + 3 * w.padded if bias != NULL else NULL, 0, q, s.g_row)
        kernel.gates(rows, w.padded, n, s.g_row, h_prev, h, w.padded, s.save)
    else:
        kernel.reset(rows, w.padded, n, s.g_row, h_prev, w.padded)
        multiply(&w.to_new, rows, q, s.g_row, 0, n, s.g_row, n, s.g_row)
        kernel.blend(rows, w.padded, n, s.g_row, h_prev, h, w.padded, s.save)
    for i in range(rows if s.output != NULL else 0):
        memcpy(<real *> s.output + t * s.output_step + (first + i) * s.output_row,
               h + i * w.padded, w.hidden * sizeof(real))


cdef void backward(
    const Weights *w, const Sequence *s, const Gradients *d, real *dg,
) noexcept nogil:
    """All gradients of a call that saved; d.dh enters as dL/dh_n."""
    cdef:
        Py_ssize_t blocks = (s.rows + MOST_ROWS - 1) // MOST_ROWS, block, t
    for block in range(blocks):
        for t in range(s.steps - 1, -1, -1):
            d_step(w, s, d, dg, t, block * s.rows // blocks, (block + 1) * s.rows // blocks)
    if d.dx != NULL:
        multiply(&w.d_input, s.steps * s.rows, dg, s.g_row, w.padded,
                 <real *> NULL, 0, <real *> d.dx, d.dx_row)
    d_weights(w, s, d, dg)


cdef void d_step(
    const Weights *w, const Sequence *s, const Gradients *d, real *dg,
    Py_ssize_t t, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """The twin of `step`: dL/dh_{t-1} from dL/dh_t, and the gradients of the pre-activations."""
    cdef:
        const Kernels *kernel = kernels(dg)
        const real *g = gates_of(w, s, <real *> s.g, t, first)
        const real *h_prev = state_of(w, s, dg, t, first)
        real *dh = <real *> d.dh + first * w.padded
        real *dq = <real *> d.dq + first * w.padded
        real *dn = gates_of(w, s, dg, t, first)
        real *dr = dn + w.padded
        Py_ssize_t rows = last - first
    if d.d_output != NULL:
        add_output_gradient(w, d, dh, t, first, last)
    if w.reset_after:
        kernel.d_gates(rows, w.padded, g, dn, s.g_row, h_prev, dh, w.padded)
    else:
        kernel.d_blend(rows, w.padded, g, dn, s.g_row, h_prev, dh, w.padded)
        multiply(&w.d_reset, rows, dn, s.g_row, 0, <real *> NULL, 0, dq, w.padded)
        kernel.d_reset(rows, w.padded, g, dn, s.g_row, h_prev, dq, dh, w.padded)
    multiply(&w.d_hidden, rows, dr, s.g_row, w.padded, dh, w.padded, dh, w.padded)
    kernel.sum_rows(rows, 4 * w.padded, dn, s.g_row, d.dbias)


cdef void add_output_gradient(
    const Weights *w, const Gradients *d, real *dh,
    Py_ssize_t t, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """dh += dL/d output_t; the caller's rows are not padded."""
    cdef:
        Py_ssize_t i, j
        const real *d_output
    for i in range(last - first):
        d_output = <const real *> d.d_output + t * d.d_output_step + (first + i) * d.d_output_row
        for j in range(w.hidden):
            dh[i * w.padded + j] += d_output[j]


cdef void d_weights(
    const Weights *w, const Sequence *s, const Gradients *d, real *dg,
) noexcept nogil:
    """dW_ih = [da_r da_z da_n]^T x and dW_hh = [da_r da_z dq]^T h over all T*N rows.

    Without reset_after the last block of dW_hh is da_n^T q instead, q = r h.
    """
    cdef:
        Py_ssize_t[3] planes                               # of r z n, the order of the weights
        Py_ssize_t gate, rows = s.steps * s.rows
        real *dweight
    planes[0], planes[1], planes[2] = w.padded, 2 * w.padded, 0
    for gate in range(3):
        dweight = <real *> d.dweight_ih + gate * w.hidden * d.dx_row
        multiply_transposed(rows, w.hidden, dg + planes[gate], s.g_row, w.inputs,
                            <const real *> s.x, s.x_row, dweight, d.dx_row, False)
    for gate in range(2):
        dweight = <real *> d.dweight_hh + gate * w.hidden * w.padded
        multiply_transposed(rows, w.hidden, dg + planes[gate], s.g_row, w.hidden,
                            <const real *> s.h, w.padded, dweight, w.padded, False)
    dweight = <real *> d.dweight_hh + 2 * w.hidden * w.padded
    if w.reset_after:
        multiply_transposed(rows, w.hidden, dg + 3 * w.padded, s.g_row, w.hidden,
                            <const real *> s.h, w.padded, dweight, w.padded, False)
    else:
        multiply_transposed(rows, w.hidden, dg, s.g_row, w.hidden,
                            dg + 3 * w.padded, s.g_row, dweight, w.padded, False)
