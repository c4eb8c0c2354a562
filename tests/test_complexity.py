"""`complexity` against a count: the equations run on scalars that count what is done to them."""

import json
import math
import operator
import re
from collections import Counter
from itertools import product
from types import SimpleNamespace

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
BIG = (4, 3, 5, 2, 3)  # sizes of a run with options
OPTIONS = [
    {"bidirectional": True},
    {"lengths": [3, 0, 1]},
    {"dropout": 0.5},
    {"input_dropout": 0.5},
    {"recurrent_dropout": 0.5},
    {"dropout": 0.5, "recurrent_dropout": 1, "bidirectional": True, "lengths": [1, 4, 2]},
    {"input_dropout": 0.5, "bidirectional": True, "clip": 0.1, "activation": "elu"},
    {"dropout": 0.0, "clip": None, "checkpoint": 2},
]


class Scalar:
    """A float that counts: one for + - * / > < exp and log each, none for negation and abs."""

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
    __gt__, __lt__ = charged(operator.gt), charged(operator.lt)
    exp, log = charged(math.exp), charged(math.log)

    def __neg__(self):
        return Scalar(-self.value)

    def __abs__(self):
        return Scalar(abs(self.value))

    def __bool__(self):
        return bool(self.value)


scalars = np.frompyfunc(Scalar, 1, 1)  # arrays of them; a product W @ x begins with a product


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def tanh(a):
    t = np.exp(-2 * a)
    return (1 - t) / (1 + t)


def choose(condition, a, b):
    """Of two values, both of which were computed."""
    return a if condition else b


ZERO, ONE, ALPHA, BETA = Scalar(0), Scalar(1), 0.3, 0.6
ACTIVATIONS = {
    "linear": lambda a: a,
    "relu": lambda a: max(a, ZERO),
    "thresholded_relu": lambda a: a if a > ALPHA else ZERO,
    "affine": lambda a: ALPHA * a + BETA,
    "leaky_relu": lambda a: choose(a > 0, a, ALPHA * a),
    "softsign": lambda a: a / (1 + abs(a)),
    "sigmoid": sigmoid,
    "softplus": lambda a: np.log(1 + np.exp(a)),
    "hard_sigmoid": lambda a: min(max(ALPHA * a + BETA, ZERO), ONE),
    "elu": lambda a: choose(a > 0, a, ALPHA * (np.exp(a) - 1)),
    "tanh": tanh,
    "scaled_tanh": lambda a: ALPHA * tanh(BETA * a),
}


def clipped(name, clip):
    """An activation for arrays of scalars, behind a clip if there is one."""
    f = ACTIVATIONS[name]
    if clip:
        return np.frompyfunc(lambda a: f(min(max(a, Scalar(-clip)), Scalar(clip))), 1, 1)
    return np.frompyfunc(f, 1, 1)


def written_step(gates, x, h, kept, reset_after, f, g):
    """The equations; a gate is [W_x (H, K), W_h (H, H), b_x (H,), b_h (H,)], b None if no bias.

    `kept` is h after recurrent dropout, f and g are activation and recurrent_activation.
    """
    def of_input(gate):
        W, _, b, _ = gates[gate]
        return W @ x if b is None else W @ x + b

    def of_state(gate, state):
        _, W, _, b = gates[gate]
        return W @ state if b is None else W @ state + b

    Scalar.part = "reset"
    r = g(of_input("reset") + of_state("reset", kept))
    Scalar.part = "update"
    z = g(of_input("update") + of_state("update", kept))
    Scalar.part = "new"
    q = r * of_state("new", kept) if reset_after else of_state("new", r * kept)
    n = f(of_input("new") + q)
    Scalar.part = "blend"
    return (1 - z) * n + z * h


def executed_step(gates, x, h, kept, reset_after, f, g):
    """The same values, in the way of the compiled core: sums that start at the bias, or at zero."""
    def both(gate, state):
        W_x, W_h, b_x, b_h = gates[gate]
        here, Scalar.part = Scalar.part, "packing"
        start = 0 if b_x is None else b_x + b_h
        Scalar.part = here
        return start + W_x @ x + W_h @ state

    Scalar.part = "reset"
    r = g(both("reset", kept))
    Scalar.part = "update"
    z = g(both("update", kept))
    Scalar.part = "new"
    if reset_after:
        W_x, W_h, b_x, b_h = gates["new"]
        b_x, b_h = (0, 0) if b_x is None else (b_x, b_h)
        n = f(b_x + W_x @ x + r * (b_h + W_h @ kept))
    else:
        n = f(both("new", r * kept))
    Scalar.part = "blend"
    return n + z * (h - n)


