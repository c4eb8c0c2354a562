# The thread pool. Workers outlive calls; a task runs on the caller and some of them.
#
# A thread that waits polls a word for about 200 microseconds, then sleeps. Workers wait for the
# next task, the threads of a team for each other, and the caller for its workers. Where threads
# share a processor, a thread that polls delays the one that it waits for. So polls are short while
# a team has more threads than there are processors, and each sleep shortens the next poll.
#
# Where the threads of a team sleep at many barriers, either the steps are long or others use the
# processors. The processor time of the next task tells which. A task is *crowded* if its threads
# slept at many barriers, and it had too little processor time or more threads than there are
# processors. It is no faster than one thread. Later tasks then run on the caller alone for as long
# as it took. Each further crowded task doubles this, up to sixteen times as long, and at most a
# second. Threads of OpenMP that poll for milliseconds after their work then cost little, and so do
# other compute-bound processes.
#
# One caller has the pool at a time. Another runs its task alone, and gets the same bits. A forked
# child starts with an empty pool. Workers take no signals, and round as the caller does. BLAS's
# number of threads is only read: where it is lowered (threadpoolctl does so), we follow.

from posix.signal cimport SIG_SETMASK, sigfillset, sigset_t

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
    int pthread_atfork(void *, void *, void (*)() noexcept nogil)
    int pthread_sigmask(int, const sigset_t *, sigset_t *)     # in signal.h, as sigset_t

cdef extern from "platform.h" nogil:
    int atomic_load "gru_atomic_load"(const int *)
    void atomic_store "gru_atomic_store"(int *, int)
    int atomic_add "gru_atomic_add"(int *, int)
    long long add_time "gru_atomic_add"(long long *, long long)
    void pause "gru_cpu_pause"()
    long long nanoseconds "gru_nanoseconds"()
    long long processor_nanoseconds "gru_processor_nanoseconds"()
    unsigned long get_fp_mode "gru_get_fp_mode"()
    void set_fp_mode "gru_set_fp_mode"(unsigned long)
    const unsigned long FLUSH_DENORMALS "GRU_FLUSH_DENORMALS"

cdef enum:
    MAX_THREADS = 64           # of a team
    TEAM_BITS = 8              # bits of an epoch that hold the size of the team; the others count
    TEAM_MASK = (1 << TEAM_BITS) - 1
    POLLS = 16                 # between readings of the clock: about 1 us on x86, less elsewhere
    MAX_POLL = 200000          # ns to poll before sleeping; a step of 50,1,161,1760 takes 160 us
    MAX_TIMES_ALONE = 16       # after a crowded task, alone for at most 16 times as long
    MAX_ALONE = 1000000000     # ns, and for a second at most

cdef struct Sleepers:          # threads that sleep until one kind of event
    pthread_cond_t wake
    int count

cdef struct Pool:
    pthread_mutex_t owner      # held by the caller whose task runs
    pthread_mutex_t lock       # held from the last check of a word until the thread sleeps
    Sleepers idle              # workers without a task
    Sleepers busy              # threads at a barrier of a task, and its caller at the end
    int epoch                  # of the task, and the size of its team
    int pending                # workers that have not finished the task
    int workers                # started
    int poll_time              # ns to poll now
    int passed                 # barriers that the team has passed in this task
    int slept                  # times that a thread slept at one
    bint measuring             # measure processor time: the threads of the last task slept much
    long long processor_time   # ns, of all threads of the task
    long long alone_until      # on the clock of nanoseconds()
    int times_alone            # alone for how many times as long as a crowded task took
    task_t task
    void *argument
    unsigned long fp_mode      # of the caller

cdef struct Limits:            # of the number of threads
    int chosen                 # by set_num_threads; 0: not yet
    int available              # processors
    int (*get_blas_threads)() noexcept nogil               # may be NULL
    int blas_at_start

cdef Pool pool
cdef Limits limits
cdef int forks                 # counts up in each forked child


