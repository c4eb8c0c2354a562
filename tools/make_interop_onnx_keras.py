"""Write tests/fixtures/interop/onnx/tf2onnx.*: a model of Keras by tf2onnx, and Keras's results.

    python tools/make_interop_onnx_keras.py [folder]

Needs tensorflow-cpu==2.15.1, tf2onnx==1.17.0 and onnx==1.17.0. The models are two Bidirectional
layers, and a layer with reset_after=False, which tf2onnx writes as a Loop.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

vars(np)["object"] = object                                # tf2onnx 1.17 asks for what is gone
import tf2onnx  # noqa: E402

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "interop" / "onnx"


def converted(layers, path, x):
    """Write the model; its results."""
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential([tf.keras.Input(x.shape[1:]), *layers])
    for weight in model.weights:                           # biases are zeros at first
        weight.assign(np.random.default_rng(0).uniform(-0.5, 0.5, weight.shape))
    signature = (tf.TensorSpec((None, *x.shape[1:]), tf.float32, name="x"),)
    function = tf.function(lambda x: model(x), input_signature=signature)
    tf2onnx.convert.from_function(function, input_signature=signature, opset=14,
                                  output_path=str(path))
    return model(x).numpy()


def main(arguments):
    if len(arguments) > 1:
        raise SystemExit(__doc__)
    folder = Path(arguments[0]) if arguments else FIXTURES
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)

    def layer(**options):
        return tf.keras.layers.GRU(4, return_sequences=True, **options)

    output = converted([tf.keras.layers.Bidirectional(layer()) for _ in range(2)],
                       folder / "tf2onnx.onnx", x)
    converted([layer(reset_after=False)], folder / "tf2onnx_loop.onnx", x)
    np.savez_compressed(folder / "tf2onnx.npz", x=x, output=output)


if __name__ == "__main__":
    main(sys.argv[1:])
