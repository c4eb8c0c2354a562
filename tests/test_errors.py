"""Every error: its type, its words, what arrived, and where it comes from.

`refused` runs a call that must fail on a model that has a forward behind it, and checks that the
error was raised in a .py file of the package, and that the model is as it was: weights, mode,
gradients, and the tape, on which a backward still works.
"""

import re
import types
from pathlib import Path

import numpy as np
import pytest
from helpers import BLOCKS, F32, F64, python, read_only, same

import gru_c
from gru_c import _core

PACKAGE = Path(gru_c.__file__).parent
WIDER = [] if np.dtype("longdouble") == F64 else ["longdouble"]      # where there is such a thing


def zeros(*shape, dtype=F32):
    return np.zeros(shape, dtype)


def make_cell(**options):
    cell = gru_c.GRUCell(3, 4, rng=0, **options)
    if options.get("dtype", F32) == F32:
        cell(np.full((2, 3), 0.5, F32), np.full((2, 4), 0.25, F32))
    return cell


def make_gru(**options):
    gru = gru_c.GRU(3, 4, num_layers=2, rng=0, **options)
    if options.get("dtype", F32) == F32:
        gru(np.full((5, 5, 3), 0.5, F32))
    return gru


def raised_in_python(error):
    """The last frame of the traceback is a .py file of the package."""
    frame = error.__traceback__
    while frame.tb_next:
        frame = frame.tb_next
    file = Path(frame.tb_frame.f_code.co_filename)
    assert file.suffix == ".py", f"raised in {file}"
    assert file.is_relative_to(PACKAGE), f"raised in {file}"


def raises(error, words, call, *args):
    """Run `call`; its error has all the words and comes from the package's Python."""
    with pytest.raises(error) as caught:
        call(*args)
    assert caught.type is error
    for word in words:
        assert word in str(caught.value)
    raised_in_python(caught.value)


def refused(make, call, error, words):
    model, twin = make(), make()
    raises(error, words, call, model)
    assert model.training is twin.training
    assert repr(model) == repr(twin)
    same(model.state_dict().values(), twin.state_dict().values())
    if not model.training or model.dtype != F32:
        return
    with pytest.raises(RuntimeError, match="no gradients yet"):
        _ = model.grads
    if isinstance(model, gru_c.GRUCell):
        for name in ("x", "hidden", "r", "z", "n"):
            np.testing.assert_array_equal(getattr(model, name), getattr(twin, name))
    delta = np.ones((2, 4) if isinstance(model, gru_c.GRUCell) else (5, 5, 4), F32)
    same(model.backward(delta), twin.backward(delta))
    same(model.grads.values(), twin.grads.values())


def cases(*rows):
    """Parameters (call, error, words); the name of a case is what its message says."""
    return pytest.mark.parametrize(
        ("call", "error", "words"),
        [pytest.param(call, error, words, id=words[0].replace(" ", "_"))
         for call, error, *words in rows])


# ---- constructors --------------------------------------------------------------------------------

SIZES = [(value, TypeError, f"should be of type int, got: {type(value).__name__}")
         for value in (True, np.True_, 2.0, np.float32(2), "3", None, [3], np.ones(2, int))] + [
         (value, ValueError, f"must be greater than zero, got {value}")
         for value in (0, -1, np.int64(-7))]


@pytest.mark.parametrize(("value", "error", "words"), SIZES)
@pytest.mark.parametrize(("kind", "name"), [
    (gru_c.GRUCell, "input_size"), (gru_c.GRUCell, "hidden_size"),
    (gru_c.GRU, "input_size"), (gru_c.GRU, "hidden_size"), (gru_c.GRU, "num_layers")])
def test_sizes(kind, name, value, error, words):
    arguments = {"input_size": 3, "hidden_size": 4, name: value}
    raises(error, [f"{name} {words}"], lambda: kind(**arguments))


@pytest.mark.parametrize("value", [0, 1, None, "yes", 1.0, F64])
@pytest.mark.parametrize(("kind", "name"), [
    (gru_c.GRUCell, "bias"), (gru_c.GRUCell, "reset_after"), (gru_c.GRU, "bias"),
    (gru_c.GRU, "batch_first"), (gru_c.GRU, "bidirectional"), (gru_c.GRU, "reset_after")])
def test_flags(kind, name, value):
    raises(TypeError, [f"{name} should be of type bool, got: {type(value).__name__}"],
           lambda: kind(3, 4, **{name: value}))


@pytest.mark.parametrize("kind", [gru_c.GRUCell, gru_c.GRU])
@pytest.mark.parametrize(("dtype", "words"), [
    (np.float16, "got float16"), *((dtype, f"got {np.dtype(dtype)}") for dtype in WIDER),
    (np.int32, "got int32"), (complex, "got complex128"), (object, "got object"),
    (">f4", "got >f4"), (">f8", "got >f8"), ("S3", "got |S3")])
def test_model_dtype(kind, dtype, words):
    raises(TypeError, ["dtype must be float32 or float64", words],
           lambda: kind(3, 4, dtype=dtype))


@pytest.mark.parametrize("kind", [gru_c.GRUCell, gru_c.GRU])
@pytest.mark.parametrize("dtype", ["nonsense", 3, None])
def test_model_dtype_that_is_none(kind, dtype):
    """None too: NumPy reads it as float64, which is not the default here."""
    raises(TypeError, [str(dtype)], lambda: kind(3, 4, dtype=dtype))


@pytest.mark.parametrize("kind", [gru_c.GRUCell, gru_c.GRU])
@pytest.mark.parametrize(("rng", "error"), [("seed", TypeError), (0.5, TypeError),
                                            (-1, ValueError)])
def test_rng(kind, rng, error):
    raises(error, ["rng"], lambda: kind(3, 4, rng=rng))


