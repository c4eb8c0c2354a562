/* Wrong arguments: each call below is refused with the status that stands beside it, and has written
 * nothing. Compiled once for float, once with -DDOUBLE. Prints each call that is not so.
 */
#include <math.h>

#include "check.h"

#ifdef DOUBLE
#define REAL double
#define OTHER_REAL float
#define NAME(name) name##_f64
#define OTHER(name) name##_f32
#else
#define REAL float
#define OTHER_REAL double
#define NAME(name) name##_f32
#define OTHER(name) name##_f64
#endif

enum { I = 3, H = 5, L = 2, T = 4, N = 2, ROOM = 1 << 16 };

/* All that a call may write to; its bytes are compared after each refusal. */
static struct {
    REAL output[T * N * 2 * H], h_n[2 * L * N * H], dx[T * N * I], dh_0[2 * L * N * H];
    REAL w_ih[3 * H * 2 * H], w_hh[3 * H * H], b_ih[3 * H], b_hh[3 * H];
    size_t size;
    gru_model *model;
    gru_stream *stream;
    unsigned char saved[ROOM], workspace[ROOM], memory[ROOM];
} out, before;

/* What a call reads. */
static REAL x[T * N * I], h[2 * L * N * H], weights[3 * H * 2 * H];
static OTHER_REAL other_x[T * N * I];
static const ptrdiff_t huge = PTRDIFF_MAX / 4;
static int wrong;

static void compare(int status, int wanted, const char *call, int line)
{
    if (status != wanted) {
        printf("wrong.c:%d: status %d (%s), not %d: %s\n", line, status, gru_status_text(status), wanted, call);
        wrong++;
    }
    if (memcmp(&out, &before, sizeof out) != 0) {
        printf("wrong.c:%d: it has written: %s\n", line, call);
        memcpy(&out, &before, sizeof out);
        wrong++;
    }
}
#define REFUSED(status, call) compare(call, status, #call, __LINE__)

static gru_options defaults(void)
{
    gru_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.num_layers = L;
    return options;
}

/* A model with weights, in memory from malloc. */
static gru_model *packed(const gru_options *options)
{
    gru_model *model;
    ptrdiff_t shape[5];
    CHECK(NAME(gru_model_new)(I, H, options, &model));
    CHECK(gru_model_shape(model, shape));
    for (ptrdiff_t i = 0; i < shape[2] * shape[3]; i++)
        CHECK(NAME(gru_model_pack)(model, i, weights, weights, weights, weights));
    return model;
}

static void refuse_model_options(void)
{
    gru_options o = defaults();
    size_t sizes[] = {0, 1, sizeof(size_t), sizeof o - 1, sizeof o + 1, sizeof o + 64, (size_t)-1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        o.struct_size = sizes[i];
        REFUSED(GRU_BAD_OPTIONS_SIZE, NAME(gru_model_size)(I, H, &o, &out.size));
        REFUSED(GRU_BAD_OPTIONS_SIZE, NAME(gru_model_new)(I, H, &o, &out.model));
        REFUSED(GRU_BAD_OPTIONS_SIZE, NAME(gru_model_init)(out.memory, ROOM, I, H, &o, &out.model));
    }
#define BAD(status, member, value)                                             \
    o = defaults();                                                            \
    o.member = value;                                                          \
    REFUSED(status, NAME(gru_model_size)(I, H, &o, &out.size));                \
    REFUSED(status, NAME(gru_model_new)(I, H, &o, &out.model));                \
    REFUSED(status, NAME(gru_model_init)(out.memory, ROOM, I, H, &o, &out.model))
    BAD(GRU_BAD_SIZE, num_layers, -1);
    BAD(GRU_BAD_SIZE, num_layers, huge);
    BAD(GRU_BAD_OPTION, activation, -1);
    BAD(GRU_BAD_OPTION, activation, GRU_ACTIVATION_ELU + 1);
    BAD(GRU_BAD_OPTION, recurrent_activation, 1000);
    BAD(GRU_BAD_OPTION, clip, -1.0);
    BAD(GRU_BAD_OPTION, clip, NAN);
    BAD(GRU_BAD_OPTION, bidirectional, 1; o.reverse = 1);
    BAD(GRU_BAD_OPTION, activation, GRU_ACTIVATION_ELU; o.activation_alpha = -1.0);
    BAD(GRU_BAD_OPTION, recurrent_activation, GRU_ACTIVATION_LEAKY_RELU; o.recurrent_activation_alpha = -0.1);
    BAD(GRU_BAD_OPTION, weights, -1);
    BAD(GRU_BAD_OPTION, weights, GRU_WEIGHTS_INT8 + 1);
    BAD(GRU_BAD_OPTION, weights, GRU_WEIGHTS_INT8; o.x_bits = -1);
    BAD(GRU_BAD_OPTION, weights, GRU_WEIGHTS_INT8; o.x_bits = 9);
    BAD(GRU_BAD_OPTION, weights, GRU_WEIGHTS_INT8; o.x_bits = 16);
    BAD(GRU_BAD_OPTION, weights, GRU_WEIGHTS_INT8; o.training = 1);
    BAD(GRU_BAD_OPTION, weights, GRU_WEIGHTS_BFLOAT16; o.training = 1);
    BAD(GRU_BAD_OPTION, weights, GRU_WEIGHTS_BFLOAT16; o.x_bits = 8);
    BAD(GRU_BAD_OPTION, weights, GRU_WEIGHTS_BFLOAT16; o.x_bits = 16; o.training = 1);
    BAD(GRU_BAD_OPTION, x_bits, 8);
    BAD(GRU_BAD_OPTION, x_bits, 12);
    BAD(GRU_BAD_OPTION, x_bits, 16);
#ifdef DOUBLE
    BAD(GRU_BAD_OPTION, weights, GRU_WEIGHTS_INT8);
    BAD(GRU_BAD_OPTION, weights, GRU_WEIGHTS_BFLOAT16);
#endif
}

