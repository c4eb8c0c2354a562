"""Stream around its calls: threads, code in the middle of a call, processes, memory, time.

What is counted here, allocations and system calls, does not depend on the speed of the machine.
"""

import copy
import gc
import os
import pickle
import platform
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    F32,
    F64,
    Meanwhile,
    assert_same_array,
    at_once,
    growths,
    normal,
    promises_bits,
    python,
)

import gru_c

HERE = Path(__file__).parent
ROWS = np.zeros((3, 5), F32)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only on Linux")
signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers of signals")


def model(*sizes, dtype=F32):
    return gru_c.GRU(*(sizes or (5, 17, 2)), dtype=dtype, rng=0)


def steps_of(stream, x):
    """The outputs of steps one by one, stacked."""
    return np.stack([stream.step(x_t) for x_t in x])


def at_state(stream, seed=1):
    """The stream, in a state of random numbers."""
    stream.state = normal(*stream.state.shape, dtype=stream.model.dtype, seed=seed)
    return stream


# ---- threads -------------------------------------------------------------------------------------

def long_run(stream, seconds=0.5):
    """A call of a stream that takes about so long, and its input."""
    rows = stream.batch_size
    x = normal(200, rows, stream.model.input_size, dtype=stream.model.dtype)
    start = time.perf_counter()
    stream.run(x)
    steps = int(200 * seconds / (time.perf_counter() - start)) + 1
    x = np.resize(x, (steps, *x.shape[1:]))
    return lambda: stream.run(x)


def busy(stream):
    try:
        _ = stream.address
    except RuntimeError:
        return True
    return False


def while_busy(stream, call):
    """Run a long call in a thread; yields once it is in the stream."""
    worker = threading.Thread(target=call)
    worker.start()
    while worker.is_alive() and not busy(stream):
        time.sleep(0.001)
    return worker


def test_one_call_at_a_time():
    gru = model(1, 256, 1)
    stream, x = gru.stream(16), normal(16, 1)
    call, before = long_run(stream), stream.state
    calls = [lambda: stream.step(x), lambda: stream.run(x[None]), stream.reset,
             lambda: stream.reset([1]), lambda: stream.copy_rows(0), lambda: stream.state,
             lambda: setattr(stream, "state", before), lambda: pickle.dumps(stream),
             lambda: copy.copy(stream), lambda: stream.address]
    worker, refused = while_busy(stream, call), 0
    for each in calls:
        try:
            each()
        except RuntimeError as error:
            assert str(error).startswith("the stream is in use: a stream runs one call at a time")
            refused += 1
    assert worker.is_alive()
    worker.join()
    assert refused == len(calls)
    for each in calls:
        each()


def test_new_weights_during_a_step_are_for_the_next():
    gru = model(1, 256, 1)
    stream = gru.stream(16)
    call = long_run(stream)
    stream.reset()
    call()
    want = stream.state
    stream.reset()
    worker = while_busy(stream, call)
    for _ in range(3):
        gru.load_state_dict({name: value + 1 for name, value in gru.state_dict().items()})
        gc.collect()
    assert worker.is_alive()
    worker.join()
    x = normal(16, 1)
    assert_same_array(stream.step(x), gru.step(x, want)[-1])


@pytest.mark.parametrize("num_threads", [1, 2])
def test_many_streams_share_a_model(num_threads, dtype):
    """Eight threads, each with streams of its own, get the bits of a single one."""
    gru = model(17, 130, 2, dtype=dtype)
    inputs = [normal(12, rows, 17, dtype=dtype) for rows in (1, 3, 40, 70)]
    want = [gru(x)[0] for x in inputs]

    def work(seed):
        for i in range(8):
            index = (seed + i) % len(inputs)
            x, stream = inputs[index], gru.stream(inputs[index].shape[1], num_threads)
            assert_same_array(np.concatenate([steps_of(stream, x[:5]), stream.run(x[5:])]),
                              want[index])
        return True

    assert at_once(*(partial(work, seed) for seed in range(8))) == [True] * 8


def test_weights_that_change_all_the_time_are_seen_whole():
    gru, x = model(8, 16, 3), normal(4, 8)
    states = [gru.state_dict(), gru_c.GRU(8, 16, 3, rng=5).state_dict()]
    wanted = []
    for state in states:
        gru.load_state_dict(state)
        wanted.append(gru.step(x)[-1].tobytes())
    end = threading.Event()

    def load():
        for k in range(300):
            gru.load_state_dict(states[k % 2])
        end.set()

    def step():
        stream, found = gru.stream(4), set()
        while not end.is_set():
            stream.reset()
            found.add(stream.step(x).tobytes())
        return found

    _, *found = at_once(load, step, step)
    if promises_bits():
        assert all(each <= set(wanted) for each in found)


