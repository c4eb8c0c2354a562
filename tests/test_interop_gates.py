"""from_gates: every form of hand-written equations, against the equations as they are written.

`by_hand` is that transcription: one row at a time, with the matrices as they are stored.
"""

import itertools

import numpy as np
import pytest
from helpers import F32, F64, error

import gru_c
from gru_c import reference

T, H = 4, 3
STACKS = (("r", "z", "n"), ("n", "z", "r"), ("zrn",), ("rz", "n"), ("n", "zr"))
BIASES = ("none", "one", "outside", "inside", "two", "only n")


# ---- the equations ------------------------------------------------------------------------------

def by_hand(gates, x, product, reset_after, z_times, concatenated=None,
            recurrent_activation="sigmoid", activation="tanh", clip=None):
    """The states (T, H) after each step of x (T, I), from zeros."""
    def times(W, v):
        return W @ v if product == "W x" else v @ W

    def both(x, h):
        return np.concatenate([x, h] if concatenated == "x h" else [h, x])

    def from_x(gate, x):
        key, W, _, _, _ = where[gate]
        a = times(W, both(x, np.zeros(H))) if concatenated else times(W, x)
        return np.split(a, len(key))[key.index(gate)]

    def from_h(gate, h):
        key, W, U, _, _ = where[gate]
        a = times(W, both(np.zeros(x.shape[1]), h)) if concatenated else times(U, h)
        return np.split(a, len(key))[key.index(gate)]

    def bias(gate, place):
        key, _, _, *biases = where[gate]
        b = biases[place]
        return 0.0 if b is None else np.split(b.reshape(-1), len(key))[key.index(gate)]

    where = {gate: (key, arrays[0], None if concatenated else arrays[1],
                    *(*arrays[1 if concatenated else 2:], None, None)[:2])
             for key, arrays in gates.items() for gate in key}
    f = lambda a: reference.gate(a, recurrent_activation, clip)[0]  # noqa: E731
    g = lambda a: reference.gate(a, activation, clip)[0]  # noqa: E731
    h, states = np.zeros(H), []
    for x_t in x:
        r = f(from_x("r", x_t) + from_h("r", h) + bias("r", 0) + bias("r", 1))
        z = f(from_x("z", x_t) + from_h("z", h) + bias("z", 0) + bias("z", 1))
        if reset_after:
            n = g(from_x("n", x_t) + bias("n", 0) + r * (from_h("n", h) + bias("n", 1)))
        else:
            n = g(from_x("n", x_t) + bias("n", 0) + from_h("n", r * h) + bias("n", 1))
        h = z * h + (1 - z) * n if z_times == "h" else (1 - z) * h + z * n
        states.append(h)
    return np.array(states)


def drawn(keys, biases, product, concatenated, inputs, seed=0):
    """Gates of random arrays, as `from_gates` takes them."""
    rng = np.random.default_rng([seed, inputs])

    def matrix(rows, columns):
        a = rng.normal(size=(rows, columns))
        return a if product == "W x" else a.T

    def bias(key):
        one, two = rng.normal(size=(2, len(key) * H))
        return {"none": (), "one": (one,), "outside": (one, None), "inside": (None, two),
                "two": (one, two), "only n": (one, two) if "n" in key else ()}[biases]

    gates = {}
    for key in keys:
        rows = len(key) * H
        matrices = ((matrix(rows, inputs + H),) if concatenated
                    else (matrix(rows, inputs), matrix(rows, H)))
        gates[key] = matrices + bias(key)
    return gates


FORMS = [
    pytest.param(dict(product=product, reset_after=reset_after, z_times=z_times,  # noqa: C408
                      concatenated=concatenated),
                 id=f"{product}-{'after' if reset_after else 'before'}-z {z_times}-"
                    f"{concatenated or 'separate'}")
    for product, reset_after, z_times, concatenated in itertools.product(
        ("W x", "x W"), (True, False), ("h", "n"), (None, "x h", "h x"))]
every_form = pytest.mark.parametrize("form", FORMS)