cdef void clear_pool() noexcept nogil:
    """Empty the pool: at the start, and in a forked child, which has no workers."""
    global forks
    memset(&pool, 0, sizeof(Pool))
    pthread_mutex_init(&pool.owner, NULL)
    pthread_mutex_init(&pool.lock, NULL)
    pthread_cond_init(&pool.idle.wake, NULL)
    pthread_cond_init(&pool.busy.wake, NULL)
    pool.poll_time = MAX_POLL
    pool.times_alone = 1
    forks += 1


cdef void start_pool(int available) noexcept nogil:
    """Once, before the first task: the number of processors."""
    limits.available = max(1, min(available, <int> MAX_THREADS))
    clear_pool()
    pthread_atfork(NULL, NULL, clear_pool)


# ---- waiting -----------------------------------------------------------------------------------

cdef bint poll(int *word, int seen) noexcept nogil:
    """Whether `word` changes from `seen` within the poll time."""
    cdef:
        int _
        long long now, end = 0
    while True:
        for _ in range(POLLS):
            if atomic_load(word) != seen:
                return True
            pause()
        now = nanoseconds()
        if end == 0:
            end = now + atomic_load(&pool.poll_time)
        if now >= end:
            return False


cdef void sleep(Sleepers *sleepers, int *word, int seen) noexcept nogil:
    """Sleep until `word` is no longer `seen`. Its writer calls `wake` after the change."""
    cdef int state
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state)     # the wait could be cancelled
    atomic_add(&sleepers.count, 1)
    pthread_mutex_lock(&pool.lock)
    while atomic_load(word) == seen:
        pthread_cond_wait(&sleepers.wake, &pool.lock)
    pthread_mutex_unlock(&pool.lock)
    atomic_add(&sleepers.count, -1)
    pthread_setcancelstate(state, &state)


cdef void wake(Sleepers *sleepers) noexcept nogil:
    """Wake all sleepers. The word has been written. Takes no lock if nobody sleeps."""
    if atomic_load(&sleepers.count) > 0:
        pthread_mutex_lock(&pool.lock)
        pthread_mutex_unlock(&pool.lock)
        pthread_cond_broadcast(&sleepers.wake)


