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
    x: np.ndarray              # (T, N, I or padded I)
    g: np.ndarray              # (T, N, gate_row): n r z q, see _core/kernels.pxd
    h: np.ndarray              # (T + 1, N, padded)

    def output(self) -> np.ndarray:
        """The hidden states (T, N, padded), a view."""
        return self.h[1:]

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

    def start(self, h: np.ndarray, h_0: np.ndarray | None) -> None:
        """Set the first slot of a hidden-state buffer."""
        h[0, :, : self.hidden_size] = 0 if h_0 is None else h_0
        h[0, :, self.hidden_size :] = 0

    def infer(self, x, h_0, output, output_step: int, output_row: int) -> None:
        """Run without saving; the hidden state after each step goes to `output`."""
        h_0 = None if h_0 is None else _checks.rows(h_0)
        self.packed.infer(x, h_0, output, output_step, output_row)

    def record(self, x, h_0, output, output_step: int, output_row: int, old: Tape | None) -> Tape:
        """Run and save; `x` must not change until the backward. `old` lends its buffers."""
        steps, rows, _ = x.shape
        packed = self.packed
        if old is not None and old.h.shape == (steps + 1, rows, packed.padded):
            tape = Tape(self, x, old.g, old.h)
        else:
            tape = Tape(self, x, empty((steps, rows, packed.gate_row), self.dtype),
                        empty((steps + 1, rows, packed.padded), self.dtype))
        self.start(tape.h, h_0)
        packed.record(x, x.shape[2], tape.g, tape.h, output, output_step, output_row)
        return tape

    def gradients(self, tape: Tape, d_output, d_h_n, keep: bool):
        """dx (T, N, padded I), dh_0 (N, H) and the dict of the parameters' gradients.

        `d_output` is (T, N, H or more) or None, `d_h_n` (N, H) or None. The gate buffer of the tape
        is overwritten unless `keep`.
        """
        steps, rows, _ = tape.g.shape
        packed, H, dtype = self.packed, self.hidden_size, self.dtype
        dg = np.empty_like(tape.g) if keep else tape.g
        dh = np.zeros((rows, packed.padded), dtype)
        if d_h_n is not None:
            dh[:, :H] = d_h_n
        dq = np.empty_like(dh)
        dx = empty((steps, rows, packed.padded_inputs), dtype)
        make = np.empty if rows else np.zeros              # a sum over no rows
        dweight_ih = make((3 * H, packed.padded_inputs), dtype)
        dweight_hh = make((3 * H, packed.padded), dtype)
        dbias = np.zeros((4, packed.padded), dtype)
        d_step = d_row = 0
        if d_output is not None:
            d_step, d_row = (stride // dtype.itemsize for stride in d_output.strides[:2])
        packed.backward(tape.x, tape.x.shape[2], tape.g, dg, tape.h, d_output, d_step, d_row,
                        dh, dq, dx, dweight_ih, dweight_hh, dbias)
        grads = {"weight_ih": np.ascontiguousarray(dweight_ih[:, : self.input_size]),
                 "weight_hh": np.ascontiguousarray(dweight_hh[:, :H])}
        if "bias_ih" in self.weights:
            n, r, z, q = dbias[:, :H]
            grads["bias_ih"] = np.concatenate([r, z, n])
            grads["bias_hh"] = np.concatenate([r, z, q if self.reset_after else n])
        return dx, np.ascontiguousarray(dh[:, :H]), grads
