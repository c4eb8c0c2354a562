/* The two limits of this machine, for roofline.py: multiply-adds a second, and bytes read a second
 * from a working set of a given size. Vectors of WIDTH bytes in the compiler's own extension, so
 * that one source serves AVX-512, AVX2 and others. Every thread times itself while all run; the
 * result is the sum of their best rates. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#ifndef WIDTH
#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
#endif

#define MAX_THREADS 64

typedef float floats __attribute__((vector_size(WIDTH)));
typedef double doubles __attribute__((vector_size(WIDTH)));
typedef uint64_t words __attribute__((vector_size(WIDTH)));

struct job {
    size_t bytes; /* of the buffer to read; 0: multiply-adds */
    int is_double, threads;
    double seconds, rate;
    atomic_int *ready;
};

int roofline_width(void) { return WIDTH; }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Twelve chains: two units times four cycles of latency need eight; sixteen registers hold them and
 * the two constants. Named, because an array of vectors spills. */
#define TWELVE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define DECLARE(i) a##i = zero + (i),
#define STEP(i) a##i = a##i * b + c;
#define TOTAL(i) total += a##i;

#define DEFINE_MULTIPLY_ADDS(name, vector, scalar)                                                 \
    static double name(long steps) {                                                               \
        volatile scalar unknown_b = (scalar)0.999, unknown_c = (scalar)0.001;                      \
        volatile scalar sink;                                                                      \
        const vector zero = {0}, b = zero + unknown_b, c = zero + unknown_c;                       \
        vector TWELVE(DECLARE) total = zero;                                                       \
        for (long i = 0; i < steps; i++) { TWELVE(STEP) }                                          \
        TWELVE(TOTAL)                                                                              \
        sink = total[0];                                                                           \
        (void)sink;                                                                                \
        return 2.0 * 12 * steps * (WIDTH / sizeof(scalar));                                        \
    }
DEFINE_MULTIPLY_ADDS(multiply_adds_f32, floats, float)
DEFINE_MULTIPLY_ADDS(multiply_adds_f64, doubles, double)

/* Reads the buffer `passes` times, eight loads in flight; returns the bytes. */
static double read_buffer(const words *data, size_t count, long passes) {
    volatile uint64_t sink;
    words a = {0}, b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    for (long pass = 0; pass < passes; pass++) {
        for (size_t i = 0; i + 8 <= count; i += 8) {
            a ^= data[i], b ^= data[i + 1], c ^= data[i + 2], d ^= data[i + 3];
            e ^= data[i + 4], f ^= data[i + 5], g ^= data[i + 6], h ^= data[i + 7];
        }
        __asm__ volatile("" ::: "memory"); /* or the passes cancel: a ^ x ^ x == a */
    }
    a ^= b ^ c ^ d ^ e ^ f ^ g ^ h;
    sink = a[0];
    (void)sink;
    return (double)(count / 8 * 8) * sizeof(words) * passes;
}

/* 2 MB pages where the system gives them: the limit of the memory, not of the page tables. */
static words *buffer(size_t bytes) {
    const size_t page = (size_t)1 << 21, size = (bytes + page - 1) / page * page;
    words *data = aligned_alloc(page, size);
    if (!data) return NULL;
#ifdef MADV_HUGEPAGE
    madvise(data, size, MADV_HUGEPAGE);
#endif
    memset(data, 1, size);
    return data;
}

static void *run(void *argument) {
    struct job *job = argument;
    words *data = job->bytes ? buffer(job->bytes) : NULL;
    const size_t count = job->bytes / sizeof(words);
    const long passes = job->bytes ? 1 + (long)((1 << 21) / job->bytes) : 0;
    atomic_fetch_add(job->ready, 1);
    while (atomic_load(job->ready) < job->threads) {}
    job->rate = 0;
    if (job->bytes && !data) return NULL;
    const double end = now() + job->seconds;
    for (double start = now(), stop; start < end; start = stop) {
        const double work = data ? read_buffer(data, count, passes)
                : job->is_double ? multiply_adds_f64(10000) : multiply_adds_f32(10000);
        stop = now();
        if (work / (stop - start) > job->rate) job->rate = work / (stop - start);
    }
    free(data);
    return NULL;
}

static double run_all(struct job job, int threads) {
    pthread_t handles[MAX_THREADS];
    struct job jobs[MAX_THREADS];
    atomic_int ready = 0;
    double rate = 0;
    if (threads < 1 || threads > MAX_THREADS) return -1;
    job.threads = threads, job.ready = &ready;
    for (int i = 0; i < threads; i++) jobs[i] = job;
    for (int i = 1; i < threads; i++)
        if (pthread_create(&handles[i], NULL, run, &jobs[i])) abort();
    run(&jobs[0]);
    for (int i = 1; i < threads; i++) pthread_join(handles[i], NULL);
    for (int i = 0; i < threads; i++) rate += jobs[i].rate;
    return rate;
}

/* FLOP a second of all threads together; a multiply-add counts as two. */
double roofline_flops(int is_double, int threads, double seconds) {
    struct job job = {.is_double = is_double, .seconds = seconds};
    return run_all(job, threads);
}

/* Bytes read a second by all threads together; each reads its share of `bytes` again and again. */
double roofline_read(size_t bytes, int threads, double seconds) {
    struct job job = {.bytes = bytes / threads, .seconds = seconds};
    return run_all(job, threads);
}
