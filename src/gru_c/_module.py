"""What GRUCell and GRU share: the mode, the parameters as a mapping, the gradients, copying."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gru_c import _checks
from gru_c._core import Handle as CoreHandle
from gru_c._core import TrainingState, swap
from gru_c._exchange import Exchange
from gru_c._parameters import frozen

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from gru_c._types import Array, Handle, Integer

FIXED = frozenset(("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dtype",
                   "reset_after", "bidirectional", "dropout", "input_dropout", "recurrent_dropout",
                   "activation", "recurrent_activation", "clip", "checkpoint", "rng"))
DERIVED = frozenset(("quantization", "x_bits", "nbytes"))

# Names that are meant for a parameter, of any layer: to set one that is not there is an error.
PARAMETER_LIKE = re.compile(r"(weight|bias)_(([ih]{2}|hr)(_?l?\d+)?|[ihnr]*_?l\d+)(_reverse)?")


class Module(Exchange):
    """Base class. A subclass implements `_parameters` and `_load`, sets `_layers` and calls our
    `__init__`.

    The layers of a model are immutable, in a tuple in one attribute. A change of the model swaps
    the tuple, so a call that reads the attribute once has a snapshot.
    """

    if TYPE_CHECKING:
        _layers: tuple[Any, ...]
        dtype: np.dtype[Any]
        training: bool

        def _parameters(self) -> dict[str, Array]: ...
        def _load(self, arrays: Mapping[str, Array]) -> None: ...

    def __init_subclass__(cls, **options: Any) -> None:
        """Make `model(x)` run the class's `forward`, which may come from a mixin.

        `__call__` is the `forward` function itself, which saves a second call. It is set when the
        class is made, so assigning `forward` to a class later has no effect. An explicit `__call__`
        in any class of the MRO comes first.
        """
        super().__init_subclass__(**options)
        forwards = [vars(base)["forward"] for base in cls.__mro__ if "forward" in vars(base)]
        calls = [vars(base)["__call__"] for base in cls.__mro__ if "__call__" in vars(base)]
        written = [call for call in calls if not any(call is forward for forward in forwards)]
        if calls[0] not in written:
            type.__setattr__(cls, "__call__", (written or forwards)[0])

    def __init__(self, form: int, has_options: bool = False) -> None:
        self.metadata: dict[str, str] = {}
        self._state = TrainingState(form, True, has_options)

    def _set_attribute(self, name: str, value: Any) -> None:
        if name in DERIVED or (name in FIXED and name in self.__dict__):
            raise AttributeError(f"{name} of a {type(self).__name__} cannot change: "
                                 "make a new model")
        if name == "forward":
            raise AttributeError(f"forward cannot be set on one {type(self).__name__}: model(x) "
                                 "would not call it; override it in a subclass")
        if PARAMETER_LIKE.fullmatch(name) and not hasattr(type(self), name):
            names = ", ".join(self._parameters()) or "not known before __init__"
            raise AttributeError(f"the model has no parameter {name!r}: its names are {names}")
        super().__setattr__(name, value)

    if not TYPE_CHECKING:                                  # a checker would allow any name
        __setattr__ = _set_attribute

    def __delattr__(self, name: str) -> None:
        if name in FIXED or name in DERIVED:
            raise AttributeError(f"{name} of a {type(self).__name__} cannot be deleted")
        super().__delattr__(name)

    def _change(self, new: Callable[[Any], Any]) -> None:
        """Replace the layers by new(layers), atomically.

        If another thread or a signal handler replaced them meanwhile, start again from theirs.
        """
        done = False
        while not done:
            old = self._layers
            done = swap(self.__dict__, "_layers", old, new(old))

    def train(self, mode: bool = True) -> Self:
        """Training mode, the default: each forward saves what `backward` needs. Returns self."""
        mode = _checks.flag(mode, "mode")
        if mode and self.quantization:
            raise ValueError(f"a model with {self.quantization} weights cannot be trained: train "
                             "the float model, and quantize it again")
        if self._layers[0].training != mode:
            self._change(lambda layers: tuple(layer.for_mode(mode) for layer in layers))
        self._state.train(mode)
        return self

    training = property(lambda self: self._state.training, train, doc="Whether in training mode.")

    def eval(self) -> Self:
        """Save nothing, share nothing: any number of threads may call at once. Returns self.

        What the last forward in training mode saved is dropped, so run its `backward` before. The
        gradients stay.
        """
        return self.train(False)

    # ---- fewer bits ------------------------------------------------------------------------------

    @property
    def quantization(self) -> str | None:
        """How weights are stored: ``"int8"`` or ``"bfloat16"`` after `quantize`, else None."""
        weights: str | None = self._layers[0].quantization[0]
        return weights

    @property
    def x_bits(self) -> int | None:
        """Bits of x in products: 8 or 12 with int8; with bfloat16 None, or 16 of x and of h."""
        bits: int | None = self._layers[0].quantization[1]
        return bits

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters in memory: as arrays, and packed for the products."""
        return sum(layer.nbytes for layer in self._layers)

    def quantize(self, weights: str, x_bits: Integer | None = None) -> Self:
        """A model with the same parameters in fewer bits, for inference. This one is not changed.

        Where few rows go through a large layer, time goes into reading weights: int8 takes a
        quarter of the memory, bfloat16 half. Products of int8, and of bfloat16 with ``x_bits=16``,
        are faster with any number of rows. Biases, hidden states and gates stay float32.

        Parameters
        ----------
        weights : {"int8", "bfloat16"}
            ``"int8"``: integers from -127 to 127 and one scale for each row of a weight. x is
            scaled to integers in each row and step, h is multiplied by 127 (by less where a state
            exceeds 1); sums are exact. Results have the same bits on every processor.

            ``"bfloat16"``: the 16 high bits of float32. It is the better choice where rows of a
            weight have a few large elements.
        x_bits : {8, 12, 16}, optional
            With int8, the bits of the integers of x: 8 by default; 12 is more exact and slower.
            With bfloat16, x and h are not rounded by default; 16 rounds what weights multiply to
            bfloat16: x, h, and r h where the reset gate comes before the product. On processors
            with AVX512-BF16 this takes about half the time of float32.

        Returns
        -------
        Same class as the model
            In eval mode. Its parameters read as the values that products use, in float32;
            `to_torch`, `to_onnx` and others write these, while `save` stores fewer bits. What is
            assigned or loaded is rounded. `train` is refused. A pickle is as large as that of the
            float model.

        Raises
        ------
        ValueError
            The model is not float32, or is quantized; or a weight has too many columns for exact
            sums.

        Notes
        -----
        `gru_c.reference_quantized` has the definition in NumPy. With int8 a row of x that holds a
        NaN or an infinity gives NaN.

        Small layers gain nothing. int8 is slower than float32 below 24 units (with AVX2 below
        about 50). With bfloat16, weights of at most 64 inputs and units stay float32 in memory;
        with ``x_bits=16`` they do not, and one row is slower than float32 below about 48 units.
        Otherwise bfloat16 gains with up to three rows, ``x_bits=16`` with any number if the
        processor has AVX512-BF16 (`gru_c.show_config` says so), else as much as bfloat16. Without
        AVX2 all are slower than float32. docs/performance/quantized has figures.

        With ``x_bits=16`` results differ between instruction sets by about 1e-4: rounding x and h
        magnifies differences in the last bit. With AVX512-BF16 denormals count as zero in products.

        Examples
        --------
        >>> import numpy as np, gru_c
        >>> gru = gru_c.GRU(64, 256, rng=0).eval()
        >>> small = gru.quantize("int8")
        >>> x = np.random.default_rng(0).normal(size=(100, 1, 64)).astype(np.float32)
        >>> bool(abs(small(x)[0] - gru(x)[0]).max() < 0.02), small.nbytes < gru.nbytes / 3
        (True, True)
        """
        quantization = _checks.quantization(weights, x_bits, self)
        model = copy.copy(self)
        model._layers = tuple(layer.quantized(quantization) for layer in self._layers)
        return model.eval()

    def _shown_quantization(self) -> str:
        """What the repr adds."""
        return "".join(f", {name}={value!r}" for name in ("quantization", "x_bits")
                       if (value := getattr(self, name)))

    # ---- parameters --------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """The parameters by PyTorch's names, as read-only arrays: new weights go in through
        `load_state_dict` or by assignment, never by an edit in place."""
        return {name: frozen(value) for name, value in self._parameters().items()}

    def load_state_dict(self, mapping: Mapping[str, ArrayLike]) -> None:
        """Replace all parameters by copies of the arrays in `mapping`, named as in `state_dict`.

        Nothing changes if anything is missing, unexpected or of a wrong shape or dtype.
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(mapping).__name__}")
        current = self._parameters()
        missing = [name for name in current if name not in mapping]
        unexpected = [name for name in mapping if name not in current]
        problems = []
        if missing:
            problems.append(f"missing key(s): {', '.join(map(repr, missing))}")
        if unexpected:
            problems.append(f"unexpected key(s): {', '.join(map(repr, unexpected))}")
        arrays = {}
        for name, old in current.items():
            if name in mapping:
                arrays[name] = _checks.array(mapping[name], name, self.dtype)
                if arrays[name].shape != old.shape:
                    problems.append(f"size mismatch for {name}: got shape {arrays[name].shape}, "
                                    f"the model has {old.shape}")
        if problems:
            raise ValueError(f"cannot load into {type(self).__name__}: {'; '.join(problems)}")
        self._load(arrays)

    @property
    def grads(self) -> dict[str, Array]:
        """Gradients of the parameters from the last `backward`, by the names of `state_dict`.

        While you hold a reference to the dict or to an array, it stays as it is;
        otherwise the next `backward` may overwrite it. The arrays may be changed in place, to clip
        them, say; a `backward` with ``accumulate=True`` adds to the changed values.
        """
        grads = self._state.grads                          # read once: a backward takes it away
        if grads is None and self._state.unfinished:
            raise RuntimeError(f"no gradients: the last {self._state.unfinished} did not finish "
                               "(interrupted, or no memory); call forward and backward again")
        if grads is None:
            raise RuntimeError("no gradients yet: call backward first")
        return grads

    def handle(self) -> Handle:
        """The weights as they are now, for C: a ``const gru_model *`` for the functions of gru_c.h.

        Nothing is packed again: the memory is shared with the model, which never writes to it. The
        handle keeps it alive, and does not change with the model; ask again after new weights or
        another mode. In training mode it has the weights of the backward, too. What is no part of
        the equations, `batch_first` and dropout, is not in it.

        Returns
        -------
        Handle
            With the attributes `address`, `capsule`, `dtype`, `input_size`, `hidden_size`,
            `num_layers`, `directions` and `training`. `ctypes_api` takes it as it is.

        Examples
        --------
        >>> import gru_c
        >>> handle = gru_c.GRU(3, 4, num_layers=2).eval().handle()
        >>> handle.num_layers, handle.dtype, handle.training
        (2, dtype('float32'), False)
        """
        handle: Handle = CoreHandle(self._layers)
        return handle

    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: the model without what belongs to one run."""
        state = self.__dict__.copy()                       # of one moment
        return state | {name: copy.copy(state[name]) for name in ("_state", "metadata")
                        if name in state}
