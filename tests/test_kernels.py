"""Which kernels run: the choice at import, both engines, BLAS without its threads, no stalls."""

import inspect
import os
from functools import cache
from time import perf_counter

import numpy as np
import pytest
from helpers import activate, assert_close, draw, kernels_of, normal, python, run
from numpy.lib.stride_tricks import as_strided

from gru_c import GRU, _core

ISAS = _core.core.instruction_sets()
on_all_panels = pytest.mark.parametrize(
    "kernels", [(isa, "panel") for isa in ISAS], indirect=True, ids="-".join)


def child(function, *arguments, **environment):
    """What a function of this file, which stands for itself, returns in a process of its own."""
    code = f"{inspect.getsource(function)}\nprint({function.__name__}(*{arguments}))"
    return python(code, **environment).split()


@pytest.fixture
def one_thread(set_threads):
    set_threads(1)


# ---- the choice ---------------------------------------------------------------------------------

def test_import_takes_the_best():
    assert _core.isa == (os.environ.get("GRU_C_ISA") or ISAS[0])
    assert _core.engine == (os.environ.get("GRU_C_ENGINE") or "panel")
    assert ISAS[-1] == "baseline"


def digest():
    """What runs here, and the bits that a forward and backward give."""
    import hashlib

    import numpy as np

    from gru_c import GRU, _core

    bits = hashlib.sha256()
    for dtype in (np.float32, np.float64):
        gru = GRU(100, 257, dtype=dtype, rng=0)
        x = np.random.default_rng(0).standard_normal((3, 5, 100)).astype(dtype)
        output, h_n = gru(x)
        gru.backward(output, h_n)
        for array in (output, *gru.grads.values()):
            bits.update(array.tobytes())
    return f"{_core.isa} {_core.engine} {bits.hexdigest()}"


def test_environment_chooses(kernels):
    """A process started with the variables computes what the kernels that they name compute."""
    isa, engine = kernels
    found = child(digest, GRU_C_ISA=isa, GRU_C_ENGINE=engine)
    assert found[:2] == [isa, engine]
    if engine == "panel":                                  # no one promises the bits of a BLAS
        assert found[2] == digest().split()[2]


# ---- engines ------------------------------------------------------------------------------------

@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sizes", [(300, 130, 33, 5), (3, 600, 2, 3), (64, 64, 100, 4)], ids=str)
def test_engines_agree(isa, sizes, dtype, reset_after):
    """Deep, wide and tall products; the panel kernel against BLAS, to rounding."""
    I, H, N, T = sizes  # noqa: E741
    results = {}
    for engine in _core.ENGINES:
        with kernels_of(isa, engine):                      # weights are packed for the kernels
            gru = GRU(I, H, dtype=dtype, reset_after=reset_after, rng=0)
            results[engine] = run(gru, **draw(gru, T, N))
    assert_close(results["panel"], results["blas"], gru)


@pytest.mark.parametrize("view", [
    lambda a: np.broadcast_to(a[:, :1], a.shape), lambda a: a[:, ::-1], lambda a: a[::-1],
    lambda a: as_strided(a, strides=(a.strides[0], a.itemsize, a.itemsize)),
    lambda a: as_strided(a[:1, :1], strides=(2**61, 7, a.itemsize)),
    lambda a: as_strided(a[:, :1], strides=(a.strides[0], 2**61, a.itemsize)),
], ids=["same rows", "rows backwards", "backwards", "overlapping", "one row", "one row a step"])
def test_rows_as_no_blas_takes_them(view, dtype):
    a = view(normal(4, 7, 5, dtype=dtype))
    with kernels_of(_core.isa, "blas"):
        gru = GRU(5, 6, dtype=dtype, rng=0).eval()
        got, want = (dict(zip(("output", "h_n"), gru(x), strict=True)) for x in (a, a.copy()))
        assert_close(got, want, gru)


def cpu_share_of_other_threads():
    """CPU time of the process beside this thread's own, as a part of it: first while a large model
    runs, then while BLAS makes a product that it does thread, if it has threads."""
    from time import process_time, thread_time

    import numpy as np
    from scipy.linalg.blas import dgemm

    from gru_c import GRU

    def share(work, seconds):
        process, thread = process_time(), thread_time()
        while thread_time() - thread < seconds:
            work()
        thread = thread_time() - thread
        return (process_time() - process - thread) / thread

    gru = GRU(512, 512, rng=0)
    x = np.ones((4, 130, 512), np.float32)
    d = np.ones((4, 130, 512), np.float32)

    def train():
        gru(x)
        gru.backward(d)

    square = np.ones((1000, 1000), order="F")
    return f"{share(train, 0.5)} {share(lambda: dgemm(1.0, square, square), 0.1)}"


