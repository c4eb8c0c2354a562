/* Waiting without a lock: atomic integers, and a pause for the loop that watches one. */
#ifndef GRU_C_ATOMIC_H
#define GRU_C_ATOMIC_H

#define atomic_load(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define atomic_store(p, value) __atomic_store_n(p, value, __ATOMIC_RELEASE)
#define atomic_add(p, value) __atomic_add_fetch(p, value, __ATOMIC_ACQ_REL)

#if defined(__x86_64__)
#define cpu_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define cpu_pause() __asm__ __volatile__("yield")
#else
#define cpu_pause() ((void)0)
#endif

#endif
