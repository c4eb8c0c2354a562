"""`complexity` against a count: the equations run on scalars that count what is done to them."""

import json
import math
import operator
import re
from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest

from gru_c import complexity
from gru_c.cli import main

SIZES = [  # T steps, N rows, K inputs, H units, L layers
    (1, 1, 1, 1, 1),
    (1, 2, 3, 4, 1),
    (3, 2, 5, 2, 1),
    (2, 1, 2, 3, 3),
]
VARIANTS = list(product([True, False], repeat=2))  # bias, reset_after
GATES = ("reset", "update", "new")


class Scalar:
    """A float that counts: one for each of + - * / and exp, nothing for negation."""

    spent = None  # Counter of operations by part
    part = None  # of the step, to which the next operation is charged

    def __init__(self, value):
        self.value = value

    def charged(operation):
        def counting(*operands):
            Scalar.spent[Scalar.part] += 1
            return Scalar(operation(*(getattr(a, "value", a) for a in operands)))
        return counting

    __add__ = __radd__ = charged(operator.add)
    __mul__ = __rmul__ = charged(operator.mul)
    __sub__, __rsub__ = charged(operator.sub), charged(lambda b, a: a - b)
    __truediv__, __rtruediv__ = charged(operator.truediv), charged(lambda b, a: a / b)
    exp = charged(math.exp)

    def __neg__(self):
        return Scalar(-self.value)


scalars = np.frompyfunc(Scalar, 1, 1)  # arrays of them; a product W @ x begins with a product


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def tanh(a):
    t = np.exp(-2 * a)
    return (1 - t) / (1 + t)


def written_step(gates, x, h, reset_after):
    """The equations; a gate is [W_x (H, K), W_h (H, H), b_x (H,), b_h (H,)], b None if no bias."""
    def of_input(gate):
        W, _, b, _ = gates[gate]
        return W @ x if b is None else W @ x + b

    def of_state(gate, state):
        _, W, _, b = gates[gate]
        return W @ state if b is None else W @ state + b

    Scalar.part = "reset"
    r = sigmoid(of_input("reset") + of_state("reset", h))
    Scalar.part = "update"
    z = sigmoid(of_input("update") + of_state("update", h))
    Scalar.part = "new"
    q = r * of_state("new", h) if reset_after else of_state("new", r * h)
    n = tanh(of_input("new") + q)
    Scalar.part = "blend"
    return (1 - z) * n + z * h


def executed_step(gates, x, h, reset_after):
    """The same values, in the way of the compiled core: sums that start at the bias, or at zero."""
    def both(gate, state):
        W_x, W_h, b_x, b_h = gates[gate]
        here, Scalar.part = Scalar.part, "packing"
        start = 0 if b_x is None else b_x + b_h
        Scalar.part = here
        return start + W_x @ x + W_h @ state

    Scalar.part = "reset"
    r = sigmoid(both("reset", h))
    Scalar.part = "update"
    z = sigmoid(both("update", h))
    Scalar.part = "new"
    if reset_after:
        W_x, W_h, b_x, b_h = gates["new"]
        b_x, b_h = (0, 0) if b_x is None else (b_x, b_h)
        n = tanh(b_x + W_x @ x + r * (b_h + W_h @ h))
    else:
        n = tanh(both("new", r * h))
    Scalar.part = "blend"
    return n + z * (h - n)


def make_layers(K, H, L, bias):
    rng = np.random.default_rng(0)

    def gate(inputs):
        shapes = [(H, inputs), (H, H), (H,), (H,)]
        return [scalars(rng.uniform(-1, 1, shape)) if bias or len(shape) == 2 else None
                for shape in shapes]

    return [{name: gate(inputs) for name in GATES} for inputs in [K] + [H] * (L - 1)]


def count(step, T, N, K, H, L, bias, reset_after):
    """Run L layers over T steps of N rows; the operations of each part, and the last outputs."""
    layers = make_layers(K, H, L, bias)
    rng = np.random.default_rng(1)
    Scalar.spent = Counter()
    outputs = []
    for _ in range(N):
        states = [scalars(np.zeros(H))] * L
        for _ in range(T):
            x = scalars(rng.uniform(-1, 1, K))
            for layer, gates in enumerate(layers):
                x = states[layer] = step(gates, x, states[layer], reset_after)
        outputs += [h.value for h in x]
    del Scalar.spent["packing"]
    return dict(Scalar.spent), outputs


def ask(T, N, K, H, L, **options):
    return complexity(K, H, N, T, num_layers=L, **options)


@pytest.mark.parametrize("bias, reset_after", VARIANTS)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind, step", [("operations", written_step), ("executed", executed_step)])
def test_operations_are_those_of_a_run(sizes, bias, reset_after, kind, step):
    spent, _ = count(step, *sizes, bias, reset_after)
    operations = getattr(ask(*sizes, bias=bias, reset_after=reset_after), kind)
    assert operations.as_dict() == {**spent, "total": sum(spent.values())}


