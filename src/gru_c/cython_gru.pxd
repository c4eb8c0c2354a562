"""gru_c from Cython: the functions of gru_c.h, for packages that cimport them.

    from gru_c.cython_gru cimport GRU_OK, gru_forward_f32, gru_model, gru_options

gru_c.h has the contract of each function and of each pointer; its folder, gru_c.get_include(), goes
to the include_dirs of the extension. The functions need no GIL. What is here never changes: see
docs/embedding.md.
"""

from libc.stddef cimport ptrdiff_t

cdef extern from "gru_c.h" nogil:
    const int GRU_ABI_VERSION

    ctypedef struct gru_model:
        pass

    ctypedef struct gru_stream:
        pass

    cdef enum gru_status:
        GRU_OK
        GRU_NULL_POINTER
        GRU_BAD_SIZE
        GRU_BAD_OPTIONS_SIZE
        GRU_BAD_OPTION
        GRU_BAD_LENGTHS
        GRU_BAD_THREADS
        GRU_NOT_A_MODEL
        GRU_OTHER_DTYPE
        GRU_NOT_PACKED
        GRU_ALREADY_PACKED
        GRU_NO_TRAINING
        GRU_NOT_SAVED
        GRU_MEMORY_TOO_SMALL
        GRU_OUT_OF_MEMORY
        GRU_NOT_A_STREAM
        GRU_NOT_CAUSAL
        GRU_BAD_ROW
        GRU_MISALIGNED

    cdef enum gru_pass:
        GRU_INFERENCE
        GRU_TRAINING
        GRU_BACKWARD

    cdef enum gru_activation_name:
        GRU_ACTIVATION_DEFAULT
        GRU_ACTIVATION_SIGMOID
        GRU_ACTIVATION_TANH
        GRU_ACTIVATION_RELU
        GRU_ACTIVATION_SOFTSIGN
        GRU_ACTIVATION_SOFTPLUS
        GRU_ACTIVATION_LINEAR
        GRU_ACTIVATION_HARD_SIGMOID
        GRU_ACTIVATION_AFFINE
        GRU_ACTIVATION_LEAKY_RELU
        GRU_ACTIVATION_THRESHOLDED_RELU
        GRU_ACTIVATION_SCALED_TANH
        GRU_ACTIVATION_ELU

    cdef enum gru_weights_storage:
        GRU_WEIGHTS_DTYPE
        GRU_WEIGHTS_BFLOAT16
        GRU_WEIGHTS_INT8

    ctypedef struct gru_options:
        size_t struct_size
        ptrdiff_t num_layers
        int bidirectional
        int reverse
        int reset_before
        int training
        int activation
        int recurrent_activation
        double activation_alpha
        double activation_beta
        double recurrent_activation_alpha
        double recurrent_activation_beta
        double clip
        const ptrdiff_t *lengths
        const unsigned char *mask
        const unsigned char *resets
        const void *const *dropout_masks
        ptrdiff_t x_step
        ptrdiff_t x_row
        ptrdiff_t output_step
        ptrdiff_t output_row
        ptrdiff_t d_output_step
        ptrdiff_t d_output_row
        ptrdiff_t dx_step
        ptrdiff_t dx_row
        int x_stays
        int keep_saved
        int accumulate
        int flush_denormals
        int weights
        int x_bits

cdef const char *gru_status_text(int status) noexcept nogil

# ---- float ---------------------------------------------------------------------------------------

cdef int gru_model_size_f32(ptrdiff_t input_size, ptrdiff_t hidden_size, const gru_options *options,
                            size_t *size) noexcept nogil
cdef int gru_model_init_f32(void *memory, size_t size, ptrdiff_t input_size, ptrdiff_t hidden_size,
                            const gru_options *options, gru_model **model) noexcept nogil
cdef int gru_model_pack_f32(gru_model *model, ptrdiff_t index, const float *weight_ih,
                            const float *weight_hh, const float *bias_ih,
                            const float *bias_hh) noexcept nogil
cdef int gru_model_new_f32(ptrdiff_t input_size, ptrdiff_t hidden_size, const gru_options *options,
                           gru_model **model) noexcept nogil
cdef int gru_workspace_size_f32(const gru_model *model, int which_pass, ptrdiff_t steps,
                                ptrdiff_t rows, int threads, const gru_options *options,
                                size_t *size) noexcept nogil
cdef int gru_saved_size_f32(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows,
                            const gru_options *options, size_t *size) noexcept nogil
cdef int gru_step_f32(const gru_model *model, ptrdiff_t rows, const float *x, const float *h,
                      float *h_next, void *workspace, size_t workspace_size, int threads,
                      const gru_options *options) noexcept nogil
cdef int gru_forward_f32(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows, const float *x,
                         const float *h_0, float *output, float *h_n, void *workspace,
                         size_t workspace_size, int threads,
                         const gru_options *options) noexcept nogil
cdef int gru_forward_training_f32(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows,
                                  const float *x, const float *h_0, float *output, float *h_n,
                                  void *saved, size_t saved_size, void *workspace,
                                  size_t workspace_size, int threads,
                                  const gru_options *options) noexcept nogil
