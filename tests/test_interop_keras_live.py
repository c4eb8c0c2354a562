"""Layers of Keras 3, files that it writes and files that it reads, where Keras is installed."""

import os
from pathlib import Path

import numpy as np
import pytest

import gru_c
from gru_c.gru import ReverseGRU
from gru_c.interop import keras as ours
from gru_c.interop.found import described

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
layers = keras.layers

X = np.random.default_rng(0).standard_normal((2, 6, 3)).astype(np.float32)
CLOSE = {"rtol": 0, "atol": 1e-6}


def filled(layer, x=X):
    """A layer with weights that are all random, biases too."""
    layer(x)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.uniform(-1, 1, a.shape) for a in layer.get_weights()])
    return layer


def gru(**options):
    return layers.GRU(4, return_sequences=True, **options)


def assert_same(model, layer, x=X):
    """The same output; with go_backwards, Keras gives it in the order computed."""
    output, _ = model.eval()(x)
    if isinstance(model, ReverseGRU):
        output = output[:, ::-1]
    np.testing.assert_allclose(output, np.asarray(layer(x)), **CLOSE)


LAYERS = {
    "plain": lambda: gru(),
    "before": lambda: gru(reset_after=False),
    "no bias": lambda: gru(use_bias=False),
    "no bias, before": lambda: gru(use_bias=False, reset_after=False),
    "backwards": lambda: gru(go_backwards=True),
    "hard sigmoid": lambda: gru(recurrent_activation="hard_sigmoid"),
    "none": lambda: gru(activation=None),
    "leaky": lambda: gru(activation="leaky_relu"),
    "leaky layer": lambda: gru(activation=layers.LeakyReLU(0.125)),
    "elu layer": lambda: gru(activation=layers.ELU(0.5)),
    "relu layer": lambda: gru(activation=layers.ReLU(threshold=0.25)),
    "dropout": lambda: gru(dropout=0.5, recurrent_dropout=0.5),
    "both": lambda: layers.Bidirectional(gru()),
    "both, before": lambda: layers.Bidirectional(gru(reset_after=False)),
    "own backward layer": lambda: layers.Bidirectional(
        gru(), backward_layer=gru(go_backwards=True, name="mine")),
    "cell": lambda: layers.RNN(layers.GRUCell(4), return_sequences=True),
    "cell backwards": lambda: layers.RNN(layers.GRUCell(4), return_sequences=True,
                                         go_backwards=True),
    "cells": lambda: layers.RNN([layers.GRUCell(4), layers.GRUCell(4)], return_sequences=True),
    "cells backwards": lambda: layers.RNN([layers.GRUCell(4), layers.GRUCell(4)],
                                          return_sequences=True, go_backwards=True),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_layers(make):
    layer = filled(make())
    assert_same(gru_c.GRU.from_keras(layer), layer)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@pytest.mark.filterwarnings("ignore")                      # of Keras: .h5 is old
def test_files(tmp_path, make, suffix):
    layer = make()
    inner = keras.Sequential([keras.Input((6, 3)), layer], name="inner")
    inputs = keras.Input((6, 3))
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    filled(layer)
    model.save(tmp_path / f"model{suffix}")
    read = gru_c.GRU.from_keras(tmp_path / f"model{suffix}")
    assert_same(read, layer)
    model.save_weights(tmp_path / "model.weights.h5")
    options = {"activation": read.activation, "recurrent_activation": read.recurrent_activation,
               "reset_after": read.reset_after}
    if "cells" not in str(layer.get_config().get("cell")):
        weights = gru_c.GRU.from_keras(tmp_path / "model.weights.h5", **options,
                                       go_backwards=isinstance(read, ReverseGRU))
        assert_same(weights, layer)


def test_half_policies():
    layer = filled(gru(dtype="mixed_float16"))
    model = gru_c.GRU.from_keras(layer)
    np.testing.assert_allclose(model(X)[0], np.asarray(layer(X)), rtol=0, atol=5e-3)
    half = gru(dtype="float16", recurrent_initializer="zeros")
    half(X)
    assert gru_c.GRU.from_keras(half).dtype == np.float32
    double = filled(gru(dtype="float64"), X.astype(float))
    model = gru_c.GRU.from_keras(double)
    assert model.dtype == np.float64
    np.testing.assert_allclose(model(X.astype(float))[0], np.asarray(double(X.astype(float))),
                               rtol=0, atol=1e-12)


def test_a_cell_of_keras():
    cell = layers.GRUCell(4)
    x, h = X[:, 0], np.random.default_rng(2).standard_normal((2, 4)).astype(np.float32)
    cell.build(x.shape)
    expected, _ = cell(x, [h])
    ours = gru_c.GRUCell.from_keras(cell)
    np.testing.assert_allclose(ours(x, h), np.asarray(expected), **CLOSE)
    cell.set_weights(gru_c.GRUCell(3, 4, rng=3).to_keras())
    np.testing.assert_allclose(gru_c.GRUCell(3, 4, rng=3)(x, h), np.asarray(cell(x, [h])[0]),
                               **CLOSE)


def test_what_is_not_one_layer():
    model = keras.Sequential([keras.Input((6, 3)), gru(name="a"), gru(name="b")])
    with pytest.raises(ValueError, match=r"GRUs that it has: 'a', 'b'"):
        gru_c.GRU.from_keras(model)
    with pytest.raises(ValueError, match="no weights yet"):
        gru_c.GRU.from_keras(gru())
    with pytest.raises(ValueError, match="the LSTM is not a layer"):
        gru_c.GRU.from_keras(filled(layers.LSTM(4)))
    layer = filled(layers.Bidirectional(gru(), merge_mode="mul"))
    with pytest.raises(ValueError, match="merge_mode='mul'"):
        gru_c.GRU.from_keras(layer)
    forward, backward = (gru_c.GRU.from_keras(part)
                         for part in (layer.forward_layer, layer.backward_layer))
    np.testing.assert_allclose(forward(X)[0] * backward(X)[0], np.asarray(layer(X)), **CLOSE)


def test_a_forward_layer_that_goes_backwards():
    """What the error says gives the results of Keras."""
    layer = filled(layers.Bidirectional(gru(go_backwards=True), backward_layer=gru(name="ahead")))
    with pytest.raises(ValueError, match=r"each output\[:, ::-1\]"):
        gru_c.GRU.from_keras(layer)
    parts = [gru_c.GRU.from_keras(part)(X)[0][:, ::-1]
             for part in (layer.forward_layer, layer.backward_layer)]
    np.testing.assert_allclose(np.concatenate(parts, axis=2), np.asarray(layer(X)), **CLOSE)


def test_masks_and_states():
    layer = filled(layers.GRU(4, return_sequences=True, return_state=True))
    model = gru_c.GRU.from_keras(layer)
    mask = np.array([[0, 1, 1, 0, 1, 0], [1, 1, 0, 0, 1, 1], [0] * 6], bool)     # the last: no step
    x = X[[0, 1, 0]]
    state = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)
    expected, last = layer(x, mask=mask, initial_state=[state])
    output, h_n = model(x, state[None], mask=mask)
    shown = np.maximum.accumulate(mask, axis=1)            # Keras has zeros before the first
    np.testing.assert_allclose(output, np.asarray(expected) * shown[:, :, None], **CLOSE)
    np.testing.assert_allclose(h_n[0], np.asarray(last), **CLOSE)


