/* The part of c_surface.c for one dtype: REAL and NAME(name), and the other, OTHER_REAL and OTHER(name). */

static REAL *NAME(reals)(ptrdiff_t count)
{
    REAL *values = block((size_t)count * sizeof(REAL), sizeof(REAL));
    for (ptrdiff_t i = 0; i < count; i++) values[i] = (REAL)uniform();
    return values;
}

/* The same bits, but for those of a NaN: activations without bounds overflow. */
static int NAME(same)(const REAL *a, const REAL *b, ptrdiff_t count)
{
    for (ptrdiff_t i = 0; i < count; i++)
        if (memcmp(&a[i], &b[i], sizeof(REAL)) != 0 && !(isnan(a[i]) && isnan(b[i]))) return 0;
    return 1;
}

/* ---- a model */

typedef struct NAME(subject) {
    gru_model *model;
    gru_options options; /* of the model */
    ptrdiff_t I, H, L, D;
    int allocated; /* by gru_model_new */
} NAME(subject);

static void NAME(pack)(const NAME(subject) *s, ptrdiff_t index)
{
    ptrdiff_t inputs = index < s->D ? s->I : s->D * s->H;
    REAL *w_ih = NAME(reals)(3 * s->H * inputs), *w_hh = NAME(reals)(3 * s->H * s->H);
    REAL *b_ih = NULL, *b_hh = NULL;
    if (!one_in(4)) b_ih = NAME(reals)(3 * s->H), b_hh = NAME(reals)(3 * s->H);
    WRONG(NAME(gru_model_pack)(s->model, index, NULL, w_hh, b_ih, b_hh));
    WRONG(NAME(gru_model_pack)(s->model, index, w_ih, w_hh, w_ih, NULL));
    WRONG(NAME(gru_model_pack)(s->model, index + s->L * s->D, w_ih, w_hh, b_ih, b_hh));
    RIGHT(NAME(gru_model_pack)(s->model, index, w_ih, w_hh, b_ih, b_hh));
    WRONG(NAME(gru_model_pack)(s->model, index, w_ih, w_hh, b_ih, b_hh));
}

static void NAME(make)(NAME(subject) *s)
{
    ptrdiff_t shape[5];
    size_t size;
    draw_model_options(&s->options);
    if (sizeof(REAL) == sizeof(float) && one_in(2)) draw_weights(&s->options);
    s->I = 1 + pick(one_in(4) ? 70 : 12);
    s->H = 1 + pick(one_in(4) ? 70 : 20);
    if (one_in(30)) s->H = LARGE + pick(100);              /* enough work for several threads */
    s->L = s->options.num_layers ? s->options.num_layers : 1;
    s->D = 1 + s->options.bidirectional;
    s->allocated = one_in(2);
    if (s->allocated) {
        RIGHT(NAME(gru_model_new)(s->I, s->H, &s->options, &s->model));
    } else {
        RIGHT(NAME(gru_model_size)(s->I, s->H, &s->options, &size));
        void *memory = block(size, 1);
        WRONG(NAME(gru_model_init)(memory, (size_t)pick((ptrdiff_t)size), s->I, s->H, &s->options, &s->model));
        RIGHT(NAME(gru_model_init)(memory, size, s->I, s->H, &s->options, &s->model));
    }
    for (ptrdiff_t i = s->L * s->D - 1; i >= 0; i--) NAME(pack)(s, i);
    RIGHT(gru_model_shape(s->model, shape));
    REQUIRE(shape[0] == s->I && shape[1] == s->H && shape[2] == s->L && shape[3] == s->D &&
            shape[4] == sizeof(REAL));
}

/* ---- a call */

/* An array (T, N, width) in C order or with other distances. */
typedef struct NAME(array) {
    REAL *data;
    ptrdiff_t size, step, row;
} NAME(array);

typedef struct NAME(arguments) {
    ptrdiff_t T, N, state; /* numbers of all hidden states */
    int threads;
    gru_options options;
    NAME(array) x, output, d_output, dx;
    REAL *h_0, *h_n, *d_h_n, *dh_0, **gradients;
    void *saved, *workspace;
    size_t saved_size, workspace_size;
} NAME(arguments);

