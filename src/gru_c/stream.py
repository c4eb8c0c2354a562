"""Stream: the hidden states of a model between steps that arrive one by one."""

from __future__ import annotations

import copyreg
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _checks

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from gru_c._types import Array, CoreStream, Integer
    from gru_c.gru import GRU
else:
    from gru_c._core import CoreStream


class Stream(CoreStream):
    """Sequences that arrive step by step: `GRU.stream` makes it.

    It holds the hidden states of all layers for N rows, zero at first, and all memory that a step
    needs: a step allocates its result and nothing else, and with ``out=`` nothing. The results are
    the bits that the model gives for the whole sequence at once, but for numbers below the smallest
    normal one, which count as zero: silence costs what sound does. There is no dropout, and nothing
    is saved for a backward, in either mode of the model.

    The stream computes with the weights that the model has at each call. One thread may use it at a
    time; any number of streams may share a model. It can be pickled and copied, with its states and
    its model.

    Parameters
    ----------
    model : GRU
        With one direction, from the first step to the last.
    batch_size : int or None
        N. None: arrays have no axis of rows.
    num_threads : int
        Threads that a call may use.

    Attributes
    ----------
    state : ndarray (L, N, H) or (L, H)
        The hidden states of all layers: reading copies them, assigning sets them.
    address : int
        A ``gru_stream *`` for the functions of ``gru_c.h``; see docs/embedding.md.
    model, batch_size, num_threads
        The arguments.

    Examples
    --------
    >>> import numpy as np, gru_c
    >>> gru = gru_c.GRU(3, 4, rng=0)
    >>> x = np.ones((5, 2, 3), np.float32)
    >>> stream = gru.stream(batch_size=2)
    >>> for x_t in x:
    ...     h = stream.step(x_t)
    >>> output, h_n = gru(x)
    >>> np.array_equal(h, output[-1]), np.array_equal(stream.state, h_n)
    (True, True)
    >>> stream.reset(rows=[1])
    >>> stream.state[:, 1].any()
    np.False_
    """

    if TYPE_CHECKING:
        model: GRU
        batch_size: int | None
        num_threads: int
        address: int

        def step(self, x_t: ArrayLike, out: Array | None = None) -> Array: ...

    def __new__(cls, model: GRU, batch_size: Integer | None = None,
                num_threads: Integer = 1) -> Stream:
        from gru_c.gru import GRU  # which imports this file

        if not isinstance(model, GRU):
            raise TypeError(f"model should be a GRU, got: {type(model).__name__}")
        if model.bidirectional or model._reverse:
            raise ValueError("a stream needs one direction, from the first step to the last: the "
                             "other begins at the last step, which a stream has not seen")
        if batch_size is not None:
            batch_size = _checks.size(batch_size, "batch_size")
            if batch_size > sys.maxsize:
                _checks.refuse_rows(batch_size)
        return super().__new__(cls, model, batch_size,
                               min(_checks.size(num_threads, "num_threads"), 64))

    def __repr__(self) -> str:
        return (f"{type(self).__name__}({self.model!r}, batch_size={self.batch_size}, "
                f"num_threads={self.num_threads})")

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        return (copyreg.__newobj__, (type(self), self.model, self.batch_size, self.num_threads),
                vars(self) | {"state": self.state})

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        for name, value in attributes.items():
            setattr(self, name, value)

    def run(self, chunk: ArrayLike, out: Array | None = None) -> Array:
        """Several steps: the same as `step` for each of them.

        Parameters
        ----------
        chunk : array (T, N, I), (N, T, I) with `batch_first`, or (T, I) without a batch size
            T may be 0.
        out : ndarray (T, N, H), (N, T, H) or (T, H), optional
            Receives the output; it may have any strides, and may overlap `chunk`.

        Returns
        -------
        ndarray (T, N, H), (N, T, H) or (T, H)
            The hidden states of the last layer after each step (`out`, if given).

        Notes
        -----
        An exception of a signal handler, such as Ctrl-C, ends a long call between two steps. The
        states are those after the last step that was run.
        """
        x = _checks.array(chunk, "input", self.model.dtype)
        swapped = self.model.batch_first and self.batch_size is not None
        rows = () if self.batch_size is None else (self.batch_size,)
        steps = x.shape[1 if swapped else 0] if x.ndim == 2 + len(rows) else -1
        expected = (*rows, steps) if swapped else (steps, *rows)
        if x.shape != (*expected, self.model.input_size):
            any_steps = (*rows, "T") if swapped else ("T", *rows)
            _checks.refuse_stream_input(x, (*any_steps, self.model.input_size))
        shape = (*expected, self.model.hidden_size)
        if out is not None:
            _checks.output(out, "out", shape, self.model.dtype)
        x = np.require(x.swapaxes(0, 1) if swapped else x, requirements=["C", "A"])
        if out is not None and not swapped and out.flags.carray and not np.may_share_memory(out, x):
            self._run(x, out)
            return out
        output = np.empty((steps, *rows, self.model.hidden_size), self.model.dtype)
        self._run(x, output)
        output = output.swapaxes(0, 1) if swapped else output
        if out is None:
            return np.ascontiguousarray(output)
        out[...] = output
        return out

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Zero the states of `rows`, a bool mask (N,) or indices; of all rows if absent."""
        if rows is None:
            self._reset(None)
            return
        mask = np.zeros(self.batch_size or 1, bool)
        mask[_checks.rows(rows, len(mask), "rows")] = True
        self._reset(mask.view(np.uint8))

    def copy_rows(self, source: ArrayLike, target: ArrayLike | None = None) -> None:
        """Give the rows `target` the states of the rows `source`, as before the call.

        Parameters
        ----------
        source : integers
            As many as `target`, or one.
        target : integers, or a mask (N,); optional
            All rows, if absent.

        Examples
        --------
        >>> import numpy as np, gru_c
        >>> stream = gru_c.GRU(1, 1, rng=0).stream(batch_size=3)
        >>> stream.state = np.array([[[1], [2], [3]]], np.float32)
        >>> stream.copy_rows([2, 2, 0])
        >>> stream.state.ravel()
        array([3., 3., 1.], dtype=float32)
        """
        count = self.batch_size or 1
        targets = np.arange(count) if target is None else _checks.rows(target, count, "target")
        sources = _checks.rows(source, count, "source")
        if len(sources) not in (1, len(targets)):
            raise ValueError(f"source has {len(sources)} rows, but there are {len(targets)} to set")
        self._copy_rows(np.arange(count), targets, sources)

    @property
    def state(self) -> Array:
        """The hidden states of all layers, copied: (L, N, H), or (L, H) without an axis of rows."""
        state = np.empty(self._state_shape(), self.model.dtype)
        self._get_state(state)
        return state

    @state.setter
    def state(self, value: ArrayLike) -> None:
        array = _checks.array(value, "state", self.model.dtype)
        _checks.shape(array, self._state_shape(), "state")
        self._set_state(np.require(array, requirements=["C", "A"]))

    def _state_shape(self) -> tuple[int, ...]:
        rows = () if self.batch_size is None else (self.batch_size,)
        return (self.model.num_layers, *rows, self.model.hidden_size)
