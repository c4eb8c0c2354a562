"""Models of Keras: files that Keras 2 and 3 wrote, with the results of Keras stored beside them,
lists of weights, stand-ins of layers, and what is written. Keras is not needed.

tools/make_interop_keras.py made the fixtures; test_interop_keras_live.py asks Keras itself.
"""

import base64
import io
import json
import marshal
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

import gru_c
from gru_c import interop
from gru_c.gru import ReverseGRU
from gru_c.interop import keras
from gru_c.interop.containers import hdf5
from gru_c.interop.found import described
from gru_c.interop.keras import config

FIXTURES = Path(__file__).parent / "fixtures" / "interop" / "keras"
CLOSE = {"rtol": 0, "atol": 1e-6}
LIMIT = 2**32
FILTER = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}     # from 3.11.4 on


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of both versions: 2/one.keras, 3/one.keras, ..."""
    found = tmp_path_factory.mktemp("keras")
    for major in "23":
        with tarfile.open(FIXTURES / f"keras{major}.tar.xz") as archive:
            archive.extractall(found / major, **FILTER)
        for suffix in ("keras", "h5"):
            shutil.copy(FIXTURES / f"keras{major}.{suffix}", found / major / f"one.{suffix}")
    return found


def stored(major):
    with np.load(FIXTURES / f"keras{major}.npz") as arrays:
        return dict(arrays)


def output_of(model, x, **options):
    """As Keras gives it: go_backwards in the order computed."""
    output, h_n = model.eval()(x, **options)
    return (output[:, ::-1] if isinstance(model, ReverseGRU) else output), h_n


# ---- files of Keras ------------------------------------------------------------------------------

LAYERS = ["encoder/first", "encoder/second", "after", "before", "no_bias", "no_bias_before",
          "backwards", "hard", "leaky", "both", "both_before", "summed/forward_c",
          "summed/backward_c", "one_cell", "stacked", "each/inner/steps"]
FILES = ["everything.keras", "everything.h5"]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("major", "23")
def test_files_give_the_results_of_keras(folder, major, file, name):
    results = stored(major)
    model = gru_c.GRU.from_keras(folder / major / file, name)
    x = {"encoder/second": results.get("encoder/first"),
         "each/inner/steps": results["x"][:, :, :1]}.get(name, results["x"])
    output, h_n = output_of(model, x)
    if name == "each/inner/steps":                         # no return_sequences
        np.testing.assert_allclose(h_n[0], results[name], **CLOSE)
    else:
        np.testing.assert_allclose(output, results[name], **CLOSE)
    assert model.batch_first
    assert model.dtype == np.float32


@pytest.mark.parametrize("major", "23")
def test_hard_sigmoid_is_that_of_the_version(folder, major):
    """A regression of many converters: 0.2 x + 0.5 in Keras 2, x / 6 + 0.5 in Keras 3."""
    model = gru_c.GRU.from_keras(folder / major / "everything.h5", "hard")
    assert model.recurrent_activation.alpha == (0.2 if major == "2" else 1 / 6)
    assert model.activation.name == "softsign"


@pytest.mark.parametrize("major", "23")
def test_masks(folder, major):
    results = stored(major)
    mask = results["mask"]
    for name in ("after", "before", "backwards", "both"):
        model = gru_c.GRU.from_keras(folder / major / "everything.keras", name)
        output, _ = output_of(model, results["x"], mask=mask)
        if name == "both":                                 # zero_output_for_mask
            output = output * mask[:, :, None]
        np.testing.assert_allclose(output, results[f"masked/{name}"], **CLOSE)


@pytest.mark.parametrize("major", "23")
def test_summed_directions_by_name(folder, major):
    """What the error of another merge mode says: read two models and merge."""
    path, results = folder / major / "everything.keras", stored(major)
    with pytest.raises(interop.ModelFileError, match="merge_mode='sum'") as caught:
        gru_c.GRU.from_keras(path, "summed")
    names = [name for name in str(caught.value).split("'") if name.startswith("summed/")]
    models = [gru_c.GRU.from_keras(path, name) for name in names]
    assert [type(model) for model in models] == [gru_c.GRU, ReverseGRU]
    merged = sum(model(results["x"])[0] for model in models)
    np.testing.assert_allclose(merged, results["summed"], **CLOSE)


@pytest.mark.parametrize("major", "23")
def test_dropout_and_leaky_relu(folder, major):
    model = gru_c.GRU.from_keras(folder / major / "everything.h5", "leaky")
    assert (model.input_dropout, model.recurrent_dropout) == (0.5, 0.25)
    assert not model.training
    assert model.activation.argument == {"name": "leaky_relu", "alpha": 0.125}
    without = gru_c.GRU.from_keras(folder / major / "everything.h5", "leaky", input_dropout=0.0,
                                   recurrent_dropout=0.0)
    assert without.training


@pytest.mark.parametrize("name", ["one.keras", "one.h5"])
@pytest.mark.parametrize("major", "23")
def test_the_only_gru_needs_no_name(folder, major, name):
    path, results = folder / major / name, stored(major)
    model = gru_c.GRU.from_keras(path)
    np.testing.assert_allclose(model(results["x"])[0], results["only"], **CLOSE)
    assert [found.name for found in keras.find(path, LIMIT)] == ["only"]
    double = gru_c.GRU.from_keras(path, dtype=np.float64)
    np.testing.assert_allclose(double(results["x"].astype(float))[0], results["only"], **CLOSE)


def test_a_cell(folder):
    results = stored("3")
    cell = gru_c.GRUCell.from_keras(folder / "3" / "one.keras")
    h = np.zeros((2, 4), np.float32)
    for t in range(5):
        h = cell(np.ascontiguousarray(results["x"][:, t]), h)
        np.testing.assert_allclose(h, results["only"][:, t], **CLOSE)
    with pytest.raises(ValueError, match="reverse=True"):
        gru_c.GRUCell.from_keras(folder / "3" / "everything.keras", "backwards")


def test_cudnn_of_keras_2(folder):
    results = stored("2")
    model = gru_c.GRU.from_keras(folder / "2" / "cudnn.h5")
    np.testing.assert_allclose(model(results["x"])[0], results["cudnn"], **CLOSE)
    assert model.reset_after
    arrays = list(keras.read_arrays(folder / "2" / "cudnn.h5", LIMIT).values())
    bias, kernel, recurrent = arrays                       # by name
    same_arrays(gru_c.GRU.from_keras([kernel, recurrent, bias]), model)


def test_bfloat16(folder):
    path, results = folder / "3" / "bfloat16.weights.h5", stored("3")
    expected = gru_c.GRU.from_keras([results[f"bfloat16/{i}"] for i in range(3)])
    same_arrays(gru_c.GRU.from_keras(path), expected)
    arrays = keras.read_arrays(path, LIMIT)
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.float32)}


def same_arrays(model, expected):
    expected = expected.state_dict()
    assert list(model.state_dict()) == list(expected)
    for name, a in model.state_dict().items():
        np.testing.assert_array_equal(a, expected[name])


# ---- weights without a configuration -------------------------------------------------------------

BY_GROUPS_2 = {"first": "sequential/gru", "after": "gru", "backwards": "gru_4",
               "both_before": "bidirectional_1", "one_cell": "rnn"}
WEIGHTS = [("3", "everything.weights.h5", {}), ("2", "everything_weights.h5", {}),
           ("2", "everything.weights.h5", BY_GROUPS_2)]


@pytest.mark.parametrize(("major", "file", "names"), WEIGHTS)
def test_weights_alone(folder, major, file, names):
    """Options are keywords; names are those of layers, or, in Keras 2's .weights.h5, of groups."""
    path, whole = folder / major / file, folder / major / "everything.keras"
    for name in ("first", "after", "both_before", "one_cell"):
        model = gru_c.GRU.from_keras(path, names.get(name, name))
        same_arrays(model, gru_c.GRU.from_keras(whole, name))
        assert model.bidirectional == (name == "both_before")
    model = gru_c.GRU.from_keras(path, names.get("backwards", "backwards"), go_backwards=True,
                                 recurrent_activation="hard_sigmoid")
    assert isinstance(model, ReverseGRU)
    assert model.recurrent_activation.name == "hard_sigmoid"
    same_arrays(model, gru_c.GRU.from_keras(whole, "backwards"))
    with pytest.raises(interop.ModelFileError, match="16 GRUs; choose one with layer=: "):
        gru_c.GRU.from_keras(path)


