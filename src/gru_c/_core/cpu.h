/* What the processor and the operating system support, and hints to them. Code for one platform is
 * in atomic.h and simd.h, too. Names have a prefix, as in atomic.h. */
#ifndef GRU_C_CPU_H
#define GRU_C_CPU_H

#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#define GRU_HUGE_PAGE ((size_t)2 << 20)

/* Memory for weights, freed with free(). Large ones ask for huge pages: read from end to end in every
 * step, 4 KB pages miss the TLB (one row, H = 1024: 43 instead of 39 GFLOP/s). */
static inline void *gru_allocate_weights(size_t size)
{
    void *memory = NULL;
    size_t alignment = size < 2 * GRU_HUGE_PAGE ? 64 : GRU_HUGE_PAGE;
    size = (size + alignment - 1) / alignment * alignment;
    if (posix_memalign(&memory, alignment, size) != 0) return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (alignment == GRU_HUGE_PAGE) madvise(memory, size, MADV_HUGEPAGE);
#endif
    return memory;
}

/* The line of p will be read, or written: asked for early, it need not be waited for. */
static inline void gru_fetch(const void *p) { __builtin_prefetch(p); }
static inline void gru_fetch_to_write(void *p) { __builtin_prefetch(p, 1); }

/* How this thread rounds and what it does with denormals: what a result depends on. Traps stay masked and
 * flags are not passed on. x87 is not used, so x86 has it all in MXCSR. */
#if defined(__x86_64__)
#define GRU_FP_MODE 0xe040u         /* flush to zero, rounding, denormals are zero */
static inline unsigned long gru_get_fp_mode(void) { return __builtin_ia32_stmxcsr() & GRU_FP_MODE; }
static inline void gru_set_fp_mode(unsigned long mode)
{
    __builtin_ia32_ldmxcsr((__builtin_ia32_stmxcsr() & ~GRU_FP_MODE) | (unsigned int)mode);
}
#elif defined(__aarch64__)
#define GRU_FP_MODE 0x07c80007ul    /* AHP, DN, FZ, rounding, FZ16, and FEAT_AFP's NEP, AH, FIZ */
static inline unsigned long gru_fpcr(void)
{
    unsigned long value;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(value));
    return value;
}
static inline unsigned long gru_get_fp_mode(void) { return gru_fpcr() & GRU_FP_MODE; }
static inline void gru_set_fp_mode(unsigned long mode)
{
    mode |= gru_fpcr() & ~GRU_FP_MODE;
    __asm__ __volatile__("msr fpcr, %0" ::"r"(mode) : "memory");
}
#else
#include <fenv.h>
static inline unsigned long gru_get_fp_mode(void) { return (unsigned long)fegetround(); }
static inline void gru_set_fp_mode(unsigned long mode) { fesetround((int)mode); }
#endif

#if defined(__x86_64__)
static inline int gru_cpu_has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static inline int gru_cpu_has_avx512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
#else
static inline int gru_cpu_has_avx2(void) { return 0; }
static inline int gru_cpu_has_avx512(void) { return 0; }
#endif

#endif
