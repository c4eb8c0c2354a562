"""What a GRU costs: operations, parameters and bytes, per gate and in total.

Closed forms only, so nothing here runs a model or needs NumPy. `complexity` returns a `Complexity`;
`add_arguments` and `run` are the subcommand ``python -m gru_c complexity``. Letters: N batch_size,
T seq_len, I input_size, H hidden_size, L num_layers.
"""

import json
import operator
import sys
from dataclasses import asdict, dataclass

__all__ = ["Bytes", "Complexity", "Operations", "Parameters", "complexity"]

_ITEMSIZE = {"float32": 4, "float64": 8}

# What one element costs, in operations.
_SIGMOID = 3  # 1 / (1 + exp(-a)): exp, addition, division; negation is free
_TANH = 5  # (1 - t) / (1 + t), t = exp(-2 a): multiplication, exp, subtraction, addition, division
_JOIN = 1  # the addition between the x and the h product
_RESET = 1  # the multiplication by r, of q or of h
_BLEND = 4  # (1 - z) * n + z * h
_BLEND_EXECUTED = 3  # n + z * (h - n)


@dataclass(frozen=True)
class _Parts:
    """Integers that add up: the fields of a subclass, and `total`, their sum."""

    @property
    def total(self):
        return sum(asdict(self).values())

    def as_dict(self):
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
    """The answer of `complexity`; ``print`` shows it as a table.

    Attributes
    ----------
    input_size, hidden_size, batch_size, seq_len, num_layers, bias, reset_after, dtype
        What was asked.
    operations : Operations
        As the equations are written: ``reset``, ``update``, ``new``, ``blend``, ``total``.
    executed : Operations
        The same, as the implementation does it.
    parameters : Parameters
        ``reset``, ``update``, ``new``, ``total``.
    bytes : Bytes
        ``parameters``, ``input``, ``output``, ``state``, ``saved``, ``total``.
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

    def as_dict(self):
        """Nested dict of plain Python values, totals included; ready for JSON."""
        return {
            name: value.as_dict() if isinstance(value, _Parts) else value
            for name, value in vars(self).items()
        }

    def __str__(self):
        return _table(self)


def complexity(
    input_size,
    hidden_size,
    batch_size=1,
    seq_len=1,
    *,
    bias=True,
    reset_after=True,
    num_layers=1,
    dtype="float32",
):
    """Count the operations, parameters and bytes of a GRU's forward pass.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, at least 1.
    batch_size : int
        N, rows of a batch, at least 0.
    seq_len : int
        T, steps of the sequence, at least 1; 1 is one call of a cell.
    bias : bool
        Whether each of the two products of a gate has a bias.
    reset_after : bool
        Whether the reset gate multiplies the product ``W_hn h + b_hn`` (True), or the state ``h``
        before that product (False).
    num_layers : int
        L, at least 1. Every layer but the first reads the H outputs of the one below.
    dtype : {"float32", "float64"}
        Also anything with such a name: ``numpy.float32``, ``numpy.dtype("float64")``.

    Returns
    -------
    Complexity

    Raises
    ------
    TypeError
        If a size is not an integer, a switch not a bool, or ``dtype`` neither float32 nor float64.
    ValueError
        If a size is too small.

    Notes
    -----
    One multiplication, addition, subtraction, division or exponential is one operation, negation is
    none. So a sigmoid costs 3, a tanh 5, and a product with K inputs ``2 N H K`` with bias,
    ``N H (2 K - 1)`` without. The reset and update gates are two products, an addition that joins
    them, and a sigmoid; the new gate is two products, a multiplication by r (of the product or of
    the state, at the same price), the addition, and a tanh.

    A step of one layer, **as the equations are written**:

    ==============================  ========================  ========================
    part                            with bias                 without bias
    ==============================  ========================  ========================
    reset, and again update         ``2 N H (2 + I + H)``     ``2 N H (1 + I + H)``
    new, either ``reset_after``     ``N H (7 + 2 I + 2 H)``   ``N H (5 + 2 I + 2 H)``
    blend ``(1 - z) * n + z * h``   ``4 N H``                 ``4 N H``
    total                           ``N H (19 + 6 I + 6 H)``  ``N H (13 + 6 I + 6 H)``
    ==============================  ========================  ========================

    **As executed**, with or without bias: products accumulate onto the bias, ``b_ih + b_hh`` merged
    when the weights are packed (not counted), or onto zero, and that first addition counts. Nothing
    is left to join where both products share an accumulator: in the reset and update gates, and in
    the new gate if not ``reset_after``.

    ==============================  ========================  =======================
    part                            ``reset_after=True``      ``reset_after=False``
    ==============================  ========================  =======================
    reset, and again update         ``N H (3 + 2 I + 2 H)``   ``N H (3 + 2 I + 2 H)``
    new                             ``N H (7 + 2 I + 2 H)``   ``N H (6 + 2 I + 2 H)``
    blend ``n + z * (h - n)``       ``3 N H``                 ``3 N H``
    total                           ``N H (16 + 6 I + 6 H)``  ``N H (15 + 6 I + 6 H)``
    ==============================  ========================  =======================

    Sigmoid and tanh count 3 and 5 here too, whatever polynomial computes them, and units that pad
    a vector register do not count.

    A sequence costs T times a step. Layers add up, with H for I above the first.

    **Parameters** of one gate of a layer: ``H (I + H)``, and ``2 H`` more with bias (``b_ih`` and
    ``b_hh``, as PyTorch keeps them); three times that in total.

    **Bytes**: the parameters; input ``(T, N, I)``; output ``(T, N, H)`` of every layer, since one's
    output is the next one's input; state ``(L, N, H)``; saved, the planes r, z, n, q that training
    keeps, ``(4, T, N, H)`` a layer. Packed or padded copies, gradients and scratch are not in it.

    The convention is this project's; the gates are those of Cho et al. (2014, arXiv:1406.1078;
    ``reset_after=False``) and of ``torch.nn.GRU`` (``reset_after=True``).

    Examples
    --------
    >>> from gru_c import complexity
    >>> cost = complexity(80, 256, seq_len=100)
    >>> cost.operations.reset == 2 * 256 * (2 + 80 + 256) * 100
    True
    >>> cost.operations.total, cost.executed.total, cost.parameters.total
    (52096000, 52019200, 259584)
    >>> print(complexity(3, 4, batch_size=2))
    GRU: input_size=3, hidden_size=4, batch_size=2, seq_len=1, num_layers=1,
         bias=True, reset_after=True, dtype=float32
         as executed: one merged bias, three-operation blend
    <BLANKLINE>
    operations          a step  as executed
    reset gate             144          136
    update gate            144          136
    new gate               168          168
    blend                   32           24
    total                  488          464
    <BLANKLINE>
    parameters
    reset gate              36
    update gate             36
    new gate                36
    total                  108
    <BLANKLINE>
    bytes
    parameters             432
    input                   24
    output                  32
    state                   32
    saved r,z,n,q          128
    total                  648
    """
    input_size = _size("input_size", input_size, 1)
    hidden_size = _size("hidden_size", hidden_size, 1)
    batch_size = _size("batch_size", batch_size, 0)
    seq_len = _size("seq_len", seq_len, 1)
    num_layers = _size("num_layers", num_layers, 1)
    for name, value in (("bias", bias), ("reset_after", reset_after)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {value!r}")
    dtype = _dtype_name(dtype)

    # One gate, all layers: its matrices' entries, its units, and the values it takes in a run.
    entries = hidden_size * (input_size + (2 * num_layers - 1) * hidden_size)
    units = num_layers * hidden_size
    rows = seq_len * batch_size
    elements = rows * units

    products = 2 * rows * entries  # both, with bias; without, each saves an addition an element
    written = products if bias else products - 2 * elements
    gate = written + elements * (_JOIN + _SIGMOID)
    new = written + elements * (_RESET + _JOIN + _TANH)
    operations = Operations(gate, gate, new, _BLEND * elements)

    gate = products + elements * _SIGMOID
    new = products + elements * (_RESET + (_JOIN if reset_after else 0) + _TANH)
    executed = Operations(gate, gate, new, _BLEND_EXECUTED * elements)

    each = entries + (2 * units if bias else 0)
    parameters = Parameters(each, each, each)

    itemsize = _ITEMSIZE[dtype]
    memory = Bytes(
        parameters=itemsize * parameters.total,
        input=itemsize * rows * input_size,
        output=itemsize * elements,
        state=itemsize * batch_size * units,
        saved=itemsize * 4 * elements,
    )
    return Complexity(
        input_size=input_size,
        hidden_size=hidden_size,
        batch_size=batch_size,
        seq_len=seq_len,
        num_layers=num_layers,
        bias=bias,
        reset_after=reset_after,
        dtype=dtype,
        operations=operations,
        executed=executed,
        parameters=parameters,
        bytes=memory,
    )


def add_arguments(parser):
    """Give an `argparse.ArgumentParser` the options that `run` reads."""
    parser.add_argument("--input-size", type=int, required=True, metavar="I")
    parser.add_argument("--hidden-size", type=int, required=True, metavar="H")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N")
    parser.add_argument("--seq-len", type=int, default=1, metavar="T")
    parser.add_argument("--num-layers", type=int, default=1, metavar="L")
    parser.add_argument("--no-bias", action="store_true", help="count without biases")
    parser.add_argument(
        "--reset-before", action="store_true", help="reset gate on the state, before its product"
    )
    parser.add_argument("--dtype", choices=list(_ITEMSIZE), default="float32")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args):
    """Print the table, or the JSON, that parsed arguments ask for; return the exit status.

    Parameters
    ----------
    args : argparse.Namespace
        From a parser that went through `add_arguments`.

    Returns
    -------
    int
        0, or 2 after a size that `complexity` refuses, with its message on standard error.
    """
    try:
        cost = complexity(
            args.input_size,
            args.hidden_size,
            args.batch_size,
            args.seq_len,
            bias=not args.no_bias,
            reset_after=not args.reset_before,
            num_layers=args.num_layers,
            dtype=args.dtype,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(cost.as_dict(), indent=2) if args.json else cost)
    return 0


def _size(name, value, least):
    """`value` as an int of at least `least`; any integer type will do, but not bool."""
    try:
        if isinstance(value, bool):
            raise TypeError
        size = operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{name} must be an integer, got {value!r} ({kind})") from None
    if size < least:
        raise ValueError(f"{name} must be at least {least}, got {size}")
    return size


def _dtype_name(dtype):
    """One of the names in `_ITEMSIZE`, from that name or from an object that bears it."""
    for name in (str(dtype), getattr(dtype, "name", None), getattr(dtype, "__name__", None)):
        if isinstance(name, str) and name in _ITEMSIZE:
            return name
    raise TypeError(f"dtype must be float32 or float64, got {dtype!r}")


def _table(cost):
    """The text of ``str(Complexity)``: plain ASCII, a label column and right-aligned numbers."""
    labels = {
        "reset": "reset gate",
        "update": "update gate",
        "new": "new gate",
        "saved": "saved r,z,n,q",
    }
    steps = cost.seq_len
    operations, executed = cost.operations.as_dict(), cost.executed.as_dict()
    rows = [["operations", "a step", "as executed"]]
    if steps > 1:
        rows[0] += [f"{steps:,} steps", "as executed"]
    for name, count in operations.items():
        # Every count is a multiple of the steps, so the division is exact.
        numbers = [count // steps, executed[name] // steps]
        if steps > 1:
            numbers += [count, executed[name]]
        rows.append([labels.get(name, name), *(f"{number:,}" for number in numbers)])
    for title, parts in (("parameters", cost.parameters), ("bytes", cost.bytes)):
        rows += [[], [title]]
        rows += [[labels.get(name, name), f"{n:,}"] for name, n in parts.as_dict().items()]

    first = max(len(row[0]) for row in rows if row)
    width = max(len(cell) for row in rows for cell in row[1:])
    lines = [
        f"GRU: input_size={cost.input_size}, hidden_size={cost.hidden_size},"
        f" batch_size={cost.batch_size}, seq_len={cost.seq_len}, num_layers={cost.num_layers},",
        f"     bias={cost.bias}, reset_after={cost.reset_after}, dtype={cost.dtype}",
        "     as executed: one merged bias, three-operation blend",
        "",
    ]
    for row in rows:
        label, cells = (row[0], row[1:]) if row else ("", [])
        text = label.ljust(first) + "".join(f"  {cell:>{width}}" for cell in cells)
        lines.append(text.rstrip())
    return "\n".join(lines)
