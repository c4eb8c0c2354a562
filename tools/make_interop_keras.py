"""Write tests/fixtures/interop/keras/: files of Keras 2 and 3, and what Keras computes.

    python tools/make_interop_keras.py [OUTPUT_FOLDER]

Run once with Keras 3 (`pip install keras tensorflow-cpu`) and once with Keras 2 (`pip install
'tensorflow-cpu==2.15.*'`). Each writes files of one GRU, keras2.keras and keras2.h5 (keras3...);
keras2.tar.xz, files of all kinds of layers, which are mostly zeros; and keras2.npz: x, a mask, and
the output of each layer by its name.
tests/test_interop_keras.py reads them. Weights are multiples of 2^-6, which bfloat16 holds.
"""

import os
import sys
import tarfile
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures" / "interop" / "keras"
MAJOR = keras.__version__[0]
STEPS, INPUTS, UNITS = 5, 3, 4
layers = keras.layers


def numbers(rng, shape):
    return np.round(rng.uniform(-1, 1, shape) * 64).astype(np.float32) / 64


def gru(name, units=UNITS, **options):
    return layers.GRU(units, name=name, return_sequences=True, **options)


def everything():
    """A Functional model of all kinds of layers, each of which reads the input."""
    x = keras.Input((STEPS, INPUTS), name="x")
    encoder = keras.Sequential([
        keras.Input((STEPS, INPUTS)), gru("first"), gru("second", trainable=False)], name="encoder")
    leaky = layers.LeakyReLU(0.125)
    found = [
        encoder(x),
        gru("after")(x),
        gru("before", reset_after=False)(x),
        gru("no_bias", use_bias=False)(x),
        gru("no_bias_before", use_bias=False, reset_after=False)(x),
        gru("backwards", go_backwards=True)(x),
        gru("hard", recurrent_activation="hard_sigmoid", activation="softsign")(x),
        gru("leaky", activation=leaky, recurrent_dropout=0.25, dropout=0.5)(x),
        layers.Bidirectional(gru("a"), name="both")(x),
        layers.Bidirectional(gru("b", reset_after=False), name="both_before")(x),
        layers.Bidirectional(gru("c"), merge_mode="sum", name="summed")(x),
        layers.RNN(layers.GRUCell(UNITS), return_sequences=True, name="one_cell")(x),
        layers.RNN([layers.GRUCell(UNITS, name="low"), layers.GRUCell(UNITS, name="high")],
                   return_sequences=True, name="stacked")(x),
        layers.TimeDistributed(keras.Sequential([
            keras.Input((STEPS, 1)), layers.GRU(UNITS, name="steps", go_backwards=True)],
            name="inner"), name="each")(layers.Reshape((INPUTS, STEPS, 1), name="turned")(x)),
        layers.LSTM(UNITS, name="lstm")(x),
        layers.Dense(3 * UNITS, name="dense")(x),
    ]
    return keras.Model(x, found, name="everything")


def results(model, x):
    """The output of each layer that reads the input, and of the GRUs within."""
    by_name = {layer.name: layer for layer in model.layers}
    encoder = by_name["encoder"]
    first = encoder.layers[0](x)
    found = {"encoder/first": first, "encoder/second": encoder.layers[1](first)}
    for name, layer in by_name.items():
        if name not in ("x", "encoder", "each", "turned", "lstm", "dense"):
            found[name] = layer(x)
    summed = by_name["summed"]
    found["summed/forward_c"] = summed.forward_layer(x)
    found["summed/backward_c"] = summed.backward_layer(x)
    each = by_name["each"].layer.layers[0]
    found["each/inner/steps"] = each(x[:, :, :1])
    return found


def masked(model, x, mask):
    by_name = {layer.name: layer for layer in model.layers}
    return {f"masked/{name}": by_name[name](x, mask=mask)
            for name in ("after", "before", "backwards", "both")}


def with_numbers(model, rng):
    model.set_weights([numbers(rng, a.shape) for a in model.get_weights()])
    return model


def write_everything(folder, target, rng):
    model = with_numbers(everything(), rng)
    x = numbers(rng, (2, STEPS, INPUTS))
    mask = np.array([[0, 1, 1, 0, 1], [1, 0, 1, 1, 0]], bool)
    for name in ("everything.keras", "everything.h5"):
        model.save(folder / name)
    model.save_weights(folder / "everything.weights.h5")
    if MAJOR == "2":
        model.save_weights(folder / "everything_weights.h5")
    one = with_numbers(keras.Sequential([
        keras.Input((STEPS, INPUTS)), gru("only"), layers.Dense(2)]), rng)
    for suffix in ("keras", "h5"):
        one.save(target / f"keras{MAJOR}.{suffix}")
    return {"x": x, "mask": mask, "only": one.layers[0](x),
            **results(model, x), **masked(model, x, mask)}


def write_cudnn(folder, rng, x):
    """A CuDNNGRU, and what Keras makes of it in a GRU: without a GPU it does not run itself."""
    import tensorflow as tf

    inputs = keras.Input((STEPS, INPUTS))
    layer = tf.compat.v1.keras.layers.CuDNNGRU(UNITS, return_sequences=True, name="cudnn")
    with_numbers(keras.Model(inputs, layer(inputs)), rng).save(folder / "cudnn.h5")
    model = keras.Sequential([inputs, gru("cudnn")])
    model.load_weights(folder / "cudnn.h5")
    return {"cudnn": model(x)}


def write_bfloat16(folder, rng):
    model = with_numbers(keras.Sequential([
        keras.Input((STEPS, INPUTS)),
        gru("half", dtype="bfloat16", recurrent_initializer="zeros")]), rng)
    model.save_weights(folder / "bfloat16.weights.h5")
    return {f"bfloat16/{i}": np.asarray(a).astype(np.float32)
            for i, a in enumerate(model.get_weights())}


def without_dates(member):
    member.mtime = 0
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main(arguments):
    if len(arguments) > 1:
        raise SystemExit(__doc__)
    target = Path(arguments[0]) if arguments else FOLDER
    target.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(int(MAJOR))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = write_everything(folder, target, rng)
        if MAJOR == "2":
            found |= write_cudnn(folder, rng, found["x"])
        else:
            found |= write_bfloat16(folder, rng)
        with tarfile.open(target / f"keras{MAJOR}.tar.xz", "w:xz", preset=9) as archive:
            for path in sorted(folder.iterdir()):
                archive.add(path, path.name, filter=without_dates)
    np.savez_compressed(target / f"keras{MAJOR}.npz",
                        **{name: np.asarray(a) for name, a in found.items()})


if __name__ == "__main__":
    main(sys.argv[1:])
