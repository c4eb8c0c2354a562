"""Batches of sequences of different lengths: one padded array, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from gru_c import _checks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gru_c._types import Array, DType

__all__ = ["pad_sequences", "unpad_sequences"]


def pad_sequences(sequences: Iterable[ArrayLike], batch_first: bool = False,
                  dtype: DType | None = None) -> tuple[Array, NDArray[np.intp]]:
    """Make one array of sequences of different lengths, padded with zeros behind their ends.

    The results are x and lengths of a call of `GRU`. Labels, masks and resets of each step are
    padded in the same way.

    Parameters
    ----------
    sequences : N arrays (t, ...)
        Only t, the steps, may differ; some may have none, but not all. With inputs: (t, I).
    batch_first : bool
        As in `GRU`.
    dtype : {float32, float64}, optional
        To convert integers, bools and Python numbers to. If absent, the dtype of the sequences,
        which must be the same for all; an empty list has none. An array of another floating dtype
        is refused.

    Returns
    -------
    padded : ndarray (T, N, ...), or (N, T, ...) with `batch_first`
        T is the greatest of the lengths. Each sequence is copied once.
    lengths : ndarray of intp (N,)
        Steps of each sequence, in the order given.

    Raises
    ------
    TypeError
        A sequence of another dtype.
    ValueError
        A sequence of another shape than the first has, no sequences, or no steps in any.

    Examples
    --------
    >>> import numpy as np
    >>> from gru_c import pad_sequences, unpad_sequences
    >>> padded, lengths = pad_sequences([np.ones((2, 8)), np.ones((5, 8)), np.ones((3, 8))])
    >>> padded.shape, lengths.tolist()
    ((5, 3, 8), [2, 5, 3])
    >>> [rows.shape for rows in unpad_sequences(padded, lengths)]
    [(2, 8), (5, 8), (3, 8)]
    """
    batch_first = _checks.flag(batch_first, "batch_first")
    arrays, dtype = _arrays_of_one_kind(sequences, dtype)
    lengths = np.array([len(a) for a in arrays], np.intp)
    N, T = len(arrays), lengths.max()
    if T == 0:
        raise ValueError("Expected sequence length to be larger than 0 in one sequence at least "
                         f"(sequences[0] of shape {arrays[0].shape})")
    axes = (N, T) if batch_first else (T, N)
    padded = np.zeros(axes + arrays[0].shape[1:], dtype)
    for row, a in zip(_rows(padded, batch_first), arrays, strict=True):
        row[:len(a)] = a
    return padded, lengths


def unpad_sequences(padded: ArrayLike, lengths: ArrayLike,
                    batch_first: bool = False) -> list[Array]:
    """The sequences in a padded array, without the padding: the inverse of `pad_sequences`.

    Parameters
    ----------
    padded : array (T, N, ...), or (N, T, ...) with `batch_first`
        An output of `GRU`, say.
    lengths : integers (N,)
        Steps of each sequence, 0 to T.
    batch_first : bool

    Returns
    -------
    list of N ndarrays (t, ...)
        Views of `padded`, not copies.

    Raises
    ------
    TypeError, ValueError
        Lengths that are not integers, or do not fit.
    """
    batch_first = _checks.flag(batch_first, "batch_first")
    padded = _checks.any_array(padded, "padded")
    if padded.ndim < 2:
        raise ValueError(f"Expected padded to be at least 2D, got {padded.ndim}D instead "
                         f"(padded of shape {padded.shape})")
    rows = _rows(padded, batch_first)
    lengths = _checks.lengths(lengths, len(rows))
    _checks.lengths_within(lengths, rows.shape[1])
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def _rows(padded: Array, batch_first: bool) -> Array:
    """A view whose first axis is N."""
    return padded if batch_first else padded.swapaxes(0, 1)


def _arrays_of_one_kind(sequences: Iterable[ArrayLike],
                        dtype: DType | None) -> tuple[list[Array], np.dtype]:
    """The sequences as arrays that differ in steps only, and the dtype of the result."""
    if not isinstance(sequences, Iterable):
        raise TypeError(f"sequences must be a list of arrays, got {type(sequences).__name__}")
    values = list(sequences)
    if not values:
        raise ValueError("sequences is empty, expected at least one array")
    arrays = [_checks.any_array(value, f"sequences[{i}]") for i, value in enumerate(values)]
    for i, a in enumerate(arrays):
        if a.ndim == 0:
            raise ValueError(f"sequences[{i}] has no axis of steps: its shape is ()")
        if a.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(f"sequences[{i}] has shape {a.shape}, sequences[0] {arrays[0].shape}: "
                             "only the first axis may differ")
    if dtype is None:
        return arrays, _common_dtype(values, arrays)
    dtype = _checks.model_dtype(dtype)
    for i, (value, a) in enumerate(zip(values, arrays, strict=True)):
        if not _checks.converts(value, a, dtype):
            raise TypeError(f"sequences[{i}] dtype ({a.dtype}) does not match dtype ({dtype}). "
                            f"Convert sequences[{i}]")
    return arrays, dtype


def _common_dtype(values: list[ArrayLike], arrays: list[Array]) -> np.dtype:
    """That of all arrays, real numbers or bools. An empty list has no dtype of its own."""
    own = [i for i, a in enumerate(arrays) if len(a) or not isinstance(values[i], (list, tuple))]
    first, *_ = own or [0]
    common = _checks.native(arrays[first].dtype)
    for i in own:
        dtype = arrays[i].dtype
        if dtype.kind not in "biuf":
            raise TypeError(f"sequences[{i}] dtype ({dtype}) has no real numbers")
        if _checks.native(dtype) != common:
            raise TypeError(f"sequences[{i}] dtype ({dtype}) does not match that of "
                            f"sequences[{first}] ({common}). Convert one of them, or give dtype")
    return common
