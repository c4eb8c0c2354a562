/* Read by simd.h once a type. `vec` is a vector of REAL; a comparison gives a vector of masks. */

#define NAME(x) JOIN(x, SUFFIX)
#define vec NAME(vec)
#define ivec NAME(ivec)
#define half NAME(half)
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(REAL)))

typedef REAL vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
typedef REAL half __attribute__((vector_size(32), aligned(sizeof(REAL)), may_alias));
typedef BITS ivec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

/* Added to a small number, it leaves the nearest integer in the low bits. */
#define ROUND ((REAL)1.5 * (REAL)((BITS)1 << MANTISSA))

/* x held between two bounds; a NaN stays. */
INLINE vec NAME(clamp)(vec x, REAL least, REAL most)
{
    const vec low = (vec){0} + least, high = (vec){0} + most;
#ifdef CLAMP_f32
    return JOIN(CLAMP, SUFFIX)(x, low, high);
#else
    const ivec below = x < low, above = x > high;
    return (vec)((below & (ivec)low) | (above & (ivec)high) | (~(below | above) & (ivec)x));
#endif
}

/* x, but zeros for NaN. */
INLINE vec NAME(nan_to_zero)(vec x)
{
    const ivec number = x == x;
    return (vec)(number & (ivec)x);
}

/* e^x = scale (1 + p), scale = 2^(k + extra) with k = round(x / ln 2), p = e^r - 1 of the rest r.
 * A NaN in x comes out in p. */
