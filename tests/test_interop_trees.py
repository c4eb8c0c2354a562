"""Flax, Equinox and RTNeural, without them: files of tools/make_interop_trees.py, errors, writing.

The frameworks themselves: test_interop_trees_live.py.
"""

import contextlib
import json
import os
import tracemalloc
from collections import UserDict
from pathlib import Path

import numpy as np
import pytest
from helpers import F32, F64, error

import gru_c
from gru_c.interop import ModelFileError, rtneural

FIXTURES = Path(__file__).parent / "fixtures" / "interop"


def stored(name):
    """The nested tree of a file, x and output."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        arrays = dict(file)
    return nested({key.removeprefix("tree/"): a for key, a in arrays.items()
                   if key.startswith("tree/")}), arrays["x"], arrays["output"]


def nested(flat):
    tree = {}
    for path, a in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = a
    return tree


def same_parameters(found, expected):
    assert found.keys() == expected.keys()
    for name, a in expected.items():
        assert (found[name].dtype, found[name].tobytes()) == (a.dtype, a.tobytes()), name


def but(tree, path, value=None):
    """A copy of a nested tree with another leaf, or without it."""
    key, _, rest = path.partition("/")
    if rest:
        return tree | {key: but(tree[key], rest, value)}
    if value is None:
        return {name: a for name, a in tree.items() if name != key}
    return tree | {key: value}


def model(**options):
    options = {"input_size": 3, "hidden_size": 4, "dtype": F64, "rng": 0} | options
    return gru_c.GRU(**options)


# ---- Flax ---------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "options"), [
    ("linen_rnn", {}), ("linen_relu", {"activation": "relu"}), ("nnx_rnn", {})])
def test_flax(name, options):
    tree, x, output = stored(f"flax/{name}")
    gru = gru_c.GRU.from_flax(tree, batch_first=True, **options)
    assert gru.dtype == F64
    assert error(gru(x)[0], output) <= 1e-12
    cell = gru_c.GRUCell.from_flax(tree, **options)
    assert error(cell(x[:, 1], output[:, 0]), output[:, 1]) <= 1e-12


@pytest.mark.parametrize("name", ["linen_bidirectional", "nnx_bidirectional"])
def test_flax_directions(name):
    tree, x, output = stored(f"flax/{name}")
    both = tree.get("params", tree)
    gru = gru_c.GRU.from_flax((both["forward_rnn"], both["backward_rnn"]), batch_first=True)
    assert gru.bidirectional
    assert error(gru(x)[0], output) <= 1e-12
    one = gru_c.GRU.from_flax(tree, "params/forward_rnn" if "params" in tree else "forward_rnn",
                              batch_first=True)
    assert error(one(x)[0], output[..., :4]) <= 1e-12


def test_flax_reverse():
    tree, x, output = stored("flax/linen_reverse")
    assert error(gru_c.ReverseGRU.from_flax(tree, batch_first=True)(x)[0], output) <= 1e-12


def test_flax_layers_and_head():
    tree, x, output = stored("flax/linen_stack")
    params = tree["params"]
    with pytest.raises(ValueError, match=r"2 GRU cells; path could be 'params/\w+' or 'params/\w"):
        gru_c.GRU.from_flax(tree)
    head = params["head"]
    lower = next(name for name in params if name not in ("head", "upper"))
    gru = gru_c.GRU.from_flax([params[lower], params["upper"]], batch_first=True)
    assert gru.num_layers == 2
    assert error(gru(x)[0] @ head["kernel"] + head["bias"], output) <= 1e-12


def test_forms_of_flax_trees():
    tree, x, output = stored("flax/linen_rnn")
    cell = tree["params"]["cell"]
    leaves = {(gate, kind): a for gate, own in cell.items() for kind, a in own.items()}
    for same in (
            UserDict(params=UserDict(cell=UserDict(cell))),
            {("params", "cell", *path): a for path, a in leaves.items()},
            {f"params.cell.{'.'.join(path)}": a for path, a in leaves.items()},
            {f"cell/{'/'.join(path)}": a for path, a in leaves.items()},
            {"/".join(path): a for path, a in leaves.items()},
            {"params": {0: {"gru": cell}, "head": {"kernel": object()}}},
            {"cell": cell, "mir": {"kernel": np.ones((3, 4))}},
            {"cell": cell, "rngs": {"key": object(), "count": np.array(3)}},
            {"/".join(path): a.tolist() for path, a in leaves.items()},
            {path: type("Variable", (), {"value": a})() for path, a in leaves.items()}):
        assert error(gru_c.GRU.from_flax(same, batch_first=True)(x)[0], output) <= 1e-12
    two = {"a": {"cell": cell}, "ab": {"cell": but(cell, "ir/bias", np.ones(4))}}
    for path in ("a", "a/", "a/cell", "/a/cell/", "a.cell"):
        assert error(gru_c.GRU.from_flax(two, path, batch_first=True)(x)[0], output) <= 1e-12


LINEN = stored("flax/linen_rnn")[0]
CELL = LINEN["params"]["cell"]
NNX = stored("flax/nnx_rnn")[0]


@pytest.mark.parametrize(("source", "path", "words"), [
    (but(LINEN, "params/cell/hz/kernel"), "",
     "missing 'params/cell/hz/kernel' of a GRUCell of linen; there are 'params/cell/h"),
    (but(LINEN, "params/cell/in"), "", "missing 'params/cell/in/kernel', 'params/cell/in/bias'"),
    (but(CELL, "hr/bias", np.ones(4)), "", "unexpected 'hr/bias' of a GRUCell of linen"),
    (but(NNX, "cell/dense_i/bias"), "", "missing 'cell/dense_i/bias' of a GRUCell of nnx"),
    (but(NNX, "cell/dense_h/bias", np.ones(12)), "", "unexpected 'cell/dense_h/bias'"),
    (but(CELL, "hr/kernel", np.ones((3, 4))), "", r"'r': expected W and U of shape \(I, H\) and "
                                                  r"\(H, H\).*got \(3, 4\) and \(3, 4\)"),
    (but(CELL, "ir/kernel", np.ones((2, 4))), "", r"W of different shapes, as for W x: r \(4, 2\)"),
    (but(CELL, "ir/bias", np.ones(5)), "", r"'r': a bias has shape \(5,\), expected \(4,\)"),
    (but(CELL, "ir/bias", np.ones(4, int)), "", "ir/bias has dtype int64, expected a floating"),
    (LINEN, "params/other", "no GRU cell below 'params/other'; there are 'params/cell/"),
    ({"a": CELL, "ab": CELL}, "", "2 GRU cells; path could be 'a' or 'ab'"),
    ({"x": {"a": CELL, "b": CELL}}, "x", "2 GRU cells below 'x'; path could be 'x/a' or 'x/b'"),
    ({"Dense_0": {"kernel": np.ones((3, 4))}}, "", "no GRU cell; there are 'Dense_0/kernel'"),
    ({}, "", "no GRU cell; there are no parameters"),
    ([CELL, CELL], "", r"layer 1: weight_ih, gates stacked, has shape \(12, 3\), expected "
                       r"\(12, 4\)"),
    ((CELL, but(CELL, "hn/bias")), "", "the tree, reverse: missing 'hn/bias'"),
])
def test_wrong_flax_trees(source, path, words):
    with pytest.raises(ValueError, match=words):
        gru_c.GRU.from_flax(source, path)


def test_wrong_types():
    with pytest.raises(TypeError, match=r"expected a mapping .*, got: ndarray \(nnx.state"):
        gru_c.GRU.from_flax(np.ones(3))
    with pytest.raises(TypeError, match="expected a mapping"):
        gru_c.GRU.from_flax([CELL, None])
    for read, source in ((gru_c.GRU.from_flax, CELL), (gru_c.GRU.from_equinox, EQUINOX),
                         (gru_c.GRU.from_rtneural, LAYERS)):
        with pytest.raises(TypeError, match="reset_after"):
            read(source, reset_after=False)
        with pytest.raises(TypeError, match="hidden_size is found"):
            read(source, hidden_size=4)


# ---- Equinox ------------------------------------------------------------------------------------

EQUINOX = stored("equinox/gru")[0]


@pytest.mark.parametrize("name", ["gru", "no_bias"])
def test_equinox(name):
    arrays, x, output = stored(f"equinox/{name}")
    cell = type("Cell", (), {"bias": None, "bias_n": None, "input_size": 3} | arrays)()
    for source in (arrays, cell, {"bias": None, "bias_n": None, "use_bias": True} | arrays):
        gru = gru_c.GRU.from_equinox(source)
        assert gru.bias == (name == "gru")
        assert error(gru(x)[0], output) <= 1e-12
        one = gru_c.GRUCell.from_equinox(source)
        assert error(one(x[1], output[0]), output[1]) <= 1e-12


@pytest.mark.parametrize(("source", "words"), [
    (but(EQUINOX, "weight_hh"), "missing 'weight_hh'; there are 'weight_ih', 'bias', 'bias_n'"),
    (but(EQUINOX, "bias_n"), "missing 'bias_n'"),
    (EQUINOX | {"bias": None}, "missing 'bias'"),
    (EQUINOX | {"bias_hh": 0}, "unknown 'bias_hh'"),
    ({}, "missing 'weight_ih', 'weight_hh'; there are no arrays in a dict"),
    (3.0, "there are no arrays in a float"),
    (EQUINOX | {"weight_ih": np.ones((16, 3))}, r"'rzn': expected W and U of shape \(3 H, I\)"),
    (EQUINOX | {"bias": np.ones(4)}, r"a bias has shape \(4,\), expected \(12,\)"),
    (EQUINOX | {"bias_n": np.ones(3)}, r"bias_n has shape \(3,\), expected \(4,\)"),
    ([EQUINOX, EQUINOX | {"weight_ih": None}], "layer 1: missing 'weight_ih'"),
])
def test_wrong_equinox_cells(source, words):
    with pytest.raises(ValueError, match=words):
        gru_c.GRU.from_equinox(source)


# ---- to Flax and Equinox ------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("kind", ["flax", "equinox"])


def through(kind, gru, **options):
    read = getattr(type(gru), f"from_{kind}")
    return read(getattr(gru, f"to_{kind}")(), **options)


@BOTH
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True},
                                     {"num_layers": 2, "bidirectional": True}], ids=str)
def test_round_trip(kind, options, bias):
    """Results are the same; the two biases of r and z are added up."""
    gru = model(**options, bias=bias)
    again = through(kind, gru)
    x = np.random.default_rng(0).normal(size=(5, 2, 3))
    assert error(again(x)[0], gru(x)[0]) <= 1e-12
    old, new = gru.state_dict(), again.state_dict()
    if not bias and kind == "flax":
        new = {name: a for name, a in new.items() if "weight" in name}
    for name, a in old.items():
        if "weight" in name:
            assert a.tobytes() == new[name].tobytes()
        elif "bias_ih" in name:
            b = old[name.replace("ih", "hh")]
            np.testing.assert_array_equal(new[name], a + np.where(np.arange(12) < 8, b, 0))
        else:
            np.testing.assert_array_equal(new[name], np.where(np.arange(12) < 8, 0, a))
    assert new.keys() == old.keys()
    same_parameters(through(kind, again).state_dict(), again.state_dict())


@BOTH
def test_what_comes_back(kind):
    """What the framework wrote, bit for bit; a cell; float32."""
    tree = CELL if kind == "flax" else EQUINOX
    cell = getattr(gru_c.GRUCell, f"from_{kind}")(tree, dtype=F32)
    written = getattr(cell, f"to_{kind}")()
    flat = {(kind, name): a for kind, own in written.items()
            for name, a in (own.items() if isinstance(own, dict) else {"": own}.items())}
    for (own, name), a in flat.items():
        expected = tree[own][name] if name else tree[own]
        assert (a.dtype, a.tobytes()) == (F32, expected.astype(F32).tobytes())
    assert sorted(written) == sorted(tree)


REFUSED = [
    ({"reset_after": False}, "has reset_after=False, which .* cannot hold: it has reset_after="),
    ({"activation": "relu"}, "has activation='relu'"),
    ({"recurrent_activation": "hard_sigmoid"}, "has recurrent_activation='hard_sigmoid'"),
    ({"clip": 2.0}, "has clip=2.0"),
]


@BOTH
@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_what_a_cell_cannot_hold(kind, options, words):
    with pytest.raises(ValueError, match=words):
        getattr(model(**options), f"to_{kind}")()
    with pytest.raises(ValueError, match="the ReverseGRU has reverse=True"):
        getattr(gru_c.ReverseGRU(3, 4), f"to_{kind}")()


# ---- RTNeural -----------------------------------------------------------------------------------

FILE = FIXTURES / "rtneural" / "layers.json"
LAYERS = json.loads((FIXTURES / "rtneural" / "layers.json").read_text())
LAYERS = LAYERS | {"layers": [LAYERS["layers"][1]]}
GRU = LAYERS["layers"][0]


def written(tmp_path, value):
    """A file of text, or of JSON."""
    path = tmp_path / "model.json"
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


def test_rtneural_layers():
    """A whole model: dense and tanh, two GRUs, dense."""
    _, x, output = stored("rtneural/layers")
    arrays = rtneural.read_arrays(FILE, 10**6)
    assert list(arrays)[:3] == ["layers.0.weights.0", "layers.0.weights.1", "layers.1.weights.0"]
    gru = gru_c.GRU.from_rtneural(FILE, layer=[1, 2], dtype=F64)
    hidden = np.tanh(x @ arrays["layers.0.weights.0"] + arrays["layers.0.weights.1"])
    found = gru(hidden)[0] @ arrays["layers.3.weights.0"] + arrays["layers.3.weights.1"]
    assert error(found, output) <= 1e-12
    assert gru_c.GRU.from_rtneural(FILE, layer=[1, 2]).dtype == F32
    first, second = rtneural.find(FILE, 10**6)
    assert (first.name, second.name, first.convention) == ("1", "2", "RTNeural")
    assert first.arrays == tuple(f"layers.1.weights.{k}" for k in range(3))
    one = gru_c.GRU.from_rtneural(str(FILE), layer=1, dtype=F64)
    assert (one.weight_hh_l0 == gru.weight_hh_l0).all()
    assert gru_c.GRUCell.from_rtneural(FILE, layer=2).input_size == 4


def test_rtneural_state_dict(tmp_path):
    _, x, output = stored("rtneural/state_dict")
    path = FIXTURES / "rtneural" / "state_dict.json"
    state = json.loads(path.read_text())
    nested = written(tmp_path, {"model_data": {"unit_type": "GRU"}, "state_dict": state})
    arrays = {name: np.array(a) for name, a in state.items()}
    for source in (path, bytes(path), nested, state, arrays):
        for layer in (None, "rec."):
            gru = gru_c.GRU.from_rtneural(source, layer, dtype=F64)
            assert error(gru(x)[0], output) <= 1e-12
    found, = rtneural.find(path, 10**6)
    assert found.name == "rec."
    assert set(state) - set(found.arrays) == {"lin.weight", "lin.bias"}
    assert list(rtneural.read_arrays(nested, 10**6)) == list(state)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bias": False}, {"dtype": F32}],
                         ids=str)
def test_rtneural_round_trip(tmp_path, options):
    """The bits of the parameters. Without biases, those of the file are zeros."""
    gru, path = model(**options), tmp_path / "model.json"
    gru.to_rtneural(path)
    again = gru_c.GRU.from_rtneural(path, layer=[*range(gru.num_layers)])
    expected = gru.state_dict()
    if not gru.bias:
        expected |= {name: np.zeros(12) for name in ("bias_ih_l0", "bias_hh_l0")}
    same_parameters(again.state_dict(), expected)
    assert json.loads(path.read_text())["in_shape"] == [None, None, 3]


def test_rtneural_writes_what_it_read(tmp_path):
    path = tmp_path / "model.json"
    gru_c.GRU.from_rtneural(FILE, layer=[1, 2]).to_rtneural(path)
    layers = json.loads(path.read_text())["layers"]
    assert layers == json.loads(FILE.read_text())["layers"][1:3]
    gru_c.GRUCell.from_rtneural(FILE, layer=2).to_rtneural(path)
    assert json.loads(path.read_text())["layers"] == layers[1:]


@pytest.mark.parametrize(("options", "words"), [
    *REFUSED, ({"bidirectional": True}, "has bidirectional=True, which RTNeural cannot hold")])
def test_what_rtneural_cannot_hold(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        model(**options).to_rtneural(tmp_path / "model.json")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_json_cannot_hold(tmp_path, value):
    gru = model()
    gru.bias_ih_l0 = np.full(12, value)
    with pytest.raises(ValueError, match="parameters that are NaN or infinite"):
        gru.to_rtneural(tmp_path / "model.json")


def weights(*shapes):
    return {"layers": [GRU | {"weights": [np.ones(shape).tolist() for shape in shapes]}]}


@pytest.mark.parametrize(("value", "layer", "words"), [
    (weights((2, 12), (4, 12), (12,)), None, r"layer 0: weights of shapes \(2, 12\), \(4, 12\), "
                                             r"\(12,\), expected \(I, 3 H\), \(H, 3 H\), \(2, 3"),
    (weights((2, 12), (4, 12)), None, "weights of shapes"),
    (weights((2, 16), (4, 16), (2, 16)), None, "weights of shapes"),
    (weights((2, 9), (4, 12), (2, 12)), None, "weights of shapes"),
    (weights((0, 12), (4, 12), (2, 12)), None, "weights of shapes|expected W and U"),
    (weights(), None, "weights of shapes none"),
    ({"layers": [GRU | {"weights": 3}]}, None, "layer 0: weights is a number, expected an array"),
    ({"layers": [GRU | {"activation": "relu"}]}, None, "activation='relu', but a GRU of RTNeural"),
    ({"layers": [GRU, {"type": "dense"}]}, 1, "layer=1, but the layers are '0: gru', '1: dense'"),
    ({"layers": [GRU, GRU]}, None, "layer=None, but the layers are '0: gru', '1: gru'"),
    ({"layers": [GRU, GRU]}, [1, 0], r"layer=\[1, 0\], but"),
    ({"layers": [GRU, GRU]}, [], r"layer=\[\], but"),
    ({"layers": [GRU, GRU]}, 2, "layer=2, but"),
    ({"layers": [GRU, GRU]}, "0", "layer='0', but"),
    ({"layers": [GRU, GRU]}, [[0]], "but the layers are"),
    ({"layers": [GRU, GRU]}, [0, 1], "layer 1: weight_ih|expected"),
    ({"layers": []}, None, "the layers are none"),
    ({"layers": {}}, None, "layers is not an array of objects"),
    ({"layers": [3]}, None, "layers is not an array of objects"),
    ({"state_dict": []}, None, "state_dict is an array, expected an object"),
    ({"weight_ih_l0": [1.0]}, 0, "layer must be a prefix of its names, got 0"),
    ({"weight_ih_l0": [1.0]}, None, "missing 'weight_hh_l0'"),
    ({"a.weight_ih_l0": "text"}, "a.", "a.weight_ih_l0 is not an array of numbers"),
    ({"a": [None]}, None, "a has a number that is missing or not finite"),
    ({"a": {}}, None, "a is not an array of numbers"),
    ({"a": [[1.0], [1.0, 2.0]]}, None, "a is not an array of numbers"),
    ({}, None, "it is empty"),
])
def test_wrong_models_of_rtneural(tmp_path, value, layer, words):
    with pytest.raises(ValueError, match=words) as raised:
        gru_c.GRU.from_rtneural(value, layer)
    assert str(raised.value).startswith("the mapping")
    path = written(tmp_path, value)
    with pytest.raises(ModelFileError, match=words) as raised:
        gru_c.GRU.from_rtneural(path, layer)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize(("text", "words"), [
    (b"", "no valid JSON"),
    (b"[1, 2]", "expected a JSON object, got an array"),
    (b"3", "expected a JSON object, got a number"),
    (b'{"a": [1, 2}', "no valid JSON"),
    (b'{"a": [NaN]}', "NaN is not a number of JSON"),
    (b'{"a": [-Infinity]}', "-Infinity is not a number"),
    (b'{"a": [1e999]}', "not finite"),
    (b'{"a": [' + b"9" * 10**5 + b"]}", "not finite"),
    (b'{"a": ' + b"[" * 10**4, "nested too deeply|no valid JSON"),
    (b'{"a": ' + b"[" * 100 + b"1" + b"]" * 100 + b"}", "not an array of numbers"),
    (b'{"a": "\xff"}', "no valid JSON"),
    (b'\x89HDF\r\n\x1a\n', "no valid JSON"),
    (b'{"layers": [{"type": "gru", "weights": [' + b"[1]," * 10**3 + b"[1]]}]}", "weights of shap"),
])
def test_files_that_are_no_models(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(ModelFileError, match=words) as raised:
        gru_c.GRU.from_rtneural(path)
    assert str(raised.value).startswith(str(path))
    for read in (rtneural.find, rtneural.read_arrays):     # which may have nothing to refuse
        with contextlib.suppress(ModelFileError):
            read(path, 10**6)


def test_max_bytes(tmp_path):
    size = FILE.stat().st_size
    assert len(rtneural.find(FILE, 3 * size)) == 2
    for limit in (1, size - 1):
        for read in (rtneural.find, rtneural.read_arrays):
            with pytest.raises(ModelFileError, match=f"needs more than max_bytes={limit}; raise"):
                read(FILE, limit)


@pytest.mark.parametrize(("text", "allowed"), [
    (b'{"a": [' + b"{}," * 1000 + b"{}]}", 80_000),        # objects are larger than their text
    (b'{"a": "' + b"a" * 1000 + b'"}', 1000),
])
def test_max_bytes_of_what_is_parsed(tmp_path, text, allowed):
    path = written(tmp_path, text)
    with pytest.raises(ModelFileError, match="needs more than max_bytes"):
        gru_c.GRU.from_rtneural(path, max_bytes=allowed)
    with pytest.raises(ModelFileError, match="a is not an array of numbers"):
        gru_c.GRU.from_rtneural(path, max_bytes=2 * allowed)


def test_a_large_file_is_not_read(tmp_path):
    path = written(tmp_path, b"")
    os.truncate(path, 10**8)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError, match="needs more than max_bytes=1000"):
            gru_c.GRU.from_rtneural(path, max_bytes=1000)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        gru_c.GRU.from_rtneural(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError):
        model().to_rtneural(tmp_path / "none" / "model.json")


@pytest.mark.parametrize("count", [1, 2])
def test_a_tree_that_holds_itself(count):
    tree = {}
    tree |= {str(i): tree for i in range(count)}
    with pytest.raises(ValueError, match="the tree: it is too deep or too large, or holds itself"):
        gru_c.GRU.from_flax(tree)