PROBABILITIES = ("dropout", "input_dropout", "recurrent_dropout")


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize("value", [0, 1, 0.0, F32(0.5), F64(1), np.int64(1), np.array(0.25)],
                         ids=repr)
def test_ways_to_say_a_probability(name, value):
    found = getattr(gru_c.GRU(3, 4, num_layers=2, **{name: value}), name)
    assert found == value
    assert type(found) is float


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize(("value", "error", "words"), [
    *((value, ValueError, "in range [0, 1] representing the probability of an element being "
       f"zeroed, got {value}") for value in (-0.1, 1.5, -1, float("nan"), float("inf"), 10**400)),
    *((value, TypeError, f", got: {type(value).__name__}")
      for value in (None, "0", True, np.False_, 0j, [0.5], np.array([0.5]), np.array(False)))])
def test_no_probability(name, value, error, words):
    raises(error, [f"{name} should be a number", words],
           lambda: gru_c.GRU(3, 4, num_layers=2, **{name: value}))


def test_dropout_of_one_layer():
    """As PyTorch has it. The other kinds drop something in one layer, too."""
    words = ("dropout option adds dropout after all but last recurrent layer, so non-zero dropout "
             "expects num_layers greater than 1, but got dropout=0.5 and num_layers=1 "
             "(for dropout of x, as in Keras: input_dropout)")
    with pytest.warns(UserWarning, match=re.escape(words)) as caught:
        gru_c.GRU(3, 4, dropout=0.5)
    assert caught[0].filename == __file__
    gru_c.GRU(3, 4, input_dropout=0.5, recurrent_dropout=0.5)
    gru_c.GRU(3, 4, 2, dropout=0.5)


# ---- shapes --------------------------------------------------------------------------------------

def shapes(*rows):
    """Parameters (call, words) from (method, arguments, words). A tuple stands for zeros of that
    shape. The message has the words, and the shape of the last argument."""
    def case(method, arguments, *words):
        arrays = [zeros(*a) if isinstance(a, tuple) else a for a in arguments]
        return pytest.param(lambda model: getattr(model, method)(*arrays),
                            [*words, str(np.shape(arrays[-1]))],
                            id=f"{method}{arguments}".replace(" ", ""))

    return pytest.mark.parametrize(("call", "words"), [case(*row) for row in rows])


@shapes(
    ("forward", [(2, 5)], "input has inconsistent input_size: got 5 expected 3"),
    ("forward", [(5,)], "input has inconsistent input_size: got 5 expected 3"),
    ("forward", [(2, 1)], "input has inconsistent input_size: got 1 expected 3"),
    ("forward", [(2, 0)], "input has inconsistent input_size: got 0 expected 3"),
    ("forward", [[[1, 2]]], "input has inconsistent input_size: got 2 expected 3"),
    ("forward", [(1, 2, 3)], "GRUCell: Expected input to be 1D or 2D, got 3D instead"),
    ("forward", [F32(1)], "GRUCell: Expected input to be 1D or 2D, got 0D instead"),
    ("forward", [1.0], "GRUCell: Expected input to be 1D or 2D, got 0D instead"),
    ("forward", [(3,), (1, 1, 4)], "GRUCell: Expected hidden to be 1D or 2D, got 3D instead"),
    ("forward", [(2, 3), 0.0], "GRUCell: Expected hidden to be 1D or 2D, got 0D instead"),
    ("forward", [(2, 3), (2, 5)], "hidden has inconsistent hidden_size: got 5, expected 4"),
    ("forward", [(2, 3), (2, 1)], "hidden has inconsistent hidden_size: got 1, expected 4"),
    ("forward", [(2, 3), (4,)], "For 2D input, hidden should also be 2D but got 1D", "(2, 3)"),
    ("forward", [(3,), (1, 4)], "For 1D input, hidden should also be 1D but got 2D", "(3,)"),
    ("forward", [(2, 3), (1, 4)], "Input batch size 2 doesn't match hidden batch size 1", "(2, 3)"),
    ("forward", [(1, 3), (2, 4)], "Input batch size 1 doesn't match hidden batch size 2", "(1, 3)"),
    ("forward", [(2, 3), (0, 4)], "Input batch size 2 doesn't match hidden batch size 0", "(2, 3)"),
)
@pytest.mark.parametrize("training", [True, False])
def test_cell_shapes(call, words, training):
    refused(lambda: make_cell().train(training), call, ValueError, words)


@shapes(
    ("forward", [(5, 2, 4)], "input has inconsistent input_size: got 4 expected 3"),
    ("forward", [(5, 4)], "input has inconsistent input_size: got 4 expected 3"),
    ("forward", [(3,)], "GRU: Expected input to be 2D or 3D, got 1D instead"),
    ("forward", [(1, 5, 2, 3)], "GRU: Expected input to be 2D or 3D, got 4D instead"),
    ("forward", [2], "GRU: Expected input to be 2D or 3D, got 0D instead"),
    ("forward", [(0, 2, 3)], "Expected sequence length to be larger than 0 in RNN"),
    ("forward", [(0, 3)], "Expected sequence length to be larger than 0 in RNN"),
    ("forward", [(0, 0, 3)], "Expected sequence length to be larger than 0 in RNN"),
    ("forward", [(5, 2, 3), (2, 4)], "For batched input, h_0 should be 3-D but got 2-D"),
    ("forward", [(5, 3), (2, 1, 4)], "For unbatched input, h_0 should be 2-D but got 3-D"),
    ("forward", [(5, 3), (4,)], "For unbatched input, h_0 should be 2-D but got 1-D"),
    ("forward", [(5, 2, 3), (2, 1, 4)], "Expected h_0 size (2, 2, 4), got (2, 1, 4)"),
    ("forward", [(5, 2, 3), (1, 2, 4)], "Expected h_0 size (2, 2, 4), got (1, 2, 4)"),
    ("forward", [(5, 2, 3), (2, 2, 5)], "Expected h_0 size (2, 2, 4), got (2, 2, 5)"),
    ("forward", [(5, 3), (1, 4)], "Expected h_0 size (2, 4), got (1, 4)"),
    ("step", [(5, 2, 3)], "GRU.step: Expected input to be 1D or 2D, got 3D instead"),
    ("step", [1], "GRU.step: Expected input to be 1D or 2D, got 0D instead"),
    ("step", [(2, 4)], "input has inconsistent input_size: got 4 expected 3"),
    ("step", [(2, 3), (2, 4)], "For batched input, h should be 3-D but got 2-D"),
    ("step", [(3,), (2, 1, 4)], "For unbatched input, h should be 2-D but got 3-D"),
    ("step", [(2, 3), (2, 1, 4)], "Expected h size (2, 2, 4), got (2, 1, 4)"),
    ("step", [(3,), (1, 4)], "Expected h size (2, 4), got (1, 4)"),
)
@pytest.mark.parametrize("training", [True, False])
def test_gru_shapes(call, words, training):
    refused(lambda: make_gru().train(training), call, ValueError, words)


