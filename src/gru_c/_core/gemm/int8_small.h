/* Products of int8 weights in the time loop of small layers: what small_steps.h has for weights of its own type.
 * That file includes this one in a module for int8. Lines of weights are those of int8.h. */

INLINE ptrdiff_t small_lines_f32(ptrdiff_t units) { return INT8_HEAD + int8_groups(units); }

/* Rows of h as factors: bytes of whole vectors, and the scale. The kernels of h keep the bytes of each vector, scaled
 * by 127, while it is in a register; `complete_factors` does the rest, of which the sums do not wait. */
#define SMALL_FACTORS 2560 /* the most bytes of all rows */
#define SMALL_SCALE (1.0f / 127.0f)
#define FACTOR(h, factors) ((void)(h), (const float *)(factors))

INLINE ptrdiff_t factor_bytes(ptrdiff_t units) { return (units + INT8_LANES - 1) / INT8_LANES * INT8_LANES; }

INLINE ptrdiff_t factor_size_f32(ptrdiff_t units) { return factor_bytes(units) + (ptrdiff_t)sizeof(float); }

/* The bytes of one vector of whole numbers. */
INLINE void store_bytes(isum x, char *to)
{
#if GRU_VECTOR_BYTES == 64
    const __m128i bytes = _mm512_cvtepi32_epi8((__m512i)(x ^ INT8_FLIP));
    memcpy(to, &bytes, 16);
#elif GRU_VECTOR_BYTES == 32
    const __m128i low = _mm256_castsi256_si128((__m256i)x), high = _mm256_extracti128_si256((__m256i)x, 1);
    const __m128i words = _mm_packs_epi32(low, high);
    const __m128i bytes = _mm_xor_si128(_mm_packs_epi16(words, words), _mm_set1_epi8((char)INT8_FLIP));
    memcpy(to, &bytes, 8);
#else
    for (int lane = 0; lane < 4; lane++) to[lane] = (char)(x[lane] ^ INT8_FLIP);
#endif
}

typedef uint32_t small_bits __attribute__((vector_size(GRU_VECTOR_BYTES)));

/* Where |h| is beyond 1, the bytes mean nothing, and the bits minus those of INT8_ROUND may be no int: they wrap. */
INLINE void keep_factor_f32(fvec h, char *factors, ptrdiff_t v)
{
    const small_bits bits = (small_bits)(h * 127.0f + INT8_ROUND) - INT8_ROUND_BITS;
    store_bytes((isum)bits, factors + INT8_LANES * v);
}

INLINE void make_factors_f32(const gru_small_steps *s, char *factors)
{
    const ptrdiff_t vectors = factor_bytes(s->units) / INT8_LANES, size = factor_size_f32(s->units);
    GRU_ASSERT(s->rows * size <= SMALL_FACTORS);
    for (ptrdiff_t row = 0; row < s->rows; row++)
        for (ptrdiff_t v = 0; v < vectors; v++)
            keep_factor_f32(((const fvec *)(s->h_in + row * s->ld_h))[v], factors + row * size, v);
}

/* The bytes of a row of any range, and their scale. Out of the way of the loop. */
NOINLINE void quantize_small(ptrdiff_t units, const float *h, float least, char *bytes, char *scale)
{
    float own;
    const float factor = row_factor(units, h, least, 127.0f, &own);
    store_row(0, 0, units, h, factor, bytes);
    memcpy(scale, &own, sizeof own);
}

/* The scale of each row. |h| beyond 1, and h of unknown range, make the bytes anew. */
INLINE void complete_factors_f32(const int any, const gru_small_steps *s, const char *h, ptrdiff_t ld, char *factors)
{
    const ptrdiff_t bytes = factor_bytes(s->units), vectors = bytes / INT8_LANES;
    for (ptrdiff_t row = 0; row < s->rows; row++, h += ld, factors += factor_size_f32(s->units)) {
        isum beyond = {0};
        const float scale = SMALL_SCALE;
        memcpy(factors + bytes, &scale, sizeof scale);
        for (ptrdiff_t v = 0; v < vectors; v++)
            beyond |= ~(isum)(absolute_f32(((const fvec *)h)[v]) <= (fvec){0} + 1.0f);
        if (any || any_set(beyond)) {
            quantize_small(s->units, (const float *)h, any ? 0.0f : 1.0f, factors, factors + bytes);
        }
    }
}

#define BEGIN_SUM(v, gate)                                                                                  \
    isum s##v##gate = {0}; if (vectors > v && gates > gate) s##v##gate = (isum)offsets[v * gates + gate];
#define ADD_TO_SUM(v, gate)                                                                                 \
    if (vectors > v && gates > gate) s##v##gate = dot(s##v##gate, x, (isum)w[v * gates + gate]);
#define KEEP_SUM(v, gate)                                                                                   \
    if (vectors > v && gates > gate)                                                                        \
        sums[v * gates + gate] = __builtin_convertvector(s##v##gate, fvec) * (scales[v * gates + gate] * scale);

/* sums[vector][gate] of int8: see small_steps.h */
INLINE void sum_products_f32(const int vectors, const int gates, ptrdiff_t k, const float *factor,
                             const fvec *scales, fvec *sums)
{
    const fvec *offsets = scales + vectors * gates, *w = offsets + vectors * gates;
    const int8_group *a = (const int8_group *)factor, *end = a + int8_groups(k);
    const float scale = *(const float *)((const char *)factor + factor_bytes(k));
    EACH_SUM(BEGIN_SUM)
    for (; a < end; a++, w += vectors * gates) {
        const isum x = (isum){0} + *a;
        EACH_SUM(ADD_TO_SUM)
    }
    EACH_SUM(KEEP_SUM)
}
