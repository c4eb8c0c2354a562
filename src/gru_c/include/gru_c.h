/* gru_c from C: a GRU of several layers, packed once, run by any number of threads.
 *
 * Three ways to reach these functions, with the same names and the same contracts:
 *
 *     #define GRU_USE_CAPSULE      a C extension of Python: call gru_import() once, with the GIL held;
 *     #include "gru_c.h"           the functions come from the installed package gru_c
 *
 *     #include "gru_c.h"           a C or C++ program without Python, linked with the static library
 *
 *     from gru_c.cython_gru cimport gru_forward_f32           Cython
 *
 * L layers of D directions (1, or 2 if bidirectional), H hidden units, I inputs; T >= 1 steps of N >= 0
 * rows; a stream has N >= 1.
 * Arrays are in C order. A function that ends in _f32 takes float, one that ends in _f64 double, and
 * each refuses a model of the other.
 *
 * Every function returns a status, GRU_OK or one that gru_status_text explains. Where it is not GRU_OK,
 * nothing has been written but perhaps the workspace. No function takes the GIL, prints, or sets anything for the process.
 * Only those named _new allocate. A pointer may be NULL only where this says "or NULL". Arrays must be
 * aligned as their type is. Arrays that are written must not overlap another unless this says so.
 * All memory belongs to the caller. A pointer to freed or foreign memory is undefined behaviour.
 *
 * What stands here never changes. Functions are added at the end of the table, options at the end of
 * gru_options, and status codes after the last; see docs/embedding.md.
 */
#ifndef GRU_C_H
#define GRU_C_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GRU_ABI_VERSION 1

typedef struct gru_model gru_model;   /* packed weights; once packed, it never changes */
typedef struct gru_stream gru_stream; /* the hidden states of N rows, and what a step needs */

enum gru_status {
    GRU_OK = 0,
    GRU_NULL_POINTER,      /* a pointer is NULL that must not be */
    GRU_BAD_SIZE,          /* a size or count is negative, zero where it must not be, or too large */
    GRU_BAD_OPTIONS_SIZE,  /* options.struct_size matches no version up to this library's */
    GRU_BAD_OPTION,        /* an option has an invalid value, or does not go with another */
    GRU_BAD_LENGTHS,       /* a length is not from 0 to T */
    GRU_BAD_THREADS,       /* fewer than one thread */
    GRU_NOT_A_MODEL,       /* no model of this library: freed, overwritten, or of another ABI */
    GRU_OTHER_DTYPE,       /* the model or stream is of float, the function of double; or vice versa */
    GRU_NOT_PACKED,        /* a layer of the model has no weights yet */
    GRU_ALREADY_PACKED,    /* this layer has its weights */
    GRU_NO_TRAINING,       /* the model was made without options.training */
    GRU_NOT_SAVED,         /* `saved` is from no gru_forward_training of this model and these sizes, or
                              a backward without keep_saved has used it */
    GRU_MEMORY_TOO_SMALL,  /* the memory given is not enough; what its size query says always is */
    GRU_OUT_OF_MEMORY,     /* malloc failed */
    GRU_NOT_A_STREAM,      /* no stream of this library */
    GRU_NOT_CAUSAL,        /* a stream has one direction, from the first step to the last */
    GRU_BAD_ROW,           /* a row is not from 0 to N - 1 */
    GRU_MISALIGNED         /* an array of reals is not aligned as its type is (not checked of dropout_masks) */
};

enum gru_pass { GRU_INFERENCE = 0, GRU_TRAINING, GRU_BACKWARD };

/* GRU_ACTIVATION_DEFAULT is tanh for the new gate, sigmoid for the other two. */
enum gru_activation_name {
    GRU_ACTIVATION_DEFAULT = 0,
    GRU_ACTIVATION_SIGMOID,
    GRU_ACTIVATION_TANH,
    GRU_ACTIVATION_RELU,
    GRU_ACTIVATION_SOFTSIGN,
    GRU_ACTIVATION_SOFTPLUS,
    GRU_ACTIVATION_LINEAR,
    GRU_ACTIVATION_HARD_SIGMOID,     /* clip(alpha x + beta, 0, 1) */
    GRU_ACTIVATION_AFFINE,           /* alpha x + beta */
    GRU_ACTIVATION_LEAKY_RELU,       /* alpha x for x < 0 */
    GRU_ACTIVATION_THRESHOLDED_RELU, /* 0 for x <= alpha */
    GRU_ACTIVATION_SCALED_TANH,      /* alpha tanh(beta x) */
    GRU_ACTIVATION_ELU               /* alpha (e^x - 1) for x < 0 */
};

