"""The public interface: names, signatures, shapes, what is a copy, and which inputs are fine.

That numbers are right is tested elsewhere; here results are compared bit for bit with those of the
plainest call.
"""

import contextlib
import inspect
import itertools
from functools import partial
from importlib.metadata import version

import numpy as np
import pytest
from helpers import (
    BLOCKS,
    F32,
    F64,
    INPUTS,
    LAYOUTS,
    STACKED,
    everything,
    normal,
    python,
    read_only,
    same,
    train_once,
)

import gru_c

both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
both_kinds = pytest.mark.parametrize("kind", [gru_c.GRUCell, gru_c.GRU])


# ---- names and signatures ------------------------------------------------------------------------

def test_names():
    assert set(gru_c.__all__) >= {"GRU", "GRUCell", "complexity", "show_config", "__version__",
                                  "set_num_threads", "get_num_threads", "pad_sequences",
                                  "unpad_sequences"}
    assert all(hasattr(gru_c, name) for name in gru_c.__all__)
    assert gru_c.__version__ == version("gru-c")


def test_subpackages_are_imported_when_they_are_asked_for():
    assert python("import sys, gru_c\n"
                  "assert not {'gru_c.interop', 'gru_c.learn'} & set(sys.modules)\n"
                  "gru_c.interop.read_arrays, gru_c.learn.fit, gru_c.datasets.load_digits") == ""
    with pytest.raises(AttributeError, match="module 'gru_c' has no attribute 'learning'"):
        gru_c.learning  # noqa: B018


@pytest.mark.parametrize(("function", "expected"), [
    (gru_c.GRUCell, "input_size, hidden_size, bias=True, dtype=float32, reset_after=True, "
                    "rng=None, activation=tanh, recurrent_activation=sigmoid, clip=None"),
    (gru_c.GRUCell.forward, "x, h_prev_t=None, out=None"),
    (gru_c.GRUCell.__call__, "x, h_prev_t=None, out=None"),
    (gru_c.GRUCell.backward, "delta"),
    (gru_c.GRUCell.load_state_dict, "mapping"),
    (gru_c.GRU, "input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, "
                "bidirectional=False, dtype=float32, reset_after=True, rng=None, "
                "input_dropout=0.0, recurrent_dropout=0.0, activation=tanh, "
                "recurrent_activation=sigmoid, clip=None, checkpoint=None"),
    (gru_c.GRU.forward, "x, h_0=None, lengths=None, mask=None, resets=None, dropout_masks=None, "
                        "return_output=True, out=None, h_n_out=None"),
    (gru_c.GRU.__call__, "x, h_0=None, lengths=None, mask=None, resets=None, dropout_masks=None, "
                         "return_output=True, out=None, h_n_out=None"),
    (gru_c.GRU.backward, "d_output, d_h_n=None, accumulate=False, need_dx=True, need_grads=True"),
    (gru_c.GRU.load_state_dict, "mapping"),
    (gru_c.GRU.quantize, "weights, x_bits=None"),
], ids=lambda value: getattr(value, "__qualname__", ""))
def test_signatures(function, expected):
    found = {name: parameter for name, parameter in inspect.signature(function).parameters.items()
             if name != "self"}
    assert {p.kind for p in found.values()} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert ", ".join(name if p.default is p.empty else
                     f"{name}={getattr(p.default, '__name__', p.default)}"
                     for name, p in found.items()) == expected


def test_signatures_with_room():
    assert list(inspect.signature(gru_c.GRU.step).parameters)[1:] == ["x_t", "h", "out"]
    assert list(inspect.signature(gru_c.GRUCell.init_weights).parameters)[1:] == list(BLOCKS)


def test_positional_arguments():
    cell = gru_c.GRUCell(3, 4, False, F64, False, 7)
    assert repr(cell) == "GRUCell(3, 4, bias=False, dtype=float64, reset_after=False)"
    gru = gru_c.GRU(3, 4, 2, False, True, 0.0, False, F64, False, 7)
    assert repr(gru) == ("GRU(3, 4, num_layers=2, bias=False, batch_first=True, dtype=float64, "
                         "reset_after=False)")
    assert repr(gru_c.GRUCell(3, 4)) == "GRUCell(3, 4, bias=True, dtype=float32, reset_after=True)"
    assert repr(gru_c.GRU(3, 4)) == ("GRU(3, 4, num_layers=1, bias=True, batch_first=False, "
                                     "dtype=float32, reset_after=True)")


