/* The part of family.c for one dtype: REAL, and NAME(name), which ends in _f32 or _f64. */

static REAL *NAME(take)(ptrdiff_t count) { return (REAL *)take(count, sizeof(REAL)); }

static void NAME(give)(const REAL *array, ptrdiff_t count)
{
    REQUIRE(fwrite(array, sizeof(REAL), (size_t)count, stdout) == (size_t)count);
}

static gru_model *NAME(make_model)(const struct request *r, const gru_options *options)
{
    ptrdiff_t D = 1 + r->bidirectional, H = r->hidden;
    gru_model *model;
    size_t size;
    CHECK(NAME(gru_model_size)(r->inputs, H, options, &size));
    CHECK(NAME(gru_model_init)(odd(size), size, r->inputs, H, options, &model));
    for (ptrdiff_t i = 0; i < r->layers * D; i++) {
        REAL *w_ih = NAME(take)(3 * H * (i < D ? r->inputs : D * H)), *w_hh = NAME(take)(3 * H * H);
        REAL *b_ih = r->bias ? NAME(take)(3 * H) : NULL, *b_hh = r->bias ? NAME(take)(3 * H) : NULL;
        CHECK(NAME(gru_model_pack)(model, i, w_ih, w_hh, b_ih, b_hh));
        free(w_ih);
        free(w_hh);
        free(b_ih);
        free(b_hh);
    }
    return model;
}

static void NAME(train)(const struct request *r, const gru_options *options, const gru_model *model,
                        const REAL *x, const REAL *h_0, REAL *output, REAL *h_n)
{
    ptrdiff_t D = 1 + r->bidirectional, H = r->hidden, calls = r->layers * D, state = calls * r->rows * H;
    size_t saved_size, size;
    int threads = (int)r->threads;
    CHECK(NAME(gru_saved_size)(model, r->steps, r->rows, options, &saved_size));
    CHECK(NAME(gru_workspace_size)(model, GRU_TRAINING, r->steps, r->rows, threads, options, &size));
    void *saved = odd(saved_size), *workspace = odd(size);
    CHECK(NAME(gru_forward_training)(model, r->steps, r->rows, x, h_0, output, h_n, saved, saved_size,
                                     workspace, size, threads, options));
    REAL *d_output = NAME(take)(r->steps * r->rows * D * H), *d_h_n = NAME(take)(state);
    REAL *dx = (REAL *)allocate((size_t)(r->steps * r->rows * r->inputs) * sizeof(REAL));
    REAL *dh_0 = (REAL *)allocate((size_t)state * sizeof(REAL));
    REAL **gradients = (REAL **)allocate((size_t)(4 * calls) * sizeof *gradients);
    ptrdiff_t counts[4] = {0, 3 * H * H, 3 * H, 3 * H};
    for (ptrdiff_t i = 0; i < 4 * calls; i++) {
        counts[0] = 3 * H * (i < 4 * D ? r->inputs : D * H);
        gradients[i] = i % 4 < 2 || r->bias ? (REAL *)allocate((size_t)counts[i % 4] * sizeof(REAL)) : NULL;
    }
    CHECK(NAME(gru_workspace_size)(model, GRU_BACKWARD, r->steps, r->rows, threads, options, &size));
    CHECK(NAME(gru_backward)(model, r->steps, r->rows, d_output, d_h_n, dx, dh_0, gradients, saved,
                             saved_size, odd(size), size, threads, options));
    NAME(give)(dx, r->steps * r->rows * r->inputs);
    NAME(give)(dh_0, state);
    for (ptrdiff_t i = 0; i < 4 * calls; i++) {
        counts[0] = 3 * H * (i < 4 * D ? r->inputs : D * H);
        if (gradients[i] != NULL) NAME(give)(gradients[i], counts[i % 4]);
    }
}

/* The first half of the steps one by one, then the others at once. */
static void NAME(run_stream)(const struct request *r, const gru_model *model, const REAL *x,
                             const REAL *h_0, REAL *output, REAL *h_n)
{
    ptrdiff_t half = r->steps / 2, x_step = r->rows * r->inputs, output_step = r->rows * r->hidden;
    gru_stream *stream;
    size_t size;
    CHECK(NAME(gru_stream_size)(model, r->rows, 3, (int)r->threads, NULL, &size));
    CHECK(NAME(gru_stream_init)(odd(size), size, model, r->rows, 3, (int)r->threads, NULL, &stream));
    if (h_0 != NULL) CHECK(NAME(gru_stream_set_state)(stream, h_0));
    for (ptrdiff_t t = 0; t < half; t++)
        CHECK(NAME(gru_stream_step)(stream, x + t * x_step, output + t * output_step));
    CHECK(NAME(gru_stream_run)(stream, r->steps - half, x + half * x_step, output + half * output_step));
    CHECK(NAME(gru_stream_get_state)(stream, h_n));
}

/* Step after step in the caller's memory; what the last layer has is the output. */
static void NAME(run_steps)(const struct request *r, const gru_model *model, const REAL *x,
                            const REAL *h_0, REAL *output, REAL *h_n)
{
    ptrdiff_t width = r->rows * r->hidden;
    const REAL *h = h_0;
    size_t size;
    CHECK(NAME(gru_workspace_size)(model, GRU_INFERENCE, 1, r->rows, (int)r->threads, NULL, &size));
    void *workspace = odd(size);
    for (ptrdiff_t t = 0; t < r->steps; t++) {
        CHECK(NAME(gru_step)(model, r->rows, x + t * r->rows * r->inputs, h, h_n, workspace, size,
                             (int)r->threads, NULL));
        memcpy(output + t * width, h_n + (r->layers - 1) * width, (size_t)width * sizeof(REAL));
        h = h_n;
    }
}

static void NAME(answer)(const struct request *r)
{
    gru_options options;
    set_options(r, &options);
    gru_model *model = NAME(make_model)(r, &options);
    ptrdiff_t D = 1 + r->bidirectional, state = r->layers * D * r->rows * r->hidden;
    ptrdiff_t numbers = r->steps * r->rows * D * r->hidden;
    REAL *x = NAME(take)(r->steps * r->rows * r->inputs), *h_0 = r->has_h_0 ? NAME(take)(state) : NULL;
    REAL *output = (REAL *)allocate((size_t)numbers * sizeof(REAL));
    REAL *h_n = (REAL *)allocate((size_t)state * sizeof(REAL));
    size_t size;
    take_rows(r, &options);
    if (r->pass == TRAINING) NAME(train)(r, &options, model, x, h_0, output, h_n);
    if (r->pass == STREAM) NAME(run_stream)(r, model, x, h_0, output, h_n);
    if (r->pass == STEPS) NAME(run_steps)(r, model, x, h_0, output, h_n);
    if (r->pass == INFERENCE) {
        CHECK(NAME(gru_workspace_size)(model, GRU_INFERENCE, r->steps, r->rows, (int)r->threads, &options,
                                       &size));
        CHECK(NAME(gru_forward)(model, r->steps, r->rows, x, h_0, output, h_n, odd(size), size,
                                (int)r->threads, &options));
    }
    NAME(give)(output, numbers);
    NAME(give)(h_n, state);
}