def test_one_direction_of_weights_alone(folder):
    path = folder / "3" / "everything.weights.h5"
    found = {found.name: found for found in keras.find(path, LIMIT)}
    assert found["summed"].options["bidirectional"]        # the file does not tell the merge mode
    model = gru_c.GRU.from_keras(path, "summed/backward_c")
    assert isinstance(model, ReverseGRU)
    same_arrays(model, gru_c.GRU.from_keras(folder / "3" / "everything.keras", "backward_c"))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("major", "23")
def test_find_and_read_arrays(folder, major, file):
    path = folder / major / file
    names = [found.name for found in keras.find(path, LIMIT)]
    assert names == LAYERS
    arrays = keras.read_arrays(path, LIMIT)
    dense = [a for name, a in arrays.items() if "dense" in name and a.shape == (3, 12)]
    assert len(dense) == 1


def test_a_layer_that_cannot_be_read_beside_others(tmp_path, folder):
    """It is told, not left out in silence."""
    def another(layers):
        layers.append(serialized(name="other", activation="gelu"))

    path = with_config(folder, tmp_path / "model.keras", another)
    with pytest.warns(UserWarning, match="left out: .*model.keras, layer 'other': activation is"):
        assert [found.name for found in keras.find(path, LIMIT)] == ["only"]
    path = with_config(folder, path, lambda layers: layers[1]["config"].update(activation="gelu"))
    with pytest.raises(interop.ModelFileError, match="layer 'only': activation is 'gelu'"):
        keras.find(path, LIMIT)


# ---- lists of weights ----------------------------------------------------------------------------

def arrays_of(rng, H=4, inputs=3, bias="after", dtype=np.float32):
    shapes = {"after": [(2, 3 * H)], "before": [(3 * H,)], None: []}[bias]
    return [rng.standard_normal(shape).astype(dtype)
            for shape in ((inputs, 3 * H), (H, 3 * H), *shapes)]


