"""Never a stale weight: what a user does to a weight takes effect, or Python or NumPy refuses it.

The common check is `true_to_its_weights`: a model computes, forward and backward, the same bits as
a fresh model that was given what the model says its weights are.
"""

import contextlib
import copy
import ctypes
import gc
import pickle
import threading
import time

import numpy as np
import pytest
import scipy.linalg
from helpers import BLOCKS, INPUTS, STACKED, at_once, equal, everything, same

import gru_c

both_kinds = pytest.mark.parametrize("kind", [gru_c.GRUCell, gru_c.GRU])
LAYERED = tuple(f"{name}_l{layer}" for layer in range(2) for name in STACKED)


def make(kind, **options):
    if kind is gru_c.GRU:
        options = {"num_layers": 2} | options
    return kind(3, 4, **{"dtype": np.float64, "rng": 0} | options)


def run(model):
    """All that a forward and a backward say."""
    lead, layers = ((2,), ()) if isinstance(model, gru_c.GRUCell) else ((5, 2), (model.num_layers,))
    rng = np.random.default_rng(1)
    x, h, delta = (rng.normal(size=shape).astype(model.dtype)
                   for shape in ((*lead, 3), (*layers, 2, 4), (*lead, 4)))
    return [result.copy() for result in everything(model, x, h, delta)]


def different(found, expected):
    return any(not equal(a, b) for a, b in zip(found, expected, strict=True))


def true_to_its_weights(model):
    layers = {"num_layers": model.num_layers} if isinstance(model, gru_c.GRU) else {}
    fresh = make(type(model), rng=99, bias=model.bias, dtype=model.dtype,
                 reset_after=model.reset_after, **layers)
    fresh.load_state_dict({name: np.array(w) for name, w in model.state_dict().items()})
    same(run(model), run(fresh))


def routes(model):
    """(name, how a user gets hold of it) for each parameter and block."""
    names = (*STACKED, *BLOCKS) if isinstance(model, gru_c.GRUCell) else LAYERED
    for name in names:
        yield name, lambda name=name: getattr(model, name)
    for name in model.state_dict():
        yield name, lambda name=name: model.state_dict()[name]


# ---- edits in place: all refused -----------------------------------------------------------------

@both_kinds
def test_no_owner_of_the_memory_is_writable(kind):
    """No way up the chain of owners leads to memory that can be written to. NumPy and Python do
    the rest: all edits in place that ask are refused."""
    model = make(kind)
    for _, get in routes(model):
        owner, levels = get(), 0
        while owner is not None:
            levels += 1
            if isinstance(owner, np.ndarray):
                with pytest.raises(ValueError, match="read-only"):
                    owner[...] = 7
                with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
                    owner.flags.writeable = True
            with pytest.raises(TypeError):
                memoryview(owner).cast("B")[0] = 7
            with pytest.raises(ValueError, match="read-only"):
                np.frombuffer(owner, np.uint8)[0] = 7
            assert memoryview(memoryview(owner).obj).readonly
            owner = getattr(owner, "base", None)
        assert levels >= 2
    true_to_its_weights(model)


UNCHECKED = {
    "np.add.at": lambda w: np.add.at(w.reshape(-1), [0, 1], 7),
    "dscal": lambda w: scipy.linalg.blas.dscal(7, w.reshape(-1)),
    "memset": lambda w: ctypes.memset(w.ctypes.data, 7, w.nbytes),
}


@pytest.mark.parametrize("edit", UNCHECKED.values(), ids=UNCHECKED)
@pytest.mark.parametrize("backward_first", [True, False])
@both_kinds
def test_what_writes_without_asking(kind, backward_first, edit):
    """NumPy's ufunc.at (seen in 2.4) and SciPy's wrappers of BLAS and LAPACK do not look at the
    flag of an array that they write to. So the memory of the model must be out of reach: what it
    shows as its weights is what it computes with, in the forward and in the backward."""
    model = make(kind)
    if backward_first:
        run(model)
    for _, get in routes(model):
        with contextlib.suppress(ValueError):              # where it does look
            edit(get())
    true_to_its_weights(model)
    model = make(kind)
    held = [get() for _, get in routes(model)]
    for w in held:
        with contextlib.suppress(ValueError):
            edit(w)
    true_to_its_weights(model)
    true_to_its_weights(pickle.loads(pickle.dumps(model)))


