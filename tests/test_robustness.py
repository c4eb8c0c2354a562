"""What a host program relies on: threads, fork, memory, extreme values, a quiet import.

Nothing here depends on the speed of the machine, apart from the time of the import.
"""

import os
import random
import sys
import threading
import time
import tracemalloc
import warnings
from functools import partial

import numpy as np
import pytest
from helpers import (
    F32,
    F64,
    at_once,
    draw,
    equal,
    error,
    expected,
    growths,
    normal,
    python,
    run,
    train_once,
)

import gru_c

# ---- threads -------------------------------------------------------------------------------------

def test_many_threads_on_one_model(dtype, reset_after):
    """In eval, eight threads with calls of all shapes get the bits that they get one by one."""
    options = {"rng": 0, "dtype": dtype, "reset_after": reset_after}
    gru = gru_c.GRU(17, 33, num_layers=2, **options).eval()
    one = gru_c.GRU(17, 33, **options).eval()              # takes the short way
    cell = gru_c.GRUCell(17, 33, **options).eval()
    calls = []
    for seed, (steps, rows) in enumerate([(1, 1), (2, 3), (40, 1), (7, 12), (20, 60), (5, 0)]):
        x, h = normal(steps, rows, 17, dtype=dtype, seed=seed), normal(2, rows, 33, dtype=dtype)
        calls += [lambda x=x: gru(x)[0], lambda x=x, h=h: gru(x, h)[1],
                  lambda x=x, h=h: gru.step(x[0], h), lambda x=x, h=h: cell(x[0], h[0]),
                  lambda x=x, h=h: one(x, h[:1])[0]]
    expected = [call() for call in calls]

    def work(seed):
        order = random.Random(seed).choices(range(len(calls)), k=150)
        return [index for index in order if not equal(calls[index](), expected[index])]

    assert at_once(*(partial(work, seed) for seed in range(8))) == [[]] * 8


def test_models_train_side_by_side():
    """Each thread has its own model; nothing is shared behind their backs."""
    x, delta = normal(9, 5, 17), normal(9, 5, 33)
    expected = train_once(gru_c.GRU(17, 33, rng=0), x, delta)

    def work():
        model = gru_c.GRU(17, 33, rng=0)
        return all(equal(a, b) for _ in range(50)
                   for a, b in zip(train_once(model, x, delta), expected, strict=True))

    assert at_once(*[work] * 4) == [True] * 4


def test_many_callers_share_the_threads(set_threads):
    """One caller has the pool, the others go on alone: the same bits for all."""
    set_threads(3)
    gru = gru_c.GRU(32, 200, rng=0).eval()
    inputs = [normal(20, 32, 32), normal(40, 1, 32), normal(2, 100, 32)]
    expected = [gru(x)[0] for x in inputs]

    def work(index):
        return all(equal(gru(inputs[(index + i) % 3])[0], expected[(index + i) % 3])
                   for i in range(30))

    assert at_once(*(partial(work, index) for index in range(4))) == [True] * 4


@pytest.mark.parametrize("what", ["eval", "forward", "backward", "step", "cell"])
def test_the_gil_is_released(what, set_threads):
    """While one call runs in another thread, Python runs here."""
    set_threads(1)                                         # so that it runs for a while
    x, h = normal(150, 64, 64, dtype=F64), normal(1, 64, 256, dtype=F64)
    gru, cell = gru_c.GRU(64, 256, dtype=F64), gru_c.GRUCell(64, 256, dtype=F64).eval()
    if what == "backward":
        gru(x)
    many = normal(9600, 64, dtype=F64), normal(1, 9600, 256, dtype=F64)
    call = {"eval": lambda: gru(x, h), "forward": lambda: gru(x, h),
            "backward": lambda: gru.backward(None, h), "step": lambda: gru.step(*many),
            "cell": lambda: cell(many[0], many[1][0])}[what]
    if what == "eval":
        gru.eval()
    times = []

    def work():
        times.append(time.perf_counter())
        call()
        times.append(time.perf_counter())

    worker, beats = threading.Thread(target=work), []
    worker.start()
    while worker.is_alive():
        time.sleep(0.0005)
        beats.append(time.perf_counter())
    worker.join()
    start, end = times
    # In the middle half of the call: its Python, at either end, would let this thread run anyway.
    quarter = (end - start) / 4
    assert sum(start + quarter < beat < end - quarter for beat in beats) >= 3