#ifndef DOUBLE
/* Sums of int8 over so many inputs or units are exact in 32 bits, and over one more are not. */
static void refuse_sums_that_overflow(void)
{
    static const ptrdiff_t most = INT32_MAX / (127 * 127), most_12_bits = INT32_MAX / (127 * 2047);
    gru_options o = defaults();
    size_t size;
    o.weights = GRU_WEIGHTS_INT8;
    o.num_layers = 1;
    CHECK(gru_model_size_f32(most, 1, &o, &size));
    CHECK(gru_model_size_f32(1, most, &o, &size));
    REFUSED(GRU_BAD_SIZE, gru_model_size_f32(most + 1, 1, &o, &out.size));
    REFUSED(GRU_BAD_SIZE, gru_model_size_f32(1, most + 1, &o, &out.size));
    o.x_bits = 12;
    CHECK(gru_model_size_f32(most_12_bits, most, &o, &size));
    REFUSED(GRU_BAD_SIZE, gru_model_size_f32(most_12_bits + 1, 1, &o, &out.size));
    REFUSED(GRU_BAD_SIZE, gru_model_size_f32(1, most + 1, &o, &out.size));
    o.num_layers = L;                                      /* x of the second is h, and twice as wide */
    o.bidirectional = 1;
    CHECK(gru_model_size_f32(1, most_12_bits / 2, &o, &size));
    REFUSED(GRU_BAD_SIZE, gru_model_size_f32(1, most_12_bits / 2 + 1, &o, &out.size));
    o.weights = GRU_WEIGHTS_BFLOAT16;
    for (o.x_bits = 0; o.x_bits <= 16; o.x_bits += 16) CHECK(gru_model_size_f32(2 * most, 1, &o, &size));
}

static void refuse_to_train_with_fewer_bits(void)
{
    gru_options o = defaults(), zero = defaults();
    for (o.weights = GRU_WEIGHTS_BFLOAT16; o.weights <= GRU_WEIGHTS_INT8; o.weights++) {
        gru_model *model = packed(&o);
        REFUSED(GRU_NO_TRAINING, gru_saved_size_f32(model, T, N, &zero, &out.size));
        REFUSED(GRU_NO_TRAINING, gru_workspace_size_f32(model, GRU_BACKWARD, T, N, 1, &zero, &out.size));
        REFUSED(GRU_NO_TRAINING,
                gru_forward_training_f32(model, T, N, x, h, out.output, out.h_n, out.saved, ROOM, out.workspace,
                                         ROOM, 1, &zero));
        REFUSED(GRU_NO_TRAINING,
                gru_backward_f32(model, T, N, x, h, out.dx, out.dh_0, NULL, out.saved, ROOM, out.workspace, ROOM,
                                 1, &zero));
        CHECK(gru_model_free(model));
    }
}
#endif