INLINE vec NAME(exp_parts)(vec x, BITS extra, vec *p)
{
    const REAL offset = ROUND + (REAL)(EXPONENT_BIAS + extra); /* the low bits: the exponent field */
    vec shifted = x * (REAL)LOG2_E + offset;
    vec k = shifted - offset;
    vec r = (x - k * (REAL)LN2_HIGH) - k * (REAL)LN2_LOW;
    vec r2 = r * r;
    *p = r + r2 * POLYNOMIAL(r, r2);
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

/* ---- C (rows, columns) = START + A (rows, depth) . B (depth, columns) --------------------------------------
 * A tile reads A at a[i * a_row + k * a_col]; a_col is 1 but for `product_tiles`. B lies in strips of
 * STRIP_BYTES of its columns, `b_strip` apart, rows `b_row` apart in each. START is C itself, one row for all
 * (start_row = 0: a bias) or, where NULL, zeros.
 *
 * The depth is summed in blocks of `block` elements: each is one chain of multiply-adds that begins at zero, and
 * is added once to START or to what C holds by then. So the rounding error grows with the length of a block and
 * the number of blocks, not with the depth. Blocks follow from the depth alone, whatever tile an element falls
 * into: a row's bits do not depend on the rows beside it.
 *
 * One or two rows alone keep what C holds in registers until the end (50,1,161,1760 and 200,1,128,384: 2 % faster).
 *
 * The sums are named variables: the compiler spills an array of vectors to memory. `ask`, `rows`, `vectors` and
 * `halves` (0 or 1) are constants at each call, so that what is unused vanishes. */
#define EACH_ROW(X) X(0) X(1) X(2) X(3) X(4) X(5)
#define EACH_VECTOR(X, i) X(i, 0) X(i, 1) X(i, 2) X(i, 3) X(i, 4) X(i, 5) X(i, 6) X(i, 7)
#define DECLARE(i) vec c##i##0 = {0}, c##i##1 = {0}, c##i##2 = {0}, c##i##3 = {0}; \
                   vec c##i##4 = {0}, c##i##5 = {0}, c##i##6 = {0}, c##i##7 = {0}; half d##i = {0};
#define FETCH(i, v)                                                                                         \
    if (rows > i && vectors + halves > v && v * VECTOR_BYTES % 64 == 0)                                     \
        gru_fetch_to_write(next_c + i * c_row + v * LANES);
#define FETCH_ROW(i) EACH_VECTOR(FETCH, i)
#define ADD_START(i, v) if (rows > i && vectors > v) c##i##v += *(const vec *)(start + i * start_row + v * LANES);
#define ADD_START_ROW(i)                                                                                    \
    EACH_VECTOR(ADD_START, i)                                                                               \
    if (rows > i && halves) d##i += *(const half *)(start + i * start_row + end);                           \
    END_OF_ROW
#define LOAD_B(_, v)                                                                                        \
    if (vectors > v) b##v = *(const vec *)(b + v / TILE_VECTORS * b_strip + v % TILE_VECTORS * LANES);
#define ADD(i, v) if (rows > i && vectors > v) c##i##v += a##i * b##v;
#define ADD_ROW(i)                                                                                          \
    const vec a##i = (rows > i ? a[i * a_row] : 0) - (vec){0}; /* in all lanes */                           \
    EACH_VECTOR(ADD, i)                                                                                     \
    if (rows > i && halves) d##i += JOIN(LOW, SUFFIX)(a##i) * b_half;                                       \
    END_OF_ROW
#define STORE_SUM(i, v) if (rows > i && vectors > v) *(vec *)(c + i * c_row + v * LANES) = c##i##v;
#define STORE_ROW(i)                                                                                        \
    EACH_VECTOR(STORE_SUM, i)                                                                               \
    if (rows > i && halves) *(half *)(c + i * c_row + end) = d##i;

/* What C will hold, where it is kept. */
#define FIRST_TOTAL(i, v)                                                                                   \
    vec t##i##v = {0};                                                                                      \
    if (keep && start && rows > i && vectors > v) t##i##v = *(const vec *)(start + i * start_row + v * LANES);
#define ADD_TOTAL(i, v) t##i##v += c##i##v;
#define STORE_TOTAL(i, v) if (rows > i && vectors > v) *(vec *)(c + i * c_row + v * LANES) = t##i##v;
#define FIRST_TOTAL_ROW(i) EACH_VECTOR(FIRST_TOTAL, i)
#define ADD_TOTAL_ROW(i) EACH_VECTOR(ADD_TOTAL, i)
#define STORE_TOTAL_ROW(i) EACH_VECTOR(STORE_TOTAL, i)

/* The length of nearly even blocks of at most SUM_DEPTH. */
INLINE ptrdiff_t NAME(block_length)(ptrdiff_t depth)
{
    if (depth <= SUM_DEPTH) return depth; /* a division takes as long as a small row */
    const uint32_t blocks = (uint32_t)((depth + SUM_DEPTH - 1) / SUM_DEPTH);
    return ((uint32_t)depth + blocks - 1) / blocks;
}

INLINE void NAME(tile)(const int ask, const int rows, const int vectors, const int halves,
                       ptrdiff_t depth, ptrdiff_t block, const REAL *a, ptrdiff_t a_row, ptrdiff_t a_col,
                       const REAL *b, ptrdiff_t b_row, ptrdiff_t b_strip,
                       const REAL *start, ptrdiff_t start_row, REAL *c, ptrdiff_t c_row, REAL *next_c,
                       const char *ahead, ptrdiff_t ahead_step)
{
    const ptrdiff_t end = vectors * LANES; /* of the whole vectors */
    const int keep = rows <= KEEP_ROWS && !halves && ask != ASK_C;
    if (ask) { /* The next tile's C fetched ahead: dW at 99 instead of 75 GFLOP/s. After the last comes no
                * next: what lies there is another thread's (50,8,80,256 on two: 1056 instead of 1104 us) */
        EACH_ROW(FETCH_ROW)
    }
    EACH_ROW(FIRST_TOTAL_ROW)
    do {
        vec b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0}, b4 = {0}, b5 = {0}, b6 = {0}, b7 = {0};
        half b_half = {0};
        EACH_ROW(DECLARE)
        const ptrdiff_t length = depth < block ? depth : block;
        for (ptrdiff_t k = 0; k < length; k++, a += a_col, b += b_row) {
            if (STRIP_BYTES <= 64 && ask != ASK_C)
                __builtin_prefetch(b + b_strip, 0, 2); /* AVX2, H = 1760: 105, not 89 GFLOP/s; dW's B is near */
            if (ask == ASK_ALL)
                __builtin_prefetch(ahead + k * ahead_step, 0, 2); /* backward of 20,512,100,100: 84, not 75 */
            EACH_VECTOR(LOAD_B, _)
            if (halves) b_half = *(const half *)(b + end);
            EACH_ROW(ADD_ROW)
        }
        if (keep) {
            EACH_ROW(ADD_TOTAL_ROW)
        } else {
            OPAQUE(start); OPAQUE(start_row); OPAQUE(c); OPAQUE(c_row);
            if (start) {
                EACH_ROW(ADD_START_ROW)
            }
            EACH_ROW(STORE_ROW)
            start = c, start_row = c_row;
        }
        if (ask == ASK_ALL) ahead += length * ahead_step;
        depth -= length;
    } while (depth > 0);
    if (keep) {
        EACH_ROW(STORE_TOTAL_ROW)
    }
}

