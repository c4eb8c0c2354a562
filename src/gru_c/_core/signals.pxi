# Handlers of signals, which run between chunks of steps; and the child of a fork.

cdef extern from "Python.h":
    int check_signals "PyErr_CheckSignals"() noexcept      # an exception stays pending
    void *PyErr_Occurred()

cdef extern from "platform.h" nogil:
    long long gru_nanoseconds()

cdef long long POLL_NANOSECONDS = 50_000_000   # between two checks for signals; each takes the GIL

cdef unsigned long main_thread = threading.main_thread().ident


cdef int poll_signals(void *argument) noexcept nogil:
    """Run the handlers of pending signals; STOP if one of them raised an exception.

    `argument` holds the time of the next check. The clock starts after the first chunk.
    """
    cdef:
        long long *due = <long long *> argument
        long long now = gru_nanoseconds()
        bint raised
        int forks = fork_count()
    if due[0] == 0:
        due[0] = now + POLL_NANOSECONDS
    if now < due[0]:
        return GO_ON
    with gil:
        raised = check_signals() != 0
    due[0] = gru_nanoseconds() + POLL_NANOSECONDS
    return (STOP if raised else GO_ON) | (FORKED if fork_count() != forks else GO_ON)


cdef int raise_pending(TrainingState state) except -1:
    """Raise the pending exception of a signal handler, or an error if a handler forked."""
    if state is not None:
        state.claim()
    if PyErr_Occurred() == NULL:
        raise RuntimeError("a signal handler forked the process during a call on several "
                           "threads; the child cannot finish that call")
    return -1


def follow_fork():
    """The thread that forked is the main thread of the child."""
    global main_thread
    main_thread = PyThread_get_thread_ident()


os.register_at_fork(after_in_child=follow_fork)
