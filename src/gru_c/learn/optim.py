"""Adam and gradient clipping, on one vector that holds every parameter end to end.

A step of a small model costs less in arithmetic than in Python calls. With all P parameters in one
vector an update is a dozen in-place ufuncs, however many arrays the model has.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gru_c._types import Array


class FlatArrays:
    """Named arrays laid end to end in one vector.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Copied in; all of one dtype.

    Attributes
    ----------
    vector : ndarray of shape (P,)
        All the values, in the order of the mapping.
    views : dict of str to ndarray
        The same memory under the names and shapes of `arrays`.

    Examples
    --------
    >>> import numpy as np
    >>> from gru_c.learn import FlatArrays
    >>> flat = FlatArrays({"weight": np.ones((2, 2)), "bias": np.zeros(2)})
    >>> flat.vector *= 3
    >>> flat.views["weight"].tolist()
    [[3.0, 3.0], [3.0, 3.0]]
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        if len({array.dtype for array in arrays.values()}) > 1:
            raise TypeError("the arrays must have one dtype")
        self.vector: Array = np.concatenate([array.ravel() for array in arrays.values()])
        self.views: dict[str, Array] = {}
        start = 0
        for name, array in arrays.items():
            self.views[name] = self.vector[start : start + array.size].reshape(array.shape)
            start += array.size

    def gather(self, arrays: Mapping[str, Array]) -> None:
        """Copy the mapping `arrays`, with the same names and shapes, into the vector."""
        for name, view in self.views.items():
            view[...] = arrays[name]


class Adam:
    """The Adam optimiser for one vector of parameters, changed in place.

    The formula and the defaults of ``torch.optim.Adam`` (Kingma and Ba, 2015, Algorithm 1)::

        m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
        p = p - lr * m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)

    Parameters
    ----------
    parameters : ndarray of shape (P,)
        Kept, and changed by every step.
    learning_rate : float
        lr; the attribute may be assigned between steps (a schedule).
    betas : tuple of two floats
        b1 and b2, the decay of the two moments.
    eps : float
        Added to the root, so that nothing is divided by zero.

    Examples
    --------
    >>> import numpy as np
    >>> from gru_c.learn import Adam
    >>> parameters = np.array([1.0, -2.0])
    >>> adam = Adam(parameters, learning_rate=0.1)
    >>> adam.step(np.array([3.0, -0.5]))         # the first step is lr * sign(gradient)
    >>> parameters.round(6).tolist()
    [0.9, -1.9]
    """

    def __init__(self, parameters: Array, learning_rate: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.parameters: Array = parameters
        self.learning_rate: float = learning_rate
        self.betas: tuple[float, float] = betas
        self.eps: float = eps
        self.steps: int = 0
        self._mean = np.zeros_like(parameters)
        self._square = np.zeros_like(parameters)
        self._scratch = np.empty_like(parameters)

    def step(self, gradient: Array) -> None:
        """Move `parameters` one step against `gradient` (P,), which is not changed."""
        self.steps += 1
        beta1, beta2 = self.betas
        mean, square, scratch = self._mean, self._square, self._scratch
        # m += (1 - b1) (g - m)
        np.subtract(gradient, mean, out=scratch)
        scratch *= 1 - beta1
        mean += scratch
        # v = b2 v + (1 - b2) g^2
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 1 - beta2
        square *= beta2
        square += scratch
        # p -= lr sqrt(c2) / c1 * m / (sqrt(v) + eps sqrt(c2)), with c = 1 - b^t: sqrt(c2) is taken
        # out of the fraction above, which saves a pass over the vector
        root = math.sqrt(1 - beta2**self.steps)
        np.sqrt(square, out=scratch)
        scratch += self.eps * root
        np.divide(mean, scratch, out=scratch)
        scratch *= self.learning_rate * root / (1 - beta1**self.steps)
        self.parameters -= scratch


def clip_grad_norm(gradient: Array, max_norm: float) -> float:
    """Scale `gradient` in place so that its 2-norm is at most `max_norm`.

    The same as ``torch.nn.utils.clip_grad_norm_`` on all parameters together, its 1e-6 included:
    the factor is ``min(1, max_norm / (norm + 1e-6))``.

    Parameters
    ----------
    gradient : ndarray
        Every gradient of the model in one array; changed in place.
    max_norm : float

    Returns
    -------
    float
        The norm before.

    Examples
    --------
    >>> import numpy as np
    >>> from gru_c.learn import clip_grad_norm
    >>> gradient = np.array([3.0, 4.0])
    >>> clip_grad_norm(gradient, 1.0), gradient.round(4).tolist()
    (5.0, [0.6, 0.8])
    """
    # Not numpy.dot: beyond 10,000 elements BLAS wakes its threads for it.
    norm = math.sqrt(np.square(gradient).sum())
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1:  # a NaN must spread, as it does in PyTorch
        gradient *= factor
    return norm
