"""GRU: layers over whole sequences, forward and backward."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Never

import numpy as np

from gru_c import _activations, _checks
from gru_c._core import BATCH_FIRST, SEQUENCE, STEPS, Layer, backward, forward
from gru_c._module import Module
from gru_c._options import Dropout, SequenceOptions
from gru_c._parameters import NAMES, frozen, initial, shapes
from gru_c.stream import Stream

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
        MaybeArray,
        Parameter,
        Seed,
    )


class GRU(Module):
    """Layers of gated recurrent units over a sequence, shaped and named as in ``torch.nn.GRU``.

    It has the options of ``torch.nn.GRU`` and most of those of Keras's and ONNX's GRU;
    docs/options.md has an example of each. Below, D is the number of directions, 1 or 2.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        L; a layer above the first takes the output of the one below, (T, N, D*H).
    bias : bool
        If False, there are no biases.
    batch_first : bool
        Input and output are (N, T, ...) instead of (T, N, ...). The hidden states are not affected.
    dropout : float
        Probability, 0 to 1, that an element of the output of a layer is zeroed before the layer
        above reads it; the others are divided by ``1 - dropout``. The output of the last layer is
        left alone. Each forward in training mode draws anew from `rng`; in eval mode and in `step`
        there is no dropout. As in ``torch.nn.GRU``, with its warning for one layer.
    bidirectional : bool
        Each layer has a second direction, which runs from the last step to the first and has
        parameters of its own; D is 2.
    dtype : float32 or float64
        Dtype of the weights, of all arrays of a call and of the arithmetic.
    reset_after : bool
        The convention of the new gate, see `GRUCell`.
    rng : None, int or numpy.random.Generator
        Passed to ``numpy.random.default_rng``; weights are drawn from U(-1/sqrt(H), 1/sqrt(H)), and
        masks of dropout after them. A Generator is not copied: each forward in training mode with
        dropout advances it.
    input_dropout, recurrent_dropout : float
        Probabilities of variational dropout (Gal and Ghahramani 2016, arXiv:1512.05287),
        ``dropout`` and ``recurrent_dropout`` in Keras: each layer and direction draws one mask for
        all steps of a row, and multiplies by it x, or h in the products with ``weight_hh``.
        ``z * h`` takes h without a mask.
    activation, recurrent_activation : str or dict
        The functions in place of tanh (of n) and of sigmoid (of r and z): a name, or
        ``{"name": ..., "alpha": ..., "beta": ...}``, see `GRUCell`.
    clip : float, optional
        The arguments of these functions are held between -clip and clip, as in ONNX, and have no
        gradient there and beyond.
    checkpoint : int, optional
        In training mode, save a copy of x and each k-th state, and let `backward` compute the rest
        again: the same results from less memory in more time, see Notes.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, ... : ndarray
        The parameters, see Notes; there are no biases with ``bias=False``.
    grads : dict of str to ndarray
        Their gradients, after `backward`. They may be changed in place; ``accumulate=True`` adds to
        the changed values.
    training : bool
        True at first; see `train` and `eval`.
    rng : numpy.random.Generator
        What masks of dropout are drawn from. ``rng.bit_generator.state`` can be saved and set; a
        pickle and a deep copy go on from the same state.
    metadata : dict of str to str
        Notes about the model: `save` writes them, `load` reads them.
    input_size, hidden_size, num_layers, bias, ...
        The arguments as they are used; they cannot be assigned, nor can `rng`. An activation has
        the attributes `name`, `alpha` and `beta`.

    Notes
    -----
    The parameters are ``weight_ih_l0`` (3H, I), ``weight_hh_l0`` (3H, H), ``bias_ih_l0`` (3H,),
    ``bias_hh_l0`` (3H,), ``weight_ih_l1`` (3H, D*H), ..., gates stacked r, z, n; with
    `bidirectional` those of ``l0`` are followed by ``weight_ih_l0_reverse`` and so on. They read as
    read-only arrays and change through `load_state_dict` or by assignment to the attribute, which
    copy. A change is atomic, and a call keeps the weights that it began with.

    An exception of a signal handler, such as Ctrl-C, ends a call between two chunks of steps. After
    that nothing is saved for `backward` and there are no `grads`; both raise an error that says so.

    With `checkpoint`, `backward` runs windows of k steps, rounded up to a multiple of
    ``max(1, 256 // N)``, and needs memory for the activations of one. With two directions, the
    outputs of all layers but the last are kept, too.

    A subclass may define `forward`, and ``model(x)`` runs it. Assigning `forward` to a class later
    has no effect; assigning it to a model is refused. A subclass that also defines ``__call__``
    calls ``self.forward`` in it: ``super().__call__`` is the `forward` of the base class.

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

    Two directions, and rows of 5 and of 3 steps:

    >>> gru = gru_c.GRU(3, 4, bidirectional=True, dtype=np.float64, rng=0)
    >>> output, h_n = gru(np.ones((5, 2, 3)), lengths=[5, 3])
    >>> output.shape, h_n.shape, output[3:, 1].any()
    ((5, 2, 8), (2, 2, 4), np.False_)

    Keras 2, and ONNX with a clip:

    >>> gru_c.GRU(3, 4, recurrent_activation={"name": "hard_sigmoid", "alpha": 0.2}).activation.name
    'tanh'
    >>> gru = gru_c.GRU(3, 4, activation="relu", clip=5.0)
    """

    if TYPE_CHECKING:                                      # at run time there are as many as layers
        input_size: int
        hidden_size: int
        bias: bool
        dtype: np.dtype[Any]
        reset_after: bool
        activation: Activation
        recurrent_activation: Activation
        clip: float | None
        checkpoint: int | None
        num_layers: int
        batch_first: bool
        bidirectional: bool
        dropout: float
        input_dropout: float
        recurrent_dropout: float
        rng: np.random.Generator
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
        weight_ih_l0_reverse: Parameter
        weight_hh_l0_reverse: Parameter
        bias_ih_l0_reverse: Bias
        bias_hh_l0_reverse: Bias
        weight_ih_l1_reverse: Parameter
        weight_hh_l1_reverse: Parameter
        bias_ih_l1_reverse: Bias
        bias_hh_l1_reverse: Bias
        weight_ih_l2_reverse: Parameter
        weight_hh_l2_reverse: Parameter
        bias_ih_l2_reverse: Bias
        bias_hh_l2_reverse: Bias
        weight_ih_l3_reverse: Parameter
        weight_hh_l3_reverse: Parameter
        bias_ih_l3_reverse: Bias
        bias_hh_l3_reverse: Bias

    _reverse = False                                       # of the layers of a lone direction

    def __init__(self, input_size: Integer, hidden_size: Integer, num_layers: Integer = 1,
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False, dtype: DType = np.float32, reset_after: bool = True,
                 rng: Seed = None, input_dropout: float = 0.0, recurrent_dropout: float = 0.0,
                 activation: ActivationLike = "tanh",
                 recurrent_activation: ActivationLike = "sigmoid",
                 clip: float | None = None, checkpoint: Integer | None = None) -> None:
        self.input_size = _checks.size(input_size, "input_size")
        self.hidden_size = _checks.size(hidden_size, "hidden_size")
        self.num_layers = _checks.size(num_layers, "num_layers")
        self.bias = _checks.flag(bias, "bias")
        self.batch_first = _checks.flag(batch_first, "batch_first")
        self.bidirectional = _checks.flag(bidirectional, "bidirectional")
        self.dropout = _checks.probability(dropout, "dropout")
        self.input_dropout = _checks.probability(input_dropout, "input_dropout")
        self.recurrent_dropout = _checks.probability(recurrent_dropout, "recurrent_dropout")
        self.dtype = _checks.model_dtype(dtype)
        self.reset_after = _checks.flag(reset_after, "reset_after")
        self.activation = _activations.activation(activation, "activation")
        self.recurrent_activation = _activations.activation(
            recurrent_activation, "recurrent_activation")
        self.clip = _activations.clip(clip)
        self.checkpoint = None if checkpoint is None else _checks.size(checkpoint, "checkpoint")
        self.rng = _checks.generator(rng)
        if self.bidirectional and self._reverse:
            raise ValueError("a ReverseGRU has one direction: bidirectional must be False")
        directions = 1 + self.bidirectional
        _checks.model_size(self.input_size, self.hidden_size, self.num_layers, directions,
                           self.dtype)
        if self.dropout and self.num_layers == 1:
            warnings.warn("dropout option adds dropout after all but last recurrent layer, so "
                          "non-zero dropout expects num_layers greater than 1, but got "
                          f"dropout={dropout} and num_layers=1 (for dropout of x, as in Keras: "
                          "input_dropout)", stacklevel=2)
        suffixes = [f"l{layer}{reverse}" for layer in range(self.num_layers)
                    for reverse in ("", "_reverse")[:directions]]
        sizes = [self.input_size] * directions
        sizes += [directions * self.hidden_size] * (len(suffixes) - directions)
        self._dropout = Dropout(self.dropout, self.input_dropout, self.recurrent_dropout, suffixes,
                                sizes, self.hidden_size, self.dtype, self.rng)
        super().__init__(BATCH_FIRST if self.batch_first else SEQUENCE,
                         self._dropout.active or self.checkpoint is not None)
        self._layers = tuple(
            Layer(initial(shapes(size, self.hidden_size, self.bias), self.hidden_size, self.dtype,
                          self.rng), self.reset_after, True,
                  tuple(f"{name}_{suffix}" for name in NAMES),
                  self._reverse or suffix.endswith("_reverse"),
                  _activations.core_arguments(self))
            for suffix, size in zip(suffixes, sizes, strict=True))

    def __repr__(self) -> str:
        def given(*names: str) -> str:
            return "".join(f", {name}={value}" for name in names if (value := getattr(self, name)))

        return (f"{type(self).__name__}({self.input_size}, {self.hidden_size}, "
                f"num_layers={self.num_layers}, bias={self.bias}, "
                f"batch_first={self.batch_first}, dtype={self.dtype}, "
                f"reset_after={self.reset_after}"
                f"{given('bidirectional', 'dropout', 'input_dropout', 'recurrent_dropout')}"
                f"{_activations.shown(self)}{given('checkpoint')}{self._shown_quantization()})")

    # ---- running ---------------------------------------------------------------------------

    def forward(self, x: ArrayLike, h_0: ArrayLike | None = None,
                lengths: ArrayLike | None = None, mask: ArrayLike | None = None,
                resets: ArrayLike | None = None,
                dropout_masks: Mapping[str, ArrayLike] | None = None, return_output: bool = True,
                out: Array | None = None, h_n_out: Array | None = None) -> tuple[MaybeArray, Array]:
        """Run over a sequence.

        Parameters
        ----------
        x : array (T, N, I), (N, T, I) with `batch_first`, or (T, I)
        h_0 : array (L*D, N, H), or (L*D, H) for an unbatched x; optional
            Initial hidden states, in the order of the parameters; zeros if absent. Not broadcast
            over the batch.
        lengths : integers (N,), or one integer for an unbatched x; optional
            Steps of each row, 0 to T, in any order; T if absent. What is past a row's end is not
            read. Output there is zero, and so is dx. The reverse direction begins at a row's end.
        mask : bool array (T, N), (N, T) or (T,), as x; optional
            False where a step does not count, as in Keras: the hidden state is held, x is not used
            and may be NaN, dx is zero. Output is the held state, but zero before the first step
            that counts in the order of the direction (Keras's ``Bidirectional``: zero at all steps
            that do not count).
        resets : bool array as `mask`, optional
            True where the hidden state is zeroed before the step, in the order of the direction.
            The gradient is cut there. Where `mask` is False, the zeros are held.
        dropout_masks : mapping of str to array, optional
            Multipliers in place of those that would be drawn, in training mode only:
            ``"output_l0"`` as the output of that layer; ``"input_l0"`` (N, I), ``"input_l1"``
            (N, D*H); ``"recurrent_l0"`` (N, H); ``"input_l0_reverse"`` ...; without N for an
            unbatched x. They are copied.
        return_output : bool
            If False, the output is None, and no array of T steps is made for it.
        out : ndarray like the output, optional
            Receives the output. It may have any strides, and may overlap `x` and `h_0`.
        h_n_out : ndarray like h_n, optional
            Receives h_n. It may overlap `x` and `h_0`, but not `out`.

        Returns
        -------
        output : ndarray (T, N, D*H), (N, T, D*H) or (T, D*H), or None
            Hidden states of the last layer after each step (`out`, if given): H columns of the
            forward direction, then those of the reverse direction.
        h_n : ndarray (L*D, N, H) or (L*D, H)
            Hidden states of all layers and directions after the last step of each row (`h_n_out`,
            if given); of a row of no steps, its h_0.

        Raises
        ------
        TypeError
            An array whose dtype is not the model's, `lengths` that are not integers, or `mask` or
            `resets` that are not bools.
        ValueError
            A shape that does not fit, a sequence of no steps, a length below 0 or above T,
            `dropout_masks` in eval mode or with an unknown name, `out` without `return_output`, or
            `out` or `h_n_out` that is read-only.
        """
        state = self._state
        requested = None
        if (lengths is not None or mask is not None or resets is not None or out is not None
                or dropout_masks is not None or return_output is not True
                or (state.has_options and state.training)):
            requested = SequenceOptions(lengths, mask, resets, dropout_masks, self._dropout,
                                        return_output, out, self.checkpoint)
        try:
            return forward(self._layers, x, h_0, h_n_out, state, requested)
        except BaseException:                              # a handler's may come when all is done
            state.abort("forward")
            raise

    __call__ = forward

    def backward(self, d_output: ArrayLike | None, d_h_n: ArrayLike | None = None,
                 accumulate: bool = False, need_dx: bool = True,
                 need_grads: bool = True) -> tuple[MaybeArray, Array]:
        """Gradients of the last forward; the parameters' are in `grads`. Once per forward.

        Parameters
        ----------
        d_output : array like the output of the forward, or None for zeros
        d_h_n : array like h_n, optional
            dL/d output and dL/dh_n. Where output is zero by `lengths` or `mask`, d_output is not
            read.
        accumulate : bool
            Add to `grads`, if there are any, instead of replacing them; changes made to them in
            place count.
        need_dx : bool
            If False, dx of the first layer is not computed.
        need_grads : bool
            If False, no gradients of parameters are computed, and `grads` stays as it was.

        Returns
        -------
        dx : ndarray like x, or None
        dh_0 : ndarray (L*D, N, H) or (L*D, H)

        Raises
        ------
        RuntimeError
            No forward in training mode came before, its backward was run already, or `eval`
            dropped what it saved. A `step` in between keeps it, and so does a call whose arguments
            are refused.
        TypeError, ValueError
            An array of another dtype or shape, or a flag that is not a bool.
        """
        try:
            result = backward(self._state, d_output, d_h_n, accumulate, need_dx, need_grads)
        except BaseException:                              # a handler's may come when all is done
            self._state.abort("backward")
            raise
        if result is None:
            _checks.refuse_nothing_saved(self._state.training, self._state.unfinished,
                                         self.quantization)
        return result

    def step(self, x_t: ArrayLike, h: ArrayLike | None = None, out: Array | None = None) -> Array:
        """One step of a stream. Nothing is saved, and no dropout is applied, in either mode. What
        the last forward saved stays.

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

        Raises
        ------
        ValueError
            The model is bidirectional: its reverse direction begins at the last step, which a
            stream has not seen.
        """
        if self.bidirectional:
            raise ValueError("step needs one direction: with bidirectional=True the reverse "
                             "direction begins at the last step, which a stream has not seen")
        return forward(self._layers, x_t, h, out, STEPS, None)

    def stream(self, batch_size: Integer | None = None, num_threads: Integer = 1) -> Stream:
        """Hidden states that stay between steps, for sequences that arrive step by step.

        Parameters
        ----------
        batch_size : int, optional
            N; without it, arrays have no axis of rows.
        num_threads : int
            Threads that a call of the stream may use.

        Returns
        -------
        Stream
            All its states are zero. It computes with the weights that the model has at each call.

        Raises
        ------
        ValueError
            The model has a direction that begins at the last step.

        Examples
        --------
        >>> import numpy as np, gru_c
        >>> stream = gru_c.GRU(3, 4, rng=0).stream()
        >>> stream.step(np.ones(3, np.float32)).shape
        (4,)
        """
        return Stream(self, batch_size, num_threads)

    # ---- parameters --------------------------------------------------------------------------

    def _parameters(self) -> dict[str, Array]:
        layers = getattr(self, "_layers", ())              # none before __init__
        return {name: layer.weights[own] for layer in layers
                for own, name in zip(NAMES, layer.names, strict=True) if own in layer.weights}

    def _load(self, arrays: Mapping[str, Array]) -> None:
        def new(layers: Any) -> Any:
            found = [{own: arrays[name] for own, name in zip(NAMES, layer.names, strict=True)
                      if name in arrays} for layer in layers]
            return tuple(layer.replaced(weights) if weights else layer
                         for layer, weights in zip(layers, found, strict=True))

        self._change(new)

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


class ReverseGRU(GRU):
    """A `GRU` whose one direction runs from the last step to the first, alone.

    It is the reverse direction of a bidirectional GRU: output is at the step that it belongs to,
    with `lengths` each row begins at its own last step, and h_n are the states after step 0.
    ``direction="reverse"`` in ONNX; ``go_backwards=True`` in Keras, which returns output in the
    order computed, ``output[:, ::-1]``. It has no `step`, and ``bidirectional`` must be False.

    Examples
    --------
    >>> import numpy as np, gru_c
    >>> gru = gru_c.ReverseGRU(3, 4, rng=0)
    >>> output, h_n = gru(np.ones((5, 2, 3), np.float32))
    >>> bool((output[0] == h_n[0]).all())
    True
    """

    _reverse = True

    def step(self, x_t: ArrayLike, h: ArrayLike | None = None, out: Array | None = None) -> Never:
        """Refused with a ValueError: the first step of a stream is the last of this direction."""
        raise ValueError("a ReverseGRU has no step: it begins at the last step of a sequence, "
                         "which a stream has not seen")
