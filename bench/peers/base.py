"""What every peer shares: the interface, the timing loop, and the errors. No heavy import here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

WEIGHT_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
GRADIENT_NAMES = ("x", "h0", *WEIGHT_NAMES)

# To be set before anything is imported, so the harness starts a process with it for AVX2 runs.
AVX2_ENV = {
    "OPENBLAS_CORETYPE": "Haswell",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
}


class Unsupported(Exception):
    """The peer cannot do this case; the message says why and goes into the report."""


class Step(NamedTuple):
    """One way to ask for one step from Python: `to_numpy(call())` is the new state (N, H)."""

    call: Callable[[], Any]
    to_numpy: Callable[[Any], np.ndarray]


def installed(*distributions: str) -> tuple[str | None, str]:
    """(version, "") of the first distribution that is installed, else (None, the reason)."""
    for name in distributions:
        try:
            return metadata.version(name), ""
        except metadata.PackageNotFoundError:
            continue
    return None, f"{' / '.join(distributions)} is not installed"


def best_time(call: Callable[[], Any], repeats: int, number: int = 1) -> float:
    """Least seconds a call over `repeats` batches of `number` calls each."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(number):
            call()
        best = min(best, time.perf_counter() - start)
    return best / number


def reorder_gates(stacked: np.ndarray, order: tuple[int, int, int]) -> np.ndarray:
    """Stacked (3H, ...) with its three blocks in another order, contiguous."""
    blocks = stacked.reshape(3, -1, *stacked.shape[1:])
    return np.ascontiguousarray(blocks[list(order)]).reshape(stacked.shape)


ZRN = (1, 0, 2)  # r, z, n <-> z, r, n: its own inverse; Keras, ONNX, OpenVINO and oneDNN use it


def merged_bias(weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """(4, H): z, r, n of the input, n of the state; the biases of z and r are simply added."""
    b_ih = reorder_gates(weights["bias_ih"], ZRN).reshape(3, -1)
    b_hh = reorder_gates(weights["bias_hh"], ZRN).reshape(3, -1)
    return np.stack([b_ih[0] + b_hh[0], b_ih[1] + b_hh[1], b_ih[2], b_hh[2]])


class PeerBase:
    """One GRU layer of one library, at one shape, dtype and number of threads.

    Parameters
    ----------
    weights : mapping with weight_ih (3H, I), weight_hh (3H, H), bias_ih (3H,), bias_hh (3H,), in
        PyTorch's gate order r, z, n, for reset_after=True.
    shape : anything with T, N, I, H.
    dtype : float32 or float64, computed natively or refused.
    threads : the same number for every peer of a process, since PyTorch, TensorFlow and OpenMP keep
        it for the process.
    training : whether `train` is what will be called (else `infer`); libraries build differently
        for each.

    A subclass implements `build`, `_set_input`, `output` and, where it can, `_infer`, `_train`,
    `gradients`, `steps`. Conversions happen in `_set_input`, `output`, `gradients`: never in a call
    that is timed.
    """

    name = "?"
    dtypes: tuple[str, ...] = ("float32",)
    can_train = False
    # Whether AVX2_ENV holds the library to AVX2; if not, its AVX2 figures are its native ones.
    obeys_avx2_env = True

    _threads_of_process: int | None = None

    def __init__(self, weights, shape, dtype=np.float32, threads=1, training=False):
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.threads = int(threads)
        self.training = bool(training)
        if self.dtype.name not in self.dtypes:
            raise Unsupported(f"{self.name} has no {self.dtype.name} GRU on CPU")
        if self.training and not self.can_train:
            raise Unsupported(f"{self.name} does not train")
        self._claim_threads()
        self.weights = {
            name: np.ascontiguousarray(weights[name], self.dtype) for name in WEIGHT_NAMES
        }
        try:
            self.build()
        except ImportError as error:
            raise Unsupported(f"{self.name} cannot be imported: {error}") from error

    def _claim_threads(self) -> None:
        if PeerBase._threads_of_process is None:
            PeerBase._threads_of_process = self.threads
        if PeerBase._threads_of_process != self.threads:
            raise ValueError(
                "one process measures one number of threads: got "
                f"{self.threads} after {PeerBase._threads_of_process}"
            )

    # What a subclass writes.

    def build(self) -> None:
        raise NotImplementedError

    def _set_input(self, x: np.ndarray, h0: np.ndarray, d_output: np.ndarray | None) -> None:
        raise NotImplementedError

    def _infer(self) -> None:
        raise NotImplementedError

    def _train(self) -> None:
        raise NotImplementedError

    def steps(self) -> dict[str, Step]:
        """The ways to take a single step from Python (T = 1), by name."""
        raise Unsupported(f"{self.name} has no call of one step from Python")

    def output(self) -> np.ndarray:
        """All states (T, N, H) of the last `infer` or `train`."""
        raise NotImplementedError

    def gradients(self) -> dict[str, np.ndarray]:
        """x, h0, weight_ih, weight_hh, bias_ih, bias_hh of the last `train`, as PyTorch's."""
        raise Unsupported(f"{self.name} does not train")

    def scope(self) -> AbstractContextManager:
        """What a loop of timed calls runs in (torch: inference mode), so its cost is paid once."""
        return nullcontext()

    def close(self) -> None:
        """Give back what the peer holds."""

    # What the harness calls.

    def set_input(self, x: np.ndarray, h0: np.ndarray, d_output: np.ndarray | None = None) -> None:
        """Hand over x (T, N, I), h0 (N, H) and, for training, d_output (T, N, H): not timed."""
        T, N, I, H = self.shape.T, self.shape.N, self.shape.I, self.shape.H  # noqa: E741
        given = [x, h0, d_output if self.training else None]
        for index, size in enumerate([(T, N, I), (N, H), (T, N, H)][: 2 + self.training]):
            # A silent conversion here would compare a float32 result with a float64 problem.
            if given[index].shape != size or given[index].dtype != self.dtype:
                raise ValueError(f"input {index} is not {self.dtype} {size}")
            given[index] = np.ascontiguousarray(given[index])
        self._set_input(*given)

    def infer(self) -> None:
        if self.training:
            raise ValueError("this peer was made for training")
        with self.scope():
            self._infer()

    def train(self) -> None:
        if not self.training:
            raise ValueError("this peer was made for inference")
        with self.scope():
            self._train()

    def time_infer(self, repeats: int = 1, number: int = 1) -> float:
        """Least seconds of one inference."""
        with self.scope():
            return best_time(self._infer, repeats, number)

    def time_train(self, repeats: int = 1, number: int = 1) -> float:
        """Least seconds of one forward and backward with all gradients."""
        with self.scope():
            return best_time(self._train, repeats, number)
