/* Read by simd.h once a type. `vec` is a vector of REAL; a comparison gives a vector of masks. */

#define NAME(x) JOIN(x, SUFFIX)
#define vec NAME(vec)
#define ivec NAME(ivec)
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(REAL)))

typedef REAL vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
typedef BITS ivec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

#define SIGN_BIT ((BITS)((BITS)1 << (8 * sizeof(BITS) - 1)))
#define ROUND ((REAL)1.5 * (REAL)((BITS)1 << MANTISSA)) /* added, it leaves the nearest integer in the low bits */

INLINE vec NAME(select)(ivec mask, vec yes, vec no)
{
    return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

INLINE vec NAME(absolute)(vec x) { return (vec)((ivec)x & ~SIGN_BIT); }

/* 2^k for k = round(x / ln 2), and p = e^r - 1 for the rest: e^x = 2^k (1 + p). `extra` is added to k.
 * A NaN in x comes out in p. */
INLINE vec NAME(exp_parts)(vec x, BITS extra, vec *p)
{
    vec shifted = x * (REAL)LOG2_E + ROUND;
    vec k = shifted - ROUND;
    vec r = (x - k * (REAL)LN2_HIGH) - k * (REAL)LN2_LOW;
    *p = r + r * r * POLYNOMIAL(r);
    return (vec)(((ivec)shifted + (BITS)(EXPONENT_BIAS + extra)) << MANTISSA);
}

/* 1 / (1 + e^-x), from t = e^-|x| <= 1, which cannot overflow: 1 / (1 + t), times t where x < 0.
 * 2^k would underflow before t does, so it is formed 2^64 times too large. */
INLINE vec NAME(sigmoid)(vec x)
{
    vec y = -NAME(absolute)(x);
    y = NAME(select)(y < (REAL)LOWEST_EXP, (vec){0} + (REAL)LOWEST_EXP, y);
    vec p, scale = NAME(exp_parts)(y, 64, &p);
    vec t = (scale + scale * p) * (REAL)0x1p-64;
    return NAME(select)(x < (REAL)0, t, (vec){0} + (REAL)1) / ((REAL)1 + t);
}

/* tanh |x| = -m / (2 + m) with m = e^(-2|x|) - 1, which keeps every digit of a small x. */
INLINE vec NAME(tanh)(vec x)
{
    vec y = (REAL)-2 * NAME(absolute)(x);
    y = NAME(select)(y < (REAL)LOWEST_TANH * 2, (vec){0} + (REAL)LOWEST_TANH * 2, y);
    vec p, scale = NAME(exp_parts)(y, 0, &p);
    vec m = scale * p + (scale - (REAL)1);
    vec magnitude = -m / ((REAL)2 + m);
    return (vec)((ivec)magnitude | ((ivec)x & SIGN_BIT));
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
#undef SIGN_BIT
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
#undef LOWEST_EXP
#undef LOWEST_TANH
#undef LOG2_E
#undef LN2_HIGH
#undef LN2_LOW
#undef POLYNOMIAL
