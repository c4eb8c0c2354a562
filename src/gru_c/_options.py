"""Options of a sequence, arranged for the core: lengths, masks and resets of rows, and dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _checkpoint, _checks
from gru_c._core import marks as make_marks
from gru_c._core import sort_by_length

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from gru_c._types import Array


class SequenceOptions:
    """What a caller asks of one forward; the arguments are those of `GRU.forward`."""

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
        """What `RowOptions` of the core takes, checked against T, N and the arrangement of x.

        (order, lengths, offsets) of `Ragged` in rnn/call.pxd, or None; marks (T, N), the rows
        longest first, or None; `Dropout.multipliers`. `batch_first` only of a batched input.
        """
        ragged = marks = None
        time = (steps,) if not batched else (rows, steps) if batch_first else (steps, rows)
        x = (*time, self.dropout.inputs[0]), batch_first
        if self.lengths is not None:
            given = self.lengths if batched else np.atleast_1d(self.lengths)
            lengths = _checks.lengths(given, rows, x)
            ragged = sort_by_length(lengths, steps)
            if ragged is None:
                _checks.lengths_within(lengths, steps)
        if self.mask is not None or self.resets is not None:
            marks = make_marks(self._marks("mask", time, x), self._marks("resets", time, x),
                               ragged, steps, rows)
        return ragged, marks, self.dropout.multipliers(
            self.dropout_masks, steps, rows, batched, batch_first, training)

    def run_windows(self, *arguments: Any) -> _checkpoint.Windows:
        """A forward that `backward` of the result undoes."""
        return _checkpoint.Windows(self.checkpoint, *arguments)

    def _marks(self, name: str, time: tuple[int, ...],
               x: tuple[tuple[int, ...], bool]) -> Array | None:
        """`mask` or `resets`, contiguous, (T, N)."""
        given = getattr(self, name)
        if given is None:
            return None
        marks = _checks.marks(given, name, time, x)
        return np.ascontiguousarray(marks.T if x[1] else marks)


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
        last, above, width = self.suffixes[-self.directions], {}, self.directions * self.hidden_size
        row = (rows,) if batched else ()
        time = (rows, steps) if batch_first else (steps, *row)
        wanted = {}
        for suffix, inputs in zip(self.suffixes, self.inputs, strict=True):
            above[suffix] = f"output_{suffix.removesuffix('_reverse')}"
            if above[suffix] != f"output_{last}":
                wanted[above[suffix]] = (*time, width), self.output
            wanted[f"input_{suffix}"] = (*row, inputs), self.input
            wanted[f"recurrent_{suffix}"] = (*row, self.hidden_size), self.recurrent
        masks = self._masks(given, wanted, ((*time, self.inputs[0]), batch_first))
        for name, a in masks.items():
            if not name.startswith("output"):
                masks[name] = a.reshape(-1, a.shape[-1])
            elif batch_first:
                masks[name] = a.swapaxes(0, 1)
            else:
                masks[name] = a.reshape(steps, -1, width)
        return [(masks.get(above[suffix]), masks.get(f"input_{suffix}"),
                 masks.get(f"recurrent_{suffix}")) for suffix in self.suffixes]

    def _masks(self, given: dict[str, ArrayLike],
               wanted: dict[str, tuple[tuple[int, ...], float]],
               x: tuple[tuple[int, ...], bool]) -> dict[str, Array]:
        """Copies of the masks that the caller gave, then drawn ones: an error draws nothing."""
        unexpected = [name for name in given if name not in wanted]
        if unexpected:
            raise ValueError("dropout_masks has unexpected names: "
                             f"{', '.join(map(repr, unexpected))}; its names are: "
                             f"{', '.join(wanted)}")
        masks = {}
        for name, value in given.items():
            mask = _checks.array(value, f"dropout_masks[{name!r}]", self.dtype)
            _checks.shape(mask, wanted[name][0], f"dropout_masks[{name!r}]", x)
            masks[name] = np.array(mask, order="C")
        for name, (shape, p) in wanted.items():
            if name not in masks and p > 0:
                kept = self.rng.random(shape, np.float32) >= p
                masks[name] = np.multiply(kept, 0 if p == 1 else 1 / (1 - p), dtype=self.dtype)
        return masks