def in_numpy(arrays, x, h, reset_after):
    """Keras's GRUCell, word for word: gates z, r, h."""
    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    kernel, recurrent, *bias = (a.astype(float) for a in arrays)
    H = len(recurrent)
    bias = bias[0] if bias else np.zeros((2, 3 * H))
    input_bias, recurrent_bias = bias if bias.ndim == 2 else (bias, np.zeros(3 * H))
    outputs = []
    for x_t in x.swapaxes(0, 1):
        x_z, x_r, x_h = np.split(x_t @ kernel + input_bias, 3, axis=1)
        if reset_after:
            h_z, h_r, h_h = np.split(h @ recurrent + recurrent_bias, 3, axis=1)
            r = sigmoid(x_r + h_r)
            candidate = np.tanh(x_h + r * h_h)
        else:
            h_z, h_r = np.split(h @ recurrent[:, :2 * H], 2, axis=1)
            r = sigmoid(x_r + h_r)
            candidate = np.tanh(x_h + (r * h) @ recurrent[:, 2 * H:])
        z = sigmoid(x_z + h_z)
        h = z * h + (1 - z) * candidate
        outputs.append(h)
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize(("bias", "after"), [("after", True), ("before", False), (None, True),
                                             (None, False)])
def test_lists_against_numpy(bias, after):
    """The second bias row, and the order of gates and biases."""
    rng = np.random.default_rng(0)
    arrays = arrays_of(rng, bias=bias, dtype=np.float64)
    x, h_0 = rng.standard_normal((2, 5, 3)), rng.standard_normal((1, 2, 4))
    options = {} if bias else {"reset_after": after}
    model = gru_c.GRU.from_keras(arrays, **options)
    assert (model.reset_after, model.bias, model.dtype) == (after, bool(bias), np.float64)
    expected = in_numpy(arrays, x, h_0[0], after)
    np.testing.assert_allclose(model(x, h_0)[0], expected, rtol=0, atol=1e-12)
    backwards = gru_c.GRU.from_keras(arrays, go_backwards=True, **options)
    expected = in_numpy(arrays, x[:, ::-1], h_0[0], after)
    np.testing.assert_allclose(backwards(x, h_0)[0][:, ::-1], expected, rtol=0, atol=1e-12)
    both = gru_c.GRU.from_keras(arrays + arrays, **options)
    np.testing.assert_allclose(both(x, np.repeat(h_0, 2, 0))[0][:, ::-1, 4:], expected, rtol=0,
                               atol=1e-12)


def test_a_row_that_is_all_masked():
    """Its output is zeros and its state the first one; the other row is as it is alone."""
    rng = np.random.default_rng(0)
    model = gru_c.GRU.from_keras(arrays_of(rng, dtype=np.float64))
    x, h_0 = rng.standard_normal((2, 5, 3)), rng.standard_normal((1, 2, 4))
    mask = np.array([[False] * 5, [True] * 5])
    output, h_n = model(x, h_0, mask=mask)
    assert not output[0].any()
    np.testing.assert_array_equal(h_n[0, 0], h_0[0, 0])
    alone, _ = model(x[1:], h_0[:, 1:])
    np.testing.assert_allclose(output[1:], alone, rtol=0, atol=1e-15)


def test_no_state_is_zeros_and_the_bias_of_the_state_counts():
    """Of all directions, and of a cell: the second row of the bias acts in the first step, too."""
    rng = np.random.default_rng(0)
    arrays = arrays_of(rng, dtype=np.float64)
    x = rng.standard_normal((2, 1, 3))
    expected = in_numpy(arrays, x, np.zeros((2, 4)), True)
    other = in_numpy([*arrays[:2], arrays[2] * [[1], [0]]], x, np.zeros((2, 4)), True)
    assert np.abs(expected - other).max() > 0.1
    both = gru_c.GRU.from_keras(arrays + arrays)
    np.testing.assert_allclose(both(x)[0], np.tile(expected, 2), rtol=0, atol=1e-12)
    cell = gru_c.GRUCell.from_keras(arrays)
    np.testing.assert_allclose(cell(x[:, 0]), expected[:, 0], rtol=0, atol=1e-12)


def test_parameters_of_pytorch_in_keras():
    """The order of gates and of the two biases: Keras's equations give PyTorch's results."""
    folder = FIXTURES.parent / "torch"
    gru = gru_c.GRU.from_torch(folder / "zip_float64.pt")
    with np.load(folder / "results.npz") as results:
        x, output = results["zip_float64/x"], results["zip_float64/output"]
    found = in_numpy(gru.to_keras(), x.swapaxes(0, 1), np.zeros((2, 4)), True)
    np.testing.assert_allclose(found.swapaxes(0, 1), output, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("change", "options", "error"), [
    (lambda a: a[:1], {}, "has 1 arrays"),
    (lambda a: a + a[:2], {}, "has 5 arrays"),
    (lambda a: a, {"reset_after": False}, r"reset_after=False, but its bias has shape \(2, 12\)"),
    (lambda a: [*a[:2], a[2][0]], {"reset_after": True}, r"reset_after=True, but its bias"),
    (lambda a: [a[1], a[0], a[2]], {}, "expected kernel"),
    (lambda a: [a[0].T, a[1].T, a[2]], {}, "expected kernel"),
    (lambda a: [a[0][:, :9], a[1][:, :9], a[2]], {}, "expected kernel"),
    (lambda a: [*a[:2], a[2].astype(int)], {}, "bias has dtype int64"),
    (lambda a: [*a, a[1], *a[1:]], {}, "beside those of the first"),
    (lambda a: a + a, {"go_backwards": True}, "go_backwards=True is of one direction"),
    (lambda a: a, {"hidden_size": 4}, "hidden_size is found from the parameters"),
    (lambda a: a, {"layer": "gru"}, "selects a layer of a file"),
    (lambda a: 3, {}, "source should be"),
])
def test_lists_that_are_refused(change, options, error):
    arrays = change(arrays_of(np.random.default_rng(0)))
    with pytest.raises((ValueError, TypeError), match=error):
        gru_c.GRU.from_keras(arrays, **options)