# ---- processes -----------------------------------------------------------------------------------

FORK = """
import multiprocessing, os, sys, warnings
import numpy as np, gru_c
warnings.simplefilter("ignore", DeprecationWarning)
x, delta = np.ones((20, 32, 32), "f4"), np.ones((20, 32, 64), "f4")
hidden, bidirectional = eval(sys.argv[1])
gru = gru_c.GRU(32, hidden, bidirectional=bidirectional, rng=0)
gru_c.set_num_threads(2)                # the child must not wait for threads that it does not have

def train(_=None):
    output, h_n = gru(x)
    return [output, h_n, *gru.backward(delta), *gru.grads.values()]

def same(a, b):
    return all(np.array_equal(*pair) for pair in zip(a, b, strict=True))

expected = train()
gru(x)                                  # a tape that the child inherits
child = os.fork()
if not child:
    found = [*gru.backward(delta), *gru.grads.values()]
    os._exit(0 if same(found, expected[2:]) and same(train(), expected) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(all(same(found, expected) for found in pool.map(train, range(8))))
print(same([*gru.backward(delta), *gru.grads.values()], expected[2:]))
"""


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="no safe fork here")
@pytest.mark.parametrize("model", ["64, False", "32, True"])
def test_fork(model):
    assert python(FORK, model).split() == ["0", "True", "True"]


def test_spawned_processes_get_models_by_pickle():
    script = """
import multiprocessing, sys, types
import numpy as np, gru_c
if __name__ == "__main__":
    gru = gru_c.GRU(3, 4, rng=0).eval()
    x = np.ones((5, 2, 3), "f4")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(np.array_equal(pool.apply(gru, (x,))[0], gru(x)[0]))
"""
    assert python(script) == "True\n"


# ---- memory --------------------------------------------------------------------------------------

def use(cell, gru):
    """One round of everything, errors included."""
    x, h, delta = np.ones((2, 3), F32), np.ones((2, 4), F32), np.ones((2, 4), F32)
    cell(x, h, out=h)
    cell.backward(delta)
    _ = cell.r, cell.x, cell.dWrx, cell.Wnh, cell.grads
    cell.Wrx = np.ones((4, 3), F32)
    cell.load_state_dict(cell.state_dict())
    cell.eval()(x)
    cell.train()
    sequence = np.ones((5, 2, 3), F32)
    gru(sequence)
    gru.backward(np.ones((5, 2, 4), F32))
    gru.step(x)
    gru.load_state_dict(gru.state_dict())
    gru.weight_ih_l0 = gru.weight_ih_l0
    gru.eval()(sequence)
    gru.train()(sequence)                                  # a tape that is never used
    for call in (lambda: cell(x.astype(F64)), lambda: gru(sequence[:0]), lambda: cell(x, out=x),
                 lambda: gru.load_state_dict({}), lambda: gru.backward(x)):
        with pytest.raises((TypeError, ValueError)):
            call()


def test_no_memory_leaks():
    """A leak of one small object per round would be 14 KB each time; the interpreter's free lists
    fill up and stop."""
    kept = [gru_c.GRUCell(3, 4), gru_c.GRU(3, 4, num_layers=2), gru_c.GRU(3, 4)]

    def use_all():
        for _ in range(250):
            cell, *grus = kept
            for gru in grus:
                use(cell, gru)
            use(gru_c.GRUCell(3, 4), gru_c.GRU(3, 4, num_layers=2))      # and models that go

    assert any(growth < 4000 for growth in growths(use_all))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_process_does_not_grow():
    """The same from outside, with arrays large enough to show: a leak would be 200 MB."""
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def rounds(count):
        for _ in range(count):
            gru(x)
            gru.backward(delta)
            gru.load_state_dict(gru.state_dict())
            gru.eval()(x)
            gru.train()

    gru, x, delta = gru_c.GRU(64, 64), normal(20, 20, 64), normal(20, 20, 64)
    rounds(20)
    before = resident()
    rounds(300)
    assert resident() - before < 30e6