@pytest.mark.parametrize(("options", "text"), [
    ({"bidirectional": True}, ", bidirectional=True"),
    ({"dropout": 0.25}, ", dropout=0.25"),
    ({"input_dropout": 1, "recurrent_dropout": 0.5}, ", input_dropout=1.0, recurrent_dropout=0.5"),
    ({"bidirectional": False, "dropout": 0, "input_dropout": 0.0, "recurrent_dropout": 0}, ""),
    ({"recurrent_dropout": 0.5, "activation": "relu", "bidirectional": True},
     ", bidirectional=True, recurrent_dropout=0.5, activation='relu'"),
    ({"checkpoint": 3, "clip": 5, "dropout": 0.5}, ", dropout=0.5, clip=5.0, checkpoint=3"),
], ids=str)
def test_repr_of_options(options, text):
    assert repr(gru_c.GRU(3, 4, 2, **options)) == repr(gru_c.GRU(3, 4, 2))[:-1] + text + ")"


@both_kinds
def test_attributes(kind):
    model = kind(np.int64(3), np.uint8(4), bias=np.True_, dtype="float64", reset_after=False)
    assert (model.input_size, model.hidden_size) == (3, 4)
    assert (model.bias, model.reset_after, model.dtype) == (True, False, F64)
    assert {type(model.input_size), type(model.hidden_size)} == {int}
    assert {type(model.bias), type(model.reset_after)} == {bool}
    assert model.training is True
    assert model.eval() is model
    assert model.training is False
    assert model.train() is model
    assert model.training is True
    assert model.train(False) is model
    assert model.training is False


@pytest.mark.parametrize("dtype", ["float32", "f4", "<f4", np.float32, np.dtype("f4"), "float64",
                                   "d", float, np.dtype(float)])
def test_ways_to_say_a_dtype(dtype):
    for kind in (gru_c.GRUCell, gru_c.GRU):
        model = kind(3, 4, dtype=dtype)
        assert model.dtype == np.dtype(dtype)
        assert {w.dtype for w in model.state_dict().values()} == {np.dtype(dtype)}


# ---- parameters ----------------------------------------------------------------------------------

@pytest.mark.parametrize("bias", [True, False])
def test_parameters(dtype, bias):
    cell = gru_c.GRUCell(3, 4, bias=bias, dtype=dtype)
    shapes = {"weight_ih": (12, 3), "weight_hh": (12, 4)}
    if bias:
        shapes |= {"bias_ih": (12,), "bias_hh": (12,)}
    assert {name: w.shape for name, w in cell.state_dict().items()} == shapes
    assert list(cell.state_dict()) == list(shapes)
    for name in STACKED:
        if name in shapes:
            np.testing.assert_array_equal(getattr(cell, name), cell.state_dict()[name])
        else:
            assert getattr(cell, name) is None
    for name in BLOCKS:
        if name[0] == "W":
            assert getattr(cell, name).shape == ((4, 3) if name[2] == "x" else (4, 4))
        else:
            assert getattr(getattr(cell, name), "shape", None) == ((4,) if bias else None)

    gru = gru_c.GRU(3, 4, num_layers=3, bias=bias, dtype=dtype)
    layers = {f"{name}_l{layer}": (12, 4) if layer and name == "weight_ih" else shape
              for layer in range(3) for name, shape in shapes.items()}
    assert {name: w.shape for name, w in gru.state_dict().items()} == layers
    assert list(gru.state_dict()) == list(layers)
    for name in layers:
        np.testing.assert_array_equal(getattr(gru, name), gru.state_dict()[name])
    for model in (cell, gru):
        assert {w.dtype for w in model.state_dict().values()} == {np.dtype(dtype)}


@pytest.mark.parametrize("make", [
    lambda **options: gru_c.GRUCell(20, 25, **options),
    lambda **options: gru_c.GRU(20, 25, num_layers=2, **options)], ids=["GRUCell", "GRU"])