# ---- layers --------------------------------------------------------------------------------------

class Layer:
    """Stands for a layer of Keras: a subclass by the name of the class that it stands for."""

    name = "gru"

    def __init__(self, arrays, **config):
        self.arrays, self.config = arrays, {"name": "gru", "units": 4, **config}

    def get_config(self):
        return self.config

    def get_weights(self):
        return self.arrays


class GRU(Layer):
    pass


class Bidirectional(Layer):
    pass


def serialized(class_name="GRU", **config):
    return {"class_name": class_name, "config": {"name": "gru", "units": 4, **config}}


def test_layers():
    arrays = arrays_of(np.random.default_rng(0))
    model = gru_c.GRU.from_keras(GRU(arrays, go_backwards=True, activation="relu"))
    assert isinstance(model, ReverseGRU)
    assert model.activation.name == "relu"
    same_arrays(model, gru_c.GRU.from_keras(arrays))
    model = gru_c.GRU.from_keras(GRU(arrays, time_major=True))
    assert not model.batch_first
    both = gru_c.GRU.from_keras(Bidirectional(arrays + arrays, layer=serialized()))
    assert both.bidirectional
    with pytest.raises(ValueError, match="no weights yet"):
        gru_c.GRU.from_keras(GRU([]))
    with pytest.raises(ValueError, match="units=4, use_bias=False"):
        gru_c.GRU.from_keras(GRU(arrays, use_bias=False))
    with pytest.raises(ValueError, match="go_backwards=True, but its configuration says False"):
        gru_c.GRU.from_keras(GRU(arrays), go_backwards=True)
    with pytest.raises(ValueError, match="the Layer is not a layer that holds one GRU"):
        gru_c.GRU.from_keras(Layer(arrays))


@pytest.mark.parametrize(("config", "error"), [
    ({"merge_mode": "ave"}, "merge_mode='ave'"),
    ({"merge_mode": None}, "merge_mode=None"),
    ({"layer": serialized(go_backwards=True)}, "go_backwards=True"),
    ({"backward_layer": serialized(go_backwards=False)}, "go_backwards=True"),
    ({"backward_layer": serialized(go_backwards=True, reset_after=True, activation="relu")},
     "differ in activation"),
    ({"backward_layer": serialized(go_backwards=True, reset_after=False)},
     "differ in reset_after"),
    ({"layer": serialized("RNN", cell=serialized("StackedRNNCells", cells=[
        serialized("GRUCell"), serialized("GRUCell")]))}, "stacked cells"),
])
def test_bidirectional_layers_that_are_refused(config, error):
    arrays = arrays_of(np.random.default_rng(0))
    layer = Bidirectional(arrays + arrays, **{"layer": serialized(reset_after=True), **config})
    with pytest.raises(ValueError, match=error) as caught:
        gru_c.GRU.from_keras(layer)
    assert "'forward_gru' and 'backward_gru'" in str(caught.value)


ACTIVATIONS = [
    ("linear", "linear"), (None, "linear"), ("elu", "elu"), ("softplus", "softplus"),
    ("leaky_relu", {"name": "leaky_relu", "alpha": 0.2}),
    ({"class_name": "function", "config": "tanh", "registered_name": "function"}, "tanh"),
    ({"class_name": "LeakyReLU", "config": {}}, {"name": "leaky_relu", "alpha": 0.3}),
    ({"class_name": "LeakyReLU", "config": {"alpha": 0.1}}, {"name": "leaky_relu", "alpha": 0.1}),
    ({"class_name": "ELU", "config": {"alpha": 0.5}}, {"name": "elu", "alpha": 0.5}),
    ({"class_name": "ReLU", "config": {"max_value": None}}, "relu"),
    ({"class_name": "ReLU", "config": {"negative_slope": 0.1}},
     {"name": "leaky_relu", "alpha": 0.1}),
    ({"class_name": "ReLU", "config": {"threshold": 0.5}},
     {"name": "thresholded_relu", "alpha": 0.5}),
    ({"class_name": "ThresholdedReLU", "config": {"theta": 0.5}},
     {"name": "thresholded_relu", "alpha": 0.5}),
    ({"class_name": "Activation", "config": {"activation": "relu"}}, "relu"),
]


@pytest.mark.parametrize(("value", "expected"), ACTIVATIONS)
def test_activations(value, expected):
    assert config.activation(value, "activation", 3) == expected


@pytest.mark.parametrize("value", [
    "gelu", "relu6", 3, ["tanh"], {"class_name": "PReLU", "config": {}}, {},
    {"class_name": "ReLU", "config": {"max_value": 6.0}},
    {"class_name": "ReLU", "config": {"negative_slope": 0.1, "threshold": 0.5}},
    {"class_name": "function", "config": "relu", "registered_name": "mine>relu"}])
def test_activations_that_are_refused(value):
    arrays = arrays_of(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"recurrent_activation is .*, which a GRU does not have"):
        gru_c.GRU.from_keras(GRU(arrays, recurrent_activation=value))
    model = gru_c.GRU.from_keras(GRU(arrays, recurrent_activation=value),
                                 recurrent_activation="sigmoid")
    assert model.recurrent_activation.name == "sigmoid"


