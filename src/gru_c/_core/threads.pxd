"""Threads of our own: a task run by several at once, and a barrier inside it."""

# index 0 is the caller; every one of `count` runs at the same time as the others.
ctypedef void (*task_t)(void *argument, int index, int count) noexcept nogil

cdef struct Barrier:
    int arrived
    int generation
    bint abandoned             # by a fork: the others are not in this process

cdef int thread_limit() noexcept nogil
cdef int fork_count() noexcept nogil
cdef void parallel(task_t task, void *argument, int count) noexcept nogil
cdef void wait(Barrier *barrier, int count) noexcept nogil
cdef Py_ssize_t share(Py_ssize_t length, int index, int count) noexcept nogil
