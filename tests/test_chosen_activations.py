"""Models with other activations than sigmoid and tanh, and with a clip.

The forward is held to the equations in NumPy, the backward to finite differences and, where an
activation has a kink, to what PyTorch has there. The functions alone: test_activations.py.
"""

import copy
import pickle
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from helpers import (
    F64,
    assert_close,
    assert_same_bits,
    differences,
    draw,
    error,
    kernels_of,
    normal,
    run,
    same,
    tolerance,
)

from gru_c import GRU, GRUCell, _core

# f(a, alpha, beta) in NumPy, and parameters that are not the defaults.
FUNCTIONS = {
    "sigmoid": (lambda a: 1 / (1 + np.exp(-a)), ()),
    "tanh": (np.tanh, ()),
    "relu": (lambda a: np.maximum(a, 0), ()),
    "hard_sigmoid": (lambda a, alpha, beta: np.clip(alpha * a + beta, 0, 1), (0.4, 0.6)),
    "affine": (lambda a, alpha, beta: alpha * a + beta, (-0.7, 0.2)),
    "leaky_relu": (lambda a, alpha: np.where(a < 0, alpha * a, a), (0.3,)),
    "thresholded_relu": (lambda a, alpha: np.where(a > alpha, a, 0), (0.1,)),
    "scaled_tanh": (lambda a, alpha, beta: alpha * np.tanh(beta * a), (-1.3, 0.6)),
    "elu": (lambda a, alpha: np.where(a < 0, alpha * np.expm1(np.minimum(a, 0)), a), (1.4,)),
    "softsign": (lambda a: a / (1 + abs(a)), ()),
    "softplus": (lambda a: np.log1p(np.exp(a)), ()),
    "linear": (lambda a: a, ()),
}
ROLES = ("activation", "recurrent_activation")
each_in_each_role = pytest.mark.parametrize(
    ("name", "role"), [(name, role) for role in ROLES for name in FUNCTIONS])
clipped = pytest.mark.parametrize("clip", [None, 0.5], ids=["", "clip"])
both_kinds = pytest.mark.parametrize("kind", [GRUCell, GRU])


def argument(name):
    """With the parameters of FUNCTIONS."""
    return {"name": name, **dict(zip(("alpha", "beta"), FUNCTIONS[name][1], strict=False))}


def function(activation, clip):
    f, parameters = FUNCTIONS[activation.name]
    limit = np.inf if clip is None else clip
    assert parameters == tuple(p for p in (activation.alpha, activation.beta) if p is not None)
    return lambda a: f(np.clip(a, -limit, limit), *parameters)


def equations(gru, x, h):
    """output and h_n of one layer, in float64."""
    w = {name: value.astype(F64) for name, value in gru.state_dict().items()}
    f, f_n = (function(a, gru.clip) for a in (gru.recurrent_activation, gru.activation))
    h, output = h[0].astype(F64), []
    for x_t in x.astype(F64):
        r_x, z_x, n_x = np.split(x_t @ w["weight_ih_l0"].T + w["bias_ih_l0"], 3, axis=1)
        r_h, z_h, q = np.split(h @ w["weight_hh_l0"].T + w["bias_hh_l0"], 3, axis=1)
        r, z = f(r_x + r_h), f(z_x + z_h)
        if gru.reset_after:
            n = f_n(n_x + r * q)
        else:
            W_hn, b_hn = np.split(w["weight_hh_l0"], 3)[2], np.split(w["bias_hh_l0"], 3)[2]
            n = f_n(n_x + (r * h) @ W_hn.T + b_hn)
        h = n + z * (h - n)
        output.append(h)
    return {"output": np.stack(output), "h_n": h[None]}


# ---- numbers -------------------------------------------------------------------------------------

@clipped
@each_in_each_role
def test_forward(name, role, clip, dtype, reset_after):
    gru = GRU(7, 19, dtype=dtype, reset_after=reset_after, rng=0, clip=clip,
              **{role: argument(name)})
    call = draw(gru, 3, 9)
    x, h_0 = call["x"], call["h_0"]
    want = equations(gru, x, h_0)
    got = dict(zip(("output", "h_n"), gru(x, h_0), strict=True))
    assert_close(got, want, gru)
    inferred = dict(zip(("output", "h_n"), gru.eval()(x, h_0), strict=True))
    assert_same_bits(inferred, got)


