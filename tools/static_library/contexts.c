/* In the static library: the kernels for this processor, chosen once. tools/make_static_library.py
 * compiles this, with GRU_HAVE_AVX2, GRU_HAVE_INT8_AVXVNNI and so on where it links such kernels. */
#define _GNU_SOURCE /* sched_getaffinity */
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "platform.h"

const void *gru_contexts(void);
const void *gru_int8_context(void);
void *gru_baseline_contexts(void);
void *gru_avx2_contexts(void);
void *gru_avx512_contexts(void);
void *gru_int8_baseline_context(void);
void *gru_int8_avx2_context(void);
void *gru_int8_avxvnni_context(void);
void *gru_int8_avx512vnni_context(void);
void gru_start_pool(int processors);

static const void *contexts, *int8_context;

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
    int8_context = gru_int8_baseline_context();
#ifdef GRU_HAVE_AVX2
    if (extensions >= 1) contexts = gru_avx2_contexts();
    if (extensions >= 1) int8_context = gru_int8_avx2_context();
#endif
#ifdef GRU_HAVE_INT8_AVXVNNI
    if (extensions >= 1 && gru_vnni(1)) int8_context = gru_int8_avxvnni_context();
#endif
#ifdef GRU_HAVE_AVX512
    if (extensions >= 2) contexts = gru_avx512_contexts();
    if (extensions >= 2 && gru_vnni(2)) int8_context = gru_int8_avx512vnni_context();
#endif
    gru_start_pool(processors());
}

static void choose_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
}

const void *gru_contexts(void)
{
    choose_once();
    return contexts;
}

const void *gru_int8_context(void)
{
    choose_once();
    return int8_context;
}