@shapes(
    ("backward", [(2, 5)], "delta has shape (2, 5), expected (2, 4)"),
    ("backward", [(1, 4)], "delta has shape (1, 4), expected (2, 4)"),
    ("backward", [(4,)], "delta has shape (4,), expected (2, 4)"),
    ("backward", [1.0], "delta has shape (), expected (2, 4)"),
)
def test_cell_backward_shapes(call, words):
    refused(make_cell, call, ValueError, words)


@shapes(
    ("backward", [(5, 5, 3)], "d_output has shape (5, 5, 3), expected (5, 5, 4)"),
    ("backward", [(5, 4)], "d_output has shape (5, 4), expected (5, 5, 4)"),
    ("backward", [(5, 1, 4)], "d_output has shape (5, 1, 4), expected (5, 5, 4)"),
    ("backward", [0.0], "d_output has shape (), expected (5, 5, 4)"),
    ("backward", [(5, 5, 4), (2, 4)], "For batched input, d_h_n should be 3-D but got 2-D"),
    ("backward", [None, (2, 1, 4)], "Expected d_h_n size (2, 5, 4), got (2, 1, 4)"),
)
def test_gru_backward_shapes(call, words):
    refused(make_gru, call, ValueError, words)


@shapes(
    ("forward", [(2, 0, 3)], "Expected sequence length to be larger than 0 in RNN"),
    ("forward", [(2, 5, 3), (2, 5, 4)], "Expected h_0 size (2, 2, 4), got (2, 5, 4)"),
    ("backward", [(5, 2, 4)], "d_output has shape (5, 2, 4), expected (5, 5, 4)"),
)
def test_batch_first_shapes(call, words):
    refused(lambda: make_gru(batch_first=True), call, ValueError, words)


def test_a_shape_is_refused_before_out_is_written():
    refused(make_cell, lambda cell: cell(zeros(2, 5), out=zeros(2, 4)), ValueError,
            ["inconsistent input_size"])


# ---- dtypes --------------------------------------------------------------------------------------

def calls_with(model, convert):
    """(name, call) for each array argument of the interface; the argument is `convert(zeros)`."""
    def bad(*shape):
        return convert(np.zeros(shape))

    def good(*shape):
        return np.zeros(shape, model.dtype)

    if isinstance(model, gru_c.GRUCell):
        x, h = good(2, 3), good(2, 4)
        model(x, h)
        weights = [getattr(model, name) for name in BLOCKS]
        yield "input", lambda: model(bad(2, 3), h)
        yield "hidden", lambda: model(x, bad(2, 4))
        yield "input", lambda: model(bad(3))
        yield "hidden", lambda: model(x, bad(2, 4), out=good(2, 4))
        yield "delta", lambda: model.backward(bad(2, 4))
        yield "Wzx", lambda: setattr(model, "Wzx", bad(4, 3))
        yield "bnh", lambda: setattr(model, "bnh", bad(4))
        yield "weight_hh", lambda: setattr(model, "weight_hh", bad(12, 4))
        yield "bnh", lambda: model.init_weights(*weights[:-1], bad(4))
        yield "bias_hh", lambda: model.load_state_dict(model.state_dict() | {"bias_hh": bad(12)})
    else:
        x = good(5, 2, 3)
        model(x)
        yield "input", lambda: model(bad(5, 2, 3))
        yield "h_0", lambda: model(x, bad(2, 2, 4))
        yield "d_output", lambda: model.backward(bad(5, 2, 4))
        yield "d_h_n", lambda: model.backward(None, bad(2, 2, 4))
        yield "input", lambda: model.step(bad(2, 3))
        yield "h", lambda: model.step(x[0], bad(2, 2, 4))
        yield "bias_ih_l1", lambda: setattr(model, "bias_ih_l1", bad(12))
        yield "weight_hh_l1", lambda: model.load_state_dict(
            model.state_dict() | {"weight_hh_l1": bad(12, 4)})


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [gru_c.GRUCell, gru_c.GRU])
@pytest.mark.parametrize(("own", "other"), [
    ("float32", "float64"), ("float64", "float32"), ("float32", "float16"),
    *(("float64", wider) for wider in WIDER), ("float32", "complex64"), ("float64", "complex128"),
    ("float32", "object"), ("float32", "U3"), ("float32", "T"), ("float32", "S3"),
    ("float32", ">f8"), ("float32", "datetime64[s]"), ("float32", "V8")])
