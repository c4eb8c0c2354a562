"""What several test files use: kernels, arrays and layouts, calls, comparisons, memory, threads.

pyproject.toml puts this folder on the path of pytest, so that `from helpers import same` works.
Fixtures stand in conftest.py.

A *call* is a dict of the arrays that go into a forward and backward of a GRU, time-major
and batched (x, h_0, d_output, d_h_n; all but x may be missing); its *results* are a dict too
(output, h_n, dx, dh_0, and the gradients of the parameters by their names).
"""

import gc
import math
import os
import subprocess
import sys
import threading
import tracemalloc
from contextlib import contextmanager

import numpy as np

from gru_c import _activations, _core, reference

F32, F64 = np.float32, np.float64
STACKED = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
BLOCKS = ("Wrx", "Wzx", "Wnx", "Wrh", "Wzh", "Wnh", "brx", "bzx", "bnx", "brh", "bzh", "bnh")

in_use = {"isa": _core.isa, "engine": _core.engine}        # what kernels_of has bound


# ---- kernels ------------------------------------------------------------------------------------

@contextmanager
def kernels_of(isa, engine):
    """Other kernels in use, chosen as GRU_C_ISA and GRU_C_ENGINE choose them at import."""
    _core.load_quantized()                                 # once, so not later in place of others

    def bind(isa, engine):
        _core.bind(_core.contexts(isa, engine))
        _core.bind_quantized(isa)
        in_use.update(isa=isa, engine=engine)

    bind(isa, engine)
    try:
        yield
    finally:
        bind(_core.isa, _core.engine)


def activate(name, x, y, clip=math.inf, **parameters):
    """y = f(x) by the kernels in use, f an activation: contiguous, whole lines."""
    from gru_c._core import testing

    f = _activations.activation({"name": name, **parameters}, "activation")
    testing.activate(_core.contexts(**in_use), *f.core, clip, x, y)


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
    assert copy.size == 0 or a.itemsize == 1 or not copy.flags.aligned
    return copy


def swapped_bytes(a):
    return a.astype(a.dtype.newbyteorder())


