"""A GRU between two formats: readers give it, models are made from it, and writers take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gru_c import _checks
from gru_c.cell import GRUCell
from gru_c.gru import GRU, ReverseGRU

if TYPE_CHECKING:
    from gru_c._types import Array, DType

Model = TypeVar("Model")                                   # GRU, GRUCell or a class of these

# Arguments that follow from names and shapes of the parameters, and cannot be given.
TOLD = ("input_size", "hidden_size", "num_layers", "bias", "bidirectional")

# Arguments of a GRU that a cell lacks, and the values that it may drop; None: any value.
NOT_OF_A_CELL: dict[str, Any] = {
    "num_layers": 1, "bidirectional": False, "reverse": False, "batch_first": None,
    "dropout": None, "input_dropout": 0.0, "recurrent_dropout": 0.0, "checkpoint": None}


@dataclass(frozen=True, repr=False)
class Found:
    """A GRU as arguments of `gru_c.GRU`, and parameters by its names.

    options
        Arguments of `GRU` as far as the source tells them; always those of `TOLD`. Beside them
        ``reverse``: whether the one direction runs from the last step to the first.
    parameters
        ``weight_ih_l0``, ..., in the order of `GRU.state_dict`: float64, float32 or float16 arrays,
        of shapes that belong to the options. Nobody writes to them.
    where
        The source in words, for errors: ``"model.pt, 'encoder.gru.'"``.
    name
        What selects it in its file: a prefix, a layer, a node.
    convention
        Whose layout the file has, in a few words: ``"PyTorch"``, ``"Keras 3, reset_after=True"``.
    cell
        Whether it is a cell, which runs a step at a time.
    metadata
        Texts of the file by name.
    arrays
        Names of the arrays in the file that the parameters come from, as `read_arrays` has them.
    quantization
        What `quantize` was given, ``("int8", 12)``; the parameters are the values that the model
        computes with. Empty for floats.
    """

    options: dict[str, Any]
    parameters: dict[str, Array]
    where: str
    name: str = ""
    convention: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    cell: bool = False
    arrays: tuple[str, ...] = ()
    quantization: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        """Without the arrays."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        end = f", quantization={self.quantization}" if self.quantization else ""
        return f"Found({self.name!r}, {options}, dtype={self.dtype}{end})"

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of a model with these parameters: float64 if one of them is, else float32."""
        double = any(_checks.native(a.dtype) == np.float64 for a in self.parameters.values())
        return np.dtype(np.float64 if double else np.float32)


def build(cls: type[Model], found: Found, dtype: DType | None = None, **given: Any) -> Model:
    """Make a model of class `cls`, a `GRU` or `GRUCell`. Arguments in `given` replace those found.

    It is in training mode, as any new model, unless it has dropout: then in eval mode, so that its
    results are those of the source. So is a quantized one; with ``dtype=float64`` it is of floats.
    """
    for name in TOLD:
        if name in given:
            raise TypeError(f"{name} is found from the parameters: it cannot be given")
    if "reverse" in given:
        raise TypeError("reverse is no argument: the class gru_c.ReverseGRU runs in reverse")
    if issubclass(cls, GRUCell):
        for name in given.keys() & NOT_OF_A_CELL.keys():
            raise TypeError(f"{name} is no argument of a {cls.__name__}")
    dtype = found.dtype if dtype is None else _checks.model_dtype(dtype)
    options, end = found.options | given, ""
    kind: type[Any] = cls
    if issubclass(cls, GRUCell):
        options, end = _of_a_cell(cls, found.where, options), "_l0"
    else:
        kind = _of_direction(cls, found.where, options.pop("reverse", None))
    arrays = {name.removesuffix(end): _converted(a, name, dtype, found.where)
              for name, a in found.parameters.items()}
    model = kind(**options, dtype=dtype)
    model.load_state_dict(arrays)
    if found.quantization and dtype == np.float32:
        model = model.quantize(*found.quantization)
    has_dropout = any(options.get(name) for name in ("dropout", "input_dropout",
                                                     "recurrent_dropout"))
    made: Model = model.eval() if has_dropout else model
    return made


def described(model: Any) -> Found:
    """What a writer takes, from a `GRU` or `GRUCell`."""
    if not isinstance(model.metadata, Mapping):
        raise TypeError("metadata of the model should be a mapping of texts by name, got: "
                        f"{type(model.metadata).__name__}")
    cell = isinstance(model, GRUCell)
    names = ["input_size", "hidden_size", "bias", "reset_after", "clip"]
    options: dict[str, Any] = {"num_layers": 1, "bidirectional": False}
    if not cell:
        names += ["num_layers", "bidirectional", "batch_first", "dropout", "input_dropout",
                  "recurrent_dropout", "checkpoint"]
    options |= {name: getattr(model, name) for name in names}
    options |= {name: getattr(model, name).argument
                for name in ("activation", "recurrent_activation")}
    options["reverse"] = isinstance(model, ReverseGRU)
    parameters = {f"{name}_l0" if cell else name: a for name, a in model.state_dict().items()}
    return Found(options, parameters, f"the {type(model).__name__}",
                 convention=type(model).__name__, metadata=dict(model.metadata), cell=cell,
                 quantization=tuple(filter(None, (model.quantization, model.x_bits))))


def _of_direction(cls: type[Any], where: str, reverse: bool | None) -> type[Any]:
    """The class for a source that runs in reverse, or forwards, or does not say (None)."""
    if reverse is None or reverse == issubclass(cls, ReverseGRU):
        return cls
    if reverse and cls is GRU:
        return ReverseGRU
    runs, others = ("in reverse", "GRU or gru_c.ReverseGRU") if reverse else ("forwards", "GRU")
    raise ValueError(f"{where}: the GRU runs {runs}, which a {cls.__name__} does not; read it with "
                     f"gru_c.{others}")


def _of_a_cell(cls: type[Any], where: str, options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a cell; an error where it would drop one that matters."""
    for name, fine in NOT_OF_A_CELL.items():
        value = options.get(name, fine)
        if fine is not None and value != fine:
            raise ValueError(f"{where}: {name}={value!r}, which a {cls.__name__} does not have; "
                             "read it with gru_c.GRU")
    return {name: value for name, value in options.items() if name not in NOT_OF_A_CELL}


def _converted(a: Array, name: str, dtype: np.dtype[Any], where: str) -> Array:
    """An array in the dtype of the model. A value that becomes infinite is an error."""
    if _checks.native(a.dtype) not in (np.float16, np.float32, np.float64):
        raise ValueError(f"{where}: {name} has dtype {a.dtype}, expected a floating dtype")
    with np.errstate(all="ignore"):
        result = a.astype(dtype, copy=False)
    if a.dtype.itemsize > dtype.itemsize and (np.isinf(result) != np.isinf(a)).any():
        raise ValueError(f"{where}: {name} holds values that {dtype} cannot hold; "
                         f"read it with dtype={a.dtype}")
    return result