ITSELF = {
    "__setstate__": lambda w: w.__setstate__(
        (1, w.shape, w.dtype, False, np.full(w.shape, 7, w.dtype).tobytes())),
    "dtype =": lambda w: setattr(w, "dtype", w.dtype.newbyteorder()),
    "shape =": lambda w: setattr(w, "shape", (w.size, 1)),
    "strides =": lambda w: setattr(w, "strides", (0,) * w.ndim),
}


@pytest.mark.parametrize("edit", ITSELF.values(), ids=ITSELF)
@both_kinds
@pytest.mark.filterwarnings("ignore::DeprecationWarning")            # of NumPy 2.4 and later
def test_what_an_array_object_does_to_itself(kind, edit):
    """These change an array object and no memory: the model must not share its own objects."""
    model = make(kind)
    before, results = model.state_dict(), run(model)
    before = {key: np.array(w) for key, w in before.items()}
    for _, get in routes(model):
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            edit(get())
        same(model.state_dict().values(), before.values())
    same(run(model), results)
    true_to_its_weights(model)


@both_kinds
def test_editing_the_dict_says_nothing_to_the_model(kind):
    model = make(kind)
    before = run(model)
    state = model.state_dict()
    for name in list(state):
        state[name] = np.full(state[name].shape, 7.0)
        del state[name]
    same(run(model), before)
    true_to_its_weights(model)


# ---- assignment, load_state_dict, init_weights: effect, exact, by copy ---------------------------

@pytest.mark.parametrize(("kind", "name"), [
    *((gru_c.GRUCell, name) for name in STACKED + BLOCKS),
    *((gru_c.GRU, name) for name in LAYERED)])
@pytest.mark.parametrize("options", [
    {}, {"dtype": np.float32}, {"reset_after": False}], ids=["float64", "float32", "Cho"])
def test_assignment_takes_effect(kind, name, options):
    model = make(kind, **options)
    before, old = run(model), {key: np.array(w) for key, w in model.state_dict().items()}
    value = np.array(getattr(model, name)) + 0.5
    setattr(model, name, value)
    np.testing.assert_array_equal(getattr(model, name), value)
    assert different(run(model), before)
    true_to_its_weights(model)
    if name in BLOCKS:                                     # and nothing else changed
        stack = ("weight_" if name[0] == "W" else "bias_") + ("ih" if name[2] == "x" else "hh")
        old[stack].reshape(3, 4, -1)["rzn".index(name[1])] += 0.5
    else:
        old[name] += 0.5
    same(model.state_dict().values(), old.values())


@pytest.mark.parametrize("convert", INPUTS.values(), ids=INPUTS)
@both_kinds
def test_what_can_be_loaded(kind, dtype, convert):
    source, model = make(kind, rng=5, dtype=dtype), make(kind, dtype=dtype)
    model.load_state_dict({name: convert(w) for name, w in source.state_dict().items()})
    same(model.state_dict().values(), source.state_dict().values())
    same(run(model), run(source))
    model = make(kind, dtype=dtype)
    for name, w in source.state_dict().items():
        setattr(model, name, convert(w))
    same(run(model), run(source))
    for w in model.state_dict().values():
        assert type(w) is np.ndarray
        assert w.flags.c_contiguous
        assert w.dtype == dtype


def test_integers_are_converted():
    cell = make(gru_c.GRUCell)
    cell.Wrx = np.arange(12).reshape(4, 3)
    cell.bnh = [1, 2, 3, True]
    np.testing.assert_array_equal(cell.Wrx, np.arange(12.0).reshape(4, 3))
    np.testing.assert_array_equal(cell.bnh, [1.0, 2.0, 3.0, 1.0])
    true_to_its_weights(cell)


def assign(model, weights):
    for name, w in weights.items():
        setattr(model, name, w)


@pytest.mark.parametrize(("kind", "names", "load"), [
    (gru_c.GRUCell, STACKED, gru_c.GRUCell.load_state_dict), (gru_c.GRUCell, STACKED, assign),
    (gru_c.GRU, LAYERED, gru_c.GRU.load_state_dict), (gru_c.GRU, LAYERED, assign),
    (gru_c.GRUCell, BLOCKS, assign),
    (gru_c.GRUCell, BLOCKS, lambda cell, blocks: cell.init_weights(**blocks)),
    (gru_c.GRUCell, BLOCKS, lambda cell, blocks: cell.init_weights(*blocks.values()))])