static NAME(array) NAME(draw_array)(ptrdiff_t T, ptrdiff_t N, ptrdiff_t width, int in_order)
{
    NAME(array) a = {NULL, T * N * width, 0, 0};
    if (!in_order && T > 0 && N > 0 && one_in(2)) {
        ptrdiff_t gap = width + pick(4);
        a.row = one_in(2) ? gap : gap * T + pick(3);       /* time first, or rows first */
        a.step = a.row == gap ? gap * N + pick(3) : gap;
        a.size = (T - 1) * a.step + (N - 1) * a.row + width;
    }
    a.data = NAME(reals)(a.size);
    return a;
}

static void NAME(draw_dropout)(const NAME(subject) *s, NAME(arguments) *a)
{
    ptrdiff_t calls = s->L * s->D;
    const void **masks = block((size_t)(3 * calls) * sizeof *masks, sizeof *masks);
    for (ptrdiff_t i = 0; i < calls; i++) {
        ptrdiff_t inputs = i < s->D ? s->I : s->D * s->H;
        const void *output = NAME(reals)(a->T * a->N * s->D * s->H);
        masks[3 * i] = i + s->D < calls && one_in(2) ? output : NULL;
        if (i % s->D == 1) masks[3 * i] = masks[3 * i - 3];
        masks[3 * i + 1] = one_in(2) ? NAME(reals)(a->N * inputs) : NULL;
        masks[3 * i + 2] = one_in(2) ? NAME(reals)(a->N * s->H) : NULL;
    }
    a->options.dropout_masks = masks;
}

static void NAME(draw_gradients)(const NAME(subject) *s, NAME(arguments) *a)
{
    ptrdiff_t count = 4 * s->L * s->D, sizes[4] = {0, s->H, 1, 1};
    a->gradients = block((size_t)count * sizeof *a->gradients, sizeof *a->gradients);
    for (ptrdiff_t i = 0; i < count; i++) {
        sizes[0] = i < 4 * s->D ? s->I : s->D * s->H;
        a->gradients[i] = NAME(reals)(3 * s->H * sizes[i % 4]);
    }
}

static void NAME(draw)(const NAME(subject) *s, NAME(arguments) *a)
{
    int in_order = one_in(2);
    ptrdiff_t width = s->D * s->H;
    a->T = 1 + pick(one_in(8) ? 60 : 8);
    a->N = pick(one_in(8) ? 40 : 7);
    if (s->H >= LARGE) a->N += 20;
    a->threads = 1 + pick(3);
    a->state = s->L * s->D * a->N * s->H;
    zero_options(&a->options);
    a->x = NAME(draw_array)(a->T, a->N, s->I, in_order);
    a->output = NAME(draw_array)(a->T, a->N, width, in_order);
    a->d_output = NAME(draw_array)(a->T, a->N, width, in_order);
    a->dx = NAME(draw_array)(a->T, a->N, s->I, in_order);
    a->h_0 = NAME(reals)(a->state);
    a->h_n = NAME(reals)(a->state);
    a->d_h_n = NAME(reals)(a->state);
    a->dh_0 = one_in(4) ? a->d_h_n : NAME(reals)(a->state);
    draw_row_options(&a->options, a->T, a->N);
    a->options.x_step = a->x.step;
    a->options.x_row = a->x.row;
    a->options.output_step = a->output.step;
    a->options.output_row = a->output.row;
    a->options.d_output_step = a->d_output.step;
    a->options.d_output_row = a->d_output.row;
    a->options.dx_step = a->dx.step;
    a->options.dx_row = a->dx.row;
    if (one_in(3)) NAME(draw_dropout)(s, a);
    if (one_in(4) && a->x.step == 0 && a->options.mask == NULL && a->options.lengths == NULL &&
        a->options.dropout_masks == NULL)
        a->options.x_stays = 1;
    NAME(draw_gradients)(s, a);
}

static void NAME(make_workspace)(const NAME(subject) *s, NAME(arguments) *a, int pass)
{
    RIGHT(NAME(gru_workspace_size)(s->model, pass, a->T, a->N, a->threads, &a->options, &a->workspace_size));
    a->workspace = block(a->workspace_size, 1);
}

