/* Everything in C that a kernels module compiles for its instruction set: vectors, their functions, and the
 * microkernel and the loop of small layers, for float and for double. Names end in _f32 and _f64. A module for int8
 * defines GRU_C_INT8. */
#ifndef GRU_C_KERNELS_H
#define GRU_C_KERNELS_H

#include <string.h>

#include "gates.h"
#include "vmath/vector.h"
#include "gemm/rounding.h"
#include "gemm/views.h"

#define NAME(x) JOIN(x, SUFFIX)
#define vec NAME(vec)
#define ivec NAME(ivec)
#define half NAME(half)
#define half_bits NAME(half_bits)

/* float: e^r - 1 = r + r^2 P(r) on |r| <= ln(2)/2, P of degree 4 (Chebyshev fit, error 0.2 ulp). P is split in
 * two chains that overlap: 89 -> 86 us (1000 steps of one row and 16 units). */
#define REAL float
#define BITS int32_t
#define SUFFIX f32
#define MANTISSA_f32 23
#define EXPONENT_BIAS_f32 127
#define SIGMOID_ZERO_f32 105.0f /* sigmoid(-x) rounds to 0 from here on, */
#define SIGMOID_ONE_f32 20.0f   /* sigmoid(x) to 1, */
#define TANH_ONE_f32 10.0f      /* tanh(x) to 1 */
#define LN2_HIGH_f32 0.693145751953125f /* 15 bits, so that k times it is exact */
#define LN2_LOW_f32 1.42860682030941723e-6f
#define POLYNOMIAL_f32(r, r2)                                                                               \
    ((1.3926213466332443e-3f * (r2) + (8.3632029715758550e-3f * (r) + 4.1666554437685939e-2f)) * (r2) +     \
     (1.6666576845993976e-1f * (r) + 0.5f))
#define LOG_POLYNOMIAL_f32(u) /* minimax fit on 0 .. 1/9, error below 0.1 ulp */                            \
    (((2.8011989e-1f * (u) + 2.8001805e-1f) * (u) + 4.0021527e-1f) * (u) + 6.6666416e-1f)
#include "vmath/math.h"
#include "vmath/activations.h"
#include "gemm/microkernel.h"
#include "gemm/bfloat16.h"
#ifdef GRU_C_INT8
#include "gemm/int8.h"
#endif
#include "rnn/small_steps.h"
#undef REAL
#undef BITS
#undef SUFFIX

/* double: the same with P of degree 10 (error below 0.01 ulp); 144 -> 138 us. */
#define REAL double
#define BITS int64_t
#define SUFFIX f64
#define MANTISSA_f64 52
#define EXPONENT_BIAS_f64 1023
#define SIGMOID_ZERO_f64 747.0
#define SIGMOID_ONE_f64 40.0
#define TANH_ONE_f64 20.0
#define LN2_HIGH_f64 0x1.62e42fefa3000p-1 /* 41 bits */
#define LN2_LOW_f64 0x1.3de6af278ece6p-42
#define POLYNOMIAL_f64(r, r2)                                                                               \
    ((((((2.0914717341716376e-9 * (r2) + 2.7557273570102140e-7) * (r2) + 2.4801587325605323e-5) * (r2) +    \
        1.3888888888883732e-3) * (r2) + 4.1666666666666670e-2) * (r2) + 0.5) +                              \
     (r) * ((((2.5105259538448493e-8 * (r2) + 2.7557255297969644e-6) * (r2) + 1.9841269874901259e-4) *      \
             (r2) + 8.3333333333261121e-3) * (r2) + 1.6666666666666671e-1))
#define LOG_POLYNOMIAL_f64(u)                                                                               \
    (((((((((1.7009738356198193e-1 * (u) + 8.3449809397974837e-2) * (u) + 1.2104942886093689e-1) * (u) +    \
           1.3301121607912366e-1) * (u) + 1.5386548378144267e-1) * (u) + 1.8181744479561087e-1) * (u) +     \
        2.2222223953640737e-1) * (u) + 2.8571428548117897e-1) * (u) + 4.0000000000155120e-1) * (u) +        \
     6.6666666666666310e-1)
#include "vmath/math.h"
#include "vmath/activations.h"
#include "gemm/microkernel.h"
#ifndef GRU_C_INT8
#include "rnn/small_steps.h"
#endif
#undef REAL
#undef BITS
#undef SUFFIX

#undef NAME
#undef vec
#undef ivec
#undef half
#undef half_bits

#endif