@pytest.mark.parametrize("inputs", [2, H], ids=["I<H", "I=H"])
@pytest.mark.parametrize("biases", BIASES)
@pytest.mark.parametrize("keys", STACKS, ids=" ".join)
@every_form
def test_every_combination(form, keys, biases, inputs):
    gates = drawn(keys, biases, form["product"], form["concatenated"], inputs)
    if biases == "one" and form["reset_after"]:
        with pytest.raises(ValueError, match="one bias of n could stand outside or inside"):
            gru_c.GRU.from_gates(gates, **form)
        return
    x = np.random.default_rng(1).normal(size=(T, inputs))
    expected = by_hand(gates, x, **form)
    gru = gru_c.GRU.from_gates(gates, **form)
    assert (gru.input_size, gru.hidden_size, gru.bias) == (inputs, H, biases != "none")
    assert gru.dtype == F64
    output, h_n = gru(x)
    assert error(output, expected) <= 1e-12
    assert error(h_n[0], expected[-1]) <= 1e-12
    cell = gru_c.GRUCell.from_gates(gates, **form)
    assert error(cell(x[1], expected[0]), expected[1]) <= 1e-12


@every_form
def test_forms_differ(form):
    """A test of the test above: each option changes the result, also where shapes do not tell."""
    gates = drawn(("r", "z", "n"), "two", form["product"], form["concatenated"], H)
    x = np.random.default_rng(1).normal(size=(T, H))
    expected = by_hand(gates, x, **form)
    others = {"z_times": "hn", "reset_after": (True, False)}
    if form["concatenated"]:
        others["concatenated"] = ("x h", "h x")
    else:
        others["product"] = ("W x", "x W")
    for name, choices in others.items():
        other, = set(choices) - {form[name]}
        assert error(gru_c.GRU.from_gates(gates, **form | {name: other})(x)[0], expected) > 1e-3


@pytest.mark.parametrize("directions", [1, 2])
def test_layers_and_directions(directions):
    """A list of layers, a tuple of directions; the second layer reads all of the first one."""
    form = {"product": "x W", "reset_after": False, "z_times": "n"}
    layers = [tuple(drawn(("r", "z", "n"), "one", "x W", None, inputs, seed)
                    for seed in range(directions)) for inputs in (2, directions * H)]
    x = output = np.random.default_rng(1).normal(size=(T, 2))
    for layer in layers:
        halves = [by_hand(own, output[::step], **form)[::step]
                  for own, step in zip(layer, (1, -1), strict=False)]
        output = np.concatenate(halves, axis=1)
    given = [layer if directions == 2 else layer[0] for layer in layers]
    gru = gru_c.GRU.from_gates(given, **form)
    assert (gru.num_layers, gru.bidirectional) == (2, directions == 2)
    assert error(gru(x)[0], output) <= 1e-12
    if directions == 2:
        one = gru_c.GRU.from_gates(given[0], **form)
        assert (one.num_layers, one.bidirectional) == (1, True)
    reverse = gru_c.ReverseGRU.from_gates(layers[0][0], **form)
    assert error(reverse(x)[0], by_hand(layers[0][0], x[::-1], **form)[::-1]) <= 1e-12


SYMMETRIC = ("sigmoid", "hard_sigmoid", {"name": "hard_sigmoid", "alpha": 0.2},
             {"name": "affine", "alpha": 0.3, "beta": 0.5})


@pytest.mark.parametrize("z_times", ["h", "n"])
@pytest.mark.parametrize("recurrent_activation", SYMMETRIC, ids=str)
def test_activations(recurrent_activation, z_times):
    gates = drawn(("r", "z", "n"), "two", "W x", None, 2)
    x = np.random.default_rng(1).normal(size=(T, 2))
    options = {"recurrent_activation": recurrent_activation, "activation": "softsign", "clip": 0.7,
               "product": "W x", "reset_after": True, "z_times": z_times}
    gru = gru_c.GRU.from_gates(gates, **options)
    assert error(gru(x)[0], by_hand(gates, x, **options)) <= 1e-12


@pytest.mark.parametrize("activation", [
    "tanh", "relu", "softsign", "softplus", "linear", "elu", "leaky_relu", "scaled_tanh",
    "thresholded_relu", "affine", {"name": "hard_sigmoid", "beta": 0.4}], ids=str)
def test_activations_that_cannot_be_flipped(activation):
    gates = drawn(("r", "z", "n"), "two", "W x", None, 2)
    form = {"product": "W x", "reset_after": True, "recurrent_activation": activation}
    gru_c.GRU.from_gates(gates, z_times="h", **form)
    with pytest.raises(ValueError, match=r"z_times='n' with recurrent_activation=.* needs f\(-a\)"):
        gru_c.GRU.from_gates(gates, z_times="n", **form)


# ---- arrays, options, errors --------------------------------------------------------------------

PLAIN = {"product": "W x", "reset_after": True, "z_times": "h"}