/* All rows of a strip of columns, in tiles of nearly equal height (two of 4 beat 6 and 2). */
INLINE void NAME(strip)(const int ask, const int most, const int vectors, const int halves, ptrdiff_t rows,
                        ptrdiff_t depth, ptrdiff_t block, const REAL *a, ptrdiff_t a_row,
                        const REAL *b, ptrdiff_t b_row, ptrdiff_t b_strip,
                        const REAL *start, ptrdiff_t start_row, REAL *c, ptrdiff_t c_row,
                        const char *ahead, ptrdiff_t ahead_step)
{
#define TILE(height)                                                                                        \
    case height:                                                                                            \
        if (height <= most)                                                                                 \
            NAME(tile)(ask, height, vectors, halves, depth, block, a, a_row, 1, b, b_row, b_strip,          \
                       start, start_row, c, c_row, tiles > 1 ? c + height * c_row : c, ahead, ahead_step);  \
        break;
    for (ptrdiff_t tiles = (rows + most - 1) / most; tiles > 0; tiles--) {
        ptrdiff_t height = (rows + tiles - 1) / tiles;
        switch (height) { TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) }
        a += height * a_row;
        c += height * c_row;
        if (start) start += height * start_row;
        ahead += depth * ahead_step;
        rows -= height;
    }
#undef TILE
}

/* `columns` is a multiple of 32 bytes: the last of a row may be half a vector of AVX-512, for H = 100 would
 * else compute 112 (20,256,64,100: 89 instead of 85 GFLOP/s). One or two rows alone want wider tiles, or the
 * chains of their few sums wait for themselves (AVX2, 1 row: 52 instead of 31 GFLOP/s). */
INLINE void NAME(any_product)(const int ask, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth,
                              const REAL *a, ptrdiff_t a_row, const REAL *b, ptrdiff_t b_row, ptrdiff_t b_strip,
                              const REAL *start, ptrdiff_t start_row, REAL *c, ptrdiff_t c_row,
                              const char *ahead, ptrdiff_t ahead_step)
{
    const ptrdiff_t block = NAME(block_length)(depth);
#define STRIP(most, vectors, halves)                                                                        \
    NAME(strip)(ask, most, vectors, halves, rows, depth, block, a, a_row, b, b_row, b_strip,                \
                start, start_row, c, c_row, ahead, ahead_step);
#define STRIPS(most, n)                                                                                     \
    for (; columns >= (n) * LANES; columns -= (n) * LANES) {                                                \
        STRIP(most, n, 0)                                                                                   \
        b += (n) / TILE_VECTORS * b_strip;                                                                  \
        c += (n) * LANES;                                                                                   \
        if (start) start += (n) * LANES;                                                                    \
        ahead += (rows + most - 1) / most * depth * ahead_step;                                             \
    }
#define LAST(n)                                                                                             \
    case 2 * (n): if (n) STRIP(TILE_ROWS, n, 0) break;                                                      \
    case 2 * (n) + 1: STRIP(TILE_ROWS, n, 1) break;
#if VECTOR_BYTES == 64
    STRIPS(TILE_ROWS, TILE_VECTORS)
    switch (2 * columns / LANES) { LAST(0) LAST(1) LAST(2) LAST(3) }
#else
    if (TILE_VECTORS == 2 && rows == 1) STRIPS(1, 8)
    if (TILE_VECTORS == 2 && rows <= 2) STRIPS(2, 4)
    STRIPS(TILE_ROWS, TILE_VECTORS)
    STRIPS(TILE_ROWS, 32 / VECTOR_BYTES)
#endif
#undef LAST
#undef STRIPS
#undef STRIP
}

/* Two functions: a row of 16 units takes nanoseconds, and the code that asks would cost 10 % of them. */
static void NAME(product)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth,
                          const REAL *a, ptrdiff_t a_row, const REAL *b, ptrdiff_t b_row, ptrdiff_t b_strip,
                          const REAL *start, ptrdiff_t start_row, REAL *c, ptrdiff_t c_row)
{
    NAME(any_product)(ASK_NOTHING, rows, columns, depth, a, a_row, b, b_row, b_strip,
                      start, start_row, c, c_row, NULL, 0);
}

