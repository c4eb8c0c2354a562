"""sigmoid and tanh of the kernels, on each instruction set, against a higher precision.

The promise: at most 4 ulp over every finite input, exact at the saturated ends, NaN for NaN. An ulp
is the distance of neighbouring numbers of the dtype at the true value, denormal values included.
"""

import mpmath
import numpy as np
import pytest
from helpers import activate

from gru_c import _core

pytestmark = pytest.mark.parametrize(
    "kernels", [(isa, "panel") for isa in _core.core.instruction_sets()], indirect=True,
    ids="-".join)

ULPS = 4
extended = np.finfo(np.longdouble).nmant > 60


def activation(name, x):
    """The kernel's function of an array of any length."""
    padded = np.concatenate([x, np.zeros(-x.size % 16, x.dtype)])
    y = np.empty_like(padded)
    activate(name, padded, y)
    return y[: x.size]


def sigmoid(x):
    t = np.exp(-np.abs(x))
    return np.where(x < 0, t, 1) / (1 + t)


EXACT = {"sigmoid": sigmoid, "tanh": np.tanh}


def sweep(dtype, count, spread):
    """Numbers of both signs: `count` of each exponent, denormals too, then `spread` evenly where
    the functions bend, and as many where e^x begins to underflow.
    """
    info = np.finfo(dtype)
    rng = np.random.default_rng(0)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp)
    x = np.ldexp(1 + rng.random((count, exponents.size)), exponents).ravel()
    bends = rng.uniform(0, 40, spread)
    ends = -np.log(info.smallest_normal) + rng.uniform(-20, 40, spread)
    x = np.concatenate([x, bends, ends]).astype(dtype)
    return np.concatenate([x, -x])


def ulps(y, exact):
    """The worst distance; `exact` has a higher precision than y."""
    spacing = np.spacing(np.abs(exact).astype(y.dtype))
    return float((np.abs(y.astype(exact.dtype) - exact) / spacing.astype(exact.dtype)).max())


@pytest.mark.parametrize("name", EXACT)
def test_float32(kernels, name):
    x = sweep(np.float32, 2000, 200_000)
    with np.errstate(under="ignore"):
        assert ulps(activation(name, x), EXACT[name](x.astype(np.float64))) <= ULPS


@pytest.mark.skipif(not extended, reason="long double is no wider than double here")
@pytest.mark.parametrize("name", EXACT)
def test_float64(kernels, name):
    x = sweep(np.float64, 100, 200_000)
    with np.errstate(under="ignore"):
        assert ulps(activation(name, x), EXACT[name](x.astype(np.longdouble))) <= ULPS


@pytest.fixture(scope="module")
def precise():
    """name -> (x, ulps of a y against 40 digits by mpmath), for 10,000 numbers."""
    x = sweep(np.float64, 2, 400)
    exact = {"sigmoid": [], "tanh": []}
    with mpmath.workdps(40):
        for a in x.tolist():
            t = mpmath.exp(-abs(mpmath.mpf(a)))
            exact["sigmoid"].append((t if a < 0 else 1) / (1 + t))
            exact["tanh"].append(mpmath.tanh(a))

    def distance(name, y):
        worst = 0.0
        for got, want in zip(y.tolist(), exact[name], strict=True):
            worst = max(worst, abs(got - want) / float(np.spacing(abs(float(want)))))
        return float(worst)

    return x, distance


@pytest.mark.parametrize("name", EXACT)
def test_float64_against_mpmath(kernels, name, precise):
    x, distance = precise
    assert distance(name, activation(name, x)) <= ULPS


def test_ends(kernels, dtype):
    """Exactly 0, 1 and -1 from where the true value rounds there, to infinity."""
    info = np.finfo(dtype)
    below_one, least = float(info.epsneg) / 2, float(info.smallest_subnormal)

    def beyond(end):                                       # by a hundred thousandth
        x = np.geomspace(1.00001 * end, info.max / 2, 9999).astype(dtype)
        return np.append(x, [info.max, dtype(np.inf)])

    assert (activation("sigmoid", beyond(-np.log(below_one))) == 1).all()
    assert (activation("sigmoid", -beyond(np.log(2) - np.log(least))) == 0).all()
    for sign in (1, -1):
        assert (activation("tanh", sign * beyond(-np.log(below_one / 2) / 2)) == sign).all()


@pytest.mark.parametrize("name", EXACT)
def test_range_and_order(kernels, name, dtype):
    """Values stay in their range, and never fall by more than rounding while x rises."""
    y = activation(name, np.sort(sweep(dtype, 100, 10_000)))
    assert y.min() == {"sigmoid": 0, "tanh": -1}[name]
    assert y.max() == 1
    assert (y[:-1] - y[1:] <= ULPS * np.spacing(np.abs(y[:-1]))).all()


@pytest.mark.parametrize("name", EXACT)
def test_special_values(kernels, name, dtype):
    """In each lane of a vector, and without touching the lanes beside it."""
    tiny = float(np.finfo(dtype).smallest_subnormal)
    values = {
        "sigmoid": {0: 0.5, np.inf: 1, -np.inf: 0, np.nan: np.nan, tiny: 0.5, -tiny: 0.5},
        "tanh": {0: 0, np.inf: 1, -np.inf: -1, np.nan: np.nan, tiny: tiny, -tiny: -tiny},
    }[name]
    around = activation(name, np.full(64, 0.5, dtype))
    for lane in range(64):
        for value, wanted in values.items():
            x, y = np.full(64, 0.5, dtype), around.copy()
            x[lane], y[lane] = value, wanted
            np.testing.assert_array_equal(activation(name, x), y)


def test_zero(kernels, dtype):
    """Zero, of whatever sign: keeping that of -0.0 would cost every tanh two operations."""
    assert activation("tanh", np.array([0.0, -0.0], dtype)).tolist() == [0.0, 0.0]
