"""The weights of a quantized model, as files of our own store them.

int8: integers (rows, columns), and under the name with ``_scale`` the scales (rows,) of float32.
An integer times its scale is the weight, exactly, and `quantize` makes the same two of it again.
bfloat16: the upper halves of float32, as uint16. Biases stay as they are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _checks
from gru_c.interop.arrays import widened
from gru_c.interop.errors import ModelFileError
from gru_c.reference_quantized import quantize_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gru_c._types import Array

OPTIONS = ("quantization", "x_bits")                        # in the metadata, and their values
QUANTIZATIONS = [(weights, bits) for weights, some in _checks.X_BITS.items() for bits in some]
WEIGHT = re.compile(r"(.+\.)?weight_[ih]h(_l\d+(_reverse)?)?")


def stored(arrays: Mapping[str, Array], weights: str) -> dict[str, Array]:
    """What a file holds, of the parameters of a model quantized to `weights`."""
    found: dict[str, Array] = {}
    for name, a in arrays.items():
        if not WEIGHT.fullmatch(name):
            found[name] = a
        elif weights == "bfloat16":
            found[name] = (a.view(np.uint32) >> 16).astype(np.uint16)
        else:
            if not np.isfinite(a).all():
                raise ValueError(f"not saved: {name} has a NaN or an infinity, which int8 cannot "
                                 "hold")
            integers, scale = quantize_weights(a)
            found |= {name: integers.astype(np.int8), f"{name}_scale": scale[:, 0]}
    return found


def options(dtype: str, quantization: Any = None, x_bits: Any = None) -> dict[str, Any]:
    """Those of a file that are about it, checked; ValueError."""
    if (quantization, x_bits) not in QUANTIZATIONS:
        raise ValueError(f"quantization={quantization!r} with x_bits={x_bits!r}, expected 'int8' "
                         "with 8 or 12, or 'bfloat16' with 16 or None")
    if dtype != "float32":
        raise ValueError(f"quantization={quantization!r} with dtype {dtype}, expected float32")
    return {"quantization": quantization, "x_bits": None if x_bits is None else int(x_bits)}


def given(weights: str, x_bits: int | None) -> tuple[Any, ...]:
    """What `quantize` was given."""
    return (weights,) if x_bits is None else (weights, x_bits)


def of_texts(arrays: dict[str, Array], metadata: Mapping[str, str],
             where: str) -> tuple[dict[str, Array], tuple[Any, ...]]:
    """The parameters of a classifier in float, and what `quantize` was given: () of floats."""
    own: dict[str, Any] = {name: metadata[name] for name in OPTIONS if name in metadata}
    if not own:
        return arrays, ()
    if own.get("x_bits") in [str(bits) for _, bits in QUANTIZATIONS if bits]:
        own["x_bits"] = int(own["x_bits"])
    try:
        weights, x_bits = options(metadata.get("dtype", ""), **own).values()
    except ValueError as error:
        raise ModelFileError(f"{where}: metadata {error}") from None
    return effective(arrays, weights, x_bits, where), given(weights, x_bits)


def names(parameters: Iterable[str], arrays: Iterable[str]) -> tuple[str, ...]:
    """Of the arrays that hold these parameters."""
    own = set(parameters)
    return tuple(name for name in arrays if name.removesuffix("_scale") in own)


def effective(arrays: Mapping[str, Array], weights: str, x_bits: int | None,
              where: str) -> dict[str, Array]:
    """The parameters of a model, in float32, of what a file holds; ModelFileError."""
    found = dict(arrays)
    for name in filter(WEIGHT.fullmatch, arrays):
        try:
            if weights == "bfloat16":
                found[name] = _of_bfloat16(found[name])
            else:
                found[name] = _of_int8(found[name], found.pop(f"{name}_scale", None))
                _checks.columns(name, found[name].shape[1], x_bits)
        except ValueError as error:
            raise ModelFileError(f"{where}: {name}{str(error).removeprefix(name)}") from None
    return found


def _of_bfloat16(a: Array) -> Array:
    """The container safetensors has widened it."""
    if a.dtype == np.uint16:
        return widened(a)
    if a.dtype != np.float32 or (a.view(np.uint32) & 0xFFFF).any():
        raise ValueError(f" is {a.dtype}, the metadata say bfloat16")
    return a


def _of_int8(a: Array, scale: Any) -> Array:
    if a.dtype != np.int8:
        raise ValueError(f" is {a.dtype}, the metadata say int8")
    if a.ndim != 2 or not a.size:
        raise ValueError(f" has shape {a.shape}, expected (3 * hidden_size, ...)")
    if scale is None:
        raise ValueError("_scale is missing")
    if scale.dtype != np.float32 or scale.shape != a.shape[:1]:
        raise ValueError(f"_scale has shape {scale.shape} and dtype {scale.dtype}, expected "
                         f"{a.shape[:1]} and float32")
    if not (np.isfinite(scale) & (scale >= 0)).all():
        raise ValueError("_scale holds what is negative or not finite")
    if a.min() == -128:
        raise ValueError(" holds -128, expected -127 to 127")
    with np.errstate(over="ignore"):
        product: Array = a * scale[:, None]
    again, same = quantize_weights(product)
    right = (again == a).all(axis=1) & (same[:, 0] == scale)
    if not right.all():
        row = int(np.argmin(right))
        raise ValueError(f" has integers up to {np.abs(a[row]).max()} in row {row} and the scale "
                         f"{scale[row]!s}, which are not what quantize makes")
    return product