def test_new_weights(make, dtype):
    def weights(**options):
        return list(make(dtype=dtype, **options).state_dict().values())

    def differ(a, b):
        return all(not np.array_equal(*pair) for pair in zip(a, b, strict=True))

    same(weights(rng=3), weights(rng=3))
    same(weights(rng=3), weights(rng=np.random.default_rng(3)))
    same(weights(rng=[3]), weights(rng=np.random.SeedSequence([3])))
    assert differ(weights(rng=3), weights(rng=4))
    assert differ(weights(), weights())
    rng = np.random.default_rng(3)
    first, second = weights(rng=rng), weights(rng=rng)      # a Generator is used on, not restarted
    assert differ(first, second)
    bound = dtype(1 / np.sqrt(25))
    everything = np.concatenate([w.ravel() for w in first + second])
    assert np.abs(everything).max() <= bound
    assert np.abs(everything).max() > 0.999 * bound
    assert abs(everything.mean()) < 0.02 * bound
    assert abs(everything.var() / (bound**2 / 3) - 1) < 0.05
    wide = make(rng=3, dtype=F64).state_dict().values()    # float32 weights are these, rounded
    same(weights(rng=3), [w.astype(dtype) for w in wide])


# ---- shapes --------------------------------------------------------------------------------------

@both_modes
@pytest.mark.parametrize("rows", [None, 0, 1, 2, 50])
@pytest.mark.parametrize("bias", [True, False])
def test_cell_shapes(rows, bias, dtype, training):
    cell = gru_c.GRUCell(3, 4, bias=bias, dtype=dtype).train(training)
    batch = () if rows is None else (rows,)
    x, h, delta = (normal(*batch, size, dtype=dtype) for size in (3, 4, 4))
    for result in (cell(x), cell(x, None), cell(x, h), cell.forward(x, h_prev_t=h)):
        assert type(result) is np.ndarray
        assert result.shape == (*batch, 4)
        assert result.dtype == dtype
        assert result.flags.writeable
    if not training:
        return
    for name, size in (("x", 3), ("hidden", 4), ("r", 4), ("z", 4), ("n", 4)):
        assert getattr(cell, name).shape == (*batch, size)
        assert getattr(cell, name).dtype == dtype
    dx, dh = cell.backward(delta)
    assert (dx.shape, dh.shape) == ((*batch, 3), (*batch, 4))
    assert {dx.dtype, dh.dtype} == {np.dtype(dtype)}
    check_grads(cell, zero=rows == 0)
    for name in BLOCKS:
        gradient, block = getattr(cell, f"d{name}"), getattr(cell, name)
        if block is None:
            assert gradient is None
        else:
            assert gradient.shape == block.shape
    for stack, source in (("ih", "x"), ("hh", "h")):
        same([np.concatenate([getattr(cell, f"dW{gate}{source}") for gate in "rzn"])],
             [cell.grads[f"weight_{stack}"]])
        if bias:
            same([np.concatenate([getattr(cell, f"db{gate}{source}") for gate in "rzn"])],
                 [cell.grads[f"bias_{stack}"]])


def check_grads(model, zero):
    """Names, order, shapes and dtype of the parameters."""
    parameters = model.state_dict()
    assert list(model.grads) == list(parameters)
    for name, gradient in model.grads.items():
        assert gradient.shape == parameters[name].shape
        assert gradient.dtype == parameters[name].dtype
        assert gradient.flags.c_contiguous
        assert np.any(gradient) != zero


@both_modes
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("rows", [None, 0, 1, 2, 50])
def test_gru_shapes(rows, batch_first, layers, dtype, training):
    gru = gru_c.GRU(3, 4, num_layers=layers, batch_first=batch_first, dtype=dtype).train(training)

    def shape(size):
        return (5, size) if rows is None else (
            (rows, 5, size) if batch_first else (5, rows, size))

    state = (layers, 4) if rows is None else (layers, rows, 4)
    x, d_output = (normal(*shape(size), dtype=dtype) for size in (3, 4))
    h_0, d_h_n = normal(*state, dtype=dtype), normal(*state, dtype=dtype, seed=1)
    for args in ((x,), (x, h_0), (x, None, None)):
        output, h_n = gru(*args)
        assert (output.shape, h_n.shape) == (shape(4), state)
        assert {output.dtype, h_n.dtype} == {np.dtype(dtype)}
        last = output[-1] if rows is None or not batch_first else output[:, -1]
        same([h_n[-1]], [last])
        if training:
            for args in ((d_output,), (d_output, d_h_n), (None, d_h_n), (None,)):
                gru(x, h_0)
                dx, dh_0 = gru.backward(*args)
                assert (dx.shape, dh_0.shape) == (x.shape, state)
                assert {dx.dtype, dh_0.dtype} == {np.dtype(dtype)}
                check_grads(gru, zero=rows == 0 or all(arg is None for arg in args))
    stepped = gru.step(x[0] if rows is None else x.swapaxes(0, 1)[0] if batch_first else x[0], h_0)
    assert stepped.shape == state
    assert stepped.dtype == dtype