def unaligned_rows(a):
    """A copy with rows of one byte more."""
    if a.ndim == 1:
        return unaligned(a)
    padded = np.pad(a.view(np.uint8), [(0, 0)] * (a.ndim - 1) + [(0, 1)])
    return np.ndarray(a.shape, a.dtype, padded.tobytes(), strides=(
        *(step // a.strides[-2] * (a.strides[-2] + 1) for step in a.strides[:-1]), a.itemsize))


def third_of_an_axis(a):
    """A copy that takes every third place of the second axis (the only one of a row)."""
    axis = a.ndim // 2
    return np.repeat(a, 3, axis=axis)[(slice(None),) * axis + (slice(None, None, 3),)]


def columns_of_a_wider_one(a):
    sides = [(0, 0)] * (a.ndim - 1) + [(3, 2)]
    return np.pad(a, sides, constant_values=np.nan if a.dtype.kind == "f" else 0)[..., 3:-2]


# The same numbers in memory of other layouts, and not in the caller's array.
LAYOUTS = {
    "plain": np.copy,
    "Fortran order": lambda a: a.copy(order="F"),
    "transposed": lambda a: a.swapaxes(0, -1).copy().swapaxes(0, -1),
    "backwards": lambda a: a[..., ::-1].copy()[..., ::-1],
    "rows backwards": lambda a: a[::-1].copy()[::-1],
    "all backwards": lambda a: np.flip(np.flip(a).copy()),
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every third, second axis": third_of_an_axis,
    "columns of a wider one": columns_of_a_wider_one,
    "unaligned": unaligned,
    "subclass": lambda a: a.copy().view(type("Sub", (np.ndarray,), {})),
}
# What a caller may pass, but the core cannot write to.
INPUTS = LAYOUTS | {
    "unaligned rows": unaligned_rows,
    "read-only": read_only,
    "byte-swapped": swapped_bytes,
    "byte-swapped, every other": lambda a: np.repeat(swapped_bytes(a), 2, axis=-1)[..., ::2],
    "list": lambda a: a.tolist(),
    "tuples": lambda a: tuple(a.tolist()),
    "memoryview": memoryview,
    "__array__": lambda a: type("Has", (), {"__array__": lambda self, dtype=None, copy=None: a})(),
}


# ---- calls and results --------------------------------------------------------------------------

def draw(gru, steps, rows, seed=0):
    """A call with all its arrays: standard normal numbers, in the dtype of the model."""
    rng = np.random.default_rng(seed)
    state = (gru.num_layers, rows, gru.hidden_size)
    shapes = {
        "x": (steps, rows, gru.input_size),
        "h_0": state,
        "d_output": (steps, rows, gru.hidden_size),
        "d_h_n": state,
    }
    return {name: rng.standard_normal(shape).astype(gru.dtype) for name, shape in shapes.items()}


def run(gru, x, h_0=None, d_output=None, d_h_n=None, **options):
    """Results of the package; the arrays may be in any layout that the model takes."""
    output, h_n = gru(x, h_0, **options)
    dx, dh_0 = gru.backward(d_output, d_h_n)
    return {"output": output, "h_n": h_n, "dx": dx, "dh_0": dh_0, **gru.grads}


def expected(gru, x, h_0=None, d_output=None, d_h_n=None, **options):
    """Results of reference.py in float64, for the same weights."""
    def in_float64(arrays):
        return {name: None if a is None else a.astype(np.float64) for name, a in arrays.items()}

    call = {"x": x, "h_0": h_0, "d_output": d_output, "d_h_n": d_h_n}
    return reference.run(in_float64(gru.state_dict()), **in_float64(call),
                         reset_after=gru.reset_after, **options)


def train_once(model, x, *deltas, h=None):
    """A forward and a backward of a GRU or GRUCell: all results in a list."""
    results = model(x, h)
    results = [*results] if isinstance(results, tuple) else [results]
    return [*results, *model.backward(*deltas), *model.grads.values()]


def everything(model, x, h, *deltas):
    """What the model says about these inputs in both modes."""
    results = train_once(model.train(), x, *deltas, h=h)
    evaluated = model.eval()(x, h)
    model.train()
    return results + ([*evaluated] if isinstance(evaluated, tuple) else [evaluated])


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


def assert_close(got, want, gru):
    """Two dicts of results agree within the tolerance for the model. T counts the steps of all
    layers; K is the longest sum: I + H forward, 3 H and the rows of the batch backward."""
    assert got.keys() == want.keys()
    steps, rows, _ = want["output"].shape
    forward = gru.input_size + gru.hidden_size
    for name, value in want.items():
        assert got[name].dtype == gru.dtype, name
        backward = name not in ("output", "h_n")
        terms = max(forward, 3 * gru.hidden_size, rows) if backward else forward
        allowed = tolerance(gru.dtype, terms, steps * gru.num_layers, backward)
        assert error(got[name], value) <= allowed, name


def assert_results(got, want):
    """Two dicts of results in float64 agree to 1e-12."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == F64, name
        assert error(got[name], value) <= 1e-12, name


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


def differences(loss, arrays, step=1e-5):
    """Central differences of `loss(**arrays)` by each element of the arrays."""
    result = {name: np.empty_like(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + step
            above = loss(**arrays)
            array[index] = kept - step
            result[name][index] = (above - loss(**arrays)) / (2 * step)
            array[index] = kept
    return result


# ---- memory, and code in the middle of a call ---------------------------------------------------

def growths(work):
    """Bytes that Python and gru_c have more after a round of work than before it, ten times.
    tracemalloc sees arrays, packed weights (PyTraceMalloc_Track) and Python objects alike."""
    tracemalloc.start()
    try:
        for _ in range(10):
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            work()
            gc.collect()
            yield tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


class Meanwhile:
    """An argument whose conversion does something else: it comes in the middle of a call."""

    def __init__(self, array, action):
        self.array, self.action = array, action

    def __array__(self, dtype=None, copy=None):
        self.action()
        return self.array


# ---- threads and other interpreters -------------------------------------------------------------

def at_once(*actions):
    """Run each on a thread of its own, all from the same moment on; what they return. Python's
    threads take turns as often as they can."""
    barrier, results = threading.Barrier(len(actions)), [None] * len(actions)

    def run(index):
        barrier.wait()
        results[index] = actions[index]()

    threads = [threading.Thread(target=run, args=[index]) for index in range(len(actions))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    return results


def python(script, *arguments, **environment):
    """Run a script in a new interpreter; its standard output. Anything on stderr is an error."""
    done = subprocess.run([sys.executable, "-c", script, *arguments], env=os.environ | environment,
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