def test_the_gil_is_released():
    stream = model(1, 256, 1).stream(16)
    call, beats = long_run(stream), []
    worker = while_busy(stream, call)
    while worker.is_alive():
        time.sleep(0.0005)
        beats.append(busy(stream))
    assert sum(beats) > 3


# ---- code that runs in the middle of a call ------------------------------------------------------

def test_a_conversion_may_use_the_stream():
    gru, x = model(), normal(4, 3, 5)
    want, h_n = gru(x)
    stream = gru.stream(3)
    out = np.zeros((3, 17), F32)
    late = Meanwhile(x[1], lambda: stream.step(x[0], out))
    assert_same_array(stream.step(late, out=out), want[1])
    stream.run(Meanwhile(x[3:], lambda: stream.step(Meanwhile(x[2], lambda: stream.state))))
    assert_same_array(stream.state, h_n)
    stream.state = Meanwhile(h_n, lambda: stream.reset())
    assert_same_array(stream.state, h_n)
    stream.reset(Meanwhile(np.array([1]), lambda: stream.copy_rows(0, 1)))
    assert not stream.state[:, 1].any()


def test_a_conversion_may_change_the_weights():
    gru, x = model(), normal(3, 5)
    new = gru_c.GRU(5, 17, 2, rng=3).state_dict()
    stream = gru.stream(3)
    found = stream.step(Meanwhile(x, lambda: gru.load_state_dict(new)))
    assert_same_array(found, gru.step(x)[-1])


def test_a_conversion_that_fails():
    stream = at_state(model().stream(3))
    before = stream.state

    def fail():
        raise KeyError("of the argument")

    for call in (stream.step, stream.run, stream.reset, stream.copy_rows,
                 partial(setattr, stream, "state")):
        with pytest.raises(KeyError, match="of the argument"):
            call(Meanwhile(None, fail))
    assert_same_array(stream.state, before)


class Stop(Exception):
    pass


def interrupted(call, handler, after):
    """Run a call, and a handler so many seconds from now."""
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@signals
def test_a_handler_may_use_the_stream_between_steps():
    gru, x, found = model(), normal(3, 5), []
    stream, other = gru.stream(3), gru.stream(3)
    counts = []

    def call():
        count = 0
        while not found or count < 10:
            stream.step(x)
            count += 1
        counts.append(count)

    interrupted(call, lambda: found.append(stream.step(x)), 0.02)
    for _ in range(counts[0] + 1):
        want = other.step(x)
    assert len(found) == 1
    assert_same_array(stream.step(x), other.step(x))
    assert want.shape == (3, 17)


@signals
def test_a_handler_in_a_long_run():
    """It runs soon; it cannot use the stream, but its exception ends the run."""
    def stop():
        times.append(time.perf_counter())
        with pytest.raises(RuntimeError, match="the stream is in use"):
            stream.step(x)
        raise Stop

    gru, times, x = model(1, 256, 1), [], normal(16, 1)
    stream = gru.stream(16)
    call = long_run(stream, 2)
    stream.reset()
    start = time.perf_counter()
    with pytest.raises(Stop):
        interrupted(call, stop, 0.05)
    end = time.perf_counter()
    assert end - times[0] < 0.5
    assert times[0] - start < 1
    state = stream.state                                   # and all is well again
    assert state.any()
    assert_same_array(stream.step(x), gru.step(x, state)[-1])


@signals
def test_a_handler_that_returns_does_not_disturb_a_run():
    gru, times = model(1, 256, 1), []
    stream = gru.stream(16)
    call = long_run(stream, 0.5)
    stream.reset()
    call()
    want = stream.state
    stream.reset()
    interrupted(call, lambda: (times.append(1), gc.collect(), gru.step(normal(16, 1))), 0.05)
    assert len(times) == 1
    assert_same_array(stream.state, want)


# ---- processes -----------------------------------------------------------------------------------

FORK = """
import os, warnings
import numpy as np, gru_c
warnings.simplefilter("ignore", DeprecationWarning)
x = np.random.default_rng(0).normal(size=(8, 70, 64)).astype("f4")
gru = gru_c.GRU(64, 256, 2, rng=0)
want, _ = gru(x)
streams = [gru.stream(70, num_threads) for num_threads in (1, 2, 2)]

def same(chunk, expected):
    return all(np.array_equal(stream.run(chunk), expected) for stream in streams)

first = same(x[:4], want[:4])
child = os.fork()
if not child:
    os._exit(0 if same(x[4:], want[4:]) and streams[0].address else 1)
print(first, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), same(x[4:], want[4:]))
"""


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="no safe fork here")
def test_fork():
    assert python(FORK, GRU_C_ENGINE="panel") == "True 0 True\n"


# ---- memory --------------------------------------------------------------------------------------

