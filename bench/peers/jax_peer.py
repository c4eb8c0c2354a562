"""JAX: lax.scan of a step under jit, on XLA's CPU backend; the input's products in one before it.

Two directions are two scans; ragged rows have a mask, which keeps the state of a row that ended.
"""

from __future__ import annotations

import os
from functools import partial

import numpy as np

from .base import WEIGHT_NAMES, PeerBase, Step


class Peer(PeerBase):
    name = "JAX"
    distributions = ("jax",)
    dtypes = ("float32", "float64")
    can_train = True
    obeys_avx2_env = False  # products of 1500 x 1500 run as with AVX-512: 1.7 times AVX2's peak

    def build(self) -> None:
        # The size of XLA's pool of threads, read once, when it starts; its flags for threads change
        # nothing. The pool is beside the caller: with one thread 7 % of training 10,256,256,512.
        os.environ["NPROC"] = str(self.threads)
        import jax

        self.jax = jax
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", self.dtype == np.float64)
        # A call of 1,1,16,32 takes 5.6 us in the thread of the caller, 13.5 in another.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        # Of training 1, 4 and 8 took 1330, 820, 780 us at 1000,1,1,16 and 7.6, 5.9, 5.8 ms at
        # 50,8,80,256; inference of the first is slower with any but 1, of the second level.
        self.unroll = 4 if self.training else 1
        self.parameters = [{name: self._array(value.T) for name, value in part.items()}
                           for part in self.parts]
        self.function = jax.jit(self._training if self.training else self._forward)

    def _array(self, value):
        return self.jax.numpy.array(value)  # always a copy: an aligned array could be shared

    def _set_input(self, x, h_0, d_output) -> None:
        mask = None
        if self.lengths is not None:
            mask = self._array((np.arange(self.shape.T)[:, None] < self.lengths)[:, :, None])
        self.inputs = [self.parameters, *map(self._array, (x, h_0)), mask]
        if self.training:
            self.inputs.append(self._array(d_output))

    def _forward(self, parameters, x, h_0, mask):
        """`parameters` are those of each layer and direction, `h_0` is a state of each."""
        D = self.shape.directions
        for layer in range(self.shape.layers):
            here = range(layer * D, (layer + 1) * D)
            found = [self._direction(parameters[i], x, h_0[i], mask, reverse=i % D == 1)
                     for i in here]
            x = self.jax.numpy.concatenate(found, axis=2) if D == 2 else found[0]
        return x

    def _direction(self, weights, x, h_0, mask, reverse):
        from_x = x @ weights["weight_ih"] + weights["bias_ih"]
        step = partial(self._step, weights["weight_hh"], weights["bias_hh"])
        return self.jax.lax.scan(step, h_0, (from_x, mask), reverse=reverse,
                                 unroll=self.unroll)[1]

    def _step(self, weight, bias, h, inputs):
        """(state, output) after a step."""
        jnp, sigmoid = self.jax.numpy, self.jax.nn.sigmoid
        from_x, present = inputs
        (r_x, z_x, n_x), (r_h, z_h, n_h) = (
            jnp.split(gates, 3, axis=1) for gates in (from_x, h @ weight + bias))
        z = sigmoid(z_x + z_h)
        n = jnp.tanh(n_x + sigmoid(r_x + r_h) * n_h)
        new = n + z * (h - n)
        if present is None:
            return new, new
        return jnp.where(present, new, h), jnp.where(present, new, 0)

    def _training(self, parameters, x, h_0, mask, d_output):
        def forward(*wanted):
            return self._forward(*wanted, mask)

        y, backward = self.jax.vjp(forward, parameters, x, h_0)
        return y, backward(d_output)

    def _infer(self) -> None:
        self.result = self.function(*self.inputs).block_until_ready()

    def _train(self) -> None:
        found = self.function(*self.inputs)
        self.result, self.d_wanted = self.jax.block_until_ready(found)

    def output(self):
        return np.asarray(self.result)

    def gradients(self):
        d_parameters, dx, dh_0 = self.d_wanted
        parts = [{name: np.asarray(part[name]).T for name in WEIGHT_NAMES} for part in d_parameters]
        return {"dx": np.asarray(dx), "dh_0": np.asarray(dh_0)} | self._by_name(parts, "d")

    def steps(self):
        function, inputs = self.function, self.inputs
        return {"jit": Step(lambda: function(*inputs).block_until_ready(),
                            lambda result: np.asarray(result)[0])}
