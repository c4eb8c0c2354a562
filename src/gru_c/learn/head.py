"""The linear layer on top of a GRU: y = x W^T + b, and its backward pass.

x (N, I), weight (O, I), bias (O,), y (N, O); a gradient is `d` + the name.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gru_c._types import Array, DType, Seed


class Linear:
    """A linear layer, y = x W^T + b, laid out and initialised as `torch.nn.Linear` is.

    Parameters
    ----------
    in_features : int
        Width I of the input.
    out_features : int
        Width O of the output.
    dtype : numpy.float32 or numpy.float64
        Of the weights, inputs and outputs.
    rng : int, numpy.random.Generator or None
        What the weights are drawn with: all from U(-1/sqrt(I), 1/sqrt(I)).

    Attributes
    ----------
    weight : ndarray of shape (O, I)
    bias : ndarray of shape (O,)
    grads : dict
        ``"weight"`` and ``"bias"``: the gradients of the last `backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from gru_c.learn import Linear
    >>> head = Linear(3, 2, rng=0)
    >>> head(np.ones((5, 3), np.float32)).shape
    (5, 2)
    >>> head.backward(np.ones((5, 2), np.float32)).shape
    (5, 3)
    """

    def __init__(self, in_features: int, out_features: int, dtype: DType = np.float32,
                 rng: Seed = None) -> None:
        rng = np.random.default_rng(rng)
        bound = 1 / math.sqrt(in_features)
        self.weight: Array = rng.uniform(-bound, bound, (out_features, in_features)).astype(dtype)
        self.bias: Array = rng.uniform(-bound, bound, out_features).astype(dtype)
        self.training: bool = True
        self.grads: dict[str, Array] = {}
        self._x: Array | None = None

    def train(self) -> Self:
        """Keep what `backward` needs from now on; return the layer."""
        self.training = True
        return self

    def eval(self) -> Self:
        """Keep nothing from now on: `forward` is then safe from any number of threads."""
        self.training, self._x = False, None
        return self

    def forward(self, x: Array) -> Array:
        """Return y = x W^T + b, (N, O), for `x` (N, I) of the layer's dtype."""
        if x.ndim != 2 or x.shape[1] != self.weight.shape[1]:
            raise ValueError(f"expected x of shape (N, {self.weight.shape[1]}), got {x.shape}")
        if x.dtype != self.weight.dtype:
            raise TypeError(f"expected x of dtype {self.weight.dtype}, got {x.dtype}")
        if self.training:
            self._x = x
        y = x @ self.weight.T
        y += self.bias
        return y

    __call__ = forward

    def backward(self, dy: Array) -> Array:
        """Return dx (N, I) for `dy` (N, O) of the last `forward`, and set `grads`."""
        if self._x is None:
            raise RuntimeError("backward needs a forward pass in training mode first")
        if dy.shape != (len(self._x), len(self.weight)):
            raise ValueError(
                f"expected dy of shape {(len(self._x), len(self.weight))}, got {dy.shape}"
            )
        self.grads = {"weight": dy.T @ self._x, "bias": dy.sum(axis=0)}
        return dy @ self.weight

    def state_dict(self) -> dict[str, Array]:
        """Return ``{"weight": (O, I), "bias": (O,)}``: views of the parameters."""
        return {"weight": self.weight, "bias": self.bias}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy ``weight`` and ``bias`` of the mapping `state` into the layer."""
        for name, own in self.state_dict().items():
            if state[name].shape != own.shape:
                raise ValueError(f"{name}: expected shape {own.shape}, got {state[name].shape}")
        for name, own in self.state_dict().items():
            own[...] = state[name]
