/* Runs what the standard input asks for: any model of the family, and one of four passes over its call.
 * The results go to the standard output. tests/test_c_program.py compares them with the package's.
 */
#include "check.h"

enum { INFERENCE, TRAINING, STREAM, STEPS };

struct request { /* in Python "21q5d" */
    int64_t bytes, inputs, hidden, layers, bidirectional, reverse, reset_before;
    int64_t activation, recurrent_activation, bias, pass, steps, rows, threads;
    int64_t has_lengths, has_mask, has_resets, has_h_0, has_dropout;
    int64_t weights, x_bits;
    double alpha, beta, recurrent_alpha, recurrent_beta, clip;
};

/* An array from the standard input. */
static void *take(ptrdiff_t count, size_t item)
{
    size_t wanted = (size_t)count;
    void *array = allocate(wanted * item);
    REQUIRE(fread(array, item, wanted, stdin) == wanted);
    return array;
}

/* Memory of any alignment: here an odd address. It is freed with the process. */
static void *odd(size_t size) { return (char *)allocate(size + 1) + 1; }

static void set_options(const struct request *r, gru_options *options)
{
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
    options->num_layers = r->layers;
    options->bidirectional = (int)r->bidirectional;
    options->reverse = (int)r->reverse;
    options->reset_before = (int)r->reset_before;
    options->training = r->pass == TRAINING;
    options->activation = (int)r->activation;
    options->recurrent_activation = (int)r->recurrent_activation;
    options->activation_alpha = r->alpha;
    options->activation_beta = r->beta;
    options->recurrent_activation_alpha = r->recurrent_alpha;
    options->recurrent_activation_beta = r->recurrent_beta;
    options->clip = r->clip;
    options->weights = (int)r->weights;
    options->x_bits = (int)r->x_bits;
}

static void take_rows(const struct request *r, gru_options *options)
{
    ptrdiff_t calls = r->layers * (1 + r->bidirectional);
    options->lengths = r->has_lengths ? (ptrdiff_t *)take(r->rows, sizeof(ptrdiff_t)) : NULL;
    options->mask = r->has_mask ? (unsigned char *)take(r->steps * r->rows, 1) : NULL;
    options->resets = r->has_resets ? (unsigned char *)take(r->steps * r->rows, 1) : NULL;
    if (!r->has_dropout) return;
    int64_t *counts = (int64_t *)take(3 * calls, sizeof(int64_t));
    const void **masks = (const void **)allocate((size_t)(3 * calls) * sizeof *masks);
    for (ptrdiff_t i = 0; i < 3 * calls; i++)
        masks[i] = counts[i] ? take(counts[i], (size_t)r->bytes) : NULL;
    options->dropout_masks = masks;
}

#define REAL float
#define NAME(name) name##_f32
#include "family_of.h"
#undef REAL
#undef NAME

#define REAL double
#define NAME(name) name##_f64
#include "family_of.h"

int main(void)
{
    struct request r;
    REQUIRE(fread(&r, sizeof r, 1, stdin) == 1);
    if (r.bytes == sizeof(float))
        answer_f32(&r);
    else
        answer_f64(&r);
    return 0;
}
