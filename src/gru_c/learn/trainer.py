"""fit: the training loop; its history; the best model; what Ctrl-C does.

Per batch: noise, logits, cross-entropy, gradients into one vector, clip, Adam, new weights.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .losses import cross_entropy
from .optim import Adam, FlatArrays, clip_grad_norm

if TYPE_CHECKING:
    from collections.abc import Callable

    from gru_c._types import Array, Seed

    from .classifier import SequenceClassifier

Data: TypeAlias = "tuple[Array, Array]"


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes
    ----------
    epoch : int
        1 for the first.
    learning_rate : float
        Used throughout the epoch.
    train_loss, train_accuracy : float
        Means over the training sequences, each taken just before its batch was learned.
    validation_loss, validation_accuracy : float
        Means over the validation sequences, after the epoch.
    seconds : float
        Time of the epoch with its validation, callbacks left out.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


@dataclass
class History:
    """What a training run came to.

    Attributes
    ----------
    epochs : list of Epoch
        The finished ones.
    best : Epoch or None
        The one of the highest validation accuracy, the latest if several have it.
    interrupted : bool
        Whether Ctrl-C ended the run.
    """

    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    interrupted: bool = False

    @property
    def seconds(self) -> float:
        """Time of all finished epochs."""
        return sum(epoch.seconds for epoch in self.epochs)


def evaluate(model: SequenceClassifier, x: Array, labels: Array,
             batch_size: int = 256) -> tuple[float, float]:
    """Return the mean loss and the accuracy (0..1) of `model` on `x` (N, T, I), `labels` (N,).

    The model is left in evaluation mode.
    """
    model.eval()
    loss, hits = 0.0, 0
    for start in range(0, len(x), batch_size):
        part = labels[start : start + batch_size]
        logits = model(x[start : start + batch_size])
        loss += cross_entropy(logits, part)[0] * len(part)
        hits += int((logits.argmax(axis=1) == part).sum())
    return loss / len(x), hits / len(x)


def fit(
    model: SequenceClassifier,
    train: Data,
    validation: Data,
    epochs: int = 30,
    batch_size: int = 32,
    learning_rate: float = 6e-3,
    clip: float = 1.0,
    noise: float = 0.0,
    rng: Seed = None,
    callback: Callable[[History], object] | None = None,
) -> History:
    """Train `model` and leave it with the weights that did best on the validation data.

    Adam on the mean cross-entropy of a batch, the gradient norm clipped at `clip`. The learning
    rate stays at `learning_rate` for the first half of the epochs and then falls linearly, see
    `rate_of_epoch`. Noise keeps a small data set from being learned by heart.

    Parameters
    ----------
    model : SequenceClassifier
        Changed in place, and left in evaluation mode.
    train, validation : tuple of two ndarrays
        Sequences (N, T, I) of the model's dtype and their labels (N,).
    epochs, batch_size : int
    learning_rate, clip : float
    noise : float
        Standard deviation of the Gaussian noise that is added to the training sequences, drawn anew
        for every batch; in the units of the data, so that no value but 0, none, suits all data.
    rng : int, numpy.random.Generator or None
        What the noise is drawn with, and the order of the training data, anew for every epoch.
    callback : callable, optional
        Called as ``callback(history)`` after every epoch. While it runs the model holds the weights
        of that epoch, so ``history.best is history.epochs[-1]`` is when to save it.

    Returns
    -------
    History
        After Ctrl-C (KeyboardInterrupt) too, with `interrupted` set: the model then has the best
        weights so far, or, before the end of the first epoch, those that it had reached (the
        initial ones if these are no longer finite).

    Raises
    ------
    FloatingPointError
        If the loss becomes infinite or NaN. The model then has the best weights so far: after the
        first epoch, those that it came with.

    Examples
    --------
    >>> import numpy as np
    >>> from gru_c.learn import SequenceClassifier, fit
    >>> x = np.random.default_rng(0).random((200, 5, 3), np.float32)
    >>> labels = (x[:, :, 0].sum(axis=1) > 2.5).astype(int)    # is the first channel bright?
    >>> model = SequenceClassifier(input_size=3, hidden_size=16, num_classes=2, rng=0)
    >>> history = fit(model, (x[:150], labels[:150]), (x[150:], labels[150:]), epochs=20, rng=0)
    >>> len(history.epochs), history.best.validation_accuracy > 0.9
    (20, True)
    """
    rng = np.random.default_rng(rng)
    x, labels = train
    for data, name in ((train, "training"), (validation, "validation")):
        if not isinstance(data[0], np.ndarray) or data[0].ndim != 3:
            found = data[0].shape if isinstance(data[0], np.ndarray) else type(data[0]).__name__
            raise ValueError(f"{name} data: sequences should be one array (N, T, I), all of T "
                             f"steps, got: {found}")
        if len(data[0]) != len(data[1]) or len(data[0]) == 0:
            raise ValueError(
                f"{name} data: {len(data[0])} sequences and {len(data[1])} labels; "
                "they must be equally many and at least one"
            )
    parameters = FlatArrays(model.state_dict())
    gradients = FlatArrays(model.state_dict())
    adam = Adam(parameters.vector, learning_rate)
    history, best = History(), FlatArrays(parameters.views)
    try:
        # A diverging run is reported once, below, not by a warning from each array operation.
        with np.errstate(over="ignore", invalid="ignore"):
            for epoch in range(1, epochs + 1):
                start = time.perf_counter()
                adam.learning_rate = rate_of_epoch(learning_rate, epoch, epochs)
                batches = _batches(x, labels, batch_size, noise, rng)
                loss, accuracy = _run_epoch(model, batches, adam, clip, parameters, gradients)
                result = evaluate(model, *validation)
                seconds = time.perf_counter() - start
                if not math.isfinite(loss + result[0]):
                    raise FloatingPointError(
                        f"the loss became {loss + result[0]} in epoch {epoch}; "
                        "try a smaller learning rate"
                    )
                last = Epoch(epoch, adam.learning_rate, loss, accuracy, *result, seconds)
                if _as_good(last, history.best):
                    history.best, best = last, FlatArrays(parameters.views)
                history.epochs.append(last)
                if callback is not None:
                    callback(history)
    except KeyboardInterrupt:
        history.interrupted = True
        if history.best is None and np.isfinite(parameters.vector).all():
            best = parameters
    finally:
        model.load_state_dict(best.views)
        model.eval()
    return history


def rate_of_epoch(learning_rate: float, epoch: int, epochs: int) -> float:
    """Return the learning rate of `epoch` (1..epochs): whole for the first half, then falling.

    The fall is linear, and would reach zero in the epoch after the last.
    """
    return learning_rate * min(1.0, 2 * (epochs - epoch + 1) / epochs)


def _as_good(epoch, best):
    return best is None or epoch.validation_accuracy >= best.validation_accuracy


def _batches(x, labels, batch_size, noise, rng):
    """Yield all of the training data once, shuffled: a batch of noisy sequences, their labels."""
    order = rng.permutation(len(x))
    for start in range(0, len(x), batch_size):
        rows = order[start : start + batch_size]
        batch = x[rows]
        if noise:
            batch += noise * rng.standard_normal(batch.shape, batch.dtype)
        yield batch, labels[rows]


def _run_epoch(model, batches, adam, clip, parameters, gradients):
    """Learn every batch once; return the mean loss and accuracy on the way."""
    model.train()
    loss, hits, count = 0.0, 0, 0
    for x, labels in batches:
        logits = model(x)
        batch_loss, dlogits = cross_entropy(logits, labels)
        model.backward(dlogits)
        gradients.gather(model.grads)
        clip_grad_norm(gradients.vector, clip)
        adam.step(gradients.vector)
        model.load_state_dict(parameters.views)
        loss += batch_loss * len(x)
        hits += int((logits.argmax(axis=1) == labels).sum())
        count += len(x)
    return loss / count, hits / count
