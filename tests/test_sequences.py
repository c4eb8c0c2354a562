"""pad_sequences and unpad_sequences: layout, dtypes, copies, and the words of all errors."""

import tracemalloc

import numpy as np
import pytest
from helpers import F32, F64, normal, read_only, swapped_bytes, unaligned

import gru_c
from gru_c import pad_sequences, unpad_sequences

LENGTHS = [3, 0, 5, 1]
both_layouts = pytest.mark.parametrize("batch_first", [False, True])


def ragged(*trailing, dtype=F32, lengths=LENGTHS):
    return [normal(t, *trailing, dtype=dtype, seed=i) for i, t in enumerate(lengths)]


def equal(found, expected):
    """The same arrays, of the same dtype."""
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


# ---- values and layout ---------------------------------------------------------------------------

@both_layouts
@pytest.mark.parametrize("trailing", [(), (2,), (2, 3), (0,)], ids=str)
def test_each_row_is_a_sequence_and_zeros(trailing, batch_first, dtype):
    sequences = ragged(*trailing, dtype=dtype)
    padded, lengths = pad_sequences(sequences, batch_first)
    assert padded.shape == ((4, 5) if batch_first else (5, 4)) + trailing
    assert padded.flags.c_contiguous
    assert padded.dtype == dtype
    equal([lengths], [np.array(LENGTHS, np.intp)])
    for i, sequence in enumerate(sequences):
        row = padded[i] if batch_first else padded[:, i]
        equal([row[:LENGTHS[i]]], [sequence])
        assert not row[LENGTHS[i]:].any()


@both_layouts
@pytest.mark.parametrize("trailing", [(), (2,), (2, 3)], ids=str)
def test_there_and_back(trailing, batch_first):
    sequences = ragged(*trailing)
    padded, lengths = pad_sequences(sequences, batch_first=batch_first)
    back = unpad_sequences(padded, lengths, batch_first=batch_first)
    assert type(back) is list
    equal(back, sequences)
    for i, rows in enumerate(back):                        # `padded` is written through the views
        rows[...] = i + 1
    numbers, _ = pad_sequences([np.full_like(s, i + 1) for i, s in enumerate(sequences)],
                               batch_first)
    equal([padded], [numbers])


def test_a_row_of_a_model_is_that_of_its_sequence_alone():
    gru = gru_c.GRU(2, 4, rng=0).eval()
    sequences = ragged(2, lengths=[3, 5, 1])
    padded, lengths = pad_sequences(sequences)
    outputs = unpad_sequences(gru(padded)[0], lengths)
    for output, sequence in zip(outputs, sequences, strict=True):
        np.testing.assert_allclose(output, gru(sequence)[0], rtol=1e-5, atol=1e-6)


def test_the_copy_is_our_own():
    sequences = [normal(5, 2)]
    padded, _ = pad_sequences(sequences)
    assert not np.shares_memory(padded, sequences[0])
    lengths = np.array([5])
    back, = unpad_sequences(padded, lengths)
    assert np.shares_memory(back, padded)
    with pytest.raises(ValueError, match="read-only"):
        unpad_sequences(read_only(padded), lengths)[0][...] = 0


@pytest.mark.parametrize("given, dtype", [(F32, None), (F32, F32), (np.int64, F32)])
def test_each_sequence_is_copied_once(given, dtype):
    sequences = [np.ones((20_000, 10), given) for _ in range(5)]
    tracemalloc.start()
    padded, _ = pad_sequences(sequences, dtype=dtype)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.05 * padded.nbytes


@pytest.mark.parametrize("layout", [read_only, unaligned, lambda a: a[::-1], lambda a: a.T.copy().T,
                                    lambda a: np.repeat(a, 2, axis=1)[:, ::2]])
def test_sequences_of_any_layout(layout):
    sequences = [layout(a) for a in ragged(2)]
    equal(unpad_sequences(*pad_sequences(sequences)), sequences)


def test_any_iterable():
    sequences = ragged(2)
    expected = pad_sequences(sequences)
    equal(pad_sequences(tuple(sequences)), expected)
    equal(pad_sequences(a for a in sequences), expected)
    equal(pad_sequences(np.ones((4, 5, 2))), [np.ones((5, 4, 2)), np.full(4, 5, np.intp)])


# ---- dtypes --------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_the_common_dtype(name):
    sequences = [np.ones(t, name) for t in (2, 3)]
    padded, _ = pad_sequences(sequences)
    equal([padded], [np.array([[1, 1], [1, 1], [0, 1]], name)])


def test_byte_order_is_the_machines():
    sequences = ragged(2)
    mixed = [swapped_bytes(a) if i % 2 else a for i, a in enumerate(sequences)]
    equal(pad_sequences(mixed), pad_sequences(sequences))
    equal(pad_sequences(mixed[::-1], dtype=F32), pad_sequences(sequences[::-1]))


def test_numbers_and_integers_convert(dtype):
    expected = [np.array([[1, 3], [2, 4], [0, 5]], dtype), np.array([2, 3], np.intp)]
    for first in ([1, 2], [True, 2], [1.0, 2.0], np.array([1, 2], np.uint8),
                  np.array([1, 2], dtype)):
        equal(pad_sequences([first, (3.0, 4.0, 5.0)], dtype=dtype), expected)
    equal(pad_sequences([np.ones(2, bool)], dtype=dtype)[:1], [np.ones((2, 1), dtype)])


