/* Read by simd.h once a type. `vec` is a vector of REAL; a comparison gives a vector of masks. */

#define NAME(x) JOIN(x, SUFFIX)
#define vec NAME(vec)
#define ivec NAME(ivec)
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(REAL)))

typedef REAL vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
typedef BITS ivec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

/* Added to a small number, it leaves the nearest integer in the low bits. */
#define ROUND ((REAL)1.5 * (REAL)((BITS)1 << MANTISSA))

/* x held between two bounds; a NaN stays. */
INLINE vec NAME(clamp)(vec x, REAL least, REAL most)
{
    const vec low = (vec){0} + least, high = (vec){0} + most;
    const ivec below = x < low, above = x > high;
    return (vec)((below & (ivec)low) | (above & (ivec)high) | (~(below | above) & (ivec)x));
}

/* e^x = scale (1 + p), scale = 2^(k + extra) with k = round(x / ln 2), p = e^r - 1 of the rest r.
 * A NaN in x comes out in p. */
INLINE vec NAME(exp_parts)(vec x, BITS extra, vec *p)
{
    const REAL offset = ROUND + (REAL)(EXPONENT_BIAS + extra); /* the low bits: the exponent field */
    vec shifted = x * (REAL)LOG2_E + offset;
    vec k = shifted - offset;
    vec r = (x - k * (REAL)LN2_HIGH) - k * (REAL)LN2_LOW;
    *p = r + r * r * POLYNOMIAL(r);
    return (vec)((ivec)shifted << MANTISSA);
}

/* 1 / (1 + e^-x) as s / (s + s e^-x), s = 2^-SHIFT, which keeps s e^-x in range for every x. */
INLINE vec NAME(sigmoid)(vec x)
{
    const REAL s = (REAL)1 / ((uint64_t)1 << SHIFT);
    vec p, scale = NAME(exp_parts)(-NAME(clamp)(x, -SIGMOID_ZERO, SIGMOID_ONE), -SHIFT, &p);
    return s / ((s + scale) + scale * p);
}

/* m / (m + 2) with m = e^2x - 1, which keeps every digit of a small x. */
INLINE vec NAME(tanh)(vec x)
{
    vec p, scale = NAME(exp_parts)(NAME(clamp)((REAL)2 * x, -2 * TANH_ONE, 2 * TANH_ONE), 0, &p);
    vec m = scale * p + (scale - (REAL)1);
    return m / (m + (REAL)2);
}

/* ---- C (rows, columns) = START + A (rows, depth) . B (depth, columns) -------------------------------
 * A is read at a[i * a_row + k * a_col], so that its transpose needs no copy. START is C itself, one row
 * for all (start_row = 0: a bias) or, where NULL, zeros. Each element is one chain of multiply-adds in the order of k,
 * whatever the tile it falls into: a row's bits do not depend on the rows beside it.
 *
 * The sums are named variables: the compiler spills an array of vectors to memory. `rows` and `vectors`
 * are constants at each call, so that the unused ones vanish. */
#define EACH_ROW(X) X(0) X(1) X(2) X(3) X(4) X(5)
#define AT(pointer, v) (*(vec *)((pointer) + (v) * LANES))
#define CONST_AT(pointer, v) (*(const vec *)((pointer) + (v) * LANES))
#define DECLARE(i) vec c##i##0 = {0}, c##i##1 = {0}, c##i##2 = {0}, c##i##3 = {0};
#define START(i)                                                                \
    if (rows > i) {                                                             \
        const REAL *s = start + i * start_row;                                  \
        c##i##0 = CONST_AT(s, 0);                                               \
        if (vectors > 1) c##i##1 = CONST_AT(s, 1);                              \
        if (vectors > 2) c##i##2 = CONST_AT(s, 2);                              \
        if (vectors > 3) c##i##3 = CONST_AT(s, 3);                              \
    }
#define MULTIPLY_ADD(i)                                                         \
    if (rows > i) {                                                             \
        REAL s = a[i * a_row];                                                  \
        c##i##0 += s * b0;                                                      \
        if (vectors > 1) c##i##1 += s * b1;                                     \
        if (vectors > 2) c##i##2 += s * b2;                                     \
        if (vectors > 3) c##i##3 += s * b3;                                     \
    }