def test_other_dtypes(kind, own, other, training):
    """No silent cast, neither down nor up: the message names the array and both dtypes."""
    def convert(array):
        return array.astype("i8").astype(other) if other[0] in "dV" else array.astype(other)

    model = kind(3, 4, dtype=own, rng=0, **({} if kind is gru_c.GRUCell else {"num_layers": 2}))
    model.train(training)
    before = model.state_dict()
    for name, call in calls_with(model, convert):
        if training or not name.startswith("d"):           # no backward in eval
            raises(TypeError, [f"{name} dtype ({np.dtype(other)}) does not match weight dtype "
                               f"({own})"], call)
    same(model.state_dict().values(), before.values())


def test_no_advice_to_make_a_model_that_there_cannot_be():
    for other in ("float16", *WIDER, "complex64", "object", "S3", ">f8", "float64"):
        x = zeros(3).astype(other)
        with pytest.raises(TypeError) as caught:
            gru_c.GRUCell(3, 4)(x)
        *_, advice = str(caught.value).partition("make the model with dtype=")
        assert advice == ("float64" if x.dtype.name == "float64" else "")


@pytest.mark.parametrize("kind", [gru_c.GRUCell, gru_c.GRU])
def test_masked_arrays(kind):
    model = kind(3, 4, **({} if kind is gru_c.GRUCell else {"num_layers": 2}))
    for training in (True, False):
        model.train(training)
        for name, call in calls_with(model, lambda array: np.ma.masked_less(array.astype(F32), 1)):
            if training or not name.startswith("d"):
                raises(TypeError, [f"{name} is a masked array; fill it first"], call)


@pytest.mark.parametrize(("value", "error", "words"), [
    (None, TypeError, ["input dtype (object)", "float32"]),
    (object(), TypeError, ["input dtype (object)", "float32"]),
    ("abc", TypeError, ["input dtype (<U3)", "float32"]),
    ([[1, 2, None]], TypeError, ["input dtype (object)", "float32"]),
    ([[1, 2, "3"]], TypeError, ["input dtype (<U21)", "float32"]),
    ([[1, 2, 3j]], TypeError, ["input dtype (complex128)", "float32"]),
    ([[1, 2, 2**70]], TypeError, ["input dtype (object)", "float32"]),
    ({1, 2, 3}, TypeError, ["input dtype (object)", "float32"]),
    ([[1, 2, 3], [4, 5]], ValueError, ["input", "inhomogeneous"]),
    ([zeros(5, 3), zeros(2, 3)], ValueError,
     ["input is not an array", "with gru_c.pad_sequences, and give lengths"]),
    ((zeros(7, 3), np.array([2, 2, 2, 1]), None, None), ValueError,      # as a PackedSequence
     ["input is not an array", "with gru_c.pad_sequences, and give lengths"]),
])
def test_lists_that_are_not_numbers(value, error, words):
    refused(make_cell, lambda cell: cell(value), error, words)
    refused(make_gru, lambda gru: gru(value), error, words)
    refused(lambda: make_cell().eval(), lambda cell: cell(value), error, words)
    refused(lambda: make_gru().eval(), lambda gru: gru(value), error, words)
    refused(make_gru, lambda gru: gru.step(value), error, words)


@pytest.mark.parametrize("wrap", [list, tuple])
def test_a_list_of_arrays_is_not_cast_either(wrap):
    """A list of Python numbers converts; float64 arrays do not become float32 for being in one."""
    rows = wrap(np.ones((5, 2, 3)))
    refused(make_gru, lambda gru: gru(rows), TypeError, ["input dtype (float64)", "float32"])
    refused(make_cell, lambda cell: cell(rows[0].tolist(), wrap(np.ones((2, 4)))), TypeError,
            ["hidden dtype (float64)", "float32"])


# ---- out= ----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("make_out", "error", "words"), [
    (lambda *shape: zeros(*shape).tolist(), TypeError, "out must be a numpy array, got list"),
    (lambda *shape: memoryview(zeros(*shape)), TypeError,
     "out must be a numpy array, got memoryview"),
    (lambda *shape: zeros(*shape, dtype=F64), TypeError,
     "out dtype (float64) does not match weight dtype (float32)"),
    (lambda *shape: zeros(*shape, dtype=">f4"), TypeError,
     "out dtype (>f4) does not match weight dtype (float32)"),
    (lambda *shape: zeros(*shape, dtype=int), TypeError,
     "out dtype (int64) does not match weight dtype (float32)"),
    (lambda *shape: zeros(*shape[:-1], 5), ValueError, "out has shape (2, 5), expected (2, 4)"),
    (lambda *shape: zeros(*shape[:-1], 1), ValueError, "out has shape (2, 1), expected (2, 4)"),
    (lambda *shape: zeros(1, *shape), ValueError, "out has shape (1, 2, 4), expected (2, 4)"),
    (lambda *shape: zeros(4), ValueError, "out has shape (4,), expected (2, 4)"),
    (lambda *shape: read_only(zeros(*shape)), ValueError, "out is read-only"),
    (lambda *shape: np.broadcast_to(zeros(4), shape), ValueError, "out is read-only"),
])
@pytest.mark.parametrize("training", [True, False])
def test_out(make_out, error, words, training):
    out = make_out(2, 4)
    before = np.array(out)
    refused(make_cell if training else lambda: make_cell().eval(),
            lambda cell: cell(zeros(2, 3), out=out), error, [words])
    refused(make_gru if training else lambda: make_gru().eval(),
            lambda gru: gru.step(zeros(3), out=out), error, [words])      # (L, H) is (2, 4) too
    np.testing.assert_array_equal(np.array(out), before)


# ---- options of a sequence -----------------------------------------------------------------------

def masked(array):
    return np.ma.masked_array(array, mask=np.zeros(array.shape, bool))


def marks(*shape):
    return np.zeros(shape, bool)


