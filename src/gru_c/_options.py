"""Options of a sequence, arranged for the core: lengths, masks and resets of rows, and dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _checkpoint, _checks
from gru_c._core import longest_first
from gru_c._core import marks as core_marks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from gru_c._types import Array


class Options:
    """What a caller asks of one forward."""

    def __init__(self, lengths: ArrayLike | None, mask: ArrayLike | None, resets: ArrayLike | None,
                 dropout_masks: Mapping[str, ArrayLike] | None, dropout: Dropout,
                 return_output: bool, out: Array | None, checkpoint: int | None) -> None:
        self.lengths, self.mask, self.resets = lengths, mask, resets
        self.dropout_masks, self.dropout = dropout_masks, dropout
        self.return_output, self.out = _checks.flag(return_output, "return_output"), out
        self.checkpoint = checkpoint
        if out is not None and not self.return_output:
            raise ValueError("out takes the output, but return_output is False")

    def arrange(self, steps: int, rows: int, batched: bool, batch_first: bool,
                training: bool) -> tuple[Any, Any, Any]:
        """(order, lengths, offsets) or None; marks or None; multipliers of each call or None.

        Marks have the rows longest first. `batch_first` only of a batched input.
        """
        ragged = marks = None
        if self.lengths is not None:
            given = self.lengths if batched else np.atleast_1d(self.lengths)
            lengths = _checks.lengths(given, rows)
            ragged = longest_first(lengths, steps)
            if ragged is None:
                _checks.lengths_within(lengths, steps)
        if self.mask is not None or self.resets is not None:
            marks = core_marks(self._marks("mask", steps, rows, batched, batch_first),
                               self._marks("resets", steps, rows, batched, batch_first),
                               ragged, steps, rows)
        return ragged, marks, self.dropout.multipliers(
            self.dropout_masks, steps, rows, batched, batch_first, training)

    def run_windows(self, *arguments: Any) -> _checkpoint.Windows:
        """A forward that `backward` of the result undoes."""
        return _checkpoint.Windows(self.checkpoint, *arguments)

    def _marks(self, name: str, steps: int, rows: int, batched: bool,
               batch_first: bool) -> Array | None:
        """`mask` or `resets`, contiguous, (T, N)."""
        given = getattr(self, name)
        if given is None:
            return None
        shape = (steps,) if not batched else (rows, steps) if batch_first else (steps, rows)
        marks = _checks.marks(given, name, shape)
        return np.ascontiguousarray(marks.T if batch_first else marks)


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
        """(of output, of input, recurrent) for each call, time-major; each an array or None."""
        if given is None and not (training and self.active):
            return None
        given = _checks.dropout_masks(given, training)
        width = self.directions * self.hidden_size
        row = (rows,) if batched else ()
        time = (rows, steps) if batch_first else (steps, *row)
        above, found = {}, []
        for suffix, inputs in zip(self.suffixes, self.inputs, strict=True):
            layer = suffix.removesuffix("_reverse")
            if layer not in above:
                last = layer == self.suffixes[-1].removesuffix("_reverse")
                a = None if last else self._mask(given, f"output_{layer}", (*time, width),
                                                 self.output)
                above[layer] = None if a is None else (
                    a.swapaxes(0, 1) if batch_first else a.reshape(steps, -1, width))
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
        """The mask that the caller gave, or a drawn one."""
        if name in given:
            mask = _checks.array(given.pop(name), f"dropout_masks[{name!r}]", self.dtype)
            _checks.shape(mask, shape, f"dropout_masks[{name!r}]")
            return np.array(mask, order="C")
        if p == 0:
            return None
        kept = self.rng.random(shape, np.float32) >= p
        return np.multiply(kept, 0 if p == 1 else 1 / (1 - p), dtype=self.dtype)
