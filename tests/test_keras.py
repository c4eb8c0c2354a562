"""Against Keras 3 on TensorFlow, where they are installed: the package and reference.py.

Layers of keras.layers.GRU in float64, one for each direction, are put together as a model of the
package is. Stored values for other environments: test_known_answers.py.
"""

import os
from functools import partial

import numpy as np
import pytest
from family import ACTIVATIONS, by_package, by_reference, case, cases, title
from helpers import assert_results
from hypothesis import given, settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")


# ---- a case in Keras ----------------------------------------------------------------------------

def by_keras(case):
    """Results of Keras, gradients by TensorFlow. The batch comes first inside."""
    arrays = {name: tf.constant(value) for name, value in case.complete().items()}
    masks = {name: tf.constant(value) for name, value in case.call.get("dropout_masks", {}).items()}
    with tf.GradientTape() as tape:
        tape.watch(list(arrays.values()))
        layers, states, output = {}, [], arrays["x"]
        for i in range(case.layers):
            x, halves = output * masks.get(f"output_l{i - 1}", 1), []
            for name in (f"l{i}", f"l{i}_reverse")[:case.directions]:
                layers[name] = layer_of(case, name, masks)
                half, h_n = call(layers[name], x, arrays["h_0"][len(states)], case.call.get("mask"))
                halves.append(half)
                states.append(h_n)
            output = tf.concat(halves, 2)
        results = {"output": output, "h_n": tf.stack(states)}
        loss = (tf.reduce_sum(output * arrays["d_output"])
                + tf.reduce_sum(results["h_n"] * arrays["d_h_n"]))
    variables = {name: layer.trainable_variables for name, layer in layers.items()}
    dx, dh_0, gradients = tape.gradient(loss, (arrays["x"], arrays["h_0"], variables),
                                        unconnected_gradients="zero")
    results |= {"dx": dx, "dh_0": dh_0}
    for name, values in gradients.items():
        results |= from_keras([value.numpy() for value in values], name)
    return {name: np.asarray(results[name]) for name in ("output", "h_n", "dx", "dh_0",
                                                         *case.parameters)}


def layer_of(case, name, masks):
    """A keras.layers.GRU with the parameters of one direction of one layer, and its dropout."""
    model = case.model
    input_mask, recurrent_mask = masks.get(f"input_{name}"), masks.get(f"recurrent_{name}")
    layer = keras.layers.GRU(
        model["hidden_size"], use_bias=model["bias"], reset_after=model["reset_after"],
        activation=in_keras(model.get("activation", "tanh"), model.get("clip")),
        recurrent_activation=in_keras(model.get("recurrent_activation", "sigmoid"),
                                      model.get("clip")),
        dropout=0.0 if input_mask is None else 0.5,
        recurrent_dropout=0.0 if recurrent_mask is None else 0.5,
        return_sequences=True, return_state=True,
        go_backwards=name.endswith("reverse") or case.model.get("reverse", False),
        use_cudnn=False, dtype="float64")
    weights = to_keras(case, name)
    layer.build((None, None, len(weights[0])))
    layer.set_weights(weights)
    # A mask of each gate with implementation 1, which recurrent dropout takes; else one for all.
    count = getattr(layer.cell, "dropout_mask_count", None)
    layer.cell._dropout_mask = [input_mask] * 3 if count else input_mask
    layer.cell._recurrent_dropout_mask = [recurrent_mask] * 3
    return layer


def call(layer, x, h_0, mask):
    """Output and h_n of a layer, time-major; with go_backwards, output comes in reverse."""
    output, h_n = layer(tf.transpose(x, (1, 0, 2)), initial_state=[h_0], training=True,
                        mask=None if mask is None else tf.constant(mask.T))
    output = tf.transpose(output, (1, 0, 2))
    return (output[::-1] if layer.go_backwards else output), h_n


def reordered(stacked):
    """Gates r, z, n as z, r, n, and back."""
    first, second, n = np.split(stacked, 3)
    return np.concatenate([second, first, n])


def to_keras(case, name):
    """kernel, recurrent_kernel and bias; reset_after=False has one bias, the sum of ours."""
    W_ih, W_hh, *biases = (reordered(case.parameters[key]) for key in (
        f"weight_ih_{name}", f"weight_hh_{name}", f"bias_ih_{name}", f"bias_hh_{name}")
        if key in case.parameters)
    if biases:
        biases = [np.stack(biases) if case.model["reset_after"] else sum(biases)]
    return [W_ih.T, W_hh.T, *biases]