# Of x (5, 2, 3), with two layers of four units.
WRONG_OPTIONS = [
    ({"lengths": [5]}, ValueError, "lengths has shape (1,), expected (2,) "
     "(for input of shape (5, 2, 3), batch_first=False)"),
    ({"lengths": [[5, 3]]}, ValueError, "lengths has shape (1, 2), expected (2,)"),
    ({"lengths": 5}, ValueError, "lengths has shape (), expected (2,)"),
    ({"lengths": []}, ValueError, "lengths has shape (0,), expected (2,)"),
    ({"lengths": [[5], [3, 1]]}, ValueError, "lengths is not an array"),
    ({"lengths": [5, -1]}, ValueError, "lengths[1] is -1, expected 0 to 5"),
    ({"lengths": np.array([6, 0], np.uint8)}, ValueError, "lengths[0] is 6, expected 0 to 5"),
    ({"lengths": np.array([0, 2**64 - 2], np.uint64)}, ValueError, "lengths[1] is", "0 to 5"),
    ({"lengths": [5.0, 3.0]}, TypeError, "lengths must be integers, got float64"),
    ({"lengths": [True, False]}, TypeError, "lengths must be integers, got bool"),
    ({"lengths": [5, None]}, TypeError, "lengths must be integers, got object"),
    ({"lengths": [5, 2**70]}, TypeError, "lengths must be integers, got object"),
    ({"lengths": "53"}, TypeError, "lengths must be integers, got <U2"),
    ({"lengths": False}, TypeError, "lengths must be integers, got bool"),
    ({"lengths": masked(np.array([5, 3]))}, TypeError, "lengths is a masked array"),
    *(case for name in ("mask", "resets") for case in (
        ({name: marks(2, 5)}, ValueError, f"{name} has shape (2, 5), expected (5, 2) "
         "(for input of shape (5, 2, 3), batch_first=False)"),
        ({name: marks(5)}, ValueError, f"{name} has shape (5,), expected (5, 2)"),
        ({name: marks(5, 1)}, ValueError, f"{name} has shape (5, 1), expected (5, 2)"),
        ({name: marks(5, 2, 1)}, ValueError, f"{name} has shape (5, 2, 1), expected (5, 2)"),
        ({name: True}, ValueError, f"{name} has shape (), expected (5, 2)"),
        ({name: zeros(5, 2)}, TypeError,
         f"{name} must be of dtype bool, got float32: convert it by .astype(bool)"),
        ({name: zeros(5, 2, dtype=int)}, TypeError,
         f"{name} must be of dtype bool, got int64: convert it by .astype(bool)"),
        ({name: [[None, True]] * 5}, TypeError, f"{name} must be of dtype bool, got object"),
        ({name: masked(marks(5, 2))}, TypeError, f"{name} is a masked array"))),
    ({"return_output": 0}, TypeError, "return_output should be of type bool, got: int"),
    ({"return_output": 1}, TypeError, "return_output should be of type bool, got: int"),
    ({"return_output": None}, TypeError, "return_output should be of type bool, got: NoneType"),
    ({"return_output": False, "out": zeros(5, 2, 4)}, ValueError,
     "out takes the output, but return_output is False"),
    *(case for name, shape in (("out", (5, 2, 4)), ("h_n_out", (2, 2, 4))) for case in (
        ({name: zeros(*shape).tolist()}, TypeError, f"{name} must be a numpy array, got list"),
        ({name: masked(zeros(*shape))}, TypeError, f"{name} is a masked array"),
        ({name: zeros(*shape, dtype=F64)}, TypeError,
         f"{name} dtype (float64) does not match weight dtype (float32)"),
        ({name: zeros(*shape, dtype=">f4")}, TypeError,
         f"{name} dtype (>f4) does not match weight dtype (float32)"),
        ({name: zeros(*shape[1:])}, ValueError, f"{name} has shape (2, 4), expected {shape}"),
        ({name: zeros(*shape[:-1], 8)}, ValueError,
         f"{name} has shape {(*shape[:-1], 8)}, expected {shape}"),
        ({name: read_only(zeros(*shape))}, ValueError, f"{name} is read-only"),
        ({name: np.broadcast_to(zeros(4), shape)}, ValueError, f"{name} is read-only"))),
]
WRONG_MASKS = [
    ([("input_l0", zeros(2, 3))], TypeError, "dropout_masks must be a mapping, got list"),
    (zeros(5, 2, 4), TypeError, "dropout_masks must be a mapping, got ndarray"),
    (0.5, TypeError, "dropout_masks must be a mapping, got float"),
    # there is no dropout after the last layer, nor a reverse direction
    ({"output_l1": zeros(5, 2, 4)}, ValueError, "dropout_masks has unexpected names: 'output_l1'; "
     "its names are: output_l0, input_l0, recurrent_l0, input_l1, recurrent_l1"),
    ({"input_l0_reverse": zeros(2, 3), 1: 2}, ValueError,
     "dropout_masks has unexpected names: 'input_l0_reverse', 1; its names"),
    ({"output_l0": zeros(2, 5, 4)}, ValueError,
     "dropout_masks['output_l0'] has shape (2, 5, 4), expected (5, 2, 4)"),
    ({"input_l0": zeros(2, 4)}, ValueError,
     "dropout_masks['input_l0'] has shape (2, 4), expected (2, 3) "
     "(for input of shape (5, 2, 3), batch_first=False)"),
    ({"input_l1": zeros(4)}, ValueError,
     "dropout_masks['input_l1'] has shape (4,), expected (2, 4)"),
    ({"recurrent_l0": zeros(5, 2, 4)}, ValueError,
     "dropout_masks['recurrent_l0'] has shape (5, 2, 4), expected (2, 4)"),
    ({"recurrent_l1": 2.0}, ValueError,
     "dropout_masks['recurrent_l1'] has shape (), expected (2, 4)"),
    ({"input_l0": zeros(2, 3, dtype=F64)}, TypeError,
     "dropout_masks['input_l0'] dtype (float64) does not match weight dtype (float32)"),
    ({"input_l0": None}, TypeError, "dropout_masks['input_l0'] dtype (object)"),
    ({"input_l0": masked(zeros(2, 3))}, TypeError, "dropout_masks['input_l0'] is a masked array"),
]


