"""Options of a sequence, arranged for the core: lengths, masks and resets of rows, and dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _checks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from gru_c._types import Array

HELD, RESET, SILENT, SILENT_REVERSE = 1, 2, 4, 8           # as in _core/rnn/call.pxd


class Options:
    """What a caller asks of one forward; the arguments are those of `GRU.forward`."""

    def __init__(self, lengths: ArrayLike | None, mask: ArrayLike | None, resets: ArrayLike | None,
                 dropout_masks: Mapping[str, ArrayLike] | None, dropout: Dropout,
                 return_output: bool, out: Array | None) -> None:
        self.lengths, self.mask, self.resets = lengths, mask, resets
        self.dropout_masks, self.dropout = dropout_masks, dropout
        self.return_output, self.out = _checks.flag(return_output, "return_output"), out
        if out is not None and not self.return_output:
            raise ValueError("out takes the output, but return_output is False")

    def arrange(self, steps: int, rows: int, batched: bool, batch_first: bool,
                training: bool) -> tuple[Any, Any, Any]:
        """What `Options` of _core/options.pxi takes, checked against T, N and the arrangement of x.

        (order, lengths, offsets) of `Ragged` in rnn/call.pxd, or None; marks (T, N), the rows
        longest first, or None; `Dropout.multipliers`.
        """
        lengths = None
        if self.lengths is not None:
            given = self.lengths if batched else np.atleast_1d(self.lengths)
            lengths = _checks.lengths(given, rows, steps)
        shape = (rows, steps) if batched and batch_first else (steps, rows) if batched else (steps,)
        marks = [None if given is None else
                 _time_major(_checks.marks(given, name, shape), batched, batch_first, steps)
                 for given, name in ((self.mask, "mask"), (self.resets, "resets"))]
        ragged = None if lengths is None else _ragged(lengths, steps)
        return (ragged, _marks(*marks, lengths, ragged),
                self.dropout.multipliers(self.dropout_masks, steps, rows, batched, batch_first,
                                         training))


def _time_major(a: Array, batched: bool, batch_first: bool, steps: int) -> Array:
    """(T, N, ...) of an array with the first axes of x."""
    return a.swapaxes(0, 1) if batched and batch_first else a.reshape(steps, -1, *a.shape[2:])


def _ragged(lengths: Array, steps: int) -> tuple[Array, Array, Array]:
    """The rows longest first, their lengths, and the number of rows of all steps before each."""
    order = np.argsort(-lengths, kind="stable")
    ends = np.bincount(lengths, minlength=steps + 1)[:steps]           # rows of exactly t steps
    active = len(lengths) - np.cumsum(ends)
    offsets = np.concatenate([[0], np.cumsum(active)])
    return tuple(np.ascontiguousarray(a, np.intp) for a in (order, lengths[order], offsets))


def _marks(mask: Array | None, resets: Array | None, lengths: Array | None,
           ragged: tuple[Array, Array, Array] | None) -> Array | None:
    """Bits of HELD ... SILENT_REVERSE, a byte (T, N) for each step and row; 0 past a row's end."""
    if mask is None and resets is None:
        return None
    steps, rows = (mask if mask is not None else resets).shape
    marks = np.zeros((steps, rows), np.uint8)
    within = np.ones((steps, rows), bool)
    if lengths is not None:
        within = np.arange(steps)[:, None] < lengths
    if resets is not None:
        marks[resets & within] |= RESET
    if mask is not None:
        counts = mask & within
        marks[~mask & within] |= HELD
        marks[~np.logical_or.accumulate(counts, axis=0) & within] |= SILENT
        marks[~np.logical_or.accumulate(counts[::-1], axis=0)[::-1] & within] |= SILENT_REVERSE
    return np.ascontiguousarray(marks if ragged is None else marks[:, ragged[0]])


class Dropout:
    """The dropout of a model: probabilities, and the multipliers of one forward in training.

    `output` is that between layers, a multiplier for each element. `input` and `recurrent` are
    variational (Gal and Ghahramani 2016, arXiv:1512.05287): one mask for all steps of a row.
    """

    def __init__(self, output: float, input_: float, recurrent: float, suffixes: list[str],
                 inputs: list[int], hidden_size: int, dtype: np.dtype[Any],
                 rng: np.random.Generator) -> None:
        self.output, self.input, self.recurrent = output, input_, recurrent
        self.suffixes, self.inputs, self.hidden_size = suffixes, inputs, hidden_size
        self.directions = 1 + suffixes[-1].endswith("_reverse")
        self.dtype, self.rng = dtype, rng
        self.active = output > 0 or input_ > 0 or recurrent > 0

    def multipliers(self, given: Mapping[str, ArrayLike] | None, steps: int, rows: int,
                    batched: bool, batch_first: bool, training: bool) -> list[Any] | None:
        """(of output, of input, recurrent) for each layer and direction; each an array or None.

        Of output they are (T, N, D*H), the same for both directions. None if nothing is dropped.
        """
        if given is None and not (training and self.active):
            return None
        given = _checks.dropout_masks(given, training)
        width = self.directions * self.hidden_size
        row = (rows,) if batched else ()
        time = (rows, steps) if batched and batch_first else (steps, *row)
        above, found = {}, []
        for suffix, inputs in zip(self.suffixes, self.inputs, strict=True):
            layer = suffix.removesuffix("_reverse")
            if layer not in above:
                last = layer == self.suffixes[-1].removesuffix("_reverse")
                a = None if last else self._mask(given, f"output_{layer}", (*time, width),
                                                 self.output)
                above[layer] = None if a is None else (
                    a.swapaxes(0, 1) if batched and batch_first else a.reshape(steps, -1, width))
            found.append((above[layer], *(
                a if a is None else a.reshape(-1, size) for a, size in (
                    (self._mask(given, f"input_{suffix}", (*row, inputs), self.input), inputs),
                    (self._mask(given, f"recurrent_{suffix}", (*row, self.hidden_size),
                                self.recurrent), self.hidden_size)))))
        if given:
            raise ValueError(f"dropout_masks has unexpected names: {', '.join(map(repr, given))}")
        return found

    def _mask(self, given: dict[str, ArrayLike], name: str, shape: tuple[int, ...],
              p: float) -> Array | None:
        """The mask that the caller gave, taken out of `given`, or a drawn one; None without."""
        if name in given:
            mask = _checks.array(given.pop(name), f"dropout_masks[{name!r}]", self.dtype)
            _checks.shape(mask, shape, f"dropout_masks[{name!r}]")
            return np.array(mask, order="C")
        if p == 0:
            return None
        kept = self.rng.random(shape, np.float32) >= p
        return np.multiply(kept, 0 if p == 1 else 1 / (1 - p), dtype=self.dtype)
