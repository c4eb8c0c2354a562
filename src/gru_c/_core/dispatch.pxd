"""Which kernels run: one table a dtype, bound at import."""

from gru_c._core.kernels cimport Kernels, real

cdef Kernels kernels_f32
cdef Kernels kernels_f64


cdef inline const Kernels *kernels(const real *_) noexcept nogil:
    """The kernels of the dtype that the argument points to."""
    if real is float:
        return &kernels_f32
    else:
        return &kernels_f64
