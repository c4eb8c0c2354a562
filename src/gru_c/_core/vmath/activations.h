/* The activations that a layer may choose, and their derivatives. kernels.h includes this file once per dtype,
 * after math.h. Each is one function for all of them, called once per vector: it is not inlined.
 *
 * sigmoid, scaled_tanh, elu, softsign and softplus err by a few ulp. NaN in gives NaN out. */

/* a where the mask is set, else b. */
INLINE vec NAME(select)(ivec mask, vec a, vec b)
{
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

INLINE vec NAME(absolute)(vec x)
{
    return (vec)((ivec)x & (BITS)(UINT64_MAX >> (65 - 8 * sizeof(REAL))));
}

/* e^x - 1 for x <= 0, as in tanh; for x > 0 it is 0. */
INLINE vec NAME(expm1)(vec x)
{
    vec p, scale = NAME(exp_parts)(NAME(clamp)(x, -NAME(SIGMOID_ONE), (REAL)0), 0, &p);
    return scale * p + (scale - (REAL)1);
}

/* log(1 + t) = 2 artanh(s) = 2 s + s^3 P(s^2) with s = t / (t + 2), for 0 <= t <= 1. */
INLINE vec NAME(log1p)(vec t)
{
    vec s = t / (t + (REAL)2), s2 = s * s;
    return (s + s) + s * s2 * NAME(LOG_POLYNOMIAL)(s2);
}

/* log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), where e^-|x| is rounded once, to a denormal number, too. */
INLINE vec NAME(softplus)(vec x)
{
    const REAL s = (REAL)1 / ((uint64_t)1 << SHIFT);
    vec most = NAME(clamp)(NAME(absolute)(x), (REAL)0, NAME(SIGMOID_ZERO));
    vec p, scale = NAME(exp_parts)(-most, SHIFT, &p);
    return NAME(select)(x > (vec){0}, x, (vec){0}) + NAME(log1p)((scale + scale * p) * s);
}

/* x / (1 + |x|); from 2^SHIFT on it is 1. */
INLINE vec NAME(softsign)(vec x)
{
    const REAL one = (REAL)((uint64_t)1 << SHIFT);
    x = NAME(clamp)(x, -one, one);
    return x / ((REAL)1 + NAME(absolute)(x));
}

/* y = f(x) */
NOINLINE vec NAME(activate)(const gru_activation *f, vec x)
{
    const REAL alpha = (REAL)f->alpha, beta = (REAL)f->beta, clip = (REAL)f->clip;
    const vec zero = {0};
    x = NAME(clamp)(x, -clip, clip);
    switch (f->function) {
    case GRU_SIGMOID:
        return NAME(sigmoid)(x);
    case GRU_HARD_SIGMOID:
        return NAME(clamp)(alpha * x + beta, (REAL)0, (REAL)1);
    case GRU_SCALED_TANH:
        return alpha * NAME(tanh)(beta * x);
    case GRU_AFFINE:
        return alpha * x + beta;
    case GRU_THRESHOLDED_RELU:
        return NAME(select)(x <= zero + alpha, zero, x);
    case GRU_LEAKY_RELU:
        return NAME(select)(x < zero, alpha * x, x);
    case GRU_ELU:
        return NAME(select)(x < zero, alpha * NAME(expm1)(x), x);
    case GRU_SOFTSIGN:
        return NAME(softsign)(x);
    default:
        return NAME(softplus)(x);
    }
}

/* f'(x) from y = f(x). At a kink it is that of the left side, as in PyTorch. A held row has its state in place of
 * y, so the result is finite for every finite y. */
NOINLINE vec NAME(derivative)(const gru_activation *f, vec y)
{
    const REAL alpha = (REAL)f->alpha, beta = (REAL)f->beta, low = (REAL)f->low, high = (REAL)f->high;
    const vec zero = {0}, one = zero + (REAL)1;
    vec t, slope;
    switch (f->function) {
    case GRU_SIGMOID:
        t = NAME(clamp)(y, (REAL)0, (REAL)1);
        slope = t * (one - t);
        break;
    case GRU_HARD_SIGMOID:
        slope = NAME(select)((y <= zero) | (y >= one), zero, zero + alpha);
        break;
    case GRU_SCALED_TANH: /* beta (alpha - y^2 / alpha) */
        t = NAME(clamp)(y / (alpha != 0 ? alpha : 1), (REAL)-1, (REAL)1);
        slope = alpha * beta * (one - t * t);
        break;
    case GRU_AFFINE:
        slope = zero + alpha;
        break;
    case GRU_THRESHOLDED_RELU:
        slope = NAME(select)(y == zero, zero, one);
        break;
    case GRU_LEAKY_RELU:
        slope = NAME(select)(y > zero, one, zero + alpha);
        break;
    case GRU_ELU: /* alpha e^x = y + alpha */
        slope = NAME(select)(y > zero, one, y + alpha);
        break;
    case GRU_SOFTSIGN:
        t = one - NAME(clamp)(NAME(absolute)(y), (REAL)0, (REAL)1);
        slope = t * t;
        break;
    default: /* of softplus: sigmoid(x) = 1 - e^-y */
        slope = -NAME(expm1)(-y);
    }
    return NAME(select)((y == zero + low) | (y == zero + high), zero, slope);
}

INLINE void NAME(set_ends)(gru_activation *f)
{
    const vec zero = {0};
    const REAL clip = (REAL)f->clip;
    f->low = NAME(activate)(f, zero - clip)[0];
    f->high = NAME(activate)(f, zero + clip)[0];
}