@pytest.mark.parametrize("bias, reset_after", VARIANTS)
def test_the_two_counted_runs_compute_the_same(bias, reset_after):
    _, written = count(written_step, 3, 2, 3, 4, 2, bias, reset_after)
    _, executed = count(executed_step, 3, 2, 3, 4, 2, bias, reset_after)
    np.testing.assert_allclose(executed, written, rtol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_parameters_are_those_of_the_arrays(sizes, bias):
    layers = make_layers(*sizes[2:], bias)
    expected = {name: sum(w.size for gates in layers for w in gates[name] if w is not None)
                for name in GATES}
    parameters = ask(*sizes, bias=bias).parameters
    assert parameters.as_dict() == {**expected, "total": sum(expected.values())}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [*SIZES, (5, 0, 2, 3, 2)])
def test_bytes_are_those_of_the_arrays(sizes, dtype):
    T, N, K, H, L = sizes
    widths = [K] + [H] * L
    shapes = {
        "parameters": [
            shape for a, _ in pairwise(widths) for shape in [(3 * H, a), (3 * H, H), (6 * H,)]
        ],
        "input": [(T, N, K)],
        "output": [(T, N, H)] * L,
        "state": [(L, N, H)],
        "saved": [(4, T, N, H)] * L,
    }
    expected = {name: sum(np.empty(s, dtype).nbytes for s in shapes[name]) for name in shapes}
    expected["total"] = sum(expected.values())
    assert ask(*sizes, dtype=dtype).bytes.as_dict() == expected


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64"), np.dtype(">f8")])
def test_dtype_by_any_of_its_names(dtype):
    assert complexity(2, 3, dtype=dtype) == complexity(2, 3, dtype="float64")


def test_sizes_of_any_integer_type():
    cost = complexity(np.int32(300), np.int64(200), np.uint8(200), np.int8(100))
    assert cost == complexity(300, 200, 200, 100)
    json.dumps(cost.as_dict())


def test_frozen():
    cost = complexity(2, 3)
    for item, name in ((cost, "input_size"), (cost.operations, "reset")):
        with pytest.raises(AttributeError):
            setattr(item, name, 4)


@pytest.mark.parametrize("options, error, message", [
    ({"input_size": 0}, ValueError, "input_size must be at least 1, got 0"),
    ({"hidden_size": -3}, ValueError, "hidden_size must be at least 1, got -3"),
    ({"batch_size": -1}, ValueError, "batch_size must be at least 0, got -1"),
    ({"seq_len": 0}, ValueError, "seq_len must be at least 1, got 0"),
    ({"num_layers": 0}, ValueError, "num_layers must be at least 1, got 0"),
    ({"input_size": 2.0}, TypeError, r"input_size must be an integer, got 2\.0 \(float\)"),
    ({"hidden_size": "3"}, TypeError, r"hidden_size must be an integer, got '3' \(str\)"),
    ({"seq_len": True}, TypeError, r"seq_len must be an integer, got True \(bool\)"),
    ({"batch_size": None}, TypeError, "batch_size must be an integer, got None"),
    ({"bias": 1}, TypeError, "bias must be True or False, got 1"),
    ({"reset_after": None}, TypeError, "reset_after must be True or False, got None"),
    ({"dtype": "float16"}, TypeError, "dtype must be float32 or float64, got 'float16'"),
    ({"dtype": float}, TypeError, "dtype must be float32 or float64, got <class 'float'>"),
])
def test_errors_name_the_argument_and_what_arrived(options, error, message):
    with pytest.raises(error, match=message):
        complexity(**{"input_size": 2, "hidden_size": 3, **options})


@pytest.mark.parametrize("seq_len", [1, 100])
def test_table(seq_len):
    cost = complexity(80, 256, 2, seq_len, num_layers=2, bias=False, dtype="float64")
    text = str(cost)
    assert text.isascii()
    for setting in ("input_size=80", "hidden_size=256", "batch_size=2", f"seq_len={seq_len}"):
        assert setting in text
    for setting in ("num_layers=2", "bias=False", "reset_after=True", "dtype=float64"):
        assert setting in text
    words = text.split()
    for parts in (cost.operations, cost.executed, cost.parameters, cost.bytes):
        for number in parts.as_dict().values():
            assert f"{number:,}" in words
    step = complexity(80, 256, 2, num_layers=2, bias=False)
    assert f"{step.operations.total:,}" in words
    assert f"{step.executed.total:,}" in words
    # Aligned: the first number ends in the same column of every row that has one.
    matches = [re.match(r"[a-z, ]+  ([0-9,]+)(  |$)", line) for line in text.splitlines()]
    assert len({match.end(1) for match in matches if match}) == 1


def run(line):
    return main(["complexity", *line.split()])


@pytest.mark.parametrize("line, options", [
    ("", {}),
    ("--seq-len 100", {"seq_len": 100}),
    ("--batch-size 4 --num-layers 2 --no-bias --reset-before --dtype float64",
     {"batch_size": 4, "num_layers": 2, "bias": False, "reset_after": False,
      "dtype": "float64"}),
])
def test_command(line, options, capsys):
    line = f"--input-size 80 --hidden-size 256 {line}"
    cost = complexity(80, 256, **options)
    assert run(line) == 0
    assert capsys.readouterr().out == f"{cost}\n"
    assert run(f"{line} --json") == 0
    assert json.loads(capsys.readouterr().out) == cost.as_dict()


def test_command_refuses_a_size(capsys):
    assert run("--input-size 80 --hidden-size 0") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: hidden_size must be at least 1, got 0\n"