@pytest.mark.parametrize(("options", "error", "words"), [
    pytest.param(options, error, words, id=words[0].replace(" ", "_"))
    for options, error, *words in WRONG_OPTIONS])
@pytest.mark.parametrize("training", [True, False])
def test_options_of_a_sequence(options, error, words, training):
    before = {name: np.array(value) for name, value in options.items() if name[-3:] == "out"}
    refused(lambda: make_gru().train(training), lambda gru: gru(np.ones((5, 2, 3), F32), **options),
            error, words)
    same([np.array(options[name]) for name in before], before.values())


@pytest.mark.parametrize(("masks", "error", "words"), [
    pytest.param(masks, error, words, id=words[0].replace(" ", "_"))
    for masks, error, *words in WRONG_MASKS])
def test_dropout_masks(masks, error, words):
    """Nothing is drawn, even where others are to be drawn before the wrong one."""
    def make():
        return make_gru(dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5)

    def call(gru):
        gru(zeros(5, 2, 3), dropout_masks=masks)

    model, twin = make(), make()
    raises(error, words, call, model)
    same(model(zeros(5, 2, 3)), twin(zeros(5, 2, 3)))
    refused(make_gru, call, error, words)


@pytest.mark.parametrize("masks", [{}, {"input_l0": zeros(2, 3)}])
def test_dropout_masks_in_eval(masks):
    refused(lambda: make_gru().eval(), lambda gru: gru(zeros(5, 2, 3), dropout_masks=masks),
            ValueError, ["dropout_masks needs training mode: eval() turns dropout off"])


@pytest.mark.parametrize(("shape", "options", "words"), [
    ((2, 5, 3), {"mask": marks(5, 2)}, "mask has shape (5, 2), expected (2, 5) "
     "(for input of shape (2, 5, 3), batch_first=True)"),
    ((2, 5, 3), {"resets": marks(5, 2)}, "resets has shape (5, 2), expected (2, 5)"),
    ((2, 5, 3), {"lengths": [5] * 5}, "lengths has shape (5,), expected (2,)"),
    ((2, 5, 3), {"lengths": [5, 6]}, "lengths[1] is 6, expected 0 to 5"),
    ((2, 5, 3), {"out": zeros(5, 2, 4)}, "out has shape (5, 2, 4), expected (2, 5, 4)"),
    ((2, 5, 3), {"dropout_masks": {"output_l0": zeros(5, 2, 4)}},
     "dropout_masks['output_l0'] has shape (5, 2, 4), expected (2, 5, 4)"),
    ((5, 3), {"mask": marks(5, 1)}, "mask has shape (5, 1), expected (5,) "
     "(for input of shape (5, 3))"),
    ((5, 3), {"resets": marks(1)}, "resets has shape (1,), expected (5,)"),
    ((5, 3), {"lengths": [5, 3]}, "lengths has shape (2,), expected (1,)"),
    ((5, 3), {"lengths": 6}, "lengths[0] is 6, expected 0 to 5"),
    ((5, 3), {"out": zeros(1, 5, 4)}, "out has shape (1, 5, 4), expected (5, 4)"),
    ((5, 3), {"h_n_out": zeros(2, 1, 4)}, "h_n_out has shape (2, 1, 4), expected (2, 4)"),
    ((5, 3), {"dropout_masks": {"output_l0": zeros(5, 1, 4)}},
     "dropout_masks['output_l0'] has shape (5, 1, 4), expected (5, 4)"),
    ((5, 3), {"dropout_masks": {"input_l0": zeros(1, 3)}},
     "dropout_masks['input_l0'] has shape (1, 3), expected (3,)"),
], ids=str)
def test_options_of_other_forms(shape, options, words):
    """Batch first, or not batched."""
    refused(lambda: make_gru(batch_first=True), lambda gru: gru(zeros(*shape), **options),
            ValueError, [words])


@pytest.mark.parametrize("training", [True, False])
def test_out_and_h_n_out_of_the_same_memory(training):
    memory = zeros(7, 2, 4)
    for out, h_n_out in ((memory[:5], memory[4:6]), (memory[2:], memory[1:3]),
                         (memory[:5], memory[3:1:-1]), (memory[:5], memory[:2])):
        refused(lambda: make_gru().train(training),
                lambda gru, out=out, h_n_out=h_n_out: gru(
                    np.ones((5, 2, 3), F32), out=out, h_n_out=h_n_out),
                ValueError, ["out and h_n_out share memory"])
    assert not memory.any()


@pytest.mark.parametrize("layers", [1, 2])
def test_a_stream_has_one_direction(layers):
    def make():
        return gru_c.GRU(3, 4, layers, bidirectional=True, rng=0).eval()

    refused(make, lambda gru: gru.step(zeros(2, 3)), ValueError,
            ["step needs one direction", "bidirectional=True", "the last step"])
    assert make()(zeros(5, 2, 3), zeros(2 * layers, 2, 4))[0].shape == (5, 2, 8)
    raises(ValueError, [f"Expected h_0 size ({2 * layers}, 2, 4), got (1, 2, 4)"], make(),
           zeros(5, 2, 3), zeros(1, 2, 4))
    trained = make().train()
    trained(zeros(5, 2, 3))
    raises(ValueError, ["d_output has shape (5, 2, 4), expected (5, 2, 8)"], trained.backward,
           zeros(5, 2, 4))


@pytest.mark.parametrize("value", [0, 1, None, "yes", 1.0])
@pytest.mark.parametrize("name", ["accumulate", "need_dx", "need_grads"])
def test_flags_of_a_backward(name, value):
    refused(make_gru, lambda gru: gru.backward(np.ones((5, 5, 4), F32), **{name: value}), TypeError,
            [f"{name} should be of type bool, got: {type(value).__name__}"])


