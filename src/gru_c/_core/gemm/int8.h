/* Products of int8 weights, and what makes rows of int8 of the other factor. A module that includes this file is
 * compiled without contraction of multiply and add: then each operation is rounded by itself, sums of int8 are
 * exact, and results have the same bits on every instruction set.
 *
 *     gemm_int8, gemm_int8_12_bits     C (m, n) = C_INIT + A (m, k) . B (k, n)
 *     quantize_rows
 *
 * B          micropanels as in microkernel.h. Their lines: scales (float) of the columns; offsets (int32), with which
 *            sums begin; then groups of four rows, of each column four bytes side by side, with zeros at the end.
 * A          rows of quantize_rows: bytes (with 12 bits all high ones, then all low ones), with AVX2 magnitudes, and
 *            all signs after them; then a scale (float) and an offset (int32), which is added to sums
 * C, C_INIT  as in microkernel.h, but n is a multiple of 64 bytes */
#ifndef GRU_C_INT8_H
#define GRU_C_INT8_H

#include <string.h>

#include "../vmath/vector.h"
#include "views.h"

typedef vec_f32 fvec;
typedef ivec_f32 isum;

/* dot(sum, a, w): sum + the products of four bytes of a and of w in each lane.
 *
 * With VNNI a is unsigned: quantize_rows flips the high bit, which adds 128, and sums begin at -128 times the sum of
 * the weights. Without it, AVX2 multiplies |a| by w with the sign of a: a pair of products is at most 32,512, so
 * nothing saturates. add_products does without the sign of w. */
#if defined(__AVX512VNNI__) && GRU_VECTOR_BYTES == 64
#define INT8_FLIP 0x80
#define INT8_MR 6
#define INT8_VECTORS 4
INLINE isum dot(isum sum, isum a, isum w)
{
    return (isum)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)w);
}
#elif defined(__AVXVNNI__) && GRU_VECTOR_BYTES == 32
#define INT8_FLIP 0x80
#define INT8_MR 3
#define INT8_VECTORS 4
INLINE isum dot(isum sum, isum a, isum w)
{
    return (isum)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)a, (__m256i)w);
}
#elif defined(__AVX2__) && GRU_VECTOR_BYTES == 32
#define INT8_FLIP 0
#define INT8_MR 2
#define INT8_VECTORS 4
INLINE isum dot(isum sum, isum a, isum w)
{
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)a),
                                               _mm256_sign_epi8((__m256i)w, (__m256i)a));
    return sum + (isum)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#elif defined(__SSE2__) && GRU_VECTOR_BYTES == 16
#define INT8_FLIP 0
#define INT8_MR 2
#define INT8_VECTORS 2
INLINE isum dot(isum sum, isum a, isum w)
{
    const __m128i a8 = (__m128i)a, w8 = (__m128i)w; /* each byte twice, shifted: 16 bits with its sign */
    const __m128i a16 = _mm_srai_epi16(_mm_unpacklo_epi8(a8, a8), 8);
    const __m128i low = _mm_madd_epi16(a16, _mm_srai_epi16(_mm_unpacklo_epi8(w8, w8), 8));
    const __m128i high = _mm_madd_epi16(a16, _mm_srai_epi16(_mm_unpackhi_epi8(w8, w8), 8));
    const __m128 even = _mm_shuffle_ps((__m128)low, (__m128)high, 0x88);
    const __m128 odd = _mm_shuffle_ps((__m128)low, (__m128)high, 0xdd);
    return sum + ((isum)even + (isum)odd);
}
#elif defined(__aarch64__)
#define INT8_FLIP 0
#define INT8_MR 4
#define INT8_VECTORS 4
INLINE isum dot(isum sum, isum a, isum w)
{
    const int8x16_t a8 = (int8x16_t)a, w8 = (int8x16_t)w;
#if defined(__ARM_FEATURE_DOTPROD)
    return (isum)vdotq_s32((int32x4_t)sum, a8, w8);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(a8), vget_low_s8(w8)), high = vmull_high_s8(a8, w8);
    return (isum)vpadalq_s16((int32x4_t)sum, vpaddq_s16(low, high));