def test_nothing_is_kept_alive():
    gru = model()
    weak = [weakref.ref(gru), weakref.ref(gru.stream(3))]
    gc.collect()
    assert weak[1]() is None
    stream = gru.stream(3)
    weak.append(weakref.ref(stream))
    del gru
    gc.collect()
    assert weak[0]() is stream.model
    del stream
    gc.collect()
    assert [each() for each in weak] == [None] * 3


def test_a_cycle_of_model_and_stream_is_collected():
    gru = model()
    gru.live = gru.stream(3)
    gru.live.step(ROWS)
    gru.live.itself = gru.live
    weak = weakref.ref(gru), weakref.ref(gru.live)
    del gru
    gc.collect()
    assert [each() for each in weak] == [None, None]


def test_old_weights_are_freed():
    gru = gru_c.GRU(200, 200, rng=0).eval()
    stream, x = gru.stream(2), normal(2, 200)
    new = gru.state_dict()
    tracemalloc.start()
    try:
        for _ in range(3):
            gru.load_state_dict(new)
            stream.step(x)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(20):
            gru.load_state_dict(new)
            stream.step(x)
        assert tracemalloc.get_traced_memory()[0] - before < 500_000
    finally:
        tracemalloc.stop()


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rounds(gru, count):
    """Streams that are made, used and dropped, also in error."""
    x, wide = normal(3, 20), normal(3, 20, dtype=F64)
    for _ in range(count):
        stream = gru.stream(3)
        stream.step(x, out=x)
        stream.state = stream.state
        for call in (lambda: stream.step(wide), lambda: stream.reset([3]),  # noqa: B023
                     lambda: stream.step(x, out=wide)):  # noqa: B023
            with pytest.raises((TypeError, IndexError)):
                call()
        stream.itself = stream if count % 2 else None


def test_ten_thousand_streams_leave_nothing():
    gru = model(20, 20)
    assert any(growth < 4000 for growth in growths(partial(rounds, gru, 250)))
    if not sys.platform.startswith("linux"):
        return
    for _ in range(1000):
        gru.stream(3).step(normal(3, 20))
    before = resident()
    for _ in range(10_000):
        gru.stream(3).step(normal(3, 20))
    assert resident() - before < 10e6                      # a leak of them would be 150 MB


def test_many_rows_need_little_memory_between_layers():
    """A few steps at a time of many rows, not 256 of them."""
    gru = gru_c.GRU(8, 256, 3, rng=0)
    tracemalloc.start()
    try:
        stream = gru.stream(512)
        used, _ = tracemalloc.get_traced_memory()
        assert used < 40 * stream.state.nbytes
    finally:
        tracemalloc.stop()


# ---- counted: allocations and system calls -------------------------------------------------------

COUNT = """
import sys
from itertools import repeat
import numpy as np, gru_c
from failing_allocations import find_left
hidden, rows = int(sys.argv[1]), eval(sys.argv[2])
gru = gru_c.GRU(4, hidden, 2, rng=0)
stream = gru.stream(rows)
lead = () if rows is None else (rows,)
x, out = np.ones((*lead, 4), "f4"), np.empty((*lead, hidden), "f4")
chunk, whole = np.ones((7, *lead, 4), "f4"), np.empty((7, *lead, hidden), "f4")
step, run, left, most = stream.step, stream.run, find_left(), 2**30

def count(call):
    for _ in repeat(None, 1000):
        call()
    left.value = most
    for _ in repeat(None, 10_000):
        call()
    found, left.value = most - left.value, 0
    return found

print(count(lambda: np.empty(10_000)), count(lambda: step(x, out=out)), count(lambda: step(x, out)),
      count(lambda: step(x)), count(lambda: run(chunk, whole)), count(stream.reset))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is counted in glibc")
@pytest.mark.parametrize("hidden, rows", [(8, None), (40, 3), (256, 1), (64, 20)])
def test_ten_thousand_steps_allocate_their_results_alone(failing_malloc, hidden, rows):
    """The library counts the calls of malloc and its kin down. NumPy keeps small arrays."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = python(COUNT, str(hidden), str(rows), LD_PRELOAD=str(failing_malloc), PYTHONPATH=path,
                   PYTHONMALLOC="default")
    arrays, into, into_positional, results, run, reset = map(int, found.split())
    assert arrays == 10_000                                # it does count
    assert (into, into_positional, run, reset) == (0, 0, 0, 0)
    assert results == (0 if 4 * hidden * (rows or 1) < 1024 else 10_000)


def run_script(script, *arguments, **environment):
    return subprocess.run([sys.executable, "-c", script, *arguments], env=os.environ | environment,
                          capture_output=True, text=True, check=False)


