"""What every peer shares: the interface, the timing loop, and the errors. No heavy import here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from ..shapes import shape

WEIGHT_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

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


def installed(*distributions: str) -> str:
    """The version of the first of these that is installed."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise Unsupported(f"{' / '.join(distributions)} is not installed")


def best_time(call: Callable[[], Any], repeats: int, number: int = 1) -> float:
    """Least seconds a call over `repeats` batches of `number` calls each."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(number):
            call()
        best = min(best, time.perf_counter() - start)
    return best / number


def to_zrn(stacked: np.ndarray) -> np.ndarray:
    """Stacked (3H, ...) with r and z exchanged: Keras, ONNX, OpenVINO and oneDNN have z first."""
    r, z, n = np.split(stacked, 3)
    return np.concatenate([z, r, n])


def merged_bias(weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """(4, H): z, r, n of the input, n of the state; the biases of z and r are simply added."""
    r_ih, z_ih, n_ih = np.split(weights["bias_ih"], 3)
    r_hh, z_hh, n_hh = np.split(weights["bias_hh"], 3)
    return np.stack([z_ih + z_hh, r_ih + r_hh, n_ih, n_hh])


class PeerBase:
    """One GRU layer of one library, with the weights and data of one problem.

    Parameters
    ----------
    problem : {name: array}, see `random_problem`; shape and dtype are the arrays'. Weights are in
        PyTorch's gate order r, z, n, for reset_after=True.
    threads : the same number for every peer of a process, since PyTorch, TensorFlow and OpenMP keep
        it for the process.
    training : whether a call is a forward and backward with all gradients, else an inference;
        libraries build differently for each.

    A subclass has `build()`, which makes the model of `weights`, `_set_input(x, h_0, d_output)`,
    `_infer()`, `output()` and, where it can, `_train()`, `gradients()`, `steps()`. Conversions
    happen in `_set_input`, `output`, `gradients`: never in a call that is timed.
    """

    name = "?"
    distributions: tuple[str, ...] = ()  # one of them has to be installed
    dtypes: tuple[str, ...] = ("float32",)
    can_train = False
    # Whether AVX2_ENV holds the library to AVX2; if not, its AVX2 figures are its native ones.
    obeys_avx2_env = True
    called_from = "Python"  # what language the loop of timed calls is in

    @classmethod
    def version(cls) -> str:
        """Of the installed library, which is not imported; `Unsupported` if there is none."""
        return installed(*cls.distributions)

    def __init__(self, problem: Mapping[str, np.ndarray], threads: int = 1, training: bool = False):
        x, h_0 = problem["x"], problem["h_0"]
        self.shape, self.dtype = shape(*x.shape, h_0.shape[1]), x.dtype
        self.threads, self.training = threads, training
        self.weights = {name: problem[name] for name in WEIGHT_NAMES}
        if self.dtype.name not in self.dtypes:
            raise Unsupported(f"{self.name} has no {self.dtype.name} GRU on CPU")
        if self.training and not self.can_train:
            raise Unsupported(f"{self.name} does not train")
        try:
            self.build()
        except ImportError as error:
            raise Unsupported(f"{self.name} cannot be imported: {error}") from error
        self._set_input(x, h_0, problem["d_output"])

    # What a subclass writes.

    def output(self) -> np.ndarray:
        """All states (T, N, H) of the last call."""
        raise NotImplementedError

    def gradients(self) -> dict[str, np.ndarray]:
        """dx, dh_0, dweight_ih, dweight_hh, dbias_ih, dbias_hh of the last call, as PyTorch's."""
        raise NotImplementedError

    def steps(self) -> dict[str, Step]:
        """The ways to take a single step from Python, by name; the peer has T = 1, no training."""
        raise NotImplementedError

    def scope(self) -> AbstractContextManager:
        """What a loop of timed calls runs in (torch: inference mode), so its cost is paid once."""
        return nullcontext()

    def close(self) -> None:
        """Give back what the peer holds."""

    # What the harness calls.

    def run(self) -> None:
        """One call."""
        self.time(1, 1)

    def time(self, repeats: int, number: int) -> float:
        """Least seconds of a call over `repeats` batches of `number` calls."""
        with self.scope():
            return best_time(self._train if self.training else self._infer, repeats, number)
