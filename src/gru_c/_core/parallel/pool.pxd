"""Types of the thread pool. The functions are in pool.pxi."""

# A task runs on a *team* of threads at the same time. Ranks count from 0, which is the caller.
ctypedef void (*task_t)(void *argument, int rank, int team) noexcept nogil

# Where the threads of a team wait for each other. Initialized to zeros.
cdef struct Barrier:
    int arrived
    unsigned int epoch         # how many times all have arrived
    bint abandoned             # after a fork: the other threads are not in this process
