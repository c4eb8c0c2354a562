"""Arrays of any library and dtype, as NumPy has them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _checks

if TYPE_CHECKING:
    from gru_c._types import Array

FLOATS = (np.float16, np.float32, np.float64)


def as_array(value: Any, name: str) -> Array:
    """An array of anything like one, on any device: a list, a tensor, what has DLPack.

    It has the byte order of this machine; bfloat16 becomes float32.
    """
    try:
        found = _array(value)
    except (TypeError, ValueError, RuntimeError, BufferError, NotImplementedError) as error:
        raise ValueError(f"{name} cannot become an array of NumPy: {error}") from None
    a: Array = _checks.any_array(found, name)
    if a.dtype.name == "bfloat16":                         # a dtype that ml_dtypes adds
        return a.astype(np.float32)
    return a.astype(_checks.native(a.dtype), copy=False)


def floats(value: Any, name: str) -> Array:
    """As `as_array`, and the dtype is that of parameters."""
    a = as_array(value, name)
    if a.dtype not in FLOATS:
        raise ValueError(f"{name} has dtype {a.dtype}, expected a floating dtype")
    return a


def widened(halves: Array) -> Array:
    """float32 of bfloat16, which is given as integers of 16 bits: the upper half of a float32."""
    wide = np.empty(halves.shape, np.uint32)
    np.left_shift(halves, 16, out=wide, dtype=np.uint32)
    return wide.view(np.float32)


def _array(value: Any) -> Any:
    torch = sys.modules.get("torch")                       # a tensor's program has imported it
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu().resolve_conj().resolve_neg()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    value = value.detach() if hasattr(value, "detach") else value
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    a = np.asanyarray(value)
    if a.dtype == object and hasattr(value, "value"):      # VariableState of older versions of Flax
        return np.asanyarray(value.value)
    return a
