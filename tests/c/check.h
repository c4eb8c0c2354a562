/* What the test programs share: failing, memory of exact sizes, random numbers. */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gru_c.h"

/* End the program where a call returns another status. */
#define EXPECT(wanted, call)                                                                        \
    do {                                                                                            \
        int status_ = (call);                                                                       \
        if (status_ != (wanted)) {                                                                  \
            fprintf(stderr, "%s:%d: %s: status %d (%s), not %d\n", __FILE__, __LINE__, #call, status_, \
                    gru_status_text(status_), (int)(wanted));                                       \
            exit(1);                                                                                \
        }                                                                                           \
    } while (0)
#define CHECK(call) EXPECT(GRU_OK, call)

#define REQUIRE(condition)                                                         \
    do {                                                                           \
        if (!(condition)) {                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                               \
        }                                                                          \
    } while (0)

static inline void *allocate(size_t size)
{
    void *memory = malloc(size ? size : 1);
    REQUIRE(memory != NULL);
    return memory;
}

/* Uniform in [-1, 1): the same numbers everywhere. */
static inline double uniform(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(*seed >> 11) / 4503599627370496.0 - 1.0;
}

static inline float *uniform_f32(uint64_t *seed, ptrdiff_t count, double scale)
{
    float *values = (float *)allocate((size_t)count * sizeof(float));
    for (ptrdiff_t i = 0; i < count; i++) values[i] = (float)(scale * uniform(seed));
    return values;
}

/* A packed model with random weights, from gru_model_new_f32. */
static inline gru_model *random_model(ptrdiff_t inputs, ptrdiff_t hidden, const gru_options *options,
                                      uint64_t seed)
{
    gru_model *model;
    ptrdiff_t shape[5];
    CHECK(gru_model_new_f32(inputs, hidden, options, &model));
    CHECK(gru_model_shape(model, shape));
    for (ptrdiff_t i = 0; i < shape[2] * shape[3]; i++) {
        float *w_ih = uniform_f32(&seed, 3 * hidden * (i < shape[3] ? inputs : shape[3] * hidden), 0.4);
        float *w_hh = uniform_f32(&seed, 3 * hidden * hidden, 0.3);
        float *b_ih = uniform_f32(&seed, 3 * hidden, 0.2), *b_hh = uniform_f32(&seed, 3 * hidden, 0.2);
        CHECK(gru_model_pack_f32(model, i, w_ih, w_hh, b_ih, b_hh));
        free(w_ih);
        free(w_hh);
        free(b_ih);
        free(b_hh);
    }
    return model;
}

#endif
