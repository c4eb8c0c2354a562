# cython: language_level=3, boundscheck=False, wraparound=False
"""The loop over steps of a stream of gru_c in nogil Cython: compiled and used by step_ways.py."""

from gru_c.cython_gru cimport gru_stream, gru_stream_reset_f32, gru_stream_step_f32


def run(size_t address, Py_ssize_t passes, const float[:, ::1] x, float[:, ::1] output):
    """`passes` times the steps of x (steps, I); output is (steps, H), or (1, H) for the last step.

    Statuses are joined: 0 where all were.
    """
    cdef gru_stream *stream = <gru_stream *> address
    cdef Py_ssize_t stride = output.shape[1] if output.shape[0] == x.shape[0] else 0
    cdef Py_ssize_t t
    cdef int status = 0
    with nogil:
        for _ in range(passes):
            status |= gru_stream_reset_f32(stream, NULL)
            for t in range(x.shape[0]):
                status |= gru_stream_step_f32(stream, &x[t, 0], &output[0, 0] + t * stride)
    return status
