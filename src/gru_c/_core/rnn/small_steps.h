/* The time loop of small layers: products with h and gates in one kernel. kernels.h includes this file once per
 * dtype, after math.h and activations.h. The formulas are those of pointwise.pxi, the results have the same bits.
 *
 * A step of few units is one chain of latencies: product, sigmoid, tanh, h. Calls and gates that go through memory
 * took a third of it: 54 -> 39 us (1000,1,1,8), 140 -> 84 (1000,1,1,40). So the sums of a *group* of units, 3 or 4
 * vectors, stay in registers, and its gates follow at once. `pack_small` puts the weights in the order in which
 * they are read: [group][k][vector][gate][lane], for the gates r z q, or without reset_after for r z and then n.
 *
 * The sum over k is one chain that begins at zero and is added once to the rest, as in the microkernel: so a small
 * layer has at most GRU_CHAIN units. */
#define GROUP(gates) ((gates) == 3 ? 3 : 4) /* up to 9 sums: AVX2 has 16 registers */
#define L1_WEIGHTS 40960 /* bytes; more are read back and forth in all_gates: 187 -> 165 us (1000,1,1,64) */

/* ---- Groups ------------------------------------------------------------------------------------------------ */
#ifndef GRU_C_GROUPS
#define GRU_C_GROUPS
/* `count` vectors of units in nearly equal groups. */
typedef struct {
    ptrdiff_t count, groups, size, larger; /* the first `larger` groups have size + 1 vectors, the others size */
} gru_groups;

/* `gates` is a constant: a division takes as long as ten units. */
INLINE gru_groups gru_groups_of(ptrdiff_t bytes, const int gates)
{
    const uint32_t count = ((uint32_t)bytes + GRU_VECTOR_BYTES - 1) / GRU_VECTOR_BYTES;
    const uint32_t groups = (count + GROUP(gates) - 1) / GROUP(gates);
    if (groups <= 1) return (gru_groups){count, groups, count, 0};
    return (gru_groups){count, groups, count / groups, count % groups};
}

INLINE ptrdiff_t gru_first_vector(const gru_groups *of, ptrdiff_t group)
{
    return group * of->size + (group < of->larger ? group : of->larger);
}

/* What a pass over the groups computes: all of a step, or one of its halves without reset_after. */
enum { ALL_GATES, R_AND_Z, NEW_GATE };
#endif

#define EACH_SUM(X) X(0, 0) X(0, 1) X(0, 2) X(1, 0) X(1, 1) X(1, 2) X(2, 0) X(2, 1) X(2, 2) \
                    X(3, 0) X(3, 1)

/* ---- What products multiply: h and weights of int8, or of REAL ------------------------------------------------- */
#ifdef GRU_C_INT8
#include "../gemm/int8_small.h"
#else
/* Lines of packed weights for so many units. */
INLINE ptrdiff_t NAME(small_lines)(ptrdiff_t units) { return units; }

/* Rows of h as factors of the weights: the rows themselves. So there is nothing to make before the first pass, to
 * keep of a vector for the next, or to complete before a pass. */
#define SMALL_FACTORS 1
INLINE ptrdiff_t NAME(factor_size)(ptrdiff_t units) { return (void)units, 0; }
INLINE void NAME(keep_factor)(vec h, char *factors, ptrdiff_t v) { (void)h, (void)factors, (void)v; }
INLINE void NAME(make_factors)(const gru_small_steps *s, char *factors) { (void)s, (void)factors; }
INLINE void NAME(complete_factors)(const int any, const gru_small_steps *s, const char *h, ptrdiff_t ld, char *factors)
{
    (void)any, (void)s, (void)h, (void)ld, (void)factors;
}
#define FACTOR(h, factors) ((void)(factors), (const REAL *)(h))

#define NEW_SUM(v, gate) vec s##v##gate = {0};
#define ADD_TO_SUM(v, gate) if (vectors > v && gates > gate) s##v##gate += a * w[v * gates + gate];
#define KEEP_SUM(v, gate) if (vectors > v && gates > gate) sums[v * gates + gate] = s##v##gate;