def test_hard_sigmoid_of_an_unknown_version():
    layer = GRU(arrays_of(np.random.default_rng(0)), recurrent_activation="hard_sigmoid")
    with pytest.raises(ValueError, match="the version is not known"):
        gru_c.GRU.from_keras(layer)


def test_old_configurations():
    """Before Keras 2.2.3 a Sequential was a list; before 2.1.5 there was no reset_after."""
    layers = [serialized(name="gru_1"), serialized("Dense", name="dense_1")]
    assert [node.name for node in config.nodes(serialized("Sequential") | {
        "config": layers})] == ["gru_1"]
    arrays = arrays_of(np.random.default_rng(0), bias=None)
    assert not gru_c.GRU.from_keras(GRU(arrays, use_bias=False)).reset_after


# ---- writing -------------------------------------------------------------------------------------

@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("bias", "after"), [(True, True), (True, False), (False, True)])
def test_round_trips(tmp_path, bias, after, bidirectional, dtype):
    model = gru_c.GRU(3, 4, bias=bias, reset_after=after, bidirectional=bidirectional, dtype=dtype,
                      rng=0, activation={"name": "elu", "alpha": 0.5}, batch_first=True)
    again = gru_c.GRU.from_keras(model.to_keras(), activation=model.activation, reset_after=after)
    keras.write(described(model), tmp_path / "model.keras")
    read = gru_c.GRU.from_keras(tmp_path / "model.keras")
    keras.write(described(model), tmp_path / "model.weights.h5")
    options = {"activation": model.activation, "reset_after": after}
    weights = gru_c.GRU.from_keras(tmp_path / "model.weights.h5", **options)
    assert repr(read) == repr(again) == repr(weights) == repr(model)
    for found in (again, read, weights):
        for name, a in found.state_dict().items():
            own = getattr(model, name)
            if "bias" in name and not after:               # one bias, the sum
                end = name.removeprefix("bias_ih").removeprefix("bias_hh")
                own = (getattr(model, f"bias_ih{end}") + getattr(model, f"bias_hh{end}")
                       if name.startswith("bias_ih") else np.zeros_like(own))
            np.testing.assert_array_equal(a, own)
        if not after:                                      # and from then on bit for bit
            same_arrays(gru_c.GRU.from_keras(found.to_keras(), **options), found)


def test_a_reverse_gru_and_a_cell(tmp_path):
    reverse = ReverseGRU(3, 4, rng=0, batch_first=True, input_dropout=0.5)
    keras.write(described(reverse), tmp_path / "model.keras")
    read = gru_c.GRU.from_keras(tmp_path / "model.keras")
    assert isinstance(read, ReverseGRU)
    assert read.input_dropout == 0.5
    same_arrays(read, reverse)
    cell = gru_c.GRUCell(3, 4, rng=0)
    same_arrays(gru_c.GRUCell.from_keras(cell.to_keras()), cell)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_are_written_one_after_the_other(tmp_path, bidirectional):
    model = gru_c.GRU(3, 4, num_layers=3, bidirectional=bidirectional, rng=0, batch_first=True)
    with pytest.raises(ValueError, match="num_layers=3"):
        model.to_keras()
    path = tmp_path / "model.keras"
    keras.write(described(model), path)
    read = gru_c.GRU.from_keras(path)                      # a Sequential of nothing else
    assert repr(read) == repr(model)
    same_arrays(read, model)
    name = "bidirectional" if bidirectional else "gru"
    x = output = np.random.default_rng(0).standard_normal((2, 5, 3), np.float32)
    for layer in (name, f"{name}_1", f"{name}_2"):
        output, _ = gru_c.GRU.from_keras(path, layer)(output)
    np.testing.assert_array_equal(output, model(x)[0])


@pytest.mark.parametrize(("change", "error"), [
    ({"return_sequences": False}, "2 GRUs; choose one with layer=: 'gru', 'gru_1'"),
    ({"go_backwards": True}, "2 GRUs, which differ in reverse, so"),
    ({"activation": "relu"}, "2 GRUs, which differ in activation, so"),
])
def test_layers_that_are_not_those_of_one_gru(tmp_path, change, error):
    path = tmp_path / "model.keras"
    keras.write(described(gru_c.GRU(3, 4, num_layers=2, rng=0)), tmp_path / "old.keras")
    with zipfile.ZipFile(tmp_path / "old.keras") as archive:
        config = json.loads(archive.read("config.json"))
    config["config"]["layers"][1]["config"].update(change)
    fails(changed_zip(tmp_path / "old.keras", path, config=json.dumps(config)), error)
    assert gru_c.GRU.from_keras(path, "gru_1").hidden_size == 4


def test_layers_whose_sizes_do_not_follow(tmp_path):
    path = tmp_path / "model.keras"
    keras.write(described(gru_c.GRU(3, 4, num_layers=2, rng=0)), path)
    with zipfile.ZipFile(path) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights, "a") as file:
        del file["layers/gru_1/cell/vars/0"]
        file["layers/gru_1/cell/vars/0"] = np.zeros((5, 12), np.float32)
    fails(changed_zip(path, tmp_path / "new.keras", model=weights.getvalue()),
          "differ in direction or size")


def test_the_bytes_depend_on_the_model_alone(tmp_path):
    found = described(gru_c.GRU(3, 4, rng=0))
    for name in ("a.keras", "b.keras"):
        keras.write(found, tmp_path / name)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()