@both_modes
def test_no_state_of_a_cell_is_zeros(training):
    cell, x, zeros = gru_c.GRUCell(3, 4).train(training), normal(2, 3), np.zeros((2, 4), F32)
    expected = cell(x, zeros)
    same([cell(x)], [expected])
    if training:
        same([cell.hidden], [zeros])


# ---- out= ----------------------------------------------------------------------------------------

@both_modes
@pytest.mark.parametrize("rows", [None, 1, 2, 0])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_out(layout, rows, dtype, training):
    batch = () if rows is None else (rows,)
    cell = gru_c.GRUCell(3, 4, dtype=dtype, rng=0).train(training)
    gru = gru_c.GRU(3, 4, num_layers=2, dtype=dtype, rng=0).train(training)
    x, h, states = (normal(*shape, dtype=dtype) for shape in (
        (*batch, 3), (*batch, 4), (2, *batch, 4)))
    out = layout(np.zeros((*batch, 4), dtype))
    expected = cell(x, h)
    assert cell(x, h, out=out) is out
    np.testing.assert_array_equal(out, expected)
    if training:
        delta = normal(*batch, 4, dtype=dtype, seed=2)
        found = [*cell.backward(delta), *cell.grads.values()]
        out[...] = np.nan
        same([*cell.backward(delta), *cell.grads.values()], found)
        cell(x, h)
        same([*cell.backward(delta), *cell.grads.values()], found)
    out = layout(np.zeros((2, *batch, 4), dtype))
    assert gru.step(x, states, out=out) is out
    np.testing.assert_array_equal(out, gru.step(x, states))


def test_out_writes_nothing_else():
    frame = np.full((6, 12), 7, F32)
    out = frame[2:4, 4:8]
    gru_c.GRUCell(3, 4)(normal(2, 3), out=out)
    assert np.count_nonzero(frame != 7) == out.size
    frame = np.full((5, 6, 12), 7, F32)
    gru_c.GRU(3, 4, num_layers=2).step(normal(2, 3), out=frame[1:3, 2:4, 4:8])
    assert np.count_nonzero(frame != 7) == 16
    for rows in (1, 2, 7):                                 # nothing behind the end of a plain one
        frame = np.full(4 * rows + 64, 7, F32)
        gru_c.GRUCell(3, 4).eval()(normal(rows, 3), out=frame[:4 * rows].reshape(rows, 4))
        np.testing.assert_array_equal(frame[4 * rows:], 7)


