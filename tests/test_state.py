"""The state of a model: snapshots, changes from several threads, subclasses, odd arguments."""

import copy
import pickle
import sys
import threading

import numpy as np
import pytest
from helpers import at_once, unaligned

import gru_c
from gru_c._core import Layer


def ones(*shape):
    return np.ones(shape, np.float32)


# ---- one snapshot a call -------------------------------------------------------------------------

class Meanwhile:
    """A layer before which, in a call, something else happens once."""

    def __init__(self, layer, action):
        self.layer, self.action = layer, action

    def __getattr__(self, name):
        if name in ("record", "infer", "run"):
            action, self.action = self.action, lambda: None
            action()
        return getattr(self.layer, name)


@pytest.mark.parametrize("mode", ["record", "infer", "step"])
def test_weights_loaded_in_the_middle_are_for_the_next_call(mode):
    gru = gru_c.GRU(3, 4, num_layers=2, rng=0).train(mode == "record")
    x, h = ones(5, 2, 3), ones(2, 2, 4)

    def call():
        return gru.step(x[0], h) if mode == "step" else gru(x, h)[0]

    want = call().copy()
    new = {name: value * 2 for name, value in gru.state_dict().items()}
    layers = gru._layers
    gru._layers = (Meanwhile(layers[0], lambda: load()), layers[1])

    def load():
        gru._layers = layers
        gru.load_state_dict(new)

    garbage = [np.full((5, 2, 4), np.nan, np.float32) for _ in range(20)]
    del garbage                                            # else new memory held the right answer
    assert call().tobytes() == want.tobytes()
    assert (gru.weight_hh_l1 == new["weight_hh_l1"]).all()


def test_a_backward_whose_forward_was_replaced_says_so():
    gru = gru_c.GRU(3, 4, num_layers=2, rng=0)
    gru(ones(5, 2, 3))
    check = gru._check_state

    def late(*args):
        del gru._check_state
        gru(ones(6, 2, 3))
        return check(*args)

    gru._check_state = late
    with pytest.raises(RuntimeError, match="another call of this model came between"):
        gru.backward(ones(5, 2, 4))
    gru.backward(ones(6, 2, 4))                            # the later forward is whole


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
    with pytest.raises(AttributeError, match="make a subclass"):
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


# ---- arrays and settings -------------------------------------------------------------------------

class Spy:
    """A layer that notes whether what it is to write to is aligned."""

    def __init__(self, layer, seen):
        self.layer, self.seen = layer, seen

    def __getattr__(self, name):
        return getattr(self.layer, name)

    def infer(self, x, h, output, *args):
        self.seen += [x.flags.aligned, output.flags.aligned]
        self.layer.infer(x, h, output, *args)

    def record(self, x, h, output, *args, **options):
        self.seen.append(output.flags.aligned)
        return self.layer.record(x, h, output, *args, **options)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("in_place", [True, False])
def test_nothing_unaligned_is_written(dtype, training, in_place):
    cell = gru_c.GRUCell(3, 4, dtype=dtype, rng=0).train(training)
    x, h = np.ones((2, 3), dtype), np.ones((2, 4), dtype)
    want = cell(x, h)
    out, seen = unaligned(h), []
    cell._layer = Spy(cell._layer, seen)
    assert cell(x, out if in_place else h, out=out) is out
    assert out.tobytes() == want.tobytes()
    assert seen and all(seen)


def test_a_step_into_unaligned_memory(dtype):
    gru = gru_c.GRU(3, 4, dtype=dtype, rng=0)
    x, seen = np.ones((2, 3), dtype), []
    want = gru.step(x)
    gru._layers = (Spy(gru._layers[0], seen),)
    out = unaligned(np.zeros_like(want))
    gru.step(x, out=out)
    assert out.tobytes() == want.tobytes() and all(seen)


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


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"batch_first": True}])
def test_a_backward_without_memory_leaves_the_forward(options, monkeypatch):
    gru = gru_c.GRU(3, 4, rng=0, **options)
    output, _ = gru(ones(5, 2, 3))
    want = gru.backward(np.ones_like(output))[0]
    gru(ones(5, 2, 3))

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(gru, "_backward", fail)
    with pytest.raises(MemoryError):
        gru.backward(np.ones_like(output))
    monkeypatch.undo()
    assert gru.backward(np.ones_like(output))[0].tobytes() == want.tobytes()