/* Where x does not count, other numbers: past the end of a row, and where a step is masked. */
static void NAME(spoil_x)(const NAME(subject) *s, const NAME(arguments) *a, REAL number)
{
    ptrdiff_t row = a->x.row ? a->x.row : s->I, step = a->x.step ? a->x.step : a->N * s->I;
    for (ptrdiff_t t = 0; t < a->T; t++)
        for (ptrdiff_t n = 0; n < a->N; n++) {
            int ended = a->options.lengths != NULL && t >= a->options.lengths[n];
            if (ended || (a->options.mask != NULL && !a->options.mask[t * a->N + n]))
                for (ptrdiff_t i = 0; i < s->I; i++) a->x.data[t * step + n * row + i] = number;
        }
}

static int NAME(call_forward)(const gru_model *model, const NAME(arguments) *a)
{
    return NAME(gru_forward)(model, a->T, a->N, a->x.data, a->h_0, a->output.data, a->h_n, a->workspace,
                             a->workspace_size, a->threads, &a->options);
}

static int NAME(call_training)(const gru_model *model, const NAME(arguments) *a)
{
    return NAME(gru_forward_training)(model, a->T, a->N, a->x.data, a->h_0, a->output.data, a->h_n, a->saved,
                                      a->saved_size, a->workspace, a->workspace_size, a->threads, &a->options);
}

static int NAME(call_backward)(const gru_model *model, const NAME(arguments) *a)
{
    return NAME(gru_backward)(model, a->T, a->N, a->d_output.data, a->d_h_n, a->dx.data, a->dh_0,
                              (REAL *const *)a->gradients, a->saved, a->saved_size, a->workspace,
                              a->workspace_size, a->threads, &a->options);
}

/* Some of what may be NULL is. */
static void NAME(leave_out)(NAME(arguments) *a)
{
    if (one_in(4)) a->h_0 = NULL;
    if (one_in(4)) a->h_n = a->h_0;
    if (one_in(6)) a->output.data = NULL;
    if (one_in(4)) a->d_output.data = NULL;
    if (one_in(4)) a->d_h_n = NULL;
    if (one_in(4)) a->dx.data = NULL;
    if (one_in(4)) a->dh_0 = NULL;
    if (one_in(4)) a->gradients = NULL;
}

/* One of the arguments of all three calls becomes a wrong one. */
static void NAME(spoil)(NAME(arguments) *a, const gru_model **model)
{
    static const unsigned char zeros[4096];
    switch (pick(9)) {
    case 0: a->T = -1 - pick(5); break;
    case 1: a->N = one_in(2) ? -1 - pick(5) : PTRDIFF_MAX / (1 + pick(20)); break;
    case 2: a->threads = -pick(5); break;
    case 3: a->workspace = NULL; break;
    case 4: a->workspace_size = (size_t)pick(64); break;
    case 5: spoil_options(&a->options, a->T, a->N); break;
    case 6: *model = NULL; break;
    case 7: *model = (const gru_model *)(const void *)zeros; break;
    default: a->T = a->N ? PTRDIFF_MAX - pick(1000) : -1;
    }
}

/* ---- forward, step */

static void NAME(fuzz_forward)(const NAME(subject) *s)
{
    NAME(arguments) a;
    size_t bytes;
    NAME(draw)(s, &a);
    NAME(make_workspace)(s, &a, GRU_INFERENCE);
    NAME(spoil_x)(s, &a, (REAL)NAN);
    RIGHT(NAME(call_forward)(s->model, &a));
    bytes = (size_t)a.output.size * sizeof(REAL);
    REAL *output = NAME(reals)(a.output.size), *h_n = NAME(reals)(a.state);
    memcpy(output, a.output.data, bytes);
    memcpy(h_n, a.h_n, (size_t)a.state * sizeof(REAL));
    memcpy(a.h_n, a.h_0, (size_t)a.state * sizeof(REAL));
    a.h_0 = a.h_n;                                         /* in place */
    a.threads = 1 + pick(a.threads);
    if (one_in(2)) NAME(make_workspace)(s, &a, GRU_INFERENCE); /* that of more threads is enough */
    NAME(spoil_x)(s, &a, (REAL)1e30);
    RIGHT(NAME(call_forward)(s->model, &a));
    REQUIRE(NAME(same)(output, a.output.data, a.output.size));
    REQUIRE(NAME(same)(h_n, a.h_n, a.state));
    NAME(leave_out)(&a);
    RIGHT(NAME(call_forward)(s->model, &a));
}

