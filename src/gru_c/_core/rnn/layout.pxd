"""The order of the gates, and how rows are laid out in memory.

A row of the *gates*, one per step and row, holds four planes, each the hidden size rounded up to
whole lines:

    [ n | r | z | q ]        x feeds n r z, the hidden state feeds r z q

q is W_hn h + b_hn with reset_after, and r * h without. A plane holds the pre-activation before the
pointwise functions, the activation after them (n and z only in training), and the gradient of the
pre-activation after the backward (da_n, da_r, da_z, and with reset_after dq; else q stays).
Weights, biases and their gradients are stacked r z n, as in PyTorch.
"""

from gru_c._core.sizes cimport LINE, ceil_div

cdef enum:                     # the planes of a row of the gates
    N_PLANE
    R_PLANE
    Z_PLANE
    Q_PLANE


cdef inline Py_ssize_t leading_dimension(Py_ssize_t size) noexcept nogil:
    """Bytes from row to row: an odd number of lines, so that rows spread over all cache sets."""
    return (ceil_div(size, LINE) | 1) * LINE
