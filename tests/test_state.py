"""The state of a model: snapshots, changes from several threads, subclasses, odd arguments."""

import copy
import pickle
import sys
import threading

import numpy as np
import pytest
from helpers import Meanwhile, at_once, unaligned

import gru_c


def ones(*shape):
    return np.ones(shape, np.float32)


# ---- one snapshot a call -------------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["record", "infer", "step"])
def test_weights_loaded_in_the_middle_are_for_the_next_call(mode):
    gru = gru_c.GRU(3, 4, num_layers=2, rng=0).train(mode == "record")
    x, h = ones(5, 2, 3), ones(2, 2, 4)

    def call(h):
        return gru.step(x[0], h) if mode == "step" else gru(x, h)[0]

    want = call(h).copy()
    new = {name: value * 2 for name, value in gru.state_dict().items()}
    garbage = [np.full((5, 2, 4), np.nan, np.float32) for _ in range(20)]
    del garbage                                            # else new memory held the right answer
    assert call(Meanwhile(h, lambda: gru.load_state_dict(new))).tobytes() == want.tobytes()
    assert (gru.weight_hh_l1 == new["weight_hh_l1"]).all()
    assert call(h).tobytes() != want.tobytes()


def test_a_backward_whose_forward_was_replaced_says_so():
    gru = gru_c.GRU(3, 4, num_layers=2, rng=0)
    gru(ones(5, 2, 3))
    late = Meanwhile(ones(5, 2, 4), lambda: gru(ones(6, 2, 3)))
    with pytest.raises(RuntimeError, match="another call of this model ran in between"):
        gru.backward(late)
    gru.backward(ones(6, 2, 4))                            # the later forward is whole


def test_a_forward_during_which_the_mode_changes_saves_nothing():
    gru = gru_c.GRU(3, 4, rng=0)
    x = ones(5, 2, 3)
    want = gru(x)[0]
    assert gru(Meanwhile(x, gru.eval))[0].tobytes() == want.tobytes()
    with pytest.raises(RuntimeError, match="backward needs training mode"):
        gru.backward(want)


@pytest.mark.parametrize("bad", [ones(5, 2, 7), np.ones((5, 2, 3))])
def test_a_refused_call_keeps_a_forward_that_its_conversion_ran(bad):
    gru = gru_c.GRU(3, 4, rng=0)
    with pytest.raises((TypeError, ValueError)):
        gru(Meanwhile(bad, lambda: gru(ones(6, 2, 3))))
    gru.backward(ones(6, 2, 4))


# ---- changes -------------------------------------------------------------------------------------

@pytest.mark.parametrize(("make", "names"), [
    (lambda: gru_c.GRU(20, 20, num_layers=2, rng=0), ("weight_ih_l0", "bias_hh_l1")),
    (lambda: gru_c.GRU(20, 20, rng=0), ("weight_ih_l0", "weight_hh_l0")),
    (lambda: gru_c.GRUCell(20, 20, rng=0), ("weight_ih", "bias_ih")),
    (lambda: gru_c.GRUCell(20, 20, rng=0), ("Wrx", "Wzx")),
    (lambda: gru_c.GRUCell(20, 20, rng=0), ("bnh", "weight_hh")),
])
def test_no_assignment_is_lost(make, names):
    model = make()
    values = [np.full_like(getattr(model, name), 7) for name in names]
    for _ in range(60):
        model.load_state_dict({name: value * 0 for name, value in model.state_dict().items()})
        at_once(*(lambda name=name, value=value: setattr(model, name, value)
                  for name, value in zip(names, values, strict=True)))
        for name, value in zip(names, values, strict=True):
            assert (getattr(model, name) == value).all(), name