static void NAME(fuzz_wrong_forward)(const NAME(subject) *s)
{
    NAME(arguments) a;
    const gru_model *model = s->model;
    NAME(draw)(s, &a);
    NAME(make_workspace)(s, &a, GRU_INFERENCE);
    size_t bytes = (size_t)a.output.size * sizeof(REAL);
    REAL *output = NAME(reals)(a.output.size);
    memcpy(output, a.output.data, bytes);
    NAME(spoil)(&a, &model);
    WRONG(NAME(call_forward)(model, &a));
    REQUIRE(memcmp(output, a.output.data, bytes) == 0);
}

static void NAME(fuzz_step)(const NAME(subject) *s)
{
    ptrdiff_t N = pick(one_in(6) ? 40 : 5), count = s->L * s->D * N * s->H;
    int threads = 1 + pick(2);
    size_t size;
    REAL *x = NAME(reals)(N * s->I), *h = NAME(reals)(count), *next = one_in(2) ? h : NAME(reals)(count);
    RIGHT(NAME(gru_workspace_size)(s->model, GRU_INFERENCE, 1, N, threads, NULL, &size));
    void *workspace = block(size, 1);
    RIGHT(NAME(gru_step)(s->model, N, x, one_in(4) ? NULL : h, next, workspace, size, threads, NULL));
    WRONG(NAME(gru_step)(s->model, N, x, h, NULL, workspace, size, threads, NULL));
    size_t less = (size_t)pick((ptrdiff_t)size);
    int status = NAME(gru_step)(s->model, N, x, h, next, block(less, 1), less, threads, NULL);
    REQUIRE(status == GRU_OK || status == GRU_MEMORY_TOO_SMALL);
    WRONG(OTHER(gru_step)(s->model, N, (const OTHER_REAL *)(const void *)s, NULL, (OTHER_REAL *)workspace,
                          workspace, size, 1, NULL));
}

/* ---- training: what a forward saved, until its backward */

static void NAME(train)(const NAME(subject) *s, NAME(arguments) *a)
{
    NAME(draw)(s, a);
    RIGHT(NAME(gru_saved_size)(s->model, a->T, a->N, &a->options, &a->saved_size));
    a->saved = block(a->saved_size, 1);
    NAME(make_workspace)(s, a, GRU_TRAINING);
    NAME(spoil_x)(s, a, (REAL)NAN);
    if (one_in(4)) {
        NAME(arguments) wrong = *a;
        const gru_model *model = s->model;
        if (one_in(3))
            wrong.saved_size -= 1 + (size_t)pick((ptrdiff_t)a->saved_size);
        else
            NAME(spoil)(&wrong, &model);
        WRONG(NAME(call_training)(model, &wrong));
        WRONG(NAME(call_backward)(s->model, a));           /* nothing is saved yet */
    }
    if (one_in(4)) a->h_0 = NULL;
    if (one_in(4)) a->output.data = NULL;
    RIGHT(NAME(call_training)(s->model, a));
}

static void NAME(undo)(const NAME(subject) *s, NAME(arguments) *a)
{
    const gru_model *model = s->model;
    NAME(make_workspace)(s, a, GRU_BACKWARD);
    if (one_in(2)) {
        NAME(arguments) wrong = *a;
        switch (pick(4)) {
        case 0: wrong.saved_size = (size_t)pick(64); break;
        case 1: wrong.saved = NULL; break;
        case 2: wrong.T -= 1; break; /* 0, or another number */
        default: NAME(spoil)(&wrong, &model);
        }
        if (wrong.options.lengths != a->options.lengths) wrong.threads = 0; /* it has those of `saved` */
        WRONG(NAME(call_backward)(model, &wrong));
    }
    NAME(leave_out)(a);
    RIGHT(NAME(call_backward)(s->model, a));
    if (a->options.keep_saved) {
        a->options.keep_saved = 0;
        RIGHT(NAME(call_backward)(s->model, a));
    }
    WRONG(NAME(call_backward)(s->model, a));
}