#endif
}
#else /* another processor, or a build for one with AVX-512 and without VNNI */
#define INT8_FLIP 0
#define INT8_MR 2
#define INT8_VECTORS GRU_NR_VECTORS
INLINE isum dot(isum sum, isum a, isum w)
{
    for (int byte = 0; byte < 4; byte++)
        sum += (a << (24 - 8 * byte) >> 24) * (w << (24 - 8 * byte) >> 24);
    return sum;
}
#endif

/* Lines of scales and of offsets. */
#define INT8_HEAD 2

/* A group of a row in all lanes, and products with it. With AVX2 the bytes are magnitudes, and a sign has all bits of
 * a negative one set: |a| (w ^ sign) is a w, less |a| where a is negative. So `dot` without the subtraction is short
 * by the sum of these |a|, which is one number for all columns: the row's offset. A pair just fits: where |a| is 128,
 * of 12 bits, a is negative, and 128 times -w - 1 is at least -16,384. Magnitudes and signs are apart in memory: made
 * from the bytes for each group they took 6 to 9 % of the time of a batch. */
typedef int32_t int8_group __attribute__((may_alias, aligned(4)));
typedef struct {
    isum bytes, signs;
} int8_factor;

#if defined(__AVX2__) && GRU_VECTOR_BYTES == 32 && !defined(__AVXVNNI__)
#define INT8_SIGNS 1
INLINE isum add_products(isum sum, int8_factor a, isum w)
{
    const __m256i pairs = _mm256_maddubs_epi16((__m256i)a.bytes, (__m256i)(w ^ a.signs));
    return sum + (isum)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#else
#define INT8_SIGNS 0
INLINE isum add_products(isum sum, int8_factor a, isum w) { return dot(sum, a.bytes, w); }
#endif

INLINE int8_factor factor_at(const char *bytes, ptrdiff_t to_signs)
{
    int8_factor a = {(isum){0} + *(const int8_group *)bytes, {0}};
    if (INT8_SIGNS) a.signs = (isum){0} + *(const int8_group *)(bytes + to_signs);
    return a;
}

/* Whether a lane is not zero. */
INLINE int any_set(isum x)
{
#if GRU_VECTOR_BYTES == 64
    return _mm512_test_epi32_mask((__m512i)x, (__m512i)x) != 0;
#elif GRU_VECTOR_BYTES == 32
    return !_mm256_testz_si256((__m256i)x, (__m256i)x);
#else
    return (x[0] | x[1] | x[2] | x[3]) != 0;
#endif
}

INLINE ptrdiff_t int8_groups(ptrdiff_t k) { return (k + 3) / 4; }

/* What follows the bytes of a row. */
typedef struct {
    float scale;
    int32_t offset;
} int8_row_end;

/* ---- The microtile -------------------------------------------------------------------------------------------
 * `wide`, `height` (rows of bytes) and `vectors` are constants at each call. With `wide`, two rows of bytes are a
 * row of A. One row has a second set of sums, for every second group: its chains are too few. */
#define INT8_LANES ((ptrdiff_t)(GRU_VECTOR_BYTES / sizeof(float)))
#define INT8_ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5)
#define INT8_COLUMNS(X, i) X(i, 0) X(i, 1) X(i, 2) X(i, 3)
#define INT8_HAS(i, v) (height > i && vectors > v)
#define INT8_LINE(b, line, v)                                                                               \
    (*(const isum *)((b) + (line) * ldb + v / GRU_NR_VECTORS * stride + v % GRU_NR_VECTORS * INT8_LANES))

#define INT8_BEGIN(i, v) isum c##i##v = {0}; if INT8_HAS(i, v) c##i##v = INT8_LINE(b, 1, v);
#define INT8_BEGIN_ROW(i)                                                                                   \
    const char *a##i = a + (wide ? i / 2 * lda + i % 2 * 4 * groups : i * lda);                             \
    INT8_COLUMNS(INT8_BEGIN, i)
/* GCC would load the weights again for each row: 810 -> 1030 Gop/s. */
#if defined(__AVX512F__)
#define INT8_OPAQUE(x) __asm__("" : "+v"(x))
#elif defined(__SSE2__)
#define INT8_OPAQUE(x) __asm__("" : "+x"(x))
#elif defined(__aarch64__)
#define INT8_OPAQUE(x) __asm__("" : "+w"(x))
#else
#define INT8_OPAQUE(x) (void)(x)
#endif
#define INT8_LOAD(_, v)                                                                                     \
    isum w##v = {0};                                                                                        \
    if (vectors > v) { w##v = INT8_LINE(weights, j, v); if (height > 1 && !INT8_SIGNS) INT8_OPAQUE(w##v); }
#define INT8_ADD(i, v) if INT8_HAS(i, v) c##i##v = add_products(c##i##v, x##i, w##v);
#define INT8_ADD_ROW(i)                                                                                     \
    int8_factor x##i;                                                                                       \
    if (height > i) x##i = factor_at(a##i + 4 * j, to_signs);                                               \
    INT8_COLUMNS(INT8_ADD, i)
#define INT8_NEXT(_, v) isum d##v = {0};
#define INT8_ADD_NEXT(_, v) if (vectors > v) d##v = add_products(d##v, next, INT8_LINE(weights, j + 1, v));
#define INT8_ADD_UP(_, v) if (vectors > v) c0##v += d##v;
#define INT8_STORE(i, v) if INT8_HAS(i, v) sums[i * INT8_VECTORS + v] = c##i##v;
#define INT8_STORE_ROW(i) INT8_COLUMNS(INT8_STORE, i)

INLINE void int8_microtile(const int wide, const int height, const int vectors, ptrdiff_t groups, const char *a,
                           ptrdiff_t lda, const float *b, ptrdiff_t ldb, ptrdiff_t stride, isum *sums)
{
    const float *weights = b + INT8_HEAD * ldb;
    const ptrdiff_t to_signs = (1 + wide) * 4 * groups;
    ptrdiff_t j = 0;
    INT8_ROWS(INT8_BEGIN_ROW)
    if (height == 1) {
        INT8_COLUMNS(INT8_NEXT, _)
        for (; j + 1 < groups; j += 2) {
            const int8_factor next = factor_at(a0 + 4 * j + 4, to_signs);
            INT8_COLUMNS(INT8_LOAD, _)
            INT8_ROWS(INT8_ADD_ROW)
            INT8_COLUMNS(INT8_ADD_NEXT, _)
        }
        INT8_COLUMNS(INT8_ADD_UP, _)
    }
    for (; j < groups; j++) {
        INT8_COLUMNS(INT8_LOAD, _)
        INT8_ROWS(INT8_ADD_ROW)
    }
    INT8_ROWS(INT8_STORE_ROW)
}

/* C = C_INIT + (sums + offset of the row) * (scale of the column * scale of the row). A loop of its own: within the
 * microtile it would make the sums spill (1060 -> 430 Gop/s). */
NOINLINE void int8_scale(const int wide, ptrdiff_t rows, ptrdiff_t vectors, const isum *sums, const char *row_ends,
                         ptrdiff_t lda, const float *b, ptrdiff_t stride, const char *init, ptrdiff_t ld_init,
                         char *c, ptrdiff_t ldc)
{
    for (ptrdiff_t i = 0; i < rows; i++) {
        const int8_row_end row = *(const int8_row_end *)(row_ends + i * lda);
        for (ptrdiff_t v = 0; v < vectors; v++) {
            const fvec scale = *(const fvec *)(b + v / GRU_NR_VECTORS * stride + v % GRU_NR_VECTORS * INT8_LANES);
            isum sum = sums[v];
            if (wide) sum = (sum << 4) + sums[INT8_VECTORS + v];
            if (INT8_SIGNS) sum += row.offset;
            fvec term = __builtin_convertvector(sum, fvec) * (scale * row.scale);
            if (init) term = *(const fvec *)(init + i * ld_init + v * GRU_VECTOR_BYTES) + term;
            *(fvec *)(c + i * ldc + v * GRU_VECTOR_BYTES) = term;
        }
        sums += (1 + wide) * INT8_VECTORS;
    }
}

/* ---- gemm: all rows of some vectors, in microtiles of nearly equal height ---------------------------------------- */
INLINE void int8_rows(const int wide, const int vectors, ptrdiff_t m, ptrdiff_t groups, gru_view2 a,
                      const float *b, ptrdiff_t ldb, ptrdiff_t stride, gru_view2 init, gru_view2 c)
{
    const ptrdiff_t most = INT8_MR / (1 + wide), bytes = (1 + INT8_SIGNS) * (1 + wide) * 4 * groups;
    isum sums[INT8_MR * INT8_VECTORS];
#define INT8_HEIGHT(height)                                                                                 \
    case height:                                                                                            \
        if ((1 + wide) * height <= INT8_MR)                                                                 \
            int8_microtile(wide, (1 + wide) * height, vectors, groups, a.data, a.ld, b, ldb, stride, sums); \
        break;
    for (ptrdiff_t left = (m + most - 1) / most; left > 0; left--) {
        const ptrdiff_t height = (m + left - 1) / left;
        switch (height) {
            INT8_HEIGHT(1) INT8_HEIGHT(2) INT8_HEIGHT(3) INT8_HEIGHT(4) INT8_HEIGHT(5) INT8_HEIGHT(6)
        }
        int8_scale(wide, height, vectors, sums, a.data + bytes, a.ld, b, stride, init.data, init.ld, c.data, c.ld);
        a.data += height * a.ld;
        c.data += height * c.ld;
        if (init.data) init.data += height * init.ld;
        m -= height;
    }
}

INLINE void int8_gemm(const int wide, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, gru_view2 a,
                      const gru_micropanels *micropanels, gru_view2 init, gru_view2 c)
{
    const float *b = (const float *)micropanels->data;
    const ptrdiff_t ldb = micropanels->ld / (ptrdiff_t)sizeof(float);
    const ptrdiff_t stride = micropanels->stride / (ptrdiff_t)sizeof(float);
    GRU_ASSERT(n % 64 == 0 && m >= 0 && k >= 0);
#define INT8_PASS(vectors)                                                                                  \
    for (; n >= (vectors) * GRU_VECTOR_BYTES; n -= (vectors) * GRU_VECTOR_BYTES) {                          \
        int8_rows(wide, vectors, m, int8_groups(k), a, b, ldb, stride, init, c);                            \
        b += (vectors) / GRU_NR_VECTORS * stride;                                                           \
        c.data += (vectors) * GRU_VECTOR_BYTES;                                                             \
        if (init.data) init.data += (vectors) * GRU_VECTOR_BYTES;                                           \
    }
    INT8_PASS(INT8_VECTORS)
#if GRU_VECTOR_BYTES == 64
    switch (n / GRU_VECTOR_BYTES) {
        case 1: INT8_PASS(1) break;
        case 2: INT8_PASS(2) break;
        case 3: INT8_PASS(3) break;
    }
#elif INT8_VECTORS > GRU_NR_VECTORS
    INT8_PASS(GRU_NR_VECTORS)
#endif
}

static void gemm_int8(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, gru_view2 a, const gru_micropanels *b,
                      gru_view2 c_init, gru_view2 c, const gru_prefetch *prefetch)
{
    (void)prefetch;
    int8_gemm(0, m, n, k, a, b, c_init, c);
}

static void gemm_int8_12_bits(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, gru_view2 a, const gru_micropanels *b,
                              gru_view2 c_init, gru_view2 c, const gru_prefetch *prefetch)
{
    (void)prefetch;
    int8_gemm(1, m, n, k, a, b, c_init, c);
}

/* ---- quantize_rows ---------------------------------------------------------------------------------------------
 * x8 = rint(x * (top / m)), scale = m / top, where m is the largest |x| of the row, at least `least`. A row with a NaN
 * or an infinity has the scale NaN, so that its products are NaN. One of nearly nothing counts as zero: top / m would
 * overflow. */
#define INT8_TINY 0x1p-100f
#define INT8_ROUND 0x1.8p23f /* added to a small number, it leaves the nearest integer in the low bits */
#define INT8_ROUND_BITS 0x4b400000

/* The bits of |x| sort as |x| does, and NaN comes last. */
INLINE int32_t largest_bits(ptrdiff_t k, const float *x)
{
    int32_t most = 0;
    for (ptrdiff_t j = 0; j < k; j++) {
        int32_t bits;
        memcpy(&bits, x + j, sizeof bits);
        bits &= INT32_MAX;
        most = bits > most ? bits : most;
    }
    return most;
}

INLINE int32_t nearest(float x)
{
    int32_t bits;
    x += INT8_ROUND;
    memcpy(&bits, &x, sizeof bits);
    return bits - INT8_ROUND_BITS;
}

/* What the numbers of a row are multiplied by, 0 where all count as zero; and the scale. */
INLINE float row_factor(ptrdiff_t k, const float *x, float least, float top, float *scale)
{
    const int32_t bits = largest_bits(k, x);
    float m;
    memcpy(&m, &bits, sizeof m);
    m = m < least ? least : m;
    *scale = bits >= 0x7f800000 ? __builtin_nanf("") : 0;
    if (bits >= 0x7f800000 || m < INT8_TINY) return 0;
    *scale = m / top;
    return top / m;
}

/* The bytes of a row, high ones before low ones where there are two, and with `apart` their signs behind all. Returns
 * the sum of the magnitudes of what is negative: see add_products. */
INLINE int32_t store_row(const int wide, const int apart, ptrdiff_t k, const float *restrict x, float factor,
                         char *restrict bytes)
{
    const ptrdiff_t size = 4 * int8_groups(k);
    char *restrict low = bytes + size, *restrict signs = bytes + (1 + wide) * size;
    int32_t sum = 0;
    GRU_ASSERT(k > 0);
    memset(bytes + size - 4, INT8_FLIP, 4);
    if (wide) memset(low + size - 4, INT8_FLIP, 4);
    if (apart) memset(signs + size - 4, 0, (size_t)(4 + wide * size)); /* the low ones have none */
    for (ptrdiff_t j = 0; j < k; j++) {
        const int32_t value = nearest(x[j] * factor), high = wide ? value >> 4 : value;
        const int32_t sign = apart ? high >> 31 : 0;
        bytes[j] = (char)(((high ^ sign) - sign) ^ INT8_FLIP);
        if (wide) low[j] = (char)((value & 15) ^ INT8_FLIP);
        if (apart) signs[j] = (char)sign;
        sum -= high & sign;
    }
    return sum;
}

static void quantize_rows(ptrdiff_t rows, ptrdiff_t k, const void *source, ptrdiff_t ld_source, float least,
                          int wide, char *target, ptrdiff_t ld_target)
{
    const ptrdiff_t size = (1 + INT8_SIGNS) * (1 + wide) * 4 * int8_groups(k);
    for (ptrdiff_t i = 0; i < rows; i++, target += ld_target) {
        const float *x = (const float *)((const char *)source + i * ld_source);
        int8_row_end end;
        const float factor = row_factor(k, x, least, wide ? 2047.0f : 127.0f, &end.scale);
        end.offset = wide ? store_row(1, INT8_SIGNS, k, x, factor, target) * 16
                          : store_row(0, INT8_SIGNS, k, x, factor, target);
        memcpy(target + size, &end, sizeof end);
    }
}

#endif