@pytest.mark.parametrize(("options", "error"), [
    ({"clip": 3.0}, "clip=3.0"),
    ({"activation": "scaled_tanh"}, "activation='scaled_tanh'"),
    ({"recurrent_activation": {"name": "hard_sigmoid", "alpha": 0.2}}, "recurrent_activation="),
    ({"dropout": 0.5, "num_layers": 2}, "dropout=0.5"),
])
def test_what_keras_does_not_have(tmp_path, options, error):
    with pytest.raises(ValueError, match=error):
        keras.write(described(gru_c.GRU(3, 4, **options)), tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())


def test_layers_above_a_reverse_one(tmp_path):
    with pytest.raises(ValueError, match="reverse=True with num_layers=2: in Keras, a layer above"):
        keras.write(described(ReverseGRU(3, 4, num_layers=2)), tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{}, {"bias": False, "activation": "relu"},
                                     {"bidirectional": True, "num_layers": 2, "dtype": "float64"}])
def test_files_of_whole_models(tmp_path, options):
    model = gru_c.GRU(3, 4, rng=0, batch_first=True, **options)
    keras.write(described(model), tmp_path / "model.h5")
    read = gru_c.GRU.from_keras(tmp_path / "model.h5")
    assert repr(read) == repr(model)
    same_arrays(read, model)


@pytest.mark.parametrize("configured", [True, False])
def test_weights_of_an_optimizer(tmp_path, configured):
    """The .h5 file of a trained model has arrays like those of the layer: they are not a GRU."""
    model, path = gru_c.GRU(3, 4, rng=0, batch_first=True), tmp_path / "model.h5"
    keras.write(described(model), path)
    with h5py.File(path, "a") as file:
        file.copy("model_weights/gru", file.create_group("optimizer_weights"), "gru")
        if not configured:
            del file.attrs["model_config"]
    same_arrays(gru_c.GRU.from_keras(path), model)
    assert len(keras.find(path, LIMIT)) == 1


def test_a_configuration_that_is_too_long(tmp_path):
    """Its objects would take more memory than the arrays may."""
    for name, error in (("model.h5", "model_config has"), ("model.keras", "config.json has")):
        keras.write(described(gru_c.GRU(3, 4)), tmp_path / name)
        fails(tmp_path / name, f"{error}.*; raise max_bytes", max_bytes=2000)


def test_a_renamed_direction(tmp_path):
    """Its weights have the old name, but are still those of the forward layer."""
    model, path = gru_c.GRU(3, 4, bidirectional=True, rng=0), tmp_path / "model.h5"
    keras.write(described(model), path)
    with h5py.File(path, "a") as file:
        for side in ("forward", "backward"):
            file.move(f"model_weights/bidirectional/bidirectional/{side}_gru",
                      f"model_weights/bidirectional/bidirectional/{side}_old")
    same_arrays(gru_c.GRU.from_keras(path), model)
    one = gru_c.GRU.from_keras(path, "bidirectional/backward_gru")
    np.testing.assert_array_equal(one.weight_hh_l0, model.weight_hh_l0_reverse)


def test_what_h5_files_do_not_tell(tmp_path):
    model = gru_c.GRU(3, 4, recurrent_activation="hard_sigmoid")
    with pytest.raises(ValueError, match=r"'hard_sigmoid': in an \.h5 file it does not mean"):
        keras.write(described(model), tmp_path / "model.h5")
    with pytest.raises(ValueError, match=r"end in \.keras"):
        keras.write(described(model), tmp_path / "model.hdf5")
    assert not list(tmp_path.iterdir())


def test_groups_of_keras_2_13(tmp_path):
    """Its names count layers with weights twice: gru, gru_2, gru_4."""
    model = gru_c.GRU(4, 4, num_layers=3, rng=0)
    old, path = tmp_path / "old.keras", tmp_path / "model.keras"
    keras.write(described(model), old)
    data = io.BytesIO()
    with zipfile.ZipFile(old) as archive, h5py.File(data, "w") as new, h5py.File(
            io.BytesIO(archive.read("model.weights.h5"))) as file:
        for i, name in enumerate(("gru", "gru_1", "gru_2")):
            file.copy(f"layers/{name}", new.require_group("_layer_checkpoint_dependencies"),
                      f"gru_{2 * i}" if i else "gru")
    changed_zip(old, path, model=data.getvalue(), metadata=b'{"keras_version": "2.13.1"}')
    same_arrays(gru_c.GRU.from_keras(path), model)
    one = gru_c.GRU.from_keras(path, "gru_1")
    np.testing.assert_array_equal(one.weight_hh_l0, model.weight_hh_l1)
    assert keras.find(path, LIMIT)[0].convention == "Keras 2, reset_after=True"


# ---- files that are refused ----------------------------------------------------------------------

def weights_file(path, **arrays):
    with h5py.File(path, "w") as file:
        for i, a in enumerate(arrays_of(np.random.default_rng(0))):
            file[f"layers/gru/cell/vars/{i}"] = a
        for name, a in arrays.items():
            file[name] = a
    return path


def refused(path, error, **options):
    for call in (lambda: gru_c.GRU.from_keras(path, **options),
                 lambda: keras.read_arrays(path, options.get("max_bytes", LIMIT))):
        with pytest.raises(interop.ModelFileError, match=error) as caught:
            call()
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("link", [h5py.SoftLink("/layers"), h5py.ExternalLink("other.h5", "/x")])
def test_links(tmp_path, link):
    weights_file(tmp_path / "other.h5", x=np.zeros(3))
    refused(weights_file(tmp_path / "model.weights.h5", link=link), "is not followed")


