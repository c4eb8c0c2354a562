/* The microkernel. kernels.h includes this file once per dtype and sets REAL, SUFFIX, NAME, vec and half.
 * Macros are the same both times, so none is undefined in between.
 *
 *     gemm, gemm_prefetch     C (m, n) = C_INIT + A (m, k) . B (k, n); the same of a B of bfloat16 (bfloat16.h)
 *     gemm_packed             C (m, n) = A (m, k) . B (k, n), or with `accumulate` C += A . B
 *
 * m and k count rows; n, like all leading dimensions and strides, counts bytes. All matrices are row-major.
 *
 * A          m rows of k elements, `lda` apart. Packed (pack_a): blocks of nearly equal height, MR at most; a
 *            block is (k, MR), of which the columns past its height are not read.
 * B          micropanels of NR bytes of the columns, `stride` apart, each of lines that are `ld` apart; the last
 *            may be narrower. A line is a row; of bfloat16 it is two, and so is an element of A where it has
 *            bfloat16, too. n bytes of each line are read. (gemm prefetches up to a micropanel past the end.)
 * C_INIT     C itself, or no byte of C. One row for all where ld = 0 (a bias); zeros where data is NULL.
 * C          m rows of n bytes. Nothing beside them is written. What C held is not read, unless C_INIT is C.
 *            C overlaps neither A nor B.
 * prefetch   In gemm_prefetch: `step` bytes further, 64 at most, with each row of B that a microtile reads. It
 *            may run past the end. gemm ignores it.
 *
 * Preconditions, asserted in the debug build: n is a multiple of UNIT; pointers and distances are multiples of
 * the element. No more alignment is needed. m, n and k may be 0.
 *
 * The sum over k runs in blocks of at most CHAIN rows: each is one chain of multiply-adds that begins at zero, and
 * is added once to C_INIT or to what C holds by then. So the rounding error grows with the length of a block and
 * the number of blocks, not with k. Blocks follow from k alone, whatever microtile an element falls into: a row's
 * bits do not depend on the rows beside it. Blocks of bfloat16 are whole lines. Where A has bfloat16, too, all is
 * one block: that it rounds a little more is nothing beside what A and B lost (100,4,256,1024: 14.8 -> 14.5 ms). */

/* GCC 12 moves the loads of all rows of a microtile, of A or of C_INIT, to the front on arm64, and sums into
 * memory. */
#ifndef END_OF_ROW
#if defined(__aarch64__) && !defined(__clang__)
#define END_OF_ROW __asm__ volatile("" ::: "memory");
#else
#define END_OF_ROW
#endif

/* The compiler forgets what it knows of x. Else it keeps the addresses of all rows of C in registers that a loop
 * needs (inference of 20,256,64,100 5 % slower). */
#define OPAQUE(x) __asm__("" : "+r"(x))

/* Keeps the compiler from loading a line of B once for its two rows: registers are few, L1 is near. */
#define LOAD_AGAIN __asm__ volatile("" ::: "memory");

/* sum + the products of two bfloat16 of a and of b in each lane. In assembly: the module is built for processors that
 * may lack the instruction, so compilers do not inline its intrinsic. */
typedef int32_t bfloat16_pair __attribute__((may_alias));
#if defined(__AVX512F__)
#define HAVE_PAIRS 1
#define ADD_PRODUCTS_OF_PAIRS(sum, a, b) __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))
#else
#define HAVE_PAIRS 0
#define ADD_PRODUCTS_OF_PAIRS(sum, a, b) (void)(a)
#endif

/* What a microtile prefetches: nothing, where all is cache-resident; C; C and the memory of `prefetch`. */
enum { PREFETCH_NONE, PREFETCH_C, PREFETCH_ALL };

/* How A and B are stored: elements are REAL; those of B are bfloat16; those of both are. */
enum { STORED_AS_REAL, STORED_AS_BFLOAT16, BOTH_AS_BFLOAT16 };
#endif

