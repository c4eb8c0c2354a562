/* Vectors of float and double, their sigmoid and tanh, and the product of small blocks.
 *
 * One source for every instruction set and both types: GCC and clang vector extensions, and intrinsics
 * only where compilers make poor code of these (the clamp on x86).
 * The width follows from the flags that this file is compiled with; `simd_real.h` holds the code and
 * is read here once a type. */
#ifndef GRU_C_SIMD_H
#define GRU_C_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define TILE_VECTORS 4 /* 6 rows x 4 vectors of sums leave 8 of the 32 registers free */
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#define TILE_VECTORS 2 /* 6 x 2 of 16 registers */
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define TILE_VECTORS 4
#else
#define VECTOR_BYTES 16
#define TILE_VECTORS 2
#endif

/* B of a product comes in strips as wide as a tile, each contiguous: a tile reads one from end to end. */
#define STRIP_BYTES (TILE_VECTORS * VECTOR_BYTES)

/* Of the portable clamp in simd_real.h compilers make compares and blends; with these the gates of a unit
 * take 1.0 instead of 1.3 ns (AVX2). */
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
#ifdef MM
#include <immintrin.h>
#define CLAMP_f32(x, low, high) ((vec)MM(min_ps)((MM_f32)(high), MM(max_ps)((MM_f32)(low), (MM_f32)(x))))
#define CLAMP_f64(x, low, high) ((vec)MM(min_pd)((MM_f64)(high), MM(max_pd)((MM_f64)(low), (MM_f64)(x))))
#elif defined(__aarch64__) /* two instructions instead of seven; of a NaN both make a NaN */
#include <arm_neon.h>
#define CLAMP_f32(x, low, high)                                                                             \
    ((vec)vminq_f32((float32x4_t)(high), vmaxq_f32((float32x4_t)(low), (float32x4_t)(x))))
#define CLAMP_f64(x, low, high)                                                                             \
    ((vec)vminq_f64((float64x2_t)(high), vmaxq_f64((float64x2_t)(low), (float64x2_t)(x))))
#endif

/* GCC 12 moves the loads of all rows of a tile to the front on arm64, of A or of START, and sums into memory. */
#if defined(__aarch64__) && !defined(__clang__)
#define END_OF_ROW __asm__ volatile("" ::: "memory");
#else
#define END_OF_ROW
#endif

/* The first half of a vector of AVX-512; other vectors are not halved. */
#if VECTOR_BYTES == 64
#define LOW_f32(x) ((half)_mm512_castps512_ps256((__m512)(x)))
#define LOW_f64(x) ((half)_mm512_castpd512_pd256((__m512d)(x)))
#else
#define LOW_f32(x) (half){0}
#define LOW_f64(x) (half){0}
#endif

/* The most rows of a tile; kernels.pxd says it, too. */
#define TILE_ROWS 6

/* The most rows whose C stays in registers beside the sums, where there are 32. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define KEEP_ROWS 2
#else
#define KEEP_ROWS 0
#endif

/* The most elements of the depth in one chain of multiply-adds: of 32, 64 and 128 it has the least error. */
#define SUM_DEPTH 64

/* What a tile asks for ahead of time: nothing, where all is near; the C to come; memory at `ahead`, too. */
enum { ASK_NOTHING, ASK_C, ASK_ALL };

/* The compiler forgets what it knows of x: it would else keep the addresses of all rows of C in registers that a
 * loop needs (inference of 20,256,64,100 5 % slower). */
#define OPAQUE(x) __asm__("" : "+r"(x))

#define INLINE static inline __attribute__((always_inline, unused))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

/* float: e^r - 1 = r + r^2 P(r) on |r| <= ln(2)/2, P of degree 4 (Chebyshev fit, error 0.2 ulp). In two chains
 * that go side by side: 1000 steps of one row and 16 units 86 instead of 89 us. */
#define REAL float
#define BITS int32_t
#define SUFFIX f32
#define MANTISSA 23
#define EXPONENT_BIAS 127
#define SHIFT 62             /* 2^-62 e^104 < 2^127 */
#define SIGMOID_ZERO 105.0f  /* sigmoid(-x) rounds to 0 from here on, */
#define SIGMOID_ONE 20.0f    /* sigmoid(x) to 1, */
#define TANH_ONE 10.0f       /* tanh(x) to 1 */
#define LOG2_E 1.44269504088896341f
#define LN2_HIGH 0.693145751953125f /* 15 bits, so that k * LN2_HIGH is exact */
#define LN2_LOW 1.42860682030941723e-6f
#define POLYNOMIAL(r, r2)                                                                                   \
    ((1.3926213466332443e-3f * (r2) + (8.3632029715758550e-3f * (r) + 4.1666554437685939e-2f)) * (r2) +     \
     (1.6666576845993976e-1f * (r) + 0.5f))
#include "simd_real.h"

/* double: the same with P of degree 10 (error below 0.01 ulp); 138 instead of 144 us. */
#define REAL double
#define BITS int64_t
#define SUFFIX f64
#define MANTISSA 52
#define EXPONENT_BIAS 1023
#define SHIFT 62
#define SIGMOID_ZERO 747.0
#define SIGMOID_ONE 40.0
#define TANH_ONE 20.0
#define LOG2_E 1.44269504088896341
#define LN2_HIGH 0x1.62e42fefa3000p-1 /* 41 bits */
#define LN2_LOW 0x1.3de6af278ece6p-42
#define POLYNOMIAL(r, r2)                                                                                   \
    ((((((2.0914717341716376e-9 * (r2) + 2.7557273570102140e-7) * (r2) + 2.4801587325605323e-5) * (r2) +    \
        1.3888888888883732e-3) * (r2) + 4.1666666666666670e-2) * (r2) + 0.5) +                              \
     (r) * ((((2.5105259538448493e-8 * (r2) + 2.7557255297969644e-6) * (r2) + 1.9841269874901259e-4) *      \
             (r2) + 8.3333333333261121e-3) * (r2) + 1.6666666666666671e-1))
#include "simd_real.h"

#endif
