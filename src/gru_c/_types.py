"""Types of arguments, results and attributes, for type checkers alone: never imported at run time.

An attribute that reads as an array and takes all that converts to one is a descriptor here,
whatever makes it at run time.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Never, SupportsIndex, TypeAlias, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gru_c._activations import Activation

Array: TypeAlias = NDArray[Any]
MaybeArray: TypeAlias = Array | Any            # None where it was not asked for: not checked
Integer: TypeAlias = SupportsIndex
DType: TypeAlias = str | type[float] | type[np.floating[Any]] | np.dtype[Any]
Seed: TypeAlias = (int | np.integer[Any] | Sequence[int] | np.random.SeedSequence
                   | np.random.BitGenerator | np.random.Generator | None)

ActivationLike: TypeAlias = str | Mapping[str, Any] | Activation


class Parameter:
    """A parameter or a block of one: read-only array, assigned from anything like it."""

    def __get__(self, instance: object, owner: type | None = None) -> Array: ...
    def __set__(self, instance: object, value: ArrayLike) -> None: ...


class Bias:
    """The same of a bias, which is None in a model without: not checked."""

    def __get__(self, instance: object, owner: type | None = None) -> Array | Any: ...
    def __set__(self, instance: object, value: ArrayLike) -> None: ...


class ReadOnly:
    """A gradient, or what the last forward left."""

    def __get__(self, instance: object, owner: type | None = None) -> Array: ...
    def __set__(self, instance: object, value: Never) -> None: ...


class ReadOnlyBias:
    """The gradient of a bias."""

    def __get__(self, instance: object, owner: type | None = None) -> Array | Any: ...
    def __set__(self, instance: object, value: Never) -> None: ...


class Handle:
    """What `handle` of a model returns: its weights at one moment, for C."""

    address: int
    capsule: object
    dtype: np.dtype[Any]
    input_size: int
    hidden_size: int
    num_layers: int
    directions: int
    training: bool


class OptionsOfEquations(TypedDict, total=False):
    """Arguments of a GRU that neither its parameters nor its equations tell; a cell has some."""

    batch_first: bool
    dropout: float
    rng: Seed
    input_dropout: float
    recurrent_dropout: float
    activation: ActivationLike
    recurrent_activation: ActivationLike
    clip: float | None
    checkpoint: Integer | None


class Options(OptionsOfEquations, total=False):
    """Those that names and shapes of parameters do not tell."""

    reset_after: bool
