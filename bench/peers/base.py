"""What every peer shares: the interface, the timing loop, and the errors. No heavy import here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from ..shapes import Shape, shape

WEIGHT_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

# To be set before anything is imported, so the harness starts a process with it for AVX2 runs.
AVX2_ENV = {
    "OPENBLAS_CORETYPE": "Haswell",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",  # PyTorch's products of int8 and float16 weights
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


def suffixes(layers: int, directions: int) -> list[str]:
    """What the names of parameters end in, in PyTorch's order: by layer, then by direction."""
    ends = ("", "_reverse")[:directions]
    return [f"_l{layer}{end}" for layer in range(layers) for end in ends]


def shape_of(problem: Mapping[str, np.ndarray]) -> Shape:
    """The shape that a problem was made for, whatever its label."""
    directions = 1 + ("weight_ih_l0_reverse" in problem)
    layers, _, H = problem["h_0"].shape
    return shape(*problem["x"].shape, H, layers=layers // directions, directions=directions,
                 ragged="lengths" in problem)


def zeros_past_end(sequence: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`sequence` (T, N, ...) with zeros past the end of each row."""
    past = np.arange(len(sequence))[:, None] >= lengths
    return np.where(past[:, :, None], sequence.dtype.type(0), sequence)


def padded(problem: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A ragged problem as one of T steps, whose lengths no library is told.

    Its results are right before the end of a row, and its gradients, as d_output is zero past it.
    """
    if shape_of(problem).directions > 1:
        raise Unsupported("padded, a reverse direction begins in the padding")
    return {"ends" if name == "lengths" else name: array for name, array in problem.items()}


def to_zrn(stacked: np.ndarray) -> np.ndarray:
    """Stacked (3H, ...) with r and z exchanged: Keras, ONNX, OpenVINO and oneDNN have z first."""
    r, z, n = np.split(stacked, 3)
    return np.concatenate([z, r, n])


def merged_bias(weights: Mapping[str, np.ndarray], reset_after: bool = True) -> np.ndarray:
    """(4, H): z, r, n of the input, n of the state; the biases of z and r are simply added.

    With the reset gate before the product (3, H), as those of n are added, too.
    """
    r_ih, z_ih, n_ih = np.split(weights["bias_ih"], 3)
    r_hh, z_hh, n_hh = np.split(weights["bias_hh"], 3)
    ns = [n_ih, n_hh] if reset_after else [n_ih + n_hh]
    return np.stack([z_ih + z_hh, r_ih + r_hh, *ns])


class PeerBase:
    """The GRU of one library, with the weights and data of one problem.

    Parameters
    ----------
    problem : {name: array}, see `random_problem`; shape and dtype are the arrays'. Weights are in
        PyTorch's gate order r, z, n, for reset_after=True. Where it has lengths, the library is
        told them in its own way.
    threads : the same number for every peer of a process, since PyTorch, TensorFlow, JAX and OpenMP
        keep it for the process.
    training : whether a call is a forward and backward with all gradients, else an inference;
        libraries build differently for each.

    A subclass has `build()`, which makes the model of `parts`, `_set_input(x, h_0, d_output)`,
    `_infer()`, `output()` and, where it can, `_train()`, `gradients()`, `steps()`. Conversions
    happen in `_set_input`, `output`, `gradients`: never in a call that is timed.

    `parts` has the four weights of each layer and direction, in the order of `suffixes`; `weights`
    has all by PyTorch's names; `lengths` is None where the problem has none.
    """

    name = "?"
    distributions: tuple[str, ...] = ()  # one of them has to be installed
    dtypes: tuple[str, ...] = ("float32",)
    can_train = False
    takes_lengths = True
    precision = "float32"  # of the weights; bench.quantized has others
    reset_after = True  # whether the reset gate comes after the product, as PyTorch has it
    # Whether AVX2_ENV holds the library to AVX2; if not, its AVX2 figures are its native ones.
    obeys_avx2_env = True
    called_from = "Python"  # what language the loop of timed calls is in

    @classmethod
    def version(cls) -> str:
        """Of the installed library, which is not imported; `Unsupported` if there is none."""
        return installed(*cls.distributions)

    def __init__(self, problem: Mapping[str, np.ndarray], threads: int = 1, training: bool = False):
        self.shape, self.dtype = shape_of(problem), problem["x"].dtype
        self.threads, self.training = threads, training
        self.suffixes = suffixes(self.shape.layers, self.shape.directions)
        self.parts = [{name: problem[name + suffix] for name in WEIGHT_NAMES}
                      for suffix in self.suffixes]
        self.weights = self._by_name(self.parts)
        self.lengths, self.ends = problem.get("lengths"), problem.get("ends")
        if self.dtype.name not in self.dtypes:
            raise Unsupported(f"{self.name} has no {self.dtype.name} GRU on CPU")
        if self.training and not self.can_train:
            raise Unsupported(f"{self.name} does not train")
        if self.lengths is not None and not self.takes_lengths:
            raise Unsupported(f"{self.name} takes no lengths: padded only")
        try:
            self.build()
        except ImportError as error:
            raise Unsupported(f"{self.name} cannot be imported: {error}") from error
        self._set_input(problem["x"], problem["h_0"], problem["d_output"])

    def _by_name(self, parts: Sequence[Mapping[str, Any]], prefix: str = "") -> dict[str, Any]:
        """What `parts` has, by PyTorch's names behind `prefix`."""
        return {prefix + name + suffix: part[name]
                for suffix, part in zip(self.suffixes, parts, strict=True) for name in WEIGHT_NAMES}

    # What a subclass writes.

    def output(self) -> np.ndarray:
        """All states (T, N, directions * H) of the last layer of the last call."""
        raise NotImplementedError

    def gradients(self) -> dict[str, np.ndarray]:
        """dx, dh_0 and dweight_ih_l0 to the last dbias_hh of the last call, as PyTorch's."""
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

    def results(self) -> dict[str, np.ndarray]:
        """The output of the last call and, of training, the gradients, as `truth` has them."""
        output = self.output()
        if self.ends is not None:
            output = zeros_past_end(output, self.ends)
        return {"output": output} | (self.gradients() if self.training else {})

    def time(self, repeats: int, number: int) -> float:
        """Least seconds of a call over `repeats` batches of `number` calls."""
        with self.scope():
            return best_time(self._train if self.training else self._infer, repeats, number)