def test_blas_never_threads():
    """No call is large enough: OpenBLAS#5836 corrupts products that several of our callers' threads
    make at once, and a pool of threads that wakes is not ours to place."""
    ours, large = map(float, child(
        cpu_share_of_other_threads,
        GRU_C_ENGINE="blas", GRU_C_NUM_THREADS="1", OPENBLAS_NUM_THREADS="2"))
    if large < 0.2:
        pytest.skip("BLAS has one thread here, whatever the size")
    assert ours < 0.02


# ---- denormal numbers ---------------------------------------------------------------------------

def slowdown(work, ordinary):
    """Time of one call over time of another, the best of several in turn."""
    times = [[], []]
    for _ in range(7):
        for call, taken in zip((work, ordinary), times, strict=True):
            start = perf_counter()
            call()
            taken.append(perf_counter() - start)
    return min(times[0]) / min(times[1])


@cache
def processor_stalls():
    """Whether each instruction with a denormal operand costs a hundred cycles or more, as on
    Intel's processors: then NumPy's products stall, too, and no kernel can do better."""
    normal = np.random.default_rng(0).standard_normal(1 << 14).astype(np.float32)
    denormal = normal * (np.finfo(np.float32).smallest_normal / 16)
    y = np.empty_like(normal)
    return slowdown(lambda: np.multiply(denormal, np.float32(3), out=y),
                    lambda: np.multiply(normal, np.float32(3), out=y)) > 5


@pytest.fixture
def no_processor_stalls():
    if processor_stalls():
        pytest.skip("arithmetic on denormal numbers is slow on this processor, whoever does it")


@on_all_panels
@pytest.mark.usefixtures("no_processor_stalls")
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_activations_do_not_stall(name, kernels, dtype):
    """Where x is denormal, and where e^x is."""
    info = np.finfo(dtype)
    normal = np.random.default_rng(0).standard_normal(1 << 14).astype(dtype)
    end = np.log(info.smallest_normal) - np.abs(normal)
    y = np.empty_like(normal)
    for x in (normal * info.smallest_normal / 16, end):
        x = x.astype(dtype)
        assert slowdown(lambda x=x: activate(name, x, y),
                        lambda: activate(name, normal, y)) < 10


@on_all_panels
@pytest.mark.usefixtures("no_processor_stalls")
@pytest.mark.parametrize("small", [("x", "h_0"), ("d_output", "d_h_n")], ids="-".join)
def test_denormal_arrays_do_not_stall(small, kernels, one_thread, dtype, reset_after):
    gru = GRU(64, 64, bias=False, dtype=dtype, reset_after=reset_after, rng=0)
    call = draw(gru, 10, 16)
    scale = np.finfo(dtype).smallest_normal / 16
    tiny = call | {name: call[name] * scale for name in small}
    assert slowdown(lambda: run(gru, **tiny), lambda: run(gru, **call)) < 5


@on_all_panels
@pytest.mark.usefixtures("no_processor_stalls")
@pytest.mark.parametrize("sign", [1, -1])
def test_vanishing_gradients_do_not_stall(sign, kernels, one_thread, dtype, reset_after):
    """oneDNN#561: all weights -0.1, all inputs 0.1 or -0.1, the one 20 times slower than the other.
    The gradient of the last step fades to denormal numbers on its way back."""
    gru = GRU(64, 64, dtype=dtype, reset_after=reset_after, rng=0)
    call = draw(gru, 250, 4)
    ordinary = GRU(64, 64, dtype=dtype, reset_after=reset_after, rng=0)
    gru.load_state_dict({name: np.full_like(w, -0.1) for name, w in gru.state_dict().items()})
    alike = {"x": np.full_like(call["x"], sign * 0.1), "d_h_n": np.ones_like(call["d_h_n"])}
    assert slowdown(lambda: run(gru, **alike), lambda: run(ordinary, **call)) < 5