@both_modes
@pytest.mark.parametrize("rows", [None, 1, 3, 60, 600])
@pytest.mark.parametrize("size", [1, 4, 16, 17, 100])
def test_out_may_overlap(rows, size, training):
    """`out` is the state, is the input, or lies across both: as if the inputs were read first."""
    batch = () if rows is None else (rows,)
    cell = gru_c.GRUCell(size, size, rng=0).train(training)
    gru = gru_c.GRU(size, size, num_layers=2, rng=0).train(training)
    shape, count = (*batch, size), (rows or 1) * size
    x, h, delta = (normal(*shape, seed=seed) for seed in range(3))
    expected = cell(x, h)
    gradients = cell.backward(delta) if training else ()

    def check(x, h, out):
        assert cell(x, h, out=out) is out
        np.testing.assert_array_equal(out, expected)
        if training:
            same(cell.backward(delta), gradients)

    state, same_x = h.copy(), x.copy()
    check(x, state, state)
    check(same_x, h, same_x)
    state = h.copy()
    check(x, state[::-1][::-1], state[::-1][::-1])
    for offset in (1, count // 2):
        memory = np.zeros(3 * count, F32)
        views = [memory[start:start + count].reshape(shape) for start in (0, offset)]
        views[1][...] = h
        check(x, views[1], views[0])                       # across the state, from below
        views[0][...] = h
        check(x, views[0], views[1])                       # and from above
        views[1][...] = x
        check(views[1], h, views[0])
        views[0][...] = x
        check(views[0], h, views[1])
        backwards = memory[:count][::-1].reshape(shape)
        backwards[...] = x
        check(backwards, h, memory[:count].reshape(shape))

    states = normal(2, *batch, size, seed=5)
    expected = gru.step(x, states)
    in_out = states.copy()
    assert gru.step(x, in_out, out=in_out) is in_out
    same([in_out], [expected])
    in_out = states.copy()
    gru.step(x, in_out[::-1][::-1], out=in_out)
    same([in_out], [expected])
    memory = np.zeros((3, *batch, size), F32)
    memory[0], memory[1:] = x, states
    gru.step(memory[0], memory[1:], out=memory[:2])
    same([memory[:2]], [expected])


# ---- what a forward leaves -----------------------------------------------------------------------

@pytest.mark.parametrize("rows", [None, 2])
@pytest.mark.parametrize("reset_after", [True, False])
def test_what_the_cell_remembers(rows, reset_after):
    batch = () if rows is None else (rows,)
    cell = gru_c.GRUCell(3, 4, dtype=F64, reset_after=reset_after, rng=0)
    x, h, delta = (normal(*batch, size, dtype=F64) for size in (3, 4, 4))
    names = ("x", "hidden", "r", "z", "n")
    cell(x, h)

    def remembered():
        return [getattr(cell, name) for name in names]

    kept = remembered()
    same(kept[:2], [x, h])
    copies = [array.copy() for array in kept]
    gradients = [*cell.backward(delta), *cell.grads.values()]
    same(remembered(), copies)                             # a backward spoils nothing
    same([*cell.backward(delta), *cell.grads.values()], gradients)
    for array in kept:                                     # they are the user's own
        array[...] = np.nan
    same(remembered(), copies)
    same([*cell.backward(delta), *cell.grads.values()], gradients)
    kept = remembered()
    cell(x * 2, h * 3)                                     # and not a window on what comes
    same(kept, copies)
    same([cell.x, cell.hidden], [x * 2, h * 3])
    for name in names:
        with pytest.raises(AttributeError):
            setattr(cell, name, np.zeros(4))
    cell.eval()(x, h)
    with pytest.raises(RuntimeError, match="no r yet"):
        _ = cell.r


def test_a_backward_of_a_cell_may_be_repeated():
    cell, delta = gru_c.GRUCell(3, 4), normal(2, 4)
    cell(normal(2, 3))
    first = cell.backward(delta)
    same(cell.backward(2 * delta), [2 * d for d in first])
    same(cell.backward(delta), first)


def test_a_backward_keeps_the_layout_of_its_forward():
    """Another batch_first in between is refused, or has to wait for the next forward."""
    gru, twin = gru_c.GRU(3, 4, rng=0), gru_c.GRU(3, 4, rng=0)
    x, delta = normal(4, 5, 3), normal(4, 5, 4)
    gru(x)
    twin(x)
    with contextlib.suppress(AttributeError):
        gru.batch_first = True
    same(gru.backward(delta), twin.backward(delta))


def test_step_leaves_the_tape_alone():
    gru, twin = gru_c.GRU(3, 4, rng=0), gru_c.GRU(3, 4, rng=0)
    x, delta = normal(5, 2, 3), normal(5, 2, 4)
    gru(x)
    twin(x)
    for _ in range(3):
        gru.step(normal(2, 3))
        gru.step(normal(7, 3))
    same(gru.backward(delta), twin.backward(delta))


@both_kinds
def test_the_caller_may_reuse_arrays(kind):
    """Between forward and backward, everything that went in or came out may be overwritten."""
    lead = (2,) if kind is gru_c.GRUCell else (5, 2)
    state = (2, 4) if kind is gru_c.GRUCell else (1, 2, 4)
    gradients = []
    for overwrite in (False, True):
        model = kind(3, 4, rng=0)
        x, h, delta = normal(*lead, 3), normal(*state), normal(*lead, 4)
        results = model(x, h)
        if overwrite:
            for array in (x, h, *results):
                array[...] = np.nan
        found = [*model.backward(delta), *model.grads.values()]
        kept = [array.copy() for array in found]
        delta[...] = np.nan
        same(found, kept)
        gradients.append(found)
    same(*gradients)


@both_kinds
@both_modes
def test_results_never_change_later(kind, training):
    model = kind(3, 4, rng=0).train(training)
    lead = (2,) if kind is gru_c.GRUCell else (5, 2)
    results, inputs = [], []

    def keep(*arrays):
        results.extend((array, array.copy()) for array in arrays)

    for seed in range(4):
        x, delta = normal(*lead, 3, seed=seed), normal(*lead, 4, seed=seed)
        inputs += [x, delta]
        found = model(x)
        keep(*([found] if kind is gru_c.GRUCell else found))
        if training:
            keep(*model.backward(delta), *model.grads.values())
        if kind is gru_c.GRU:
            keep(model.step(x[0]))
    for array, copied in results:
        np.testing.assert_array_equal(array, copied)
    arrays = [array for array, _ in results]
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(arrays + inputs, 2))