def make_layers(K, H, L, bias, D=1):
    """For each layer the gates of each direction."""
    rng = np.random.default_rng(0)

    def gate(inputs):
        shapes = [(H, inputs), (H, H), (H,), (H,)]
        return [scalars(rng.uniform(-1, 1, shape)) if bias or len(shape) == 2 else None
                for shape in shapes]

    return [[{name: gate(inputs) for name in GATES} for _ in range(D)]
            for inputs in [K] + [D * H] * (L - 1)]


def drop(values, p):
    Scalar.part = "dropout"
    return [x * np.full(len(x), 0.7) for x in values] if p else values


def run_direction(step, gates, xs, reset_after, input_dropout=0, recurrent_dropout=0, clip=None,
                  activation="tanh", recurrent_activation="sigmoid"):
    """The outputs of one layer and direction over the steps of a row."""
    h = scalars(np.zeros(len(gates["reset"][1])))
    outputs = []
    for x in drop(xs, input_dropout):
        kept = drop([h], recurrent_dropout)[0]
        h = step(gates, x, h, kept, reset_after, clipped(activation, clip),
                 clipped(recurrent_activation, clip))
        outputs.append(h)
    return outputs


def count(step, T, N, K, H, L, bias=True, reset_after=True, bidirectional=False, lengths=None,
          dropout=0, checkpoint=None, **options):
    """Run the layers over all rows; the operations of each part, and the outputs."""
    orders = (1, -1) if bidirectional else (1,)
    layers = make_layers(K, H, L, bias, len(orders))
    rng = np.random.default_rng(1)
    Scalar.spent = Counter()
    results = []
    for length in [T] * N if lengths is None else lengths:
        xs = list(scalars(rng.uniform(-1, 1, (length, K))))
        for layer, directions in enumerate(layers):
            outputs = [run_direction(step, gates, xs[::order], reset_after, **options)[::order]
                       for gates, order in zip(directions, orders, strict=True)]
            xs = [np.concatenate(h) for h in zip(*outputs, strict=True)]
            xs = drop(xs, dropout and layer < L - 1)
        results += [h.value for x in xs for h in x]
    del Scalar.spent["packing"]
    return Scalar.spent, results


def with_total(counts, names):
    counts = {name: counts[name] for name in names}
    return {**counts, "total": sum(counts.values())}


def ask(T, N, K, H, L, **options):
    return complexity(K, H, N, T, num_layers=L, **options)


both_kinds = pytest.mark.parametrize(
    "kind, step", [("operations", written_step), ("executed", executed_step)])


def check_operations(kind, step, sizes, **options):
    spent, _ = count(step, *sizes, **options)
    expected = with_total(spent, [*GATES, "blend", "dropout"])
    assert getattr(ask(*sizes, **options), kind).as_dict() == expected


@pytest.mark.parametrize("bias, reset_after", VARIANTS)
@pytest.mark.parametrize("sizes", SIZES)
@both_kinds
def test_operations_are_those_of_a_run(sizes, bias, reset_after, kind, step):
    check_operations(kind, step, sizes, bias=bias, reset_after=reset_after)


@pytest.mark.parametrize("bias, reset_after", VARIANTS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@both_kinds
def test_operations_with_options(options, bias, reset_after, kind, step):
    check_operations(kind, step, BIG, bias=bias, reset_after=reset_after, **options)


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("name", ACTIVATIONS)
@both_kinds
def test_operations_of_activations(name, clip, kind, step):
    check_operations(kind, step, (2, 1, 2, 3, 2), activation=name, clip=clip)
    check_operations(kind, step, (2, 1, 2, 3, 2), recurrent_activation=name, clip=clip)


def test_docstring_has_the_operations_of_activations():
    step = complexity(1, 1, activation="linear").operations.new
    for name in ACTIVATIONS:
        row = re.search(rf"^ +{name}  .*  (\d+)$", complexity.__doc__, re.MULTILINE)
        assert complexity(1, 1, activation=name).operations.new == step + int(row[1])


def test_parameters_of_activations_cost_nothing():
    by_name = complexity(2, 3, activation="elu", recurrent_activation="hard_sigmoid")
    assert by_name == complexity(
        2, 3, activation={"name": "elu", "alpha": 0.5},
        recurrent_activation={"name": "hard_sigmoid", "alpha": 0.2, "beta": 0.5})
    assert by_name == complexity(2, 3, activation=SimpleNamespace(name="elu"),
                                 recurrent_activation="hard_sigmoid")
    assert by_name != complexity(2, 3)


@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
@pytest.mark.parametrize("bias, reset_after", VARIANTS)
def test_the_two_counted_runs_compute_the_same(bias, reset_after, options):
    _, written = count(written_step, *BIG, bias, reset_after, **options)
    _, executed = count(executed_step, *BIG, bias, reset_after, **options)
    np.testing.assert_allclose(executed, written, rtol=1e-12)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_parameters_are_those_of_the_arrays(sizes, bias, bidirectional):
    layers = make_layers(*sizes[2:], bias, 1 + bidirectional)
    expected = {name: sum(w.size for directions in layers for gates in directions
                          for w in gates[name] if w is not None) for name in GATES}
    parameters = ask(*sizes, bias=bias, bidirectional=bidirectional).parameters
    assert parameters.as_dict() == with_total(expected, GATES)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, *OPTIONS, *({"checkpoint": k} for k in (1, 3, 4, 5))],
                         ids=str)
