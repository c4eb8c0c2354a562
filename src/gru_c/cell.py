"""GRUCell: one step of a GRU, forward and backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _activations, _checks
from gru_c._core import CELL, Layer, backward, forward
from gru_c._module import Module
from gru_c._parameters import frozen, initial, shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from gru_c._activations import Activation
    from gru_c._types import (
        ActivationLike,
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
        If False, there are no biases.
    dtype : float32 or float64
        Dtype of the weights, of all arrays of a call and of the arithmetic.
    reset_after : bool
        True is the convention of PyTorch, cuDNN and Keras; False that of Cho et al. 2014
        (arXiv:1406.1078) and of ONNX without ``linear_before_reset``.
    rng : None, int or numpy.random.Generator
        Passed to ``numpy.random.default_rng``; weights are drawn from U(-1/sqrt(H), 1/sqrt(H)).
    activation, recurrent_activation : str or dict
        The functions in place of tanh (of n) and of sigmoid (of r and z): a name, or
        ``{"name": ..., "alpha": ..., "beta": ...}``. Names, with defaults of alpha and beta:
        ``sigmoid``, ``tanh``, ``relu``, ``softsign``, ``softplus``, ``linear``;
        ``hard_sigmoid`` clip(alpha x + beta, 0, 1), 1/6, 0.5;
        ``affine`` alpha x + beta, 1, 0; ``leaky_relu`` alpha x for x < 0, 0.01;
        ``thresholded_relu`` 0 for x <= alpha, 1; ``scaled_tanh`` alpha tanh(beta x), 1, 1;
        ``elu`` alpha (e^x - 1) for x < 0, 1. At a kink the derivative is PyTorch's.
    clip : float, optional
        The arguments of these functions are held between -clip and clip, as in ONNX.

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
    metadata : dict of str to str
        Whatever is to be known about the model: `save` writes it, `load` reads it.

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
        activation: Activation
        recurrent_activation: Activation
        clip: float | None
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
                 dtype: DType = np.float32, reset_after: bool = True, rng: Seed = None,
                 activation: ActivationLike = "tanh",
                 recurrent_activation: ActivationLike = "sigmoid",
                 clip: float | None = None) -> None:
        self.input_size = _checks.size(input_size, "input_size")
        self.hidden_size = _checks.size(hidden_size, "hidden_size")
        self.bias = _checks.flag(bias, "bias")
        self.dtype = _checks.model_dtype(dtype)
        self.reset_after = _checks.flag(reset_after, "reset_after")
        self.activation = _activations.activation(activation, "activation")
        self.recurrent_activation = _activations.activation(
            recurrent_activation, "recurrent_activation")
        self.clip = _activations.clip(clip)
        _checks.model_size(self.input_size, self.hidden_size, 1, 1, self.dtype)
        named = shapes(self.input_size, self.hidden_size, self.bias)
        rng = _checks.generator(rng)
        super().__init__(CELL)
        self._layers = (Layer(initial(named, self.hidden_size, self.dtype, rng), self.reset_after,
                              activations=_activations.core_arguments(self)),)

    def __repr__(self) -> str:
        return (f"{type(self).__name__}({self.input_size}, {self.hidden_size}, bias={self.bias}, "
                f"dtype={self.dtype}, reset_after={self.reset_after}"
                f"{_activations.shown(self)}{self._shown_quantization()})")

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
        state = self._state
        try:
            return forward(self._layers, x, h_prev_t, out, state, None)
        except BaseException:                              # a handler's may come when all is done
            state.abort("forward")
            raise

    __call__ = forward

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
            result = backward(self._state, None, delta)
        except BaseException:                              # a handler's may come when all is done
            self._state.abort("backward")
            raise
        if result is None:
            _checks.refuse_nothing_saved(self._state.training, self._state.unfinished,
                                         self.quantization)
        return result

    # ---- what the last forward left ----------------------------------------------------------

    def _saved(self, name: str) -> Array:
        saved = self._state.saved
        if saved is None:
            raise RuntimeError(f"no {name} yet: call forward in training mode first")
        return saved[0].copy(name)

    x = property(lambda self: self._saved("x"))
    hidden = property(lambda self: self._saved("hidden"))
    n = property(lambda self: self._saved("n"))
    r = property(lambda self: self._saved("r"))
    z = property(lambda self: self._saved("z"))

    # ---- parameters --------------------------------------------------------------------------

    def _parameters(self) -> dict[str, Array]:
        layers = getattr(self, "_layers", ())              # none before __init__
        return layers[0].weights if layers else {}

    def _load(self, arrays: Mapping[str, Array]) -> None:
        self._change(lambda layers: (layers[0].replaced(arrays),))

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
        if stack not in self._layers[0].weights:
            raise ValueError(f"{name} cannot be set: the cell has bias=False")

    def _block_value(self, name: str, value: ArrayLike) -> Array:
        value = _checks.array(value, name, self.dtype)
        columns = () if name[0] == "b" else (
            (self.input_size,) if name[-1] == "x" else (self.hidden_size,))
        _checks.shape(value, (self.hidden_size, *columns), name)
        return value

    def _stacked(self, name: str) -> Array | None:
        array = self._layers[0].weights.get(name)
        return None if array is None else frozen(array)

    def _set_stacked(self, name: str, value: ArrayLike) -> None:
        self._require(name, name)
        value = _checks.array(value, name, self.dtype)
        _checks.shape(value, self._layers[0].weights[name].shape, name)
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
        def new(layers: Any) -> Any:
            layer, = layers
            stacks = {BLOCKS[name][0] for name in blocks}
            weights = {stack: layer.weights[stack].copy() for stack in stacks}
            for name, value in blocks.items():
                stack, index = BLOCKS[name]
                np.split(weights[stack], 3)[index][...] = value
            return (layer.replaced(weights),)

        self._change(new)

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
