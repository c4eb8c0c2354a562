/* exp in parts, sigmoid, tanh, nan_to_zero. kernels.h includes this file once per dtype and sets REAL,
 * BITS, SUFFIX, vec and the constants. sigmoid and tanh err by at most 4 ulp, are exact where they saturate,
 * and return NaN for NaN. */

#define LOG2_E 1.44269504088896341
#define SHIFT 62 /* in float, 2^-62 e^104 < 2^127 */

/* Added to a small number, it leaves the nearest integer in the low bits. */
#define ROUND ((REAL)1.5 * (REAL)((BITS)1 << NAME(MANTISSA)))

/* x held between two bounds; a NaN stays one. */
INLINE vec NAME(clamp)(vec x, REAL least, REAL most)
{
    const vec low = (vec){0} + least, high = (vec){0} + most;
#ifdef CLAMP_f32
    return JOIN(CLAMP, SUFFIX)(x, low, high);
#else
    const ivec below = x < low, above = x > high;
    return (vec)((below & (ivec)low) | (above & (ivec)high) | (~(below | above) & (ivec)x));
#endif
}

/* x, but 0 for NaN. */
INLINE vec NAME(nan_to_zero)(vec x)
{
    const ivec number = x == x;
    return (vec)(number & (ivec)x);
}

/* e^x = scale (1 + p), scale = 2^(k + extra) with k = round(x / ln 2), p = e^r - 1 of the rest r.
 * A NaN in x comes out in p. */
INLINE vec NAME(exp_parts)(vec x, BITS extra, vec *p)
{
    const REAL offset = ROUND + (REAL)(NAME(EXPONENT_BIAS) + extra); /* the low bits: the exponent field */
    vec shifted = x * (REAL)LOG2_E + offset;
    vec k = shifted - offset;
    vec r = (x - k * (REAL)NAME(LN2_HIGH)) - k * (REAL)NAME(LN2_LOW);
    vec r2 = r * r;
    *p = r + r2 * NAME(POLYNOMIAL)(r, r2);
    return (vec)((ivec)shifted << NAME(MANTISSA));
}

/* 1 / (1 + e^-x) as s / (s + s e^-x), s = 2^-SHIFT, which keeps s e^-x in range for every x. */
INLINE vec NAME(sigmoid)(vec x)
{
    const REAL s = (REAL)1 / ((uint64_t)1 << SHIFT);
    vec p, scale = NAME(exp_parts)(-NAME(clamp)(x, -NAME(SIGMOID_ZERO), NAME(SIGMOID_ONE)), -SHIFT, &p);
    return s / ((s + scale) + scale * p);
}

/* m / (m + 2) with m = e^2x - 1, which keeps every digit of a small x. */
INLINE vec NAME(tanh)(vec x)
{
    vec p, scale = NAME(exp_parts)(NAME(clamp)((REAL)2 * x, -2 * NAME(TANH_ONE), 2 * NAME(TANH_ONE)), 0, &p);
    vec m = scale * p + (scale - (REAL)1);
    return m / (m + (REAL)2);
}