def test_parameters_are_those_given():
    W, U = np.arange(18.0).reshape(9, 2), np.arange(27.0).reshape(9, 3)
    b_i, b_h = np.arange(9.0), -np.arange(9.0)
    gru = gru_c.GRU.from_gates({"rzn": (W, U, b_i, b_h)}, **PLAIN)
    for name, a in zip(gru.state_dict(), (W, U, b_i, b_h), strict=True):
        np.testing.assert_array_equal(gru.state_dict()[name], a)
    gru = gru_c.GRU.from_gates({"rzn": (W, U, b_i)}, **PLAIN | {"reset_after": False})
    np.testing.assert_array_equal(gru.bias_ih_l0, b_i)     # one bias stands beside W x
    assert not gru.bias_hh_l0.any()


def test_dtype():
    gates = drawn(("r", "z", "n"), "two", "W x", None, 2)
    single = {key: tuple(a.astype(F32) for a in arrays) for key, arrays in gates.items()}
    half = {key: tuple(a.astype(np.float16) for a in arrays) for key, arrays in gates.items()}
    assert gru_c.GRU.from_gates(single, **PLAIN).dtype == F32
    assert gru_c.GRU.from_gates(half, **PLAIN).dtype == F32
    assert gru_c.GRU.from_gates(single | {"r": gates["r"]}, **PLAIN).dtype == F64
    assert gru_c.GRU.from_gates(gates, **PLAIN, dtype=F32).dtype == F32
    lists = {key: tuple(a.tolist() for a in arrays) for key, arrays in gates.items()}
    big = {key: tuple(a.astype(">f8") for a in arrays) for key, arrays in gates.items()}
    for same in (lists, big):
        gru = gru_c.GRU.from_gates(same, **PLAIN)
        assert (gru.weight_ih_l0 == gru_c.GRU.from_gates(gates, **PLAIN).weight_ih_l0).all()


def test_parameters_of_pytorch():
    """They refuse to become arrays while they need a gradient."""
    class Parameter:
        def __init__(self, a):
            self.a = a

        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("Use tensor.detach().numpy() instead.")

        def detach(self):
            return self.a

    gates = drawn(("r", "z", "n"), "two", "W x", None, 2)
    wrapped = {key: tuple(map(Parameter, arrays)) for key, arrays in gates.items()}
    assert (gru_c.GRU.from_gates(wrapped, **PLAIN).weight_ih_l0
            == gru_c.GRU.from_gates(gates, **PLAIN).weight_ih_l0).all()
    with pytest.raises(ValueError, match="'r': W cannot become an array of NumPy: Use tensor"):
        gru_c.GRU.from_gates(gates | {"r": tuple(map(Parameter, wrapped["r"]))}, **PLAIN)


@pytest.mark.parametrize("shape", [(1, H), (H, 1)])
def test_biases_as_rows_and_columns(shape):
    gates = drawn(("r", "z", "n"), "two", "W x", None, 2)
    shaped = {key: (W, U, *(b.reshape(shape) for b in biases))
              for key, (W, U, *biases) in gates.items()}
    assert (gru_c.GRU.from_gates(shaped, **PLAIN).bias_hh_l0
            == gru_c.GRU.from_gates(gates, **PLAIN).bias_hh_l0).all()


def test_options_of_the_model():
    gates = drawn(("r", "z", "n"), "two", "W x", None, 2)
    gru = gru_c.GRU.from_gates([gates, drawn(("zrn",), "two", "W x", None, H)], **PLAIN,
                               batch_first=True, dropout=0.3, rng=0)
    assert (gru.batch_first, gru.dropout, gru.training) == (True, 0.3, False)
    assert gru_c.GRU.from_gates(gates, **PLAIN).training


GATES = drawn(("r", "z", "n"), "two", "W x", None, 2)
W, U, B = np.ones((H, 2)), np.ones((H, H)), np.ones(H)