/* sums[vector][gate] = sum over k of h[k] w[k][vector][gate] */
INLINE void NAME(sum_products)(const int vectors, const int gates, ptrdiff_t k, const REAL *h, const vec *w,
                               vec *sums)
{
    EACH_SUM(NEW_SUM)
    for (; k > 0; k--, h++, w += vectors * gates) {
        const vec a = *h - (vec){0}; /* in all lanes */
        EACH_SUM(ADD_TO_SUM)
    }
    EACH_SUM(KEEP_SUM)
}
#endif

/* ---- Packing --------------------------------------------------------------------------------------------------- */
/* W_hh of some gates. Returns the end. */
static char *NAME(pack_gates)(ptrdiff_t units, int gates, const gru_micropanels *w_hh, char *packed)
{
    const ptrdiff_t bytes = units * (ptrdiff_t)sizeof(REAL), lines = NAME(small_lines)(units);
    const gru_groups of = gates == 3 ? gru_groups_of(bytes, 3) : gru_groups_of(bytes, 2);
    for (ptrdiff_t group = 0; group < of.groups; group++) {
        const ptrdiff_t begin = gru_first_vector(&of, group), vectors = gru_first_vector(&of, group + 1) - begin;
        for (ptrdiff_t i = 0; i < vectors * gates; i++) {
            const gru_micropanels *columns = &w_hh[i % gates * of.count + begin + i / gates];
            const char *w = columns->data;
            const ptrdiff_t ld = columns->ld;
            vec *to = (vec *)packed + i;
            if (ld < (ptrdiff_t)sizeof(vec)) { /* half a line; the memory is zeroed */
                for (ptrdiff_t k = 0; k < lines; k++, w += ld, to += vectors * gates)
                    *(half *)to = *(const half *)w;
                continue;
            }
            for (ptrdiff_t k = 0; k < lines; k++, w += ld, to += vectors * gates)
                *to = *(const vec *)w;
        }
        packed += lines * vectors * gates * (ptrdiff_t)sizeof(vec);
    }
    return packed;
}

static void NAME(pack_small)(ptrdiff_t units, int reset_after, const gru_micropanels *w_hh, char *packed)
{
    const ptrdiff_t vectors = (units * (ptrdiff_t)sizeof(REAL) + GRU_VECTOR_BYTES - 1) / GRU_VECTOR_BYTES;
    packed = NAME(pack_gates)(units, reset_after ? 3 : 2, w_hh, packed);
    if (!reset_after) NAME(pack_gates)(units, 1, w_hh + 2 * vectors, packed);
}

/* ---- One group of one row ---------------------------------------------------------------------------------- */
INLINE vec NAME(activate_r_z)(const int any, const gru_activations *f, vec a)
{
    return any ? NAME(activate)(&f->r_z, a) : NAME(sigmoid)(a);
}

INLINE vec NAME(activate_n)(const int any, const gru_activations *f, vec a)
{
    return any ? NAME(activate)(&f->n, a) : NAME(tanh)(a);
}

/* Where a group of a row is. Planes of the gates are `plane` vectors apart. */
typedef struct {
    vec *gates;
    ptrdiff_t plane;
    const vec *bias_q;
    const REAL *factor; /* h_in of all units, as products take it */
    char *next_factor;  /* of this group, for the next pass */
    const vec *h_in_group;
    const vec *h_prev;
    vec *h;
} NAME(group_view);

/* r, z = f(a_r), f(a_z);  q = b_hn + W_hn h;  n = f_n(a_n + r q);  h' = n + z (h - n) */
INLINE void NAME(all_gates)(const int any, const int vectors, const gru_small_steps *s, const vec *w,
                            NAME(group_view) g)
{
    vec sums[3 * GROUP(3)], *a_n = g.gates, *a_r = a_n + g.plane, *a_z = a_r + g.plane, *q_plane = a_z + g.plane;
    NAME(sum_products)(vectors, 3, s->units, g.factor, w, sums);
    /* A loop of its own, as in pointwise.pxi: 87 -> 83 us (1000,1,1,40). */
    for (int v = 0; v < vectors; v++) {
        sums[3 * v] = NAME(activate_r_z)(any, s->gates.activations, a_r[v] + sums[3 * v]);
        sums[3 * v + 1] = NAME(activate_r_z)(any, s->gates.activations, a_z[v] + sums[3 * v + 1]);
    }
    for (int v = 0; v < vectors; v++) {
        const vec r = sums[3 * v], z = sums[3 * v + 1];
        const vec q = g.bias_q[v] + sums[3 * v + 2];
        const vec n = NAME(activate_n)(any, s->gates.activations, a_n[v] + r * q);
        g.h[v] = n + z * (g.h_prev[v] - n);
        NAME(keep_factor)(g.h[v], g.next_factor, v);
        if (s->save) a_n[v] = n, a_r[v] = r, a_z[v] = z, q_plane[v] = q;
    }
}