@clipped
@each_in_each_role
def test_gradients(name, role, clip, reset_after):
    gru = GRU(3, 5, dtype=F64, reset_after=reset_after, rng=0, clip=clip,
              **{role: argument(name)})
    call = draw(gru, 3, 2, seed=1)
    parameters = {key: value.copy() for key, value in gru.state_dict().items()}

    def loss(x, h_0, **parameters):
        gru.load_state_dict(parameters)
        output, h_n = gru(x, h_0)
        return np.sum(output * call["d_output"]) + np.sum(h_n * call["d_h_n"])

    results = run(gru, **call)
    arrays = {"x": call["x"], "h_0": call["h_0"], **parameters}
    wanted = differences(loss, arrays)
    found = {"x": results["dx"], "h_0": results["dh_0"],
             **{key: results[key] for key in parameters}}
    for key, value in wanted.items():
        assert np.abs(found[key] - value).max() <= 1e-7 * max(1, np.abs(value).max()), key


@pytest.mark.parametrize("name", FUNCTIONS)
def test_both_roles_and_layers(name, dtype, reset_after):
    """The backward of two layers in float32 against that in float64."""
    def results(dtype):
        gru = GRU(5, 17, 2, dtype=dtype, reset_after=reset_after, rng=0, clip=2.0,
                  activation=argument(name), recurrent_activation="hard_sigmoid")
        return gru, run(gru, **{key: value.astype(dtype) for key, value in call.items()})

    call = draw(GRU(5, 17, 2), 4, 3)
    gru, got = results(dtype)
    assert_close(got, results(F64)[1], gru)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_kernels_agree(name, dtype, reset_after):
    """Engines and instruction sets; those with fused multiply-adds in every bit."""
    results = {}
    for kernels in product(_core.core.instruction_sets(), _core.ENGINES):
        with kernels_of(*kernels):                         # weights are packed for the kernels
            gru = GRU(5, 133, dtype=dtype, reset_after=reset_after, rng=0, clip=1.5,
                      activation=argument(name), recurrent_activation=argument(name))
            results[kernels] = run(gru, **draw(gru, 3, 7))
    for got in results.values():
        assert_close(got, results["baseline", "panel"], gru)
    fused = [results[isa, "panel"] for isa in _core.core.instruction_sets() if isa != "baseline"]
    for got in fused:
        for key, value in got.items():
            assert value.tobytes() == fused[0][key].tobytes(), key


@both_kinds
def test_a_step_is_that_of_a_sequence(kind, dtype, reset_after):
    options = {"dtype": dtype, "reset_after": reset_after, "rng": 0, "activation": "softsign",
               "recurrent_activation": "softplus", "clip": 1.5}
    model, gru = kind(5, 17, **options), GRU(5, 17, **options)
    x, h = normal(2, 5, dtype=dtype), normal(2, 17, dtype=dtype)
    want, _ = gru(x[None], h[None])
    if kind is GRU:
        same([model.step(x, h[None])], [want])
        return
    same([model(x, h)], want)
    delta = normal(2, 17, dtype=dtype)
    dx, dh_0 = gru.backward(delta[None])
    same(model.backward(delta), [dx[0], dh_0[0]])
    same(model.grads.values(), gru.grads.values())


# ---- derivatives ---------------------------------------------------------------------------------

def slopes(name, a, dtype=F64, clip=None, **parameters):
    """f'(a), as the gradient of h' = n = f(W_in x): z = 0, and x = a."""
    cell = GRUCell(1, 1, bias=False, dtype=dtype, recurrent_activation="linear", clip=clip,
                   activation={"name": name, **parameters})
    cell.init_weights(*([[weight]] for weight in (0, 0, 1, 0, 0, 0)))
    cell(np.array(a, dtype)[:, None])
    return cell.backward(np.ones((len(a), 1), dtype))[0][:, 0]


@pytest.mark.parametrize(("name", "kinks", "expected"), [
    ("relu", [0.0, -0.0], [0, 0]),
    ({"name": "leaky_relu", "alpha": 0.25}, [0.0, -0.0], [0.25, 0.25]),
    ({"name": "elu", "alpha": 3.0}, [0.0, -0.0], [3, 3]),
    ("softsign", [0.0], [1]),
    ({"name": "thresholded_relu", "alpha": 0.5}, [0.5, np.nextafter(0.5, 1)], [0, 1]),
    ({"name": "hard_sigmoid", "alpha": 0.25}, [-2.0, 2.0, -1.9375, 1.9375], [0, 0, 0.25, 0.25]),
], ids=str)
def test_kinks(name, kinks, expected):
    parameters = {"name": name} if isinstance(name, str) else name
    np.testing.assert_array_equal(slopes(a=kinks, **parameters), expected)