static void refuse_models(void)
{
    gru_options o = defaults();
    gru_model *model;
    size_t size;
    REFUSED(GRU_NULL_POINTER, NAME(gru_model_size)(I, H, &o, NULL));
    REFUSED(GRU_BAD_SIZE, NAME(gru_model_size)(-1, H, &o, &out.size));
    REFUSED(GRU_BAD_SIZE, NAME(gru_model_size)(I, 0, &o, &out.size));
    REFUSED(GRU_BAD_SIZE, NAME(gru_model_size)(I, -H, &o, &out.size));
    REFUSED(GRU_BAD_SIZE, NAME(gru_model_size)(huge, H, &o, &out.size));
    REFUSED(GRU_BAD_SIZE, NAME(gru_model_size)(I, huge, &o, &out.size));
    CHECK(NAME(gru_model_size)(I, H, &o, &size));
    REQUIRE(size <= ROOM);
    REFUSED(GRU_NULL_POINTER, NAME(gru_model_init)(NULL, size, I, H, &o, &out.model));
    REFUSED(GRU_NULL_POINTER, NAME(gru_model_init)(out.memory, size, I, H, &o, NULL));
    REFUSED(GRU_MEMORY_TOO_SMALL, NAME(gru_model_init)(out.memory, size - 1, I, H, &o, &out.model));
    REFUSED(GRU_MEMORY_TOO_SMALL, NAME(gru_model_init)(out.memory, 0, I, H, &o, &out.model));
    REFUSED(GRU_NULL_POINTER, NAME(gru_model_new)(I, H, &o, NULL));
    REFUSED(GRU_BAD_SIZE, NAME(gru_model_new)(I, 0, &o, &out.model));
    REFUSED(GRU_OUT_OF_MEMORY, NAME(gru_model_new)(I, 1 << 22, &o, &out.model)); /* 211 TB or more */
    REFUSED(GRU_NULL_POINTER, gru_model_shape(NULL, (ptrdiff_t *)out.memory));
    CHECK(NAME(gru_model_init)(out.memory, size, I, H, &o, &model));
    memcpy(&before, &out, sizeof out);
    REFUSED(GRU_NULL_POINTER, gru_model_shape(model, NULL));
    REFUSED(GRU_NOT_A_MODEL, gru_model_free(model));
    CHECK(gru_model_free(NULL));
    CHECK(gru_stream_free(NULL));
}

static void refuse_packing(void)
{
    gru_options o = defaults();
    gru_model *model;
    const REAL *w = weights, *odd = (const REAL *)((const char *)weights + 1);
    size_t size;
    CHECK(NAME(gru_model_size)(I, H, &o, &size));
    CHECK(NAME(gru_model_init)(out.memory, size, I, H, &o, &model));
    memcpy(&before, &out, sizeof out);
    REFUSED(GRU_NULL_POINTER, NAME(gru_model_pack)(NULL, 0, w, w, w, w));
    REFUSED(GRU_BAD_SIZE, NAME(gru_model_pack)(model, -1, w, w, w, w));
    REFUSED(GRU_BAD_SIZE, NAME(gru_model_pack)(model, L, w, w, w, w));
    REFUSED(GRU_NULL_POINTER, NAME(gru_model_pack)(model, 0, NULL, w, w, w));
    REFUSED(GRU_NULL_POINTER, NAME(gru_model_pack)(model, 0, w, NULL, w, w));
    REFUSED(GRU_NULL_POINTER, NAME(gru_model_pack)(model, 0, w, w, NULL, w));
    REFUSED(GRU_NULL_POINTER, NAME(gru_model_pack)(model, 0, w, w, w, NULL));
    REFUSED(GRU_MISALIGNED, NAME(gru_model_pack)(model, 0, odd, w, w, w));
    REFUSED(GRU_MISALIGNED, NAME(gru_model_pack)(model, 0, w, odd, w, w));
    REFUSED(GRU_MISALIGNED, NAME(gru_model_pack)(model, 0, w, w, w, odd));
    REFUSED(GRU_OTHER_DTYPE, OTHER(gru_model_pack)(model, 0, other_x, other_x, other_x, other_x));
    CHECK(NAME(gru_model_pack)(model, 1, w, w, NULL, NULL));
    memcpy(&before, &out, sizeof out);
    REFUSED(GRU_ALREADY_PACKED, NAME(gru_model_pack)(model, 1, w, w, w, w));
    REFUSED(GRU_NOT_PACKED, NAME(gru_step)(model, N, x, h, out.h_n, out.workspace, ROOM, 1, &o));
    REFUSED(GRU_NOT_PACKED, NAME(gru_forward)(model, T, N, x, h, out.output, out.h_n, out.workspace, ROOM, 1, &o));
    REFUSED(GRU_NOT_PACKED, NAME(gru_stream_init)(out.saved, ROOM, model, N, T, 1, &o, &out.stream));
    REFUSED(GRU_NOT_PACKED, NAME(gru_stream_new)(model, N, T, 1, &o, &out.stream));
    CHECK(NAME(gru_model_pack)(model, 0, w, w, w, w));
    memcpy(&before, &out, sizeof out);
    REFUSED(GRU_ALREADY_PACKED, NAME(gru_model_pack)(model, 0, w, w, w, w));
}

