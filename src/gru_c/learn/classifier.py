"""SequenceClassifier: a GRU, and a linear head on its last hidden state.

    x (N, T, I)  ->  GRU  ->  h_n[-1] (N, H)  ->  Linear  ->  logits (N, C)

Also the file that it is saved in: safetensors or .npz, with the architecture in the metadata.
"""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._checks import byte_limit
from .._exchange import MAX_BYTES
from .._parameters import shapes
from ..gru import GRU
from ..interop import files, quantized
from ..interop.containers import npz, safetensors
from ..interop.errors import ModelFileError
from .head import Linear
from .losses import softmax

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray

    from gru_c._exchange import Path
    from gru_c._types import Array, DType, Integer, Seed

_SIZES = ("input_size", "hidden_size", "num_classes", "num_layers")
_OWN = ("format", *_SIZES, "dtype", "reset_after", *quantized.OPTIONS)   # names of the metadata


class SequenceClassifier:
    """A classifier of sequences: GRU, then a linear head on the last hidden state.

    Parameters
    ----------
    input_size : int
        Width I of each step of a sequence.
    hidden_size : int
        Width H of the state.
    num_classes : int
        Number C of classes.
    num_layers : int
        Number of GRU layers, one on top of the other.
    dtype : numpy.float32 or numpy.float64
        Of the weights, inputs and logits.
    reset_after : bool
        Where the reset gate acts, see `gru_c.GRU`.
    rng : int, numpy.random.Generator or None
        What the weights are drawn with.

    Attributes
    ----------
    gru : gru_c.GRU
    head : Linear
    metadata : dict of str to str
        Notes about the model: `save` writes them, `load` reads them.

    Examples
    --------
    >>> import numpy as np
    >>> from gru_c.learn import SequenceClassifier, cross_entropy
    >>> model = SequenceClassifier(input_size=8, hidden_size=16, num_classes=10, rng=0)
    >>> x = np.zeros((4, 5, 8), np.float32)              # 4 sequences of 5 steps
    >>> logits = model(x)
    >>> loss, dlogits = cross_entropy(logits, np.array([0, 1, 2, 3]))
    >>> dx = model.backward(dlogits)
    >>> logits.shape, dx.shape, sorted(model.grads)[-1]
    ((4, 10), (4, 5, 8), 'head.weight')
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        num_layers: int = 1,
        dtype: DType = np.float32,
        reset_after: bool = True,
        rng: Seed = None,
    ) -> None:
        rng = np.random.default_rng(rng)
        self.input_size: int = input_size
        self.hidden_size: int = hidden_size
        self.num_classes: int = num_classes
        self.num_layers: int = num_layers
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.reset_after: bool = reset_after
        self.gru: GRU = GRU(
            input_size,
            hidden_size,
            num_layers,
            batch_first=True,
            dtype=dtype,
            reset_after=reset_after,
            rng=rng,
        )
        self.head: Linear = Linear(hidden_size, num_classes, dtype, rng)
        self.metadata: dict[str, str] = {}

    def train(self) -> Self:
        """Keep what `backward` needs from now on; return the model."""
        self.gru.train()
        self.head.train()
        return self

    def eval(self) -> Self:
        """Keep nothing from now on: the model then serves any number of threads; return it."""
        self.gru.eval()
        self.head.eval()
        return self

    def quantize(self, weights: str, x_bits: Integer | None = None) -> Self:
        """Return a classifier in eval mode whose GRU is `gru_c.GRU.quantize` of this one's."""
        model = copy.copy(self)
        model.gru = self.gru.quantize(weights, x_bits)
        model.head, model.metadata = copy.copy(self.head), dict(self.metadata)
        return model.eval()

    def forward(self, x: ArrayLike) -> Array:
        """Return the logits (N, C) of the sequences `x` (N, T, I)."""
        _, h_n = self.gru(x)
        return self.head(h_n[-1])

    __call__ = forward

    def backward(self, dlogits: Array) -> Array:
        """Return dx (N, T, I) for `dlogits` (N, C) of the last forward, and set the gradients."""
        dh_n = np.zeros((self.num_layers, len(dlogits), self.hidden_size), self.dtype)
        dh_n[-1] = self.head.backward(dlogits)
        dx, _ = self.gru.backward(None, dh_n)
        return dx

    @property
    def grads(self) -> dict[str, Array]:
        """The gradients of the last `backward`, under the names of `state_dict`."""
        return _joined(self.gru.grads, self.head.grads)

    def state_dict(self) -> dict[str, Array]:
        """Return all parameters: ``gru.weight_ih_l0``, ..., ``head.weight``, ``head.bias``.

        The names and shapes of a PyTorch module with ``self.gru`` and ``self.head``.
        """
        return _joined(self.gru.state_dict(), self.head.state_dict())

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy all parameters of the mapping `state` into the model."""
        self.gru.load_state_dict(_part(state, "gru."))
        self.head.load_state_dict(_part(state, "head."))

    def predict_proba(self, x: Array, batch_size: int = 256) -> Array:
        """Return the probability of every class, (N, C), for the sequences `x` (N, T, I)."""
        parts = [softmax(self(x[i : i + batch_size])) for i in range(0, len(x), batch_size)]
        return np.concatenate(parts) if parts else np.empty((0, self.num_classes), self.dtype)

    def predict(self, x: Array, batch_size: int = 256) -> NDArray[np.int64]:
        """Return the likeliest class, (N,) int64, of each of the sequences `x` (N, T, I)."""
        return self.predict_proba(x, batch_size).argmax(axis=1)

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write the model to `path`, all of it or nothing: .npz by that suffix, else safetensors.

        Parameters
        ----------
        path : path-like
            Replaced if it exists.
        metadata : mapping of str to str, optional
            Kept in the file beside the architecture and `metadata` of the model.

        Raises
        ------
        ValueError
            If a parameter is infinite or NaN, or anything else is what `load` refuses, or a name
            of `metadata` is one of the architecture. Nothing is written.
        OSError
            If the file cannot be written. What was there is left as it was.
        MissingExtraError
            If safetensors is needed and not installed.
        """
        where, tensors = os.fsdecode(path), self.state_dict()
        for name, tensor in tensors.items():
            if not np.isfinite(tensor).all():
                raise ValueError(f"{where}: not saved, {name} holds values that are not finite")
        texts = files.of_user(self.metadata | dict(metadata or {}), _OWN, path)
        own = (files.CLASSIFIER, *(str(getattr(self, name)) for name in _SIZES), self.dtype.name,
               str(bool(self.reset_after)), self.gru.quantization, self.gru.x_bits)
        texts |= {name: str(text) for name, text in zip(_OWN, own, strict=True) if text is not None}
        container = npz if where.lower().endswith(".npz") else safetensors
        files.save(path, container, tensors, texts, _checked, self.gru.quantization)

    @classmethod
    def load(cls, path: Path, max_bytes: int = MAX_BYTES) -> Self:
        """Read a model that `save` wrote; it comes back in evaluation mode.

        Parameters
        ----------
        path : path-like
            Which of the formats it has is told by what is in it.
        max_bytes : int
            Most bytes of all tensors together.

        Raises
        ------
        ModelFileError
            If the file is not such a model: not safetensors or .npz, tensors that are missing,
            surplus or of the wrong shape or dtype, metadata that is missing or wrong.
        OSError
            If the file cannot be read.
        MissingExtraError
            If safetensors is needed and not installed.
        """
        tensors, metadata = files.read_container(path, byte_limit(max_bytes))
        arguments, tensors, quantization = _checked(tensors, metadata, os.fsdecode(path))
        model = cls(**arguments, rng=0)
        model.load_state_dict(tensors)
        model = model.quantize(*quantization) if quantization else model
        model.metadata = {name: text for name, text in metadata.items() if name not in _OWN}
        return model.eval()


