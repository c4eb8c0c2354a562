"""What the rest of `_core` calls: packing, sizes, the two entries, threads. See rnn/call.pxd."""

from libc.stddef cimport ptrdiff_t

from gru_c.cython_gru cimport gru_model, gru_options, gru_stream

from gru_c._core.gemm.context cimport Activations, Context, PackedMatrix, Storage, real
from gru_c._core.rnn.call cimport Call, Mode, PackedLayer, Ragged, Status
from gru_c._core.rnn.stack cimport Stack

cdef void init_layer(PackedLayer *layer, Storage storage, size_t itemsize, Py_ssize_t input_size,
                     Py_ssize_t hidden_size, bint reset_after) noexcept nogil
cdef void set_activations(PackedLayer *layer, Activations activations) noexcept nogil
cdef size_t place_forward_weights(PackedLayer *layer, void *memory) noexcept nogil
cdef size_t place_backward_weights(PackedLayer *layer, void *memory) noexcept nogil
cdef void pack_forward_weights(PackedLayer *layer, const real *weight_ih, const real *weight_hh,
                               const real *bias_ih, const real *bias_hh) noexcept nogil
cdef void pack_backward_weights(
    PackedLayer *layer, const real *weight_ih, const real *weight_hh) noexcept nogil

cdef void unpack_rounded(
    const PackedMatrix *packed, Py_ssize_t units, float *weight) noexcept nogil

cdef size_t saved_size(Call *call) noexcept nogil
cdef size_t workspace_size(Call *call, int count) noexcept nogil
cdef Status forward(Call *calls, int count) noexcept nogil
cdef Status backward(Call *calls, int count) noexcept nogil

# All layers of a model
cdef void plan_stack(Stack *stack, Call *calls) noexcept nogil
cdef void connect_stack(const Stack *stack, Call *calls, void *memory) noexcept nogil
cdef size_t saved_size_of(const Stack *stack, Call *calls, Py_ssize_t index) noexcept nogil
cdef void connect_saved(
    const Stack *stack, Call *calls, Py_ssize_t index, void *memory) noexcept nogil
cdef Status run_stack(const Stack *stack, Call *calls) noexcept nogil

# Rows that differ
cdef bint sort_rows(const Py_ssize_t *given, Py_ssize_t rows, Py_ssize_t steps, Ragged *ragged,
                    Py_ssize_t *firsts) noexcept nogil
cdef void mark_rows(const unsigned char *mask, const unsigned char *resets, const Ragged *ragged,
                    Py_ssize_t steps, Py_ssize_t rows, unsigned char *marks) noexcept nogil

# Windows of a sequence: whole multiples of so many steps, and the blocks of rows in one.
cdef Py_ssize_t sum_steps(Py_ssize_t rows) noexcept nogil
cdef Py_ssize_t sum_blocks(Py_ssize_t steps, Py_ssize_t rows, const Ragged *ragged) noexcept nogil

cdef int max_threads() noexcept nogil
cdef int fork_count() noexcept nogil

# The contexts in use: those that Python binds, or the best of a program without Python.
cdef void set_contexts(const Context *of_float) noexcept nogil
cdef void set_rounded_context(Storage storage, const Context *context) noexcept nogil
cdef const Context *of_bfloat16(Storage storage, const Context *of_float) noexcept nogil

cdef int new_serial() noexcept nogil       # of a Model

# The functions of gru_c.h for any dtype
cdef const char *status_text(int status) noexcept nogil
cdef int model_size(size_t itemsize, Py_ssize_t input_size, Py_ssize_t hidden_size,
                    const gru_options *options, size_t *size) noexcept nogil
cdef int model_init(size_t itemsize, void *memory, size_t size, Py_ssize_t input_size,
                    Py_ssize_t hidden_size, const gru_options *options,
                    gru_model **model) noexcept nogil
cdef int model_new(size_t itemsize, Py_ssize_t input_size, Py_ssize_t hidden_size,
                   const gru_options *options, gru_model **model) noexcept nogil
cdef int model_pack(gru_model *model, Py_ssize_t index, const real *weight_ih,
                    const real *weight_hh, const real *bias_ih, const real *bias_hh) noexcept nogil
cdef int model_free(gru_model *model) noexcept nogil
cdef int model_shape(const gru_model *model, ptrdiff_t *shape) noexcept nogil
cdef int workspace_size_for(size_t itemsize, const gru_model *model, int which, Py_ssize_t steps,
                            Py_ssize_t rows, int threads, const gru_options *options,
                            size_t *size) noexcept nogil
cdef int saved_size_for(size_t itemsize, const gru_model *model, Py_ssize_t steps, Py_ssize_t rows,
                        const gru_options *options, size_t *size) noexcept nogil
cdef int forward_for(size_t itemsize, Mode mode, const gru_model *model, Py_ssize_t steps,
                     Py_ssize_t rows, const void *x, const void *h_0, void *output, void *h_n,
                     void *saved, size_t saved_bytes, void *workspace, size_t workspace_bytes,
                     int threads, const gru_options *options) noexcept nogil
cdef int backward_for(size_t itemsize, const gru_model *model, Py_ssize_t steps, Py_ssize_t rows,
                      const void *d_output, const void *d_h_n, void *dx, void *dh_0,
                      void *const *gradients, void *saved, size_t saved_bytes, void *workspace,
                      size_t workspace_bytes, int threads,
                      const gru_options *options) noexcept nogil
cdef int stream_size(size_t itemsize, const gru_model *model, Py_ssize_t rows,
                     Py_ssize_t max_steps, int threads, const gru_options *options,
                     size_t *size) noexcept nogil
cdef int stream_init(size_t itemsize, void *memory, size_t size, const gru_model *model,
                     Py_ssize_t rows, Py_ssize_t max_steps, int threads,
                     const gru_options *options, gru_stream **stream) noexcept nogil
cdef int stream_new(size_t itemsize, const gru_model *model, Py_ssize_t rows, Py_ssize_t max_steps,
                    int threads, const gru_options *options, gru_stream **stream) noexcept nogil
cdef int stream_free(gru_stream *stream) noexcept nogil
cdef int stream_run(size_t itemsize, gru_stream *stream, Py_ssize_t steps, const void *x,
                    void *output) noexcept nogil
cdef int stream_reset(size_t itemsize, gru_stream *stream,
                      const unsigned char *rows) noexcept nogil
cdef int stream_get_state(size_t itemsize, const gru_stream *stream, void *state) noexcept nogil
cdef int stream_set_state(size_t itemsize, gru_stream *stream, const void *state) noexcept nogil
cdef int stream_copy_rows(size_t itemsize, gru_stream *stream,
                          const ptrdiff_t *source) noexcept nogil