# Each with the shapes of what `everything` takes, i inputs and m hidden units.
MODELS = {
    "cell": (gru_c.GRUCell, {}, lambda i, m: [(3, i), (3, m), (3, m)]),
    "cell unbatched": (gru_c.GRUCell, {}, lambda i, m: [(i,), (m,), (m,)]),
    "one layer": (gru_c.GRU, {}, lambda i, m: [(5, 3, i), (1, 3, m), (5, 3, m), (1, 3, m)]),
    "layers": (gru_c.GRU, {"num_layers": 2},
               lambda i, m: [(5, 3, i), (2, 3, m), (5, 3, m), (2, 3, m)]),
    "unbatched": (gru_c.GRU, {"num_layers": 2},
                  lambda i, m: [(5, i), (2, m), (5, m), (2, m)]),
    "batch_first": (gru_c.GRU, {"num_layers": 2, "batch_first": True},
                    lambda i, m: [(3, 5, i), (2, 3, m), (3, 5, m), (2, 3, m)]),
    "one row": (gru_c.GRU, {"num_layers": 2, "batch_first": True},
                lambda i, m: [(1, 5, i), (2, 1, m), (1, 5, m), (2, 1, m)]),
}
models = pytest.mark.parametrize(("make", "shapes"), [
    pytest.param(partial(kind, rng=0, **options), shapes, id=name)
    for name, (kind, options, shapes) in MODELS.items()])
HOLDERS = {
    "the dict": lambda model: model.grads,
    "the arrays": lambda model: list(model.grads.values()),
    "views": lambda model: [gradient[1:] for gradient in model.grads.values()],
    "buffers": lambda model: [memoryview(gradient) for gradient in model.grads.values()],
}


def differentiated(model, shapes, seed):
    """The model after a forward and a backward of numbers that depend on the seed."""
    x, h, *deltas = (normal(*shape, seed=seed) for shape in shapes(3, 4))
    train_once(model, x, *deltas, h=h)
    return model


@models
def test_the_memory_of_gradients_is_used_again(make, shapes):
    """Where nobody holds them, and with the values that a new model gives."""
    model, addresses = make(3, 4), set()
    for seed in range(3):
        differentiated(model, shapes, seed)
        addresses.add(tuple(gradient.ctypes.data for gradient in model.grads.values()))
        same(model.grads.values(), differentiated(make(3, 4), shapes, seed).grads.values())
    assert len(addresses) == 1


@models
@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_gradients_that_somebody_holds_are_left_alone(make, shapes, hold):
    model = differentiated(make(3, 4), shapes, 0)
    before = {name: gradient.copy() for name, gradient in model.grads.items()}
    held = hold(model)
    differentiated(model, shapes, 1)
    held = list(held.values() if isinstance(held, dict) else held)
    for array, old in zip(held, before.values(), strict=True):
        same([np.asarray(array)], [old[-len(array):]])


@models
@pytest.mark.parametrize("change", [
    lambda a: a.astype(F64), lambda a: a[:-1].copy(), lambda a: np.asfortranarray(a)[::-1],
    lambda a: np.concatenate([a, a])[: len(a)], read_only, lambda a: a.tolist(), lambda _: None,
], ids=["dtype", "shape", "order", "a view", "read-only", "a list", "none"])
def test_what_else_stands_in_grads_is_left_alone(make, shapes, change):
    """The dict is the caller's, who may put in what the core cannot or must not write to."""
    model, behind = differentiated(make(3, 4), shapes, 0), []
    for name, gradient in model.grads.items():
        model.grads[name] = change(gradient)
        behind.append(getattr(model.grads[name], "base", None))
    kept = [None if base is None else base.copy() for base in behind]
    same(differentiated(model, shapes, 1).grads.values(),
         differentiated(make(3, 4), shapes, 1).grads.values())
    for base, copied in zip(behind, kept, strict=True):
        np.testing.assert_array_equal(base, copied)