/* ---- The microtile -----------------------------------------------------------------------------------------
 * The sums are named variables: the compiler spills an array of vectors to memory. `mode`, `storage`, `height`,
 * `vectors` and `halves` (0 or 1) are constants at each call, so that what is unused vanishes. `cols_a` is the
 * distance of A's columns.
 *
 * One or two rows alone keep what C will hold in registers until the end: 2 % faster (50,1,161,1760 and
 * 200,1,128,384). */
#define LANES ((ptrdiff_t)(GRU_VECTOR_BYTES / sizeof(REAL)))
#define EACH_ROW(X) X(0) X(1) X(2) X(3) X(4) X(5)
#define EACH_VECTOR(X, i) X(i, 0) X(i, 1) X(i, 2) X(i, 3) X(i, 4) X(i, 5) X(i, 6) X(i, 7)
#define VECTOR_AT(p, i, ld, v) (*(vec *)((p) + (i) * (ld) + (v) * GRU_VECTOR_BYTES))
#define HALF_AT(p, i, ld) (*(half *)((p) + (i) * (ld) + vectors * GRU_VECTOR_BYTES))
#define HAS(i, v) (height > i && vectors > v)

#define DECLARE(i) vec c##i##0 = {0}, c##i##1 = {0}, c##i##2 = {0}, c##i##3 = {0}; \
                   vec c##i##4 = {0}, c##i##5 = {0}, c##i##6 = {0}, c##i##7 = {0}; half d##i = {0};
#define PREFETCH_LINE(i, v)                                                                                 \
    if (height > i && vectors + halves > v && v * GRU_VECTOR_BYTES % 64 == 0)                               \
        __builtin_prefetch(next_c + i * ldc + v * GRU_VECTOR_BYTES, 1);
#define PREFETCH_ROW(i) EACH_VECTOR(PREFETCH_LINE, i)
#define VECTOR_OF_B(v) (*(const vec *)(b + v / GRU_NR_VECTORS * stride + v % GRU_NR_VECTORS * LANES))
#define HALF_OF_B (*(const half *)(b + vectors * LANES))
#define LOAD_B(_, v) if (vectors > v) b##v = VECTOR_OF_B(v);
#define WIDEN_LOW(_, v) if (vectors > v) b##v = (vec)((ivec)VECTOR_OF_B(v) << 16);
#define WIDEN_HIGH(_, v) if (vectors > v) b##v = (vec)((ivec)VECTOR_OF_B(v) & ~(BITS)0xffff);
#define ADD(i, v) if HAS(i, v) c##i##v += a##i * b##v;
#define ADD_ROW(i)                                                                                          \
    const vec a##i = (height > i ? *(const REAL *)(a + i * lda) : 0) - (vec){0}; /* in all lanes */         \
    EACH_VECTOR(ADD, i)                                                                                     \
    if (height > i && halves) d##i += JOIN(LOW, SUFFIX)(a##i) * b_half;                                     \
    END_OF_ROW
