/* What 10,000 steps do besides arithmetic, of streams and of gru_step with the caller's memory.
 *
 *   steps malloc   prints the calls of malloc and its kin before the steps, then those in them
 *   steps calls    the steps in seccomp's strict mode: a system call but read, write and exit kills
 *   steps getpid   the same with one more system call, which must kill
 *   steps silence  prints how much longer a step of a stream takes on zeros, with its state decayed
 *                  to where numbers would be denormal, than on samples; and how many of the units are
 *                  not zero then
 *
 * Exit status 77: this machine has no seccomp.
 */
#define _GNU_SOURCE
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

enum { INPUTS = 3, HIDDEN = 21, LAYERS = 2, ROWS = 2, COUNT = 10000 };

/* ---- the allocator, counted: the C library's own under its other names */

static long allocations;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
    allocations++;
    return __libc_malloc(size);
}
void *calloc(size_t count, size_t size)
{
    allocations++;
    return __libc_calloc(count, size);
}
void *realloc(void *memory, size_t size)
{
    allocations++;
    return __libc_realloc(memory, size);
}
void *aligned_alloc(size_t alignment, size_t size)
{
    allocations++;
    return __libc_memalign(alignment, size);
}
int posix_memalign(void **memory, size_t alignment, size_t size)
{
    allocations++;
    *memory = __libc_memalign(alignment, size);
    return *memory == NULL ? 12 : 0;
}

/* ---- the steps */

typedef struct place {
    gru_model *model;
    gru_stream *stream;
    void *workspace;
    size_t size;
    float *x, *output, *h;
} place;

static place prepare(void)
{
    gru_options options = {.struct_size = sizeof options, .num_layers = LAYERS};
    uint64_t seed = 1;
    place p;
    p.model = random_model(INPUTS, HIDDEN, &options, 2);
    CHECK(gru_stream_new_f32(p.model, ROWS, 16, 1, NULL, &p.stream));
    CHECK(gru_workspace_size_f32(p.model, GRU_INFERENCE, 1, ROWS, 1, NULL, &p.size));
    p.workspace = allocate(p.size);
    p.x = uniform_f32(&seed, 16 * ROWS * INPUTS, 1.0);
    p.output = uniform_f32(&seed, 16 * ROWS * HIDDEN, 1.0);
    p.h = uniform_f32(&seed, LAYERS * ROWS * HIDDEN, 1.0);
    return p;
}

/* Everything that a real-time loop may call. Returns how many calls failed. */
static int run_steps(const place *p)
{
    static const unsigned char rows[ROWS] = {1, 0};
    static const ptrdiff_t source[ROWS] = {1, 0};
    int failed = 0;
    for (int i = 0; i < COUNT; i++) {
        failed += gru_stream_step_f32(p->stream, p->x, p->output) != GRU_OK;
        failed += gru_step_f32(p->model, ROWS, p->x, p->h, p->h, p->workspace, p->size, 1, NULL) != GRU_OK;
        if (i % 100 > 0) continue;
        failed += gru_stream_run_f32(p->stream, 16, p->x, p->output) != GRU_OK;
        failed += gru_stream_get_state_f32(p->stream, p->h) != GRU_OK;
        failed += gru_stream_set_state_f32(p->stream, p->h) != GRU_OK;
        failed += gru_stream_copy_rows_f32(p->stream, source) != GRU_OK;
        failed += gru_stream_reset_f32(p->stream, rows) != GRU_OK;
    }
    return failed;
}

static int count_allocations(void)
{
    place p = prepare();
    long before = allocations;
    int failed = run_steps(&p);
    long in_steps = allocations - before;
    printf("%ld %ld\n", before, in_steps);
    return failed != 0;
}

static int forbid_system_calls(int break_it)
{
    place p = prepare();
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) return 77;
    int failed = run_steps(&p);
    if (break_it) syscall(SYS_getpid);
    if (!failed) failed = write(1, "done\n", 5) != 5;
    syscall(SYS_exit, failed);
    return 1;
}

/* ---- silence */

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double time_steps(gru_stream *stream, const float *x, float *output)
{
    double start = seconds();
    for (int i = 0; i < 200; i++) CHECK(gru_stream_step_f32(stream, x, output));
    return seconds() - start;
}

static int compare(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

/* With no input, z is near sigmoid(2) and n near 0: h decays by an eighth in each step, to a denormal
 * number that an eighth less of rounds to itself, and there it would stay. */
static gru_model *decaying_model(void)
{
    enum { H = 32 };
    static float w_ih[3 * H], w_hh[3 * H * H], b_ih[3 * H], b_hh[3 * H];
    uint64_t seed = 3;
    gru_model *model;
    for (int i = 0; i < 3 * H * H; i++) w_hh[i] = (float)(0.02 * uniform(&seed));
    for (int i = 0; i < 3 * H; i++) w_ih[i] = (float)uniform(&seed);
    for (int i = H; i < 2 * H; i++) b_ih[i] = 2.0f;
    CHECK(gru_model_new_f32(1, H, NULL, &model));
    CHECK(gru_model_pack_f32(model, 0, w_ih, w_hh, b_ih, b_hh));
    return model;
}

static int time_silence(void)
{
    enum { REPEATS = 101 };
    static const float zero = 0.0f, sample = 0.5f;
    double ratios[REPEATS];
    float output[32];
    int denormal = 0;
    gru_model *model = decaying_model();
    gru_stream *quiet, *loud;
    CHECK(gru_stream_new_f32(model, 1, 1, 1, NULL, &quiet));
    CHECK(gru_stream_new_f32(model, 1, 1, 1, NULL, &loud));
    CHECK(gru_stream_step_f32(quiet, &sample, output));
    for (int i = 0; i < 5000; i++) CHECK(gru_stream_step_f32(quiet, &zero, output));
    for (int i = 0; i < REPEATS; i++) {
        double silence = time_steps(quiet, &zero, output);
        ratios[i] = silence / time_steps(loud, &sample, output);
    }
    CHECK(gru_stream_step_f32(quiet, &zero, output));
    qsort(ratios, REPEATS, sizeof *ratios, compare);
    for (int i = 0; i < 32; i++) denormal += output[i] != 0.0f;
    printf("%.3f %d\n", ratios[REPEATS / 2], denormal);
    return 0;
}

int main(int argc, char **argv)
{
    const char *mode = argc == 2 ? argv[1] : "";
    if (strcmp(mode, "malloc") == 0) return count_allocations();
    if (strcmp(mode, "calls") == 0) return forbid_system_calls(0);
    if (strcmp(mode, "getpid") == 0) return forbid_system_calls(1);
    if (strcmp(mode, "silence") == 0) return time_silence();
    return 2;
}
