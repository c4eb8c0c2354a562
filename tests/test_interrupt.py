"""Calls that a signal ends: how soon, what they leave, and handlers that call the model."""

import os
import signal
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest

import gru_c

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers of signals")

# T, N, I, H. A call that nothing stops takes 0.4 s or more, a chunk of it a few milliseconds.
SHAPES = {
    "one row": (20_000, 1, 16, 512),
    "units": (8_000, 4, 512, 512),                         # split by units: a barrier in each step
    "rows": (3_000, 16, 512, 512),                         # split by rows
}
AFTER = 0.05                                               # seconds until the signal
SOON = 0.2                                                 # seconds from the signal to the end
TRIES = 5


class Stop(Exception):
    pass


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    before = gru_c.get_num_threads()
    gru_c.set_num_threads(request.param)
    yield request.param
    gru_c.set_num_threads(before)


@contextmanager
def alarm(handler, after=AFTER):
    """Run `handler` by a signal so many seconds from now; yields the times at which it ran."""
    times = []

    def handle(*_):
        times.append(time.perf_counter())
        handler()

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        yield times
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def stop():
    raise Stop


def stopped(call):
    """Seconds from the signal to the end of a call, which `Stop` ends."""
    start = time.perf_counter()
    with alarm(stop), pytest.raises(Stop):
        call()
    return time.perf_counter() - start - AFTER


def assert_stops_soon(call, prepare=lambda: None):
    """The best of a few tries, for others run on this machine, too."""
    times = []
    while len(times) < TRIES and min(times, default=SOON) >= SOON:
        prepare()
        times.append(stopped(call))
    assert min(times) < SOON


def model_and_input(shape, **options):
    T, N, K, H = shape
    gru = gru_c.GRU(K, H, rng=0, **options)
    if gru.batch_first:
        T, N = N, T
    return gru, np.ones((T, N, K), np.float32)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_signal_ends_a_forward_soon(shape, threads):
    gru, x = model_and_input(shape)
    gru(x[:10])
    gru.backward(None)
    before = gru.state_dict()
    assert_stops_soon(lambda: gru(x))
    with pytest.raises(RuntimeError, match="the last forward did not finish"):
        gru.backward(None)
    with pytest.raises(RuntimeError, match="the last forward did not finish"):
        _ = gru.grads
    assert all((gru.state_dict()[name] == value).all() for name, value in before.items())
    gru(x[:10])                                            # and all is well again
    gru.backward(None)
    assert gru.grads.keys() == before.keys()
    assert_stops_soon(lambda: gru.eval()(x))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_signal_ends_a_backward_soon(shape, threads):
    gru, x = model_and_input(shape)
    d_output = np.ones((*x.shape[:2], gru.hidden_size), np.float32)
    assert_stops_soon(lambda: gru.backward(d_output), prepare=lambda: gru(x))
    with pytest.raises(RuntimeError, match="the last backward did not finish"):
        gru.backward(d_output)
    with pytest.raises(RuntimeError, match="the last backward did not finish"):
        _ = gru.grads
    gru(x[:10])
    gru.backward(d_output[:10])


@pytest.mark.parametrize("which", ["forward", "backward"])
@pytest.mark.parametrize("options", [{"num_layers": 2}, {"batch_first": True}])
def test_models_on_the_long_way(which, options):
    gru, x = model_and_input(SHAPES["rows"], **options)
    if which == "forward":
        assert_stops_soon(lambda: gru(x))
    else:
        d_output = np.ones((*x.shape[:2], gru.hidden_size), np.float32)
        assert_stops_soon(lambda: gru.backward(d_output), prepare=lambda: gru(x))
    with pytest.raises(RuntimeError, match=f"the last {which} did not finish"):
        gru.backward(None)
    with pytest.raises(RuntimeError, match=f"the last {which} did not finish"):
        _ = gru.grads


