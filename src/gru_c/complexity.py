"""What a GRU costs: operations, parameters and bytes, per gate and in total.

Closed forms only, so nothing here runs a model or needs NumPy. Letters: N batch_size, T seq_len,
I input_size, H hidden_size, L num_layers, D directions.
"""

from __future__ import annotations

import numbers
import operator
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gru_c._types import ActivationLike, DType, Integer

__all__ = ["Bytes", "Complexity", "Operations", "Parameters", "complexity"]

_ITEMSIZE = {"float32": 4, "float64": 8}
_LABELS = {name: f"{name} gate" for name in ("reset", "update", "new")}

# Operations of each activation, by the formulas in the docstring of `complexity`.
_ACTIVATIONS = {
    "sigmoid": 3, "tanh": 5, "relu": 1, "hard_sigmoid": 4, "affine": 2, "leaky_relu": 2,
    "thresholded_relu": 1, "scaled_tanh": 7, "elu": 4, "softsign": 2, "softplus": 3, "linear": 0,
}


@dataclass(frozen=True)
class _Parts:
    """Integers that add up: the fields of a subclass, and `total`, their sum."""

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def as_dict(self) -> dict[str, int]:
        """The fields and ``total`` as a dict of int."""
        return {**asdict(self), "total": self.total}

    def _rows(self) -> dict[str, int]:
        """Those that a table shows: what is zero is left out."""
        return {name: n for name, n in self.as_dict().items() if n or name == "total"}


@dataclass(frozen=True)
class Operations(_Parts):
    """Scalar operations of each part of the step, over all rows, steps, layers and directions."""

    reset: int
    update: int
    new: int
    blend: int
    dropout: int


@dataclass(frozen=True)
class Parameters(_Parts):
    """Weights and biases of each gate, over all layers and directions."""

    reset: int
    update: int
    new: int


@dataclass(frozen=True)
class Bytes(_Parts):
    """Bytes of the arrays that training a sequence holds; inference has no saved and masks."""

    parameters: int
    input: int
    output: int
    state: int
    saved: int
    masks: int