def test_virtual_and_external_data(tmp_path):
    path = weights_file(tmp_path / "virtual.h5")
    with h5py.File(path, "a") as file:
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (3,))
        file.create_virtual_dataset("virtual", layout)
    refused(path, "lies in other files")
    (tmp_path / "secret").write_bytes(bytes(12))
    path = weights_file(tmp_path / "external.h5")
    with h5py.File(path, "a") as file:
        file.create_dataset("a", (3,), "f4", external=[(str(tmp_path / "secret"), 0, 12)])
    refused(path, "lies in other files")


def test_groups_in_themselves(tmp_path):
    path = weights_file(tmp_path / "model.weights.h5")
    with h5py.File(path, "a") as file:
        file["layers/again"] = file["layers"]
        file["layers/gru/root"] = file["/"]
    assert gru_c.GRU.from_keras(path).hidden_size == 4
    with h5py.File(path, "a") as file:
        file.create_group("/".join("d" * 101))
    refused(path, "nested more than 100 deep")


def test_max_bytes_are_those_declared(tmp_path):
    path = weights_file(tmp_path / "model.weights.h5")
    declared = 4 * (3 * 12 + 4 * 12 + 2 * 12)
    gru_c.GRU.from_keras(path, max_bytes=declared)
    refused(path, f"take {declared} bytes, more than max_bytes={declared - 1}",
            max_bytes=declared - 1)
    with h5py.File(path, "a") as file:                     # nothing of it is stored
        file.create_dataset("large", (2**40,), "f4", chunks=(2**20,), compression="gzip")
    refused(path, "raise max_bytes")
    path = weights_file(tmp_path / "chunk.weights.h5")
    with h5py.File(path, "a") as file:
        file.create_dataset("a", (1,), "f4", chunks=(2**30 - 1,), maxshape=(None,))
    refused(path, "more than max_bytes=1,000,000", max_bytes=10**6)


def test_compressed_arrays(tmp_path):
    arrays = arrays_of(np.random.default_rng(0))
    for name, options in {"plain": {"compression": "gzip"}, "swapped": {
            "compression": "gzip", "shuffle": True, "fletcher32": True}}.items():
        path = tmp_path / f"{name}.weights.h5"
        with h5py.File(path, "w") as file:
            for i, a in enumerate(arrays):
                file.create_dataset(f"layers/gru/cell/vars/{i}", data=a.astype(">f4"), chunks=True,
                                    **options)
        same_arrays(gru_c.GRU.from_keras(path), gru_c.GRU.from_keras(arrays))
    with h5py.File(path, "a") as file:
        del file["layers/gru/cell/vars/0"]
        file.create_dataset("layers/gru/cell/vars/0", data=arrays[0], compression="lzf")
    refused(path, "a filter that is not read")


def test_a_chunk_that_inflates_to_more(tmp_path):
    path = weights_file(tmp_path / "model.weights.h5")
    with h5py.File(path, "a") as file:
        del file["layers/gru/cell/vars/0"]
        made = file.create_dataset("layers/gru/cell/vars/0", (3, 12), "f4", chunks=(3, 12),
                                   compression="gzip")
        made.id.write_direct_chunk((0, 0), zlib.compress(bytes(10**7)))
    refused(path, "a chunk of 'layers/gru/cell/vars/0' is larger than the 144 bytes")