/* r, z = f(a_r), f(a_z);  q = r h */
INLINE void NAME(r_and_z)(const int any, const int vectors, const gru_small_steps *s, const vec *w,
                          NAME(group_view) g)
{
    vec sums[2 * GROUP(2)], *a_r = g.gates + g.plane, *a_z = a_r + g.plane, *q = a_z + g.plane;
    NAME(sum_products)(vectors, 2, s->units, g.factor, w, sums);
    for (int v = 0; v < vectors; v++) {
        const vec r = NAME(activate_r_z)(any, s->gates.activations, a_r[v] + sums[2 * v]);
        a_z[v] = NAME(activate_r_z)(any, s->gates.activations, a_z[v] + sums[2 * v + 1]);
        q[v] = r * g.h_in_group[v];
        NAME(keep_factor)(q[v], g.next_factor, v);
        if (s->save) a_r[v] = r;
    }
}

/* n = f_n(a_n + W_hn q);  h' = n + z (h - n) */
INLINE void NAME(new_gate)(const int any, const int vectors, const gru_small_steps *s, const vec *w,
                           NAME(group_view) g)
{
    vec sums[GROUP(1)], *a_n = g.gates, *z = a_n + 2 * g.plane;
    NAME(sum_products)(vectors, 1, s->units, g.factor, w, sums);
    for (int v = 0; v < vectors; v++) {
        const vec n = NAME(activate_n)(any, s->gates.activations, a_n[v] + sums[v]);
        g.h[v] = n + z[v] * (g.h_prev[v] - n);
        NAME(keep_factor)(g.h[v], g.next_factor, v);
        if (s->save) a_n[v] = n;
    }
}

/* ---- Steps ------------------------------------------------------------------------------------------------- */
/* A pass over one group of all rows: the weights stay in L1. */
INLINE void NAME(pass_of_group)(const int any, const int pass, const int vectors, const gru_small_steps *s,
                                ptrdiff_t first, const vec *weights, const char *factors,
                                char *next_factors)
{
    const ptrdiff_t factor_size = NAME(factor_size)(s->units);
    const int gates = pass == ALL_GATES ? 3 : pass == R_AND_Z ? 2 : 1;
    const vec *w = weights + first * gates * NAME(small_lines)(s->units);
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        vec *planes = (vec *)(s->gates.data + row * s->gates.ld);
        const ptrdiff_t plane = s->gates.plane / (ptrdiff_t)sizeof(vec), state = row * s->ld_h;
        const char *h_in = pass == NEW_GATE ? (char *)(planes + 3 * plane) : s->h_in + state;
        NAME(group_view) g = {planes + first, plane, (const vec *)s->bias_q + first,
                              FACTOR(h_in, factors + row * factor_size),
                              next_factors + row * factor_size + first * LANES, (const vec *)h_in + first,
                              (const vec *)(s->h_prev + state) + first, (vec *)(s->h + state) + first};
        if (pass == ALL_GATES) NAME(all_gates)(any, vectors, s, w, g);
        if (pass == R_AND_Z) NAME(r_and_z)(any, vectors, s, w, g);
        if (pass == NEW_GATE) NAME(new_gate)(any, vectors, s, w, g);
    }
}