def test_an_empty_list_has_no_dtype():
    for sequences in ([[], np.array([2, 3])], [np.array([2, 3]), ()]):
        padded, lengths = pad_sequences(sequences)
        first = int(len(sequences[0]) == 0)
        equal([padded], [np.array([[0, 2], [0, 3]] if first else [[2, 0], [3, 0]])])
        assert lengths.tolist() == [2 * (1 - first), 2 * first]
    assert pad_sequences([[], [1, 2]])[0].dtype == int


# ---- errors --------------------------------------------------------------------------------------

X, WIDE = np.ones((4, 2), F32), np.ones((4, 2), F64)


@pytest.mark.parametrize("sequences, options, error, words", [
    ([], {}, ValueError, "sequences is empty, expected at least one array"),
    (3, {}, TypeError, "sequences must be a list of arrays, got int"),
    (None, {}, TypeError, "sequences must be a list of arrays, got NoneType"),
    ([X, X[:0], np.ones((4, 3), F32)], {}, ValueError,
     "sequences[2] has shape (4, 3), sequences[0] (4, 2): only the first axis may differ"),
    ([X, X[0]], {}, ValueError, "sequences[1] has shape (2,), sequences[0] (4, 2): only"),
    ([X, []], {}, ValueError, "sequences[1] has shape (0,), sequences[0] (4, 2): only"),
    (X[0], {}, ValueError, "sequences[0] has no axis of steps: its shape is ()"),
    ([[], []], {}, ValueError, "larger than 0 in one sequence at least"),
    ([[], np.ones(2, F32), np.ones(2)], {}, TypeError,
     "sequences[2] dtype (float64) does not match that of sequences[1] (float32)"),
    ([np.ones(0, F32), np.ones(2)], {}, TypeError, "sequences[1] dtype (float64) does not match"),
    ([X[:0], X[:0]], {}, ValueError, "Expected sequence length to be larger than 0 in one sequence "
                                     "at least (sequences[0] of shape (0, 2))"),
    ([X, [[1, 2], [3]]], {}, ValueError, "sequences[1] is not an array"),
    ([X, X, WIDE], {}, TypeError, "sequences[2] dtype (float64) does not match that of "
                                  "sequences[0] (float32). Convert one of them, or give dtype"),
    ([X, X.astype(int)], {}, TypeError, "sequences[1] dtype (int64) does not match that of"),
    ([X, X.tolist()], {}, TypeError, "sequences[1] dtype (float64) does not match that of"),
    ([X, WIDE], {"dtype": F32}, TypeError, "sequences[1] dtype (float64) does not match dtype "
                                           "(float32). Convert sequences[1]"),
    ([WIDE, X], {"dtype": F64}, TypeError, "sequences[1] dtype (float32) does not match dtype"),
    ([list(WIDE)], {"dtype": F32}, TypeError, "sequences[0] dtype (float64) does not match dtype"),
    (["ab"], {}, ValueError, "sequences[0] has no axis of steps"),
    ([["a", "b"]], {}, TypeError, "sequences[0] dtype (<U1) has no real numbers"),
    ([[1j]], {}, TypeError, "sequences[0] dtype (complex128) has no real numbers"),
    ([[None]], {"dtype": F32}, TypeError, "sequences[0] dtype (object) does not match dtype"),
    ([X, np.ma.masked_less(X, 1)], {}, TypeError, "sequences[1] is a masked array; fill it first"),
    ([X], {"dtype": "int32"}, TypeError, "dtype must be float32 or float64, got int32"),
    ([X], {"batch_first": 1}, TypeError, "batch_first should be of type bool, got: int"),
])
def test_what_cannot_be_padded(sequences, options, error, words):
    with pytest.raises(error) as caught:
        pad_sequences(sequences, **options)
    assert words in str(caught.value)


@pytest.mark.parametrize("padded, lengths, options, error, words", [
    (X, [4], {}, ValueError, "lengths has shape (1,), expected (2,)"),
    (X, [4, 2], {"batch_first": True}, ValueError, "lengths has shape (2,), expected (4,)"),
    (X, 4, {}, ValueError, "lengths has shape (), expected (2,)"),
    (X, [4, 5], {}, ValueError, "lengths[1] is 5, expected 0 to 4"),
    (X, [1, 1, 3, 0], {"batch_first": True}, ValueError, "lengths[2] is 3, expected 0 to 2"),
    (X, [-1, 5], {}, ValueError, "lengths[0] is -1, expected 0 to 4"),
    (X, [4, 2.0], {}, TypeError, "lengths must be integers, got float64"),
    (X, [True, False], {}, TypeError, "lengths must be integers, got bool"),
    (X, None, {}, TypeError, "lengths must be integers, got object"),
    (X[0], [1], {}, ValueError, "Expected padded to be at least 2D, got 1D instead (padded of "
                                "shape (2,))"),
    (np.ma.masked_less(X, 1), [4, 4], {}, TypeError, "padded is a masked array; fill it first"),
    (X, [4, 4], {"batch_first": None}, TypeError, "batch_first should be of type bool"),
])
def test_what_cannot_be_unpadded(padded, lengths, options, error, words):
    with pytest.raises(error) as caught:
        unpad_sequences(padded, lengths, **options)
    assert words in str(caught.value)


def test_no_rows():
    assert unpad_sequences(np.ones((4, 0, 2)), []) == []