@pytest.mark.parametrize(("gates", "options", "words"), [
    (GATES, {"product": "Wx"}, "product must be one of 'W x', 'x W', got 'Wx'"),
    (GATES, {"z_times": "r"}, "z_times must be one of 'h', 'n', got 'r'"),
    (GATES, {"concatenated": "xh"}, "concatenated must be one of None, 'x h', 'h x', got 'xh'"),
    (GATES, {"product": "x W"}, r"'r': expected W and U of shape \(I, H\) and \(H, H\) with "
                                r"product='x W', got \(3, 2\) and \(3, 3\)"),
    ({"zrn": (W, U)}, {}, r"expected W and U of shape \(3 H, I\) and \(3 H, H\)"),
    (GATES, {"concatenated": "x h"}, "'r': 4 arrays, expected 1 matrix and up to two biases"),
    (GATES | {"r": (W,)}, {}, "'r': 1 arrays, expected 2 matrices and up to two biases"),
    (dict.fromkeys("rzn", (W,)), {"concatenated": "x h"},
     r"expected W of shape \(H, I \+ H\) with product='W x', got \(3, 2\)"),
    (dict.fromkeys("rzn", (U,)), {"concatenated": "h x"}, r"got \(3, 3\)"),
    (GATES | {"r": (W, U, np.ones(4))}, {}, r"'r': a bias has shape \(4,\), expected \(3,\)"),
    (GATES | {"r": (W, U, np.ones((H, H)))}, {}, r"'r': a bias has shape \(3, 3\)"),
    ({"rz": (np.ones((2 * H, 2)), np.ones((2 * H, H)), np.ones((2, H))), "n": (W, U)}, {},
     r"'rz': a bias has shape \(2, 3\), expected \(6,\)"),
    (GATES | {"r": (np.ones((H, 5)), U)}, {}, r"W of different shapes, as for W x: r \(3, 5\), z"),
    (GATES | {"r": (np.ones((2, 2)), np.ones((2, 2)))}, {}, "the gates have W of different shapes"),
    (GATES | {"r": (np.ones(3), U)}, {}, r"'r': expected W and U .*, got \(3,\) and \(3, 3\)"),
    (GATES | {"r": (np.ones((0, 2)), np.ones((0, 0)))}, {}, r"'r': expected W and U"),
    (GATES | {"r": (np.ones((H, 0)), U)}, {}, r"'r': expected W and U"),
    (GATES | {"r": (np.ones((H, 2), int), U)}, {}, "'r': W has dtype int64, expected a floating"),
    (GATES | {"r": ([[1.0], [1.0, 2.0]], U)}, {}, "'r': W cannot become an array of NumPy"),
    (GATES | {"r": (None, U)}, {}, "'r': W has dtype object"),
    ({"r": (W, U), "z": (W, U)}, {}, r"n \(new\) once each, .* got \['r', 'z'\]"),
    (GATES | {"zn": (W, U)}, {}, "once each"),
    ({1: (W, U)}, {}, "once each"),
    (GATES | {"": (W, U)}, {}, "once each"),
    ({}, {}, "once each"),
    ([], {}, "the list of layers is empty"),
    ([GATES, (GATES, GATES)], {}, "layers of 1 and 2 directions"),
    ((GATES, GATES, GATES), {}, "layers of 3 directions"),
    ([GATES, GATES], {}, r"layer 1: weight_ih, gates stacked, has shape \(9, 2\), expected "
                         r"\(9, 3\)"),
    ([(GATES, GATES), (GATES, GATES)], {}, r"layer 1, forward: weight_ih.*expected \(9, 6\)"),
    ((GATES, GATES | {"r": (W,)}), {}, "the gates, reverse, 'r': 1 arrays"),
    (GATES, {"dtype": "float16"}, "float32 or"),
])
def test_errors(gates, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        gru_c.GRU.from_gates(gates, **PLAIN | options)


@pytest.mark.parametrize(("gates", "options", "words"), [
    (None, {}, "the gates: expected a mapping of gates to tuples of arrays, got: NoneType"),
    ([None], {}, "expected a mapping"),
    (GATES | {"r": [W, U]}, {}, "'r': expected a tuple of arrays, got: list"),
    (GATES | {"r": W}, {}, "'r': expected a tuple of arrays, got: ndarray"),
    (GATES, {"reset_after": 1}, "reset_after should be of type bool"),
    (GATES, {"hidden_size": 3}, "hidden_size is found from the parameters"),
    (GATES, {"cell": 3}, "cell"),
])
def test_wrong_types(gates, options, words):
    with pytest.raises(TypeError, match=words):
        gru_c.GRU.from_gates(gates, **PLAIN | options)


def test_what_has_to_be_said():
    for name in PLAIN:
        with pytest.raises(TypeError, match=name):
            gru_c.GRU.from_gates(GATES, **{key: PLAIN[key] for key in PLAIN if key != name})


def test_a_cell_is_one_layer_and_direction():
    for gates in ([GATES, drawn(("zrn",), "two", "W x", None, H)], (GATES, GATES)):
        with pytest.raises(ValueError, match="which a GRUCell does not have"):
            gru_c.GRUCell.from_gates(gates, **PLAIN)