/* How weights are stored. gru_model_pack rounds floats to fewer bits; results are those of quantize() in
 * Python. */
enum gru_weights_storage {
    GRU_WEIGHTS_DTYPE = 0, /* as the type of the model */
    GRU_WEIGHTS_BFLOAT16,  /* the 16 high bits of a float */
    GRU_WEIGHTS_INT8       /* integers and a scale for each row; in products, x and h are integers, too */
};

/* Options of a model and of its calls. All zero but struct_size, or NULL in place of the struct, is the
 * default of each. A function reads only what concerns it. */
typedef struct gru_options {
    size_t struct_size; /* sizeof(gru_options) */

    /* ---- of a model: read by gru_model_size, _init and _new */
    ptrdiff_t num_layers; /* L; 0 is 1. A layer above the first takes the D H outputs of the one below */
    int bidirectional;    /* each layer has a second direction, from the last step to the first */
    int reverse;          /* the only direction of each layer runs from the last step to the first */
    int reset_before;     /* the reset gate is applied before the product with W_hn: Cho et al. 2014 */
    int training;         /* pack the weights of the backward, too */
    int activation;       /* of the new gate, a gru_activation_name; alpha and beta have no defaults */
    int recurrent_activation; /* of the reset gate and the update gate */
    double activation_alpha;
    double activation_beta;
    double recurrent_activation_alpha;
    double recurrent_activation_beta;
    double clip; /* arguments of activations are held between -clip and clip; 0: they are not */

    /* ---- of a call. A size query needs to know which of these four there are, not what is in them; of
     * the others, it needs x_stays, keep_saved and accumulate. A backward has the four from its forward,
     * and reads the arrays of dropout_masks again */
    const ptrdiff_t *lengths;    /* (N) or NULL: the steps of each row, 0 to T, in any order. Nothing past
                                    a row's end is read; output and dx are zero there */
    const unsigned char *mask;   /* (T, N) or NULL: 0 where a step does not count: the state is held */
    const unsigned char *resets; /* (T, N) or NULL: not 0 where the state is zeroed before the step */
    /* (L D 3) pointers or NULL, each to an array of the model's type or NULL. For each layer and direction
     * multipliers of: the layer's output (T, N, D H), for both directions the same pointer, not of the last
     * layer; its input (N, I or D H); the state in products with weight_hh (N, H). */
    const void *const *dropout_masks;
    /* Distances in elements from step to step and from row to row; 0, 0 is C order, (T, N, ...). Set both
     * of a pair, or neither. They may be negative. */
    ptrdiff_t x_step, x_row;
    ptrdiff_t output_step, output_row;
    ptrdiff_t d_output_step, d_output_row;
    ptrdiff_t dx_step, dx_row;
    int x_stays;         /* x stays as it is until the backward: no copy of it is saved. Only in C order,
                            without mask, lengths or dropout_masks, else GRU_BAD_OPTION */
    int keep_saved;      /* a backward leaves `saved` as it is, for another */
    int accumulate;      /* gradients of parameters are added to what is there */
    int flush_denormals; /* numbers below the smallest normal one count as zero, for the length of the
                            call: on many processors arithmetic with them is slow. Streams always do so */

    /* ---- of a model again */
    int weights; /* a gru_weights_storage; with double or `training` only GRU_WEIGHTS_DTYPE */
    int x_bits;  /* bits of x in products. GRU_WEIGHTS_INT8: 8 (or 0, the same) or 12.
                    GRU_WEIGHTS_BFLOAT16: 0, x and h are not rounded, or 16, they are bfloat16, too. Else 0 */
} gru_options;

