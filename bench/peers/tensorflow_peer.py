"""TensorFlow: keras.layers.GRU (reset_after, not unrolled) in a traced tf.function."""

from __future__ import annotations

import os

import numpy as np

from .base import PeerBase, Step, to_zrn


class Peer(PeerBase):
    name = "TensorFlow"
    distributions = ("tensorflow", "tensorflow-cpu")
    dtypes = ("float32", "float64")
    can_train = True
    xla = False

    def build(self) -> None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        import keras
        import tensorflow as tf

        self.tf = tf
        # Both are refused once TensorFlow runs; the same values again are fine.
        tf.config.threading.set_intra_op_parallelism_threads(self.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.layer = keras.layers.GRU(self.shape.H, return_sequences=True, reset_after=True,
                                      unroll=False, dtype=self.dtype.name)
        self.layer.build((self.shape.N, self.shape.T, self.shape.I))
        zrn = {name: to_zrn(value) for name, value in self.weights.items()}
        biases = np.stack([zrn["bias_ih"], zrn["bias_hh"]])
        self.layer.set_weights([zrn["weight_ih"].T, zrn["weight_hh"].T, biases])

    def _set_input(self, x, h_0, d_output) -> None:
        # Keras is batch-major; the transposition is not part of what is timed.
        inputs = [x.swapaxes(0, 1), h_0]
        if self.training:
            inputs.append(d_output.swapaxes(0, 1))
        self.inputs = [self.tf.constant(value) for value in inputs]
        traced = self._training if self.training else self._forward
        function = self.tf.function(traced, jit_compile=self.xla)
        self.function = function.get_concrete_function(*self.inputs)

    def _forward(self, x, h_0):
        return self.layer(x, initial_state=h_0)

    def _training(self, x, h_0, d_output):
        with self.tf.GradientTape() as tape:
            tape.watch([x, h_0])
            y = self._forward(x, h_0)
        wanted = [x, h_0, *self.layer.trainable_variables]
        return y, tape.gradient(y, wanted, output_gradients=d_output)

    def _infer(self) -> None:
        self.result = self.function(*self.inputs)

    def _train(self) -> None:
        self.result, self.d_wanted = self.function(*self.inputs)

    def output(self):
        return self.result.numpy().swapaxes(0, 1)

    def gradients(self):
        dx, dh_0, d_kernel, d_recurrent, d_bias = (d.numpy() for d in self.d_wanted)
        return {
            "dx": dx.swapaxes(0, 1),
            "dh_0": dh_0,
            "dweight_ih": to_zrn(d_kernel.T),
            "dweight_hh": to_zrn(d_recurrent.T),
            "dbias_ih": to_zrn(d_bias[0]),
            "dbias_hh": to_zrn(d_bias[1]),
        }

    def steps(self):
        function, inputs = self.function, self.inputs
        step = Step(lambda: function(*inputs), lambda result: result.numpy()[:, 0])
        return {"concrete function": step}