@pytest.mark.parametrize("which", ["forward", "backward", "eval"])
@pytest.mark.parametrize("ragged", [False, True])
def test_both_directions_stop(ragged, which, threads):
    """On one thread the second does not begin, on two it follows the first."""
    gru, x = model_and_input(SHAPES["rows" if ragged else "one row"], bidirectional=True)
    T, N, _ = x.shape
    options = {"lengths": T - np.arange(N) * 7,
               "resets": np.arange(T * N).reshape(T, N) % 99 == 5} if ragged else {}
    short = {name: value[:10] if name == "resets" else np.minimum(value, 10)
             for name, value in options.items()}
    want, _ = gru(x[:10], **short)
    if which == "backward":
        d_output = np.ones((*x.shape[:2], 2 * gru.hidden_size), np.float32)
        assert_stops_soon(lambda: gru.backward(d_output), prepare=lambda: gru(x, **options))
    else:
        gru.train(which == "forward")
        assert_stops_soon(lambda: gru(x, **options))
    if which != "eval":
        with pytest.raises(RuntimeError, match=f"the last {which} did not finish"):
            gru.backward(None)
        with pytest.raises(RuntimeError, match=f"the last {which} did not finish"):
            _ = gru.grads
    got, _ = gru(x[:10], **short)                          # and all is well again
    assert got.tobytes() == want.tobytes()


def test_a_handler_calls_a_model_of_two_directions(threads):
    gru, x = model_and_input(SHAPES["rows"], bidirectional=True)
    x, found = x[:1000], []
    options = {"lengths": 1000 - np.arange(16) * 60}
    want, want_h_n = gru(x, **options)
    want_dx, want_dh_0 = gru.backward(want)

    def call():
        output, _ = gru(x[:50])
        gru.backward(output)
        found.append(output)

    with alarm(call):
        got, h_n = gru(x, **options)
    with alarm(call):
        dx, dh_0 = gru.backward(want)
    assert len(found) == 2
    assert found[0].tobytes() == found[1].tobytes()
    for one, other in ((got, want), (h_n, want_h_n), (dx, want_dx), (dh_0, want_dh_0)):
        assert one.tobytes() == other.tobytes()


def test_a_cell_of_many_rows():
    cell = gru_c.GRUCell(1024, 1024, rng=0)
    x = np.ones((18_000, 1024), np.float32)
    assert_stops_soon(lambda: cell(x))
    with pytest.raises(RuntimeError, match="the last forward did not finish"):
        cell.backward(x[:, :1])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, MemoryError, StopIteration])
def test_any_exception_of_a_handler_ends_the_call(kind):
    def fail():
        raise kind("of the handler")

    gru, x = model_and_input(SHAPES["one row"])
    output, _ = gru(x)
    with alarm(fail), pytest.raises(kind, match="of the handler"):
        gru.backward(output)
    with pytest.raises(RuntimeError, match="the last backward did not finish"):
        gru.backward(output)


@pytest.mark.parametrize(("shape", "threads"),
                         list(zip(SHAPES.values(), (1, 2, 2), strict=True)),
                         ids=SHAPES, indirect=["threads"])
def test_a_handler_calls_the_same_model(shape, threads):
    gru, x = model_and_input(shape)
    d_output = np.ones((*x.shape[:2], gru.hidden_size), np.float32)
    want, _ = gru(x)
    want_dx, want_dh_0 = gru.backward(d_output)
    want_grads = gru.grads
    found = []

    def call():
        output, _ = gru(x[:50])
        gru.backward(output)
        found.append(output)

    with alarm(call) as times:
        got, _ = gru(x)
    ended = time.perf_counter()
    with alarm(call) as later:
        dx, dh_0 = gru.backward(d_output)
    assert len(times) == len(later) == 1 and ended - times[0] > 0.01     # it ran in the middle
    assert got.tobytes() == want.tobytes()
    assert dx.tobytes() == want_dx.tobytes() and dh_0.tobytes() == want_dh_0.tobytes()
    for name, value in gru.grads.items():
        assert value.tobytes() == want_grads[name].tobytes()
    assert all(output.tobytes() == want[:50].tobytes() for output in found)


@pytest.mark.parametrize("which", ["forward", "backward"])
@pytest.mark.parametrize("vain", [
    lambda gru, x: gru(x[:5, :, 1:]), lambda gru, x: gru.eval()(x[:5]),
    lambda gru, x: gru.backward(x[:5, :, 1:])], ids=["refused", "eval", "backward"])
def test_a_handler_calls_the_same_model_in_vain(which, vain):
    def call():
        with suppress(ValueError, RuntimeError):
            vain(gru, x)
        gru.train()
        raise Stop

    gru, x = model_and_input(SHAPES["one row"])
    output, _ = gru(x)
    if which == "forward":
        gru.backward(output)
    with alarm(call), pytest.raises(Stop):
        gru(x) if which == "forward" else gru.backward(output)
    with pytest.raises(RuntimeError, match=f"the last {which} did not finish"):
        gru.backward(output)
    with pytest.raises(RuntimeError, match=f"the last {which} did not finish"):
        _ = gru.grads