def from_keras(gradients, name):
    """Gradients by our names; both biases have that of their sum with reset_after=False."""
    dkernel, drecurrent_kernel, *dbias = gradients
    found = {"weight_ih": dkernel.T, "weight_hh": drecurrent_kernel.T}
    if dbias:
        found["bias_ih"], found["bias_hh"] = np.broadcast_to(dbias[0], (2, dbias[0].shape[-1]))
    return {f"{key}_{name}": reordered(value) for key, value in found.items()}


def in_keras(activation, clip):
    """Keras's own function where it has one, else written with TensorFlow."""
    options = {"name": activation} if isinstance(activation, str) else dict(activation)
    name = options.pop("name")
    if name == "hard_sigmoid" and not options:
        function = keras.activations.hard_sigmoid           # alpha 1/6; before Keras 3, 0.2
    else:
        function = partial(IN_KERAS.get(name) or keras.activations.get(name), **options)
    return function if clip is None else lambda a: function(tf.clip_by_value(a, -clip, clip))


IN_KERAS = {
    "hard_sigmoid": lambda a, alpha=0.2, beta=0.5: tf.clip_by_value(alpha * a + beta, 0, 1),
    "affine": lambda a, alpha=1.0, beta=0.0: alpha * a + beta,
    # TensorFlow has leaky_relu with an alpha of float32.
    "leaky_relu": lambda a, alpha=0.01: tf.where(a > 0, a, alpha * a),
    "thresholded_relu": lambda a, alpha=1.0: keras.activations.relu(a, threshold=alpha),
    "scaled_tanh": lambda a, alpha=1.0, beta=1.0: alpha * tf.tanh(beta * a),
}


# ---- tests --------------------------------------------------------------------------------------

@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("directions", [{"bidirectional": True}, {"reverse": True}], ids=str)
def test_go_backwards(directions, bias, reset_after, results_of):
    drawn = case(5, 3, (4, 6), bias=bias, reset_after=reset_after, **directions)
    assert_results(results_of(drawn), by_keras(drawn))


MASKS = {
    "padding behind": lambda t, n: t < 5 - n,
    "padding in front": lambda t, n: t >= n,
    "holes": lambda t, n: (t + n) % 3 > 0,
    "holes and padding": lambda t, n: (t >= n - 1) & (t < 5) & ((t + n) % 2 > 0),
    "one row of no steps": lambda t, n: (n != 1) | (t > 9),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_masks(mask, reset_after, results_of):
    drawn = case(6, 4, (3, 5), layers=2, bidirectional=True, reset_after=reset_after)
    drawn = drawn.but(mask=np.fromfunction(mask, (6, 4)))
    assert_results(results_of(drawn), by_keras(drawn))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_bidirectional(mask, reset_after):
    """It sets `zero_output_for_mask`: zeros at all steps that do not count."""
    drawn = case(6, 4, (3, 5), bidirectional=True, reset_after=reset_after)
    drawn = drawn.but(mask=np.fromfunction(mask, (6, 4)))
    counts, arrays = drawn.call["mask"], drawn.complete()
    layer = keras.layers.Bidirectional(keras.layers.GRU(
        5, reset_after=reset_after, return_sequences=True, return_state=True, use_cudnn=False,
        dtype="float64"), dtype="float64")
    layer.build((None, None, 3))
    layer.set_weights(to_keras(drawn, "l0") + to_keras(drawn, "l0_reverse"))
    output, *h_n = layer(arrays["x"].swapaxes(0, 1), initial_state=list(arrays["h_0"]),
                         mask=tf.constant(counts.T))
    found = by_package(drawn)
    assert_results({"output": found["output"] * counts[..., None], "h_n": found["h_n"]},
                   {"output": np.swapaxes(output, 0, 1), "h_n": np.stack(h_n)})


@pytest.mark.parametrize("dropout", [("input",), ("recurrent",), ("input", "recurrent")], ids=str)
def test_variational_dropout(dropout, reset_after, results_of):
    drawn = case(5, 4, (8, 9), reset_after=reset_after, dropout=dropout)
    assert_results(results_of(drawn), by_keras(drawn))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=title)
def test_activations(activation, reset_after, results_of):
    """In either role, and with clip, which Keras has no option for."""
    for role in ("activation", "recurrent_activation"):
        for clip in (None, 0.4):
            drawn = case(4, 3, (4, 5), reset_after=reset_after, **{role: activation}, clip=clip)
            assert_results(results_of(drawn), by_keras(drawn))


drawn_cases = cases(ragged=("mask",), reverse=True)
drawing = settings(deadline=None, derandomize=True, database=None, max_examples=25)


@drawing
@given(drawn_cases)
def test_reference(case):
    assert_results(by_reference(case), by_keras(case))


@drawing
@given(drawn_cases)
def test_package(case):
    assert_results(by_package(case), by_keras(case))