def test_eval_saves_nothing():
    """A long sequence in eval needs its output and a small buffer, not four planes a step."""
    x = normal(2000, 4, 8)
    output_bytes = 2000 * 4 * 64 * 4
    gru = gru_c.GRU(8, 64).eval()
    tracemalloc.start()
    try:
        gru(x)
        assert tracemalloc.get_traced_memory()[1] < output_bytes + 500_000
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        gru(x)
        assert tracemalloc.get_traced_memory()[0] - before < 10_000
    finally:
        tracemalloc.stop()
    with pytest.raises(RuntimeError):
        gru.backward(np.zeros((2000, 4, 64), F32))


# ---- extreme values ------------------------------------------------------------------------------

@pytest.mark.parametrize("where", ["x", "h_0", "d_output"])
def test_a_nan_reaches_what_depends_on_it(where, reset_after, dtype):
    """And no step before it. That its batch mates do not notice is tested in test_numerics.py."""
    gru = gru_c.GRU(5, 19, rng=0, reset_after=reset_after, dtype=dtype)
    call = draw(gru, 4, 13)
    call[where][0 if where == "h_0" else 1, 6, 2] = np.nan
    found = {name: np.isnan(value[:, 6]) for name, value in run(gru, **call).items()
             if name in ("output", "h_n", "dx", "dh_0")}
    if where == "d_output":
        assert not found["output"].any() and not found["dx"][2:].any()
        assert found["dh_0"].all() and found["dx"][:2].all()
    else:
        assert found["h_n"].all() and found["dx"].all()
        assert where == "h_0" or not found["output"][0].any()


def test_huge_values_saturate(dtype, reset_after):
    """Gates go to 0, 1 and -1, gradients to 0: no warning, no NaN."""
    cell = gru_c.GRUCell(2, 3, dtype=dtype, reset_after=reset_after, rng=0)
    huge = np.finfo(dtype).max / 8
    cell.init_weights(*[np.eye(3, 2, dtype=dtype) - 0.5] * 3, *[np.zeros((3, 3), dtype)] * 3,
                      *[np.zeros(3, dtype)] * 6)
    h = normal(4, 3, dtype=dtype)
    x = np.array([[huge, -huge], [-huge, huge], [1e4, -1e4], [-1e4, 1e4]], dtype)
    result = cell(x, h)
    assert np.all((cell.r == 0) | (cell.r == 1) | (cell.r == 0.5))
    assert np.all((cell.z == 0) | (cell.z == 1) | (cell.z == 0.5))
    assert np.all((np.abs(cell.n) == 1) | (cell.n == 0))
    assert set(np.unique(cell.z)) >= {0, 1}
    np.testing.assert_allclose(result, cell.n + cell.z * (h - cell.n), rtol=0,
                               atol=4 * np.finfo(dtype).eps)
    saturated = cell.z == 0
    np.testing.assert_array_equal(result[saturated], cell.n[saturated])
    for gradient in (*cell.backward(np.ones((4, 3), dtype)), *cell.grads.values()):
        assert np.all(np.isfinite(gradient))


def test_tiny_values(dtype):
    """Denormal inputs do what zeros do, to rounding; a denormal state is not flushed to zero: with
    z = 1 and n = 0 it is handed through, and so is its gradient."""
    tiny = np.finfo(dtype).smallest_subnormal
    cell = gru_c.GRUCell(3, 4, dtype=dtype, rng=0)
    zero = cell(np.zeros((2, 3), dtype))
    np.testing.assert_allclose(cell(np.full((2, 3), tiny), np.full((2, 4), tiny)), zero,
                               rtol=0, atol=2 * np.finfo(dtype).eps)
    cell.load_state_dict({name: np.zeros_like(w) for name, w in cell.state_dict().items()})
    cell.bzx = np.full(4, 1e4, dtype)
    h = np.full((2, 4), 3 * tiny)
    np.testing.assert_array_equal(cell(np.zeros((2, 3), dtype), h), h)
    _, dh = cell.backward(h)
    np.testing.assert_array_equal(dh, h)