#define ADD_PAIR(i, v) if HAS(i, v) ADD_PRODUCTS_OF_PAIRS(c##i##v, a##i, b##v);
#define ADD_PAIR_ROW(i)                                                                                     \
    const vec a##i = (vec)((ivec){0} + (height > i ? *(const bfloat16_pair *)(a + i * lda) : 0));           \
    EACH_VECTOR(ADD_PAIR, i)                                                                                \
    if (height > i && halves) ADD_PRODUCTS_OF_PAIRS(d##i, JOIN(LOW, SUFFIX)(a##i), b_half);
#define ADD_INIT(i, v) if HAS(i, v) c##i##v += VECTOR_AT(init, i, ld_init, v);
#define ADD_INIT_ROW(i)                                                                                     \
    EACH_VECTOR(ADD_INIT, i)                                                                                \
    if (height > i && halves) d##i += HALF_AT(init, i, ld_init);                                            \
    END_OF_ROW
#define STORE(i, v) if HAS(i, v) VECTOR_AT(c, i, ldc, v) = c##i##v;
#define STORE_ROW(i)                                                                                        \
    EACH_VECTOR(STORE, i)                                                                                   \
    if (height > i && halves) HALF_AT(c, i, ldc) = d##i;

/* What C will hold, where it is kept. */
#define INIT_TOTAL(i, v)                                                                                    \
    vec t##i##v = {0};                                                                                      \
    if (keep && init && HAS(i, v)) t##i##v = VECTOR_AT(init, i, ld_init, v);
#define ADD_TOTAL(i, v) t##i##v += c##i##v;
#define STORE_TOTAL(i, v) if HAS(i, v) VECTOR_AT(c, i, ldc, v) = t##i##v;
#define INIT_TOTAL_ROW(i) EACH_VECTOR(INIT_TOTAL, i)
#define ADD_TOTAL_ROW(i) EACH_VECTOR(ADD_TOTAL, i)
#define STORE_TOTAL_ROW(i) EACH_VECTOR(STORE_TOTAL, i)

INLINE void NAME(microtile)(const int mode, const int storage, const int height, const int vectors,
                            const int halves, ptrdiff_t k, ptrdiff_t block, const char *a, ptrdiff_t lda,
                            ptrdiff_t cols_a,
                            const REAL *b, ptrdiff_t ldb, ptrdiff_t stride,
                            char *init, ptrdiff_t ld_init, char *c, ptrdiff_t ldc, char *next_c,
                            const char *prefetch, ptrdiff_t step)
{
    const int keep = height <= GRU_KEEP_ROWS && !halves && mode != PREFETCH_C;
    if (mode) { /* C of the next microtile: dW 75 -> 99 GFLOP/s. Not past the last, where another thread
                 * writes (50,8,80,256, two threads: 1104 -> 1056 us) */
        EACH_ROW(PREFETCH_ROW)
    }
    EACH_ROW(INIT_TOTAL_ROW)
    do {
        vec b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0}, b4 = {0}, b5 = {0}, b6 = {0}, b7 = {0};
        half b_half = {0};
        EACH_ROW(DECLARE)
        const ptrdiff_t length = k < block ? k : block;
        for (ptrdiff_t j = 0; storage == STORED_AS_REAL && j < length; j++, a += cols_a, b += ldb) {
            if (GRU_NR <= 64 && vectors <= GRU_NR_VECTORS && mode != PREFETCH_C)
                __builtin_prefetch(b + stride, 0, 2); /* 89 -> 105 GFLOP/s (AVX2, H = 1760); B of dW is in L2;
                                                       * wide microtiles read it anyway (160,2,64,256: 1740
                                                       * -> 1652 us) */
            if (mode == PREFETCH_ALL)
                __builtin_prefetch(prefetch + j * step, 0, 2); /* 75 -> 84 (backward of 20,512,100,100) */
            EACH_VECTOR(LOAD_B, _)
            if (halves) b_half = HALF_OF_B;
            EACH_ROW(ADD_ROW)
        }
        for (ptrdiff_t j = 0; storage != STORED_AS_REAL && j < length; j += 2, a += cols_a, b += ldb) {
            if (mode == PREFETCH_ALL) {
                __builtin_prefetch(prefetch + j * step, 0, 2);
                __builtin_prefetch(prefetch + (j + 1) * step, 0, 2);
            }
            if (storage == BOTH_AS_BFLOAT16) {
                EACH_VECTOR(LOAD_B, _)
                if (halves) b_half = HALF_OF_B;
                EACH_ROW(ADD_PAIR_ROW)
                continue;
            }
            {
                EACH_VECTOR(WIDEN_LOW, _)
                if (halves) b_half = (half)((half_bits)HALF_OF_B << 16);
                EACH_ROW(ADD_ROW)
            }
            a += cols_a;
            LOAD_AGAIN
            if (j + 1 < length) {
                EACH_VECTOR(WIDEN_HIGH, _)
                if (halves) b_half = (half)((half_bits)HALF_OF_B & ~(BITS)0xffff);
                EACH_ROW(ADD_ROW)
            }
        }
        if (keep) {
            EACH_ROW(ADD_TOTAL_ROW)
        } else {
            OPAQUE(init); OPAQUE(ld_init); OPAQUE(c); OPAQUE(ldc);
            if (init) {
                EACH_ROW(ADD_INIT_ROW)
            }
            EACH_ROW(STORE_ROW)
            init = c, ld_init = ldc;
        }
        if (mode == PREFETCH_ALL) prefetch += length * step;
        k -= length;
    } while (k > 0);
    if (keep) {
        EACH_ROW(STORE_TOTAL_ROW)
    }
}

