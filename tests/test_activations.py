"""The activations of the kernels, on each instruction set, against a higher precision.

The promise: at most 4 ulp over every finite input, exact at the saturated ends, NaN for NaN. An ulp
is the distance of neighbouring numbers of the dtype at the true value, denormal values included.
Activations of a few exact operations have the bits of the same in NumPy.
"""

import mpmath
import numpy as np
import pytest
from helpers import activate

from gru_c import _activations, _core

pytestmark = pytest.mark.parametrize(
    "kernels", [(isa, "panel") for isa in _core.core.instruction_sets()], indirect=True,
    ids="-".join)

ULPS = 4
extended = np.finfo(np.longdouble).nmant > 60


def activation(name, x, **parameters):
    """The kernel's function of an array of any length."""
    padded = np.concatenate([x, np.zeros(-x.size % 16, x.dtype)])
    y = np.empty_like(padded)
    activate(name, padded, y, **parameters)
    return y[: x.size]


def sigmoid(x):
    t = np.exp(-np.abs(x))
    return np.where(x < 0, t, 1) / (1 + t)


EXACT = {
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
}
PRECISE = {
    "sigmoid": lambda a: (mpmath.exp(-abs(a)) if a < 0 else 1) / (1 + mpmath.exp(-abs(a))),
    "tanh": mpmath.tanh,
    "elu": lambda a: mpmath.expm1(a) if a < 0 else a,
    "softsign": lambda a: a / (1 + abs(a)),
    "softplus": lambda a: max(a, 0) + mpmath.log1p(mpmath.exp(-abs(a))),
}

# The exact ones with parameters of numbers of any dtype.
THRESHOLDS = (0.75, 0.0, -0.75)
PLAIN = {
    "relu": [({}, lambda x: np.where(x > 0, x, 0))],
    "linear": [({}, lambda x: x)],
    "thresholded_relu": [({"alpha": a}, lambda x, a=a: np.where(x > a, x, 0)) for a in THRESHOLDS],
    "leaky_relu": [({"alpha": a}, lambda x, a=a: np.where(x < 0, a * x, x)) for a in (0.25, 0)],
}


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
    with mpmath.workdps(40):
        exact = {name: [f(mpmath.mpf(a)) for a in x.tolist()] for name, f in PRECISE.items()}

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
    x = np.sort(sweep(dtype, 100, 10_000))
    y = activation(name, x)
    assert y.min() == (0 if name in ("sigmoid", "softplus") else -1)
    assert y.max() == (x.max() if name in ("elu", "softplus") else 1)
    assert (y[:-1] - y[1:] <= ULPS * np.spacing(np.abs(y[:-1]))).all()


# f(0), f(-inf), f(inf); and whether a denormal number is its own result (of either sign, or not).
SPECIAL = {
    "sigmoid": (0.5, 0, 1, ""), "tanh": (0, -1, 1, "+-"), "relu": (0, 0, np.inf, "+"),
    "linear": (0, -np.inf, np.inf, "+-"), "leaky_relu": (0, -np.inf, np.inf, "+"),
    "thresholded_relu": (0, 0, np.inf, ""), "hard_sigmoid": (0.5, 0, 1, ""),
    "affine": (0, -np.inf, np.inf, "+-"), "scaled_tanh": (0, -1, 1, "+-"),
    "elu": (0, -1, np.inf, "+-"), "softsign": (0, -1, 1, "+-"),
    "softplus": (np.log(2), 0, np.inf, ""),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(kernels, name, dtype):
    """In each lane of a vector, and without touching the lanes beside it."""
    assert SPECIAL.keys() == _activations.DEFAULTS.keys()
    tiny = float(np.finfo(dtype).smallest_subnormal)
    at_zero, low, high, kept = SPECIAL[name]
    values = {0: at_zero, np.inf: high, -np.inf: low, np.nan: np.nan,
              tiny: tiny if "+" in kept else at_zero, -tiny: -tiny if "-" in kept else at_zero}
    around = activation(name, np.full(64, 0.5, dtype))
    for lane in range(64):
        for value, wanted in values.items():
            x, y = np.full(64, 0.5, dtype), around.copy()
            x[lane], y[lane] = value, wanted
            np.testing.assert_array_equal(activation(name, x), y)


@pytest.mark.parametrize("name", PLAIN)
def test_exact_ones(kernels, name, dtype):
    x = sweep(dtype, 20, 1000)
    for parameters, f in PLAIN[name]:
        np.testing.assert_array_equal(activation(name, x, **parameters), f(x))


@pytest.mark.parametrize(("alpha", "beta"), [(1 / 6, 0.5), (0.2, 0.5), (-0.3, 0.1), (0, 0.25)])
def test_affine_and_hard_sigmoid(kernels, alpha, beta, dtype):
    """alpha x + beta with one rounding or two, which may be large where the terms cancel."""
    x = np.random.default_rng(0).uniform(-9, 9, 9999).astype(dtype)
    a, b = np.longdouble(dtype(alpha)), np.longdouble(dtype(beta))
    exact = a * x + b
    error = np.finfo(dtype).eps * (np.abs(a * x) + np.abs(b))
    affine = activation("affine", x, alpha=alpha, beta=beta)
    assert (np.abs(affine - exact) <= error).all()
    np.testing.assert_array_equal(
        activation("hard_sigmoid", x, alpha=alpha, beta=beta), np.clip(affine, 0, 1))


@pytest.mark.parametrize("alpha", [0.0, 1.7, -1.7])
def test_scaled_tanh_and_elu(kernels, alpha, dtype):
    x = sweep(dtype, 100, 10_000)
    x = x[np.abs(x) < np.finfo(dtype).max / 4]             # alpha x must not overflow
    scaled = activation("scaled_tanh", x, alpha=alpha, beta=-0.5)
    np.testing.assert_array_equal(scaled, dtype(alpha) * activation("tanh", dtype(-0.5) * x))
    if alpha >= 0:
        elu = activation("elu", x)
        np.testing.assert_array_equal(
            activation("elu", x, alpha=alpha), np.where(x < 0, dtype(alpha) * elu, elu))


@pytest.mark.parametrize("name", SPECIAL)
def test_clip(kernels, name, dtype):
    x = np.append(sweep(dtype, 2, 200), [np.inf, -np.inf, np.nan]).astype(dtype)
    clip = 0.3
    np.testing.assert_array_equal(activation(name, x, clip=clip),
                                  activation(name, np.clip(x, -dtype(clip), dtype(clip))))


def test_zero(kernels, dtype):
    """Zero, of whatever sign: keeping that of -0.0 would cost every tanh two operations."""
    assert activation("tanh", np.array([0.0, -0.0], dtype)).tolist() == [0.0, 0.0]