def test_a_forward_that_fails_leaves_nothing():
    gru = gru_c.GRU(3, 4, num_layers=2, rng=0)
    output, _ = gru(ones(5, 2, 3))
    gru.backward(output)

    def fail():
        raise MemoryError

    layers = gru._layers
    gru._layers = (layers[0], Meanwhile(layers[1], fail))
    with pytest.raises(MemoryError):
        gru(ones(5, 2, 3))
    gru._layers = layers
    assert all(isinstance(layer, Layer) for layer in layers)
    for call in (lambda: gru.backward(output), lambda: gru.grads):
        with pytest.raises(RuntimeError, match="the last forward did not finish"):
            call()


def test_a_forward_leaves_the_buffers_that_a_backward_reads():
    """A cell's backward keeps its forward: another thread's forward must not write over it."""
    cell = gru_c.GRUCell(3, 4, rng=0)
    cell(ones(2, 3))
    tape = cell._trace.tapes[0]                            # as that backward holds it
    before = tape.g.tobytes()
    cell(5 * ones(2, 3))
    assert tape.g.tobytes() == before
    del tape
    memory = cell._trace.tapes[0].g.ctypes.data
    cell(ones(2, 3))
    assert cell._trace.tapes[0].g.ctypes.data == memory    # else it is used again


def test_a_backward_without_memory_keeps_a_newer_forward():
    """Another thread ran a forward between the taking of the tapes and the MemoryError."""
    gru = gru_c.GRU(3, 4, rng=0)
    gru(ones(2, 1, 3))
    tapes, shape = gru._trace.saved()
    assert gru._trace.take(tapes)
    gru(ones(5, 1, 3))
    newer = gru._trace.saved()
    gru._trace.put_back(tapes, shape, "backward")
    assert gru._trace.saved() == newer
    assert gru.backward(ones(5, 1, 4))[0].shape == (5, 1, 3)


def test_a_call_that_somebody_wrote_stays():
    class Logged(gru_c.GRU):
        def __call__(self, x):
            return "logged", super().__call__(x)

    class Child(Logged):
        def forward(self, x):
            return "child"

    class Other(gru_c.GRU):
        def forward(self, x):
            return "other"

    class Both(Other, Logged):
        pass

    for kind in (Child, Both):
        assert kind(2, 3)(np.ones((1, 1, 2), np.float32))[0] == "logged"


def test_attributes_set_before_init():
    class Early(gru_c.GRU):
        def __init__(self):
            self.weight_decay = 0.1
            assert not hasattr(self, "weight_hh_l0")
            super().__init__(3, 4)

    assert Early().weight_decay == 0.1
    assert Early().weight_hh_l0.shape == (12, 4)


@pytest.mark.parametrize("dtype", [(), {"a": 1}, ("f4", "x"), "", np.floating])
def test_a_dtype_that_numpy_does_not_read(dtype):
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got ") as caught:
        gru_c.GRU(3, 4, dtype=dtype)
    assert repr(dtype) in str(caught.value)


@pytest.mark.parametrize("kind", [gru_c.GRU, gru_c.GRUCell])
@pytest.mark.parametrize("name", ["weight_decay_l2", "weight_penalty_l1", "weight_hh_mask",
                                  "weight_hh_l0_mask", "weight_ih_scale", "bias_ih_l0_lr"])
def test_an_attribute_named_after_a_parameter(kind, name):
    model = type("Mine", (kind,), {})(3, 4)
    setattr(model, name, 0.1)
    assert getattr(model, name) == 0.1
