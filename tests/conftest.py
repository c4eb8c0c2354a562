"""What the tests share: kernels to run on, random calls, the reference, tolerances.

Helpers that depend on no kernels stand in helpers.py; here they are fixtures that return functions.
A *call* is a dict of the arrays that go into a forward and backward of a GRU, time-major
and batched (x, h_0, d_output, d_h_n; all but x may be missing); its *results* are a dict too
(output, h_n, dx, dh_0, and the gradients of the parameters by their names).
"""

import importlib
from contextlib import contextmanager
from itertools import product

import helpers
import numpy as np
import pytest

from gru_c import GRU, _core, get_num_threads, reference, set_num_threads


@contextmanager
def _kernels_of(isa, engine):
    """Other kernels in use, chosen as GRU_C_ISA and GRU_C_ENGINE choose them at import."""
    def bind(isa, engine):
        kernels = importlib.import_module(f"gru_c._core.kernels_{isa}").kernels
        _core.dispatch.bind(kernels, engine == "blas")
        helpers.in_use["engine"] = engine

    bind(isa, engine)
    try:
        yield
    finally:
        bind(_core.isa, _core.engine)


@pytest.fixture(scope="session")
def kernels_of():
    return _kernels_of


@pytest.fixture(
    scope="module",
    params=product(_core.dispatch.supported(), _core.ENGINES),
    ids="-".join,
)
def kernels(request):
    """(isa, engine): the test runs once on each pair that this processor supports."""
    with _kernels_of(*request.param):
        yield request.param


@pytest.fixture
def set_threads():
    """set_num_threads; the number is put back after the test."""
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)


@pytest.fixture(scope="session")
def draw():
    def draw(gru, steps, rows, seed=0):
        """A call with all its arrays: standard normal numbers, in the dtype of the model."""
        rng = np.random.default_rng(seed)
        state = (gru.num_layers, rows, gru.hidden_size)
        shapes = {
            "x": (steps, rows, gru.input_size),
            "h_0": state,
            "d_output": (steps, rows, gru.hidden_size),
            "d_h_n": state,
        }
        return {
            name: rng.standard_normal(shape).astype(gru.dtype) for name, shape in shapes.items()
        }

    return draw


@pytest.fixture(scope="session")
def run():
    def run(gru, x, h_0=None, d_output=None, d_h_n=None):
        """Results of the package; the arrays may be in any layout that the model takes."""
        output, h_n = gru(x, h_0)
        dx, dh_0 = gru.backward(d_output, d_h_n)
        return {"output": output, "h_n": h_n, "dx": dx, "dh_0": dh_0, **gru.grads}

    return run


@pytest.fixture(scope="session")
def expected():
    def expected(gru, x, h_0=None, d_output=None, d_h_n=None):
        """Results of reference.py in float64, layer upon layer, for the same weights."""
        weights = {name: w.astype(np.float64) for name, w in gru.state_dict().items()}
        zeros = np.zeros(3 * gru.hidden_size)
        states = np.zeros((gru.num_layers, x.shape[1], gru.hidden_size))
        h_0 = states if h_0 is None else h_0.astype(np.float64)
        below, tapes = x.astype(np.float64), []
        h_n, dh_0 = states.copy(), states.copy()
        for layer in range(gru.num_layers):
            below, tape = reference.forward(
                below, h_0[layer],
                weights[f"weight_ih_l{layer}"], weights[f"weight_hh_l{layer}"],
                weights.get(f"bias_ih_l{layer}", zeros), weights.get(f"bias_hh_l{layer}", zeros),
                gru.reset_after,
            )
            tapes.append(tape)
            h_n[layer] = below[-1]
        d = np.zeros_like(below) if d_output is None else d_output.astype(np.float64)
        d_h_n = states if d_h_n is None else d_h_n.astype(np.float64)
        grads = {}
        for layer in reversed(range(gru.num_layers)):
            d, dh_0[layer], found = reference.backward(
                tapes[layer], d, d_h_n[layer],
                weights[f"weight_ih_l{layer}"], weights[f"weight_hh_l{layer}"],
                gru.reset_after,
            )
            grads |= {f"{name}_l{layer}": value for name, value in found.items()}
        grads = {name: grads[name] for name in weights}
        return {"output": below, "h_n": h_n, "dx": d, "dh_0": dh_0, **grads}

    return expected


@pytest.fixture(scope="session")
def tolerance():
    return helpers.tolerance


@pytest.fixture(scope="session")
def error():
    return helpers.error


@pytest.fixture(scope="session")
def assert_close():
    def assert_close(got, want, gru):
        """Two dicts of results agree within the tolerance for the model. T counts the steps of all
        layers; K is the longest sum: I + H forward, 3 H and the rows of the batch backward."""
        assert got.keys() == want.keys()
        steps, rows, _ = want["output"].shape
        forward = gru.input_size + gru.hidden_size
        for name, value in want.items():
            assert got[name].dtype == gru.dtype, name
            backward = name not in ("output", "h_n")
            terms = max(forward, 3 * gru.hidden_size, rows) if backward else forward
            allowed = helpers.tolerance(gru.dtype, terms, steps * gru.num_layers, backward)
            assert helpers.error(got[name], value) <= allowed, name

    return assert_close


@pytest.fixture(scope="session")
def assert_same_bits():
    return helpers.assert_same_bits


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["after", "before"])
def reset_after(request):
    return request.param


@pytest.fixture
def small(dtype, reset_after):
    """A model of two layers whose sizes are no multiple of anything."""
    return GRU(5, 17, 2, dtype=dtype, reset_after=reset_after, rng=0)
