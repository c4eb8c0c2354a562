"""Types of the thread pool, and how work is split. The functions are in pool.pxi."""

# A task runs on a *team* of threads at the same time. Ranks count from 0, which is the caller.
ctypedef void (*task_t)(void *argument, int rank, int team) noexcept nogil

# Where the threads of a team wait for each other. Initialized to zeros.
cdef struct Barrier:
    int arrived
    int epoch                  # how many times all have arrived
    bint abandoned             # after a fork: the other threads are not in this process


cdef inline Py_ssize_t partition(Py_ssize_t length, Py_ssize_t rank,
                                 Py_ssize_t team) noexcept nogil:
    """Where the part of `rank` begins, and that of the rank before it ends."""
    return length * rank // team
