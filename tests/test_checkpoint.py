"""GRU(checkpoint=k): the results of the plain model, from less memory.

Windows have k steps, rounded up to a multiple of 256 // N: cases here have several windows.
"""

import copy
import pickle
import signal
import threading
import tracemalloc

import numpy as np
import pytest
from family import (
    arguments,
    assert_same_without_and_into,
    build,
    case,
    ignored,
    run_case,
    threads,
)
from helpers import F32, F64, assert_same_bits, at_once, normal, same
from hypothesis import given, settings
from hypothesis import strategies as st
from test_family import EVERYTHING, REVERSE
from test_interrupt import alarm
from test_state import Meanwhile

from gru_c import GRU

drawing = settings(deadline=None, derandomize=True, database=None, max_examples=120)
some = st.booleans()
NO_FORWARD = "backward needs a forward in training mode first"


# ---- the same bits ------------------------------------------------------------------------------

@st.composite
def cases(draw):
    """(case, k): up to six windows, of which the last may be shorter."""
    rows = draw(st.sampled_from([0, 1, 2, 9, 40, 130, 300]))
    unit = max(1, 256 // max(1, rows))
    steps = draw(st.integers(1, 4)) * unit + draw(st.integers(-unit + 1, 2 * unit))
    options = draw(st.sampled_from(
        [{}, {}, {"activation": "softsign", "recurrent_activation": "hard_sigmoid", "clip": 1.0}]))
    directions = draw(st.sampled_from([{}, {"bidirectional": True}, {"reverse": True}]))
    found = case(
        steps, rows, (draw(st.integers(1, 17)), draw(st.integers(3, 20))),
        seed=draw(st.integers(0, 999)), layers=draw(st.integers(1, 3)),
        bias=draw(some), reset_after=draw(some),
        ragged=[name for name in ("lengths", "mask", "resets") if draw(some)],
        dropout=[name for name in ("output", "input", "recurrent") if draw(some)],
        absent=[name for name in ("h_0", "d_output", "d_h_n") if draw(some) and draw(some)],
        **directions, **options)
    if "lengths" in found.call and draw(some):             # all rows end early, or have no steps
        found.call["lengths"] = found.call["lengths"] * draw(st.sampled_from([0, 1])) // 2
    return found, draw(st.sampled_from([1, unit, unit + 1, 2 * unit, 10**30]))


@drawing
@given(cases(), st.sampled_from([F32, F64]), some, st.sampled_from([1, 2, 3]))
def test_same_bits(drawn, dtype, batch_first, count):
    drawn, k = drawn
    with threads(count):
        found = run_case(build(drawn, dtype, batch_first=batch_first, checkpoint=k), drawn)
    wanted = run_case(build(drawn, dtype), drawn)
    assert list(found) == list(wanted)
    assert_same_bits(found, wanted)


@pytest.mark.parametrize("options", [{}, EVERYTHING, REVERSE],
                         ids=["plain", "everything", "reverse"])
def test_sums_of_all_levels(options, dtype):
    """More than 256 blocks of rows: their sums have three levels, which windows do not end."""
    drawn = case(301, 257, (5, 9), **options)
    assert_same_bits(run_case(build(drawn, dtype, checkpoint=7), drawn),
                     run_case(build(drawn, dtype), drawn))


def test_larger(dtype, reset_after):
    """More units than a panel has, which threads share; weights whose rows are whole lines."""
    for sizes in ((130, 100), (64, 128)):
        drawn = case(300, 2, sizes, reset_after=reset_after, **EVERYTHING)
        wanted = run_case(build(drawn, dtype), drawn)
        for count in (1, 2):
            with threads(count):
                assert_same_bits(run_case(build(drawn, dtype, checkpoint=1), drawn), wanted)


def long_case(**options):
    return case(20, 90, (5, 9), **{**EVERYTHING, **options})            # ten windows


def test_ways_to_the_results(dtype):
    """With the output and without it, in new arrays and in the caller's, over their own inputs."""
    drawn = long_case(dropout=())
    gru = build(drawn, dtype, checkpoint=2)
    call = arguments(gru, drawn, backward=False)
    output, h_n = build(drawn, dtype)(**call)
    assert_same_without_and_into(gru, call, output, h_n)
    memory = np.zeros((20, 90, 18), dtype)
    call["x"], h_0 = memory[..., :5], call["h_0"].copy()
    call["x"][...] = drawn.call["x"]
    found = gru(**call | {"h_0": h_0}, out=memory, h_n_out=h_0)
    same((*found, h_0), (output, h_n, h_n))
    same(gru.eval()(**call | {"x": drawn.call["x"].astype(dtype)}), (output, h_n))


def test_parts_of_a_backward(dtype):
    """dx and gradients of parameters that nobody needs, and gradients that add up."""
    drawn = long_case()
    plain, gru = build(drawn, dtype), build(drawn, dtype, checkpoint=2)
    call, deltas = arguments(gru, drawn, backward=False), arguments(gru, drawn)
    deltas = [deltas[name] for name in ("d_output", "d_h_n")]
    for options in ({"accumulate": True}, {}, {"need_dx": False}, {"accumulate": True},
                    {"need_grads": False}, {"need_grads": False, "accumulate": True}):
        held = None if options == {"accumulate": True} else gru.grads   # else in the old memory
        found = []
        for model in (plain, gru):
            model(**call)
            dx, dh_0 = model.backward(*deltas, **options)
            found.append({"dh_0": dh_0, **model.grads} | ({} if dx is None else {"dx": dx}))
        assert_same_bits(*found)
        del held


def test_unbatched(dtype):
    call = {name: normal(*shape, dtype=dtype)
            for name, shape in {"x": (600, 3), "h_0": (4, 5)}.items()}
    deltas = normal(600, 10, dtype=dtype), normal(4, 5, dtype=dtype)
    found = []
    for checkpoint in (None, 1):
        gru = GRU(3, 5, 2, bidirectional=True, dtype=dtype, rng=0, checkpoint=checkpoint)
        found.append([*gru(**call, lengths=590), *gru.backward(*deltas), *gru.grads.values()])
    same(*found)


def test_dropout_is_drawn_once():
    """In the order of the plain model; the backward has the same masks."""
    found = []
    for checkpoint in (None, 1):
        gru = GRU(3, 5, 2, dropout=0.5, input_dropout=0.3, recurrent_dropout=0.2,
                  bidirectional=True, rng=0, checkpoint=checkpoint)
        for _ in range(2):
            results = [*gru(normal(9, 100, 3)), *gru.backward(normal(9, 100, 10))]
            found.append([*results, *gru.grads.values()])
    same(found[0] + found[1], found[2] + found[3])
    assert not np.array_equal(found[2][0], found[3][0])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_does_not_count(poison):
    drawn = long_case()
    steps, shown = ignored(drawn)
    x, d_output = drawn.call["x"].copy(), drawn.call["d_output"].copy()
    x[steps], d_output[shown] = poison, poison
    poisoned = drawn.but(x=x, d_output=d_output)
    assert_same_bits(run_case(build(drawn, F32, checkpoint=2), poisoned),
                     run_case(build(drawn, F32), drawn))


def test_numbers_that_overflow_are_quiet():
    """The gradients of two directions are added outside of the core."""
    gru = GRU(2, 3, bidirectional=True, rng=0, checkpoint=1)
    gru(normal(4, 256, 2))
    gru.backward(np.full((4, 256, 6), 3e38, np.float32))


def test_x_may_change_after_the_forward():
    gru = GRU(3, 5, rng=0, checkpoint=1)
    x, delta = normal(4, 256, 3), normal(4, 256, 5)
    gru(x)
    dx, _ = gru.backward(delta)
    gru(x)
    x[...] = np.nan
    same([gru.backward(delta)[0]], [dx])


# ---- memory -------------------------------------------------------------------------------------

def used(gru, x, d_output):
    """Most bytes of a forward and backward, but for the copy of x and the caller's arrays."""
    own = 2 * x.nbytes + d_output.nbytes                   # with dx; d_output is as large as output
    tracemalloc.start()
    try:
        output, _ = gru(x)
        gru.backward(d_output)
        assert output.nbytes == d_output.nbytes
        return tracemalloc.get_traced_memory()[1] - own
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("layers", [1, 2])
def test_memory(layers):
    x = np.ones((4000, 16, 128), np.float32)
    plain, gru = (GRU(128, 128, layers, rng=0, checkpoint=k) for k in (None, 64))
    assert used(gru, x, x) <= used(plain, x, x) / 10


def test_memory_is_freed():
    """A backward gives back the states and the copy of x, and so does eval()."""
    gru, x = GRU(64, 8, rng=0, checkpoint=64), np.ones((1000, 64, 64), np.float32)
    tracemalloc.start()
    try:
        for end in (lambda: gru.backward(None), gru.eval):
            before = tracemalloc.get_traced_memory()[0]
            gru(x)
            assert tracemalloc.get_traced_memory()[0] - before > x.nbytes
            end()
            assert tracemalloc.get_traced_memory()[0] - before < x.nbytes / 10
    finally:
        tracemalloc.stop()


# ---- state --------------------------------------------------------------------------------------

def model_and_input(**options):
    return GRU(3, 5, 2, rng=0, checkpoint=1, **options), normal(6, 256, 3)


def test_one_backward_per_forward():
    gru, x = model_and_input()
    with pytest.raises(RuntimeError, match=NO_FORWARD):
        gru.backward(None)
    gru(x)
    gru.backward(None)
    with pytest.raises(RuntimeError, match=NO_FORWARD):
        gru.backward(None)


def test_modes_and_copies_drop_what_is_saved():
    gru, x = model_and_input()
    gru(x)
    for other in (copy.copy(gru), copy.deepcopy(gru), pickle.loads(pickle.dumps(gru))):
        assert other.checkpoint == 1
        with pytest.raises(RuntimeError, match=NO_FORWARD):
            other.backward(None)
    gru.train().backward(None)                             # train() in training mode drops nothing
    gru(x)
    with pytest.raises(RuntimeError, match="backward needs training mode"):
        gru.eval().backward(None)
    gru(x)
    with pytest.raises(RuntimeError, match=NO_FORWARD):
        gru.train().backward(None)


def test_weights_of_the_forward():
    """New ones are for the next forward."""
    gru, x = model_and_input()
    gru(x)
    dx, _ = gru.backward(None, normal(2, 256, 5))
    gru(x)
    gru.weight_hh_l0 = gru.weight_hh_l0 * 2
    same([gru.backward(None, normal(2, 256, 5))[0]], [dx])


@pytest.mark.parametrize("wrong", [
    {"x": normal(6, 256, 4)}, {"h_0": normal(2, 255, 5)}, {"lengths": np.full(256, 7)},
    {"mask": np.ones((6, 255), bool)}, {"out": np.zeros((6, 256, 4), np.float32)},
    {"dropout_masks": {"output_l7": 1}}], ids=lambda wrong: next(iter(wrong)))
def test_a_refused_call_changes_nothing(wrong):
    gru, x = model_and_input()
    plain = GRU(3, 5, 2, rng=0)
    gru(x)
    words = []
    for model in (plain, gru):
        with pytest.raises(ValueError) as caught:
            model(**{"x": x} | wrong)
        words.append(str(caught.value))
    assert words[0] == words[1]
    with pytest.raises(ValueError, match="d_output has shape"):
        gru.backward(x)
    gru.backward(normal(6, 256, 5))


def test_gradients_that_cannot_be_added_to():
    """As in the plain model, nothing is lost: they are looked at before any window runs."""
    gru, x = model_and_input()
    gru(x)
    gru.backward(None)
    gru.grads["bias_hh_l1"] = np.zeros(3, np.float32)
    gru(x)
    with pytest.raises(ValueError, match=r"grads\['bias_hh_l1'\] has shape \(3,\)"):
        gru.backward(None, accumulate=True)
    assert gru.grads["bias_hh_l1"].shape == (3,)
    gru.backward(None)


def test_a_forward_that_was_replaced():
    gru, x = model_and_input()
    gru(x)
    with pytest.raises(RuntimeError, match="another call of this model ran in between"):
        gru.backward(Meanwhile(normal(6, 256, 5), lambda: gru(x)))
    gru.backward(None)
    gru(Meanwhile(x, gru.eval))
    with pytest.raises(RuntimeError, match="backward needs training mode"):
        gru.backward(None)


def test_threads_share_a_model():
    """One of them has the backward; the others are told that there is none, or are replaced."""
    gru, x = model_and_input()
    gru(x)
    wanted = gru.backward(None, normal(2, 256, 5))
    done = []

    def work():
        for _ in range(30):
            gru(x)
            try:
                same(gru.backward(None, normal(2, 256, 5)), wanted)
                done.append(1)
            except RuntimeError:
                pass

    at_once(work, work, work)
    assert done


# ---- signals ------------------------------------------------------------------------------------

signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers of signals")
LONG = {"many windows": (6_000, 16, 64, 256, 1), "one window": (3_000, 16, 512, 512, 10**6)}


class Stop(Exception):
    pass


def stop():
    raise Stop


def long_model(sizes):
    """A model whose calls take much longer than a signal does."""
    T, N, K, H, k = sizes
    return GRU(K, H, rng=0, checkpoint=k), np.ones((T, N, K), np.float32)


@signals
@pytest.mark.parametrize("which", ["forward", "backward"])
@pytest.mark.parametrize("sizes", LONG.values(), ids=LONG)
def test_a_signal_ends_a_call(sizes, which):
    gru, x = long_model(sizes)
    gru(x[:10])
    gru.backward(None)
    if which == "backward":
        gru(x)
    with alarm(stop), pytest.raises(Stop):
        gru(x) if which == "forward" else gru.backward(None)
    for read in (lambda: gru.backward(None), lambda: gru.grads):
        with pytest.raises(RuntimeError, match=f"the last {which} did not finish"):
            read()
    gru(x[:10])
    gru.backward(None)


@signals
def test_a_handler_calls_the_same_model():
    gru, x = long_model(LONG["many windows"])
    delta = normal(1, 16, 256)
    plain = GRU(64, 256, rng=0)
    wanted = [*plain(x), *plain.backward(None, delta), *plain.grads.values()]
    ran = []

    def call():
        ran.append(threading.current_thread())
        gru(x[:50])
        gru.backward(None)

    with alarm(call):
        found = gru(x)
    with alarm(call):
        found += gru.backward(None, delta)
    same([*found, *gru.grads.values()], wanted)
    assert len(ran) == 2


@signals
@pytest.mark.parametrize("which", ["forward", "backward"])
def test_a_handler_calls_the_same_model_in_vain(which):
    def fail():
        with pytest.raises(ValueError):
            gru(x[..., 1:])
        raise Stop

    gru, x = long_model(LONG["many windows"])
    gru(x[:50])
    gru.backward(None)
    if which == "backward":
        gru(x)
    with alarm(fail), pytest.raises(Stop):
        gru(x) if which == "forward" else gru.backward(None)
    with pytest.raises(RuntimeError, match=f"the last {which} did not finish"):
        _ = gru.grads


# ---- the argument -------------------------------------------------------------------------------

@pytest.mark.parametrize(("value", "kind", "words"), [
    (0, ValueError, "checkpoint must be greater than zero, got 0"),
    (-3, ValueError, "checkpoint must be greater than zero, got -3"),
    (2.0, TypeError, "checkpoint should be of type int, got: float"),
    (True, TypeError, "checkpoint should be of type int, got: bool"),
    ("2", TypeError, "checkpoint should be of type int, got: str")])
def test_no_other_values(value, kind, words):
    with pytest.raises(kind, match=words):
        GRU(2, 3, checkpoint=value)


def test_the_attribute():
    gru = GRU(2, 3, checkpoint=np.int64(4))
    assert type(gru.checkpoint) is int
    assert repr(gru).endswith(", checkpoint=4)")
    assert "checkpoint" not in repr(GRU(2, 3))
    assert GRU(2, 3).checkpoint is None
    with pytest.raises(AttributeError, match="checkpoint of a GRU cannot change"):
        gru.checkpoint = 5
