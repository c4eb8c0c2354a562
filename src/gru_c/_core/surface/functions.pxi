# The functions of gru_c.h for float and double; each calls one of the core for any dtype.

cdef const char *gru_status_text(int status) noexcept nogil:
    return status_text(status)


# ---- float ---------------------------------------------------------------------------------------

cdef int gru_model_size_f32(ptrdiff_t input_size, ptrdiff_t hidden_size, const gru_options *options,
                            size_t *size) noexcept nogil:
    return model_size(sizeof(float), input_size, hidden_size, options, size)


cdef int gru_model_init_f32(void *memory, size_t size, ptrdiff_t input_size, ptrdiff_t hidden_size,
                            const gru_options *options, gru_model **model) noexcept nogil:
    return model_init(sizeof(float), memory, size, input_size, hidden_size, options, model)


cdef int gru_model_pack_f32(gru_model *model, ptrdiff_t index, const float *weight_ih,
                            const float *weight_hh, const float *bias_ih,
                            const float *bias_hh) noexcept nogil:
    return model_pack(model, index, weight_ih, weight_hh, bias_ih, bias_hh)


cdef int gru_model_new_f32(ptrdiff_t input_size, ptrdiff_t hidden_size, const gru_options *options,
                           gru_model **model) noexcept nogil:
    return model_new(sizeof(float), input_size, hidden_size, options, model)


cdef int gru_workspace_size_f32(const gru_model *model, int which_pass, ptrdiff_t steps,
                                ptrdiff_t rows, int threads, const gru_options *options,
                                size_t *size) noexcept nogil:
    return workspace_size_for(sizeof(float), model, which_pass, steps, rows, threads, options, size)


cdef int gru_saved_size_f32(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows,
                            const gru_options *options, size_t *size) noexcept nogil:
    return saved_size_for(sizeof(float), model, steps, rows, options, size)


cdef int gru_step_f32(const gru_model *model, ptrdiff_t rows, const float *x, const float *h,
                      float *h_next, void *workspace, size_t workspace_size, int threads,
                      const gru_options *options) noexcept nogil:
    if h_next == NULL:
        return GRU_NULL_POINTER
    return forward_for(sizeof(float), INFERENCE, model, 1, rows, x, h, NULL, h_next, NULL, 0,
                       workspace, workspace_size, threads, options)


cdef int gru_forward_f32(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows, const float *x,
                         const float *h_0, float *output, float *h_n, void *workspace,
                         size_t workspace_size, int threads,
                         const gru_options *options) noexcept nogil:
    return forward_for(sizeof(float), INFERENCE, model, steps, rows, x, h_0, output, h_n, NULL, 0,
                       workspace, workspace_size, threads, options)


cdef int gru_forward_training_f32(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows,
                                  const float *x, const float *h_0, float *output, float *h_n,
                                  void *saved, size_t saved_size, void *workspace,
                                  size_t workspace_size, int threads,
                                  const gru_options *options) noexcept nogil:
    return forward_for(sizeof(float), TRAINING, model, steps, rows, x, h_0, output, h_n, saved,
                       saved_size, workspace, workspace_size, threads, options)


cdef int gru_backward_f32(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows,
                          const float *d_output, const float *d_h_n, float *dx, float *dh_0,
                          float *const *gradients, void *saved, size_t saved_size, void *workspace,
                          size_t workspace_size, int threads,
                          const gru_options *options) noexcept nogil:
    return backward_for(sizeof(float), model, steps, rows, d_output, d_h_n, dx, dh_0,
                        <void *const *> gradients, saved, saved_size, workspace, workspace_size,
                        threads, options)


cdef int gru_stream_size_f32(const gru_model *model, ptrdiff_t rows, ptrdiff_t max_steps,
                             int threads, const gru_options *options, size_t *size) noexcept nogil:
    return stream_size(sizeof(float), model, rows, max_steps, threads, options, size)


cdef int gru_stream_init_f32(void *memory, size_t size, const gru_model *model, ptrdiff_t rows,
                             ptrdiff_t max_steps, int threads, const gru_options *options,
                             gru_stream **stream) noexcept nogil:
    return stream_init(sizeof(float), memory, size, model, rows, max_steps, threads, options,
                       stream)


cdef int gru_stream_new_f32(const gru_model *model, ptrdiff_t rows, ptrdiff_t max_steps,
                            int threads, const gru_options *options,
                            gru_stream **stream) noexcept nogil:
    return stream_new(sizeof(float), model, rows, max_steps, threads, options, stream)


cdef int gru_stream_step_f32(gru_stream *stream, const float *x, float *output) noexcept nogil:
    return stream_run(sizeof(float), stream, 1, x, output)


cdef int gru_stream_run_f32(gru_stream *stream, ptrdiff_t steps, const float *x,
                            float *output) noexcept nogil:
    return stream_run(sizeof(float), stream, steps, x, output)


cdef int gru_stream_reset_f32(gru_stream *stream, const unsigned char *rows) noexcept nogil:
    return stream_reset(sizeof(float), stream, rows)


cdef int gru_stream_get_state_f32(const gru_stream *stream, float *state) noexcept nogil:
    return stream_get_state(sizeof(float), stream, state)


cdef int gru_stream_set_state_f32(gru_stream *stream, const float *state) noexcept nogil:
    return stream_set_state(sizeof(float), stream, state)


cdef int gru_stream_copy_rows_f32(gru_stream *stream, const ptrdiff_t *source) noexcept nogil:
    return stream_copy_rows(sizeof(float), stream, source)


# ---- double --------------------------------------------------------------------------------------