def test_the_source_may_change_afterwards(kind, names, load):
    other, model = make(kind, rng=5), make(kind)
    source = {name: np.array(getattr(other, name)) for name in names}
    load(model, source)
    for w in source.values():
        w[...] = np.nan
    same(model.state_dict().values(), other.state_dict().values())
    same(run(model), run(other))


def test_init_weights_without_bias():
    other = make(gru_c.GRUCell, bias=False, rng=5)
    for biases in ([], [None] * 6):
        cell = make(gru_c.GRUCell, bias=False)
        cell.init_weights(*(getattr(other, name) for name in BLOCKS[:6]), *biases)
        same(run(cell), run(other))


def test_views_taken_earlier_keep_the_old_weights():
    """A weight read before an assignment is a record of what was, not a window."""
    cell = make(gru_c.GRUCell)
    old, block, state = cell.weight_hh, cell.Wrh, cell.state_dict()
    values = np.array(old)
    cell.weight_hh = np.zeros((12, 4))
    gc.collect()
    for found in (old, state["weight_hh"]):
        np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(block, values[:4])
    cell.load_state_dict(state)
    np.testing.assert_array_equal(cell.weight_hh, values)


@pytest.mark.parametrize(("name", "value"), [
    ("input_size", 2), ("hidden_size", 2), ("bias", False), ("dtype", np.dtype(np.float32)),
    ("reset_after", False), ("num_layers", 3)])
@both_kinds
def test_what_the_packed_weights_are_for_cannot_change(kind, name, value):
    """The core runs what was packed; another value could only be ignored, or read past the end."""
    model = make(kind)
    if name == "num_layers" and kind is gru_c.GRUCell:
        assert not hasattr(model, name)
        return
    before, shown = run(model), repr(model)
    with pytest.raises(AttributeError):
        setattr(model, name, value)
    assert repr(model) == shown
    same(run(model), before)


@pytest.mark.parametrize("name", ["Wrx", "bnh", "weight_ih", "dWrx"])
def test_a_weight_of_the_cell_cannot_be_deleted(name):
    cell = make(gru_c.GRUCell)
    before = run(cell)
    with pytest.raises(AttributeError):
        delattr(cell, name)
    same(run(cell), before)


# ---- gradients -----------------------------------------------------------------------------------

def test_gradients_are_the_users_own():
    """Clipping in place is what gradients are for; it reaches no weight and no later gradient."""
    for kind in (gru_c.GRUCell, gru_c.GRU):
        model = make(kind)
        before = run(model)
        for gradient in model.grads.values():
            gradient *= 1e9
        if kind is gru_c.GRUCell:
            gradient = cell_gradient = model.dWrh
            gradient[...] = 3
            np.testing.assert_array_equal(model.grads["weight_hh"][:4], 3)
            assert np.shares_memory(cell_gradient, model.grads["weight_hh"])
        kept = {name: gradient.copy() for name, gradient in model.grads.items()}
        held = model.grads
        same(run(model), before)
        same(held.values(), kept.values())                 # a later backward made new arrays
        true_to_its_weights(model)


def test_gradients_cannot_be_assigned_to_the_cell():
    cell = make(gru_c.GRUCell)
    run(cell)
    for name in BLOCKS:
        with pytest.raises(AttributeError):
            setattr(cell, f"d{name}", getattr(cell, f"d{name}"))


# ---- between forward and backward ----------------------------------------------------------------

def change_all(model):
    model.load_state_dict({name: np.array(w) * 3 + 1 for name, w in model.state_dict().items()})


def change_one(model):
    name = next(iter(model.state_dict()))
    setattr(model, name, np.array(model.state_dict()[name]) + 1)


MODELS = {
    "cell": (gru_c.GRUCell, {}), "cell, Cho": (gru_c.GRUCell, {"reset_after": False}),
    "one layer": (gru_c.GRU, {"num_layers": 1}), "layers": (gru_c.GRU, {}),
}