@pytest.mark.parametrize("own", ["Wrx", "weight_ih"])
def test_an_assignment_within_an_assignment_is_kept(own):
    """As a signal handler does it, at every line of Python that the outer one runs."""
    cell = gru_c.GRUCell(3, 4, rng=0)
    value = np.full_like(getattr(cell, own), 3)

    def line_count():
        lines = 0

        def trace(*_):
            nonlocal lines
            lines += 1
            if lines == wanted:
                sys.settrace(None)
                cell.Wzh = ones(4, 4) * wanted
            return trace

        sys.settrace(trace)
        try:
            setattr(cell, own, value)
        finally:
            sys.settrace(None)
        return lines

    wanted = 0
    total = line_count()
    assert total > 5
    for wanted in range(1, total + 1):
        setattr(cell, own, value * 0)
        line_count()
        assert (cell.Wzh == wanted).all(), wanted
        assert (getattr(cell, own) == value).all(), wanted


def test_a_load_is_seen_whole():
    gru = gru_c.GRU(8, 8, num_layers=3, rng=0).eval()
    states = [{name: np.full_like(value, k) for name, value in gru.state_dict().items()}
              for k in range(2)]
    gru.load_state_dict(states[0])
    mixed, end = [], threading.Event()

    def load():
        for k in range(200):
            gru.load_state_dict(states[k % 2])
        end.set()

    def look():
        while not end.is_set():
            seen = {value.flat[0] for value in gru.state_dict().values()}
            seen |= {w.flat[0] for w in pickle.loads(pickle.dumps(gru)).state_dict().values()}
            if len({value.flat[0] for value in copy.copy(gru).state_dict().values()}) > 1:
                mixed.append(seen)

    at_once(load, look)
    assert not mixed


# ---- subclasses ----------------------------------------------------------------------------------

class Twice(gru_c.GRU):
    def forward(self, x, *args):
        output, h_n = super().forward(x, *args)
        return 2 * output, h_n


class Mixin:
    def forward(self, *args):
        return "mixin"


def test_a_forward_of_a_subclass_is_called():
    x = ones(5, 2, 3)
    assert (Twice(3, 4, rng=0)(x)[0] == 2 * gru_c.GRU(3, 4, rng=0)(x)[0]).all()
    assert type("Below", (Twice,), {}).__call__ is Twice.forward
    assert type("Mixed", (Mixin, gru_c.GRU), {})(3, 4)(x) == "mixin"
    assert type("After", (gru_c.GRU, Mixin), {})(3, 4)(x)[0].shape == (5, 2, 4)
    assert type("Cell", (gru_c.GRUCell,), {"forward": lambda self, x: "cell"})(3, 4)(x) == "cell"
    own = type("Own", (Twice,), {"__call__": lambda self, x: "own", "forward": None})
    assert own(3, 4)(x) == "own"
    static = type("Static", (gru_c.GRU,), {"forward": staticmethod(lambda x: x)})
    assert static(3, 4)(x) is x


@pytest.mark.parametrize("kind", [gru_c.GRU, gru_c.GRUCell])
def test_the_plain_case_has_no_call_in_between(kind):
    assert kind.__call__ is kind.forward
    assert type("Plain", (kind,), {}).__call__ is kind.forward


@pytest.mark.parametrize("kind", [gru_c.GRU, gru_c.GRUCell])
def test_a_forward_of_one_model_is_refused(kind):
    with pytest.raises(AttributeError, match="override it in a subclass"):
        kind(3, 4).forward = lambda x: x


@pytest.mark.parametrize("kind", [gru_c.GRU, gru_c.GRUCell])
def test_attributes_of_a_subclass(kind):
    model = type("Mine", (kind,), {})(3, 4)
    for name in ("weight_decay", "bias_lr", "weight_norm", "bias_correction", "weight_history",
                 "weight_level1", "weight_", "bias_"):
        setattr(model, name, 0.1)
        assert getattr(model, name) == 0.1
    for name in ("weight_ih_l7", "bias_hh_l1", "weight_hr_l0", "weight_ih_l0_reverse", "bias_l0",
                 "weight_ihl0", "weight_hi_l0", "weight_ih0"):
        with pytest.raises(AttributeError, match="its names are weight_ih"):
            setattr(model, name, ones(1))
    with pytest.raises(AttributeError, match="'Mine' object has no attribute 'weight_hh_l3'"):
        _ = model.weight_hh_l3
    assert repr(model).startswith("Mine(3, 4, ")
    with pytest.raises(AttributeError, match="hidden_size of a Mine cannot be deleted"):
        del model.hidden_size