cdef void await_change(int *word, int seen) noexcept nogil:
    """Inside a task, wait until `word` is no longer `seen`."""
    cdef int poll_time = atomic_load(&pool.poll_time)
    if not poll(word, seen):
        atomic_store(&pool.poll_time, poll_time // 4)
        atomic_add(&pool.slept, 1)
        sleep(&pool.busy, word, seen)
    elif 0 < poll_time < MAX_POLL:
        atomic_store(&pool.poll_time, min(MAX_POLL, 2 * poll_time))


cdef void barrier_wait(Barrier *barrier, int team) noexcept nogil:
    """Return when all `team` threads of a task have called this."""
    cdef int epoch
    if team == 1 or barrier.abandoned:
        return
    epoch = atomic_load(&barrier.epoch)
    if atomic_add(&barrier.arrived, 1) == team:
        atomic_store(&barrier.arrived, 0)
        atomic_add(&pool.passed, 1)
        atomic_add(&barrier.epoch, 1)
        wake(&pool.busy)
    else:
        await_change(&barrier.epoch, epoch)


# ---- tasks -------------------------------------------------------------------------------------

cdef void count_time(int sign) noexcept nogil:
    """With -1 before a thread's task and with 1 after it: the sum is its processor time."""
    if pool.measuring:
        add_time(&pool.processor_time, sign * processor_nanoseconds())


cdef void *work(void *argument) noexcept nogil:
    """The life of a worker. The pointer holds its rank and the epoch in which it was started."""
    cdef:
        int rank = <int> <size_t> argument & TEAM_MASK, team
        int epoch = <int> (<size_t> argument >> TEAM_BITS)
    while True:
        if not poll(&pool.epoch, epoch):
            sleep(&pool.idle, &pool.epoch, epoch)
        epoch = atomic_load(&pool.epoch)
        team = epoch & TEAM_MASK
        if rank < team:
            set_fp_mode(pool.fp_mode)
            count_time(-1)
            pool.task(pool.argument, rank, team)
            count_time(1)
            if atomic_add(&pool.pending, -1) == 0:
                wake(&pool.busy)


cdef void start_workers(int count) noexcept nogil:
    """Start workers until there are `count`, or the system refuses."""
    cdef:
        pthread_t thread
        sigset_t all_signals, before
    if pool.workers >= count:
        return
    sigfillset(&all_signals)                               # a worker inherits the mask
    pthread_sigmask(SIG_SETMASK, &all_signals, &before)
    while pool.workers < count:
        if pthread_create(&thread, NULL, work, <void *> (
                (<size_t> pool.epoch << TEAM_BITS) | <size_t> (pool.workers + 1))) != 0:
            break
        pthread_detach(thread)
        atomic_add(&pool.workers, 1)
    pthread_sigmask(SIG_SETMASK, &before, NULL)


cdef void start_task(task_t task, void *argument, int team) noexcept nogil:
    """Publish the task and begin its epoch."""
    pool.task = task
    pool.argument = argument
    pool.fp_mode = get_fp_mode()
    atomic_store(&pool.poll_time, MAX_POLL if team <= limits.available else 0)
    atomic_store(&pool.passed, 0)
    atomic_store(&pool.slept, 0)
    pool.processor_time = 0
    atomic_store(&pool.pending, team - 1)
    atomic_add(&pool.epoch, (1 << TEAM_BITS) + team - (pool.epoch & TEAM_MASK))     # may wrap
    wake(&pool.idle)


cdef void judge_task(int team, long long start, long long took) noexcept nogil:
    """After a task: was it crowded, and how long does the caller work alone then?"""
    cdef:
        bint slept_much = pool.slept > 8 and pool.slept > pool.passed // 8
        bint few_processors = pool.measuring and 4 * pool.processor_time < 5 * took
    if slept_much and (few_processors or team > limits.available):
        pool.alone_until = start + took + min(MAX_ALONE, pool.times_alone * took)
        pool.times_alone = min(MAX_TIMES_ALONE, 2 * pool.times_alone)
    elif not slept_much:
        pool.times_alone = 1
    pool.measuring = slept_much


cdef void run_team(task_t task, void *argument, int team) noexcept nogil:
    """Run `task` on at most `team` threads; on the caller alone if the pool is taken or crowded."""
    cdef:
        int pending, forks_before = forks
        long long start
    if team <= 1 or pthread_mutex_trylock(&pool.owner) != 0:
        task(argument, 0, 1)
        return
    start_workers(team - 1)
    start = nanoseconds()
    if start < pool.alone_until:
        pthread_mutex_unlock(&pool.owner)
        task(argument, 0, 1)
        return
    team = min(team, pool.workers + 1)
    start_task(task, argument, team)
    count_time(-1)
    task(argument, 0, team)
    count_time(1)
    if forks != forks_before:                              # now a child: it has no workers
        return
    pending = atomic_load(&pool.pending)
    while pending > 0:
        await_change(&pool.pending, pending)
        pending = atomic_load(&pool.pending)
    judge_task(team, start, nanoseconds() - start)
    pthread_mutex_unlock(&pool.owner)


# ---- numbers of threads ------------------------------------------------------------------------

cdef int fork_count() noexcept nogil:
    """A number that a forked child does not share with its parent."""
    return forks


cdef int max_threads() noexcept nogil:
    """The most threads that a call may use now."""
    cdef:
        int chosen = atomic_load(&limits.chosen), limit = chosen if chosen > 0 else limits.available
        int blas
    if limits.get_blas_threads != NULL:
        blas = limits.get_blas_threads()
        if chosen == 0 or blas < limits.blas_at_start:
            limit = min(limit, blas)
    return max(1, limit)