static void NAME(product_far)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth,
                              const REAL *a, ptrdiff_t a_row, const REAL *b, ptrdiff_t b_row,
                              ptrdiff_t b_strip, const REAL *start, ptrdiff_t start_row,
                              REAL *c, ptrdiff_t c_row, const char *ahead, ptrdiff_t ahead_step)
{
    NAME(any_product)(ASK_ALL, rows, columns, depth, a, a_row, b, b_row, b_strip,
                      start, start_row, c, c_row, ahead, ahead_step);
}

/* ---- C (rows, columns) = A . B, or with `add` C += A . B, where A is in tiles and C far ---------------------
 * A column of a tile has TILE_ROWS elements. All columns of a tile come before the next tile, so that C is
 * visited row by row (AVX2, H = 1760: 103 instead of 87 GFLOP/s strip by strip). */
INLINE void NAME(row_of_tiles)(const int height, ptrdiff_t columns, ptrdiff_t depth,
                               ptrdiff_t block, const REAL *a,
                               const REAL *b, ptrdiff_t b_row, ptrdiff_t b_strip,
                               int add, REAL *c, ptrdiff_t c_row, REAL *next_row)
{
#define TILE(vectors, halves, next_c)                                                                       \
    NAME(tile)(ASK_C, height, vectors, halves, depth, block, a, 1, TILE_ROWS, b, b_row, b_strip,            \
               add ? c : NULL, c_row, c, c_row, next_c, NULL, 0);
#define TILES(n)                                                                                            \
    for (; columns >= (n) * LANES; columns -= (n) * LANES) {                                                \
        TILE(n, 0, columns > (n) * LANES ? c + (n) * LANES : next_row)                                      \
        b += (n) / TILE_VECTORS * b_strip;                                                                  \
        c += (n) * LANES;                                                                                   \
    }
#define LAST(n)                                                                                             \
    case 2 * (n): if (n) TILE(n, 0, next_row) break;                                                        \
    case 2 * (n) + 1: TILE(n, 1, next_row) break;
    TILES(TILE_VECTORS)
#if VECTOR_BYTES == 64
    switch (2 * columns / LANES) { LAST(0) LAST(1) LAST(2) LAST(3) }
#else
    TILES(32 / VECTOR_BYTES)
#endif
#undef LAST
#undef TILES
#undef TILE
}

static void NAME(product_tiles)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const REAL *a,
                                const REAL *b, ptrdiff_t b_row, ptrdiff_t b_strip,
                                int add, REAL *c, ptrdiff_t c_row)
{
    const ptrdiff_t block = NAME(block_length)(depth);
#define ROW(height)                                                                                         \
    case height:                                                                                            \
        NAME(row_of_tiles)(height, columns, depth, block, a, b, b_row, b_strip, add, c, c_row,                     \
                           tiles > 1 ? c + height * c_row : c);                                             \
        break;
    for (ptrdiff_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS; tiles > 0; tiles--) {
        ptrdiff_t height = (rows + tiles - 1) / tiles;
        switch (height) { ROW(1) ROW(2) ROW(3) ROW(4) ROW(5) ROW(6) }
        a += TILE_ROWS * depth;
        c += height * c_row;
        rows -= height;
    }
#undef ROW
}

#undef EACH_ROW
#undef EACH_VECTOR
#undef DECLARE
#undef FETCH
#undef FETCH_ROW
#undef ADD_START
#undef ADD_START_ROW
#undef LOAD_B
#undef ADD
#undef ADD_ROW
#undef FIRST_TOTAL
#undef ADD_TOTAL
#undef STORE_TOTAL
#undef FIRST_TOTAL_ROW
#undef ADD_TOTAL_ROW
#undef STORE_TOTAL_ROW
#undef STORE_SUM
#undef STORE_ROW
#undef ROUND
#undef LANES
#undef NAME
#undef vec
#undef ivec
#undef half
#undef REAL
#undef BITS
#undef SUFFIX
#undef MANTISSA
#undef EXPONENT_BIAS
#undef SHIFT
#undef SIGMOID_ZERO
#undef SIGMOID_ONE
#undef TANH_ONE
#undef LOG2_E
#undef LN2_HIGH
#undef LN2_LOW
#undef POLYNOMIAL
