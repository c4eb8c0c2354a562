"""`complexity` against a count: the equations run on scalars that count what is done to them."""

import json
import math
import operator
import random
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
        def counting(*scalars):
            Scalar.spent[Scalar.part] += 1
            return Scalar(operation(*(scalar.value for scalar in scalars)))
        return counting

    __add__, __sub__ = charged(operator.add), charged(operator.sub)
    __mul__, __truediv__ = charged(operator.mul), charged(operator.truediv)
    exp = charged(math.exp)

    def __neg__(self):
        return Scalar(-self.value)


ZERO, ONE, TWO = Scalar(0.0), Scalar(1.0), Scalar(2.0)


def sigmoid(a):
    return ONE / (ONE + (-a).exp())


def tanh(a):
    t = (-TWO * a).exp()
    return (ONE - t) / (ONE + t)


def dot(row, v, b):
    """row . v + b as it is written: no addition before the first product, none for a missing b."""
    first, *rest = [w * e for w, e in zip(row, v, strict=True)]
    for term in rest:
        first = first + term
    return first if b is None else first + b


def accumulate(start, row, v):
    """start + row . v, term by term."""
    for w, e in zip(row, v, strict=True):
        start = start + w * e
    return start


def both_sigmoids(a, units):
    """The reset and the update gate of all units, from a(gate, unit)."""
    for Scalar.part in ("reset", "update"):
        yield [sigmoid(a(Scalar.part, j)) for j in units]


def written_step(gates, x, h, reset_after):
    """The equations; a gate is [W_x (H, K), W_h (H, H), b_x (H,), b_h (H,)], b None if no bias."""
    units = range(len(h))

    def x_product(gate, j):
        return dot(gates[gate][0][j], x, gates[gate][2][j])

    def h_product(gate, j, state):
        return dot(gates[gate][1][j], state, gates[gate][3][j])

    r, z = both_sigmoids(lambda gate, j: x_product(gate, j) + h_product(gate, j, h), units)
    Scalar.part = "new"
    if reset_after:
        n = [tanh(x_product("new", j) + r[j] * h_product("new", j, h)) for j in units]
    else:
        rh = [r[j] * h[j] for j in units]
        n = [tanh(x_product("new", j) + h_product("new", j, rh)) for j in units]
    Scalar.part = "blend"
    return [(ONE - z[j]) * n[j] + z[j] * h[j] for j in units]


def executed_step(gates, x, h, reset_after):
    """The same values, in the way of the compiled core: accumulators that start at the bias."""
    units = range(len(h))

    def start(gate, which, j):
        b = gates[gate][which][j]
        return ZERO if b is None else b

    def merged(gate, j):
        here, Scalar.part = Scalar.part, "packing"
        b = start(gate, 2, j) + start(gate, 3, j)
        Scalar.part = here
        return b

    def both(gate, j, state):
        a = accumulate(merged(gate, j), gates[gate][0][j], x)
        return accumulate(a, gates[gate][1][j], state)

    r, z = both_sigmoids(lambda gate, j: both(gate, j, h), units)
    Scalar.part = "new"
    if reset_after:
        q = [accumulate(start("new", 3, j), gates["new"][1][j], h) for j in units]
        a = [accumulate(start("new", 2, j), gates["new"][0][j], x) for j in units]
        n = [tanh(a[j] + r[j] * q[j]) for j in units]
    else:
        rh = [r[j] * h[j] for j in units]
        n = [tanh(both("new", j, rh)) for j in units]
    Scalar.part = "blend"
    return [n[j] + z[j] * (h[j] - n[j]) for j in units]


def make_layers(K, H, L, bias):
    rng = random.Random(0)

    def vector(size):
        return [Scalar(rng.uniform(-1, 1)) for _ in range(size)]

    def gate(inputs):
        matrices = [[vector(K) for _ in range(H)] for K in (inputs, H)]
        return matrices + [vector(H) if bias else [None] * H for _ in range(2)]

    return [{name: gate(inputs) for name in GATES} for inputs in [K] + [H] * (L - 1)]


def count(step, T, N, K, H, L, bias, reset_after):
    """Run L layers over T steps of N rows; the operations of each part, and the last outputs."""
    layers = make_layers(K, H, L, bias)
    rng = random.Random(1)
    Scalar.spent = Counter()
    outputs = []
    for _ in range(N):
        states = [[ZERO] * H for _ in layers]
        for _ in range(T):
            x = [Scalar(rng.uniform(-1, 1)) for _ in range(K)]
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


@pytest.mark.parametrize("N, K, H", [(1, 80, 256), (7, 1, 1), (64, 128, 3)])
@pytest.mark.parametrize("bias, reset_after", VARIANTS)
def test_closed_forms(N, K, H, bias, reset_after):
    cost = complexity(K, H, N, bias=bias, reset_after=reset_after)
    written, executed = cost.operations, cost.executed

    assert written.reset == written.update == 2 * N * H * ((2 if bias else 1) + K + H)
    assert written.new == N * H * ((7 if bias else 5) + 2 * K + 2 * H)
    assert written.blend == 4 * N * H
    assert written.total == N * H * ((19 if bias else 13) + 6 * K + 6 * H)

    assert executed.reset == executed.update == N * H * (3 + 2 * K + 2 * H)
    assert executed.new == N * H * ((7 if reset_after else 6) + 2 * K + 2 * H)
    assert executed.blend == 3 * N * H
    assert executed.total == N * H * ((16 if reset_after else 15) + 6 * K + 6 * H)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_parameters_are_those_of_the_arrays(sizes, bias):
    def scalars(item):
        if isinstance(item, list):
            return sum(map(scalars, item))
        return isinstance(item, Scalar)

    layers = make_layers(*sizes[2:], bias)
    expected = {name: sum(scalars(gates[name]) for gates in layers) for name in GATES}
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
