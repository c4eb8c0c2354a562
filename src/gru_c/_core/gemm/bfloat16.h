/* Products of weights in bfloat16: float without its low half. kernels.h includes this file after the microkernel
 * of float, which widens the weights in registers: sums are in float, in the order of k. A line of B holds two rows
 * of it, the first in the low halves, so that a shift or a mask widens one. */
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