SYSTEM_CALLS = """
import ctypes, os, sys
from itertools import repeat
import numpy as np, gru_c
hidden, rows, what = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
gru = gru_c.GRU(4, hidden, 2, rng=0)
stream = gru.stream(rows)
x, out = np.ones((rows, 4), "f4"), np.empty((rows, hidden), "f4")
chunk, mask = np.ones((20, rows, 4), "f4"), np.ones(rows, bool)
whole, libc = np.empty((20, rows, hidden), "f4"), ctypes.CDLL(None)
prctl, syscall = libc.prctl, libc.syscall
exit_number, getpid = {"x86_64": (60, 39), "aarch64": (93, 172)}[os.uname().machine]

def steps(count):
    for _ in repeat(None, count):
        stream.step(x, out=out)
        stream.step(x)

steps(100)
stream.run(chunk, whole), stream.reset(mask), stream.reset()
if what == "none":
    syscall(getpid)
if prctl(22, 1, 0, 0, 0):                                  # PR_SET_SECCOMP, SECCOMP_MODE_STRICT
    os._exit(77)
if what == "getpid":
    syscall(getpid)
steps(10_000)
stream.run(chunk, whole), stream.reset(mask), stream.reset()
os.write(1, b"done\\n")
syscall(exit_number, 0)
"""


@linux
@pytest.mark.parametrize("hidden, rows", [(8, 1), (40, 3), (64, 20)])
def test_ten_thousand_steps_make_no_system_call(hidden, rows):
    """In seccomp's strict mode, any but read, write and exit kills."""
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("no numbers of system calls")

    def run(what):
        return run_script(SYSTEM_CALLS, str(hidden), str(rows), what, OPENBLAS_NUM_THREADS="1",
                             GRU_C_ENGINE="panel")

    done = run("none")
    if done.returncode == 77:
        pytest.skip("no seccomp")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert run("getpid").returncode == -signal.SIGKILL     # it does look


# ---- time ----------------------------------------------------------------------------------------

def fading_model(dtype):
    """Without input, n is about 0 and z near 1: h decays by 1/400 in a step. In denormal numbers of
    float64, that lasts 14,000 steps."""
    gru, bias = gru_c.GRU(4, 64, dtype=dtype, rng=0).eval(), np.zeros(192, dtype)
    bias[64:128] = 6
    gru.bias_ih_l0, gru.bias_hh_l0 = bias, 0 * bias
    return gru


def test_silence_takes_no_longer_than_sound(dtype):
    """The promise is 1.1. Ten minutes are like any block of them in which h is denormal."""
    gru, steps = fading_model(dtype), 500
    tiny = np.finfo(dtype).smallest_normal
    silent = np.zeros((steps, 1, 4), dtype), np.full((1, 1, 64), tiny / 8, dtype)
    fading = silent[0], np.full((1, 1, 64), 1.5 * tiny, dtype)
    sound = normal(steps, 1, 4, dtype=dtype), np.full((1, 1, 64), 0.5, dtype)
    stream, out, times = gru.stream(1), np.empty((1, 64), dtype), np.full(3, np.inf)

    def seconds(x, h):
        stream.state, step = h, stream.step
        start = time.perf_counter()
        for x_t in x:
            step(x_t, out=out)
        return time.perf_counter() - start

    for _ in range(60):                                    # others run on this machine, too
        times = np.minimum(times, [seconds(*each) for each in (silent, fading, sound)])
        if times[:2].max() <= 1.1 * times[2]:
            break
    assert times[:2].max() <= 1.3 * times[2]
    seconds(*silent)
    assert not stream.state.any()


@linux
@pytest.mark.parametrize("inputs, hidden, layers, rows", [(4, 256, 2, 64), (900, 16, 1, 100),
                                                          (8, 512, 1, 1)])
def test_the_first_step_touches_no_new_memory(inputs, hidden, layers, rows):
    """Page faults of the first step and run: none. It is no slower than later steps."""
    import resource

    gru = gru_c.GRU(inputs, hidden, layers, rng=0)
    x, out = normal(40, rows, inputs), np.ones((40, rows, hidden), F32)

    def faults_of(stream):
        counts = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
        for call in (partial(stream.step, x[0], out[0]), partial(stream.run, x, out)):
            call()
            counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        return counts[2] - counts[1], counts[1] - counts[0]

    streams = [gru.stream(rows) for _ in range(10)]        # all alive: none has another's memory
    assert min(map(faults_of, streams)) == (0, 0)


def test_the_first_step_is_like_the_thousandth():
    gru, x, times = model(1, 40, 1), normal(1, 1), np.full(2, np.inf)
    out = np.empty((1, 40), F32)
    for _ in range(100):
        step, now = gru.stream(1).step, [time.perf_counter()]
        step(x, out=out)
        now.append(time.perf_counter())
        for _ in range(20):
            step(x, out=out)
        now.append(time.perf_counter())
        step(x, out=out)
        now.append(time.perf_counter())
        times = np.minimum(times, np.diff(now)[::2])
    assert times[0] <= 3 * times[1]
