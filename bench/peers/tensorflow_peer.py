"""TensorFlow: keras.layers.GRU (reset_after, not unrolled) in a traced tf.function."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

import numpy as np

from .base import ZRN, PeerBase, Step, Unsupported, installed, reorder_gates


def available() -> str | None:
    return installed("tensorflow", "tensorflow-cpu")[0]


def reason() -> str:
    return installed("tensorflow", "tensorflow-cpu")[1]


@contextmanager
def _quiet():
    """Drops what the C++ side writes to stderr while it loads, which no log level reaches."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


class Peer(PeerBase):
    name = "TensorFlow"
    dtypes = ("float32", "float64")
    can_train = True
    xla = False

    def build(self) -> None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        with _quiet():
            import keras
            import tensorflow as tf

        self.tf = tf
        # Both are refused once TensorFlow runs; the same values again are fine.
        tf.config.threading.set_intra_op_parallelism_threads(self.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.layer = keras.layers.GRU(
            self.shape.H,
            return_sequences=True,
            reset_after=True,
            unroll=False,
            dtype=self.dtype.name,
        )
        self.layer.build((self.shape.N, self.shape.T, self.shape.I))
        zrn = {name: reorder_gates(value, ZRN) for name, value in self.weights.items()}
        biases = np.stack([zrn["bias_ih"], zrn["bias_hh"]])
        self.layer.set_weights([zrn["weight_ih"].T, zrn["weight_hh"].T, biases])

    def _set_input(self, x, h0, d_output) -> None:
        # Keras is batch-major; the transposition is not part of what is timed.
        inputs = [x.swapaxes(0, 1), h0]
        if self.training:
            inputs.append(d_output.swapaxes(0, 1))
        self.inputs = [self.tf.constant(value) for value in inputs]
        traced = self._training if self.training else self._forward
        function = self.tf.function(traced, jit_compile=self.xla)
        self.function = function.get_concrete_function(*self.inputs)

    def _forward(self, x, h0):
        return self.layer(x, initial_state=h0)

    def _training(self, x, h0, d_output):
        with self.tf.GradientTape() as tape:
            tape.watch([x, h0])
            y = self._forward(x, h0)
        wanted = [x, h0, *self.layer.trainable_variables]
        return y, tape.gradient(y, wanted, output_gradients=d_output)

    def _infer(self) -> None:
        self.result = self.function(*self.inputs)

    def _train(self) -> None:
        self.result, self.d_wanted = self.function(*self.inputs)

    def output(self):
        return self.result.numpy().swapaxes(0, 1)

    def gradients(self):
        dx, dh0, d_kernel, d_recurrent, d_bias = (d.numpy() for d in self.d_wanted)
        return {
            "x": dx.swapaxes(0, 1),
            "h0": dh0,
            "weight_ih": reorder_gates(d_kernel.T, ZRN),
            "weight_hh": reorder_gates(d_recurrent.T, ZRN),
            "bias_ih": reorder_gates(d_bias[0], ZRN),
            "bias_hh": reorder_gates(d_bias[1], ZRN),
        }

    def steps(self):
        if self.shape.T != 1 or self.training:
            raise Unsupported("a step has T = 1 and no training")
        function, inputs = self.function, self.inputs
        return {
            "concrete function": Step(
                lambda: function(*inputs), lambda result: result.numpy()[:, 0]
            )
        }