/* All functions that take a model, with one that is none. */
static void refuse_this_model(gru_model *model, int status)
{
    gru_options o = defaults();
    ptrdiff_t *shape = (ptrdiff_t *)out.memory;
    REFUSED(status, gru_model_shape(model, shape));
    REFUSED(status, NAME(gru_model_pack)(model, 0, weights, weights, weights, weights));
    REFUSED(status, NAME(gru_workspace_size)(model, GRU_INFERENCE, T, N, 1, &o, &out.size));
    REFUSED(status, NAME(gru_saved_size)(model, T, N, &o, &out.size));
    REFUSED(status, NAME(gru_step)(model, N, x, h, out.h_n, out.workspace, ROOM, 1, &o));
    REFUSED(status, NAME(gru_forward)(model, T, N, x, h, out.output, out.h_n, out.workspace, ROOM, 1, &o));
    REFUSED(status, NAME(gru_forward_training)(model, T, N, x, h, out.output, out.h_n, out.saved, ROOM,
                                               out.workspace, ROOM, 1, &o));
    REFUSED(status, NAME(gru_backward)(model, T, N, x, h, out.dx, out.dh_0, NULL, out.saved, ROOM,
                                       out.workspace, ROOM, 1, &o));
    REFUSED(status, NAME(gru_stream_size)(model, N, T, 1, &o, &out.size));
    REFUSED(status, NAME(gru_stream_init)(out.memory, ROOM, model, N, T, 1, &o, &out.stream));
    REFUSED(status, NAME(gru_stream_new)(model, N, T, 1, &o, &out.stream));
}

/* Models that are NULL, zeros, a stream, or of another version of the layout. */
static void refuse_what_is_no_model(void)
{
    static ptrdiff_t zeros[1024];
    gru_options o = defaults();
    gru_model *model = packed(&o);
    gru_stream *stream;
    CHECK(NAME(gru_stream_new)(model, N, T, 1, &o, &stream));
    refuse_this_model(NULL, GRU_NULL_POINTER);
    refuse_this_model((gru_model *)zeros, GRU_NOT_A_MODEL);
    refuse_this_model((gru_model *)stream, GRU_NOT_A_MODEL);
    REFUSED(GRU_NOT_A_MODEL, gru_model_free((gru_model *)zeros));
    REFUSED(GRU_NOT_A_MODEL, gru_model_free((gru_model *)stream));
    for (int i = 0; i < 4; i++) {                          /* the tag */
        ((unsigned char *)model)[i] ^= 1;
        refuse_this_model(model, GRU_NOT_A_MODEL);
        REFUSED(GRU_NOT_A_STREAM, NAME(gru_stream_step)((gru_stream *)model, x, out.output));
        REFUSED(GRU_NOT_A_MODEL, gru_model_free(model));
        ((unsigned char *)model)[i] ^= 1;
    }
    CHECK(gru_stream_free(stream));
    CHECK(gru_model_free(model));
}

