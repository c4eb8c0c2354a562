"""A package that cimports gru_c: tools/check_abi.py builds it against one version and runs another.

Arrays come as addresses. capsule_client.c is the same in C.
"""

from libc.stddef cimport ptrdiff_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from gru_c.cython_gru cimport (
    GRU_BACKWARD, GRU_INFERENCE, GRU_OK, GRU_TRAINING, gru_backward_f32, gru_forward_f32,
    gru_forward_training_f32, gru_model, gru_model_free, gru_model_new_f32, gru_model_pack_f32,
    gru_options, gru_saved_size_f32, gru_stream, gru_stream_free, gru_stream_new_f32,
    gru_stream_step_f32, gru_workspace_size_f32,
)


cdef gru_options default_options() noexcept nogil:
    cdef gru_options options
    memset(&options, 0, sizeof(options))
    options.struct_size = sizeof(options)
    return options


def make(ptrdiff_t I, ptrdiff_t H, size_t w_ih, size_t w_hh, size_t b_ih, size_t b_hh):
    """(status, address) of a model of one layer."""
    cdef:
        gru_options options = default_options()
        gru_model *model = NULL
        int status
    options.training = 1
    status = gru_model_new_f32(I, H, &options, &model)
    if status == GRU_OK:
        status = gru_model_pack_f32(model, 0, <const float *> w_ih, <const float *> w_hh,
                                    <const float *> b_ih, <const float *> b_hh)
    return status, <size_t> model


def discard(size_t model):
    return gru_model_free(<gru_model *> model)


def forward(size_t model, ptrdiff_t T, ptrdiff_t N, size_t x, size_t output):
    cdef:
        const gru_model *m = <const gru_model *> model
        gru_options options = default_options()
        size_t size
        void *workspace
        int status
    with nogil:
        status = gru_workspace_size_f32(m, GRU_INFERENCE, T, N, 1, &options, &size)
        if status == GRU_OK:
            workspace = malloc(size)
            status = gru_forward_f32(m, T, N, <const float *> x, NULL, <float *> output, NULL,
                                     workspace, size, 1, &options)
            free(workspace)
    return status


def backward(size_t model, ptrdiff_t T, ptrdiff_t N, size_t x, size_t d_output, size_t dx):
    cdef:
        const gru_model *m = <const gru_model *> model
        gru_options options = default_options()
        size_t saved_size, size, other
        void *saved
        void *workspace
        int status
    with nogil:
        status = gru_saved_size_f32(m, T, N, &options, &saved_size)
        if status == GRU_OK:
            gru_workspace_size_f32(m, GRU_TRAINING, T, N, 1, &options, &size)
            gru_workspace_size_f32(m, GRU_BACKWARD, T, N, 1, &options, &other)
            size = max(size, other)
            saved, workspace = malloc(saved_size), malloc(size)
            status = gru_forward_training_f32(m, T, N, <const float *> x, NULL, NULL, NULL, saved,
                                              saved_size, workspace, size, 1, &options)
            if status == GRU_OK:
                status = gru_backward_f32(m, T, N, <const float *> d_output, NULL, <float *> dx,
                                          NULL, NULL, saved, saved_size, workspace, size, 1,
                                          &options)
            free(workspace)
            free(saved)
    return status


def steps(size_t model, ptrdiff_t T, ptrdiff_t N, ptrdiff_t I, ptrdiff_t H, size_t x,
          size_t output):
    """A stream, step by step."""
    cdef:
        gru_options options = default_options()
        gru_stream *stream
        ptrdiff_t t
        int status = gru_stream_new_f32(<const gru_model *> model, N, 1, 1, &options, &stream)
    if status != GRU_OK:
        return status
    for t in range(T):
        status = gru_stream_step_f32(stream, <const float *> x + t * N * I,
                                     <float *> output + t * N * H)
        if status != GRU_OK:
            return status
    return gru_stream_free(stream)
