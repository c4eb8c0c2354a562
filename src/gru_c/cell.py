"""GRUCell: one step of a GRU, forward and backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _checks
from gru_c._core import Layer
from gru_c._module import Module
from gru_c._parameters import NAMES, frozen, initial, shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike

    from gru_c._types import (
        Array,
        Bias,
        DType,
        Integer,
        Parameter,
        ReadOnly,
        ReadOnlyBias,
        Seed,
    )

# Blocks of the stacked parameters by their own names: gate r z n, from x or from h.
BLOCKS = {f"{letter}{gate}{source}": (f"{'weight' if letter == 'W' else 'bias'}_{stack}", index)
          for letter in "Wb" for source, stack in (("x", "ih"), ("h", "hh"))
          for index, gate in enumerate("rzn")}


class GRUCell(Module):
    r"""A gated recurrent unit, one step at a time.

    For input ``x (N, I)`` and hidden state ``h (N, H)``, with the gates stacked r, z, n::

        r  = sigmoid(Wrx x + brx + Wrh h + brh)                 reset gate
        z  = sigmoid(Wzx x + bzx + Wzh h + bzh)                 update gate
        n  = tanh(Wnx x + bnx + r * (Wnh h + bnh))              new gate, reset_after=True
        n  = tanh(Wnx x + bnx + Wnh (r * h) + bnh)              new gate, reset_after=False
        h' = (1 - z) * n + z * h

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
        Without, the eight bias vectors are absent.
    dtype : float32 or float64
        Of the weights, of every array of a call, and of the arithmetic.
    reset_after : bool
        True is the convention of PyTorch, cuDNN and Keras; False that of Cho et al. 2014
        (arXiv:1406.1078) and of ONNX without ``linear_before_reset``.
    rng : None, int or numpy.random.Generator
        Passed to ``numpy.random.default_rng``; weights are drawn from U(-1/sqrt(H), 1/sqrt(H)).

    Attributes
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh : ndarray
        (3H, I), (3H, H), (3H,), (3H,); the biases None with ``bias=False``.
    Wrx, Wzx, Wnx, Wrh, Wzh, Wnh, brx, bzx, bnx, brh, bzh, bnh : ndarray
        The twelve blocks of the stacked parameters, (H, I), (H, H) and (H,).
    dWrx, ..., dbnh : ndarray
        Their gradients, after `backward`.
    x, hidden, r, z, n : ndarray
        Of the last forward in training mode: its input, the hidden state that it started from, its
        gates.

    Notes
    -----
    All parameters read as read-only arrays and can be assigned; an assignment copies. NumPy itself
    refuses an edit in place, so that a weight can never be out of date.

    Examples
    --------
    >>> import numpy as np, gru_c
    >>> cell = gru_c.GRUCell(3, 4, dtype=np.float64, rng=0)
    >>> h = cell(np.ones((2, 3)), np.zeros((2, 4)))
    >>> h.shape
    (2, 4)
    >>> dx, dh = cell.backward(np.ones((2, 4)))
    >>> dx.shape, dh.shape, cell.dWrx.shape
    ((2, 3), (2, 4), (4, 3))
    """

    if TYPE_CHECKING:                                      # made in _add_parameter_properties
        input_size: int
        hidden_size: int
        bias: bool
        dtype: np.dtype[Any]
        reset_after: bool
        weight_ih: Parameter
        weight_hh: Parameter
        bias_ih: Bias
        bias_hh: Bias
        Wrx: Parameter
        Wzx: Parameter
        Wnx: Parameter
        Wrh: Parameter
        Wzh: Parameter
        Wnh: Parameter
        brx: Bias
        bzx: Bias
        bnx: Bias
        brh: Bias
        bzh: Bias
        bnh: Bias
        dWrx: ReadOnly
        dWzx: ReadOnly
        dWnx: ReadOnly
        dWrh: ReadOnly
        dWzh: ReadOnly
        dWnh: ReadOnly
        dbrx: ReadOnlyBias
        dbzx: ReadOnlyBias
        dbnx: ReadOnlyBias
        dbrh: ReadOnlyBias
        dbzh: ReadOnlyBias
        dbnh: ReadOnlyBias
        x: ReadOnly
        hidden: ReadOnly
        r: ReadOnly
        z: ReadOnly
        n: ReadOnly

    def __init__(self, input_size: Integer, hidden_size: Integer, bias: bool = True,
                 dtype: DType = np.float32, reset_after: bool = True, rng: Seed = None) -> None:
        super().__init__()
        self.input_size = _checks.size(input_size, "input_size")
        self.hidden_size = _checks.size(hidden_size, "hidden_size")
        self.bias = _checks.flag(bias, "bias")
        self.dtype = _checks.model_dtype(dtype)
        self.reset_after = _checks.flag(reset_after, "reset_after")
        _checks.model_size(self.input_size, self.hidden_size, 1, self.dtype)
        named = shapes(self.input_size, self.hidden_size, self.bias)
        rng = _checks.generator(rng)
        self._layer = Layer(initial(named, self.hidden_size, self.dtype, rng), self.reset_after)

    def __repr__(self) -> str:
        return (f"{type(self).__name__}({self.input_size}, {self.hidden_size}, bias={self.bias}, "
                f"dtype={self.dtype}, reset_after={self.reset_after})")

    # ---- running ---------------------------------------------------------------------------

    def forward(self, x: ArrayLike, h_prev_t: ArrayLike | None = None,
                out: Array | None = None) -> Array:
        """One step.

        Parameters
        ----------
        x : array (N, I) or (I,)
        h_prev_t : array (N, H) or (H,), optional
            The hidden state; zeros if absent. Not broadcast over the batch.
        out : ndarray, optional
            Receives the new hidden state; may be `h_prev_t` itself.

        Returns
        -------
        ndarray (N, H) or (H,)
            The new hidden state (`out`, if given).

        Raises
        ------
        TypeError
            An array whose dtype is not the model's.
        ValueError
            A shape that does not fit.
        """
        result = out                                       # the usual case, without a detour
        if out is None and type(x) is np.ndarray and x.ndim:
            result = np.empty((*x.shape[:-1], self.hidden_size), self.dtype)
        trace = self._trace if self._training else None
        try:
            if self._layer.step(x, h_prev_t, result, trace):
                return result
        except BaseException:                              # a handler's may come when all is done
            if trace is not None:
                trace.lose("forward")
            raise
        x = _checks.array(x, "input", self.dtype)
        h = None if h_prev_t is None else _checks.array(h_prev_t, "hidden", self.dtype)
        self._check_shapes(x, h)
        shape = (*x.shape[:-1], self.hidden_size)
        if out is not None:
            _checks.output(out, shape, self.dtype)
        result = np.empty(shape, self.dtype) if out is None else out
        direct = result.flags.c_contiguous and result.flags.aligned
        target = result if direct else np.empty(shape, self.dtype)
        rows = x.reshape(1, -1, self.input_size)
        h = None if h is None else h.reshape(-1, self.hidden_size)
        if np.may_share_memory(rows, target):              # a row's output could be another's input
            rows = rows.copy()
        if h is not None and np.may_share_memory(h, target):
            h = h.copy()
        if self.training:
            self._record(rows, h, target, x.shape)
        else:
            self._layer.infer(_checks.contiguous(rows), h, target, 0, self.hidden_size)
        if target is not result:
            result[...] = target
        return result

    __call__ = forward

    def _record(self, rows: Array, h: Array | None, target: Array, shape: tuple[int, ...]) -> None:
        """Fill `target` (N, H) from rows (1, N, I), and keep the tape."""
        try:
            old, = self._trace.lend(1)
            tape = self._layer.record(rows, h, target, 0, self.hidden_size, old=old)
            self._trace.keep([tape], shape)
        except BaseException:                              # of a signal handler, or no memory
            self._trace.lose("forward")
            raise

    def _check_shapes(self, x: Array, h: Array | None) -> None:
        if x.ndim not in (1, 2):
            raise ValueError(f"GRUCell: Expected input to be 1D or 2D, got {x.ndim}D instead "
                             f"(input of shape {x.shape})")
        if x.shape[-1] != self.input_size:
            raise ValueError(f"input has inconsistent input_size: got {x.shape[-1]} "
                             f"expected {self.input_size} (input of shape {x.shape})")
        if h is None:
            return
        if h.ndim not in (1, 2):
            raise ValueError(f"GRUCell: Expected hidden to be 1D or 2D, got {h.ndim}D instead "
                             f"(hidden of shape {h.shape})")
        if h.shape[-1] != self.hidden_size:
            raise ValueError(f"hidden has inconsistent hidden_size: got {h.shape[-1]}, "
                             f"expected {self.hidden_size} (hidden of shape {h.shape})")
        if x.ndim != h.ndim:
            raise ValueError(f"For {x.ndim}D input, hidden should also be {x.ndim}D but got "
                             f"{h.ndim}D (input of shape {x.shape}, hidden of shape {h.shape})")
        if x.ndim == 2 and x.shape[0] != h.shape[0]:
            raise ValueError(f"Input batch size {x.shape[0]} doesn't match hidden batch size "
                             f"{h.shape[0]} (input of shape {x.shape}, hidden of shape {h.shape})")

    def backward(self, delta: ArrayLike) -> tuple[Array, Array]:
        """Gradients of the last forward; the parameters' are in `grads` and ``dWrx`` ... ``dbnh``.

        Parameters
        ----------
        delta : array (N, H) or (H,)
            dL/dh' for the hidden state that the forward returned.

        Returns
        -------
        dx : ndarray (N, I) or (I,)
        dh : ndarray (N, H) or (H,)
            dL/dx and dL/dh of the forward's input and hidden state.

        Raises
        ------
        RuntimeError
            No forward in training mode came before.
        """
        try:
            done = self._trace.backward_step(delta)
            if done is not None:
                return done
        except MemoryError:                                # the forward is as it was
            raise
        except BaseException:                              # a handler's may come when all is done
            self._trace.lose("backward")
            raise
        (tape,), shape = self._recorded()
        delta = _checks.array(delta, "delta", self.dtype)
        _checks.shape(delta, (*shape[:-1], self.hidden_size), "delta")
        try:
            dx, dh, self._trace.grads = tape.layer.gradients(
                tape, None, delta.reshape(-1, self.hidden_size), True, NAMES,
                self._trace.take_grads())
            return dx.reshape(shape), dh.reshape(delta.shape)
        except MemoryError:                                # the forward is as it was
            raise
        except BaseException:                              # of a signal handler
            self._trace.lose("backward")
            raise

    # ---- what the last forward left ----------------------------------------------------------

    def _saved(self, rows: Callable[[Any], Array], name: str) -> Array:
        tapes, shape = self._trace.saved()
        if tapes is None:
            raise RuntimeError(f"no {name} yet: call forward in training mode first")
        saved = rows(tapes[0])
        return saved.reshape(*shape[:-1], saved.shape[-1])

    x = property(lambda self: self._saved(lambda tape: tape.x[0].copy(), "x"))
    hidden = property(lambda self: self._saved(
        lambda tape: tape.h[0, :, : self.hidden_size].copy(), "hidden"))
    n = property(lambda self: self._saved(lambda tape: tape.plane(0)[0], "n"))
    r = property(lambda self: self._saved(lambda tape: tape.plane(1)[0], "r"))
    z = property(lambda self: self._saved(lambda tape: tape.plane(2)[0], "z"))

    # ---- parameters --------------------------------------------------------------------------

    def _parameters(self) -> dict[str, Array]:
        return self._layer.weights

    def _load(self, arrays: Mapping[str, Array]) -> None:
        self._change("_layer", lambda layer: layer.replaced(arrays))

    def init_weights(self, Wrx: ArrayLike, Wzx: ArrayLike, Wnx: ArrayLike,
                     Wrh: ArrayLike, Wzh: ArrayLike, Wnh: ArrayLike,
                     brx: ArrayLike | None = None, bzx: ArrayLike | None = None,
                     bnx: ArrayLike | None = None, brh: ArrayLike | None = None,
                     bzh: ArrayLike | None = None, bnh: ArrayLike | None = None) -> None:
        """Set all parameters: (H, I), (H, H) and (H,) blocks; no biases with ``bias=False``."""
        blocks = {"Wrx": Wrx, "Wzx": Wzx, "Wnx": Wnx, "Wrh": Wrh, "Wzh": Wzh, "Wnh": Wnh,
                  "brx": brx, "bzx": bzx, "bnx": bnx, "brh": brh, "bzh": bzh, "bnh": bnh}
        checked = {}
        for name, value in blocks.items():
            if value is None and not self.bias and name[0] == "b":
                continue
            self._require(BLOCKS[name][0], name)
            if value is None:
                why = ": the cell has bias=True" if name[0] == "b" else ""
                raise ValueError(f"{name} is missing{why}")
            checked[name] = self._block_value(name, value)
        self._load_blocks(checked)

    def _require(self, stack: str, name: str) -> None:
        if stack not in self._layer.weights:
            raise ValueError(f"{name} cannot be set: the cell has bias=False")

    def _block_value(self, name: str, value: ArrayLike) -> Array:
        value = _checks.array(value, name, self.dtype)
        columns = () if name[0] == "b" else (
            (self.input_size,) if name[-1] == "x" else (self.hidden_size,))
        _checks.shape(value, (self.hidden_size, *columns), name)
        return value

    def _stacked(self, name: str) -> Array | None:
        array = self._layer.weights.get(name)
        return None if array is None else frozen(array)

    def _set_stacked(self, name: str, value: ArrayLike) -> None:
        self._require(name, name)
        value = _checks.array(value, name, self.dtype)
        _checks.shape(value, self._layer.weights[name].shape, name)
        self._load({name: value})

    def _block(self, name: str) -> Array | None:
        stack, index = BLOCKS[name]
        array = self._stacked(stack)
        return None if array is None else np.split(array, 3)[index]

    def _set_block(self, name: str, value: ArrayLike) -> None:
        self._require(BLOCKS[name][0], name)
        self._load_blocks({name: self._block_value(name, value)})

    def _load_blocks(self, blocks: Mapping[str, Array]) -> None:
        """Copies of blocks of the right shapes, into the stacks as they are at that moment."""
        def new(layer: Any) -> Any:
            stacks = {BLOCKS[name][0] for name in blocks}
            weights = {stack: layer.weights[stack].copy() for stack in stacks}
            for name, value in blocks.items():
                stack, index = BLOCKS[name]
                np.split(weights[stack], 3)[index][...] = value
            return layer.replaced(weights)

        self._change("_layer", new)

    def _block_gradient(self, name: str) -> Array | None:
        stack, index = BLOCKS[name]
        array = self.grads.get(stack)
        return None if array is None else np.split(array, 3)[index]


def _add_parameter_properties() -> None:
    """weight_ih ..., the twelve blocks Wrx ... bnh, and the twelve gradients dWrx ... dbnh."""
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(GRUCell, name, property(
            lambda self, name=name: self._stacked(name),
            lambda self, value, name=name: self._set_stacked(name, value)))
    for name in BLOCKS:
        setattr(GRUCell, name, property(
            lambda self, name=name: self._block(name),
            lambda self, value, name=name: self._set_block(name, value)))
        setattr(GRUCell, f"d{name}", property(
            lambda self, name=name: self._block_gradient(name)))


_add_parameter_properties()
