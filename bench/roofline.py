"""The limits of this machine, measured in the run that they judge, and what they mean for a GRU.

Two rates are measured by roofline.c, compiled here at run time: multiply-adds a second from
registers, and bytes read a second by size of the working set, from L1 to memory.

The model, a lower bound of the time of one call. Arithmetic and reading may overlap perfectly, so

    time >= max(flop / peak,  recurrent weights,  everything once)

- *flop / peak*: the matrix products only (`Shape.flop`); gates cost time but are not counted.
- *recurrent weights*: each step needs all of weight_hh and cannot begin before the step before it
  has ended, so the 3 H^2 numbers are read T times (training: 2 T, backward needs them as well), at
  the rate of a working set of that size. It binds at N = 1, where a weight does one multiply-add.
  So for each layer and direction, one after the other.
- *everything once*: inputs, results, weights and gradients are touched at least once, at the rate
  of a working set of their sum. Of ragged rows, steps past the end are not counted.

With several threads the weights are taken as divided between the cores, the best that can be done.
Rates are those of the nearest measured size not above the wanted one, rounding to the machine's
favour: the bound is never too strict, so a fraction of it is never flattered.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from .peers.base import Unsupported
from .peers.build import shared_library
from .shapes import Shape

# 16 KB to 256 MB
SIZES = tuple(int(2 ** (exponent / 2)) // 1024 * 1024 for exponent in range(28, 57))


@dataclass(frozen=True)
class Roofline:
    """What `measure` found: FLOP/s and {bytes: bytes/s}, of `threads` threads together."""

    dtype: str
    isa: str
    threads: int
    vector_bytes: int
    flops: float
    bandwidth: dict[int, float]

    def rate(self, working_set: float) -> float:
        """Bytes read a second from `working_set` bytes that are read again and again."""
        sizes = sorted(self.bandwidth)
        return self.bandwidth[sizes[max(bisect_right(sizes, working_set) - 1, 0)]]

    def limit(self, flop: float, bytes_per_pass: float, passes: float = 1) -> float:
        """Least seconds for `flop` operations beside `passes` readings of `bytes_per_pass`."""
        return max(flop / self.flops, passes * bytes_per_pass / self.rate(bytes_per_pass))

    def gru_limit(self, shape: Shape, training: bool = False) -> float:
        """Least seconds of one call at `shape`: the model of this module."""
        item = 8 if self.dtype == "float64" else 4
        _, N, I, H = shape.sizes  # noqa: E741
        D, parts = shape.directions, shape.directions * shape.layers
        recurrent = 3 * H * H * item
        passes = parts * max(shape.lengths) * (2 if training else 1)
        weights = sum(D * (3 * H * (inputs + H) + 6 * H) for inputs in shape.inputs)
        # x, the output of each layer, h0 and the parameters
        once = sum(shape.lengths) * (I + parts * H) + parts * N * H + weights
        once += once if training else 0  # and the gradient of each
        return max(self.limit(shape.flop(training), recurrent, passes), self.limit(0, once * item))


@functools.cache
def _library(isa: str) -> ctypes.CDLL:
    """roofline.c compiled for `isa`."""
    machine = platform.machine().lower()
    x86 = machine in ("x86_64", "amd64")
    if isa == "avx2" and not x86:
        raise Unsupported(f"there is no AVX2 on {machine}")
    arch = ["-march=native" if x86 else "-mcpu=native"]
    if isa == "avx2":
        arch = ["-mavx2", "-mfma", "-DWIDTH=32"]
    flags = ["-O3", "-std=gnu11", "-ffp-contract=fast", "-pthread", *arch]
    library = ctypes.CDLL(str(shared_library(Path(__file__).with_name("roofline.c"), flags)))
    library.roofline_flops.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_double]
    library.roofline_read.argtypes = [ctypes.c_size_t, ctypes.c_int, ctypes.c_double]
    library.roofline_flops.restype = library.roofline_read.restype = ctypes.c_double
    return library


def measure(dtype: str, isa: str, threads: int, seconds: float) -> Roofline:
    """Measures both sides of the roofline: `seconds` for each size, the peak for longer."""
    library = _library(isa)
    # Five times as long: the first milliseconds of wide vectors run at a lower clock.
    flops = library.roofline_flops(dtype == "float64", threads, 5 * seconds)
    bandwidth = {size: library.roofline_read(size, threads, seconds) for size in SIZES}
    return Roofline(dtype, isa, threads, library.roofline_width(), flops, bandwidth)
