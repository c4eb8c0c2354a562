"""How work is split: a small pool of threads that outlives calls.

A worker that ran a task watches for the next one for some 50 microseconds, then sleeps. One caller
has the pool at a time; another that comes meanwhile runs its task alone, and gets the same bits. A
forked child starts with an empty pool.

The host's BLAS setting is only read: where somebody lowers its threads (threadpoolctl does), we
follow.
"""

cdef extern from "pthread.h" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_create(pthread_t *, void *, void *(*)(void *) noexcept nogil, void *)
    int pthread_detach(pthread_t)
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_trylock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_cond_init(pthread_cond_t *, void *)
    int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *)
    int pthread_cond_broadcast(pthread_cond_t *)
    int pthread_atfork(void (*)() noexcept nogil, void (*)() noexcept nogil,
                       void (*)() noexcept nogil)

cdef extern from "sched.h" nogil:
    int sched_yield()

cdef extern from "atomic.h" nogil:
    unsigned int atomic_load_word "atomic_load"(unsigned int *)
    void atomic_store_word "atomic_store"(unsigned int *, unsigned int)
    int atomic_load(int *)
    void atomic_store(int *, int)
    int atomic_add(int *, int)
    void cpu_pause()

cdef enum:
    MOST_THREADS = 64
    COUNT_BITS = 8             # of a job's word; the rest numbers the jobs
    SPINS = 1000               # pauses of about 50 ns before a worker sleeps or a waiter yields

cdef struct Pool:
    pthread_mutex_t owner      # held by the caller whose task runs
    pthread_mutex_t lock       # guards `job` for those who sleep on `wake`
    pthread_cond_t wake
    unsigned int job           # number of the job and its count of threads
    int unfinished             # workers still at it
    int workers                # started
    task_t task
    void *argument

cdef Pool pool
cdef int chosen = 0                                        # by set_num_threads; 0: not yet
cdef int available = 1
cdef int blas_at_start = 0
cdef int (*blas_threads)() noexcept nogil
blas_threads = NULL


cdef void clear_pool() noexcept nogil:
    """An empty pool: at the start, and in a forked child, which has no workers."""
    pthread_mutex_init(&pool.owner, NULL)
    pthread_mutex_init(&pool.lock, NULL)
    pthread_cond_init(&pool.wake, NULL)
    pool.job = 0
    pool.unfinished = 0
    pool.workers = 0


cdef unsigned int next_job(unsigned int seen) noexcept nogil:
    """The first job after `seen`; watch for a while, then sleep."""
    cdef int _
    cdef unsigned int job
    for _ in range(SPINS):
        job = atomic_load_word(&pool.job)
        if job != seen:
            return job
        cpu_pause()
    pthread_mutex_lock(&pool.lock)
    while atomic_load_word(&pool.job) == seen:
        pthread_cond_wait(&pool.wake, &pool.lock)
    job = pool.job
    pthread_mutex_unlock(&pool.lock)
    return job


cdef void *work(void *argument) noexcept nogil:
    """The life of a worker. The pointer holds its index and the last job before its time."""
    cdef:
        int index = <int> <size_t> argument & 0xff, count
        unsigned int seen = <unsigned int> (<size_t> argument >> 8)
    while True:
        seen = next_job(seen)
        count = seen & ((1 << COUNT_BITS) - 1)
        if index < count:
            pool.task(pool.argument, index, count)
            atomic_add(&pool.unfinished, -1)


cdef void parallel(task_t task, void *argument, int count) noexcept nogil:
    """Run `task` on `count` threads, or alone where that many cannot be had."""
    cdef:
        pthread_t thread
        int spin = 0
    if count <= 1 or pthread_mutex_trylock(&pool.owner) != 0:
        task(argument, 0, 1)
        return
    while pool.workers < count - 1:
        if pthread_create(&thread, NULL, work, <void *> (
                (<size_t> pool.job << 8) | <size_t> (pool.workers + 1))) != 0:
            break
        pthread_detach(thread)
        pool.workers += 1
    count = min(count, pool.workers + 1)
    pool.task = task
    pool.argument = argument
    atomic_store(&pool.unfinished, count - 1)
    pthread_mutex_lock(&pool.lock)
    atomic_store_word(&pool.job, ((pool.job >> COUNT_BITS) + 1) << COUNT_BITS | count)
    pthread_cond_broadcast(&pool.wake)
    pthread_mutex_unlock(&pool.lock)
    task(argument, 0, count)
    while atomic_load(&pool.unfinished) > 0:
        spin += 1
        cpu_pause()
        if spin > SPINS:
            sched_yield()
    pthread_mutex_unlock(&pool.owner)


cdef void wait(Barrier *barrier, int count) noexcept nogil:
    """Go on when all `count` threads of a task have come here."""
    cdef int generation, spin = 0
    if count == 1:
        return
    generation = atomic_load(&barrier.generation)
    if atomic_add(&barrier.arrived, 1) == count:
        atomic_store(&barrier.arrived, 0)
        atomic_store(&barrier.generation, generation + 1)
        return
    while atomic_load(&barrier.generation) == generation:
        spin += 1
        cpu_pause()
        if spin > SPINS:
            sched_yield()


cdef Py_ssize_t share(Py_ssize_t length, int index, int count) noexcept nogil:
    """Where the part of thread `index` begins, and that of the one before ends."""
    return length * index // count


cdef int thread_limit() noexcept nogil:
    """The most threads that a call may use now."""
    cdef int limit = chosen if chosen > 0 else available, blas
    if blas_threads != NULL:
        blas = blas_threads()
        if blas < blas_at_start or (chosen == 0 and blas < limit):
            limit = min(limit, blas)
    return max(1, limit)


def configure(int cpus, size_t blas_get_num_threads):
    """Called once, at import: processors at hand, and the address of BLAS's thread count or 0."""
    global available, blas_threads, blas_at_start
    available = max(1, min(cpus, MOST_THREADS))
    if blas_get_num_threads:
        blas_threads = <int (*)() noexcept nogil> <void *> blas_get_num_threads
        blas_at_start = blas_threads()


def blas_threads_now():
    """Threads of BLAS, 0 if it does not say."""
    return blas_threads() if blas_threads != NULL else 0


def choose(int count):
    """set_num_threads, after its checks."""
    global chosen
    chosen = min(count, MOST_THREADS)


def limit():
    """get_num_threads."""
    return thread_limit()


clear_pool()
pthread_atfork(NULL, NULL, clear_pool)
