"""Checks of arguments. All errors of the package are raised here or by callers of this file.

Messages use PyTorch's words where it has some for the case, and add what arrived.
"""

import math
import numbers
import operator
from collections.abc import Mapping
from typing import Never

import numpy as np

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
MOST_BYTES = 2**47                                         # the address space of a process


def size(value, name: str) -> int:
    """A positive integer."""
    value = _integer(value, name)
    if value < 1:
        raise ValueError(f"{name} must be greater than zero, got {_short(value)}")
    return value


def _integer(value, name: str) -> int:
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} should be of type int, got: {type(value).__name__}") from None


# The most columns of a weight whose sums with int8 are exact in 32 bits, by the bits of x.
MOST_COLUMNS = {8: (2**31 - 1) // (127 * 127), 12: (2**31 - 1) // (127 * 2047)}


# The bits that x may have, by the kind of the weights; the first is what None stands for.
X_BITS: dict[str, tuple[int | None, ...]] = {"int8": (8, 12), "bfloat16": (None, 16)}


def quantization(weights, x_bits, model) -> tuple[str, int | None]:
    """What a layer is told of the arguments of `quantize`; whether the model can be quantized."""
    if not isinstance(weights, str) or weights not in X_BITS:
        raise ValueError(f"weights must be 'int8' or 'bfloat16', got {weights!r}")
    x_bits = X_BITS[weights][0] if x_bits is None else _integer(x_bits, "x_bits")
    if x_bits not in X_BITS[weights]:
        raise ValueError(f"x_bits must be 8 or 12 with int8, 16 or None with bfloat16; got "
                         f"{_short(x_bits)} with {weights}")
    if model.quantization:
        raise ValueError(f"the model has {model.quantization} weights already: quantize the float "
                         "model")
    if model.dtype != np.float32:
        raise ValueError(f"only a float32 model can be quantized, this one is {model.dtype}: "
                         "make one with dtype=float32 and load its weights")
    if weights == "int8":
        for name, parameter in model._parameters().items():
            if parameter.ndim == 2:
                columns(name, parameter.shape[1], x_bits)
    return weights, x_bits


def columns(name: str, count: int, x_bits: int) -> None:
    """Refuse a weight whose sums with int8 may not be exact."""
    x_bits = x_bits if "weight_ih" in name else 8          # h has 8
    if count > MOST_COLUMNS[x_bits]:
        raise ValueError(f"{name} has {count} columns: with x_bits={x_bits} sums of int8 are exact "
                         f"up to {MOST_COLUMNS[x_bits]}")


def byte_limit(value) -> int:
    """`max_bytes` of a reader: an integer, 0 or more."""
    value = _integer(value, "max_bytes")
    if value < 0:
        raise ValueError(f"max_bytes must not be negative, got {_short(value)}")
    return value


def model_size(inputs: int, hidden: int, layers: int, directions: int, dtype: np.dtype) -> None:
    """Refuse a model whose parameters no machine can hold, before anything is allocated."""
    weights = 3 * hidden * directions * (
        inputs + hidden + (layers - 1) * (directions * hidden + hidden))
    if weights * dtype.itemsize > MOST_BYTES:
        raise ValueError(
            f"the model is too large: input_size={_short(inputs)}, hidden_size={_short(hidden)} "
            f"and num_layers={_short(layers)} make {_short(weights)} weights")


def _short(number: int) -> str:
    """A number as text, however many digits it has."""
    if abs(number) < 10**15:
        return str(number)
    return f"{'-' if number < 0 else ''}10**{math.log10(abs(number)):.0f} or so"


def _real(value, name: str) -> numbers.Real:
    """A number of Python or NumPy, or an array of one; no bool."""
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iuf":
        value = value[()]
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} should be a number, got: {type(value).__name__}")
    return value


def probability(value, name: str) -> float:
    """A number in [0, 1], in PyTorch's words."""
    value = _real(value, name)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} should be a number in range [0, 1] representing the probability "
                         f"of an element being zeroed, got {value}")
    return float(value)


def finite(value, name: str) -> float:
    """A finite number, of Python or NumPy."""
    value = _real(value, name)
    try:
        number = float(value)
    except OverflowError:                                  # of an integer
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    return number


