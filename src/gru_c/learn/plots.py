"""Pictures of a training run: curves, confusion matrix, examples. Needs matplotlib.

Each function returns a `matplotlib.figure.Figure` that pyplot's global state knows nothing about,
so nothing opens a window or stays behind. matplotlib is imported when a picture is asked for.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from ..interop.containers.writing import write_atomically
from ..interop.errors import MissingExtraError

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

    from gru_c._types import Array

    from .trainer import History

_TRAINING, _VALIDATION = "tab:gray", "tab:blue"
_RIGHT, _WRONG = "black", "tab:red"


def training_curves(history: History) -> Figure:
    """Draw loss and accuracy over the epochs of the `History`, with the best epoch marked."""
    figure = _figure(9, 3.6)
    epochs = [epoch.epoch for epoch in history.epochs]
    loss, accuracy = figure.subplots(1, 2)
    for axes, name, scale in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
        for part, colour in (("train", _TRAINING), ("validation", _VALIDATION)):
            values = [scale * getattr(epoch, f"{part}_{name}") for epoch in history.epochs]
            label = {"train": "training, while learning"}.get(part, part)
            axes.plot(epochs, values, color=colour, label=label, marker=".", markersize=4)
        best = scale * getattr(history.best, f"validation_{name}")
        axes.plot(
            history.best.epoch, best, "o", markersize=9, fillstyle="none", color=_VALIDATION,
            label=f"best model (epoch {history.best.epoch})",
        )
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _open(axes)
    loss.set_yscale("log")
    loss.set_title("Cross-entropy (nats)", loc="left")
    accuracy.set_title("Accuracy (%)", loc="left")
    accuracy.legend(frameon=False, loc="lower right")
    return figure


def confusion_matrix(labels: Array, predictions: Array, classes: int = 10) -> Figure:
    """Draw how often each of `labels` (N,) was taken for each of `predictions` (N,)."""
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predictions), 1)
    figure = _figure(5.6, 5.4)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The square root lets a single mistake among dozens of right answers be seen.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1.25)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.4 else "black"
        if row != column:
            colour = _WRONG
        axes.text(column, row, counts[row, column], ha="center", va="center", color=colour)
    axes.set_xticks(range(classes))
    axes.set_yticks(range(classes))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right, total = int(np.trace(counts)), len(labels)
    axes.set_title(f"{right} of {total} right ({right / total:.1%})".replace("%", " %"), loc="left")
    return figure


def digit_gallery(images: Array, labels: Array, probabilities: Array, columns: int = 10) -> Figure:
    """Draw images with their predictions: the first ones, and the ones that were hardest.

    Parameters
    ----------
    images : ndarray of shape (N, height, width)
    labels : ndarray of shape (N,)
    probabilities : ndarray of shape (N, C)
        Of every class, as the model sees it.
    columns : int
        Images in a row. There are two rows of the first images and two of those whose right class
        got the lowest probability.
    """
    predictions = probabilities.argmax(axis=1)
    hardest = np.argsort(probabilities[np.arange(len(labels)), labels], kind="stable")
    figure = _figure(columns, 6.4)
    halves = figure.subfigures(2, 1)
    for half, order, title in (
        (halves[0], np.arange(len(labels)), "The first test digits"),
        (halves[1], hardest, "The hardest: lowest probability of the right digit, mistakes in red"),
    ):
        half.suptitle(title, x=0.01, ha="left", fontsize=12)
        for axes in half.subplots(2, columns).flat:
            axes.axis("off")
        for axes, i in zip(half.axes, order, strict=False):
            axes.imshow(images[i], cmap="gray_r")
            text, colour = f"{predictions[i]}  ({probabilities[i].max():.0%})", _RIGHT
            if predictions[i] != labels[i]:
                text, colour = f"{text}\nis {labels[i]}", _WRONG
            axes.text(
                0.5, -0.05, text, transform=axes.transAxes, ha="center", va="top",
                color=colour, fontsize=10,
            )
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write `figure` to `path` as PNG, all of it or nothing."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, picture.getvalue())


def _figure(width, height):
    """Return an empty figure of that many inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    return Figure(figsize=(width, height), layout="constrained")


def _open(axes):
    """Take away the frame's upper and right sides, and add a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
