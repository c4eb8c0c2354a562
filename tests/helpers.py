"""What several test files use: random numbers, odd layouts, comparisons, other interpreters.

pyproject.toml puts this folder on the path of pytest, so that `from helpers import same` works.
Fixtures stand in conftest.py.
"""

import math
import os
import subprocess
import sys

import numpy as np

from gru_c import _core

F32, F64 = np.float32, np.float64
STACKED = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
BLOCKS = ("Wrx", "Wzx", "Wnx", "Wrh", "Wzh", "Wnh", "brx", "bzx", "bnx", "brh", "bzh", "bnh")

in_use = {"engine": _core.engine}        # what conftest.kernels_of has bound


def promises_bits():
    """Whether the engine in use does. A BLAS does not: the bits of a row may depend on the number
    of rows, on alignment, and on the kernels that it has for this processor."""
    return in_use["engine"] == "panel"


# ---- arrays -------------------------------------------------------------------------------------

def normal(*shape, dtype=F32, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def read_only(a):
    """A copy in memory that cannot be made writable."""
    return np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape)


def unaligned(a):
    """A copy that begins at an odd address."""
    copy = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    copy[...] = a
    assert copy.size == 0 or not copy.flags.aligned
    return copy


# ---- comparisons --------------------------------------------------------------------------------

def tolerance(dtype, terms=1, steps=1, backward=False):
    """The promise of the package: 1e-12 in float64, and in float32 what oneDNN's own tests allow,
    4 (1 + backward) ceil(log2(K T)) eps for sums of K terms over T steps.
    """
    if dtype == np.float64:
        return 1e-12
    factor = 4 * (1 + backward) * max(1, math.ceil(math.log2(terms * steps)))
    return factor * float(np.finfo(np.float32).eps)


def error(got, want):
    """The largest deviation, as a part of the largest magnitude of the wanted array (which counts
    as 1 if it is all zeros). Infinite where the shapes differ, or with a NaN on either side.
    """
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape or np.isnan(got).any() or np.isnan(want).any():
        return math.inf
    if not want.size:
        return 0.0
    return float(np.abs(got.astype(np.float64) - want).max() / (np.abs(want).max() or 1.0))


def assert_same_array(got, want, name=""):
    """The same bits, or with BLAS the same numbers to the tolerance of long sums (K T = 2**15)."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == want.dtype, name
    assert got.shape == want.shape, name
    if got.tobytes() == want.tobytes():
        return
    assert not promises_bits(), f"{name}: other bits"
    assert error(got, want) <= tolerance(want.dtype, 2**15, backward=True), name


def assert_same_bits(got, want):
    """Two dicts of results are the same in every bit; with BLAS, to the tolerance."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert_same_array(got[name], value, name)


def same(found, expected):
    """Two sequences of arrays have the same numbers (-0.0 is 0.0 here), shapes and dtypes; with
    BLAS, to the tolerance."""
    for a, b in zip(found, expected, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if not equal(a, b):
            np.testing.assert_array_equal(a, b)


def equal(a, b):
    """Whether `same` would accept two arrays, of one shape and dtype."""
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc") or (
        not promises_bits() and error(a, b) <= tolerance(b.dtype, 2**15, backward=True))


def train_once(model, x, *deltas, h=None):
    """A forward and a backward: all results."""
    results = model(x, h)
    results = [*results] if isinstance(results, tuple) else [results]
    return [*results, *model.backward(*deltas), *model.grads.values()]


# ---- other interpreters -------------------------------------------------------------------------

def python(script, *arguments, **environment):
    """Run a script in a new interpreter; its standard output. Anything on stderr is an error."""
    done = subprocess.run([sys.executable, "-c", script, *arguments], env=os.environ | environment,
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
