"""Small real data that ships with the package; CREDITS.md beside this file names the sources.

digits.npz   images (1797, 8, 8) and labels (1797,), uint8, pixel values 0..16
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DIGIT_PIXEL_MAX", "load_digits", "split_digits"]

DIGIT_PIXEL_MAX: int = 16
"""The brightest pixel value as stored; `load_digits` divides by it."""

_TEST_COUNT = 360


def load_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Load 1,797 handwritten digits as images of 8 by 8 pixels.

    Returns
    -------
    images : ndarray of shape (1797, 8, 8), float32
        Images, rows, columns. Pixels are in 0..1: the stored values 0..16 divided by 16 (exactly).
    labels : ndarray of shape (1797,), int64
        The digit of each image, 0..9.

    Notes
    -----
    "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998, UCI Machine
    Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0.

    Examples
    --------
    >>> from gru_c.datasets import load_digits
    >>> images, labels = load_digits()
    >>> images.shape, labels[:10].tolist()
    ((1797, 8, 8), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    with (files(__name__) / "digits.npz").open("rb") as file, np.load(file) as archive:
        images, labels = archive["images"], archive["labels"]
    return images.astype(np.float32) / np.float32(DIGIT_PIXEL_MAX), labels.astype(np.int64)


def split_digits() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the one split of the digits that every result of this package is quoted on.

    Returns
    -------
    train : ndarray of shape (1437,), int64
        Indices of the training images, shuffled.
    test : ndarray of shape (360,), int64
        Indices of the test images, shuffled.

    Examples
    --------
    >>> from gru_c.datasets import load_digits, split_digits
    >>> images, labels = load_digits()
    >>> train, test = split_digits()
    >>> images[train].shape, images[test].shape
    ((1437, 8, 8), (360, 8, 8))
    """
    # RandomState, not Generator: only its streams are promised to stay the same for ever (NEP 19).
    order = np.random.RandomState(0).permutation(1797).astype(np.int64)
    return order[:-_TEST_COUNT], order[-_TEST_COUNT:]
