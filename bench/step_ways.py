"""The ways to take one step after the other that `python -m bench.step` times.

A way is a function `run(passes, output)`: `passes` times all steps of x, one row, each pass from a
state of zeros. `output` (steps, H) gets the state after each step. It is None where the time is
taken: states then go to one place again and again, as those of a stream do.

The functions in `MAKERS` make ways from a problem and a number of threads, by name. What is not
installed raises `Unsupported`.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np

from . import peers
from .peers import WEIGHT_NAMES
from .peers.base import installed
from .peers.build import shared_library

Problem = Mapping[str, np.ndarray]
Ways = dict[str, Callable[..., None]]  # by name: run(passes, output=None)

WITHIN = "C, of one call of all steps"
ONEDNN = "oneDNN, loop in C++"
ONNX = "ONNX Runtime, run", "ONNX Runtime, I/O binding"

HERE = Path(__file__).parent


def address(array: np.ndarray) -> int:
    return array.ctypes.data


# ---- gru_c -------------------------------------------------------------------------------------


def model_of(problem: Problem):
    """A gru_c.GRU with the weights of a problem."""
    import gru_c

    (_, _, I), H = problem["x"].shape, problem["h_0"].shape[2]  # noqa: E741
    gru = gru_c.GRU(I, H, rng=0).eval()
    gru.load_state_dict({f"{name}_l0": problem[f"{name}_l0"] for name in WEIGHT_NAMES})
    return gru


class Steps:
    """A stream for the functions of gru_c.h, the steps that it takes, and where their states go."""

    def __init__(self, problem: Problem, threads: int):
        self.stream = model_of(problem).stream(num_threads=threads)
        self.address = self.stream.address
        self.x = np.ascontiguousarray(problem["x"][:, 0])
        self.hidden = self.stream.model.hidden_size

    def place(self, output: np.ndarray | None) -> np.ndarray:
        """(steps, H), or (1, H) for states that go to one place."""
        return np.empty((1, self.hidden), np.float32) if output is None else output

    def stride(self, output: np.ndarray) -> int:
        """From the state of a step to that of the next, in numbers."""
        return self.hidden if len(output) == len(self.x) else 0


def check(status: int) -> None:
    if status:
        raise RuntimeError(f"a function of gru_c.h returned {status}")


def _header() -> tuple[str, list[Path]]:
    """The flag for the compiler, and the file."""
    import gru_c

    return f"-I{gru_c.get_include()}", [Path(gru_c.get_include()) / "gru_c.h"]


@functools.cache
def _driver() -> ctypes.CDLL:
    """step_driver.c, compiled, after its import of gru_c."""
    flag, files = _header()
    flags = ["-O2", "-std=c11", flag, f"-I{sysconfig.get_path('include')}"]
    path = str(shared_library(HERE / "step_driver.c", flags, files))
    ctypes.PyDLL(path).driver_import()  # which raises its ImportError
    driver = ctypes.CDLL(path)
    pointer, count = ctypes.c_void_p, ctypes.c_ssize_t
    driver.driver_model.argtypes = [count, count, *[pointer] * 4]
    driver.driver_model.restype = pointer
    driver.driver_stream.argtypes = [pointer, count, count, count, pointer, pointer, count]
    driver.driver_forward.argtypes = [pointer, count, count, pointer, pointer]
    return driver


def from_c(problem: Problem, threads: int) -> Ways:
    driver, steps = _driver(), Steps(problem, threads)

    def run(passes, output=None):
        place = steps.place(output)
        check(driver.driver_stream(steps.address, passes, *steps.x.shape, address(steps.x),
                                   address(place), steps.stride(place)))

    return {"C": run}


def within_a_call(problem: Problem, threads: int) -> Ways:
    """A step as a part of one call of all steps, from C."""
    driver, x = _driver(), np.ascontiguousarray(problem["x"][:, 0])
    weights = [problem[f"{name}_l0"] for name in WEIGHT_NAMES]
    sizes = x.shape[1], weights[1].shape[1]
    model = driver.driver_model(*sizes, *map(address, weights))  # for the life of the process
    states = np.empty((len(x), sizes[1]), np.float32)

    def run(passes, output=None):
        to = states if output is None else output
        check(driver.driver_forward(model, passes, len(x), address(x), address(to)))

    return {WITHIN: run}


@functools.cache
def _cython_loop() -> ModuleType:
    """step_loop.pyx, compiled against the .pxd of the gru_c that is imported."""
    import gru_c

    installed("Cython")
    flag, files = _header()
    package = Path(gru_c.__file__).parent
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "step_loop.c"
        command = [sys.executable, "-m", "cython", "-I", str(package.parent), "-o", str(source),
                   str(HERE / "step_loop.pyx")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"step_loop.pyx does not compile: {done.stderr.strip()[-500:]}")
        flags = ["-O2", flag, f"-I{sysconfig.get_path('include')}"]
        path = str(shared_library(source, flags, files))
    loader = ExtensionFileLoader("step_loop", path)
    module = module_from_spec(spec_from_file_location("step_loop", path, loader=loader))
    loader.exec_module(module)
    return module


def from_cython(problem: Problem, threads: int) -> Ways:
    loop, steps = _cython_loop().run, Steps(problem, threads)
    return {"Cython": lambda passes, output=None: check(
        loop(steps.address, passes, steps.x, steps.place(output)))}


@functools.cache
def _numba_loop() -> Callable[..., int]:
    """The loop of step_driver.c, compiled by Numba."""
    installed("numba")
    import numba
    from numba.extending import get_cython_function_address

    integer = ctypes.c_ssize_t  # which Numba's own integers are; pointers go as addresses
    reset, step = (
        ctypes.CFUNCTYPE(ctypes.c_int, *[integer] * count)(
            get_cython_function_address("gru_c.cython_gru", f"gru_stream_{name}_f32"))
        for name, count in {"reset": 2, "step": 3}.items())

    @numba.njit
    def loop(stream, passes, steps, x, x_stride, output, output_stride):
        status = 0
        for _ in range(passes):
            status |= reset(stream, 0)
            for t in range(steps):
                status |= step(stream, x + t * x_stride, output + t * output_stride)
        return status

    return loop


def from_numba(problem: Problem, threads: int) -> Ways:
    loop, steps = _numba_loop(), Steps(problem, threads)

    def run(passes, output=None):
        x, place = steps.x, steps.place(output)
        check(loop(steps.address, passes, len(x), address(x), x.strides[0], address(place),
                   x.itemsize * steps.stride(place)))

    return {"Numba": run}


def from_python(problem: Problem, threads: int) -> Ways:
    stream = model_of(problem).stream(num_threads=threads)
    rows, out = list(problem["x"][:, 0]), np.empty(stream.model.hidden_size, np.float32)

    def run(passes, output=None):
        step = stream.step
        for _ in range(passes):
            stream.reset()
            if output is None:
                for x_t in rows:
                    step(x_t, out=out)
            else:
                for x_t, h_t in zip(rows, output, strict=True):
                    step(x_t, out=h_t)

    return {"Python": run}


# ---- other libraries ---------------------------------------------------------------------------


def _peer(name: str, problem: Problem, threads: int) -> peers.PeerBase:
    """A peer whose call is the first step."""
    first = {"x": problem["x"][:1], "d_output": problem["d_output"][:1]}
    return peers.load(name)({**problem, **first}, threads)


def onednn(problem: Problem, threads: int) -> Ways:
    peers.load("onednn").version()
    peer, x = _peer("onednn", problem, threads), problem["x"]
    return {ONEDNN: lambda passes, output=None: peer.stream(x, passes, output)}


def onnxruntime(problem: Problem, threads: int) -> Ways:
    """The session's `run`, and with I/O binding."""
    peers.load("onnxruntime").version()
    peer = _peer("onnxruntime", problem, threads)
    rows = list(problem["x"][:, None])  # (1, 1, I)
    return dict(zip(ONNX, (_plain(peer, rows), _bound(peer, rows)), strict=True))