def _joined(gru: Mapping[str, Array], head: Mapping[str, Array]) -> dict[str, Array]:
    return {f"gru.{k}": a for k, a in gru.items()} | {f"head.{k}": a for k, a in head.items()}


def _part(state: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {k.removeprefix(prefix): a for k, a in state.items() if k.startswith(prefix)}


def _checked(tensors: dict[str, Array], metadata: dict[str, str],
             where: str) -> tuple[dict[str, Any], dict[str, Array], tuple[Any, ...]]:
    """The arguments of the model that a file holds, its parameters and what `quantize` was given,
    if all of it holds together."""
    if metadata.get("format") != files.CLASSIFIER:
        raise ModelFileError(
            f"{where}: the metadata does not say that this is a {files.CLASSIFIER}")
    sizes = {name: _size(metadata, name, where) for name in _SIZES}
    dtype = _one_of(metadata, "dtype", ("float32", "float64"), where)
    reset_after = _one_of(metadata, "reset_after", ("True", "False"), where) == "True"
    tensors, quantization = quantized.of_texts(tensors, metadata, where)
    # Before anything of these sizes is allocated: a wrong number must not ask for terabytes.
    _check_tensors(tensors, _expected_shapes(**sizes), dtype, where)
    arguments = {**sizes, "dtype": np.dtype(dtype), "reset_after": reset_after}
    return arguments, tensors, quantization


def _size(metadata: Mapping[str, str], name: str, path: str) -> int:
    text = metadata.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 11 and 0 < int(text) < 2**31):
        raise ModelFileError(f"{path}: metadata {name} should be a positive number, "
                             f"got {text[:80]!r}")
    return int(text)


def _one_of(metadata: Mapping[str, str], name: str, choices: tuple[str, ...], path: str) -> str:
    text = metadata.get(name, "")
    if text not in choices:
        wanted = " or ".join(choices)
        raise ModelFileError(f"{path}: metadata {name} should be {wanted}, got {text!r}")
    return text


def _expected_shapes(input_size: int, hidden_size: int, num_classes: int,
                     num_layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and the shape of every tensor of a model of this architecture."""
    for layer in range(num_layers):
        width = input_size if layer == 0 else hidden_size
        for name, shape in shapes(width, hidden_size, True).items():
            yield f"gru.{name}_l{layer}", shape
    yield "head.weight", (num_classes, hidden_size)
    yield "head.bias", (num_classes,)


def _check_tensors(tensors: Mapping[str, Array], expected: Iterable[tuple[str, tuple[int, ...]]],
                   dtype: str, path: str) -> None:
    names = set()
    for name, shape in expected:
        names.add(name)
        if name not in tensors:
            raise ModelFileError(f"{path}: tensor {name} is missing")
        tensor = tensors[name]
        if tensor.shape != shape:
            raise ModelFileError(
                f"{path}: tensor {name} has shape {tensor.shape}, the metadata ask for {shape}"
            )
        if tensor.dtype != dtype:
            raise ModelFileError(
                f"{path}: tensor {name} is {tensor.dtype}, the metadata say {dtype}"
            )
        if not np.isfinite(tensor).all():
            raise ModelFileError(f"{path}: tensor {name} holds values that are not finite")
    surplus = sorted(set(tensors) - names)
    if surplus:
        raise ModelFileError(f"{path}: unexpected tensor {surplus[0]}")
