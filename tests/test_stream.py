"""Stream: bits, arguments, states, weights, copies.

A stream's results are compared with those of the whole sequence at once, bit by bit.
"""

import copy
import gc
import pickle
from functools import partial
from itertools import pairwise

import family
import numpy as np
import pytest
from helpers import (
    F32,
    F64,
    INPUTS,
    LAYOUTS,
    assert_same_array,
    normal,
    read_only,
    swapped_bytes,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import gru_c

drawing = settings(deadline=None, derandomize=True, database=None, max_examples=60)


def model(*sizes, dtype=F32, **options):
    return gru_c.GRU(*(sizes or (5, 17, 2)), dtype=dtype, rng=0, **options)


def steps_of(stream, x):
    """The outputs of steps one by one, stacked."""
    return np.stack([stream.step(x_t) for x_t in x])


def at_state(stream, seed=1):
    """The stream, in a state of random numbers."""
    stream.state = normal(*stream.state.shape, dtype=stream.model.dtype, seed=seed)
    return stream


# ---- the bits of the whole sequence --------------------------------------------------------------

@st.composite
def models(draw):
    """A case without options of rows, in one direction; None or a batch size."""
    options = {}
    if draw(st.booleans()):
        clip = draw(st.none() | st.sampled_from([0.3, 2.0]))
        options = {"activation": draw(st.sampled_from(family.ACTIVATIONS)), "clip": clip,
                   "recurrent_activation": draw(st.sampled_from(
                       family.ACTIVATIONS if clip else family.BOUNDED))}
    rows = draw(st.none() | st.integers(1, 9) | st.just(67))
    return rows, family.case(
        draw(st.integers(1, 9)), rows or 1, (draw(st.integers(1, 33)), draw(st.integers(3, 33))),
        seed=draw(st.integers(0, 999)), layers=draw(st.integers(1, 3)), bias=draw(st.booleans()),
        reset_after=draw(st.booleans()), scale=0.5 if options else 1.0, **options)


def in_pieces(stream, x, pieces):
    """The outputs of a time-major x: steps, or chunks of T >= 0 steps, then steps until the end."""
    swapped, results = stream.model.batch_first and x.ndim == 3, []
    for piece in [*pieces, *["step"] * len(x)]:
        if piece == "step" and len(x):
            results.append(stream.step(x[0])[None])
        elif piece != "step":
            chunk = x[:piece]
            output = stream.run(chunk.swapaxes(0, 1) if swapped else chunk)
            results.append(output.swapaxes(0, 1) if swapped else output)
        x = x[1 if piece == "step" else piece:]
    return np.concatenate(results)


@drawing
@given(models(), st.sampled_from([F32, F64]), st.booleans(), st.integers(1, 2),
       st.lists(st.just("step") | st.integers(0, 5), min_size=1, max_size=5))
def test_the_bits_of_the_whole_sequence(kernels, drawn, dtype, batch_first, num_threads, pieces):
    rows, case = drawn
    gru = family.build(case, dtype, batch_first=batch_first)
    x, h_0 = (case.call[name].astype(dtype) for name in ("x", "h_0"))
    if rows is None:
        x, h_0 = x[:, 0], h_0[:, 0]
    swapped = batch_first and rows is not None
    want, want_h_n = gru(x.swapaxes(0, 1) if swapped else x, h_0)
    stream = gru.stream(rows, num_threads)
    stream.state = h_0
    assert_same_array(in_pieces(stream, x, pieces), want.swapaxes(0, 1) if swapped else want)
    assert_same_array(stream.state, want_h_n)


@pytest.mark.parametrize("sizes, rows, steps", [
    ((3, 5, 1), None, 700), ((3, 5, 3), 2, 300), ((4, 16, 2), 66, 60), ((2, 8, 2), 1100, 3)])
def test_more_steps_than_are_planned_at_once(sizes, rows, steps, dtype):
    gru = model(*sizes, dtype=dtype)
    x = normal(steps, *(() if rows is None else (rows,)), sizes[0], dtype=dtype)
    want, h_n = gru(x)
    stream = gru.stream(rows)
    assert_same_array(stream.run(x), want)
    assert_same_array(stream.state, h_n)
    stream.reset()
    chunks = [stream.run(x[start:end]) for start, end in
              pairwise([0, 1, steps // 2, steps // 2, steps - 1, steps])]
    assert_same_array(np.concatenate(chunks), want)


@pytest.mark.parametrize("sizes, rows", [((4, 1024, 1), None), ((9, 600, 2), 3),
                                         ((16, 200, 2), 70), ((512, 513, 1), 1)])
def test_two_threads_that_both_work(sizes, rows, dtype):
    gru = model(*sizes, dtype=dtype)
    x = normal(5, *(() if rows is None else (rows,)), sizes[0], dtype=dtype)
    want, h_n = gru(x)
    for num_threads in (2, 3):
        stream = gru.stream(rows, num_threads)
        assert_same_array(np.concatenate([steps_of(stream, x[:2]), stream.run(x[2:])]), want)
        assert_same_array(stream.state, h_n)


def test_other_weights_with_all_kernels(kernels, dtype, reset_after):
    """The stream of a model whose weights are replaced is planned anew."""
    gru = model(7, 33, 2, dtype=dtype, reset_after=reset_after)
    stream, x = gru.stream(3), normal(4, 3, 7, dtype=dtype)
    stream.run(x)
    h_0 = stream.state
    gru.load_state_dict({name: np.sin(9 * value) for name, value in gru.state_dict().items()})
    want, h_n = gru(x, h_0)
    assert_same_array(steps_of(stream, x), want)
    assert_same_array(stream.state, h_n)


# ---- out= ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("rows", [None, 1, 3])
def test_out_of_any_layout(layout, rows, dtype):
    gru = model(dtype=dtype)
    x = normal(4, *(() if rows is None else (rows,)), 5, dtype=dtype)
    want, _ = gru(x)
    stream = gru.stream(rows)
    for x_t, expected in zip(x, want, strict=True):
        out = layout(np.full_like(expected, np.nan))
        assert stream.step(x_t, out=out) is out
        assert_same_array(out, expected)
    stream.reset()
    out = layout(np.full_like(want, np.nan))
    assert stream.run(x, out) is out
    assert_same_array(out, want)


def test_out_with_gaps_leaves_what_lies_between():
    stream, x = model().stream(3), normal(3, 5)
    for frame in (np.zeros((3, 20), F32), np.zeros((3, 34), F32)):
        inside = (slice(None), slice(2, 19)) if frame.shape[1] == 20 else np.s_[:, ::2]
        stream.reset()
        stream.step(x, frame[inside])
        assert frame[inside].all()
        frame[inside] = 0
        assert not frame.any()


@pytest.mark.parametrize("rows", [None, 3])
def test_out_may_be_the_input(rows, dtype):
    gru = model(8, 8, 2, dtype=dtype)
    x = normal(6, *(() if rows is None else (rows,)), 8, dtype=dtype)
    want, _ = gru(x)
    stream, both = gru.stream(rows), x.copy()
    for x_t in both:
        assert stream.step(x_t, out=x_t) is x_t
    assert_same_array(both, want)
    stream.reset()
    both = x.copy()
    assert stream.run(both, out=both) is both
    assert_same_array(both, want)


@pytest.mark.parametrize("shift", [-200, -20, -1, 1, 3, 8, 20, 200])
@pytest.mark.parametrize("sizes", [(8, 8, 2), (5, 12, 1), (12, 5, 1)], ids=str)
@pytest.mark.parametrize("rows", [3, 210])
def test_out_may_overlap_the_input(rows, sizes, shift):
    """Of many rows, some are read after the output of others is written."""
    inputs, hidden, _ = sizes
    gru = model(*sizes)
    x = normal(4, rows, inputs)
    want, _ = gru(x)
    stream, memory = gru.stream(rows), np.zeros(400 + 48 * rows, F32)

    def place(start, *shape):
        return memory[start:start + np.prod(shape)].reshape(shape)

    x_t, out = place(200, rows, inputs), place(200 + shift, rows, hidden)
    for numbers, expected in zip(x, want, strict=True):
        x_t[...] = numbers
        stream.step(x_t, out)
        assert_same_array(out, expected)
    stream.reset()
    chunk, out = place(200, 4, rows, inputs), place(200 + shift, 4, rows, hidden)
    chunk[...] = x
    assert_same_array(stream.run(chunk, out), want)


def test_out_in_batch_first():
    gru = model(batch_first=True)
    x = normal(3, 6, 5)
    want, _ = gru(x)
    for out in (np.zeros_like(want), np.zeros(want.shape[::-1], F32).T):
        assert gru.stream(3).run(x, out=out) is out
        assert_same_array(out, want)
    assert gru.stream(3).run(x).flags.c_contiguous


WRONG_OUT = [
    (lambda a: a.astype(F64), TypeError, "out dtype (float64) does not match weight dtype"),
    (swapped_bytes, TypeError, "out dtype (>f4) does not match weight dtype (float32)"),
    (lambda a: a.astype(int), TypeError, "out dtype (int64) does not match weight dtype"),
    (lambda a: a[..., :-1], ValueError, "out has shape"),
    (lambda a: a[None], ValueError, "out has shape"),
    (lambda a: a[..., 0], ValueError, "out has shape"),
    (read_only, ValueError, "out is read-only"),
    (lambda a: a.tolist(), TypeError, "out must be a numpy array, got list"),
    (lambda a: 0.0, TypeError, "out must be a numpy array, got float"),
    (lambda a: False, TypeError, "out must be a numpy array, got bool"),
    (memoryview, TypeError, "out must be a numpy array, got memoryview"),
    (lambda a: np.ma.masked_less(a, 1), TypeError, "out is a masked array"),
]


@pytest.mark.parametrize("wrong, error, words", WRONG_OUT)
@pytest.mark.parametrize("rows", [None, 3])
def test_an_out_that_is_refused_changes_nothing(wrong, error, words, rows):
    stream = at_state(model().stream(rows))
    before, lead = stream.state, () if rows is None else (rows,)
    for call, shape in ((stream.step, lead), (stream.run, (4, *lead))):
        with pytest.raises(error) as caught:
            call(normal(*shape, 5), out=wrong(np.zeros((*shape, 17), F32)))
        assert words in str(caught.value)
    assert_same_array(stream.state, before)


# ---- inputs --------------------------------------------------------------------------------------

@pytest.mark.parametrize("layout", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("rows", [None, 1, 3])
def test_inputs_of_any_layout(layout, rows, dtype):
    gru = model(dtype=dtype)
    x = normal(4, *(() if rows is None else (rows,)), 5, dtype=dtype)
    want, _ = gru(x)
    stream = gru.stream(rows)
    for x_t, expected in zip(x, want, strict=True):
        assert_same_array(stream.step(layout(x_t)), expected)
    stream.reset()
    assert_same_array(stream.run(layout(x)), want)
    given = layout(stream.state)
    stream.reset()
    stream.state = given
    assert_same_array(stream.state, gru(x)[1])


def test_integers_and_bools_convert(dtype):
    stream = model(3, 4, dtype=dtype).stream()
    want = stream.step(np.array([1, 0, 1], dtype))
    for x_t in ([1, 0, 1], (True, 0, 1.0), np.array([1, 0, 1], np.uint8), [True, False, True],
                np.array([1, 0, 1], bool), np.array([[1], [0], [1]], np.int64)[:, 0]):
        stream.reset()
        assert_same_array(stream.step(x_t), want)


def test_an_input_is_never_written_to():
    gru, x = model(8, 8, 3), normal(5, 3, 8)
    before, stream = x.copy(), gru.stream(3)
    stream.run(x)
    stream.step(x[0])
    stream.state = state = normal(3, 3, 8)
    given = state.copy()
    stream.run(x)
    assert (x == before).all()
    assert (state == given).all()


ROW, ROWS = np.zeros(5, F32), np.zeros((3, 5), F32)
WRONG_STEPS = [
    (None, np.zeros(4, F32), ValueError, "input has inconsistent input_size: got 4 expected 5 "
                                         "(input of shape (4,))"),
    (None, np.zeros((1, 5), F32), ValueError, "input has shape (1, 5), expected (5,)"),
    (None, np.float32(1), ValueError, "input has shape (), expected (5,)"),
    (None, [], ValueError, "input has inconsistent input_size: got 0 expected 5 (input of shape "
                           "(0,))"),
    (3, np.zeros((3, 4), F32), ValueError, "input has inconsistent input_size: got 4 expected 5 "
                                           "(input of shape (3, 4))"),
    (3, np.zeros((2, 5), F32), ValueError, "input has shape (2, 5), expected (3, 5)"),
    (3, np.zeros((1, 5), F32), ValueError, "input has shape (1, 5), expected (3, 5)"),
    (3, ROW, ValueError, "input has shape (5,), expected (3, 5)"),
    (3, ROWS[None], ValueError, "input has shape (1, 3, 5), expected (3, 5)"),
    (3, ROWS.astype(F64), TypeError, "input dtype (float64) does not match weight dtype (float32). "
                                     "Convert input, or make the model with dtype=float64"),
    (3, ROWS.astype(np.float16), TypeError, "input dtype (float16) does not match weight dtype "
                                            "(float32). Convert input"),
    (3, swapped_bytes(ROWS.astype(F64)), TypeError, "input dtype (>f8) does not match"),
    (3, ROWS.astype(complex), TypeError, "input dtype (complex128) does not match"),
    (None, [1j] * 5, TypeError, "input dtype (complex128) does not match"),
    (None, None, TypeError, "input dtype (object) does not match weight dtype (float32)"),
    (None, "text", TypeError, "input dtype (<U4) does not match weight dtype (float32)"),
    (3, [[1, 2], [3]], ValueError, "input is not an array"),
    (3, np.ma.masked_equal(ROWS, 1), TypeError, "input is a masked array; fill it first"),
    (None, [np.float64(1)] * 4 + [np.zeros(1)], ValueError, "input is not an array"),
]


@pytest.mark.parametrize("rows, x_t, error, words", WRONG_STEPS)
def test_a_step_that_is_refused_changes_nothing(rows, x_t, error, words):
    stream = at_state(model().stream(rows))
    before, out = stream.state, np.zeros((17,) if rows is None else (rows, 17), F32)
    for options in ({}, {"out": out}):
        with pytest.raises(error) as caught:
            stream.step(x_t, **options)
        assert str(caught.value).startswith(words)
    assert_same_array(stream.state, before)
    assert not out.any()


@pytest.mark.parametrize("options, rows, shape, words", [
    ({}, None, (5,), "input has shape (5,), expected (T, 5)"),
    ({}, None, (7, 4), "input has inconsistent input_size: got 4 expected 5"),
    ({}, None, (7, 3, 5), "input has shape (7, 3, 5), expected (T, 5)"),
    ({}, 3, (3, 5), "input has shape (3, 5), expected (T, 3, 5)"),
    ({}, 3, (7, 2, 5), "input has shape (7, 2, 5), expected (T, 3, 5)"),
    ({}, 3, (0, 2, 5), "input has shape (0, 2, 5), expected (T, 3, 5)"),
    ({}, 3, (0,), "input has shape (0,), expected (T, 3, 5)"),
    ({"batch_first": True}, 3, (7, 3, 5), "input has shape (7, 3, 5), expected (3, T, 5)"),
    ({"batch_first": True}, 3, (3, 7, 4), "input has inconsistent input_size: got 4 expected 5"),
    ({"batch_first": True}, None, (7, 3, 5), "input has shape (7, 3, 5), expected (T, 5)")])
def test_a_chunk_that_is_refused_changes_nothing(options, rows, shape, words):
    stream = at_state(model(**options).stream(rows))
    before = stream.state
    with pytest.raises(ValueError) as caught:
        stream.run(np.zeros(shape, F32))
    assert str(caught.value).startswith(words)
    with pytest.raises(TypeError, match="input dtype"):
        stream.run(np.zeros(shape))
    assert_same_array(stream.state, before)


@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_chunk_of_no_steps(rows, batch_first):
    stream = at_state(model(batch_first=batch_first).stream(rows))
    before = stream.state
    lead = (0,) if rows is None else (3, 0) if batch_first else (0, 3)
    assert stream.run(np.zeros((*lead, 5), F32)).shape == (*lead, 17)
    out = np.zeros((*lead, 17), F32)
    assert stream.run(np.zeros((*lead, 5), F32), out=out) is out
    assert_same_array(stream.state, before)


def test_a_nan_stays_in_its_row():
    stream = model().stream(3)
    x = normal(3, 5)
    want = stream.step(x)
    stream.reset()
    x[1, 2] = np.nan
    found = stream.step(x)
    assert np.isnan(found[1]).all()
    assert_same_array(found[[0, 2]], want[[0, 2]])
    stream.reset([1])
    assert not np.isnan(stream.state).any()


# ---- what a stream is made of --------------------------------------------------------------------

@pytest.mark.parametrize("arguments, error, words", [
    ({"batch_size": 0}, ValueError, "batch_size must be greater than zero, got 0"),
    ({"batch_size": -3}, ValueError, "batch_size must be greater than zero, got -3"),
    ({"batch_size": True}, TypeError, "batch_size should be of type int, got: bool"),
    ({"batch_size": np.True_}, TypeError, "batch_size should be of type int, got: bool"),
    ({"batch_size": 2.0}, TypeError, "batch_size should be of type int, got: float"),
    ({"batch_size": "2"}, TypeError, "batch_size should be of type int, got: str"),
    ({"batch_size": [2]}, TypeError, "batch_size should be of type int, got: list"),
    ({"batch_size": 2**45}, MemoryError, "could not allocate"),
    ({"batch_size": 2**62}, MemoryError, "a stream of 10**19 or so rows is too large"),
    ({"batch_size": 2**63 - 1}, MemoryError, "or so rows is too large"),
    ({"batch_size": 2**64}, MemoryError, "or so rows is too large"),
    ({"batch_size": 10**5000}, MemoryError, "a stream of 10**5000 or so rows is too large"),
    ({"num_threads": 0}, ValueError, "num_threads must be greater than zero, got 0"),
    ({"num_threads": -1}, ValueError, "num_threads must be greater than zero, got -1"),
    ({"num_threads": True}, TypeError, "num_threads should be of type int, got: bool"),
    ({"num_threads": None}, TypeError, "num_threads should be of type int, got: NoneType")])
def test_wrong_sizes_of_a_stream(arguments, error, words):
    gru = model()
    for make in (gru.stream, partial(gru_c.Stream, gru)):
        with pytest.raises(error) as caught:
            make(**arguments)
        assert words in str(caught.value)


def test_integers_of_any_kind():
    stream = model().stream(np.int8(3), num_threads=np.uint64(2))
    assert (stream.batch_size, stream.num_threads) == (3, 2)
    assert type(stream.batch_size) is int
    assert model().stream(num_threads=10**5000).step(ROW).shape == (17,)


@pytest.mark.parametrize("other", [None, 3, "gru", gru_c.GRUCell(5, 17), gru_c.GRU, object()])
def test_a_stream_of_no_model(other):
    with pytest.raises(TypeError, match="model should be a GRU, got: "):
        gru_c.Stream(other)


def test_one_direction_from_first_to_last():
    words = "a stream needs one direction, from the first step to the last: the other begins at"
    for gru in (gru_c.GRU(3, 4, bidirectional=True), gru_c.ReverseGRU(3, 4)):
        for make in (gru.stream, partial(gru_c.Stream, gru)):
            with pytest.raises(ValueError, match=words):
                make()


def test_attributes():
    gru = model()
    stream = gru.stream(3)
    assert stream.model is gru
    assert (stream.batch_size, stream.num_threads) == (3, 1)
    assert stream.address == stream.address > 0
    assert repr(stream) == f"Stream({gru!r}, batch_size=3, num_threads=1)"
    for name in ("model", "batch_size", "num_threads", "address"):
        with pytest.raises(AttributeError):
            setattr(stream, name, 1)
        with pytest.raises(AttributeError):
            delattr(stream, name)
    with pytest.raises(AttributeError):
        del stream.state
    for name in ("memory", "stream", "handle", "layers", "busy"):
        assert not hasattr(stream, name)


def test_a_second_init_changes_nothing():
    stream = at_state(model().stream(3))
    before = stream.state
    stream.__init__(model(9, 9), 7)
    assert stream.model.input_size == 5
    assert_same_array(stream.state, before)


def test_making_one_past_its_new_is_refused():
    for make in (lambda: object.__new__(gru_c.Stream), gru_c.Stream, lambda: gru_c.Stream.__new__(
            gru_c.Stream)):
        with pytest.raises(TypeError):
            make()


# ---- states --------------------------------------------------------------------------------------

def test_states_are_zero_at_first(dtype):
    for rows, shape in ((None, (2, 17)), (1, (2, 1, 17)), (3, (2, 3, 17))):
        state = model(dtype=dtype).stream(rows).state
        assert state.shape == shape
        assert state.dtype == dtype
        assert not state.any()


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_states_are_copied_in_and_out(steps):
    stream = model().stream(3)
    stream.run(normal(steps, 3, 5))
    given = normal(2, 3, 17)
    stream.state = given
    want = given.copy()
    given[...] = np.nan
    found = stream.state
    assert_same_array(found, want)
    found[...] = np.nan
    assert_same_array(stream.state, want)
    stream.step(ROWS)
    assert not np.isnan(stream.state).any()


@pytest.mark.parametrize("wrong, error, words", [
    (np.zeros((2, 3, 16), F32), ValueError, "state has shape (2, 3, 16), expected (2, 3, 17)"),
    (np.zeros((1, 3, 17), F32), ValueError, "state has shape (1, 3, 17), expected (2, 3, 17)"),
    (np.zeros((2, 17), F32), ValueError, "state has shape (2, 17), expected (2, 3, 17)"),
    (0, ValueError, "state has shape (), expected (2, 3, 17)"),
    ([], ValueError, "state has shape (0,), expected (2, 3, 17)"),
    (np.zeros((2, 3, 17)), TypeError, "state dtype (float64) does not match weight dtype"),
    (None, TypeError, "state dtype (object) does not match weight dtype (float32)"),
    (np.ma.masked_less(np.zeros((2, 3, 17), F32), 1), TypeError, "state is a masked array"),
    ([[1], [2, 3]], ValueError, "state is not an array")])
def test_a_state_that_is_refused_changes_nothing(wrong, error, words):
    stream = at_state(model().stream(3))
    before = stream.state
    with pytest.raises(error) as caught:
        stream.state = wrong
    assert str(caught.value).startswith(words)
    assert_same_array(stream.state, before)


ROWS_OF_FIVE = [
    (None, [0, 1, 2, 3, 4]), ([1, 3], [1, 3]), (2, [2]), ((4, 0), [0, 4]), ([3, 3, 1], [1, 3]),
    (np.array([2], np.uint8), [2]), (np.int64(4), [4]), (range(1, 4), [1, 2, 3]), ([], []),
    (np.array([], int), []), (np.arange(10)[::-2][3:], [1, 3]), (np.arange(5) % 2 == 1, [1, 3]),
    ([True, False, False, False, True], [0, 4]), (np.zeros(5, bool), []),
    (np.ones(10, bool)[::2], [0, 1, 2, 3, 4]), (swapped_bytes(np.array([1, 2])), [1, 2])]


@pytest.mark.parametrize("rows, zeroed", ROWS_OF_FIVE)
@pytest.mark.parametrize("steps", [0, 1])
def test_reset_rows(rows, zeroed, steps):
    stream = at_state(model().stream(5))
    stream.run(normal(steps, 5, 5))
    want = stream.state
    want[:, zeroed] = 0
    assert stream.reset(rows) is None
    assert_same_array(stream.state, want)
    x = normal(3, 5, 5)
    assert_same_array(stream.run(x), stream.model(x, want)[0])


def test_reset_without_a_batch_size():
    for rows in (None, 0, [0], [True], np.array(True)):
        stream = at_state(model().stream())
        stream.reset(rows)
        assert not stream.state.any()
    stream = at_state(model().stream())
    before = stream.state
    stream.reset([])
    stream.reset(False)
    assert_same_array(stream.state, before)


WRONG_ROWS = [
    ([5], IndexError, "from 0 to 4, got [5]"), ([-1], IndexError, "from 0 to 4, got [-1]"),
    (np.array([2**63], np.uint64), IndexError, "from 0 to 4"), (-5, IndexError, "from 0 to 4"),
    ([1.0], TypeError, "indices of rows or a mask, got an array of float64 of shape (1,)"),
    ("1", TypeError, "indices of rows or a mask"), ([2**70], TypeError, "indices of rows or"),
    ([[1, 2]], TypeError, "got an array of int64 of shape (1, 2)"),
    ([[]], TypeError, "got an array of float64 of shape (1, 0)"),
    (slice(0, 2), TypeError, "indices of rows or a mask, got an array of object"),
    ({1, 2}, TypeError, "indices of rows or a mask, got an array of object"),
    (True, ValueError, "has shape (1,), expected (5,)"),
    (np.ones(4, bool), ValueError, "has shape (4,), expected (5,)"),
    (np.ones((5, 1), bool), ValueError, "has shape (5, 1), expected (5,)"),
    (np.ma.array([1]), TypeError, "is a masked array"), ([[1], [2, 3]], ValueError, "is not an"),
    (np.array([1], "m8[s]"), TypeError, "indices of rows or a mask")]


@pytest.mark.parametrize("rows, error, words", WRONG_ROWS)
def test_rows_that_are_refused_change_nothing(rows, error, words):
    stream = at_state(model().stream(5))
    before = stream.state
    for name, call in (("rows", partial(stream.reset, rows)),
                       ("source", partial(stream.copy_rows, rows)),
                       ("target", partial(stream.copy_rows, 0, rows))):
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value).startswith(name)
        assert words in str(caught.value)
    assert_same_array(stream.state, before)


@pytest.mark.parametrize("source, target, order", [
    ([4, 3, 2, 1, 0], None, [4, 3, 2, 1, 0]), ([1, 2, 3, 4, 0], None, [1, 2, 3, 4, 0]),
    (2, None, [2, 2, 2, 2, 2]), ([2], None, [2, 2, 2, 2, 2]), ([0, 0, 1, 1, 2], None, [0, 0, 1, 1,
                                                                                      2]),
    (4, [0, 1], [4, 4, 2, 3, 4]), ([1, 0], [0, 1], [1, 0, 2, 3, 4]), (0, 3, [0, 1, 2, 0, 4]),
    ([3, 4], [True, False, False, True, False], [3, 1, 2, 4, 4]), ([], [], [0, 1, 2, 3, 4]),
    ([1, 2], [0, 0], [2, 1, 2, 3, 4]), (1, [], [0, 1, 2, 3, 4]),
    (np.uint8(3), np.array([1], np.int16), [0, 3, 2, 3, 4])])
@pytest.mark.parametrize("steps", [0, 1])
def test_copy_rows(source, target, order, steps):
    stream = at_state(model().stream(5))
    stream.run(normal(steps, 5, 5))
    want = stream.state[:, order]
    assert stream.copy_rows(source, target) is None
    assert_same_array(stream.state, want)
    x = normal(3, 5, 5)
    assert_same_array(stream.run(x), stream.model(x, want)[0])


@pytest.mark.parametrize("source, target, words", [
    ([0, 1], None, "source has 2 rows, but there are 5 to set"),
    ([], None, "source has 0 rows, but there are 5 to set"),
    ([0, 1, 2], [0, 1], "source has 3 rows, but there are 2 to set"),
    ([0, 1], [], "source has 2 rows, but there are 0 to set"),
    ([0, 1], np.ones(5, bool), "source has 2 rows, but there are 5 to set")])
def test_rows_of_other_numbers(source, target, words):
    stream = at_state(model().stream(5))
    before = stream.state
    with pytest.raises(ValueError, match=words):
        stream.copy_rows(source, target)
    assert_same_array(stream.state, before)


# ---- weights and modes of the model --------------------------------------------------------------

def test_new_weights_take_effect_at_the_next_step():
    gru, x = model(), normal(3, 5)
    stream, other = at_state(gru.stream(3)), gru.stream(3)
    changes = [
        lambda: setattr(gru, "weight_hh_l1", gru.weight_hh_l1 * 2),
        lambda: setattr(gru, "bias_ih_l0", gru.bias_ih_l0 + 1),
        lambda: gru.load_state_dict(model().state_dict()),
        lambda: gru.load_state_dict(gru_c.GRU(5, 17, 2, rng=7).state_dict())]
    for change in changes:
        before = stream.state
        old = gru.step(x, before)[-1]
        change()
        want = gru.step(x, before)
        assert (want[-1] != old).any()
        assert_same_array(stream.step(x), want[-1])
        assert_same_array(stream.state, want)
    assert_same_array(other.step(x), gru.step(x)[-1])


def test_the_mode_of_the_model_does_not_matter():
    gru, x = model(), normal(6, 3, 5)
    want, _ = gru(x)
    stream = gru.stream(3)
    for x_t, expected, change in zip(x, want, [gru.eval, gru.train, gru.eval, gru.eval, gru.train,
                                               gru.train], strict=True):
        assert_same_array(stream.step(x_t), expected)
        change()
    assert_same_array(gru.eval().stream(3).run(x), want)


def test_what_a_forward_saved_stays():
    gru, x = model(), normal(6, 3, 5)
    output, _ = gru(x)
    want = gru.backward(output)
    gru(x)
    gru.stream(3).run(2 * x)
    for got, expected in zip(gru.backward(output), want, strict=True):
        assert_same_array(got, expected)


def test_there_is_no_dropout():
    plain = model()
    gru = model(dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5)
    gru.load_state_dict(plain.state_dict())
    x, random = normal(6, 3, 5), gru.rng.bit_generator.state
    stream = gru.train().stream(3)
    assert_same_array(np.concatenate([stream.run(x[:3]), steps_of(stream, x[3:])]), plain(x)[0])
    assert gru.rng.bit_generator.state == random


def test_a_model_with_checkpoints():
    x = normal(6, 3, 5)
    assert_same_array(model(checkpoint=2).stream(3).run(x), model()(x)[0])


def test_a_subclass_of_the_model():
    class Twice(gru_c.GRU):
        def forward(self, x, *args):
            output, h_n = super().forward(x, *args)
            return 2 * output, h_n

    x = normal(6, 3, 5)
    assert_same_array(Twice(5, 17, 2, rng=0).stream(3).run(x), model()(x)[0])


def test_the_model_may_be_deleted():
    gru, x = model(), normal(6, 3, 5)
    want, _ = gru(x)
    stream = gru.stream(3)
    del gru
    gc.collect()
    assert_same_array(stream.run(x), want)
    assert stream.model.hidden_size == 17


@pytest.mark.parametrize("other", [model(5, 33, 2), model(6, 17, 2), model(5, 17, 3),
                                   model(dtype=F64)])
def test_layers_of_another_model_are_refused(other):
    gru, x = model(), normal(3, 5)
    stream = at_state(gru.stream(3))
    before, layers = stream.state, gru._layers
    vars(gru)["_layers"] = other._layers
    for call in (lambda: stream.step(x), lambda: stream.run(x[None]), stream.reset,
                 lambda: stream.state, lambda: stream.address):
        with pytest.raises(RuntimeError, match="other sizes or another dtype than the stream"):
            call()
    vars(gru)["_layers"] = layers
    assert_same_array(stream.state, before)
    assert_same_array(stream.step(x), gru.step(x, before)[-1])


# ---- copies --------------------------------------------------------------------------------------

class Named(gru_c.Stream):
    def __new__(cls, gru, batch_size=None, num_threads=1, name=""):
        self = super().__new__(cls, gru, batch_size, num_threads)
        self.name = name
        return self

    def step(self, x_t, out=None):
        return -super().step(x_t, out)


COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy} | {
    f"pickle {protocol}": lambda value, protocol=protocol: pickle.loads(
        pickle.dumps(value, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)}


@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_go_on_alone(copied, rows, dtype):
    gru = model(dtype=dtype)
    x = normal(6, *(() if rows is None else (rows,)), 5, dtype=dtype)
    stream = gru.stream(rows, num_threads=2)
    stream.run(x)
    other = copied(stream)
    assert type(other) is gru_c.Stream
    assert (other.batch_size, other.num_threads) == (rows, 2)
    assert (other.model is gru) == (copied is copy.copy)
    state = stream.state
    assert_same_array(other.state, state)
    want = stream.run(x)
    assert_same_array(other.state, state)
    assert_same_array(other.run(x), want)
    stream.reset()
    other.step(x[0])
    assert not stream.state.any()


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_subclass_is_copied_whole(copied):
    stream = Named(model(), 3, name="left")
    stream.gain, x = [1, 2], normal(3, 5)
    want = stream.step(x)
    other = copied(stream)
    assert type(other) is Named
    assert (other.name, other.gain) == ("left", [1, 2])
    assert (other.gain is stream.gain) == (copied is copy.copy)
    assert_same_array(other.step(x), stream.step(x))
    other.reset()
    assert_same_array(other.step(x), want)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_two_streams_of_one_model_keep_it_in_common(copied):
    gru = model()
    streams = copied([gru.stream(2), gru, gru.stream(3)])
    assert streams[0].model is streams[1] is streams[2].model
    assert streams[1] is not gru