static void refuse_another_dtype(void)
{
    gru_options o = defaults();
    gru_model *model = packed(&o);
    gru_stream *stream;
    OTHER_REAL *others = (OTHER_REAL *)out.memory;
    CHECK(NAME(gru_stream_new)(model, N, T, 1, &o, &stream));
    REFUSED(GRU_OTHER_DTYPE, OTHER(gru_workspace_size)(model, GRU_INFERENCE, T, N, 1, &o, &out.size));
    REFUSED(GRU_OTHER_DTYPE, OTHER(gru_step)(model, N, other_x, NULL, others, out.workspace, ROOM, 1, &o));
    REFUSED(GRU_OTHER_DTYPE, OTHER(gru_forward)(model, T, N, other_x, NULL, others, NULL, out.workspace, ROOM, 1, &o));
    REFUSED(GRU_OTHER_DTYPE, OTHER(gru_stream_size)(model, N, T, 1, &o, &out.size));
    REFUSED(GRU_OTHER_DTYPE, OTHER(gru_stream_new)(model, N, T, 1, &o, &out.stream));
    REFUSED(GRU_OTHER_DTYPE, OTHER(gru_stream_step)(stream, other_x, others));
    REFUSED(GRU_OTHER_DTYPE, OTHER(gru_stream_run)(stream, T, other_x, others));
    REFUSED(GRU_OTHER_DTYPE, OTHER(gru_stream_reset)(stream, NULL));
    REFUSED(GRU_OTHER_DTYPE, OTHER(gru_stream_get_state)(stream, others));
    REFUSED(GRU_OTHER_DTYPE, OTHER(gru_stream_set_state)(stream, others));
    CHECK(gru_stream_free(stream));
    CHECK(gru_model_free(model));
}

static void refuse_sizes(void)
{
    gru_options o = defaults(), small = defaults();
    small.struct_size = 12;
    o.training = 1;
    gru_model *model = packed(&o);
#define SIZE(pass, steps, rows, threads, options) \
    NAME(gru_workspace_size)(model, pass, steps, rows, threads, options, &out.size)
    REFUSED(GRU_NULL_POINTER, NAME(gru_workspace_size)(model, GRU_INFERENCE, T, N, 1, &o, NULL));
    REFUSED(GRU_BAD_OPTION, SIZE(-1, T, N, 1, &o));
    REFUSED(GRU_BAD_OPTION, SIZE(GRU_BACKWARD + 1, T, N, 1, &o));
    REFUSED(GRU_BAD_SIZE, SIZE(GRU_INFERENCE, -1, N, 1, &o));
    REFUSED(GRU_BAD_SIZE, SIZE(GRU_INFERENCE, T, -1, 1, &o));
    REFUSED(GRU_BAD_SIZE, SIZE(GRU_INFERENCE, huge, N, 1, &o));
    REFUSED(GRU_BAD_SIZE, SIZE(GRU_INFERENCE, T, huge, 1, &o));
    REFUSED(GRU_BAD_SIZE, SIZE(GRU_TRAINING, huge, huge, 1, &o));
    REFUSED(GRU_BAD_THREADS, SIZE(GRU_INFERENCE, T, N, 0, &o));
    REFUSED(GRU_BAD_THREADS, SIZE(GRU_INFERENCE, T, N, -1, &o));
    REFUSED(GRU_BAD_OPTIONS_SIZE, SIZE(GRU_INFERENCE, T, N, 1, &small));
    REFUSED(GRU_NULL_POINTER, NAME(gru_saved_size)(model, T, N, &o, NULL));
    REFUSED(GRU_BAD_SIZE, NAME(gru_saved_size)(model, -1, N, &o, &out.size));
    REFUSED(GRU_BAD_SIZE, NAME(gru_saved_size)(model, huge, N, &o, &out.size));
    REFUSED(GRU_BAD_SIZE, NAME(gru_stream_size)(model, -1, T, 1, &o, &out.size));
    REFUSED(GRU_BAD_SIZE, NAME(gru_stream_size)(model, N, -1, 1, &o, &out.size));
    REFUSED(GRU_BAD_THREADS, NAME(gru_stream_size)(model, N, T, 0, &o, &out.size));
    REFUSED(GRU_NULL_POINTER, NAME(gru_stream_size)(model, N, T, 1, &o, NULL));
    CHECK(gru_model_free(model));
}