# ---- inputs --------------------------------------------------------------------------------------

@pytest.mark.parametrize("layout", INPUTS.values(), ids=INPUTS)
@models
@pytest.mark.parametrize(("sizes", "dtype", "reset_after"), [
    ((3, 4), F32, True), ((3, 4), F64, False), ((1, 1), F32, True), ((1, 17), F64, True),
    ((33, 1), F32, False)])
def test_layouts_give_the_same_bits(layout, make, shapes, sizes, dtype, reset_after):
    plain = [normal(*shape, dtype=dtype, seed=seed) for seed, shape in enumerate(shapes(*sizes))]
    converted = [layout(array) for array in plain]
    copies = [np.array(array) for array in converted]
    model = make(*sizes, dtype=dtype, reset_after=reset_after)
    same(everything(model, *converted), everything(model, *plain))
    same([np.array(array) for array in converted], copies)   # nothing was written to
    if isinstance(model, gru_c.GRU) and model.batch_first is False:
        x, h = plain[:2]
        same([model.step(layout(x[0]), layout(h))], [model.step(x[0], h)])


@models
def test_broadcast_arrays_give_the_same_bits(make, shapes):
    """Strides of zero, along each axis and all."""
    for axis in (0, 1, 2, None):
        broadcast = []
        for shape in shapes(3, 4):
            small = [1] * len(shape) if axis is None else [
                1 if i == axis else extent for i, extent in enumerate(shape)]
            broadcast.append(np.broadcast_to(normal(*small), shape))
        plain = [np.array(array, order="C") for array in broadcast]
        same(everything(make(3, 4), *broadcast), everything(make(3, 4), *plain))


@models
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint32", "int64", ">i4"])
def test_integers_convert(make, shapes, dtype):
    arrays = [np.arange(np.prod(shape)).reshape(shape) % 5 for shape in shapes(3, 4)]
    arrays = [array.astype(dtype) for array in arrays]
    expected = everything(make(3, 4), *(array.astype(F32) for array in arrays))
    same(everything(make(3, 4), *arrays), expected)
    same(everything(make(3, 4), *(array.tolist() for array in arrays)), expected)


def test_python_numbers_convert(dtype):
    cell = gru_c.GRUCell(3, 2, dtype=dtype, rng=0)
    expected = cell(np.array([1, 0.1, 2], dtype), np.array([0.3, 1], dtype))
    assert expected.dtype == dtype
    same([cell([1, 0.1, 2], (0.3, True))], [expected])
    same([cell([np.int64(1), np.float64(0.1), 2])], [cell(np.array([1, 0.1, 2], dtype))])
    same([cell([np.float32(1), 0.1, np.uint8(2)])], [cell(np.array([1, 0.1, 2], dtype))])
    same([cell([[1, 0.1, 2]], [[0.3, 1]])[0]], [expected])
    same(cell.backward([[1, 0.5]]), cell.backward(np.array([[1, 0.5]], dtype)))


# ---- show_config and threads ---------------------------------------------------------------------

def test_show_config(capsys):
    assert gru_c.show_config() is None
    printed, error = capsys.readouterr()
    assert error == ""
    lines = {line[:18].strip(): line[18:] for line in printed.splitlines()}
    assert lines["gru_c"] == gru_c.__version__
    assert lines["instruction set"] in ("baseline", "avx2", "avx512")
    assert lines["instruction set"] in lines["instruction sets"].split(", ")
    assert lines["engine"] in ("panel", "blas")
    assert lines["int8"] in ("avx512vnni", "avxvnni", "avx2", "baseline")
    assert lines["bfloat16"] in ("avx512bf16", "as float32")
    assert int(lines["threads"]) == gru_c.get_num_threads() >= 1
    assert lines["BLAS"].strip()
    assert lines["BLAS threads"] == "unknown" or int(lines["BLAS threads"]) >= 1
    assert lines["BLAS integers"] in ("32 bits", "64 bits")
    assert lines["numpy"] == np.__version__
    threadpoolctl = pytest.importorskip("threadpoolctl")
    if lines["BLAS threads"] != "unknown":
        pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()
                 if pool["user_api"] == "blas"]
        assert int(lines["BLAS threads"]) in pools


def test_num_threads(set_threads):
    for count in (1, 2, np.int64(3)):
        assert set_threads(count) is None
        assert gru_c.get_num_threads() == count
        assert type(gru_c.get_num_threads()) is int