INLINE void NAME(pass)(const int any, const int pass, const gru_small_steps *s, const gru_groups *of, int back,
                       const vec *weights, char *factors, char *next_factors)
{
    if (pass == NEW_GATE) NAME(complete_factors)(any, s, s->gates.data + 3 * s->gates.plane, s->gates.ld, factors);
    else NAME(complete_factors)(any, s, s->h_in, s->ld_h, factors);
    for (ptrdiff_t i = 0; i < of->groups; i++) {
        const ptrdiff_t group = back ? of->groups - 1 - i : i, first = gru_first_vector(of, group);
        switch (gru_first_vector(of, group + 1) - first) {
        case 1: NAME(pass_of_group)(any, pass, 1, s, first, weights, factors, next_factors); break;
        case 2: NAME(pass_of_group)(any, pass, 2, s, first, weights, factors, next_factors); break;
        case 3: NAME(pass_of_group)(any, pass, 3, s, first, weights, factors, next_factors); break;
        default: if (pass != ALL_GATES) NAME(pass_of_group)(any, pass, 4, s, first, weights, factors, next_factors);
        }
    }
}

/* Zeros in the rest of whole lines of h and q, past the vectors that are computed: the backward computes there,
 * too, and fresh memory may hold denormals, which are slow. */
INLINE void NAME(clear_rest)(const gru_small_steps *s, ptrdiff_t computed)
{
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        for (ptrdiff_t v = computed; v < s->gates.plane / (ptrdiff_t)sizeof(vec); v++) {
            ((vec *)(s->h + row * s->ld_h))[v] = (vec){0};
            if (s->save) ((vec *)(s->gates.data + row * s->gates.ld + 3 * s->gates.plane))[v] = (vec){0};
        }
    }
}

/* output = h; rows of the caller's array are not padded. */
INLINE void NAME(store_small)(char *output, const char *h, size_t size)
{
#define STORE_PART(bytes) if (size & bytes) memcpy(output, h, bytes), output += bytes, h += bytes;
    for (; size >= sizeof(vec); size -= sizeof(vec), output += sizeof(vec), h += sizeof(vec))
        *(vec_bytes *)output = *(const vec_bytes *)h;
    STORE_PART(32) STORE_PART(16) STORE_PART(8) STORE_PART(4)
}

INLINE void NAME(any_small_steps)(const int any, const gru_small_steps *given)
{
    const ptrdiff_t bytes = given->units * (ptrdiff_t)sizeof(REAL);
    const gru_groups of = given->reset_after ? gru_groups_of(bytes, 3) : gru_groups_of(bytes, 2);
    const vec *weights = (const vec *)given->weights;
    const ptrdiff_t lines = NAME(small_lines)(given->units);
    const int back_and_forth = 3 * of.count * lines * (ptrdiff_t)sizeof(vec) > L1_WEIGHTS;
    gru_small_steps now = *given, *s = &now;
    char buffers[2][SMALL_FACTORS], *factors = buffers[0], *next = buffers[1];
    NAME(make_factors)(s, factors);
    for (ptrdiff_t t = 0; t < given->steps; t++) {
        const int back = back_and_forth && (s->first_step + t) & 1;
        if (s->reset_after) {
            NAME(pass)(any, ALL_GATES, s, &of, back, weights, factors, next);
            char *swapped = factors;
            factors = next, next = swapped;
        } else {
            NAME(pass)(any, R_AND_Z, s, &of, 0, weights, factors, next);
            NAME(pass)(any, NEW_GATE, s, &of, 0, weights + 2 * of.count * lines, next, factors);
        }
        NAME(clear_rest)(s, of.count);
        for (ptrdiff_t row = 0; row < s->rows && s->output; row++)
            NAME(store_small)(s->output + row * s->output_row, s->h + row * s->ld_h, bytes);
        char *next_h = s->two_slots ? (char *)s->h_prev : s->h + (s->h - s->h_prev);
        s->h_in = s->h_prev = s->h, s->h = next_h;
        s->gates.data += s->gates_step;
        if (s->output) s->output += s->output_step;
    }
}

static void NAME(small_steps)(const gru_small_steps *s) { NAME(any_small_steps)(0, s); }

static void NAME(small_steps_any)(const gru_small_steps *s) { NAME(any_small_steps)(1, s); }
