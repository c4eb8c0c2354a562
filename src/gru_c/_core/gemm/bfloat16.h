/* Products of bfloat16, the high half of a float. kernels.h includes this file after the microkernel of float.
 *
 *     gemm_bfloat16, gemm_prefetch_bfloat16     B is bfloat16, and widened in registers
 *     gemm_pairs, gemm_prefetch_pairs           A is bfloat16, too; for processors with AVX512-BF16
 *     round_rows                                rounds A for gemm_bfloat16, to floats
 *     pair_rows                                 rounds A for gemm_pairs
 *
 * Sums are in float, in the order of k. A line of B holds two rows of it, the first in the low halves, so that a
 * shift or a mask widens one. vdpbf16ps multiplies a line by two elements of A. It adds the second product first, and
 * counts denormals as zero. */
static void gemm_bfloat16(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, gru_view2 a, const gru_micropanels *b,
                          gru_view2 c_init, gru_view2 c, const gru_prefetch *prefetch)
{
    (void)prefetch;
    any_gemm_f32(PREFETCH_NONE, STORED_AS_BFLOAT16, m, n, k, a, b, c_init, c, NULL, 0);
}

static void gemm_prefetch_bfloat16(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, gru_view2 a, const gru_micropanels *b,
                                   gru_view2 c_init, gru_view2 c, const gru_prefetch *prefetch)
{
    GRU_ASSERT(prefetch && prefetch->step >= 0 && prefetch->step <= 64);
    any_gemm_f32(PREFETCH_ALL, STORED_AS_BFLOAT16, m, n, k, a, b, c_init, c, prefetch->data, prefetch->step);
}

/* ---- both factors ---------------------------------------------------------------------------------------------- */

static void round_rows(ptrdiff_t rows, ptrdiff_t k, const void *source, ptrdiff_t ld_source, float least,
                       int twelve_bits, char *target, ptrdiff_t ld_target)
{
    (void)least, (void)twelve_bits;
    for (ptrdiff_t i = 0; i < rows; i++) {
        const float *x = (const float *)((const char *)source + i * ld_source);
        uint32_t *y = (uint32_t *)(target + i * ld_target);
        for (ptrdiff_t j = 0; j < k; j++) y[j] = (uint32_t)gru_as_bfloat16(x[j]) << 16;
    }
}

/* An odd k ends with a zero. */
static void pair_rows(ptrdiff_t rows, ptrdiff_t k, const void *source, ptrdiff_t ld_source, float least,
                      int twelve_bits, char *target, ptrdiff_t ld_target)
{
    (void)least, (void)twelve_bits;
    for (ptrdiff_t i = 0; i < rows; i++) {
        const float *x = (const float *)((const char *)source + i * ld_source);
        uint16_t *y = (uint16_t *)(target + i * ld_target);
        for (ptrdiff_t j = 0; j < k; j++) y[j] = gru_as_bfloat16(x[j]);
        if (k & 1) y[k] = 0;
    }
}

#if HAVE_PAIRS && defined(__clang__) /* it refuses the instruction in other functions */
#define FOR_PAIRS __attribute__((target("avx512bf16")))
#else
#define FOR_PAIRS
#endif

FOR_PAIRS static void gemm_pairs(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, gru_view2 a, const gru_micropanels *b,
                                 gru_view2 c_init, gru_view2 c, const gru_prefetch *prefetch)
{
    (void)prefetch;
    any_gemm_f32(PREFETCH_NONE, BOTH_AS_BFLOAT16, m, n, k, a, b, c_init, c, NULL, 0);
}

FOR_PAIRS static void gemm_prefetch_pairs(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, gru_view2 a,
                                          const gru_micropanels *b, gru_view2 c_init, gru_view2 c,
                                          const gru_prefetch *prefetch)
{
    GRU_ASSERT(prefetch && prefetch->step >= 0 && prefetch->step <= 64);
    any_gemm_f32(PREFETCH_ALL, BOTH_AS_BFLOAT16, m, n, k, a, b, c_init, c, prefetch->data, prefetch->step);
}
