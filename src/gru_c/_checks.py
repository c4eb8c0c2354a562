"""What an argument must be. All errors of the package come from here or from its callers.

Messages use PyTorch's words where PyTorch has words for the case, and add what arrived.
"""

import numbers
import operator

import numpy as np

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def size(value, name: str) -> int:
    """A positive integer."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} should be of type int, got: {type(value).__name__}") from None
    if value < 1:
        raise ValueError(f"{name} must be greater than zero, got {value}")
    return value


def flag(value, name: str) -> bool:
    """A bool, so that a dtype or a number in the wrong place is noticed."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} should be of type bool, got: {type(value).__name__}")
    return bool(value)


def model_dtype(value) -> np.dtype:
    """float32 or float64, native byte order."""
    if value is None:                                      # NumPy reads it as float64
        raise TypeError("dtype must be float32 or float64, got None")
    dtype = np.dtype(value)
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be float32 or float64, got {dtype}")
    return dtype


def generator(rng) -> np.random.Generator:
    """np.random.default_rng, with the argument's name in the error."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(f"rng must be None, an integer or a Generator: {error}") from None


def array(value, name: str, dtype: np.dtype) -> np.ndarray:
    """`value` as an array of the model's dtype, without a cast that could lose anything silently.

    Integers, bools and Python numbers and lists convert; an array of another floating dtype does
    not. The result is `value` itself where nothing had to change.
    """
    if type(value) is np.ndarray and (value.dtype is dtype or value.dtype == dtype):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill it first, the mask would be lost")
    try:
        result = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is no array: {error}") from None
    native = result.dtype.newbyteorder("=")
    plain = native.kind == "f" and _is_numbers(value)
    if not (native == dtype or plain or native.kind in "biu"):
        advice = f", or make the model with dtype={native}" if native in DTYPES else ""
        raise TypeError(f"{name} dtype ({result.dtype}) does not match weight dtype ({dtype}). "
                        f"Convert {name}{advice}")
    return result.astype(dtype, copy=False)


def _is_numbers(value) -> bool:
    """Python numbers, or lists of them: no array that has a dtype of its own."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_numbers, value))
    return isinstance(value, numbers.Real)


def rows(a: np.ndarray | None) -> np.ndarray | None:
    """`a`, copied unless aligned and with adjoining elements in its last axis; None stays None."""
    if a is None:
        return None
    adjoin = a.shape[-1] == 1 or a.strides[-1] == a.itemsize
    if adjoin and a.flags.aligned and all(stride % a.itemsize == 0 for stride in a.strides):
        return a
    return np.array(a, order="C")


def contiguous(a: np.ndarray) -> np.ndarray:
    """`a`, copied unless it is aligned and in C order."""
    return a if a.flags.c_contiguous and a.flags.aligned else np.array(a, order="C")


def shape(a: np.ndarray, expected: tuple, name: str) -> None:
    """Refuse any other shape: nothing is broadcast."""
    if a.shape != expected:
        raise ValueError(f"{name} has shape {a.shape}, expected {expected}")


def output(out, expected: tuple, dtype: np.dtype) -> None:
    """`out=` must be an array that can take the result as it is."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy array, got {type(out).__name__}")
    if isinstance(out, np.ma.MaskedArray):
        raise TypeError("out is a masked array; its masked elements would be written, too")
    if out.dtype != dtype:
        raise TypeError(f"out dtype ({out.dtype}) does not match weight dtype ({dtype})")
    shape(out, expected, "out")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