@pytest.mark.parametrize("kind", [gru_c.GRU, gru_c.GRUCell])
def test_a_model_whose_init_did_not_run(kind):
    model = type("Mine", (kind,), {"__init__": lambda self: None})()
    failed = kind.__new__(kind)
    with pytest.raises(TypeError, match="dtype must be"):
        failed.__init__(3, 4, dtype="nonsense")
    x = ones(2, 3)
    for each in (model, failed, copy.copy(failed)):
        calls = [lambda each=each: each(x), lambda each=each: each.eval(),
                 lambda each=each: each.step(x)]
        for call in calls:
            with pytest.raises(AttributeError, match="has no attribute"):
                call()


@pytest.mark.parametrize("model", [gru_c.GRU(3, 4, rng=0), gru_c.GRUCell(3, 4, rng=0)])
def test_a_second_init_changes_nothing(model):
    x = ones(2, 5, 3) if isinstance(model, gru_c.GRU) else ones(2, 3)
    want = model.eval()(x)
    options = {"batch_first": True} if isinstance(model, gru_c.GRU) else {}
    with pytest.raises(AttributeError, match="cannot change"):
        model.__init__(3, 4, **options)
    assert not model.training
    for got, expected in zip(model(x), want, strict=True):
        assert got.tobytes() == expected.tobytes()


# ---- arrays and settings -------------------------------------------------------------------------

@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("in_place", [True, False])
def test_unaligned_memory_is_written(dtype, training, in_place):
    cell = gru_c.GRUCell(3, 4, dtype=dtype, rng=0).train(training)
    x, h = np.ones((2, 3), dtype), np.ones((2, 4), dtype)
    want = cell(x, h)
    out = unaligned(h)
    assert cell(x, out if in_place else h, out=out) is out
    assert out.tobytes() == want.tobytes()
    gru = gru_c.GRU(3, 4, dtype=dtype, rng=0)
    want = gru.step(x)
    out = unaligned(np.zeros_like(want))
    gru.step(x, out=out)
    assert out.tobytes() == want.tobytes()


HUGE = 10**30


@pytest.mark.parametrize("make", [
    lambda: gru_c.GRU(1, HUGE), lambda: gru_c.GRU(HUGE, 1), lambda: gru_c.GRU(1, 1, HUGE),
    lambda: gru_c.GRU(2**40, 2**40), lambda: gru_c.GRU(1, 2**31), lambda: gru_c.GRU(2**62, 1),
    lambda: gru_c.GRU(1, 1, 2**63), lambda: gru_c.GRU(1, 10**5000),
    lambda: gru_c.GRUCell(1, HUGE), lambda: gru_c.GRUCell(HUGE, 1)])
def test_sizes_that_cannot_be(make):
    with pytest.raises(ValueError, match=r"the model is too large: input_size=.* weights"):
        make()


def test_a_negative_size_of_thousands_of_digits():
    with pytest.raises(ValueError, match="hidden_size must be greater than zero, got -10"):
        gru_c.GRU(1, -10**5000)


def test_a_forward_leaves_the_memory_that_a_backward_reads():
    """A cell's backward keeps its forward: another thread's forward must not write over it."""
    cell = gru_c.GRUCell(3, 4, rng=0)
    cell(ones(2, 3))
    saved = cell._state.saved[0]                           # as that backward holds it
    before = saved.copy("n")
    cell(5 * ones(2, 3))
    assert (saved.copy("n") == before).all()
    del saved
    memory = id(cell._state.saved[0].memory)
    cell(ones(2, 3))
    assert id(cell._state.saved[0].memory) == memory       # else it is used again