/* Every function: name and arguments. F(name, (arguments), (names)). Once for float, once for double:
 *
 *   model_size     Bytes of a model's memory.
 *   model_init     Make a model in `memory`, of `size` bytes, which it uses until the end; of any alignment.
 *                  Its layers have no weights yet. *model is where it is, somewhere in `memory`.
 *   model_pack     The weights of one layer and direction, index = layer * D + direction, gates stacked
 *                  r, z, n: weight_ih (3H, I or D H), weight_hh (3H, H), bias_ih and bias_hh (3H), which
 *                  are both NULL for a layer without bias. They are copied. Not from two threads at once.
 *                  With int8, a row that holds a NaN or an infinity makes its unit NaN.
 *                  When all layers have theirs, the model never changes again.
 *   model_new      The same as model_init, in memory from malloc, which gru_model_free frees.
 *
 *   workspace_size Bytes of the workspace of `which_pass`: one step is GRU_INFERENCE with steps = 1. Enough
 *                  for any lengths, mask and resets, if options has such; for fewer threads, too.
 *   saved_size     Bytes of what gru_forward_training leaves for gru_backward. The same is true.
 *   step           h_next (L D, N, H) from x (N, I) and h (L D, N, H), or NULL for zeros; h_next may be h.
 *   forward        output (T, N, D H) or NULL, and h_n (L D, N, H) or NULL, from x (T, N, I) and
 *                  h_0 (L D, N, H), or NULL for zeros. h_n may be h_0.
 *   forward_training  The same, and writes `saved`, which must not move until its backward.
 *   backward       From d_output (T, N, D H) or NULL for zeros, and d_h_n (L D, N, H) or NULL for zeros:
 *                  dx (T, N, I) or NULL, dh_0 (L D, N, H) or NULL, gradients: (L D 4) pointers, for each
 *                  index those of weight_ih, weight_hh, bias_ih, bias_hh (both NULL for a layer without
 *                  bias); or NULL. dh_0 may be d_h_n. Reads `saved`, and overwrites it without keep_saved.
 *
 *   `workspace` is for one call at a time, of any alignment; its contents have no meaning afterwards.
 *   `threads`: at most so many, the caller's among them. With 1 no lock is taken and no system call made.
 *
 *   stream_size    Bytes of a stream's memory: N rows; gru_stream_run takes max_steps steps at a time.
 *   stream_init    Make a stream in `memory`, all states zero. It uses the memory and the model until the
 *                  end. Of the options it reads x_step, x_row, output_step and output_row.
 *   stream_new     The same in memory from malloc, which gru_stream_free frees.
 *   stream_step    output (N, H), of the last layer, or NULL, from x (N, I). One call at a time.
 *   stream_run     output (T, N, H) or NULL, from x (T, N, I), of any T >= 0: the same bits as T steps.
 *   stream_reset   Zero the states of the rows n with rows[n] not 0, rows (N), or of all rows for NULL.
 *   stream_get_state  state (L, N, H) = the hidden states of all layers.
 *   stream_set_state  The hidden states of all layers = state (L, N, H).
 *   stream_copy_rows  Row n gets the states that row source[n] had, source (N).
 */
