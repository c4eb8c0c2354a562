"""TensorFlow: keras.layers.GRU (reset_after, not unrolled) in a traced tf.function.

Two directions are keras.layers.Bidirectional of it; ragged rows have a mask.
"""

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
        self.layers, self.directions = [], []  # the second has the GRU of each direction
        for inputs in self.shape.inputs:
            layer = keras.layers.GRU(self.shape.H, return_sequences=True, reset_after=True,
                                     unroll=False, dtype=self.dtype.name,
                                     zero_output_for_mask=self.lengths is not None)
            each = [layer]
            if self.shape.directions == 2:
                layer = keras.layers.Bidirectional(layer, dtype=self.dtype.name)
                each = [layer.forward_layer, layer.backward_layer]
            layer.build((self.shape.N, self.shape.T, inputs))
            self.layers.append(layer)
            self.directions += each
        for gru, part in zip(self.directions, self.parts, strict=True):
            zrn = {name: to_zrn(value) for name, value in part.items()}
            biases = np.stack([zrn["bias_ih"], zrn["bias_hh"]])
            gru.set_weights([zrn["weight_ih"].T, zrn["weight_hh"].T, biases])

    def _set_input(self, x, h_0, d_output) -> None:
        # Keras is batch-major; the transposition is not part of what is timed.
        inputs = [x.swapaxes(0, 1), *h_0]
        if self.lengths is not None:
            inputs.append(np.arange(self.shape.T) < self.lengths[:, None])
        if self.training:
            inputs.insert(0, d_output.swapaxes(0, 1))
        self.inputs = [self.tf.constant(value) for value in inputs]
        traced = self._training if self.training else self._forward
        function = self.tf.function(traced, jit_compile=self.xla)
        self.function = function.get_concrete_function(*self.inputs)

    def _forward(self, x, *others):
        """`others` are h_0 of each layer and direction and, of ragged rows, the mask."""
        D = self.shape.directions
        mask = None if self.lengths is None else others[-1]
        for index, layer in enumerate(self.layers):
            states = list(others[index * D : (index + 1) * D])
            x = layer(x, initial_state=states if D == 2 else states[0], mask=mask)
        return x

    def _training(self, d_output, x, *others):
        wanted = [x, *others[: len(self.directions)]]
        with self.tf.GradientTape() as tape:
            tape.watch(wanted)
            y = self._forward(x, *others)
        wanted += [v for gru in self.directions for v in gru.trainable_variables]
        return y, tape.gradient(y, wanted, output_gradients=d_output)

    def _infer(self) -> None:
        self.result = self.function(*self.inputs)

    def _train(self) -> None:
        self.result, self.d_wanted = self.function(*self.inputs)

    def output(self):
        return self.result.numpy().swapaxes(0, 1)

    def gradients(self):
        dx, *others = (d.numpy() for d in self.d_wanted)
        count, parts = len(self.directions), []
        dh_0, grads = np.stack(others[:count]), others[count:]
        for d_kernel, d_recurrent, d_bias in zip(*[iter(grads)] * 3, strict=True):
            parts.append({
                "weight_ih": to_zrn(d_kernel.T),
                "weight_hh": to_zrn(d_recurrent.T),
                "bias_ih": to_zrn(d_bias[0]),
                "bias_hh": to_zrn(d_bias[1]),
            })
        return {"dx": dx.swapaxes(0, 1), "dh_0": dh_0} | self._by_name(parts, "d")

    def steps(self):
        function, inputs = self.function, self.inputs
        step = Step(lambda: function(*inputs), lambda result: result.numpy()[:, 0])
        return {"concrete function": step}
