"""One direction of one layer: its weights, packed, and runs over whole sequences.

A `Layer` never changes. New weights make a new one, so that a call in another thread, or the
backward of an earlier forward, keeps the weights that it began with. Everything that comes in was
checked by GRUCell or GRU; sequences are time-major, x (T, N, I), h (N, H).
"""

from dataclasses import dataclass

import numpy as np

from gru_c import _checks
from gru_c._core import PackedLayer

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def shapes(input_size: int, hidden_size: int, bias: bool) -> dict[str, tuple]:
    """Names and shapes of a layer's parameters."""
    rows = 3 * hidden_size
    found = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size)}
    if bias:
        found |= {"bias_ih": (rows,), "bias_hh": (rows,)}
    return found


def empty(shape: tuple, dtype: np.dtype) -> np.ndarray:
    """np.empty at a multiple of 64 bytes, the width of a vector and of a cache line."""
    count = 1
    for extent in shape:
        count *= extent
    memory = np.empty(count * dtype.itemsize + 64, np.uint8)
    offset = -memory.ctypes.data % 64
    return memory[offset : offset + count * dtype.itemsize].view(dtype).reshape(shape)


def frozen(a: np.ndarray) -> np.ndarray:
    """A copy that nobody can write to: its memory is a `bytes`."""
    return np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape)


@dataclass
class Tape:
    """What a forward that saves leaves for its backward; the buffers are reused by the next one."""

    layer: "Layer"
    x: np.ndarray              # (T, N, I), a copy, or the output of the tape below
    g: np.ndarray              # (T, N, gate_row): n r z q, see _core/kernels.pxd
    h: np.ndarray              # (T + 1, N, padded)

    def output(self) -> np.ndarray:
        """The hidden states (T, N, H), a view."""
        return self.h[1:, :, : self.layer.hidden_size]

    def plane(self, index: int) -> np.ndarray:
        """A copy (T, N, H) of one plane of the gate buffer."""
        start = index * self.layer.packed.padded
        return self.g[..., start : start + self.layer.hidden_size].copy()


class Layer:
    """Weights (read-only arrays, gate order r z n) with their packed twins."""

    def __init__(self, weights: dict[str, np.ndarray], reset_after: bool):
        self.weights = {name: frozen(weights[name]) for name in NAMES if name in weights}
        self.reset_after = reset_after
        self.hidden_size = self.weights["weight_hh"].shape[1]
        self.input_size = self.weights["weight_ih"].shape[1]
        self.dtype = self.weights["weight_hh"].dtype
        self.packed = PackedLayer(*(self.weights.get(name) for name in NAMES), reset_after)

    def __reduce__(self):
        return Layer, (self.weights, self.reset_after)

    def replaced(self, weights: dict[str, np.ndarray]) -> "Layer":
        """A layer with some of the parameters new."""
        return Layer(self.weights | weights, self.reset_after)

    def infer(self, x, h_0, output, output_step: int, output_row: int, h_n=None) -> None:
        """Run without saving; hidden states of all steps go to `output`, the last also to h_n."""
        self.packed.infer(x, _checks.rows(h_0), output, output_step, output_row, h_n)

    def record(self, x, h_0, output, output_step: int, output_row: int, h_n=None,
               old: Tape | None = None, own: bool = False) -> Tape:
        """The same, and save. `old` lends its buffers; with `own`, x is a tape's: no copy then."""
        steps, rows, _ = x.shape
        packed = self.packed
        if old is None or old.h.shape != (steps + 1, rows, packed.padded):
            old = Tape(self, None if own else np.empty(x.shape, self.dtype),
                       empty((steps, rows, packed.gate_row), self.dtype),
                       empty((steps + 1, rows, packed.padded), self.dtype))
        tape = Tape(self, x if own else old.x, old.g, old.h)
        packed.record(x if own else _checks.rows(x), tape.x, tape.g, tape.h, _checks.rows(h_0),
                      output, output_step, output_row, h_n)
        return tape

    def gradients(self, tape: Tape, d_output, d_h_n, keep: bool):
        """dx (T, N, I), dh_0 (N, H) and the dict of the parameters' gradients.

        `d_output` is (T, N, H) or None, `d_h_n` (N, H) or None. The gate buffer of the tape is
        overwritten unless `keep`.
        """
        steps, rows, _ = tape.g.shape
        dx = np.empty((steps, rows, self.input_size), self.dtype)
        dh_0 = np.empty((rows, self.hidden_size), self.dtype)
        grads = {name: np.empty_like(value) for name, value in self.weights.items()}
        self.packed.backward(tape.x, tape.g, tape.h, _checks.rows(d_output), _checks.rows(d_h_n),
                             dx, dh_0, *map(grads.get, NAMES), keep)
        return dx, dh_0, grads