#define GRU_FUNCTIONS_OF(F, T, REAL)                                                                     \
    F(gru_model_size_##T, (ptrdiff_t input_size, ptrdiff_t hidden_size, const gru_options *options,      \
                           size_t *size))                                                                \
    F(gru_model_init_##T, (void *memory, size_t size, ptrdiff_t input_size, ptrdiff_t hidden_size,       \
                           const gru_options *options, gru_model **model))                               \
    F(gru_model_pack_##T, (gru_model *model, ptrdiff_t index, const REAL *weight_ih,                     \
                           const REAL *weight_hh, const REAL *bias_ih, const REAL *bias_hh))             \
    F(gru_model_new_##T, (ptrdiff_t input_size, ptrdiff_t hidden_size, const gru_options *options,       \
                          gru_model **model))                                                            \
    F(gru_workspace_size_##T, (const gru_model *model, int which_pass, ptrdiff_t steps, ptrdiff_t rows,        \
                               int threads, const gru_options *options, size_t *size))                   \
    F(gru_saved_size_##T, (const gru_model *model, ptrdiff_t steps, ptrdiff_t rows,                      \
                           const gru_options *options, size_t *size))                                    \
    F(gru_step_##T, (const gru_model *model, ptrdiff_t rows, const REAL *x, const REAL *h, REAL *h_next, \
                     void *workspace, size_t workspace_size, int threads, const gru_options *options))   \
    F(gru_forward_##T, (const gru_model *model, ptrdiff_t steps, ptrdiff_t rows, const REAL *x,          \
                        const REAL *h_0, REAL *output, REAL *h_n, void *workspace,                       \
                        size_t workspace_size, int threads, const gru_options *options))                 \
    F(gru_forward_training_##T, (const gru_model *model, ptrdiff_t steps, ptrdiff_t rows, const REAL *x, \
                                 const REAL *h_0, REAL *output, REAL *h_n, void *saved,                  \
                                 size_t saved_size, void *workspace, size_t workspace_size, int threads, \
                                 const gru_options *options))                                            \
    F(gru_backward_##T, (const gru_model *model, ptrdiff_t steps, ptrdiff_t rows, const REAL *d_output,  \
                         const REAL *d_h_n, REAL *dx, REAL *dh_0, REAL *const *gradients, void *saved,   \
                         size_t saved_size, void *workspace, size_t workspace_size, int threads,         \
                         const gru_options *options))                                                    \
    F(gru_stream_size_##T, (const gru_model *model, ptrdiff_t rows, ptrdiff_t max_steps, int threads,    \
                            const gru_options *options, size_t *size))                                   \
    F(gru_stream_init_##T, (void *memory, size_t size, const gru_model *model, ptrdiff_t rows,           \
                            ptrdiff_t max_steps, int threads, const gru_options *options,                \
                            gru_stream **stream))                                                        \
    F(gru_stream_new_##T, (const gru_model *model, ptrdiff_t rows, ptrdiff_t max_steps, int threads,     \
                           const gru_options *options, gru_stream **stream))                             \
    F(gru_stream_step_##T, (gru_stream *stream, const REAL *x, REAL *output))                            \
    F(gru_stream_run_##T, (gru_stream *stream, ptrdiff_t steps, const REAL *x, REAL *output))            \
    F(gru_stream_reset_##T, (gru_stream *stream, const unsigned char *rows))                             \
    F(gru_stream_get_state_##T, (const gru_stream *stream, REAL *state))                                 \
    F(gru_stream_set_state_##T, (gru_stream *stream, const REAL *state))                                 \
    F(gru_stream_copy_rows_##T, (gru_stream *stream, const ptrdiff_t *source))

/* For both:
 *
 *   model_shape    shape[0] to shape[4] = I, H, L, D and the bytes of an element, 4 or 8.
 *   model_free     Free a model of gru_model_new, or do nothing for NULL. GRU_NOT_A_MODEL for others.
 *   stream_free    Free a stream of gru_stream_new, or do nothing for NULL. GRU_NOT_A_STREAM for others.
 */
#define GRU_FUNCTIONS_OF_BOTH(F)                                   \
    F(gru_model_shape, (const gru_model *model, ptrdiff_t *shape)) \
    F(gru_model_free, (gru_model *model))                          \
    F(gru_stream_free, (gru_stream *stream))

#define GRU_ALL_FUNCTIONS(F)          \
    GRU_FUNCTIONS_OF(F, f32, float)   \
    GRU_FUNCTIONS_OF(F, f64, double)  \
    GRU_FUNCTIONS_OF_BOTH(F)

/* The table in the capsule gru_c._C_API. */
typedef struct gru_api {
    size_t struct_size; /* sizeof(gru_api) of the library: tells which functions it has */
    int abi_version;    /* GRU_ABI_VERSION of the library */
    const char *version;
    const char *(*gru_status_text)(int status); /* in English, "" for no status */
#define GRU_MEMBER(name, arguments) int(*name) arguments;
    GRU_ALL_FUNCTIONS(GRU_MEMBER)
#undef GRU_MEMBER
} gru_api;

#ifndef GRU_USE_CAPSULE

const char *gru_status_text(int status);
#define GRU_PROTOTYPE(name, arguments) int name arguments;
GRU_ALL_FUNCTIONS(GRU_PROTOTYPE)
#undef GRU_PROTOTYPE

#else /* Python.h has been included */

static const char *(*gru_status_text)(int status);
#define GRU_POINTER(name, arguments) static int(*name) arguments;
GRU_ALL_FUNCTIONS(GRU_POINTER)
#undef GRU_POINTER

/* Import gru_c and set the functions, once in each file that includes this. With the GIL held. Returns 0,
 * or -1 with an ImportError set. */
static inline int gru_import(void)
{
    const gru_api *api = (const gru_api *)PyCapsule_Import("gru_c._C_API", 0);
    if (api == NULL) return -1;
    if (api->abi_version != GRU_ABI_VERSION || api->struct_size < sizeof(gru_api)) {
        PyErr_Format(PyExc_ImportError,
                     "this module was built with a gru_c.h of ABI version %d and %zu bytes of functions, but "
                     "gru_c %s has version %d and %zu bytes: install a newer gru_c, or build against this one",
                     GRU_ABI_VERSION, sizeof(gru_api), api->version, api->abi_version, api->struct_size);
        return -1;
    }
    gru_status_text = api->gru_status_text;
#define GRU_ASSIGN(name, arguments) name = api->name;
    GRU_ALL_FUNCTIONS(GRU_ASSIGN)
#undef GRU_ASSIGN
    return 0;
}

#endif

#ifdef __cplusplus
}
#endif

#endif
