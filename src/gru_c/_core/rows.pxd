"""Small helpers that every module of the core may call, `blas` below `panels` included."""

from libc.string cimport memcpy


cdef inline Py_ssize_t pieces(Py_ssize_t length, Py_ssize_t piece) noexcept nogil:
    """How many pieces a length takes."""
    return (length + piece - 1) // piece


cdef inline Py_ssize_t round_up(Py_ssize_t length, Py_ssize_t piece) noexcept nogil:
    """The length of whole pieces."""
    return pieces(length, piece) * piece


cdef inline void copy_rows(
    Py_ssize_t rows, Py_ssize_t size, const void *source, Py_ssize_t source_row,
    void *target, Py_ssize_t target_row,
) noexcept nogil:
    """Sizes in bytes."""
    cdef Py_ssize_t i
    for i in range(rows):
        memcpy(<char *> target + i * target_row, <const char *> source + i * source_row, size)