#define STORE(i)                                                                \
    if (rows > i) {                                                             \
        REAL *d = c + i * c_row;                                                \
        AT(d, 0) = c##i##0;                                                     \
        if (vectors > 1) AT(d, 1) = c##i##1;                                    \
        if (vectors > 2) AT(d, 2) = c##i##2;                                    \
        if (vectors > 3) AT(d, 3) = c##i##3;                                    \
    }

INLINE void NAME(tile)(const int rows, const int vectors, ptrdiff_t depth,
                       const REAL *a, ptrdiff_t a_row, ptrdiff_t a_col, const REAL *b, ptrdiff_t b_row,
                       const REAL *start, ptrdiff_t start_row, REAL *c, ptrdiff_t c_row)
{
    EACH_ROW(DECLARE)
    vec b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
    if (start) {
        EACH_ROW(START)
    }
    for (ptrdiff_t k = 0; k < depth; k++, a += a_col, b += b_row) {
        b0 = CONST_AT(b, 0);
        if (vectors > 1) b1 = CONST_AT(b, 1);
        if (vectors > 2) b2 = CONST_AT(b, 2);
        if (vectors > 3) b3 = CONST_AT(b, 3);
        EACH_ROW(MULTIPLY_ADD)
    }
    EACH_ROW(STORE)
}

/* All rows of one strip of `vectors` columns, in tiles of at most 6 rows of nearly equal height (two of 4
 * beat 6 and 2). */
INLINE void NAME(strip)(const int vectors, ptrdiff_t rows, ptrdiff_t depth,
                        const REAL *a, ptrdiff_t a_row, ptrdiff_t a_col, const REAL *b, ptrdiff_t b_row,
                        const REAL *start, ptrdiff_t start_row, REAL *c, ptrdiff_t c_row)
{
#define TILE(height) \
    case height: NAME(tile)(height, vectors, depth, a, a_row, a_col, b, b_row, start, start_row, c, c_row); break;
    for (ptrdiff_t tiles = (rows + 5) / 6; tiles > 0; tiles--) {
        ptrdiff_t height = (rows + tiles - 1) / tiles;
        switch (height) { TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) }
        a += height * a_row;
        c += height * c_row;
        if (start) start += height * start_row;
        rows -= height;
    }
#undef TILE
}

/* `columns` is a multiple of 64 bytes. */
static void NAME(product)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth,
                          const REAL *a, ptrdiff_t a_row, ptrdiff_t a_col, const REAL *b, ptrdiff_t b_row,
                          const REAL *start, ptrdiff_t start_row, REAL *c, ptrdiff_t c_row)
{
#define STRIP(n) NAME(strip)(n, rows, depth, a, a_row, a_col, b, b_row, start, start_row, c, c_row)
    const ptrdiff_t step = TILE_VECTORS * LANES;
    for (; columns >= step; columns -= step, b += step, c += step) {
        STRIP(TILE_VECTORS);
        if (start) start += step;
    }
#if TILE_VECTORS * VECTOR_BYTES > 64 /* else 64 bytes are a whole strip */
    switch (columns / LANES) {
    case 1: STRIP(1); break;
    case 2: STRIP(2); break;
    case 3: STRIP(3); break;
    }
#endif
#undef STRIP
}

#undef EACH_ROW
#undef AT
#undef CONST_AT
#undef DECLARE
#undef START
#undef MULTIPLY_ADD
#undef STORE
#undef ROUND
#undef LANES
#undef NAME
#undef vec
#undef ivec
#undef REAL
#undef BITS
#undef SUFFIX
#undef MANTISSA
#undef EXPONENT_BIAS
#undef SHIFT
#undef SIGMOID_ONE
#undef SIGMOID_ZERO
#undef TANH_ONE
#undef LOG2_E
#undef LN2_HIGH
#undef LN2_LOW
#undef POLYNOMIAL