def test_weights_that_a_handler_loads_are_for_the_next_call():
    gru, x = model_and_input(SHAPES["one row"])
    gru.eval()
    want, _ = gru(x)
    new = {name: value * 0.5 for name, value in gru.state_dict().items()}
    with alarm(lambda: gru.load_state_dict(new)):
        got, _ = gru(x)
    assert got.tobytes() == want.tobytes()
    assert (gru.weight_ih_l0 == new["weight_ih_l0"]).all()


def test_other_threads_are_not_stopped():
    gru, x = model_and_input(SHAPES["one row"])
    gru.eval()
    done = []
    thread = threading.Thread(target=lambda: done.append(gru(x)))
    thread.start()
    with alarm(stop), pytest.raises(Stop):
        while not done:
            time.sleep(0.01)
    thread.join()
    assert len(done) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_by_another_thread_can_be_stopped():
    gru, x = model_and_input(SHAPES["one row"])
    codes = []

    def child():
        """0 if the thread that is main in the child is stopped."""
        try:
            with alarm(stop):
                gru.eval()(x)
                started = time.perf_counter()
        except Stop:
            os._exit(0 if "started" not in locals() else 1)
        finally:
            os._exit(2)

    def fork():
        pid = os.fork()
        if pid == 0:
            child()
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    assert codes == [0]


FORKED_CALL = """
import os, signal, sys, numpy as np, gru_c
gru_c.set_num_threads(2)
T, N, K, H = eval(sys.argv[1])
gru = gru_c.GRU(K, H, rng=0, bidirectional=sys.argv[2] == "True").eval()
x = np.ones((T, N, K), np.float32)
parent = os.getpid()
def handler(*_):
    if not os.fork():
        signal.alarm(5)
signal.signal(signal.SIGUSR1, handler)
signal.signal(signal.SIGALRM, signal.SIG_DFL)
gru(x[:50])
want = gru(x)[0].tobytes()
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    result = gru(x)[0].tobytes() == want
except RuntimeError as error:
    result = "forked" in str(error)
if os.getpid() != parent:
    os._exit(0 if result else 3)
pid, status = os.wait()
sys.exit(os.waitstatus_to_exitcode(status) or not result)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_child_that_a_handler_forks_has_no_wrong_result(shape, bidirectional):
    """Half of the rows were made by a thread that the child has not."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", FORKED_CALL, repr(shape), str(bidirectional)],
                          timeout=60)
    assert done.returncode == 0


def test_an_exception_between_two_lines_of_a_backward():
    """As a signal handler may raise one; wherever it comes, what is lost is said to be."""
    import sys

    x = np.ones((5, 2, 3), np.float32)

    def attempt(count):
        gru = gru_c.GRU(3, 4, num_layers=2, rng=0)
        gru(x)
        left = [count]

        def trace(frame, event, _):
            if "gru.py" not in frame.f_code.co_filename:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                left[0] -= 1
                if left[0] < 0:
                    raise Stop
            return trace

        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True     # Python 3.12 looks at it here
        sys.settrace(trace)
        try:
            gru.backward(None)
            return gru, True
        except Stop:
            return gru, False
        finally:
            sys.settrace(before)

    count, done = 0, False
    while not done:
        gru, done = attempt(count)
        count += 1
        try:
            _ = gru.grads
        except RuntimeError as error:
            if gru._state.saved is None:
                assert "the last backward did not finish" in str(error)
    assert count > 10


@pytest.mark.parametrize("which", ["forward", "backward"])
@pytest.mark.parametrize("make", [gru_c.GRU, gru_c.GRUCell])
def test_a_signal_in_a_call_of_one_chunk(make, which, threads):
    """The handler runs when the core is done, before the results are returned."""
    model = make(1024, 1024, rng=0)
    shape = (512, 1024) if make is gru_c.GRUCell else (1, 512, 1024)
    x = np.ones(shape, np.float32)
    model(x)
    model.backward(x)
    if which == "backward":
        model(x)
    with alarm(stop, 0.005), pytest.raises(Stop):
        getattr(model, which)(x)
    with pytest.raises(RuntimeError, match=f"the last {which} did not finish"):
        model.backward(x)
    with pytest.raises(RuntimeError, match=f"the last {which} did not finish"):
        _ = model.grads
    model(x)
    model.backward(x)
    with alarm(stop, 0.005), pytest.raises(Stop):
        model.eval()(x)
    assert model.grads                                     # eval mode takes nothing away
