"""GRU: layers over whole sequences, forward and backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _checks
from gru_c._core import Layer
from gru_c._module import Module
from gru_c._parameters import NAMES, frozen, initial, shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from gru_c._types import Array, Bias, DType, Integer, Parameter, Seed


class GRU(Module):
    """Layers of gated recurrent units over a sequence, shaped and named as in ``torch.nn.GRU``.

    Options of ``torch.nn.GRU`` that are not supported are refused.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        L; a layer above the first takes the hidden states of the one below.
    bias : bool
        Without, all biases are absent.
    batch_first : bool
        Input and output are (N, T, ...) instead of (T, N, ...). The hidden states are not affected.
    dropout, bidirectional
        Not supported yet; anything but 0.0 and False is refused.
    dtype : float32 or float64
        Of the weights, of every array of a call, and of the arithmetic.
    reset_after : bool
        The convention of the new gate, see `GRUCell`.
    rng : None, int or numpy.random.Generator
        Passed to ``numpy.random.default_rng``; weights are drawn from U(-1/sqrt(H), 1/sqrt(H)).

    Notes
    -----
    The parameters are ``weight_ih_l0`` (3H, I), ``weight_hh_l0`` (3H, H), ``bias_ih_l0`` (3H,),
    ``bias_hh_l0`` (3H,), ``weight_ih_l1`` (3H, H), ..., gates stacked r, z, n. They read as
    read-only arrays and change through `load_state_dict` or by assignment to the attribute, which
    copy. A change is atomic, and a call keeps the weights that it began with.

    An exception of a signal handler, such as Ctrl-C, ends a call between two chunks of steps. After
    that nothing is saved for `backward` and there are no `grads`, and both say so.

    A subclass may define `forward`, and ``model(x)`` runs it. One that is assigned to a class later
    is not seen, and one that is assigned to a model is refused. A subclass that has a ``__call__``,
    too, calls ``self.forward`` in it: ``super().__call__`` is the `forward` of the base class.

    Examples
    --------
    >>> import numpy as np, gru_c
    >>> gru = gru_c.GRU(3, 4, num_layers=2, dtype=np.float64, rng=0)
    >>> output, h_n = gru(np.ones((5, 2, 3)))
    >>> output.shape, h_n.shape
    ((5, 2, 4), (2, 2, 4))
    >>> dx, dh_0 = gru.backward(np.ones((5, 2, 4)))
    >>> dx.shape, dh_0.shape, sorted(gru.grads)[0]
    ((5, 2, 3), (2, 2, 4), 'bias_hh_l0')
    """

    if TYPE_CHECKING:                                      # at run time there are as many as layers
        input_size: int
        hidden_size: int
        bias: bool
        dtype: np.dtype[Any]
        reset_after: bool
        num_layers: int
        batch_first: bool
        weight_ih_l0: Parameter
        weight_hh_l0: Parameter
        bias_ih_l0: Bias
        bias_hh_l0: Bias
        weight_ih_l1: Parameter
        weight_hh_l1: Parameter
        bias_ih_l1: Bias
        bias_hh_l1: Bias
        weight_ih_l2: Parameter
        weight_hh_l2: Parameter
        bias_ih_l2: Bias
        bias_hh_l2: Bias
        weight_ih_l3: Parameter
        weight_hh_l3: Parameter
        bias_ih_l3: Bias
        bias_hh_l3: Bias

    def __init__(self, input_size: Integer, hidden_size: Integer, num_layers: Integer = 1,
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False, dtype: DType = np.float32, reset_after: bool = True,
                 rng: Seed = None) -> None:
        super().__init__()
        self.input_size = _checks.size(input_size, "input_size")
        self.hidden_size = _checks.size(hidden_size, "hidden_size")
        self.num_layers = _checks.size(num_layers, "num_layers")
        self.bias = _checks.flag(bias, "bias")
        self.batch_first = _checks.flag(batch_first, "batch_first")
        if not _checks.is_zero(dropout):
            raise ValueError(f"dropout is not supported yet: got {dropout!r}, expected 0.0")
        if _checks.flag(bidirectional, "bidirectional"):
            raise ValueError("bidirectional=True is not supported yet")
        self.dtype = _checks.model_dtype(dtype)
        self.reset_after = _checks.flag(reset_after, "reset_after")
        rng = _checks.generator(rng)
        _checks.model_size(self.input_size, self.hidden_size, self.num_layers, self.dtype)
        sizes = [self.input_size] + [self.hidden_size] * (self.num_layers - 1)
        self._layers = tuple(
            Layer(initial(shapes(size, self.hidden_size, self.bias), self.hidden_size, self.dtype,
                          rng), self.reset_after)
            for size in sizes)
        self._plain = self.num_layers == 1 and not self.batch_first

    def __repr__(self) -> str:
        return (f"{type(self).__name__}({self.input_size}, {self.hidden_size}, "
                f"num_layers={self.num_layers}, bias={self.bias}, "
                f"batch_first={self.batch_first}, dtype={self.dtype}, "
                f"reset_after={self.reset_after})")

    # ---- running ---------------------------------------------------------------------------

    def forward(self, x: ArrayLike, h_0: ArrayLike | None = None,
                lengths: None = None) -> tuple[Array, Array]:
        """Run over a sequence.

        Parameters
        ----------
        x : array (T, N, I), (N, T, I) with `batch_first`, or (T, I)
        h_0 : array (L, N, H), or (L, H) for an unbatched x; optional
            Initial hidden states; zeros if absent. Not broadcast over the batch.
        lengths
            Not supported yet; refused unless None.

        Returns
        -------
        output : ndarray (T, N, H), (N, T, H) or (T, H)
            Hidden states of the last layer after each step.
        h_n : ndarray (L, N, H) or (L, H)
            Hidden states of all layers after the last step.

        Raises
        ------
        TypeError
            An array whose dtype is not the model's.
        ValueError
            A shape that does not fit, or a sequence of no steps.
        """
        if lengths is not None:
            raise ValueError("lengths is not supported yet: pad or run rows one by one")
        if self._plain:                                    # the usual case, without a detour
            trace = self._trace if self._training else None
            try:
                done = self._layers[0].run(x, h_0, trace)
                if done is not None:
                    return done
            except BaseException:                          # a handler's may come when all is done
                if trace is not None:
                    trace.lose("forward")
                raise
        x = _checks.array(x, "input", self.dtype)
        batched, rows = self._check_input(x)
        h_0 = self._check_state(h_0, "h_0", batched, rows)
        time_major = self._time_major(x, batched)
        output = np.empty((*x.shape[:-1], self.hidden_size), self.dtype)
        h_n = np.empty((self.num_layers, rows, self.hidden_size), self.dtype)
        if self.training:
            self._record(time_major, h_0, self._time_major(output, batched), h_n, x.shape)
        else:
            self._infer(time_major, h_0, self._time_major(output, batched), h_n)
        return output, (h_n if batched else h_n[:, 0])

    __call__ = forward

    def _infer(self, x: Array, h_0: Array | None, output: Array, h_n: Array) -> None:
        """Fill the views output (T, N, H) and h_n from the view x (T, N, I), saving nothing."""
        x = _checks.contiguous(x)
        layers = self._layers                              # of one moment, whoever loads meanwhile
        for index, layer in enumerate(layers):
            target = output if index == len(layers) - 1 else np.empty(
                (*x.shape[:2], self.hidden_size), self.dtype)
            layer.infer(x, None if h_0 is None else h_0[index], target, *self._strides(target),
                        h_n[index])
            x = target

    def _record(self, x: Array, h_0: Array | None, output: Array, h_n: Array,
                shape: tuple[int, ...]) -> None:
        """The same, keeping a tape a layer; a layer reads the one below from its tape."""
        layers = self._layers                              # of one moment, as in `_infer`
        tapes = []
        try:
            old = self._trace.lend(len(layers))
            for index, layer in enumerate(layers):
                target, strides = (output, self._strides(output)) if index == len(layers) - 1 else (
                    None, (0, 0))
                tapes.append(layer.record(x, None if h_0 is None else h_0[index], target, *strides,
                                          h_n[index], old[index], own=index > 0))
                x = tapes[-1].output()
            self._trace.keep(tapes, shape)
        except BaseException:                              # of a signal handler, or no memory
            self._trace.lose("forward")
            raise

    def backward(self, d_output: ArrayLike | None,
                 d_h_n: ArrayLike | None = None) -> tuple[Array, Array]:
        """Gradients of the last forward; the parameters' are in `grads`. Once for each forward.

        Parameters
        ----------
        d_output : array like the output of the forward, or None for zeros
        d_h_n : array like h_n, optional
            dL/d output and dL/dh_n.

        Returns
        -------
        dx : ndarray like x
        dh_0 : ndarray (L, N, H) or (L, H)

        Raises
        ------
        RuntimeError
            No forward in training mode came before, or its backward was run already.
        """
        if self._plain:
            try:
                done = self._trace.backward(d_output, d_h_n)
                if done is not None:
                    return done
            except MemoryError:                            # the forward is as it was, or lost
                raise
            except BaseException:                          # a handler's may come when all is done
                self._trace.lose("backward")
                raise
        tapes, shape = self._recorded()
        batched = len(shape) == 3
        rows = tapes[0].g.shape[1]
        if d_output is not None:
            d_output = _checks.array(d_output, "d_output", self.dtype)
            _checks.shape(d_output, (*shape[:-1], self.hidden_size), "d_output")
            d_output = self._time_major(d_output, batched)
        d_h_n = self._check_state(d_h_n, "d_h_n", batched, rows)
        dh_0 = np.empty((self.num_layers, rows, self.hidden_size), self.dtype)
        dx = None
        try:                                               # from the taking on: a handler may raise
            if self._trace.take(tapes):
                dx, grads = self._backward(tapes, d_output, d_h_n, dh_0)
                dx = np.ascontiguousarray(self._time_major(dx, True)).reshape(shape)
                self._trace.grads = {name: grads[name] for name in self._parameters()}
                self._trace.give_back(tapes)
        except MemoryError:
            self._trace.put_back(tapes, shape, "backward")
            raise
        except BaseException:                              # of a signal handler
            self._trace.lose("backward")
            raise
        if dx is None:
            raise RuntimeError("another call of this model came between: its forward is the last")
        return dx, (dh_0 if batched else dh_0[:, 0])

    def _backward(self, tapes, d_output, d_h_n, dh_0):
        """Fill dh_0 from the last layer to the first: (dx (T, N, I), gradients)."""
        old = self._trace.take_grads()
        grads = {}
        for index in reversed(range(len(tapes))):
            tape = tapes[index]
            d_output, dh_0[index], found = tape.layer.gradients(
                tape, d_output, None if d_h_n is None else d_h_n[index], False,
                tuple(f"{name}_l{index}" for name in NAMES), old)
            grads |= found
        return d_output, grads

    def step(self, x_t: ArrayLike, h: ArrayLike | None = None, out: Array | None = None) -> Array:
        """One step of a stream. Nothing is saved, in either mode.

        Parameters
        ----------
        x_t : array (N, I) or (I,)
        h : array (L, N, H) or (L, H), optional
            Hidden states of all layers; zeros if absent.
        out : ndarray like h, optional
            Receives the new hidden states; may be `h` itself.

        Returns
        -------
        ndarray (L, N, H) or (L, H)
            The new hidden states (`out`, if given); the last is the output of the step.
        """
        x_t = _checks.array(x_t, "input", self.dtype)
        if x_t.ndim not in (1, 2):
            raise ValueError(f"GRU.step: Expected input to be 1D or 2D, got {x_t.ndim}D instead "
                             f"(input of shape {x_t.shape})")
        self._check_input_size(x_t)
        batched = x_t.ndim == 2
        x = x_t.reshape(1, -1, self.input_size)
        h = self._check_state(h, "h", batched, x.shape[1])
        h_n = np.empty((self.num_layers, x.shape[1], self.hidden_size), self.dtype)
        result = h_n if batched else h_n[:, 0]
        if out is not None:
            _checks.output(out, result.shape, self.dtype)
        x = _checks.contiguous(x)
        for index, layer in enumerate(self._layers):
            layer.infer(x, None if h is None else h[index], h_n[index], 0, self.hidden_size)
            x = h_n[index : index + 1]
        if out is None:
            return result
        out[...] = result
        return out

    # ---- shapes ------------------------------------------------------------------------------

    def _time_major(self, a: Array, batched: bool) -> Array:
        """A view (T, N, ...) of an array in the caller's layout; its own inverse if batched."""
        if not batched:
            return a[:, None]
        return a.swapaxes(0, 1) if self.batch_first else a

    def _strides(self, a: Array) -> tuple[int, ...]:
        return tuple(stride // a.itemsize for stride in a.strides[:2])

    def _check_input_size(self, x: Array) -> None:
        if x.shape[-1] != self.input_size:
            raise ValueError(f"input has inconsistent input_size: got {x.shape[-1]} "
                             f"expected {self.input_size} (input of shape {x.shape})")

    def _check_input(self, x: Array) -> tuple[bool, int]:
        """(batched, N) of an input."""
        if x.ndim not in (2, 3):
            raise ValueError(f"GRU: Expected input to be 2D or 3D, got {x.ndim}D instead "
                             f"(input of shape {x.shape})")
        self._check_input_size(x)
        batched = x.ndim == 3
        steps, rows = self._time_major(x, batched).shape[:2]
        if not steps:
            raise ValueError("Expected sequence length to be larger than 0 in RNN "
                             f"(input of shape {x.shape})")
        return batched, rows

    def _check_state(self, h: ArrayLike | None, name: str, batched: bool,
                     rows: int) -> Array | None:
        """Hidden states as (L, N, H), or None."""
        if h is None:
            return None
        h = _checks.array(h, name, self.dtype)
        ndim = 3 if batched else 2
        if h.ndim != ndim:
            kind = "batched" if batched else "unbatched"
            raise ValueError(f"For {kind} input, {name} should be {ndim}-D but got {h.ndim}-D "
                             f"({name} of shape {h.shape})")
        expected = (self.num_layers, *((rows,) if batched else ()), self.hidden_size)
        if h.shape != expected:
            raise ValueError(f"Expected {name} size {expected}, got {h.shape}")
        return h if batched else h[:, None]

    # ---- parameters --------------------------------------------------------------------------

    def _parameters(self) -> dict[str, Array]:
        layers = self.__dict__.get("_layers", ())          # not there before our __init__
        return {f"{name}_l{index}": value for index, layer in enumerate(layers)
                for name, value in layer.weights.items()}

    def _load(self, arrays: Mapping[str, Array]) -> None:
        new = [{name: arrays[f"{name}_l{index}"] for name in NAMES if f"{name}_l{index}" in arrays}
               for index in range(self.num_layers)]
        self._change("_layers", lambda layers: tuple(
            layer.replaced(weights) if weights else layer
            for layer, weights in zip(layers, new, strict=True)))

    def _get_parameter(self, name: str) -> Array:
        # Only called for names that are not there: weight_ih_l0 and the like.
        if name.startswith(("weight_", "bias_")):
            parameters = self._parameters()
            if name in parameters:
                return frozen(parameters[name])
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _set_attribute(self, name: str, value: Any) -> None:
        if name.startswith(("weight_", "bias_")):
            parameters = self._parameters()
            if name in parameters:
                value = _checks.array(value, name, self.dtype)
                _checks.shape(value, parameters[name].shape, name)
                self._load({name: value})
                return
        super().__setattr__(name, value)

    if not TYPE_CHECKING:                                  # a checker would allow any name
        __getattr__, __setattr__ = _get_parameter, _set_attribute
