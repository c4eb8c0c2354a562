/* A fuzzer of gru_c.h: random models, calls and streams, right ones and wrong ones, within the contract.
 *
 *   c_surface --seconds N --seed S
 *
 * run_c_surface.sh builds it with AddressSanitizer. All memory has the exact size, and often an odd
 * address, so that each byte too far is seen. A right call must return GRU_OK, and the same bits from
 * another number of threads and with other numbers where nothing counts; a wrong one another status,
 * and its results must be untouched. Each case has a seed of its own, which is printed where one fails.
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gru_c.h"

enum { MAX_BLOCKS = 4096, MAX_STREAMS = 3, MAX_SAVED = 2, LARGE = 100 };
enum { OLDER_OPTIONS = offsetof(gru_options, weights) };   /* the size of the first version */

static uint64_t case_seed, state;

static void fail(const char *what, int status, int line)
{
    fprintf(stderr, "c_surface.c: case %llu, line %d: %s: status %d %s\n", (unsigned long long)case_seed, line,
            what, status, gru_status_text(status));
    abort();
}
#define RIGHT(call)                                          \
    do {                                                     \
        int status_ = (call);                                \
        if (status_ != GRU_OK) fail(#call, status_, __LINE__); \
    } while (0)
#define WRONG(call)                                          \
    do {                                                     \
        int status_ = (call);                                \
        if (status_ == GRU_OK) fail(#call, status_, __LINE__); \
    } while (0)
#define REQUIRE(condition)                                  \
    do {                                                    \
        if (!(condition)) fail(#condition, GRU_OK, __LINE__); \
    } while (0)

/* ---- random numbers: splitmix64 */

static uint64_t bits(void)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
/* From 0 to count - 1. */
static int pick(ptrdiff_t count) { return count > 0 ? (int)(bits() % (uint64_t)count) : 0; }
static int one_in(int count) { return pick(count) == 0; }
static double uniform(void) { return (double)(bits() >> 11) / 4503599627370496.0 - 1.0; }

/* Sizes of all kinds, and such as overflow when they are multiplied. */
static ptrdiff_t wild(void)
{
    static const ptrdiff_t odd[] = {0, -1, 1, PTRDIFF_MAX, PTRDIFF_MIN, PTRDIFF_MAX / 2, PTRDIFF_MAX / 4,
                                    PTRDIFF_MAX / 12 + 1, (ptrdiff_t)1 << 31, (ptrdiff_t)1 << 32, 65536};
    if (one_in(2)) return odd[pick(sizeof odd / sizeof *odd)];
    return (ptrdiff_t)(bits() >> pick(63));
}

/* ---- memory of a case, of exact sizes; freed at its end */

static void *blocks[MAX_BLOCKS];
static int block_count;

static void *block(size_t size, size_t alignment)
{
    size_t offset = one_in(2) ? 0 : (size_t)pick(64) / alignment * alignment;
    char *memory = malloc(size + offset);
    if (memory == NULL || block_count == MAX_BLOCKS) fail("no memory", GRU_OK, __LINE__);
    blocks[block_count++] = memory;
    memset(memory, 0xa5, size + offset);
    return memory + offset;
}

static void free_blocks(void)
{
    while (block_count > 0) free(blocks[--block_count]);
}

/* ---- options */

static void zero_options(gru_options *options)
{
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
}

/* Of a model; any activations. */
static void draw_model_options(gru_options *options)
{
    zero_options(options);
    options->num_layers = pick(4);
    options->bidirectional = one_in(3);
    options->reverse = !options->bidirectional && one_in(5);
    options->reset_before = one_in(3);
    options->training = one_in(2);
    if (one_in(3)) {
        options->activation = pick(GRU_ACTIVATION_ELU + 1);
        options->recurrent_activation = pick(GRU_ACTIVATION_ELU + 1);
        options->activation_alpha = fabs(uniform());
        options->activation_beta = uniform();
        options->recurrent_activation_alpha = fabs(uniform());
        options->recurrent_activation_beta = uniform();
    }
    if (one_in(4)) options->clip = 3.0 + uniform();
}

/* Of a model of float, which may store its weights in fewer bits. */
static void draw_weights(gru_options *options)
{
    static const int bits_of_x[] = {0, 8, 12};
    options->weights = pick(GRU_WEIGHTS_INT8 + 1);
    if (options->weights != GRU_WEIGHTS_DTYPE) options->training = 0;
    if (options->weights == GRU_WEIGHTS_INT8) options->x_bits = bits_of_x[pick(3)];
    if (options->weights == GRU_WEIGHTS_BFLOAT16) options->x_bits = 16 * pick(2);
}

/* Of the steps and the rows of a call. */
static void draw_row_options(gru_options *options, ptrdiff_t T, ptrdiff_t N)
{
    ptrdiff_t *lengths = block((size_t)N * sizeof *lengths, sizeof *lengths);
    unsigned char *mask = block((size_t)(T * N), 1), *resets = block((size_t)(T * N), 1);
    for (ptrdiff_t i = 0; i < N; i++) lengths[i] = pick(T + 1);
    for (ptrdiff_t i = 0; i < T * N; i++) {
        mask[i] = (unsigned char)(one_in(3) ? 0 : 1 + pick(255));
        resets[i] = (unsigned char)(one_in(5) ? 1 + pick(255) : 0);
    }
    options->lengths = one_in(3) ? lengths : NULL;
    options->mask = one_in(3) ? mask : NULL;
    options->resets = one_in(3) ? resets : NULL;
    options->flush_denormals = one_in(3);
    options->keep_saved = one_in(3);
    options->accumulate = one_in(3);
}

/* Another size of the struct, or a length that is out of range. */
static void spoil_options(gru_options *options, ptrdiff_t T, ptrdiff_t N)
{
    ptrdiff_t *lengths;
    if (N == 0 || one_in(2)) {
        do options->struct_size = one_in(2) ? (size_t)pick(2 * sizeof *options) : (size_t)wild();
        while (options->struct_size == sizeof *options || options->struct_size == OLDER_OPTIONS);
        return;
    }
    lengths = block((size_t)N * sizeof *lengths, sizeof *lengths);
    for (ptrdiff_t i = 0; i < N; i++) lengths[i] = T;
    lengths[pick(N)] = one_in(2) ? T + 1 : -1;
    options->lengths = lengths;
}

#define REAL float
#define NAME(name) name##_f32
#define OTHER(name) name##_f64
#define OTHER_REAL double
#include "c_surface_of.h"
#undef REAL
#undef NAME
#undef OTHER
#undef OTHER_REAL

#define REAL double
#define NAME(name) name##_f64
#define OTHER(name) name##_f32
#define OTHER_REAL float
#include "c_surface_of.h"

/* ---- cases */

static void run_case(uint64_t seed)
{
    case_seed = state = seed;
    if (one_in(2))
        fuzz_f32();
    else
        fuzz_f64();
    free_blocks();
}

int main(int argc, char **argv)
{
    double seconds = 10;
    uint64_t seed = 0, cases = 0;
    struct timespec start, now;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seconds") == 0) seconds = atof(argv[i + 1]);
        if (strcmp(argv[i], "--seed") == 0) seed = strtoull(argv[i + 1], NULL, 10);
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        run_case(seed + cases++);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - start.tv_sec) + 1e-9 * (double)(now.tv_nsec - start.tv_nsec) < seconds);
    printf("c_surface: %llu cases from seed %llu, no report\n", (unsigned long long)cases,
           (unsigned long long)seed);
    return 0;
}