/* ---- One row of 64 or 32 bytes: a vector of AVX-512, half a one, or a vector of AVX2 ------------------------- */
#if GRU_VECTOR_BYTES == 64
#define lone vec
#define LONE(name) NAME(name##_64)
#include "lone_vector.h"
#endif
#if GRU_VECTOR_BYTES >= 32
#define lone half
#define LONE(name) NAME(name##_32)
#include "lone_vector.h"
#endif

/* Within a microtile B's distances count elements: with bytes, GCC 12 adds an instruction to the loop of one row
 * (AVX2). */
INLINE ptrdiff_t NAME(elements)(ptrdiff_t bytes) { return (ptrdiff_t)((size_t)bytes / sizeof(REAL)); }

/* The length of nearly even blocks of at most CHAIN rows. */
INLINE ptrdiff_t NAME(block_length)(ptrdiff_t k)
{
    if (k <= GRU_CHAIN) return k; /* a division takes as long as a small row */
    const uint32_t blocks = (uint32_t)((k + GRU_CHAIN - 1) / GRU_CHAIN);
    return ((uint32_t)k + blocks - 1) / blocks;
}

INLINE void NAME(check)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, gru_view2 a, const gru_micropanels *b,
                        gru_view2 c_init, gru_view2 c)
{
    (void)m, (void)n, (void)k, (void)a, (void)b, (void)c_init, (void)c;
    GRU_ASSERT(m >= 0 && n >= 0 && k >= 0);
    GRU_ASSERT(n % GRU_UNIT == 0);
    GRU_ASSERT(((uintptr_t)a.data | (uintptr_t)b->data | (uintptr_t)c_init.data | (uintptr_t)c.data) %
               sizeof(REAL) == 0);
    GRU_ASSERT((a.ld | b->ld | b->stride | c_init.ld | c.ld) % (ptrdiff_t)sizeof(REAL) == 0);
    GRU_ASSERT(m <= 1 || c.ld >= n);
    GRU_ASSERT(m <= 1 || c_init.data != c.data || c_init.ld == c.ld);
}

/* ---- gemm --------------------------------------------------------------------------------------------------
 * All rows, in microtiles of nearly equal height (4 and 4 beat 6 and 2). */
INLINE void NAME(rows)(const int mode, const int storage, const int mr, const int vectors, const int halves,
                       ptrdiff_t m, ptrdiff_t k, ptrdiff_t block, const char *a, ptrdiff_t lda,
                       const REAL *b, ptrdiff_t ldb, ptrdiff_t stride,
                       char *init, ptrdiff_t ld_init, char *c, ptrdiff_t ldc,
                       const char *prefetch, ptrdiff_t step)
{
#define HEIGHT(height)                                                                                      \
    case height:                                                                                            \
        if (height <= mr)                                                                                   \
            NAME(microtile)(mode, storage, height, vectors, halves, k, block, a, lda, sizeof(REAL), b, ldb, \
                            stride, init, ld_init, c, ldc, left > 1 ? c + height * ldc : c, prefetch,       \
                            step);                                                                          \
        break;
    for (ptrdiff_t left = (m + mr - 1) / mr; left > 0; left--) {
        ptrdiff_t height = (m + left - 1) / left;
        switch (height) { HEIGHT(1) HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6) }
        a += height * lda;
        c += height * ldc;
        if (init) init += height * ld_init;
        prefetch += k * step;
        m -= height;
    }
}