cdef int gru_model_size_f64(ptrdiff_t input_size, ptrdiff_t hidden_size, const gru_options *options,
                            size_t *size) noexcept nogil:
    return model_size(sizeof(double), input_size, hidden_size, options, size)


cdef int gru_model_init_f64(void *memory, size_t size, ptrdiff_t input_size, ptrdiff_t hidden_size,
                            const gru_options *options, gru_model **model) noexcept nogil:
    return model_init(sizeof(double), memory, size, input_size, hidden_size, options, model)


cdef int gru_model_pack_f64(gru_model *model, ptrdiff_t index, const double *weight_ih,
                            const double *weight_hh, const double *bias_ih,
                            const double *bias_hh) noexcept nogil:
    return model_pack(model, index, weight_ih, weight_hh, bias_ih, bias_hh)


cdef int gru_model_new_f64(ptrdiff_t input_size, ptrdiff_t hidden_size, const gru_options *options,
                           gru_model **model) noexcept nogil:
    return model_new(sizeof(double), input_size, hidden_size, options, model)


cdef int gru_workspace_size_f64(const gru_model *model, int which_pass, ptrdiff_t steps,
                                ptrdiff_t rows, int threads, const gru_options *options,
                                size_t *size) noexcept nogil:
    return workspace_size_for(sizeof(double), model, which_pass, steps, rows, threads, options,
                              size)


cdef int gru_saved_size_f64(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows,
                            const gru_options *options, size_t *size) noexcept nogil:
    return saved_size_for(sizeof(double), model, steps, rows, options, size)


cdef int gru_step_f64(const gru_model *model, ptrdiff_t rows, const double *x, const double *h,
                      double *h_next, void *workspace, size_t workspace_size, int threads,
                      const gru_options *options) noexcept nogil:
    if h_next == NULL:
        return GRU_NULL_POINTER
    return forward_for(sizeof(double), INFERENCE, model, 1, rows, x, h, NULL, h_next, NULL, 0,
                       workspace, workspace_size, threads, options)


cdef int gru_forward_f64(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows, const double *x,
                         const double *h_0, double *output, double *h_n, void *workspace,
                         size_t workspace_size, int threads,
                         const gru_options *options) noexcept nogil:
    return forward_for(sizeof(double), INFERENCE, model, steps, rows, x, h_0, output, h_n, NULL, 0,
                       workspace, workspace_size, threads, options)


cdef int gru_forward_training_f64(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows,
                                  const double *x, const double *h_0, double *output, double *h_n,
                                  void *saved, size_t saved_size, void *workspace,
                                  size_t workspace_size, int threads,
                                  const gru_options *options) noexcept nogil:
    return forward_for(sizeof(double), TRAINING, model, steps, rows, x, h_0, output, h_n, saved,
                       saved_size, workspace, workspace_size, threads, options)


cdef int gru_backward_f64(const gru_model *model, ptrdiff_t steps, ptrdiff_t rows,
                          const double *d_output, const double *d_h_n, double *dx, double *dh_0,
                          double *const *gradients, void *saved, size_t saved_size, void *workspace,
                          size_t workspace_size, int threads,
                          const gru_options *options) noexcept nogil:
    return backward_for(sizeof(double), model, steps, rows, d_output, d_h_n, dx, dh_0,
                        <void *const *> gradients, saved, saved_size, workspace, workspace_size,
                        threads, options)


cdef int gru_stream_size_f64(const gru_model *model, ptrdiff_t rows, ptrdiff_t max_steps,
                             int threads, const gru_options *options, size_t *size) noexcept nogil:
    return stream_size(sizeof(double), model, rows, max_steps, threads, options, size)


cdef int gru_stream_init_f64(void *memory, size_t size, const gru_model *model, ptrdiff_t rows,
                             ptrdiff_t max_steps, int threads, const gru_options *options,
                             gru_stream **stream) noexcept nogil:
    return stream_init(sizeof(double), memory, size, model, rows, max_steps, threads, options,
                       stream)


cdef int gru_stream_new_f64(const gru_model *model, ptrdiff_t rows, ptrdiff_t max_steps,
                            int threads, const gru_options *options,
                            gru_stream **stream) noexcept nogil:
    return stream_new(sizeof(double), model, rows, max_steps, threads, options, stream)


cdef int gru_stream_step_f64(gru_stream *stream, const double *x, double *output) noexcept nogil:
    return stream_run(sizeof(double), stream, 1, x, output)


cdef int gru_stream_run_f64(gru_stream *stream, ptrdiff_t steps, const double *x,
                            double *output) noexcept nogil:
    return stream_run(sizeof(double), stream, steps, x, output)


cdef int gru_stream_reset_f64(gru_stream *stream, const unsigned char *rows) noexcept nogil:
    return stream_reset(sizeof(double), stream, rows)


cdef int gru_stream_get_state_f64(const gru_stream *stream, double *state) noexcept nogil:
    return stream_get_state(sizeof(double), stream, state)


cdef int gru_stream_set_state_f64(gru_stream *stream, const double *state) noexcept nogil:
    return stream_set_state(sizeof(double), stream, state)


cdef int gru_stream_copy_rows_f64(gru_stream *stream, const ptrdiff_t *source) noexcept nogil:
    return stream_copy_rows(sizeof(double), stream, source)


# ---- both ---------------------------------------------------------------------------------------

cdef int gru_model_shape(const gru_model *model, ptrdiff_t *shape) noexcept nogil:
    return model_shape(model, shape)


cdef int gru_model_free(gru_model *model) noexcept nogil:
    return model_free(model)


cdef int gru_stream_free(gru_stream *stream) noexcept nogil:
    return stream_free(stream)
