"""Softmax and cross-entropy of logits (N, C) against labels (N,), with the gradient.

    log p = a - max a - log sum exp(a - max a)         each row of the logits a
    loss  = -mean log p[i, label_i]                    dlogits = (p - onehot(label)) / N
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gru_c._types import Array


def log_softmax(logits: Array) -> Array:
    """Return log(softmax(logits)) along the last axis; no finite logits overflow.

    Examples
    --------
    >>> import numpy as np
    >>> from gru_c.learn import log_softmax
    >>> log_softmax(np.array([[1000.0, 1000.0]])).round(4).tolist()
    [[-0.6931, -0.6931]]
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def softmax(logits: Array) -> Array:
    """Return the probabilities exp(logits) / sum exp(logits) along the last axis.

    Examples
    --------
    >>> import numpy as np
    >>> from gru_c.learn import softmax
    >>> softmax(np.array([[0.0, np.log(3.0)]])).round(4).tolist()
    [[0.25, 0.75]]
    """
    return np.exp(log_softmax(logits))


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Return the mean cross-entropy of the batch and its gradient.

    The same as ``torch.nn.functional.cross_entropy(logits, labels)`` and its backward pass.

    Parameters
    ----------
    logits : ndarray of shape (N, C)
        Unnormalised log-probabilities; N is at least 1.
    labels : ndarray of shape (N,), integer
        The right class of each row, 0..C-1.

    Returns
    -------
    loss : float
        In nats.
    dlogits : ndarray of shape (N, C)
        The gradient of `loss`, of the dtype of `logits`.

    Examples
    --------
    >>> import numpy as np
    >>> from gru_c.learn import cross_entropy
    >>> loss, dlogits = cross_entropy(np.zeros((1, 2)), np.array([1]))
    >>> round(loss, 4), dlogits.tolist()
    (0.6931, [[0.5, -0.5]])
    """
    count = len(logits)
    if logits.ndim != 2 or labels.shape != (count,):
        raise ValueError(
            f"expected logits (N, C) and labels (N,), got {logits.shape} and {labels.shape}"
        )
    if count == 0:
        raise ValueError("the mean over an empty batch is not defined")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"expected integer labels, got {labels.dtype}")
    for label in (labels.min(), labels.max()):
        if not 0 <= label < logits.shape[1]:
            raise ValueError(f"label {label} is out of bounds for {logits.shape[1]} classes")
    dlogits = log_softmax(logits)
    rows = np.arange(count)
    loss = -float(dlogits[rows, labels].mean())
    np.exp(dlogits, out=dlogits)
    dlogits[rows, labels] -= 1
    dlogits /= count
    return loss, dlogits