@pytest.mark.parametrize("sizes", [*SIZES, BIG, (5, 0, 2, 3, 2)])
def test_bytes_are_those_of_the_arrays(sizes, options, dtype):
    T, N, K, H, L = sizes
    options = {**options, **({"lengths": [T - 1] * N} if "lengths" in options else {})}
    D, k = 1 + options.get("bidirectional", False), options.get("checkpoint")
    widths = [K] + [D * H] * L
    states = [] if k is None else [h for h in range(T) if h % k == 0]
    shapes = {
        "parameters": [shape for a in widths[:-1] for shape in [(3 * H, a), (3 * H, H), (6 * H,)]
                       for _ in range(D)],
        "input": [(T, N, K)],
        "output": [(T, N, D * H)] * L,
        "state": [(D * L, N, H)],
        "saved": [(4, sum(options.get("lengths", [T] * N)), H) if k is None else
                  (4, min(k, T), N, H), (len(states), N, H)] * L * D,
        "masks": [],
    }
    if options.get("dropout"):
        shapes["masks"] += [(T, N, D * H)] * (L - 1)
    if options.get("input_dropout"):
        shapes["masks"] += [(N, a) for a in widths[:-1]] * D
    if options.get("recurrent_dropout"):
        shapes["masks"] += [(N, H)] * L * D
    expected = {name: sum(np.empty(s, dtype).nbytes for s in shapes[name]) for name in shapes}
    cost = ask(*sizes, dtype=dtype, **options)
    assert cost.bytes.as_dict() == with_total(expected, shapes)


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64"), np.dtype(">f8")])
def test_dtype_by_any_of_its_names(dtype):
    assert complexity(2, 3, dtype=dtype) == complexity(2, 3, dtype="float64")


def test_sizes_of_any_integer_type():
    cost = complexity(np.int32(300), np.int64(200), np.uint8(200), np.int8(100))
    assert cost == complexity(300, 200, 200, 100)
    json.dumps(cost.as_dict())
    cost = complexity(2, 3, 2, 9, lengths=np.array([9, 0], np.int16), dropout=np.float32(0.5),
                      clip=np.int64(3), checkpoint=np.uint8(4))
    assert cost == complexity(2, 3, 2, 9, lengths=(9, 0), dropout=0.5, clip=3.0, checkpoint=4)
    assert json.loads(json.dumps(cost.as_dict())) == cost.as_dict()
    hash(cost)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_answer_has_what_was_asked(options):
    cost = ask(*BIG, **options).as_dict()
    assert {name: cost[name] for name in options} == options


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
    ({"bidirectional": 2}, TypeError, "bidirectional must be True or False, got 2"),
    ({"dropout": 1.5}, ValueError, r"^dropout must be a number from 0 to 1, got 1\.5"),
    ({"input_dropout": -0.1}, ValueError, "input_dropout must be a number from 0 to 1, got -0.1"),
    ({"recurrent_dropout": math.nan}, ValueError, "must be a number from 0 to 1, got nan"),
    ({"dropout": True}, TypeError, "dropout must be a number, got True"),
    ({"dropout": None}, TypeError, "dropout must be a number, got None"),
    ({"activation": "gelu"}, ValueError, r"^activation must be one of sigmoid, .*, got 'gelu'"),
    ({"recurrent_activation": {"alpha": 1}}, ValueError,
     r"recurrent_activation must be one of sigmoid, .*, got \{'alpha': 1\}"),
    ({"activation": None}, ValueError, "activation must be one of sigmoid, .*, got None"),
    ({"clip": 0}, ValueError, "clip must be greater than 0, got 0"),
    ({"clip": "3"}, TypeError, "clip must be a number, got '3'"),
    ({"checkpoint": 0}, ValueError, "checkpoint must be at least 1, got 0"),
    ({"checkpoint": 2.0}, TypeError, r"checkpoint must be an integer, got 2\.0 \(float\)"),
    ({"lengths": 3}, TypeError, "lengths must be a sequence of integers, got 3"),
    ({"lengths": [1, 1]}, ValueError, "lengths must have batch_size=1 entries, got 2"),
    ({"lengths": [2]}, ValueError, "lengths must be at most seq_len=1, got 2"),
    ({"lengths": [-1]}, ValueError, r"lengths\[0\] must be at least 0, got -1"),
    ({"lengths": [1.0]}, TypeError, r"lengths\[0\] must be an integer, got 1\.0 \(float\)"),
])
def test_errors_name_the_argument_and_what_arrived(options, error, message):
    with pytest.raises(error, match=message):
        complexity(**{"input_size": 2, "hidden_size": 3, **options})


