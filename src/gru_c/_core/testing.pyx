"""Products, packing and activations of a context, within reach of tests. No part of the core.

`context` is the capsule of a kernels module, or of `gemm.blas`. Arrays are float32 or float64, all
of one call alike, with a contiguous last axis; nothing is validated. `n` of B is padded to lines.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

import numpy as np

from gru_c._core.gemm.context cimport (
    AS_DTYPE, PANEL_BYTES, Activation, Context, Micropanels, PackedMatrix, Prefetch, View2, real,
)
from gru_c._core.sizes cimport LINE, ceil_div, copy_rows

include "gemm/pack.pxi"
include "gemm/macrokernel.pxi"


cdef const Context *context_of(capsule, array) except NULL:
    cdef Context *contexts = <Context *> PyCapsule_GetPointer(capsule, "gru_c.contexts")
    return &contexts[array.dtype.itemsize == 8]


cdef View2 view_of(array) except *:
    """The rows of a matrix; one row for all (ld = 0) where it is a vector; None is NULL."""
    if array is None:
        return View2(NULL, 0)
    return View2(<char *> <uintptr_t> array.ctypes.data, array.strides[0] if array.ndim > 1 else 0)


def blocking(capsule, dtype):
    """itemsize, mr, nr, kc, unit."""
    cdef const Context *context = context_of(capsule, np.empty(0, dtype))
    return context.itemsize, context.mr, context.nr, context.kc, context.unit


def activate(capsule, function, alpha, beta, clip, x, y):
    """y = f(x), of lines; f as the core is told, see Activation."""
    cdef const Context *context = context_of(capsule, x)
    cdef Activation f = Activation(function, alpha, beta, clip, 0, 0)
    context.activate(x.nbytes, &f, view_of(x).data, view_of(y).data)


cdef PackedMatrix describe(capsule, b, packed) except *:
    cdef const Context *context = context_of(capsule, b)
    cdef Py_ssize_t size = b.shape[2] * b.itemsize
    return PackedMatrix(context, AS_DTYPE, view_of(packed).data, b.shape[0], 0, b.shape[1],
                        b.shape[1], ceil_div(size, LINE) * LINE,
                        ceil_div(size, context.unit) * context.unit,
                        b.shape[0] == 1 and b.shape[1] <= context.kc,
                        context.gemm[AS_DTYPE], context.gemm_prefetch[AS_DTYPE])


def pack(capsule, b):
    """B (segments, k, n) packed, in a vector; b may have any strides."""
    cdef Py_ssize_t segment, k = b.shape[1], columns = b.shape[2]
    cdef Py_ssize_t row = b.strides[1] // b.itemsize, column = b.strides[2] // b.itemsize
    n = ceil_div(columns * b.itemsize, LINE) * LINE // b.itemsize
    packed = np.full(b.shape[0] * k * n, np.nan, b.dtype)
    cdef PackedMatrix matrix = describe(capsule, b, packed)
    cdef View2 part
    for segment in range(b.shape[0]):
        part = view_of(b[segment])
        if b.itemsize == 4:
            pack_b(&matrix, segment, <const float *> part.data, row, column, columns)
        else:
            pack_b(&matrix, segment, <const double *> part.data, row, column, columns)
    return packed


def multiply(capsule, a, b, c_init, c, columns=None, prefetch=None):
    """C = C_INIT + sum over segments of A . B; b (segments, k, n), a (segments, m, k).

    `columns` are the first byte and the last, of half panels; `prefetch` is an array, of size 0 for
    C alone.
    """
    packed = pack(capsule, b)
    cdef PackedMatrix matrix = describe(capsule, b, packed)
    cdef Prefetch memory
    first, last = columns or (0, matrix.n)
    matrix.a_segment = a.strides[0]
    if prefetch is not None:
        memory = Prefetch(view_of(prefetch).data, prefetch.nbytes, 0)
    gemm(&matrix, first, last, a.shape[1], view_of(a[0]), view_of(c_init), view_of(c),
         NULL if prefetch is None else &memory)


def pack_transposed(capsule, a):
    """A^T (m, k) of a (k, m), in blocks; rows of `a` must be readable beyond m."""
    cdef const Context *context = context_of(capsule, a)
    packed = np.full(packed_a_size(context, a.shape[0], a.shape[1]) // a.itemsize, np.nan, a.dtype)
    pack_a(context, a.shape[0], a.shape[1], view_of(a), view_of(packed).data)
    return packed


def multiply_packed(capsule, a, b, accumulate, c, in_place=False):
    """C = A^T . B, or C += A^T . B, for one panel of b (k, n); `in_place` reads b unpacked."""
    cdef:
        const Context *context = context_of(capsule, b)
        Py_ssize_t k = b.shape[0], width = b.shape[1] * b.itemsize
        Py_ssize_t padded = ceil_div(width, LINE) * LINE, nr = micropanel_width(context, padded)
        View2 rows = view_of(b), packed_a
        Micropanels micropanels
    panel = np.full(k * padded // b.itemsize, np.nan, b.dtype)
    pack_panel(context, k, width, padded, rows, view_of(panel).data)
    micropanels = Micropanels(view_of(panel).data, nr, k * nr)
    if in_place:
        micropanels = Micropanels(rows.data, rows.ld, nr)
    packed = pack_transposed(capsule, a)
    packed_a = view_of(packed)
    context.gemm_packed(a.shape[1], ceil_div(width, context.unit) * context.unit, k, packed_a.data,
                        &micropanels, accumulate, view_of(c))
