/* In the static library: the kernels for this processor, chosen once. tools/make_static_library.py
 * compiles this, with GRU_HAVE_AVX2 and GRU_HAVE_AVX512 where it links such kernels. */
#define _GNU_SOURCE /* sched_getaffinity */
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "platform.h"

const void *gru_contexts(void);
void *gru_baseline_contexts(void);
void *gru_avx2_contexts(void);
void *gru_avx512_contexts(void);
void gru_start_pool(int processors);

static const void *contexts;

/* Processors that this process may run on. */
static int processors(void)
{
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int)count : 1;
}

static void choose(void)
{
    int extensions = gru_extensions();
    (void)extensions;
    contexts = gru_baseline_contexts();
#ifdef GRU_HAVE_AVX2
    if (extensions >= 1) contexts = gru_avx2_contexts();
#endif
#ifdef GRU_HAVE_AVX512
    if (extensions >= 2) contexts = gru_avx512_contexts();
#endif
    gru_start_pool(processors());
}

const void *gru_contexts(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
    return contexts;
}