def test_no_hdf5(tmp_path, folder):
    path = tmp_path / "model.h5"
    path.write_bytes(b"not HDF5")
    refused(path, "no HDF5 file")
    path.write_bytes(b"")
    refused(path, "no HDF5 file")
    data = (folder / "3" / "one.h5").read_bytes()
    for size in (8, 100, 1000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        refused(path, "model.h5")
    with pytest.raises(FileNotFoundError):
        gru_c.GRU.from_keras(tmp_path / "none.h5")


def test_a_heap_that_hdf5_would_not_get_through(tmp_path, folder):
    """An object without length: HDF5 2.0 stays there."""
    data = bytearray((folder / "3" / "one.h5").read_bytes())
    heap = data.index(b"GCOL\1")
    data[heap + 16:heap + 32] = bytes(16)
    path = tmp_path / "model.h5"
    path.write_bytes(data)
    refused(path, f"the heap at byte {heap} is damaged")


def changed_zip(source, path, **changes):
    """A copy of a zip with other contents; None leaves a member out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = changes.get(name.split(".")[0], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


def test_zips(tmp_path, folder):
    one, path = folder / "3" / "one.keras", tmp_path / "model.keras"
    assert gru_c.GRU.from_keras(changed_zip(one, path)).hidden_size == 4     # deflated
    refused(changed_zip(one, path, config=None), "it has no config.json; it has 'metadata.json'")
    refused(changed_zip(one, path, model=None), "it has no model.weights.h5")
    refused(changed_zip(one, path, config=b"{"), "config.json: not readable JSON")
    refused(changed_zip(one, path, config=b"[" * 10**6), "config.json: not readable JSON")
    refused(changed_zip(one, path, config=bytes(2**24 + 1)), "16,777,217 bytes")
    refused(changed_zip(one, path, model=bytes(10**6)), "more than 999,999; raise max_bytes",
            max_bytes=999_999)
    refused(changed_zip(one, path, model=b"HDF"), "no HDF5 file")
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    refused(path, "no zip archive")
    data = bytearray(one.read_bytes())
    at = data.index(b"\x89HDF") + 5000
    data[at] ^= 1
    path.write_bytes(data)
    refused(path, "'model.weights.h5' is damaged")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name in ("config.json", "metadata.json", "model.weights.h5"):
            archive.writestr(name, b"{}")
    refused(path, "compressed by method 14")


def with_config(folder, path, change):
    source = folder / "3" / "one.keras"
    with zipfile.ZipFile(source) as archive:
        config = json.loads(archive.read("config.json"))
    change(config["config"]["layers"])
    return changed_zip(source, path, config=json.dumps(config))


def fails(path, error, **options):
    with pytest.raises(interop.ModelFileError, match=error) as caught:
        gru_c.GRU.from_keras(path, **options)
    assert str(caught.value).startswith(str(path))


def test_configurations_that_do_not_fit(tmp_path, folder):
    path = tmp_path / "model.keras"

    def setting(**config):
        return with_config(folder, path, lambda layers: layers[1]["config"].update(config))

    fails(setting(units=5), "layer 'only': arrays have shapes .* units=5")
    fails(setting(units="4"), "units of the configuration is '4'")
    fails(setting(use_bias=False), "use_bias=False")
    fails(setting(reset_after=False), "reset_after=False, but its bias")
    fails(setting(activation="gelu"), "activation is 'gelu'")
    fails(setting(dropout=[]), r"dropout of the configuration is \[\]")
    fails(setting(name="other"), "should be at layers/gru/vars, but that is 'only'")
    fails(with_config(folder, path, lambda layers: layers.insert(1, layers[1])),
          "2 GRUs; choose one")
    fails(with_config(folder, path, lambda layers: layers[1].update(class_name="Mine")),
          r"it holds no GRU; .* it has weights that could be one: pass those .*"
          r"'layers/gru/cell/vars/0', 'layers/gru/cell/vars/1', 'layers/gru/cell/vars/2'")
    arrays = list(keras.read_arrays(path, LIMIT).values())
    assert gru_c.GRU.from_keras(arrays[-3:]).hidden_size == 4
    fails(folder / "3" / "one.keras", "layer='nothing': there is no such GRU; there are 'only'",
          layer="nothing")
    nested = serialized("GRU")
    for _ in range(70):
        nested = serialized("TimeDistributed", layer=nested)
    fails(with_config(folder, path, lambda layers: layers.append(nested)), "more than 64 deep")


def test_code_in_a_file_is_not_run(tmp_path, folder, monkeypatch):
    """A Lambda layer holds marshalled code: it is text here, also as a GRU's activation."""
    monkeypatch.chdir(tmp_path)
    code = compile("open('executed', 'w')", "<file>", "exec")
    function = {"class_name": "__lambda__", "config": {
        "code": base64.b64encode(marshal.dumps(code)).decode(), "defaults": None, "closure": None}}
    evil = {"class_name": "Lambda", "config": {"name": "evil", "function": function}}
    path = with_config(folder, tmp_path / "model.keras", lambda layers: layers.append(evil))
    assert gru_c.GRU.from_keras(path).hidden_size == 4
    path = with_config(folder, tmp_path / "other.keras",
                       lambda layers: layers[1]["config"].update(activation=function))
    fails(path, "activation is .*__lambda__.*, which a GRU does not have")
    assert not (tmp_path / "executed").exists()


def test_a_group_that_is_not_there(tmp_path, folder):
    path = tmp_path / "model.keras"
    fails(with_config(folder, path, lambda layers: layers.pop(1) and layers.append(
        serialized("GRUCell", name="cell"))), "'cell' has no weights at layers/gru_cell/vars")


def test_a_file_is_closed_after_an_error(folder):
    """The HDF5 file is closed, also after an error."""
    data = io.BytesIO((folder / "3" / "one.h5").read_bytes())
    with pytest.raises(KeyError), hdf5.reading(data, "x", LIMIT) as file:
        handle = file._objects[""]
        raise KeyError
    assert not handle


@pytest.mark.parametrize(("options", "match"), [
    ({"clip": 5.0}, "clip=5.0"), ({"activation": "scaled_tanh"}, "activation='scaled_tanh'"),
    ({"recurrent_activation": {"name": "hard_sigmoid", "alpha": 0.3}}, "recurrent_activation=")])
def test_the_list_is_not_of_a_model_that_keras_cannot_hold(options, match):
    for model in (gru_c.GRU(3, 4, **options), gru_c.GRUCell(3, 4, **options)):
        with pytest.raises(ValueError, match=match):
            model.to_keras()


@pytest.mark.parametrize("name", ["package>GRU", "GRU"])
def test_a_class_of_another_package_that_is_named_gru(name, tmp_path, folder):
    """Nobody knows what it computes. In Keras 3 its own classes have no registered name."""
    def change(layers):
        layers[1].update(registered_name=name, module="package")

    fails(with_config(folder, tmp_path / "model.keras", change), "it holds no GRU; its config")


def test_suffixes_in_capitals(tmp_path):
    for suffix in (".KERAS", ".H5", ".Weights.h5"):
        interop.convert(saved(tmp_path), tmp_path / f"model{suffix}")
        assert len(interop.find(tmp_path / f"model{suffix}")) == 1


def saved(folder):
    gru_c.GRU(3, 4, rng=0).save(folder / "model.npz")
    return folder / "model.npz"
