/* To stop a call that runs: a flag that threads share, and the clock between two looks at it. */
#ifndef GRU_C_STOP_H
#define GRU_C_STOP_H

#include <time.h>

static inline int gru_atomic_load_int(const int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void gru_atomic_store_int(int *p, int value) {
    __atomic_store_n(p, value, __ATOMIC_RELEASE);
}

/* Seconds of a clock that nobody sets. */
static inline double gru_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + 1e-9 * (double) now.tv_nsec;
}

#endif