@pytest.mark.parametrize(("inputs", "hidden"), [(3, 1000), (1000, 2), (1, 257), (2049, 1)])
def test_wide_and_narrow(inputs, hidden, dtype):
    """Sizes far apart."""
    gru = gru_c.GRU(inputs, hidden, dtype=dtype, rng=0)
    call = draw(gru, 3, 4)
    wanted = expected(gru, **call)
    for name, value in run(gru, **call).items():
        assert error(value, wanted[name]) <= (2e-5 if dtype == F32 else 1e-12), name


# ---- the state of the process --------------------------------------------------------------------

def test_floating_point_state():
    """No flag of the processor, no setting of NumPy changes; nothing warns."""
    half, small = F32(0.5), F32(1e-40)
    before = np.geterr()
    assert small * half != 0
    x = normal(4, 3, 5)
    x[0, 0] = np.inf
    x[1, 1] = 1e38
    x[2, 2] = 1e-40
    gru, cell = gru_c.GRU(5, 19), gru_c.GRUCell(5, 19)
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        state = np.geterr()
        train_once(gru, x, normal(4, 3, 19))
        train_once(cell, x[0], normal(3, 19))
        gru.eval()(x)
        gru.step(x[0])
        assert np.geterr() == state
        assert F32(1) + F32(2) == 3
    assert np.geterr() == before
    assert small * half != 0                               # denormals are still on
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        np.ones(3) / np.zeros(3)


def test_global_random_states_are_left_alone():
    def states():
        name, keys, *rest = np.random.get_state()  # noqa: NPY002
        return random.getstate(), name, keys.tobytes(), rest

    before = states()
    train_once(gru_c.GRU(5, 19), normal(4, 3, 5), normal(4, 3, 19))
    train_once(gru_c.GRUCell(5, 19, rng=0), normal(3, 5), normal(3, 19))
    assert states() == before


def test_thread_pools_are_left_alone():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def pools():
        return [(pool["filepath"], pool["num_threads"]) for pool in threadpoolctl.threadpool_info()]

    for limit in (1, 2, None):
        with threadpoolctl.threadpool_limits(limit):
            before = pools()
            assert limit != 1 or gru_c.get_num_threads() == 1        # ours follow those of BLAS
            train_once(gru_c.GRU(64, 128), normal(20, 30, 64), normal(20, 30, 128))
            gru_c.GRU(64, 128).eval()(normal(20, 30, 64))
            assert pools() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_threads_are_left_behind():
    def threads():
        return len(os.listdir("/proc/self/task"))

    gru = gru_c.GRU(64, 128)
    train_once(gru, normal(20, 30, 64), normal(20, 30, 128))
    before = threads()
    for _ in range(20):
        train_once(gru, normal(20, 30, 64), normal(20, 30, 128))
    assert threads() <= before


# ---- the import ----------------------------------------------------------------------------------

def test_import_is_quiet_and_alone():
    """It prints nothing, loads no extra, and takes no signal handler or setting over."""
    script = """
import os, signal, sys, threading
import numpy
state = numpy.geterr(), signal.getsignal(signal.SIGINT), dict(os.environ), numpy.get_printoptions()
import gru_c
assert state == (numpy.geterr(), signal.getsignal(signal.SIGINT), dict(os.environ),
                 numpy.get_printoptions())
assert threading.active_count() == 1
extras = ("tqdm", "matplotlib", "safetensors", "torch", "threadpoolctl", "pytest", "pip",
          "tensorflow", "keras", "onnx", "PIL", "sklearn", "gru_c.learn", "gru_c.cli")
sys.stdout = sys.stderr = None
loaded = [name for name in extras if name in sys.modules]
os._exit(1 if loaded else 0)
"""
    assert python(script) == ""


def test_import_time():
    """At most 30 ms on top of scipy.linalg; the best of a few, for a busy machine."""
    script = ("import scipy.linalg, time; start = time.perf_counter(); import gru_c; "
              "print(time.perf_counter() - start)")
    times = []
    while not times or (min(times) > 0.03 and len(times) < 10):
        times.append(float(python(script)))
    assert min(times) <= 0.03
