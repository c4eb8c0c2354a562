"""How work is split: a small pool of threads that outlives calls.

Whoever waits watches a word for some 200 microseconds, then sleeps: a worker for the next task, the
threads of a task for each other, the caller for its workers. Where threads share a processor,
watching only keeps it from the one that is waited for: nobody watches for long while a task has
more threads than processors, and each sleep makes the next watch shorter.

Where the threads of a task sleep at many of its barriers, either its steps are long or others use
the processors; the processor time of the next task tells which. A task is crowded if its threads
slept at many barriers and had too little processor time. It is no faster than one thread. So the
tasks after it run on the caller alone for as long as it took; after each crowded task in a row for
twice as long, up to sixteen times and at most a second. Threads of OpenMP that watch for some
milliseconds after their work then cost little, and so do processes that compute all the time.

One caller has the pool at a time; another that comes meanwhile runs its task alone, and gets the
same bits. A forked child starts with an empty pool. Workers take no signals, and round as the
caller does.

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
    int pthread_setcancelstate(int, int *)
    int PTHREAD_CANCEL_DISABLE
    int pthread_atfork(void (*)() noexcept nogil, void (*)() noexcept nogil,
                       void (*)() noexcept nogil)

cdef extern from "signal.h" nogil:
    ctypedef struct sigset_t:
        pass
    int SIG_SETMASK
    int sigfillset(sigset_t *)
    int pthread_sigmask(int, const sigset_t *, sigset_t *)

cdef extern from "atomic.h" nogil:
    unsigned int load_word "gru_atomic_load"(unsigned int *)
    unsigned int load_word_seq "gru_atomic_load_seq"(unsigned int *)
    void store_word_seq "gru_atomic_store_seq"(unsigned int *, unsigned int)
    int atomic_load "gru_atomic_load"(int *)
    void atomic_store "gru_atomic_store"(int *, int)
    int atomic_add "gru_atomic_add"(int *, int)
    int load_seq "gru_atomic_load_seq"(int *)
    int add_seq "gru_atomic_add_seq"(int *, int)
    long long add_time "gru_atomic_add"(long long *, long long)
    void cpu_pause "gru_cpu_pause"()
    long long nanoseconds "gru_nanoseconds"()
    long long processor_nanoseconds "gru_processor_nanoseconds"()

cdef extern from "cpu.h" nogil:
    unsigned long get_fp_mode "gru_get_fp_mode"()
    void set_fp_mode "gru_set_fp_mode"(unsigned long)

cdef enum:
    MOST_THREADS = 64
    COUNT_BITS = 8             # of a job's word; the rest numbers the jobs
    PAUSES = 16                # about 1 us on x86, less elsewhere: between two looks at the clock
    PATIENCE = 200000          # ns to watch before sleeping; a step of 50,1,161,1760 takes 160 us
    TIMES_ALONE = 16           # as long as a crowded task took, at most, and
    MOST_ALONE = 1000000000    # so many ns

cdef struct Sleepers:          # who waits, asleep, for one kind of event
    pthread_cond_t wake
    int count

cdef struct Pool:
    pthread_mutex_t owner      # held by the caller whose task runs
    pthread_mutex_t lock       # held from the last look at a word until asleep
    Sleepers idle              # workers without a task
    Sleepers busy              # threads of a task at a barrier, and its caller at the end
    unsigned int job           # number of the job and its count of threads
    int unfinished             # workers still at it
    int workers                # started
    int patience               # ns to watch now
    int met                    # barriers of the task that all have passed
    int slept                  # times that a thread slept at one
    bint measuring             # processor time, as the threads of the last task slept much
    long long processor_time   # ns, of all threads of the task
    long long alone_until      # on the clock of nanoseconds()
    int times_alone            # for how many times as long as a crowded task took
    task_t task
    void *argument
    unsigned long fp_mode      # of the caller
    int forks                  # that led to this process

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
    pthread_cond_init(&pool.idle.wake, NULL)
    pthread_cond_init(&pool.busy.wake, NULL)
    pool.idle.count = 0
    pool.busy.count = 0
    pool.job = 0
    pool.unfinished = 0
    pool.workers = 0
    pool.patience = PATIENCE
    pool.alone_until = 0
    pool.times_alone = 1
    pool.forks += 1


# ---- waiting -----------------------------------------------------------------------------------

cdef bint watch(unsigned int *word, unsigned int seen) noexcept nogil:
    """Whether `word` changes from `seen` while we have patience."""
    cdef:
        int _
        long long now, end = 0
    while True:
        for _ in range(PAUSES):
            if load_word(word) != seen:
                return True
            cpu_pause()
        now = nanoseconds()
        if end == 0:
            end = now + atomic_load(&pool.patience)
        if now >= end:
            return False


cdef void sleep(Sleepers *sleepers, unsigned int *word, unsigned int seen) noexcept nogil:
    """Until `word` is no longer `seen` and its writer has called `wake`."""
    cdef int state
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state)     # the wait would be a point of it
    add_seq(&sleepers.count, 1)
    pthread_mutex_lock(&pool.lock)
    while load_word_seq(word) == seen:
        pthread_cond_wait(&sleepers.wake, &pool.lock)
    pthread_mutex_unlock(&pool.lock)
    atomic_add(&sleepers.count, -1)
    pthread_setcancelstate(state, &state)


cdef void wake(Sleepers *sleepers) noexcept nogil:
    """After a write to the word: nobody sleeps on, and no lock is taken where nobody sleeps."""
    if load_seq(&sleepers.count) > 0:
        pthread_mutex_lock(&pool.lock)
        pthread_mutex_unlock(&pool.lock)
        pthread_cond_broadcast(&sleepers.wake)


cdef void await_change(unsigned int *word, unsigned int seen) noexcept nogil:
    """Inside a task: until `word` is no longer `seen`."""
    cdef int patience = atomic_load(&pool.patience)
    if not watch(word, seen):
        atomic_store(&pool.patience, patience // 4)
        atomic_add(&pool.slept, 1)
        sleep(&pool.busy, word, seen)
    elif 0 < patience < PATIENCE:
        atomic_store(&pool.patience, min(PATIENCE, 2 * patience))


cdef void wait(Barrier *barrier, int count) noexcept nogil:
    """Go on when all `count` threads of a task have come here."""
    cdef int generation
    if count == 1 or barrier.abandoned:
        return
    generation = atomic_load(&barrier.generation)
    if atomic_add(&barrier.arrived, 1) == count:
        atomic_store(&barrier.arrived, 0)
        atomic_store(&pool.met, atomic_load(&pool.met) + 1)
        add_seq(&barrier.generation, 1)
        wake(&pool.busy)
    else:
        await_change(<unsigned int *> &barrier.generation, <unsigned int> generation)


# ---- the pool ----------------------------------------------------------------------------------

cdef void run(int index, int count) noexcept nogil:
    """The part of one thread."""
    cdef long long start
    if not pool.measuring:
        pool.task(pool.argument, index, count)
        return
    start = processor_nanoseconds()
    pool.task(pool.argument, index, count)
    add_time(&pool.processor_time, processor_nanoseconds() - start)


cdef void *work(void *argument) noexcept nogil:
    """The life of a worker. The pointer holds its index and the last job before its time."""
    cdef:
        int index = <int> <size_t> argument & 0xff, count
        unsigned int seen = <unsigned int> (<size_t> argument >> 8)
    while True:
        if not watch(&pool.job, seen):
            sleep(&pool.idle, &pool.job, seen)
        seen = load_word(&pool.job)
        count = seen & ((1 << COUNT_BITS) - 1)
        if index < count:
            set_fp_mode(pool.fp_mode)
            run(index, count)
            if add_seq(&pool.unfinished, -1) == 0:
                wake(&pool.busy)


cdef void start_workers(int count) noexcept nogil:
    """Have `count` workers, or as many as the system gives."""
    cdef:
        pthread_t thread
        sigset_t every, before
    if pool.workers >= count:
        return
    sigfillset(&every)                                     # a worker inherits the mask
    pthread_sigmask(SIG_SETMASK, &every, &before)
    while pool.workers < count:
        if pthread_create(&thread, NULL, work, <void *> (
                (<size_t> pool.job << 8) | <size_t> (pool.workers + 1))) != 0:
            break
        pthread_detach(thread)
        atomic_add(&pool.workers, 1)
    pthread_sigmask(SIG_SETMASK, &before, NULL)


cdef void parallel(task_t task, void *argument, int count) noexcept nogil:
    """Run `task` on `count` threads, or alone where that many cannot be had."""
    cdef:
        int left, forks = pool.forks
        bint slept_much, few           # processors
        long long start, took
    if count <= 1 or pthread_mutex_trylock(&pool.owner) != 0:
        task(argument, 0, 1)
        return
    start_workers(count - 1)
    start = nanoseconds()
    if start < pool.alone_until:
        pthread_mutex_unlock(&pool.owner)
        task(argument, 0, 1)
        return
    count = min(count, pool.workers + 1)
    pool.task = task
    pool.argument = argument
    pool.fp_mode = get_fp_mode()
    atomic_store(&pool.patience, PATIENCE if count <= available else 0)
    atomic_store(&pool.met, 0)
    atomic_store(&pool.slept, 0)
    pool.processor_time = 0
    atomic_store(&pool.unfinished, count - 1)
    store_word_seq(&pool.job, ((pool.job >> COUNT_BITS) + 1) << COUNT_BITS | count)
    wake(&pool.idle)
    run(0, count)
    if pool.forks != forks:                                # a child by now: nobody to wait for
        return
    left = atomic_load(&pool.unfinished)
    while left > 0:
        await_change(<unsigned int *> &pool.unfinished, <unsigned int> left)
        left = atomic_load(&pool.unfinished)
    took = nanoseconds() - start
    slept_much = pool.slept > 8 and pool.slept > pool.met // 8
    few = pool.measuring and 4 * pool.processor_time < 5 * took
    if slept_much and (few or count > available):
        pool.alone_until = start + took + min(MOST_ALONE, pool.times_alone * took)
        pool.times_alone = min(TIMES_ALONE, 2 * pool.times_alone)
    elif not slept_much:
        pool.times_alone = 1
    pool.measuring = slept_much
    pthread_mutex_unlock(&pool.owner)


cdef Py_ssize_t share(Py_ssize_t length, int index, int count) noexcept nogil:
    """Where the part of thread `index` begins, and that of the one before ends."""
    return length * index // count


cdef int fork_count() noexcept nogil:
    """How many forks led to this process, since the import."""
    return pool.forks


cdef int thread_limit() noexcept nogil:
    """The most threads that a call may use now."""
    cdef int wanted = atomic_load(&chosen), limit = wanted if wanted > 0 else available, blas
    if blas_threads != NULL:
        blas = blas_threads()
        if blas < blas_at_start or (wanted == 0 and blas < limit):
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


def choose(count):
    """set_num_threads, after its checks: a positive integer of any size."""
    atomic_store(&chosen, min(count, MOST_THREADS))


def limit():
    """get_num_threads."""
    return thread_limit()


def workers():
    """Threads that the pool has started, the callers not among them."""
    return atomic_load(&pool.workers)


clear_pool()
pthread_atfork(NULL, NULL, clear_pool)