@dataclass(frozen=True)
class Complexity:
    """The answer of `complexity`: what was asked, and the counts. ``print`` shows a table.

    `operations` are those of the equations as written, `executed` those of the implementation.
    """

    input_size: int
    hidden_size: int
    batch_size: int
    seq_len: int
    num_layers: int
    bias: bool
    reset_after: bool
    dtype: str
    activation: str
    recurrent_activation: str
    bidirectional: bool
    lengths: tuple[int, ...] | None
    dropout: float
    input_dropout: float
    recurrent_dropout: float
    clip: float | None
    checkpoint: int | None
    operations: Operations
    executed: Operations
    parameters: Parameters
    bytes: Bytes

    def as_dict(self) -> dict[str, Any]:
        """Nested dict of plain Python values, totals included; ready for JSON."""
        plain = {name: value.as_dict() if isinstance(value, _Parts) else value
                 for name, value in vars(self).items()}
        return plain | {"lengths": None if self.lengths is None else list(self.lengths)}

    def __str__(self) -> str:
        steps, pairs = self.seq_len, (self.operations.as_dict(), self.executed.as_dict())
        first = "a step"
        if self.lengths is not None:                       # steps differ, only their sum is shown
            steps, first = 1, "all steps"
        rows = [["operations", first, "as executed", f"{steps:,} steps", "as executed"]]
        for name in self.operations._rows():               # multiples of the steps, all of them
            counts = [parts[name] // n for n in (steps, 1) for parts in pairs]
            rows.append([_LABELS.get(name, name), *(f"{count:,}" for count in counts)])
        if steps == 1:
            rows = [row[:3] for row in rows]
        for title, parts in (("parameters", self.parameters), ("bytes", self.bytes)):
            rows += [[""], [title]]
            rows += [[_LABELS.get(name, name), f"{n:,}"] for name, n in parts._rows().items()]
        label, width = (max(len(cell) for row in rows for cell in row[part])
                        for part in (slice(1), slice(1, None)))
        lines = textwrap.wrap(f"GRU: {self._asked()}", 80, subsequent_indent="     ")
        lines += ["     as executed: one merged bias, three-operation blend", ""]
        lines += [row[0].ljust(label) + "".join(f"  {cell:>{width}}" for cell in row[1:])
                  for row in rows]
        return "\n".join(line.rstrip() for line in lines)

    def _asked(self) -> str:
        """The first ten settings, and the others that are not off."""
        settings = [item for item in vars(self).items() if not isinstance(item[1], _Parts)]
        shown = dict(settings[:10]) | {name: value for name, value in settings[10:] if value}
        if "lengths" in shown:
            shown["sum(lengths)"] = sum(shown.pop("lengths"))
        return ", ".join(f"{name}={value}" for name, value in shown.items())


def complexity(input_size: Integer, hidden_size: Integer, batch_size: Integer = 1,
               seq_len: Integer = 1, *, bias: bool = True, reset_after: bool = True,
               num_layers: Integer = 1, dtype: DType = "float32", bidirectional: bool = False,
               lengths: Iterable[Integer] | None = None, dropout: float = 0.0,
               input_dropout: float = 0.0, recurrent_dropout: float = 0.0,
               activation: ActivationLike = "tanh",
               recurrent_activation: ActivationLike = "sigmoid", clip: float | None = None,
               checkpoint: Integer | None = None) -> Complexity:
    """Count the operations, parameters and bytes of a GRU's forward pass.

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L, at least 1. Every layer but the first reads the D H outputs of the one below.
    batch_size, seq_len : int
        N rows, at least 0, and T steps, at least 1; one step is one call of a cell.
    bias, reset_after : bool
        Whether each of the two products of a gate has a bias; whether the reset gate multiplies the
        product ``W_hn h + b_hn``, or, if False, the state ``h`` before it.
    dtype : {"float32", "float64"}, or anything of such a name, as ``numpy.float32``
    bidirectional : bool
        Whether each layer has D = 2 directions; else D is 1.
    lengths : integers (N,), optional
        Steps of each row, 0 to T: only these are run. Arrays are padded to T all the same.
    dropout, input_dropout, recurrent_dropout : float
        Probabilities, 0 to 1. One above 0 costs the multiplications by its masks, and the masks.
    activation, recurrent_activation : str, dict with "name", or the attribute of a model
        Of the new gate; of reset and update. Their alpha and beta change no count.
    clip : float, optional
        Bound of what goes into an activation: two operations more in each.
    checkpoint : int, optional
        Save each k-th state, and recompute the others in the backward, k steps at a time. That
        `GRU` rounds k up to a multiple of ``256 // N``, and with two directions keeps the outputs
        of inner layers, is not counted.

    Notes
    -----
    One multiplication, addition, subtraction, division, exponential, logarithm or comparison is one
    operation; negation and absolute value are none, nor is a choice after its comparison (a minimum
    or maximum is one operation). Operations are those of one forward in training mode: what a
    backward recomputes and the drawing of masks are not counted. Of activations:

    ================  ========================================  ==========
    activation        formula                                   operations
    ================  ========================================  ==========
    linear            ``x``                                     0
    relu              ``max(x, 0)``                             1
    thresholded_relu  ``x if x > alpha else 0``                 1
    affine            ``alpha x + beta``                        2
    leaky_relu        ``x if x > 0 else alpha x``               2
    softsign          ``x / (1 + abs(x))``                      2
    sigmoid           ``1 / (1 + exp(-x))``                     3
    softplus          ``log(1 + exp(x))``                       3
    hard_sigmoid      ``min(max(alpha x + beta, 0), 1)``        4
    elu               ``x if x > 0 else alpha (exp(x) - 1)``    4
    tanh              ``(1 - t) / (1 + t)``, ``t = exp(-2 x)``  5
    scaled_tanh       ``alpha tanh(beta x)``                    7
    ================  ========================================  ==========

    With s operations of `recurrent_activation` and t of `activation`, those of `clip` included, a
    step of one layer and direction costs, **as the equations are written** (with bias; without, a
    gate costs ``2 N H`` less) and **as executed** (with or without bias):

    ==============================  ===========================  ===========================
    part                            written                      executed
    ==============================  ===========================  ===========================
    reset, and again update         ``N H (s + 1 + 2 I + 2 H)``  ``N H (s + 2 I + 2 H)``
    new, with `reset_after`         ``N H (t + 2 + 2 I + 2 H)``  ``N H (t + 2 + 2 I + 2 H)``
    new, without                    ``N H (t + 2 + 2 I + 2 H)``  ``N H (t + 1 + 2 I + 2 H)``
    blend                           ``4 N H``                    ``3 N H``
    `input_dropout`                 ``N I``                      ``N I``
    `recurrent_dropout`             ``N H``                      ``N H``
    `dropout`, but for the last     ``N H``                      ``N H``
    ==============================  ===========================  ===========================

    The blend is ``(1 - z) * n + z * h`` as written, ``n + z * (h - n)`` as executed. The executed
    products accumulate onto the bias (``b_ih + b_hh``, merged at packing, is not counted) or zero,
    and no addition joins two products with one accumulator. Padding does not count. A sequence
    costs T times a step, with `lengths` each row its own steps; I is D H in every layer but the
    first. **Parameters** of a gate: ``H (I + H)``, and ``2 H`` with bias. **Bytes**: output
    ``(T, N, D H)`` of every layer; saved, the planes r, z, n, q that training keeps,
    ``(4, T, N, H)`` a layer and direction, with `lengths` of each row's own steps, with
    `checkpoint` ``(4, k, N, H)`` and states ``(ceil(T / k), N, H)``; masks, ``(T, N, D H)`` after
    each layer but the last for `dropout`, ``(N, I)`` and ``(N, H)`` a layer and direction for the
    other two; no packed copies, gradients or workspace.

    Examples
    --------
    >>> from gru_c import complexity
    >>> cost = complexity(80, 256, seq_len=100)
    >>> cost.operations.total, cost.executed.total, cost.parameters.total
    (52096000, 52019200, 259584)
    >>> ragged = complexity(80, 256, 2, 100, lengths=[100, 25])
    >>> ragged.operations.total / cost.operations.total
    1.25
    """
    given: dict[Any, dict[str, Any]] = {
        _size: {"input_size": input_size, "hidden_size": hidden_size, "batch_size": batch_size,
                "seq_len": seq_len, "num_layers": num_layers},
        _flag: {"bias": bias, "reset_after": reset_after, "bidirectional": bidirectional},
        _probability: {"dropout": dropout, "input_dropout": input_dropout,
                       "recurrent_dropout": recurrent_dropout},
        _activation: {"activation": activation, "recurrent_activation": recurrent_activation},
    }
    asked = {name: check(name, value) for check, values in given.items()
             for name, value in values.items()}
    asked |= {
        "dtype": _dtype_name(dtype),
        "lengths": _lengths(lengths, asked["batch_size"], asked["seq_len"]),
        "clip": None if clip is None else _bound("clip", clip),
        "checkpoint": None if checkpoint is None else _size("checkpoint", checkpoint),
    }
    return Complexity(**asked, **_counts(asked))


def _counts(asked: dict[str, Any]) -> dict[str, Any]:
    """The counted fields of `Complexity`, from the others."""
    I, H, N, T, L, *_ = asked.values()                     # noqa: E741
    bias, k = asked["bias"], asked["checkpoint"]

    # One gate, all layers and directions: its inputs, its units, its matrices' entries.
    D = 2 if asked["bidirectional"] else 1
    inputs, units = D * (I + (L - 1) * D * H), D * L * H
    entries = H * (inputs + units)
    lengths = asked["lengths"]
    steps = T * N if lengths is None else sum(lengths)     # of one row each
    elements = steps * units                               # the values that a gate takes in a run
    products = 2 * steps * entries                         # both, each onto a bias or onto zero
    t, s = (_ACTIVATIONS[asked[name]] + (2 if asked["clip"] else 0)
            for name in ("activation", "recurrent_activation"))
    # Columns that dropout multiplies: of the outputs between layers, of inputs, of states.
    outputs = units - D * H if asked["dropout"] else 0
    once = (inputs if asked["input_dropout"] else 0) + (units if asked["recurrent_dropout"] else 0)
    dropped = steps * (outputs + once)

    # As written, a missing bias saves an addition in each product, and an addition joins the two.
    joined = products + elements * ((0 if bias else -2) + 1)
    gate, new = joined + s * elements, joined + (t + 1) * elements
    operations = Operations(gate, gate, new, 4 * elements, dropped)
    gate = products + s * elements
    new = products + (t + (2 if asked["reset_after"] else 1)) * elements
    executed = Operations(gate, gate, new, 3 * elements, dropped)
    each = entries + (2 * units if bias else 0)
    saved = 4 * steps if k is None else N * (4 * min(k, T) + -(-T // k))
    bytes_ = (3 * each, T * N * I, T * N * units, N * units, saved * units,
              N * (T * outputs + once))
    return {"operations": operations, "executed": executed, "parameters": Parameters(*[each] * 3),
            "bytes": Bytes(*(_ITEMSIZE[asked["dtype"]] * n for n in bytes_))}


def _size(name: str, value: Integer) -> int:
    """`value` as an int that is large enough; any integer type will do, but not bool."""
    try:
        if isinstance(value, bool):
            raise TypeError
        size = operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{name} must be an integer, got {value!r} ({kind})") from None
    least = 0 if name.startswith(("batch_size", "lengths")) else 1
    if size < least:
        raise ValueError(f"{name} must be at least {least}, got {size}")
    return size


def _flag(name: str, value: bool) -> bool:
    """A bool, and nothing that converts to one."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def _number(name: str, value: float) -> float:
    """A float from any real number, but not from bool."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)


def _probability(name: str, value: float) -> float:
    """A number from 0 to 1."""
    number = _number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
    return number


def _bound(name: str, value: float) -> float:
    """A number above 0."""
    number = _number(name, value)
    if not number > 0:
        raise ValueError(f"{name} must be greater than 0, got {value!r}")
    return number


def _activation(name: str, value: ActivationLike) -> str:
    """The name of an activation, from that name or from a dict or object that has it."""
    found = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", value)
    if not isinstance(found, str) or found not in _ACTIVATIONS:
        raise ValueError(f"{name} must be one of {', '.join(_ACTIVATIONS)}, got {value!r}")
    return found


def _lengths(values: Iterable[Integer] | None, N: int, T: int) -> tuple[int, ...] | None:
    """The steps of each of N rows, 0 to T; None if all have T."""
    if values is None:
        return None
    if not isinstance(values, Iterable):
        raise TypeError(f"lengths must be a sequence of integers, got {values!r}")
    lengths = tuple(_size(f"lengths[{row}]", value) for row, value in enumerate(values))
    if len(lengths) != N:
        raise ValueError(f"lengths must have batch_size={N} entries, got {len(lengths)}")
    if max(lengths, default=0) > T:
        raise ValueError(f"lengths must be at most seq_len={T}, got {max(lengths)}")
    return lengths


def _dtype_name(dtype: object) -> str:
    """One of the names in `_ITEMSIZE`, from that name or from an object that bears it."""
    for name in (str(dtype), getattr(dtype, "name", None), getattr(dtype, "__name__", None)):
        if isinstance(name, str) and name in _ITEMSIZE:
            return name
    raise TypeError(f"dtype must be float32 or float64, got {dtype!r}")