static void refuse_forwards(const gru_model *model)
{
    gru_options o = defaults();
    const REAL *odd = (const REAL *)((const char *)x + 1);
    REAL *odd_out = (REAL *)((char *)out.output + 1);
    ptrdiff_t lengths[N] = {T, T + 1};
#define FORWARD(steps, rows, x, output, workspace, size, threads) \
    NAME(gru_forward)(model, steps, rows, x, h, output, out.h_n, workspace, size, threads, &o)
    REFUSED(GRU_NULL_POINTER, FORWARD(T, N, NULL, out.output, out.workspace, ROOM, 1));
    REFUSED(GRU_NULL_POINTER, FORWARD(T, N, x, out.output, NULL, ROOM, 1));
    REFUSED(GRU_BAD_SIZE, FORWARD(-1, N, x, out.output, out.workspace, ROOM, 1));
    REFUSED(GRU_BAD_SIZE, FORWARD(T, -1, x, out.output, out.workspace, ROOM, 1));
    REFUSED(GRU_BAD_SIZE, FORWARD(huge, huge, x, out.output, out.workspace, ROOM, 1));
    REFUSED(GRU_MEMORY_TOO_SMALL, FORWARD(T, N, x, out.output, out.workspace, 256, 2));
    REFUSED(GRU_MEMORY_TOO_SMALL, FORWARD(T, N, x, out.output, out.workspace, 0, 1));
    REFUSED(GRU_BAD_THREADS, FORWARD(T, N, x, out.output, out.workspace, ROOM, 0));
    REFUSED(GRU_BAD_THREADS, FORWARD(T, N, x, out.output, out.workspace, ROOM, -3));
    REFUSED(GRU_MISALIGNED, FORWARD(T, N, odd, out.output, out.workspace, ROOM, 1));
    REFUSED(GRU_MISALIGNED, FORWARD(T, N, x, odd_out, out.workspace, ROOM, 1));
    o.lengths = lengths;
    REFUSED(GRU_BAD_LENGTHS, FORWARD(T, N, x, out.output, out.workspace, ROOM, 1));
    lengths[1] = -1;
    REFUSED(GRU_BAD_LENGTHS, FORWARD(T, N, x, out.output, out.workspace, ROOM, 1));
    o.lengths = NULL;
    o.struct_size -= sizeof(int);
    REFUSED(GRU_BAD_OPTIONS_SIZE, FORWARD(T, N, x, out.output, out.workspace, ROOM, 1));
#define STEP(rows, x, h_next, workspace, size, threads) \
    NAME(gru_step)(model, rows, x, h, h_next, workspace, size, threads, NULL)
    REFUSED(GRU_NULL_POINTER, STEP(N, NULL, out.h_n, out.workspace, ROOM, 1));
    REFUSED(GRU_NULL_POINTER, STEP(N, x, NULL, out.workspace, ROOM, 1));
    REFUSED(GRU_NULL_POINTER, STEP(N, x, out.h_n, NULL, ROOM, 1));
    REFUSED(GRU_BAD_SIZE, STEP(-1, x, out.h_n, out.workspace, ROOM, 1));
    REFUSED(GRU_MEMORY_TOO_SMALL, STEP(N, x, out.h_n, out.workspace, 256, 1));
    REFUSED(GRU_BAD_THREADS, STEP(N, x, out.h_n, out.workspace, ROOM, 0));
    REFUSED(GRU_MISALIGNED, STEP(N, odd, out.h_n, out.workspace, ROOM, 1));
}

#define TRAIN(model, saved, saved_size, size)                                                            \
    NAME(gru_forward_training)(model, T, N, x, h, out.output, out.h_n, saved, saved_size, out.workspace, \
                               size, 1, &o)
#define BACK(model, steps, rows, gradients, saved, saved_size, size)                             \
    NAME(gru_backward)(model, steps, rows, x, h, out.dx, out.dh_0, gradients, saved, saved_size, \
                       out.workspace, size, 1, &o)