def test_kinks_are_those_of_torch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    a = np.array([-3.5, -1.0, 0.0, 1.0, 3.5])
    for name, f in {
        "relu": functional.relu, "hard_sigmoid": functional.hardsigmoid, "elu": functional.elu,
        "leaky_relu": functional.leaky_relu, "softsign": functional.softsign,
        "softplus": functional.softplus, "linear": lambda a: 1 * a,
        "thresholded_relu": lambda a: functional.threshold(a, 1.0, 0.0),
    }.items():
        leaf = torch.tensor(a, requires_grad=True)
        wanted, = torch.autograd.grad(f(leaf).sum(), leaf)
        assert error(slopes(name, a), wanted.numpy()) <= 1e-7, name      # its 1/6 is a float


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_gradient_beyond_the_clip(name, dtype):
    """At the clip and beyond it."""
    a = [-np.finfo(dtype).max, -2, -0.3, 0.3, 0.5, 1e9]
    assert (slopes(name, a, dtype, clip=0.3) == 0).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_saturated_slopes_are_numbers(name, dtype):
    """Where f, f' or e^a would overflow or underflow."""
    most = np.sqrt(np.finfo(dtype).max)
    a = np.concatenate([-np.geomspace(1, most, 99), np.geomspace(1, most, 99)])
    found = slopes(name, a.astype(dtype), dtype)
    assert np.isfinite(found).all()
    assert (found >= 0).all()


def test_padding_may_overflow(dtype, reset_after):
    """z = 3 in the units that fill up a line: their state grows to infinity, unread."""
    gru = GRU(2, 5, bias=True, dtype=dtype, reset_after=reset_after, rng=0,
              activation={"name": "affine", "beta": 1.0},
              recurrent_activation={"name": "affine", "beta": 3.0})
    bias = np.repeat(np.array([-3, -2.5, 0], dtype), 5)    # r and z of the others are small
    weights = {name: 0.1 * value for name, value in gru.state_dict().items()}
    gru.load_state_dict(weights | {"bias_ih_l0": bias})
    call = draw(gru, 800, 3)
    results = run(gru, **call)
    assert all(np.isfinite(value).all() for value in results.values())


# ---- the default ---------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [
    {"activation": {"name": "tanh"}, "recurrent_activation": {"name": "sigmoid"}},
    {"activation": GRU(1, 1).activation, "clip": None},
], ids=["dicts", "attribute"])
def test_default_written_out(options, small):
    model = GRU(5, 17, 2, dtype=small.dtype, reset_after=small.reset_after, rng=0, **options)
    assert repr(model) == repr(small)
    assert all(layer.activations is None for layer in model._layers)


@pytest.mark.parametrize("options", [
    {"activation": {"name": "scaled_tanh"}}, {"clip": 1e9},
    {"recurrent_activation": "sigmoid", "activation": "tanh", "clip": np.float32(1e9)},
], ids=str)
def test_same_functions_by_the_other_kernels(options, small):
    """sigmoid and tanh, by the pointwise functions of any activations."""
    model = GRU(5, 17, 2, dtype=small.dtype, reset_after=small.reset_after, rng=0, **options)
    call = draw(small, 3, 4)
    got, want = run(model, **call), run(small, **call)
    for name, value in want.items():
        assert error(got[name], value) <= tolerance(small.dtype, 64, 6, backward=True), name


# ---- arguments, attributes, copies ---------------------------------------------------------------

@pytest.mark.parametrize(("options", "text"), [
    ({"activation": "relu"}, ", activation='relu'"),
    ({"activation": {"name": "leaky_relu", "alpha": 0.01}}, ", activation='leaky_relu'"),
    ({"recurrent_activation": {"name": "hard_sigmoid", "alpha": 0.2}, "clip": 5},
     ", recurrent_activation={'name': 'hard_sigmoid', 'alpha': 0.2, 'beta': 0.5}, clip=5.0"),
], ids=str)
@both_kinds
def test_repr(kind, options, text):
    assert repr(kind(3, 4, **options)) == repr(kind(3, 4))[:-1] + text + ")"