/* The last columns may be half a vector of AVX-512: H = 100 would else compute 112 (20,256,64,100: 85 -> 89
 * GFLOP/s). One or two rows alone take wider microtiles, or one a lone vector: the chains of few sums are
 * latency-bound (31 -> 52 GFLOP/s, 1 row, AVX2). */
INLINE void NAME(any_gemm)(const int mode, const int storage, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, gru_view2 a_view,
                           const gru_micropanels *micropanels, gru_view2 c_init, gru_view2 c_view,
                           const char *prefetch, ptrdiff_t step)
{
    ptrdiff_t block = storage == BOTH_AS_BFLOAT16 ? k : NAME(block_length)(k);
    if (storage == STORED_AS_BFLOAT16) block += block & 1;
    const char *a = a_view.data;
    const REAL *b = (const REAL *)micropanels->data;
    const ptrdiff_t lda = a_view.ld, ldb = NAME(elements)(micropanels->ld);
    const ptrdiff_t stride = NAME(elements)(micropanels->stride);
    char *init = c_init.data, *c = c_view.data;
    const ptrdiff_t ld_init = c_init.ld, ldc = c_view.ld;
    NAME(check)(m, n, k, a_view, micropanels, c_init, c_view);
#define ROWS(mr, vectors, halves)                                                                           \
    NAME(rows)(mode, storage, mr, vectors, halves, m, k, block, a, lda, b, ldb, stride, init, ld_init, c,   \
               ldc, prefetch, step);
#define COLUMNS(mr, vectors)                                                                                \
    for (; n >= (vectors) * GRU_VECTOR_BYTES; n -= (vectors) * GRU_VECTOR_BYTES) {                          \
        ROWS(mr, vectors, 0)                                                                                \
        b += (vectors) / GRU_NR_VECTORS * stride;                                                           \
        c += (vectors) * GRU_VECTOR_BYTES;                                                                  \
        if (init) init += (vectors) * GRU_VECTOR_BYTES;                                                     \
        prefetch += (m + mr - 1) / mr * k * step;                                                           \
    }
#define LAST(vectors)                                                                                       \
    case 2 * (vectors): if (vectors) ROWS(GRU_MR, vectors, 0) break;                                        \
    case 2 * (vectors) + 1: ROWS(GRU_MR, vectors, 1) break;
#define LONE_VECTOR(bytes) NAME(lone_vector_##bytes)(k, block, (const REAL *)a, b, ldb, init, c);
#if GRU_VECTOR_BYTES == 64
    COLUMNS(GRU_MR, GRU_NR_VECTORS)
    if (storage == STORED_AS_REAL && m == 1 && n == GRU_UNIT) LONE_VECTOR(32)
    else if (storage == STORED_AS_REAL && m == 1 && n == GRU_VECTOR_BYTES) LONE_VECTOR(64)
    else switch (2 * n / GRU_VECTOR_BYTES) { LAST(0) LAST(1) LAST(2) LAST(3) }
#else
    if (GRU_NR_VECTORS == 2 && m == 1) COLUMNS(1, 8)
    if (GRU_NR_VECTORS == 2 && m <= 2) COLUMNS(2, 4)
    COLUMNS(GRU_MR, GRU_NR_VECTORS)
#if GRU_VECTOR_BYTES == 32
    if (storage == STORED_AS_REAL && m == 1 && n == 32) LONE_VECTOR(32)
    else
#endif
    COLUMNS(GRU_MR, 32 / GRU_VECTOR_BYTES)
#endif
}

/* Two functions: a row of 16 units takes nanoseconds, of which the code that prefetches would take 10 %. */
static void NAME(gemm)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, gru_view2 a, const gru_micropanels *b,
                       gru_view2 c_init, gru_view2 c, const gru_prefetch *prefetch)
{
    (void)prefetch;
    NAME(any_gemm)(PREFETCH_NONE, STORED_AS_REAL, m, n, k, a, b, c_init, c, NULL, 0);
}