static void refuse_forward_training(const gru_model *model, const gru_model *plain)
{
    static const unsigned char mask[T * N] = {1};
    gru_options o = defaults();
    size_t saved_size, size;
    CHECK(NAME(gru_saved_size)(model, T, N, &o, &saved_size));
    CHECK(NAME(gru_workspace_size)(model, GRU_TRAINING, T, N, 1, &o, &size));
    REQUIRE(saved_size <= ROOM && size <= ROOM);
    REFUSED(GRU_NO_TRAINING, TRAIN(plain, out.saved, ROOM, ROOM));
    REFUSED(GRU_NO_TRAINING, NAME(gru_workspace_size)(plain, GRU_BACKWARD, T, N, 1, &o, &out.size));
    REFUSED(GRU_NULL_POINTER, TRAIN(model, NULL, ROOM, ROOM));
    REFUSED(GRU_MEMORY_TOO_SMALL, TRAIN(model, out.saved, saved_size - 1, ROOM));
    REFUSED(GRU_MEMORY_TOO_SMALL, TRAIN(model, out.saved, ROOM, size - 1));
    o.x_stays = 1;
    o.mask = mask;
    REFUSED(GRU_BAD_OPTION, TRAIN(model, out.saved, ROOM, ROOM));
}

static void refuse_backward(const gru_model *model, const gru_model *plain, const gru_model *another)
{
    gru_options o = defaults();
    REAL *gradients[4 * L] = {out.w_ih, out.w_hh, out.b_ih, out.b_hh};
    REFUSED(GRU_NOT_SAVED, BACK(model, T, N, NULL, out.saved, ROOM, ROOM));
    CHECK(TRAIN(model, out.saved, ROOM, ROOM));
    memcpy(&before, &out, sizeof out);
    REFUSED(GRU_NO_TRAINING, BACK(plain, T, N, NULL, out.saved, ROOM, ROOM));
    REFUSED(GRU_NOT_SAVED, BACK(another, T, N, NULL, out.saved, ROOM, ROOM));
    REFUSED(GRU_NOT_SAVED, BACK(model, T - 1, N, NULL, out.saved, ROOM, ROOM));
    REFUSED(GRU_NOT_SAVED, BACK(model, T, N - 1, NULL, out.saved, ROOM, ROOM));
    REFUSED(GRU_NOT_SAVED, BACK(model, N, T, NULL, out.saved, ROOM, ROOM));
    REFUSED(GRU_NULL_POINTER, BACK(model, T, N, NULL, NULL, ROOM, ROOM));
    REFUSED(GRU_NULL_POINTER, BACK(model, T, N, gradients, out.saved, ROOM, ROOM));
    REFUSED(GRU_MEMORY_TOO_SMALL, BACK(model, T, N, NULL, out.saved, 64, ROOM));
    REFUSED(GRU_MEMORY_TOO_SMALL, BACK(model, T, N, NULL, out.saved, ROOM, 256));
    o.keep_saved = 1;
    CHECK(BACK(model, T, N, NULL, out.saved, ROOM, ROOM));
    o.keep_saved = 0;
    CHECK(BACK(model, T, N, NULL, out.saved, ROOM, ROOM));
    memcpy(&before, &out, sizeof out);
    REFUSED(GRU_NOT_SAVED, BACK(model, T, N, NULL, out.saved, ROOM, ROOM));
}

static void refuse_training(void)
{
    gru_options o = defaults();
    gru_model *plain = packed(&o);
    o.training = 1;
    gru_model *model = packed(&o), *another = packed(&o);
    refuse_forward_training(model, plain);
    refuse_backward(model, plain, another);
    CHECK(gru_model_free(plain));
    CHECK(gru_model_free(model));
    CHECK(gru_model_free(another));
}

static void refuse_streams(const gru_model *model)
{
    gru_options o = defaults();
    size_t size;
    o.bidirectional = 1;
    gru_model *two = packed(&o);
    o.bidirectional = 0;
    o.reverse = 1;
    gru_model *reverse = packed(&o);
    o.reverse = 0;
    REFUSED(GRU_NOT_CAUSAL, NAME(gru_stream_size)(two, N, T, 1, &o, &out.size));
    REFUSED(GRU_NOT_CAUSAL, NAME(gru_stream_new)(two, N, T, 1, &o, &out.stream));
    REFUSED(GRU_NOT_CAUSAL, NAME(gru_stream_init)(out.memory, ROOM, reverse, N, T, 1, &o, &out.stream));
    CHECK(NAME(gru_stream_size)(model, N, T, 1, &o, &size));
    REQUIRE(size <= ROOM);
    REFUSED(GRU_NULL_POINTER, NAME(gru_stream_init)(NULL, size, model, N, T, 1, &o, &out.stream));
    REFUSED(GRU_NULL_POINTER, NAME(gru_stream_init)(out.memory, size, model, N, T, 1, &o, NULL));
    REFUSED(GRU_MEMORY_TOO_SMALL, NAME(gru_stream_init)(out.memory, size - 1, model, N, T, 1, &o, &out.stream));
    REFUSED(GRU_BAD_SIZE, NAME(gru_stream_init)(out.memory, ROOM, model, -N, T, 1, &o, &out.stream));
    REFUSED(GRU_BAD_THREADS, NAME(gru_stream_init)(out.memory, ROOM, model, N, T, 0, &o, &out.stream));
    REFUSED(GRU_NULL_POINTER, NAME(gru_stream_new)(model, N, T, 1, &o, NULL));
    REFUSED(GRU_BAD_SIZE, NAME(gru_stream_new)(model, N, huge, 1, &o, &out.stream));
    CHECK(gru_model_free(two));
    CHECK(gru_model_free(reverse));
}

