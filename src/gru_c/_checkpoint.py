"""Checkpoints: a forward that keeps each k-th state, and a backward that computes the others again.

Both run *windows* of steps, one after the other. A *strand* is what goes through a window together:
with one direction all layers, so that no array of T steps lies between them. With two, each
direction of a layer is a strand, since the next layer needs both.

For the same bits as without checkpoints, windows are whole blocks of the sums of weight gradients,
and these sums go from window to window (`Carry`). A reverse strand runs its windows from the last
to the first.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gru_c._core import SEQUENCE, Carry, TrainingState, forward, sum_steps, undo_window

if TYPE_CHECKING:
    from gru_c._types import Array

Arranged: TypeAlias = tuple[Any, Any, Any]                 # see `_options.SequenceOptions.arrange`

INFERENCE = TrainingState(SEQUENCE, False)


class Window:
    """What one window asks of a forward, as `SequenceOptions` does for a whole sequence."""

    checkpoint = None

    def __init__(self, arranged: Arranged, steps: slice, out: Array | None) -> None:
        self.arranged, self.steps = arranged, steps
        self.out, self.return_output = out, out is not None

    def arrange(self, *_: Any) -> Arranged:
        """The options of these steps."""
        (ragged, marks, multipliers), steps = self.arranged, self.steps
        if ragged is not None:
            order, lengths, offsets = ragged
            ragged = (order, np.clip(lengths - steps.start, 0, steps.stop - steps.start),
                      offsets[steps.start:steps.stop + 1] - offsets[steps.start])
        if multipliers is not None:
            multipliers = [(part(of_output, steps), *of_sequence)
                           for of_output, *of_sequence in multipliers]
        return ragged, part(marks, steps), multipliers


class Strand:
    """Layers that run over a sequence together, and the states between its windows.

    Arrays are those of the model, time-major and batched: the layers are `rows` of hidden states,
    their hidden units `columns` of output.
    """

    def __init__(self, rows: slice, columns: slice, k: int, layers: tuple[Any, ...], x: Array,
                 h_0: Array | None, output: Array | None, h_n: Array, arranged: Arranged) -> None:
        self.rows, self.columns, self.layers, self.x = rows, (..., columns), layers[rows], x
        ragged, marks, multipliers = arranged
        if multipliers is not None:
            multipliers = [(part(of_output, self.columns), *of_sequence)
                           for of_output, *of_sequence in multipliers[rows]]
        self.arranged = ragged, marks, multipliers
        self.windows = windows(k, x)
        if self.layers[0].reverse:
            self.windows.reverse()
        self.states = np.zeros((len(self.windows) + 1, *h_n[rows].shape), x.dtype)
        if h_0 is not None:
            self.states[0] = h_0[rows]
        output = part(output, self.columns)
        for steps, start, end in zip(self.windows, self.states[:-1], self.states[1:], strict=True):
            forward(self.layers, x[steps], start, end, INFERENCE,
                    Window(self.arranged, steps, part(output, steps)))

    def backward(self, d_output: Array | None, d_h_n: Array | None, dx: Array | None, dh_0: Array,
                 need_grads: bool, old: dict[str, Array] | None, add: bool) -> dict[str, Array]:
        """Write dh_0 and dx, or with `add` add to that.

        Returns the gradients of the parameters, added to the `old` if there are any.
        """
        state, ragged = TrainingState(SEQUENCE), self.arranged[0]
        state.grads = old
        carry = Carry(*self.x.shape[:2], None if ragged is None else ragged[2])
        d_output, d_h_n = part(d_output, self.columns), part(d_h_n, self.rows)
        for steps, start in zip(self.windows[::-1], self.states[-2::-1], strict=True):
            forward(self.layers, self.x[steps], start, None, state,
                    Window(self.arranged, steps, None))
            target = part(dx, steps)
            own = np.zeros_like(target) if add and target is not None else target
            undo_window(state, part(d_output, steps), d_h_n, own, dh_0[self.rows], need_grads,
                        old is not None, carry)
            if own is not target:
                with np.errstate(all="ignore"):
                    target += own
        return dict(state.grads or {})


class Windows:
    """A forward in windows, and what its backward needs."""

    def __init__(self, k: int, steps: int, layers: tuple[Any, ...], x: Array, h_0: Array | None,
                 output: Array | None, h_n: Array, batch_first: bool, arranged: Arranged) -> None:
        """`steps` are those of the longest row; a copy of x has no others."""
        self.batched, self.batch_first = x.ndim == 3, batch_first
        x = np.array(self.time_major(x)[:steps], order="C")
        output, h_0, h_n = self.time_major(output), self.stacked(h_0), self.stacked(h_n)
        H = h_n.shape[-1]
        self.layers = layers
        self.strands: list[list[Strand]] = []              # from the first layers on; of the same x
        for strands in strands_of(layers, H):
            last = strands[-1][0].stop == len(layers)
            above = output if last else np.zeros((*x.shape[:2], 2 * H), x.dtype)
            self.strands.append([Strand(*where, k, layers, x, h_0, above, h_n, arranged)
                                 for where in strands])
            x = above
        for strand in chain(*self.strands):
            h_n[strand.rows] = strand.states[-1]

    def backward(self, d_output: Array | None, d_h_n: Array | None, dx: Array | None, dh_0: Array,
                 need_grads: bool, old: dict[str, Array] | None) -> dict[str, Array]:
        """Write dx, unless None, and dh_0.

        Returns the gradients of the parameters, added to the `old` if there are any.
        """
        d_output, dx = self.time_major(d_output), self.time_major(dx)
        d_h_n, dh_0 = self.stacked(d_h_n), self.stacked(dh_0)
        found = []
        for strands in reversed(self.strands):
            below = dx if strands is self.strands[0] else np.zeros_like(strands[0].x)
            grads: dict[str, Array] = {}
            for strand in strands:
                grads |= strand.backward(d_output, d_h_n, below, dh_0, need_grads, old,
                                         strand is not strands[0])
            found.append(grads)
            d_output = below
        return {name: grad for grads in reversed(found) for name, grad in grads.items()}

    def time_major(self, a: Any) -> Any:
        """A view of x, output or a gradient of one, (T, N, ...); None of None."""
        if a is None:
            return None
        return a.swapaxes(0, 1) if self.batch_first else a if self.batched else a[:, None]

    def stacked(self, a: Any) -> Any:
        """A view of hidden states, (L, N, H); None of None."""
        return a if a is None or self.batched else a[:, None]


def part(a: Any, where: Any) -> Any:
    return None if a is None else a[where]


def windows(k: int, x: Array) -> list[slice]:
    """From the first to the last."""
    end, rows, _ = x.shape
    size = sum_steps(rows)
    size *= -(-k // size)
    return [slice(start, min(start + size, end)) for start in range(0, end, size)]


def strands_of(layers: tuple[Any, ...], H: int) -> list[list[tuple[slice, slice]]]:
    """(rows of hidden states, columns of output) of the strands, from the first layers to the last.
    """
    L = len(layers)
    if L == 1 or layers[0].reverse == layers[1].reverse:
        return [[(slice(0, L), slice(0, H))]]
    return [[(slice(i, i + 1), slice(0, H)), (slice(i + 1, i + 2), slice(H, 2 * H))]
            for i in range(0, L, 2)]