static void NAME(gemm_prefetch)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, gru_view2 a, const gru_micropanels *b,
                                gru_view2 c_init, gru_view2 c, const gru_prefetch *prefetch)
{
    GRU_ASSERT(prefetch && prefetch->step >= 0 && prefetch->step <= 64);
    NAME(any_gemm)(PREFETCH_ALL, STORED_AS_REAL, m, n, k, a, b, c_init, c, prefetch->data, prefetch->step);
}

/* ---- gemm_packed, where C exceeds L2 -----------------------------------------------------------------------
 * All columns of a block of A come before the next block, so that C is visited row by row: 87 -> 103 GFLOP/s
 * (AVX2, H = 1760, against one micropanel after another). */
INLINE void NAME(packed_rows)(const int height, ptrdiff_t n, ptrdiff_t k, ptrdiff_t block, const char *a,
                              const REAL *b, ptrdiff_t ldb, ptrdiff_t stride,
                              int accumulate, char *c, ptrdiff_t ldc, char *next_row)
{
#define MICROTILE(vectors, halves, next_c)                                                                  \
    NAME(microtile)(PREFETCH_C, STORED_AS_REAL, height, vectors, halves, k, block, a, sizeof(REAL),         \
                    GRU_MR * sizeof(REAL), b, ldb, stride, accumulate ? c : NULL, ldc, c, ldc, next_c, NULL, 0);
#define PACKED_COLUMNS(vectors)                                                                             \
    for (; n >= (vectors) * GRU_VECTOR_BYTES; n -= (vectors) * GRU_VECTOR_BYTES) {                          \
        MICROTILE(vectors, 0,                                                                               \
                  n > (vectors) * GRU_VECTOR_BYTES ? c + (vectors) * GRU_VECTOR_BYTES : next_row)           \
        b += (vectors) / GRU_NR_VECTORS * stride;                                                           \
        c += (vectors) * GRU_VECTOR_BYTES;                                                                  \
    }
#define PACKED_LAST(vectors)                                                                                \
    case 2 * (vectors): if (vectors) MICROTILE(vectors, 0, next_row) break;                                 \
    case 2 * (vectors) + 1: MICROTILE(vectors, 1, next_row) break;
    PACKED_COLUMNS(GRU_NR_VECTORS)
#if GRU_VECTOR_BYTES == 64
    switch (2 * n / GRU_VECTOR_BYTES) { PACKED_LAST(0) PACKED_LAST(1) PACKED_LAST(2) PACKED_LAST(3) }
#else
    PACKED_COLUMNS(32 / GRU_VECTOR_BYTES)
#endif
}

static void NAME(gemm_packed)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const void *packed,
                              const gru_micropanels *micropanels, int accumulate, gru_view2 c_view)
{
    const char *a = (const char *)packed;
    const REAL *b = (const REAL *)micropanels->data;
    char *c = c_view.data;
    const ptrdiff_t ldb = NAME(elements)(micropanels->ld), stride = NAME(elements)(micropanels->stride);
    const ptrdiff_t ldc = c_view.ld, block = NAME(block_length)(k);
    NAME(check)(m, n, k, (gru_view2){(char *)a, 0}, micropanels, c_view, c_view);
#define PACKED_HEIGHT(height)                                                                               \
    case height:                                                                                            \
        NAME(packed_rows)(height, n, k, block, a, b, ldb, stride, accumulate, c, ldc,            \
                          left > 1 ? c + height * ldc : c);                                                 \
        break;
    for (ptrdiff_t left = (m + GRU_MR - 1) / GRU_MR; left > 0; left--) {
        ptrdiff_t height = (m + left - 1) / left;
        switch (height) {
            PACKED_HEIGHT(1) PACKED_HEIGHT(2) PACKED_HEIGHT(3) PACKED_HEIGHT(4) PACKED_HEIGHT(5) PACKED_HEIGHT(6)
        }
        a += GRU_MR * (ptrdiff_t)sizeof(REAL) * k;
        c += height * ldc;
        m -= height;
    }
}