static void NAME(fuzz_training)(const NAME(subject) *s)
{
    NAME(arguments) calls[MAX_SAVED];
    int count = 1 + pick(MAX_SAVED);
    if (!s->options.training) {
        NAME(draw)(s, &calls[0]);
        calls[0].saved = calls[0].workspace = block(64, 1);
        calls[0].saved_size = calls[0].workspace_size = 64;
        WRONG(NAME(call_training)(s->model, &calls[0]));
        WRONG(NAME(call_backward)(s->model, &calls[0]));
        return;
    }
    for (int i = 0; i < count; i++) NAME(train)(s, &calls[i]);
    for (int i = 0; i < count; i++) NAME(undo)(s, &calls[i]);
}

/* ---- streams */

typedef struct NAME(flow) {
    gru_stream *stream;
    ptrdiff_t N, x_step, x_row, output_step, output_row;
    int allocated;
} NAME(flow);

static void NAME(open)(const NAME(subject) *s, NAME(flow) *f)
{
    ptrdiff_t max_steps = 1 + pick(12);
    int threads = 1 + pick(2);
    gru_options options;
    size_t size;
    zero_options(&options);
    f->N = 1 + pick(one_in(6) ? 40 : 4);
    f->allocated = one_in(2);
    f->x_row = f->x_step = f->output_row = f->output_step = 0;
    if (one_in(2)) {
        f->x_row = options.x_row = s->I + pick(3);
        f->x_step = options.x_step = f->x_row * f->N + pick(3);
        f->output_row = options.output_row = s->H + pick(3);
        f->output_step = options.output_step = f->output_row * f->N + pick(3);
    }
    if (f->allocated) {
        RIGHT(NAME(gru_stream_new)(s->model, f->N, max_steps, threads, &options, &f->stream));
        return;
    }
    RIGHT(NAME(gru_stream_size)(s->model, f->N, max_steps, threads, &options, &size));
    void *memory = block(size, 1);
    WRONG(NAME(gru_stream_init)(memory, (size_t)pick((ptrdiff_t)size), s->model, f->N, max_steps, threads, &options,
                                &f->stream));
    RIGHT(NAME(gru_stream_init)(memory, size, s->model, f->N, max_steps, threads, &options, &f->stream));
    WRONG(gru_stream_free(f->stream));
}

static ptrdiff_t NAME(extent)(ptrdiff_t T, ptrdiff_t N, ptrdiff_t width, ptrdiff_t step, ptrdiff_t row)
{
    if (T == 0 || N == 0) return 0;
    return row ? (T - 1) * step + (N - 1) * row + width : T * N * width;
}

/* Steps at once, and one by one from the same state: the same bits. */
static void NAME(flow_on)(const NAME(subject) *s, NAME(flow) *f)
{
    ptrdiff_t T = pick(30), x_step = f->x_step ? f->x_step : f->N * s->I;
    ptrdiff_t output_step = f->output_step ? f->output_step : f->N * s->H, state = s->L * f->N * s->H;
    ptrdiff_t outputs = NAME(extent)(T, f->N, s->H, f->output_step, f->output_row);
    REAL *x = NAME(reals)(NAME(extent)(T, f->N, s->I, f->x_step, f->x_row));
    REAL *output = NAME(reals)(outputs), *again = NAME(reals)(outputs);
    REAL *h = NAME(reals)(state), *end = NAME(reals)(state);
    memcpy(again, output, (size_t)outputs * sizeof(REAL));
    RIGHT(NAME(gru_stream_get_state)(f->stream, h));
    RIGHT(NAME(gru_stream_run)(f->stream, T, x, output));
    RIGHT(NAME(gru_stream_get_state)(f->stream, end));
    RIGHT(NAME(gru_stream_set_state)(f->stream, h));
    for (ptrdiff_t t = 0; t < T; t++)
        RIGHT(NAME(gru_stream_step)(f->stream, x + t * x_step, again + t * output_step));
    RIGHT(NAME(gru_stream_get_state)(f->stream, h));
    REQUIRE(NAME(same)(output, again, outputs));
    REQUIRE(NAME(same)(h, end, state));
    RIGHT(NAME(gru_stream_run)(f->stream, T, x, NULL));
    WRONG(NAME(gru_stream_run)(f->stream, -1 - pick(5), x, output));
    WRONG(NAME(gru_stream_step)(f->stream, NULL, output));
    WRONG(NAME(gru_stream_step)(NULL, x, output));
    WRONG(OTHER(gru_stream_run)(f->stream, T, (const OTHER_REAL *)(const void *)s, NULL));
}

