/* Vectors of float and double, and what each instruction set needs for them.
 *
 * One source for all instruction sets: vector extensions of GCC and clang, and intrinsics only where
 * compilers make poor code of these. The width follows from the compiler's flags (gemm/config.h). */
#ifndef GRU_C_VECTOR_H
#define GRU_C_VECTOR_H

#include <stddef.h>
#include <stdint.h>

#include "../gemm/config.h"

#define INLINE static inline __attribute__((always_inline, unused))
#define NOINLINE static __attribute__((noinline, unused))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

#ifdef GRU_C_DEBUG
#undef NDEBUG /* of Python's flags */
#include <assert.h>
#define GRU_ASSERT(condition) assert(condition)
#else
#define GRU_ASSERT(condition) ((void)0)
#endif

#define VECTOR_OF(type, bytes) type __attribute__((vector_size(bytes), aligned(sizeof(type)), may_alias))
typedef VECTOR_OF(float, GRU_VECTOR_BYTES) vec_f32;
typedef VECTOR_OF(double, GRU_VECTOR_BYTES) vec_f64;
typedef VECTOR_OF(int32_t, GRU_VECTOR_BYTES) ivec_f32; /* results of comparisons: all bits set, or none */
typedef VECTOR_OF(int64_t, GRU_VECTOR_BYTES) ivec_f64;
typedef VECTOR_OF(float, 32) half_f32; /* half a vector of AVX-512 */
typedef VECTOR_OF(double, 32) half_f64;
typedef VECTOR_OF(int32_t, 32) half_bits_f32;
typedef VECTOR_OF(int64_t, 32) half_bits_f64;
#undef VECTOR_OF
/* What is copied from and to memory of any alignment: GCC 12 splits a memcpy of this size in two. */
typedef char vec_bytes __attribute__((vector_size(GRU_VECTOR_BYTES), aligned(1), may_alias));

/* x held between two bounds. Compilers turn the portable form (math.h) into compares and blends; with the
 * instructions for it the gates take 1.3 -> 1.0 ns per unit (AVX2). */
#if defined(__AVX512F__)
#define MM(name) _mm512_##name
#define MM_f32 __m512
#define MM_f64 __m512d
#elif defined(__AVX2__)
#define MM(name) _mm256_##name
#define MM_f32 __m256
#define MM_f64 __m256d
#elif defined(__SSE2__)
#define MM(name) _mm_##name
#define MM_f32 __m128
#define MM_f64 __m128d
#endif
#if defined(MM)
#include <immintrin.h>
#define CLAMP_f32(x, low, high) ((vec_f32)MM(min_ps)((MM_f32)(high), MM(max_ps)((MM_f32)(low), (MM_f32)(x))))
#define CLAMP_f64(x, low, high) ((vec_f64)MM(min_pd)((MM_f64)(high), MM(max_pd)((MM_f64)(low), (MM_f64)(x))))
#elif defined(__aarch64__) /* 7 -> 2 instructions; of a NaN both make a NaN */
#include <arm_neon.h>
#define CLAMP_f32(x, low, high)                                                                             \
    ((vec_f32)vminq_f32((float32x4_t)(high), vmaxq_f32((float32x4_t)(low), (float32x4_t)(x))))
#define CLAMP_f64(x, low, high)                                                                             \
    ((vec_f64)vminq_f64((float64x2_t)(high), vmaxq_f64((float64x2_t)(low), (float64x2_t)(x))))
#endif

/* The first half of a vector of AVX-512. Other vectors are not halved. */
#if GRU_VECTOR_BYTES == 64
#define LOW_f32(x) ((half_f32)_mm512_castps512_ps256((__m512)(x)))
#define LOW_f64(x) ((half_f64)_mm512_castpd512_pd256((__m512d)(x)))
#else
#define LOW_f32(x) (half_f32){0}
#define LOW_f64(x) (half_f64){0}
#endif

#endif