@pytest.mark.parametrize(("change", "error", "words"), [
    (lambda a: a.astype(F64), TypeError, "dtype (float64) does not match weight dtype (float32)"),
    (lambda a: a[:-1], ValueError, "has shape (11, 4), expected (12, 4)"),
    (lambda a: a[0, 0], ValueError, "has shape (), expected (12, 4)"),
    (lambda a: None, TypeError, "dtype (object)"),
    (masked, TypeError, "is a masked array"),
])
def test_gradients_that_cannot_add_up(change, error, words):
    """What the caller has put into `grads`."""
    gru, twin = make_gru(), make_gru()
    delta = np.ones((5, 5, 4), F32)
    for model in (gru, twin):
        model.backward(delta)
        model(np.ones((5, 5, 3), F32))
    kept = gru.grads["weight_hh_l1"]
    gru.grads["weight_hh_l1"] = change(kept)
    raises(error, ["grads['weight_hh_l1']", words], lambda: gru.backward(delta, accumulate=True))
    gru.grads["weight_hh_l1"] = kept
    same(gru.backward(delta, accumulate=True), twin.backward(delta, accumulate=True))
    same(gru.grads.values(), twin.grads.values())


# ---- the order of calls --------------------------------------------------------------------------

@pytest.mark.parametrize("kind", [gru_c.GRUCell, gru_c.GRU])
def test_order_of_calls(kind):
    model = kind(3, 4)
    x, delta = zeros(2, 3), zeros(2, 4)
    no_forward = ["backward needs a forward in training mode first", "eval() drops what it saved"]
    eval_mode = ["backward needs training mode: call train(), then forward; eval() drops what"]
    raises(RuntimeError, no_forward, model.backward, delta)
    raises(RuntimeError, ["no gradients yet: call backward first"], lambda: model.grads)
    model.eval()
    raises(RuntimeError, eval_mode, model.backward, delta)
    model(x)
    raises(RuntimeError, eval_mode, model.backward, delta)
    model.train()
    raises(RuntimeError, no_forward, model.backward, delta)
    model(x)
    with pytest.raises(ValueError, match="input"):         # what is refused keeps it
        model(zeros(2, 7))
    if kind is gru_c.GRU:
        model.step(zeros(2, 3))
    model.backward(delta)
    model(x)
    model.eval().train()                                   # eval drops what was kept
    raises(RuntimeError, no_forward, model.backward, delta)
    model(x)
    model.backward(delta)
    if kind is gru_c.GRU:
        raises(RuntimeError, no_forward, model.backward, delta)
    raises(TypeError, ["mode should be of type bool, got: int"], model.train, 1)
    raises(TypeError, ["mode should be of type bool, got: NoneType"], model.train, None)
    assert model.training is True


@pytest.mark.parametrize("name", ["x", "hidden", "r", "z", "n"])
def test_cell_attributes_before_forward(name):
    cell = gru_c.GRUCell(3, 4)
    words = [f"no {name} yet: call forward in training mode first"]
    raises(RuntimeError, words, getattr, cell, name)
    cell.eval()(zeros(2, 3))
    raises(RuntimeError, words, getattr, cell, name)


@pytest.mark.parametrize("name", ["dWrx", "dWnh", "dbzx", "dbnh"])
def test_cell_gradients_before_backward(name):
    raises(RuntimeError, ["no gradients yet: call backward first"], getattr, make_cell(), name)


# ---- weights -------------------------------------------------------------------------------------

GOOD = {name: zeros(*((4,) if name[0] == "b" else (4, 3) if name[2] == "x" else (4, 4)))
        for name in BLOCKS}


def loading(**changes):
    """load_state_dict of the model's own weights with changes; None takes a name out."""
    def load(model):
        new = model.state_dict() | changes
        model.load_state_dict({name: value for name, value in new.items() if value is not None})
    return load


def setting(name, value):
    return lambda model: setattr(model, name, value)


@pytest.mark.parametrize(("make", "name", "shape", "expected"), [
    (make_cell, "weight_ih", (12, 4), (12, 3)), (make_cell, "weight_hh", (4,), (12, 4)),
    (make_cell, "weight_hh", (), (12, 4)), (make_cell, "bias_ih", (12, 1), (12,)),
    (make_cell, "Wrx", (4, 4), (4, 3)), (make_cell, "Wnh", (1, 4), (4, 4)),
    (make_cell, "bzx", (), (4,)), (make_cell, "bnh", (1,), (4,)),
    (make_gru, "weight_ih_l0", (12, 4), (12, 3)), (make_gru, "weight_ih_l1", (12, 3), (12, 4)),
    (make_gru, "bias_hh_l1", (1,), (12,))])
def test_shapes_of_weights(make, name, shape, expected):
    refused(make, setting(name, zeros(*shape)), ValueError,
            [f"{name} has shape {shape}, expected {expected}"])