static void NAME(move_rows)(NAME(flow) *f)
{
    unsigned char *rows = block((size_t)f->N, 1);
    ptrdiff_t *source = block((size_t)f->N * sizeof *source, sizeof *source);
    for (ptrdiff_t i = 0; i < f->N; i++) {
        rows[i] = (unsigned char)pick(2);
        source[i] = pick((ptrdiff_t)f->N);
    }
    RIGHT(NAME(gru_stream_copy_rows)(f->stream, source));
    RIGHT(NAME(gru_stream_reset)(f->stream, one_in(4) ? NULL : rows));
    source[pick((ptrdiff_t)f->N)] = one_in(2) ? f->N : -1;
    WRONG(NAME(gru_stream_copy_rows)(f->stream, source));
}

static void NAME(fuzz_streams)(const NAME(subject) *s)
{
    NAME(flow) flows[MAX_STREAMS];
    int count = 1 + pick(MAX_STREAMS);
    if (s->D == 2 || s->options.reverse) {
        WRONG(NAME(gru_stream_new)(s->model, 1, 1, 1, NULL, &flows[0].stream));
        return;
    }
    for (int i = 0; i < count; i++) NAME(open)(s, &flows[i]);
    for (int i = 0; i < 8; i++) {
        if (one_in(3))
            NAME(move_rows)(&flows[pick(count)]);
        else
            NAME(flow_on)(s, &flows[pick(count)]);
    }
    for (int i = 0; i < count; i++)
        if (flows[i].allocated) RIGHT(gru_stream_free(flows[i].stream));
}

/* ---- sizes and options of any value: a status, or a size that is enough */

static void NAME(fuzz_sizes)(const NAME(subject) *s)
{
    gru_options options = s->options;
    gru_model *model = NULL;
    size_t size = 12345;
    ptrdiff_t I = wild(), H = wild();
    if (one_in(2)) options.num_layers = wild();
    if (one_in(4)) options.activation = (int)wild();
    if (one_in(4)) options.recurrent_activation = (int)wild();
    if (one_in(4)) options.struct_size = (size_t)wild();
    if (one_in(4)) options.clip = one_in(2) ? NAN : -uniform();
    if (one_in(4)) options.weights = one_in(2) ? pick(4) : (int)wild();
    if (one_in(4)) options.x_bits = one_in(2) ? 4 * pick(4) : (int)wild();
    if (NAME(gru_model_size)(I, H, &options, &size) != GRU_OK) {
        REQUIRE(size == 12345);
        WRONG(NAME(gru_model_new)(I, H, &options, &model));
        REQUIRE(model == NULL);
    } else if (size < 1 << 20) {
        RIGHT(NAME(gru_model_new)(I, H, &options, &model));
        RIGHT(gru_model_free(model));
    }
    size = 12345;
    if (NAME(gru_workspace_size)(s->model, (int)wild(), wild(), wild(), (int)wild(), NULL, &size) != GRU_OK)
        REQUIRE(size == 12345);
    size = 12345;
    if (NAME(gru_saved_size)(s->model, wild(), wild(), NULL, &size) != GRU_OK) REQUIRE(size == 12345);
    size = 12345;
    if (NAME(gru_stream_size)(s->model, wild(), wild(), (int)wild(), NULL, &size) != GRU_OK)
        REQUIRE(size == 12345);
}

static void NAME(fuzz)(void)
{
    NAME(subject) s;
    NAME(make)(&s);
    for (int i = 0; i < 6; i++) switch (pick(6)) {
        case 0: NAME(fuzz_forward)(&s); break;
        case 1: NAME(fuzz_wrong_forward)(&s); break;
        case 2: NAME(fuzz_step)(&s); break;
        case 3: NAME(fuzz_training)(&s); break;
        case 4: NAME(fuzz_streams)(&s); break;
        default: NAME(fuzz_sizes)(&s);
        }
    if (s.allocated)
        RIGHT(gru_model_free(s.model));
    else
        WRONG(gru_model_free(s.model));
}
