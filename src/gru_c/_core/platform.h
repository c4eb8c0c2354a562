/* All code for one platform, vectors apart: processor features, floating-point mode, memory, prefetch, atomics
 * and clocks. Names have a prefix: <stdatomic.h>, which Cython's C includes, has an atomic_load of its own. */
#ifndef GRU_C_PLATFORM_H
#define GRU_C_PLATFORM_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

/* ---- processors ----------------------------------------------------------------------------------------- */

/* gru_extensions: 0, 1 with AVX2 and FMA, 2 with AVX-512, too.
 * gru_vnni: whether a processor with that many extensions has VNNI for their vectors.
 * gru_bfloat16: whether one with AVX-512 has products of bfloat16.
 * gru_get_fp_mode, gru_set_fp_mode: the rounding and the treatment of denormals in this thread, on which a
 * result depends. Traps stay masked, and flags are not passed on. x87 is not used, so on x86 MXCSR holds the
 * whole mode.
 * gru_cpu_pause: for a loop that polls. `yield` does nothing on most arm64 cores; `isb` takes as long as x86's
 * `pause`. */
#if defined(__x86_64__)
#include <cpuid.h>
static inline int gru_extensions(void)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") ? 2 : 1;
}
/* EAX of the second part of leaf 7: older compilers have no names for its bits. */
static inline unsigned int gru_leaf_7_1(void)
{
    unsigned int a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || a < 1) return 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) ? a : 0;
}
static inline int gru_vnni(int extensions)
{
    if (extensions == 2) return __builtin_cpu_supports("avx512vnni") != 0;
    return extensions == 1 && (gru_leaf_7_1() & 1u << 4) != 0;
}
static inline int gru_bfloat16(void) { return (gru_leaf_7_1() & 1u << 5) != 0; }
#define GRU_FP_MODE 0xe040u         /* flush to zero, rounding, denormals are zero */
#define GRU_FLUSH_DENORMALS 0x8040u
static inline unsigned long gru_get_fp_mode(void) { return __builtin_ia32_stmxcsr() & GRU_FP_MODE; }
static inline void gru_set_fp_mode(unsigned long mode)
{
    __builtin_ia32_ldmxcsr((__builtin_ia32_stmxcsr() & ~GRU_FP_MODE) | (unsigned int)mode);
}
#define gru_cpu_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
static inline int gru_extensions(void) { return 0; }
static inline int gru_vnni(int extensions) { return (void)extensions, 0; }
static inline int gru_bfloat16(void) { return 0; }
#define GRU_FP_MODE 0x07c80007ul    /* AHP, DN, FZ, rounding, FZ16, and FEAT_AFP's NEP, AH, FIZ */
#define GRU_FLUSH_DENORMALS 0x01000000ul
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
#define gru_cpu_pause() __asm__ __volatile__("isb" ::: "memory")
#else
#include <fenv.h>
static inline int gru_extensions(void) { return 0; }
static inline int gru_vnni(int extensions) { return (void)extensions, 0; }
static inline int gru_bfloat16(void) { return 0; }
#define GRU_FLUSH_DENORMALS 0ul      /* not known here */
static inline unsigned long gru_get_fp_mode(void) { return (unsigned long)fegetround(); }
static inline void gru_set_fp_mode(unsigned long mode) { fesetround((int)mode); }
#define gru_cpu_pause() ((void)0)
#endif

/* ---- memory --------------------------------------------------------------------------------------------- */

#define GRU_HUGE_PAGE ((size_t)2 << 20)

/* Memory that free() releases, NULL if there is none. It is aligned as malloc's: the caller aligns to a line.
 * From two huge pages on it lies in such. Weights are read from end to end in every step, and 4 KB pages miss
 * the TLB: 39 -> 43 GFLOP/s (one row, H = 1024). */
static inline void *gru_allocate(size_t size)
{
    void *memory = NULL;
    if (size < 2 * GRU_HUGE_PAGE) return malloc(size);
    if (size > (size_t)PTRDIFF_MAX) return NULL;
    size = (size + GRU_HUGE_PAGE - 1) / GRU_HUGE_PAGE * GRU_HUGE_PAGE;
    if (posix_memalign(&memory, GRU_HUGE_PAGE, size) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    madvise(memory, size, MADV_HUGEPAGE);
#endif
    return memory;
}

/* ---- prefetch: bring the line of p to L1, to be read or to be written -------------------------------------- */

static inline void gru_prefetch_read(const void *p) { __builtin_prefetch(p); }
static inline void gru_prefetch_write(void *p) { __builtin_prefetch(p, 1); }

/* ---- atomics: integers shared by threads ----------------------------------------------------------------- */

/* Loads and additions are sequentially consistent, for a thread that goes to sleep and one that wakes it. Each
 * adds to its word, then reads that of the other. At least one of them sees what the other wrote. */
#define gru_atomic_load(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define gru_atomic_store(p, value) __atomic_store_n(p, value, __ATOMIC_RELEASE)
#define gru_atomic_add(p, value) __atomic_add_fetch(p, value, __ATOMIC_SEQ_CST)

/* ---- clocks --------------------------------------------------------------------------------------------- */

static inline long long gru_read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}
static inline long long gru_nanoseconds(void) { return gru_read_clock(CLOCK_MONOTONIC); }

/* The processor time of this thread. */
static inline long long gru_processor_nanoseconds(void) { return gru_read_clock(CLOCK_THREAD_CPUTIME_ID); }

#endif