@pytest.mark.filterwarnings("ignore")                      # of Keras
def test_the_first_lines_of_the_page(tmp_path, monkeypatch):
    encoder = keras.Sequential([keras.Input((6, 3)), gru(name="gru")], name="encoder")
    inputs = keras.Input((6, 3))
    model = keras.Model(inputs, layers.Dense(2)(encoder(inputs)))
    model.save(tmp_path / "model.keras")
    page = Path(__file__).parents[1] / "docs" / "interop" / "keras.md"
    _, lines = page.read_text(encoding="utf-8").split("<!-- no test -->\n```python\n")
    monkeypatch.chdir(tmp_path)
    found = {"x": X}
    exec(lines.split("```")[0], found)
    np.testing.assert_allclose(found["output"], np.asarray(encoder(X)), **CLOSE)


# ---- writing -------------------------------------------------------------------------------------

MODELS = {
    "plain": {}, "no bias": {"bias": False}, "both": {"bidirectional": True},
    "layers": {"num_layers": 3}, "layers of two": {"num_layers": 2, "bidirectional": True},
    "leaky": {"activation": "leaky_relu"},
    "thresholded": {"activation": {"name": "thresholded_relu", "alpha": 0.25}},
    "elu": {"activation": {"name": "elu", "alpha": 0.5}, "recurrent_activation": "hard_sigmoid"},
    "dropout": {"input_dropout": 0.5, "recurrent_dropout": 0.25},
    "float64": {"dtype": np.float64},
}


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_keras_reads_what_is_written(tmp_path, options, reset_after):
    model = gru_c.GRU(3, 4, batch_first=True, reset_after=reset_after, rng=0, **options)
    path = tmp_path / "model.keras"
    ours.write(described(model), path)
    read = keras.saving.load_model(path)
    x = X.astype(model.dtype)
    np.testing.assert_allclose(np.asarray(read(x)), model.eval()(x)[0], **CLOSE)
    ours.write(described(model), tmp_path / "model.weights.h5")
    read.set_weights([np.zeros_like(a) for a in read.get_weights()])
    read.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(np.asarray(read(x)), model.eval()(x)[0], **CLOSE)
    if model.num_layers == 1:
        layer = read.layers[-1]
        layer.set_weights(model.to_keras())
        np.testing.assert_allclose(np.asarray(layer(x)), model.eval()(x)[0], **CLOSE)


@pytest.mark.parametrize("name", ["plain", "no bias", "both", "layers", "layers of two",
                                  "dropout", "float64"])
def test_keras_reads_whole_models(tmp_path, name, reset_after):
    """This runs with Keras 2, too."""
    model = gru_c.GRU(3, 4, batch_first=True, reset_after=reset_after, rng=0, **MODELS[name])
    ours.write(described(model), tmp_path / "model.h5")
    read = keras.models.load_model(tmp_path / "model.h5", compile=False)
    x = X.astype(model.dtype)
    np.testing.assert_allclose(np.asarray(read(x)), model.eval()(x)[0], **CLOSE)


def test_keras_reads_a_reverse_gru(tmp_path):
    model = ReverseGRU(3, 4, batch_first=True, rng=0)
    ours.write(described(model), tmp_path / "model.keras")
    read = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(np.asarray(read(X)), model(X)[0][:, ::-1], **CLOSE)

