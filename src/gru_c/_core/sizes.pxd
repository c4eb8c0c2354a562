"""Sizes and copies that the whole core uses."""

from libc.string cimport memcpy

cdef enum:
    LINE = 64                  # bytes of a cache line, and of the widest vector


cdef inline Py_ssize_t ceil_div(Py_ssize_t length, Py_ssize_t size) noexcept nogil:
    return (length + size - 1) // size


cdef inline Py_ssize_t round_up(Py_ssize_t length, Py_ssize_t size) noexcept nogil:
    return ceil_div(length, size) * size


cdef inline void copy_rows(Py_ssize_t rows, Py_ssize_t size, const void *source,
                           Py_ssize_t ld_source, void *target, Py_ssize_t ld_target) noexcept nogil:
    """Copy `size` bytes of each row."""
    cdef Py_ssize_t i
    if ld_source == ld_target == size:                     # the rows adjoin
        memcpy(target, source, rows * size)
        return
    for i in range(rows):
        memcpy(<char *> target + i * ld_target, <const char *> source + i * ld_source, size)
