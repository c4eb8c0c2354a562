"""How a length is divided among the threads of a team."""


cdef inline Py_ssize_t partition(Py_ssize_t length, Py_ssize_t rank,
                                 Py_ssize_t team) noexcept nogil:
    """Where the part of `rank` begins, and that of the rank before it ends."""
    return length * rank // team