def _plain(peer, rows):
    session, zeros = peer.session, peer.feed["h_0_l0"]

    def run(passes, output=None):
        call, names = session.run, ["Y"]
        for _ in range(passes):
            h = zeros
            for t, x_t in enumerate(rows):
                h = call(names, {"X": x_t, "h_0_l0": h})[0][0]  # Y (1, 1, 1, H)
                if output is not None:
                    output[t] = h[0]

    return run


def _bound(peer, rows):
    """The states of two buffers change places, so nothing but x is copied."""
    session, make = peer.session, peer.ort.OrtValue.ortvalue_from_numpy
    x, states = np.empty_like(rows[0]), np.zeros((2, *peer.feed["h_0_l0"].shape), np.float32)
    bindings = []
    for h, h_next in (states, states[::-1]):
        binding = session.io_binding()
        binding.bind_ortvalue_input("X", make(x))
        binding.bind_ortvalue_input("h_0_l0", make(h))
        binding.bind_ortvalue_output("Y", make(h_next[None]))
        bindings.append(binding)

    def run(passes, output=None):
        call, copy = session.run_with_iobinding, np.copyto
        for _ in range(passes):
            states[0] = 0
            for t, x_t in enumerate(rows):
                copy(x, x_t)
                call(bindings[t % 2])
                if output is not None:
                    output[t] = states[(t + 1) % 2, 0]

    return run


MAKERS: dict[str, Callable[[Problem, int], Ways]] = {
    "C": from_c,
    "Cython": from_cython,
    "Numba": from_numba,
    "Python": from_python,
    WITHIN: within_a_call,
    ONEDNN: onednn,
    "ONNX Runtime": onnxruntime,
}
THREADED = ("C", ONEDNN)  # those that are timed with two threads, too
