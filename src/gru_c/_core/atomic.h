/* Waiting for other threads: atomic integers, a pause for the loop that watches one, and a clock.
 * Every name has a prefix: <stdatomic.h>, which Cython's C includes, has an atomic_load of its own. */
#ifndef GRU_C_ATOMIC_H
#define GRU_C_ATOMIC_H

#include <time.h>

#define gru_atomic_load(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define gru_atomic_store(p, value) __atomic_store_n(p, value, __ATOMIC_RELEASE)
#define gru_atomic_add(p, value) __atomic_add_fetch(p, value, __ATOMIC_ACQ_REL)

/* For the handshake of one who goes to sleep and one who wakes: each writes its word, then reads the
 * other's, and at least one of them must see what the other wrote. */
#define gru_atomic_load_seq(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define gru_atomic_store_seq(p, value) __atomic_store_n(p, value, __ATOMIC_SEQ_CST)
#define gru_atomic_add_seq(p, value) __atomic_add_fetch(p, value, __ATOMIC_SEQ_CST)

/* `yield` does nothing on most arm64 cores; `isb` takes about as long as x86's `pause`. */
#if defined(__x86_64__)
#define gru_cpu_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define gru_cpu_pause() __asm__ __volatile__("isb" ::: "memory")
#else
#define gru_cpu_pause() ((void)0)
#endif

static inline long long gru_read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}
static inline long long gru_nanoseconds(void) { return gru_read_clock(CLOCK_MONOTONIC); }

/* What this thread has had of a processor. */
static inline long long gru_processor_nanoseconds(void) { return gru_read_clock(CLOCK_THREAD_CPUTIME_ID); }

#endif
