/* A malloc that fails when asked to, for LD_PRELOAD; test_memory.py compiles it.
 *
 * gru_allocations_left() is the address of a number of the calling thread: that many allocations
 * from now on, the last one returns NULL, once. 0 and less is off. To set the number is a store to
 * memory, so that switching it on and off allocates nothing.
 */
#include <errno.h>
#include <stddef.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

/* initial-exec: its first use allocates nothing. */
static __thread long left __attribute__((tls_model("initial-exec")));

long *gru_allocations_left(void) { return &left; }

static int fails(void) {
    if (left <= 0 || --left > 0) return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }

void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }

void *realloc(void *old, size_t size) { return fails() ? NULL : __libc_realloc(old, size); }

void *memalign(size_t alignment, size_t size) {
    return fails() ? NULL : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **memory, size_t alignment, size_t size) {
    void *found = memalign(alignment, size);
    if (found == NULL) return ENOMEM;
    *memory = found;
    return 0;
}