cdef int gru_backward_f32(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows,
                          const float *d_output, const float *d_h_n, float *dx, float *dh_0,
                          float *const *gradients, void *saved, size_t saved_size, void *workspace,
                          size_t workspace_size, int threads,
                          const gru_options *options) noexcept nogil
cdef int gru_stream_size_f32(const gru_model *model, ptrdiff_t rows, ptrdiff_t max_steps,
                             int threads, const gru_options *options, size_t *size) noexcept nogil
cdef int gru_stream_init_f32(void *memory, size_t size, const gru_model *model, ptrdiff_t rows,
                             ptrdiff_t max_steps, int threads, const gru_options *options,
                             gru_stream **stream) noexcept nogil
cdef int gru_stream_new_f32(const gru_model *model, ptrdiff_t rows, ptrdiff_t max_steps,
                            int threads, const gru_options *options,
                            gru_stream **stream) noexcept nogil
cdef int gru_stream_step_f32(gru_stream *stream, const float *x, float *output) noexcept nogil
cdef int gru_stream_run_f32(gru_stream *stream, ptrdiff_t steps, const float *x,
                            float *output) noexcept nogil
cdef int gru_stream_reset_f32(gru_stream *stream, const unsigned char *rows) noexcept nogil
cdef int gru_stream_get_state_f32(const gru_stream *stream, float *state) noexcept nogil
cdef int gru_stream_set_state_f32(gru_stream *stream, const float *state) noexcept nogil
cdef int gru_stream_copy_rows_f32(gru_stream *stream, const ptrdiff_t *source) noexcept nogil

# ---- double --------------------------------------------------------------------------------------

cdef int gru_model_size_f64(ptrdiff_t input_size, ptrdiff_t hidden_size, const gru_options *options,
                            size_t *size) noexcept nogil
cdef int gru_model_init_f64(void *memory, size_t size, ptrdiff_t input_size, ptrdiff_t hidden_size,
                            const gru_options *options, gru_model **model) noexcept nogil
cdef int gru_model_pack_f64(gru_model *model, ptrdiff_t index, const double *weight_ih,
                            const double *weight_hh, const double *bias_ih,
                            const double *bias_hh) noexcept nogil
cdef int gru_model_new_f64(ptrdiff_t input_size, ptrdiff_t hidden_size, const gru_options *options,
                           gru_model **model) noexcept nogil
cdef int gru_workspace_size_f64(const gru_model *model, int which_pass, ptrdiff_t steps,
                                ptrdiff_t rows, int threads, const gru_options *options,
                                size_t *size) noexcept nogil
cdef int gru_saved_size_f64(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows,
                            const gru_options *options, size_t *size) noexcept nogil
cdef int gru_step_f64(const gru_model *model, ptrdiff_t rows, const double *x, const double *h,
                      double *h_next, void *workspace, size_t workspace_size, int threads,
                      const gru_options *options) noexcept nogil
cdef int gru_forward_f64(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows, const double *x,
                         const double *h_0, double *output, double *h_n, void *workspace,
                         size_t workspace_size, int threads,
                         const gru_options *options) noexcept nogil
cdef int gru_forward_training_f64(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows,
                                  const double *x, const double *h_0, double *output, double *h_n,
                                  void *saved, size_t saved_size, void *workspace,
                                  size_t workspace_size, int threads,
                                  const gru_options *options) noexcept nogil
cdef int gru_backward_f64(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows,
                          const double *d_output, const double *d_h_n, double *dx, double *dh_0,
                          double *const *gradients, void *saved, size_t saved_size, void *workspace,
                          size_t workspace_size, int threads,
                          const gru_options *options) noexcept nogil
cdef int gru_stream_size_f64(const gru_model *model, ptrdiff_t rows, ptrdiff_t max_steps,
                             int threads, const gru_options *options, size_t *size) noexcept nogil
cdef int gru_stream_init_f64(void *memory, size_t size, const gru_model *model, ptrdiff_t rows,
                             ptrdiff_t max_steps, int threads, const gru_options *options,
                             gru_stream **stream) noexcept nogil
cdef int gru_stream_new_f64(const gru_model *model, ptrdiff_t rows, ptrdiff_t max_steps,
                            int threads, const gru_options *options,
                            gru_stream **stream) noexcept nogil
cdef int gru_stream_step_f64(gru_stream *stream, const double *x, double *output) noexcept nogil
cdef int gru_stream_run_f64(gru_stream *stream, ptrdiff_t steps, const double *x,
                            double *output) noexcept nogil
cdef int gru_stream_reset_f64(gru_stream *stream, const unsigned char *rows) noexcept nogil
cdef int gru_stream_get_state_f64(const gru_stream *stream, double *state) noexcept nogil
cdef int gru_stream_set_state_f64(gru_stream *stream, const double *state) noexcept nogil
cdef int gru_stream_copy_rows_f64(gru_stream *stream, const ptrdiff_t *source) noexcept nogil

# ---- both ---------------------------------------------------------------------------------------

cdef int gru_model_shape(const gru_model *model, ptrdiff_t *shape) noexcept nogil
cdef int gru_model_free(gru_model *model) noexcept nogil
cdef int gru_stream_free(gru_stream *stream) noexcept nogil