@cases(
    (setting("bias_hh", None), TypeError, "bias_hh dtype (object)", "float32"),
    (setting("bnh", None), TypeError, "bnh dtype (object)", "float32"),
    (lambda c: c.init_weights(**GOOD | {"Wnx": zeros(3, 4)}), ValueError,
     "Wnx has shape (3, 4), expected (4, 3)"),
    (lambda c: c.init_weights(**GOOD | {"bnh": zeros(4, 1)}), ValueError,
     "bnh has shape (4, 1), expected (4,)"),
    (lambda c: c.init_weights(**GOOD | {"bnh": None}), ValueError,
     "bnh is missing: the cell has bias=True"),
    (lambda c: c.init_weights(**{k: GOOD[k] for k in BLOCKS[:6]}), ValueError,
     "brx is missing: the cell has bias=True"),
    (loading(bias_ih=None, bias_hh=None), ValueError, "missing key(s): 'bias_ih', 'bias_hh'"),
    (loading(weight_ih_l0=zeros(12, 3)), ValueError, "unexpected key(s): 'weight_ih_l0'"),
    (loading(weight_ih=zeros(12, 4), bias_hh=zeros(1), bias_ih=None, extra=0), ValueError,
     "cannot load into GRUCell", "missing key(s): 'bias_ih'", "unexpected key(s): 'extra'",
     "size mismatch for weight_ih: got shape (12, 4), the model has (12, 3)",
     "size mismatch for bias_hh: got shape (1,), the model has (12,)"),
    (lambda c: c.load_state_dict({}), ValueError,
     "missing key(s): 'weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'"),
)
def test_cell_weights(call, error, words):
    refused(make_cell, call, error, words)


def test_init_weights_without_a_weight():
    def call(cell):
        try:
            cell.init_weights(**GOOD | {"Wrx": None})
        except ValueError as error:
            assert "bias" not in str(error)                # it is not for the biases
            raise
    refused(make_cell, call, ValueError, ["Wrx is missing"])


@cases(
    (setting("weight_hh_l2", zeros(12, 4)), AttributeError,
     "the model has no parameter 'weight_hh_l2'", "weight_ih_l0", "bias_hh_l1"),
    (setting("weight_ih", zeros(12, 3)), AttributeError, "the model has no parameter 'weight_ih'"),
    (lambda g: g.weight_ih_l2, AttributeError, "'GRU' object has no attribute 'weight_ih_l2'"),
    (lambda g: g.bias_ih, AttributeError, "'GRU' object has no attribute 'bias_ih'"),
    (lambda g: g.no_such_name, AttributeError, "'GRU' object has no attribute 'no_such_name'"),
    (loading(weight_hh_l1=None), ValueError,
     "cannot load into GRU: missing key(s): 'weight_hh_l1'"),
    (loading(weight_hh_l2=zeros(12, 4)), ValueError, "unexpected key(s): 'weight_hh_l2'"),
    (loading(weight_ih_l1=zeros(12, 3), bias_hh_l0=zeros(12, 1)), ValueError,
     "size mismatch for weight_ih_l1: got shape (12, 3), the model has (12, 4)",
     "size mismatch for bias_hh_l0: got shape (12, 1), the model has (12,)"),
)
def test_gru_weights(call, error, words):
    refused(make_gru, call, error, words)


@pytest.mark.parametrize("make", [make_cell, make_gru])
@pytest.mark.parametrize("mapping", [None, 3, [zeros(12, 3)], "weights.npz"])
def test_loading_what_is_no_mapping(make, mapping):
    refused(make, lambda model: model.load_state_dict(mapping), TypeError,
            ["Expected state_dict to be dict-like", type(mapping).__name__])


@pytest.mark.parametrize("name", ["bias_ih", "bias_hh", *BLOCKS[6:]])
def test_setting_a_bias_without_bias(name):
    def make():
        return make_cell(bias=False)
    value = zeros(12 if name[:4] == "bias" else 4)
    words = [f"{name} cannot be set: the cell has bias=False"]
    refused(make, setting(name, value), ValueError, words)
    if name in BLOCKS:
        given = {block: GOOD[block] for block in (*BLOCKS[:6], name)}
        refused(make, lambda cell: cell.init_weights(**given), ValueError, words)
    else:
        refused(make, loading(**{name: value}), ValueError, [f"unexpected key(s): '{name}'"])
        refused(lambda: make_gru(bias=False), setting(f"{name}_l0", value), AttributeError,
                [f"the model has no parameter '{name}_l0'"])


# ---- the environment -----------------------------------------------------------------------------

@pytest.mark.parametrize(("variable", "value", "words"), [
    ("GRU_C_ISA", "sse9", "GRU_C_ISA must be 'baseline', 'avx2' or 'avx512', got 'sse9'"),
    ("GRU_C_ISA", "AVX2", "GRU_C_ISA must be 'baseline', 'avx2' or 'avx512', got 'AVX2'"),
    ("GRU_C_ENGINE", "mkl", "GRU_C_ENGINE must be 'panel' or 'blas', got 'mkl'"),
    ("GRU_C_NUM_THREADS", "0", "GRU_C_NUM_THREADS must be a positive integer, got '0'"),
    ("GRU_C_NUM_THREADS", "two", "GRU_C_NUM_THREADS must be a positive integer, got 'two'")])
def test_environment(variable, value, words):
    script = "\n".join([
        "try:",
        "    import gru_c",
        "except ImportError as error:",
        "    frame = error.__traceback__",
        "    while frame.tb_next: frame = frame.tb_next",
        "    print(frame.tb_frame.f_code.co_filename, error, sep='|')"])
    file, message = python(script, **{variable: value}).strip().split("|")
    assert message == words
    assert Path(file) == PACKAGE / "_core" / "__init__.py"


@pytest.mark.parametrize(("value", "error", "words"), SIZES)
def test_num_threads(value, error, words):
    before = gru_c.get_num_threads()
    raises(error, [words], gru_c.set_num_threads, value)
    assert gru_c.get_num_threads() == before


def test_isa_that_the_processor_lacks(monkeypatch):
    monkeypatch.setenv("GRU_C_ISA", "avx512")
    monkeypatch.setattr(_core, "core", types.SimpleNamespace(
        instruction_sets=lambda: ["avx2", "baseline"]))
    raises(ImportError, ["GRU_C_ISA=avx512, but this processor supports only",
                         "['avx2', 'baseline']"], _core._choose_isa)
    monkeypatch.setenv("GRU_C_ISA", "")                    # empty is as if it were not set
    assert _core._choose_isa() == "avx2"