/* The calls of a stream, which has all states zero before and after. */
static void refuse_calls_of_streams(const gru_model *model)
{
    static const ptrdiff_t far[N] = {0, N}, negative[N] = {-1, 0};
    gru_options o = defaults();
    const REAL *odd = (const REAL *)((const char *)x + 1);
    gru_stream *s;
    size_t size;
    CHECK(NAME(gru_stream_size)(model, N, T, 1, &o, &size));
    CHECK(NAME(gru_stream_init)(out.memory, size, model, N, T, 1, &o, &s));
    memcpy(&before, &out, sizeof out);
    REFUSED(GRU_NULL_POINTER, NAME(gru_stream_step)(NULL, x, out.output));
    REFUSED(GRU_NULL_POINTER, NAME(gru_stream_step)(s, NULL, out.output));
    REFUSED(GRU_MISALIGNED, NAME(gru_stream_step)(s, odd, out.output));
    REFUSED(GRU_NULL_POINTER, NAME(gru_stream_run)(s, T, NULL, out.output));
    REFUSED(GRU_NULL_POINTER, NAME(gru_stream_run)(NULL, T, x, out.output));
    REFUSED(GRU_BAD_SIZE, NAME(gru_stream_run)(s, -1, x, out.output));
    REFUSED(GRU_MISALIGNED, NAME(gru_stream_run)(s, T, odd, out.output));
    REFUSED(GRU_NULL_POINTER, NAME(gru_stream_get_state)(s, NULL));
    REFUSED(GRU_NULL_POINTER, NAME(gru_stream_set_state)(s, NULL));
    REFUSED(GRU_MISALIGNED, NAME(gru_stream_set_state)(s, odd));
    REFUSED(GRU_NULL_POINTER, NAME(gru_stream_reset)(NULL, NULL));
    REFUSED(GRU_NULL_POINTER, NAME(gru_stream_copy_rows)(s, NULL));
    REFUSED(GRU_BAD_ROW, NAME(gru_stream_copy_rows)(s, far));
    REFUSED(GRU_BAD_ROW, NAME(gru_stream_copy_rows)(s, negative));
    REFUSED(GRU_NOT_A_STREAM, gru_stream_free(s));
    REFUSED(GRU_NOT_A_STREAM, NAME(gru_stream_step)((gru_stream *)out.saved, x, out.output));
    REFUSED(GRU_NOT_A_STREAM, NAME(gru_stream_step)((gru_stream *)(void *)model, x, out.output));
    REFUSED(GRU_NOT_A_STREAM, gru_stream_free((gru_stream *)(void *)model));
}

int main(void)
{
    gru_options o = defaults();
    uint64_t seed = 1;
    for (int i = 0; i < T * N * I; i++) x[i] = (REAL)uniform(&seed);
    for (int i = 0; i < 3 * H * 2 * H; i++) weights[i] = (REAL)uniform(&seed);
    memset(&out, 0xa5, sizeof out);
    memcpy(&before, &out, sizeof out);
    gru_model *model = packed(&o);
    refuse_model_options();
#ifndef DOUBLE
    refuse_sums_that_overflow();
    refuse_to_train_with_fewer_bits();
#endif
    refuse_models();
    refuse_packing();
    refuse_what_is_no_model();
    refuse_another_dtype();
    refuse_sizes();
    refuse_forwards(model);
    refuse_training();
    refuse_streams(model);
    refuse_calls_of_streams(model);
    CHECK(gru_model_free(model));
    printf("%d wrong\n", wrong);
    return wrong != 0;
}
