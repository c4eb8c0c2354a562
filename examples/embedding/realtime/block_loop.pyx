# cython: language_level=3, boundscheck=False, wraparound=False
"""The loop over blocks of realtime.py without the GIL: no allocation, no Python, one stream."""

from gru_c.cython_gru cimport GRU_OK, gru_status_text, gru_stream, gru_stream_run_f32
from libc.stdint cimport int64_t, uintptr_t


cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    enum:
        CLOCK_MONOTONIC
        TIMER_ABSTIME
    int clock_gettime(int clock, timespec *time)
    int clock_nanosleep(int clock, int flags, const timespec *request, timespec *remain)


cdef inline int64_t now() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * <int64_t>1000000000 + time.tv_nsec


cdef inline void sleep_until(int64_t due) noexcept nogil:
    cdef timespec time
    time.tv_sec = due // 1000000000
    time.tv_nsec = due % 1000000000
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL)


def run_blocks(stream, const float[:, :, :, ::1] blocks, float[:, :, :, ::1] output,
               int64_t period, int64_t[::1] woken, int64_t[::1] done):
    """Block i is due at i periods from now: note when the loop woke and when it was done with it.

    blocks (B, T, 1, I) and output (B, T, 1, H) of a stream of one row; woken and done (count), in
    nanoseconds after the block was due. Block i is blocks[i % B].
    """
    cdef gru_stream *pointer = <gru_stream *><uintptr_t>stream.address
    cdef ptrdiff_t i, k, kinds = blocks.shape[0], steps = blocks.shape[1]
    cdef int status = GRU_OK
    cdef int64_t due
    with nogil:
        due = now()
        for i in range(done.shape[0]):
            due += period
            k = i % kinds
            sleep_until(due)
            woken[i] = now() - due
            status = gru_stream_run_f32(pointer, steps, &blocks[k, 0, 0, 0], &output[k, 0, 0, 0])
            done[i] = now() - due
            if status != GRU_OK:
                break
    if status != GRU_OK:
        raise ValueError(gru_status_text(status).decode())
