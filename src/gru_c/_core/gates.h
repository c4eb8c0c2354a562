/* The gates of a layer and their activations, which Cython and C share. */
#ifndef GRU_C_GATES_H
#define GRU_C_GATES_H

#include <stddef.h>

/* The functions; vmath/activations.h has their formulas. Others are special cases: _activations.py. */
enum {
    GRU_SIGMOID,
    GRU_HARD_SIGMOID,
    GRU_SCALED_TANH,
    GRU_AFFINE,
    GRU_THRESHOLDED_RELU,
    GRU_LEAKY_RELU,
    GRU_ELU,
    GRU_SOFTSIGN,
    GRU_SOFTPLUS
};

/* y = f(x) with x held between -clip and clip. */
typedef struct {
    int function;
    double alpha;
    double beta;
    double clip; /* infinity for none */
    double low;  /* f(-clip) and f(clip), where the derivative is 0 */
    double high;
} gru_activation;

typedef struct {
    gru_activation r_z; /* of the reset gate and the update gate */
    gru_activation n;   /* of the new gate */
} gru_activations;

/* The planes of the gates (see rnn/layout.pxd) of successive rows. */
typedef struct {
    char *data;
    ptrdiff_t ld;    /* bytes from row to row */
    ptrdiff_t plane; /* bytes from gate to gate */
    const gru_activations *activations; /* read by the pointwise functions `any_activations` alone */
} gru_gate_view;

/* Successive steps of some rows of a small layer: rnn/small_steps.h. */
typedef struct {
    ptrdiff_t first_step; /* of the sequence: odd steps read the weights from the end */
    ptrdiff_t steps, rows, units;
    int reset_after;
    int save;             /* the gates keep their activations */
    const char *weights;  /* of W_hh, from pack_small */
    const char *bias_q;   /* read with reset_after */
    gru_gate_view gates;  /* of the first step, with the products with x */
    ptrdiff_t gates_step; /* bytes to those of the next step; negative in reverse */
    const char *h_in;     /* what W_hh multiplies: h_prev, unless there is but one step */
    const char *h_prev;
    char *h;
    ptrdiff_t ld_h;
    int two_slots;        /* h_prev and h change places after each step; else the next h is as far from this one */
    char *output;         /* or NULL */
    ptrdiff_t output_step, output_row; /* may be negative */
} gru_small_steps;

#endif