def flag(value, name: str) -> bool:
    """A bool, so that a dtype or a number in the wrong place is noticed."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} should be of type bool, got: {type(value).__name__}")
    return bool(value)


def model_dtype(value) -> np.dtype:
    """float32 or float64, native byte order."""
    if value is None:                                      # NumPy reads it as float64
        raise TypeError("dtype must be float32 or float64, got None")
    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError):                        # NumPy's words may not name the value
        raise TypeError(f"dtype must be float32 or float64, got {value!r}") from None
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
    result = any_array(value, name)
    if not converts(value, result, dtype):
        found = native(result.dtype)
        advice = f", or make the model with dtype={found}" if found in DTYPES else ""
        raise TypeError(f"{name} dtype ({result.dtype}) does not match weight dtype ({dtype}). "
                        f"Convert {name}{advice}")
    return result.astype(dtype, copy=False)


def any_array(value, name: str) -> np.ndarray:
    """`value` as an array of whatever dtype."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill it first, the mask would be lost")
    try:
        return np.asarray(value)
    except ValueError as error:
        advice = (". Pad sequences of different lengths with gru_c.pad_sequences, and give lengths"
                  if name == "input" else "")
        raise ValueError(f"{name} is not an array: {str(error).rstrip('.')}{advice}") from None


def converts(value, a: np.ndarray, dtype: np.dtype) -> bool:
    """Whether `value`, which is `a` as an array, may become one of a floating dtype."""
    return (native(a.dtype) == dtype or a.dtype.kind in "biu"
            or (a.dtype.kind == "f" and _is_numbers(value)))


def native(dtype: np.dtype) -> np.dtype:
    """A dtype of numbers in the machine's byte order; others may have none."""
    return dtype.newbyteorder("=") if dtype.kind in "biufc" else dtype


def _is_numbers(value) -> bool:
    """Whether `value` is Python numbers or lists of them, without arrays that have a dtype."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_numbers, value))
    return isinstance(value, numbers.Real)


def shape(a: np.ndarray, expected: tuple, name: str, x: tuple | None = None) -> None:
    """Refuse any other shape: nothing is broadcast.

    `x` is for the error: the shape of a sequence, and batch_first.
    """
    if a.shape != expected:
        raise ValueError(f"{name} has shape {a.shape}, expected {expected}{_for_input(x)}")


def _for_input(x: tuple | None) -> str:
    if x is None:
        return ""
    shape, batch_first = x
    layout = f", batch_first={batch_first}" if len(shape) == 3 else ""
    return f" (for input of shape {shape}{layout})"


# ---- options of a sequence ----------------------------------------------------------------------

def lengths(value, rows: int, x: tuple | None = None) -> np.ndarray:
    """Integers (rows,), as a contiguous copy: the caller's may change while it is read."""
    a = any_array(value, "lengths")
    if a.size and a.dtype.kind not in "iu":
        raise TypeError(f"lengths must be integers, got {a.dtype}")
    shape(a, (rows,), "lengths", x)
    return np.array(a, np.intp, order="C")


def lengths_within(a: np.ndarray, steps: int) -> None:
    """Refuse lengths that are not from 0 to `steps`."""
    wrong = np.flatnonzero((a < 0) | (a > steps))
    if wrong.size:
        raise ValueError(f"lengths[{wrong[0]}] is {a[wrong[0]]}, expected 0 to {steps}")


def marks(value, name: str, expected: tuple, x: tuple) -> np.ndarray:
    """A bool for each step and row."""
    a = any_array(value, name)
    if a.size and a.dtype.kind != "b":
        advice = ": convert it by .astype(bool)" if a.dtype.kind in "iuf" else ""
        raise TypeError(f"{name} must be of dtype bool, got {a.dtype}{advice}")
    shape(a, expected, name, x)
    return a.astype(bool, copy=False)


