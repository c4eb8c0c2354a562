"""What a GRU costs: operations, parameters and bytes, per gate and in total.

Closed forms only, so nothing here runs a model or needs NumPy. Letters: N batch_size, T seq_len,
I input_size, H hidden_size, L num_layers.
"""

from __future__ import annotations

import operator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gru_c._types import DType, Integer

__all__ = ["Bytes", "Complexity", "Operations", "Parameters", "complexity"]

_ITEMSIZE = {"float32": 4, "float64": 8}
_LABELS = {name: f"{name} gate" for name in ("reset", "update", "new")} | {"saved": "saved r,z,n,q"}


@dataclass(frozen=True)
class _Parts:
    """Integers that add up: the fields of a subclass, and `total`, their sum."""

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def as_dict(self) -> dict[str, int]:
        """The fields and ``total`` as a dict of int."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class Operations(_Parts):
    """Scalar operations of each part of the step, over all rows, steps and layers."""

    reset: int
    update: int
    new: int
    blend: int


@dataclass(frozen=True)
class Parameters(_Parts):
    """Weights and biases of each gate, over all layers."""

    reset: int
    update: int
    new: int


@dataclass(frozen=True)
class Bytes(_Parts):
    """Bytes of the arrays that training a sequence holds; without ``saved``, those of inference."""

    parameters: int
    input: int
    output: int
    state: int
    saved: int


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
    operations: Operations
    executed: Operations
    parameters: Parameters
    bytes: Bytes

    def as_dict(self) -> dict[str, Any]:
        """Nested dict of plain Python values, totals included; ready for JSON."""
        return {name: value.as_dict() if isinstance(value, _Parts) else value
                for name, value in vars(self).items()}

    def __str__(self) -> str:
        asked = [f"{name}={value}" for name, value in list(vars(self).items())[:8]]
        steps, pairs = self.seq_len, (self.operations.as_dict(), self.executed.as_dict())
        rows = [["operations", "a step", "as executed", f"{steps:,} steps", "as executed"]]
        for name in pairs[0]:                              # multiples of the steps, all of them
            counts = [parts[name] // n for n in (steps, 1) for parts in pairs]
            rows.append([_LABELS.get(name, name), *(f"{count:,}" for count in counts)])
        if steps == 1:
            rows = [row[:3] for row in rows]
        for title, parts in (("parameters", self.parameters), ("bytes", self.bytes)):
            rows += [[""], [title]]
            rows += [[_LABELS.get(name, name), f"{n:,}"] for name, n in parts.as_dict().items()]
        first, width = (max(len(cell) for row in rows for cell in row[part])
                        for part in (slice(1), slice(1, None)))
        lines = [f"GRU: {', '.join(asked[:5])},", f"     {', '.join(asked[5:])}",
                 "     as executed: one merged bias, three-operation blend", ""]
        lines += [row[0].ljust(first) + "".join(f"  {cell:>{width}}" for cell in row[1:])
                  for row in rows]
        return "\n".join(line.rstrip() for line in lines)


def complexity(input_size: Integer, hidden_size: Integer, batch_size: Integer = 1,
               seq_len: Integer = 1, *, bias: bool = True, reset_after: bool = True,
               num_layers: Integer = 1, dtype: DType = "float32") -> Complexity:
    """Count the operations, parameters and bytes of a GRU's forward pass.

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L, at least 1. Every layer but the first reads the H outputs of the one below.
    batch_size, seq_len : int
        N rows, at least 0, and T steps, at least 1; one step is one call of a cell.
    bias, reset_after : bool
        Whether each of the two products of a gate has a bias; whether the reset gate multiplies the
        product ``W_hn h + b_hn``, or, if False, the state ``h`` before it.
    dtype : {"float32", "float64"}, or anything of such a name, as ``numpy.float32``

    Notes
    -----
    One multiplication, addition, subtraction, division or exponential is one operation, negation is
    none: a sigmoid costs 3, a tanh 5. A step of one layer, **as the equations are written** (with
    bias; without, a gate costs ``2 N H`` less) and **as executed** (with or without bias):

    ==============================  =======================  =======================
    part                            written                  executed
    ==============================  =======================  =======================
    reset, and again update         ``N H (4 + 2 I + 2 H)``  ``N H (3 + 2 I + 2 H)``
    new, with `reset_after`         ``N H (7 + 2 I + 2 H)``  ``N H (7 + 2 I + 2 H)``
    new, without                    ``N H (7 + 2 I + 2 H)``  ``N H (6 + 2 I + 2 H)``
    blend                           ``4 N H``                ``3 N H``
    ==============================  =======================  =======================

    The blend is ``(1 - z) * n + z * h`` as written, ``n + z * (h - n)`` as executed. The executed
    products accumulate onto the bias (``b_ih + b_hh``, merged at packing, is not counted) or zero,
    and no addition joins two products with one accumulator. Padding does not count. A sequence
    costs T times a step. **Parameters** of a gate: ``H (I + H)``, and ``2 H`` with bias. **Bytes**:
    output ``(T, N, H)`` of every layer; saved, the planes r, z, n, q that training keeps,
    ``(4, T, N, H)`` a layer; no packed copies, gradients or workspace.

    Examples
    --------
    >>> from gru_c import complexity
    >>> cost = complexity(80, 256, seq_len=100)
    >>> cost.operations.total, cost.executed.total, cost.parameters.total
    (52096000, 52019200, 259584)
    """
    given = {"input_size": input_size, "hidden_size": hidden_size, "batch_size": batch_size,
             "seq_len": seq_len, "num_layers": num_layers}
    sizes = {name: _size(name, value) for name, value in given.items()}
    for name, value in (("bias", bias), ("reset_after", reset_after)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {value!r}")
    I, H, N, T, L = sizes.values()                         # noqa: E741
    real = _dtype_name(dtype)

    # One gate, all layers: its matrices' entries, its units, and the values it takes in a run.
    entries, units, rows = H * (I + (2 * L - 1) * H), L * H, T * N
    elements = rows * units
    products = 2 * rows * entries                          # both, each onto a bias or onto zero
    # As written, a missing bias saves an addition in each product, and an addition joins the two.
    gate = products + elements * ((0 if bias else -2) + 1 + 3)
    operations = Operations(gate, gate, gate + 3 * elements, 4 * elements)
    gate = products + 3 * elements
    executed = Operations(gate, gate, gate + (4 if reset_after else 3) * elements, 3 * elements)
    each = entries + (2 * units if bias else 0)
    bytes_ = (3 * each, rows * I, elements, N * units, 4 * elements)
    return Complexity(**sizes, bias=bias, reset_after=reset_after, dtype=real,
                      operations=operations, executed=executed, parameters=Parameters(*[each] * 3),
                      bytes=Bytes(*(_ITEMSIZE[real] * n for n in bytes_)))


def _size(name: str, value: Integer) -> int:
    """`value` as an int that is large enough; any integer type will do, but not bool."""
    try:
        if isinstance(value, bool):
            raise TypeError
        size = operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{name} must be an integer, got {value!r} ({kind})") from None
    least = 0 if name == "batch_size" else 1
    if size < least:
        raise ValueError(f"{name} must be at least {least}, got {size}")
    return size


def _dtype_name(dtype: object) -> str:
    """One of the names in `_ITEMSIZE`, from that name or from an object that bears it."""
    for name in (str(dtype), getattr(dtype, "name", None), getattr(dtype, "__name__", None)):
        if isinstance(name, str) and name in _ITEMSIZE:
            return name
    raise TypeError(f"dtype must be float32 or float64, got {dtype!r}")
