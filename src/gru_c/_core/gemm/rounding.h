/* Rounding to bfloat16, the high half of a float, which Cython and C share. */
#ifndef GRU_C_ROUNDING_H
#define GRU_C_ROUNDING_H

#include <stdint.h>
#include <string.h>

/* The nearest, of two the even one; NaN stays NaN. */
static inline uint16_t gru_as_bfloat16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t nearest = bits + 0x7fff + (bits >> 16 & 1);
    return (uint16_t)((x == x ? nearest : bits | 0x400000) >> 16);
}

#endif