def dropout_masks(given, training: bool) -> dict:
    """A mapping of multipliers, as a new dict."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"dropout_masks must be a mapping, got {type(given).__name__}")
    if not training:
        raise ValueError("dropout_masks needs training mode: eval() turns dropout off")
    return dict(given)


# ---- the errors of a call: the core finds them, the words are here -------------------------------

CALLERS = ("GRU", "GRU", "GRU.step", "GRUCell")            # by the form of a call, see binding.pyx
UNBATCHED_NDIM = (2, 2, 1, 1)                              # axes of an unbatched input
CELL = 3


def refuse_input_ndim(form: int, x: np.ndarray) -> Never:
    """Neither an unbatched input nor a batched one."""
    ndim = UNBATCHED_NDIM[form]
    raise ValueError(f"{CALLERS[form]}: Expected input to be {ndim}D or {ndim + 1}D, "
                     f"got {x.ndim}D instead (input of shape {x.shape})")


def refuse_input_size(x: np.ndarray, input_size: int) -> Never:
    """The last axis."""
    raise ValueError(f"input has inconsistent input_size: got {x.shape[-1]} "
                     f"expected {input_size} (input of shape {x.shape})")


def refuse_stream_input(x: np.ndarray, expected: tuple) -> Never:
    """Of a stream, whose batch size is fixed; "T" stands for any number."""
    if x.ndim == len(expected) and x.shape[-1] != expected[-1]:
        refuse_input_size(x, expected[-1])
    words = ", ".join(map(str, expected)) + ("," if len(expected) == 1 else "")
    raise ValueError(f"input has shape {x.shape}, expected ({words})")


def refuse_rows(rows: int) -> Never:
    """Of a stream that no machine can hold."""
    raise MemoryError(f"a stream of {_short(rows)} rows is too large")


def refuse_no_steps(x: np.ndarray) -> Never:
    """T = 0."""
    raise ValueError("Expected sequence length to be larger than 0 in RNN "
                     f"(input of shape {x.shape})")


def refuse_shape(form: int, h: np.ndarray, name: str, expected: tuple,
                 x: np.ndarray | None) -> Never:
    """Hidden states, or in a backward (x is None) a gradient."""
    if form == CELL and x is not None:
        _refuse_cell_state(h, name, expected, x)
    if form == CELL or name == "d_output":
        shape(h, expected, name)
    if h.ndim != len(expected):
        kind = "batched" if len(expected) == 3 else "unbatched"
        raise ValueError(f"For {kind} input, {name} should be {len(expected)}-D but got "
                         f"{h.ndim}-D ({name} of shape {h.shape})")
    raise ValueError(f"Expected {name} size {expected}, got {h.shape}")


def _refuse_cell_state(h: np.ndarray, name: str, expected: tuple, x: np.ndarray) -> Never:
    shapes = f"(input of shape {x.shape}, {name} of shape {h.shape})"
    if h.ndim not in (1, 2):
        raise ValueError(f"GRUCell: Expected {name} to be 1D or 2D, got {h.ndim}D instead "
                         f"({name} of shape {h.shape})")
    if h.shape[-1] != expected[-1]:
        raise ValueError(f"{name} has inconsistent hidden_size: got {h.shape[-1]}, "
                         f"expected {expected[-1]} ({name} of shape {h.shape})")
    if h.ndim != x.ndim:
        raise ValueError(f"For {x.ndim}D input, {name} should also be {x.ndim}D but got "
                         f"{h.ndim}D {shapes}")
    raise ValueError(f"Input batch size {x.shape[0]} doesn't match {name} batch size "
                     f"{h.shape[0]} {shapes}")


def refuse_other_output(out, name: str) -> None:
    """Refuse an array for results that is not an array, or is a masked one."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{name} must be a numpy array, got {type(out).__name__}")
    if isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; masked elements would be overwritten, too")


def refuse_output(out: np.ndarray, name: str, expected: tuple, dtype: np.dtype) -> Never:
    """An array that can't take the result as it is."""
    if out.dtype != dtype:
        raise TypeError(f"{name} dtype ({out.dtype}) does not match weight dtype ({dtype})")
    shape(out, expected, name)
    raise ValueError(f"{name} is read-only")


def output(out, name: str, expected: tuple, dtype: np.dtype) -> None:
    """Refuse what cannot take a result."""
    if type(out) is not np.ndarray:
        refuse_other_output(out, name)
    if out.dtype != dtype or out.shape != expected or not out.flags.writeable:
        refuse_output(out, name, expected, dtype)


def rows(value, count: int, name: str) -> np.ndarray:
    """Indices of rows, from 0 to count - 1, or a mask of all rows."""
    a = np.atleast_1d(any_array(value, name))
    if a.dtype == bool:
        shape(a, (count,), name)
        return np.flatnonzero(a)
    if a.ndim != 1 or (a.dtype.kind not in "iu" and a.size):
        raise TypeError(f"{name} should be indices of rows or a mask, got an array of "
                        f"{a.dtype} of shape {a.shape}")
    if np.flatnonzero((a < 0) | (a >= count)).size:        # a reduction may lose a MemoryError
        raise IndexError(f"{name} should be from 0 to {count - 1}, got {a.tolist()}")
    return a.astype(np.intp, order="C")


def refuse_overlap(out: np.ndarray, h_n_out: np.ndarray) -> None:
    """Refuse arrays for results that share elements; they may lie between each other's."""
    if np.may_share_memory(out, h_n_out, max_work=10**4):
        raise ValueError("out and h_n_out share memory")


def refuse_nothing_saved(training: bool, unfinished: str | None,
                         quantization: str | None) -> Never:
    """A backward without a forward."""
    if quantization:
        raise RuntimeError(f"a model with {quantization} weights has no backward: train the float "
                           "model, and quantize it again")
    if not training:
        raise RuntimeError("backward needs training mode: call train(), then forward; eval() "
                           "drops what the last forward saved")
    if unfinished:
        raise RuntimeError(f"nothing is saved: the last {unfinished} did not finish "
                           "(interrupted, or no memory); call forward again")
    raise RuntimeError("backward needs a forward in training mode first; each forward allows one "
                       "backward, and eval() drops what it saved")


def refuse_replaced_forward() -> Never:
    """Another thread, or a conversion of an argument, ran the model."""
    raise RuntimeError("another call of this model ran in between and replaced this forward")
