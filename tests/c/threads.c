/* Eight threads share a model and call forward, forward_training and backward of different sizes at the
 * same time, with one and two threads in each call. Each result has the bits of one thread alone.
 * With an argument, a forked child calls then, too; its parent has started workers, the child has none.
 * Built with -fsanitize=thread, together with the library, by tools/check_sanitizers.sh.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { INPUTS = 5, HIDDEN = 24, CALLERS = 8, ROUNDS = 12, DIRECTIONS = 2, CALLS = 2 * DIRECTIONS };

/* A call of one thread: its sizes, what it reads, and what it found when it ran alone. */
typedef struct caller {
    const gru_model *model;
    ptrdiff_t steps, rows;
    int number, threads;
    size_t inferred, results; /* floats of a forward, and of all results */
    float *x, *d_output, *alone;
    int problems;
} caller;

static gru_options options_of(const caller *c, ptrdiff_t *lengths)
{
    gru_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    if (c->number % 2) options.lengths = lengths;          /* every second caller has ragged rows */
    for (ptrdiff_t row = 0; row < c->rows; row++) lengths[row] = 1 + (row * 7 + c->number) % c->steps;
    return options;
}

static void *workspace_of(const caller *c, int pass, const gru_options *options, size_t *size)
{
    CHECK(gru_workspace_size_f32(c->model, pass, c->steps, c->rows, c->threads, options, size));
    return allocate(*size);
}

/* A forward of inference: output to `results`. */
static void infer(const caller *c, const gru_options *options, float *results)
{
    size_t size;
    void *workspace = workspace_of(c, GRU_INFERENCE, options, &size);
    CHECK(gru_forward_f32(c->model, c->steps, c->rows, c->x, NULL, results, NULL, workspace, size, c->threads,
                          options));
    free(workspace);
}

/* A forward and a backward: dx and all gradients to `results`. */
static void train(const caller *c, const gru_options *options, float *results)
{
    const ptrdiff_t hidden[4] = {DIRECTIONS * HIDDEN, HIDDEN, 1, 1};
    float *gradients[4 * CALLS], *next = results + c->steps * c->rows * INPUTS;
    size_t size, saved_size;
    for (int i = 0; i < 4 * CALLS; i++) {
        gradients[i] = next;
        next += 3 * HIDDEN * (i % 4 == 0 && i < 4 * DIRECTIONS ? (ptrdiff_t)INPUTS : hidden[i % 4]);
    }
    CHECK(gru_saved_size_f32(c->model, c->steps, c->rows, options, &saved_size));
    void *saved = allocate(saved_size), *workspace = workspace_of(c, GRU_TRAINING, options, &size);
    CHECK(gru_forward_training_f32(c->model, c->steps, c->rows, c->x, NULL, NULL, NULL, saved, saved_size,
                                   workspace, size, c->threads, options));
    free(workspace);
    workspace = workspace_of(c, GRU_BACKWARD, options, &size);
    CHECK(gru_backward_f32(c->model, c->steps, c->rows, c->d_output, NULL, results, NULL, gradients, saved,
                           saved_size, workspace, size, c->threads, options));
    free(workspace);
    free(saved);
}

static void call(const caller *c, float *results)
{
    ptrdiff_t *lengths = (ptrdiff_t *)allocate((size_t)c->rows * sizeof *lengths);
    gru_options options = options_of(c, lengths);
    infer(c, &options, results);
    train(c, &options, results + c->inferred);
    free(lengths);
}

static void prepare(caller *c, const gru_model *model, int number)
{
    const size_t parameters = 3 * HIDDEN * DIRECTIONS *
                              ((INPUTS + HIDDEN + 2) + (DIRECTIONS * HIDDEN + HIDDEN + 2));
    uint64_t seed = (uint64_t)number + 10;
    c->model = model;
    c->number = number;
    c->steps = 3 + 5 * number;
    c->rows = number == 3 ? 64 : 1 + 3 * number;
    c->threads = 1;
    c->problems = 0;
    c->inferred = (size_t)(c->steps * c->rows * DIRECTIONS * HIDDEN);
    c->results = c->inferred + (size_t)(c->steps * c->rows * INPUTS) + parameters;
    c->x = uniform_f32(&seed, c->steps * c->rows * INPUTS, 1.0);
    c->d_output = uniform_f32(&seed, c->steps * c->rows * DIRECTIONS * HIDDEN, 1.0);
    c->alone = (float *)allocate(c->results * sizeof(float));
    call(c, c->alone);
}

static void *run(void *argument)
{
    caller *c = (caller *)argument;
    float *results = (float *)allocate(c->results * sizeof(float));
    for (int i = 0; i < ROUNDS; i++) {
        c->threads = 1 + (i + c->number) % 2;
        memset(results, 0xff, c->results * sizeof(float));
        call(c, results);
        c->problems += memcmp(results, c->alone, c->results * sizeof(float)) != 0;
    }
    free(results);
    return NULL;
}

/* A call of two threads in a forked child: other bits, or -1 where it has not ended after a while. */
static int run_in_child(caller *c)
{
    int status;
    const pid_t child = fork();
    if (child == 0) {
        alarm(30);
        c->problems = 0;
        run(c);
        _exit(c->problems);
    }
    REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void end(caller *c)
{
    free(c->x);
    free(c->d_output);
    free(c->alone);
}

int main(int argc, char **argv)
{
    (void)argv;
    gru_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.num_layers = 2;
    options.bidirectional = 1;
    options.training = 1;
    gru_model *model = random_model(INPUTS, HIDDEN, &options, 4);
    caller callers[CALLERS];
    pthread_t threads[CALLERS];
    int problems = 0;
    for (int i = 0; i < CALLERS; i++) prepare(&callers[i], model, i);
    for (int i = 0; i < CALLERS; i++) REQUIRE(pthread_create(&threads[i], NULL, run, &callers[i]) == 0);
    for (int i = 0; i < CALLERS; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
        problems += callers[i].problems;
    }
    if (argc == 2) problems += run_in_child(&callers[CALLERS - 1]);
    for (int i = 0; i < CALLERS; i++) end(&callers[i]);
    CHECK(gru_model_free(model));
    printf("%d results with other bits\n", problems);
    return problems != 0;
}