@pytest.mark.parametrize("change", [change_all, change_one])
@pytest.mark.parametrize(("kind", "options"), MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("packed", [False, True], ids=["packed late", "packed before"])
@pytest.mark.parametrize("convert", [np.asarray, np.ndarray.tolist], ids=["array", "list"])
def test_backward_uses_the_weights_of_its_forward(kind, options, change, packed, convert):
    """Also where a backward has not packed them yet, and on the way of arrays that are checked.
    The twin's weights stay."""
    model, twin = make(kind, **options), make(kind, **options)
    rng = np.random.default_rng(3)
    lead = (2,) if kind is gru_c.GRUCell else (5, 2)
    x, delta = rng.normal(size=(*lead, 3)), rng.normal(size=(*lead, 4))
    for each in (model, twin):
        if packed:
            each(x)
            each.backward(delta)
        each(x)
    change(model)
    same(model.backward(convert(delta)), twin.backward(delta))
    same(model.grads.values(), twin.grads.values())
    true_to_its_weights(model)


# ---- copies --------------------------------------------------------------------------------------

COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy}
COPIES |= {f"pickle {protocol}": lambda model, protocol=protocol: pickle.loads(
    pickle.dumps(model, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
@both_kinds
@pytest.mark.parametrize("options", [
    {}, {"dtype": np.float32}, {"bias": False, "reset_after": False}],
    ids=["float64", "float32", "no bias"])
def test_copies_are_exact_and_independent(kind, options, duplicate):
    model = make(kind, **options)
    before = run(model)
    twin = duplicate(model)
    assert repr(twin) == repr(model)
    assert twin.training is model.training
    same(twin.state_dict().values(), model.state_dict().values())
    same(run(twin), before)
    for w in twin.state_dict().values():
        assert not w.flags.writeable
        assert w.base is not None
        assert not w.base.flags.writeable
    change_all(twin)
    assert different(run(twin), before)
    same(run(model), before)
    change_all(model)
    same(run(model), run(twin))
    true_to_its_weights(twin)


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
@both_kinds
def test_a_copy_has_no_tape(kind, duplicate):
    """So that two models never share buffers; the mode goes along."""
    model = make(kind)
    model(np.ones((2, 3)))
    twin = duplicate(model)
    with pytest.raises(RuntimeError, match="needs a forward"):
        twin.backward(np.ones((2, 4)))
    twin(np.zeros((2, 3)))
    fresh = make(kind)
    fresh(np.ones((2, 3)))
    same(model.backward(np.ones((2, 4))), fresh.backward(np.ones((2, 4))))
    with pytest.raises(RuntimeError, match="no gradients yet"):
        _ = duplicate(model).grads
    assert duplicate(model.eval()).training is False


# ---- threads -------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["load_state_dict", "attribute"])
@both_kinds
def test_new_weights_while_others_compute(kind, how):
    """Each result belongs to one of the two sets of weights, never to a mix."""
    shape = (40, 30) if kind is gru_c.GRUCell else (12, 5, 30)
    x = np.random.default_rng(2).normal(size=shape)
    model, other = (kind(30, 50, rng=seed, dtype=np.float64).eval() for seed in (0, 1))
    if how == "attribute":                                 # one assignment is one step
        name = next(iter(model.state_dict()))
        changed = model.state_dict() | {name: other.state_dict()[name]}
        other.load_state_dict(changed)
    sets = [model.state_dict(), other.state_dict()]
    outputs = [np.asarray(m(x) if kind is gru_c.GRUCell else m(x)[0]) for m in (model, other)]
    assert not np.array_equal(*outputs)
    stop = threading.Event()

    def compute():
        counts = [0, 0, 0]                                 # by old weights, new weights, neither
        while not stop.is_set():
            output = model(x) if kind is gru_c.GRUCell else model(x)[0]
            hits = [np.array_equal(output, expected) for expected in outputs]
            counts[hits.index(True) if any(hits) else 2] += 1
        return counts

    def change():
        end, turn = time.monotonic() + 0.4, 0
        while time.monotonic() < end:
            turn += 1
            new = sets[turn % 2]
            if how == "attribute":
                setattr(model, name, new[name])
            else:
                model.load_state_dict(new)
        stop.set()

    *found, _ = at_once(compute, compute, change)
    old, new, neither = np.sum(found, axis=0)
    assert neither == 0
    assert old > 0
    assert new > 0