@both_kinds
def test_attributes_are_fixed(kind):
    model = kind(3, 4, activation={"name": "elu", "alpha": np.float64(2)}, clip=3)
    activation = model.activation
    assert (activation.name, activation.alpha, activation.beta) == ("elu", 2.0, None)
    assert (model.recurrent_activation.name, model.clip) == ("sigmoid", 3.0)
    for name in (*ROLES, "clip"):
        with pytest.raises(AttributeError, match=f"{name} of a {kind.__name__} cannot change"):
            setattr(model, name, None)
    with pytest.raises(AttributeError):
        activation.alpha = 1.0


@pytest.mark.parametrize("duplicate", [
    copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["copy", "deepcopy", "pickle"])
@both_kinds
def test_copies_modes_and_new_weights_keep_them(kind, duplicate):
    def outputs(model):
        result = model(x)
        return result if isinstance(result, tuple) else (result,)

    model = kind(3, 4, rng=0, activation="softplus", recurrent_activation="hard_sigmoid", clip=0.5)
    x = normal(5, 3)                                       # rows, or unbatched steps
    want = outputs(model)
    twin = duplicate(model)
    assert repr(twin) == repr(model)
    assert twin.activation == model.activation
    same(outputs(twin), want)
    same(outputs(twin.eval()), want)
    same(outputs(duplicate(twin).train()), want)
    twin.load_state_dict(model.state_dict())
    same(outputs(twin), want)


@pytest.mark.parametrize(("value", "error", "words"), [
    ("Tanh", ValueError, "unknown {} 'Tanh', expected one of sigmoid, tanh, relu, softsign, "
     "softplus, linear, hard_sigmoid, affine, leaky_relu, thresholded_relu, scaled_tanh, elu"),
    ({"alpha": 1.0}, ValueError, "{} has no 'name'"),
    ({}, ValueError, "{} has no 'name'"),
    ({"name": None}, ValueError, "unknown {} None, expected one of sigmoid, tanh"),
    ({"name": ["tanh"]}, ValueError, "unknown {} ['tanh'], expected one of"),
    (np.tanh, TypeError, "should be a name or a dict with a name, alpha and beta, got: ufunc"),
    (None, TypeError, "got: NoneType"),
    ({"name": "relu", "alpha": 1}, ValueError,
     "{} 'relu' has no 'alpha', its parameters are: none"),
    ({"name": "elu", "beta": 1, "slope": 2}, ValueError,
     "{} 'elu' has no 'beta', 'slope', its parameters are: alpha"),
    ({"name": "affine", "gamma": 1}, ValueError,
     "{} 'affine' has no 'gamma', its parameters are: alpha, beta"),
    ({"name": "elu", "alpha": "1"}, TypeError, "alpha of {} 'elu' should be a number, got: str"),
    ({"name": "elu", "alpha": True}, TypeError, "alpha of {} 'elu' should be a number, got: bool"),
    ({"name": "elu", "alpha": None}, TypeError, "should be a number, got: NoneType"),
    ({"name": "affine", "beta": np.nan}, ValueError, "beta of {} 'affine' must be finite, got nan"),
    ({"name": "affine", "alpha": -np.inf}, ValueError,
     "alpha of {} 'affine' must be finite, got -inf"),
    ({"name": "affine", "alpha": 10**400}, ValueError,
     "alpha of {} 'affine' must be finite, got inf"),
    (replace(GRU(1, 1, activation="elu").activation, alpha=-1.0), ValueError,
     "alpha of {} 'elu' must not be negative, got -1.0"),
    ({"name": "leaky_relu", "alpha": -0.1}, ValueError,
     "alpha of {} 'leaky_relu' must not be negative, got -0.1"),
    ({"name": "elu", "alpha": -1}, ValueError, "must not be negative, got -1.0: backward reads"),
], ids=str)
@pytest.mark.parametrize("role", ROLES)
@both_kinds
def test_activations_that_are_refused(kind, role, value, error, words):
    with pytest.raises(error) as raised:
        kind(3, 4, **{role: value})
    assert words.format(role) in str(raised.value)
    assert role in str(raised.value)


@pytest.mark.parametrize(("value", "error", "words"), [
    (0, ValueError, "clip must be None or a positive number, got 0"),
    (-1.5, ValueError, "clip must be None or a positive number, got -1.5"),
    (np.inf, ValueError, "clip must be finite, got inf"),
    (np.nan, ValueError, "clip must be finite, got nan"),
    (True, TypeError, "clip should be a number, got: bool"),
    ("1", TypeError, "clip should be a number, got: str"),
], ids=str)
@both_kinds
def test_clips_that_are_refused(kind, value, error, words):
    with pytest.raises(error) as raised:
        kind(3, 4, clip=value)
    assert str(raised.value) == words