def check_table(cost, settings):
    """It shows these settings and all counts but zeros; the text, split into words."""
    text = str(cost)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80
    words = [word.rstrip(",") for word in text.split()]
    assert set(settings.split()) == {word for word in words if "=" in word}
    for parts in (cost.operations, cost.executed, cost.parameters, cost.bytes):
        counts = parts.as_dict()
        assert all(f"{number:,}" in words for number in counts.values() if number)
        assert all((name in words) == (counts[name] > 0) for name in counts.keys() & EXTRAS)
    # Aligned: the first number ends in the same column of every row that has one.
    matches = [re.match(r"[a-z, ]+  ([0-9,]+)(  |$)", line) for line in text.splitlines()]
    assert len({match.end(1) for match in matches if match}) == 1
    return words


SETTINGS = ("input_size=80 hidden_size=256 batch_size=2 seq_len={} num_layers=2 bias=False "
            "reset_after=True dtype=float64 activation=tanh recurrent_activation=sigmoid")
EXTRAS = {"dropout", "masks"}


@pytest.mark.parametrize("seq_len", [1, 100])
def test_table(seq_len):
    cost = complexity(80, 256, 2, seq_len, num_layers=2, bias=False, dtype="float64")
    words = check_table(cost, SETTINGS.format(seq_len))
    step = complexity(80, 256, 2, num_layers=2, bias=False)
    assert f"{step.operations.total:,}" in words
    assert f"{step.executed.total:,}" in words


def test_table_with_options():
    cost = complexity(80, 256, 2, 100, num_layers=2, bias=False, dtype="float64",
                      bidirectional=True, lengths=[60, 7], dropout=0.5, clip=3, checkpoint=16)
    check_table(cost, SETTINGS.format(100) + " bidirectional=True dropout=0.5 clip=3.0 "
                "checkpoint=16 sum(lengths)=67")
    assert "all steps  as executed\n" in str(cost)


def test_table_of_no_rows():
    assert re.search(r"^operations .*\ntotal( +0){4}$", str(complexity(80, 256, 0, 3)), re.M)


def run(line):
    return main(["complexity", *line.split()])


@pytest.mark.parametrize("line, options", [
    ("", {}),
    ("--seq-len 100", {"seq_len": 100}),
    ("--bidirectional", {"bidirectional": True}),
    ("--batch-size 4 --num-layers 2 --no-bias --reset-before --dtype float64",
     {"batch_size": 4, "num_layers": 2, "bias": False, "reset_after": False,
      "dtype": "float64"}),
    ("--batch-size 2 --seq-len 9 --lengths 9 0 --checkpoint 4",
     {"batch_size": 2, "seq_len": 9, "lengths": (9, 0), "checkpoint": 4}),
])
def test_command(line, options, capsys):
    line = f"--input-size 80 --hidden-size 256 {line}"
    cost = complexity(80, 256, **options)
    assert run(line) == 0
    assert capsys.readouterr().out == f"{cost}\n"
    assert run(f"{line} --json") == 0
    assert json.loads(capsys.readouterr().out) == cost.as_dict()


@pytest.mark.parametrize("line, words", [
    ("--hidden-size 0", "hidden_size must be at least 1, got 0"),
    ("--hidden-size 4 --lengths 1 1", "lengths must have batch_size=1 entries, got 2"),
    ("--hidden-size 4 --checkpoint 0", "checkpoint must be at least 1, got 0"),
])
def test_command_refuses_a_size(line, words, capsys):
    assert run(f"--input-size 80 {line}") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {words}\n"
