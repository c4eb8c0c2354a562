"""The problem that every peer gets, and the answer it is checked against: gru_c.reference's.

The reference is plain NumPy and shares no code with the core that is measured. It is asked for one
plain layer at a time: directions, layers and lengths are put together here. Imported late, because
limits must be in the environment before anything heavy is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from ..shapes import Shape
from .base import WEIGHT_NAMES, shape_of, suffixes, zeros_past_end

Arrays = dict[str, np.ndarray]  # by name


def random_problem(shape: Shape, dtype: DTypeLike = np.float32, seed=0) -> Arrays:
    """PyTorch's initial weights by name, and standard normal x, h_0 and d_output.

    A ragged one has `lengths`, too, and its d_output is zero past the end of each row.
    """
    rng = np.random.default_rng(seed)
    T, N, I, H = shape.sizes  # noqa: E741
    bound, layers, directions = 1 / math.sqrt(H), shape.layers, shape.directions
    arrays = {}
    for index, suffix in enumerate(suffixes(layers, directions)):
        inputs = shape.inputs[index // directions]
        sizes = zip(WEIGHT_NAMES, ((3 * H, inputs), (3 * H, H), 3 * H, 3 * H), strict=True)
        arrays |= {name + suffix: rng.uniform(-bound, bound, size) for name, size in sizes}
    data = {"x": (T, N, I), "h_0": (layers * directions, N, H), "d_output": (T, N, directions * H)}
    arrays |= {name: rng.standard_normal(size) for name, size in data.items()}
    found = {name: array.astype(dtype) for name, array in arrays.items()}
    if shape.ragged:
        found["lengths"] = np.array(shape.lengths)
        found["d_output"] = zeros_past_end(found["d_output"], found["lengths"])
    return found


def _turned(sequence: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`sequence` (T, N, ...) with the steps of each row in reverse order up to its end."""
    t = np.arange(len(sequence))[:, None]
    source = np.where(t < lengths, lengths - 1 - t, t)
    return np.take_along_axis(sequence, source[:, :, None], axis=0)


class _Part:
    """One direction of one layer: its forward and what the backward needs of it."""

    def __init__(self, arrays: Arrays, index: int, suffix: str, lengths: np.ndarray):
        self.weights = [arrays[name + suffix] for name in WEIGHT_NAMES]
        self.h_0, self.d_h_n = arrays["h_0"][index], arrays["d_h_n"][index]
        self.suffix, self.lengths = suffix, lengths

    def _turn(self, sequence: np.ndarray) -> np.ndarray:
        return _turned(sequence, self.lengths) if self.suffix.endswith("reverse") else sequence

    def forward(self, x: np.ndarray) -> np.ndarray:
        from gru_c import reference

        output, self.tape = reference.forward(self._turn(x), self.h_0, *self.weights)
        return zeros_past_end(self._turn(output), self.lengths)

    def backward(self, d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, Arrays]:
        """(dx, dh_0, gradients of weights and biases by name)."""
        from gru_c import reference

        d_states = self._turn(zeros_past_end(d_output, self.lengths))
        d_states[self.lengths - 1, np.arange(len(self.lengths))] += self.d_h_n
        nothing = np.zeros_like(self.d_h_n)
        dx, dh_0, grads = reference.backward(self.tape, d_states, nothing, *self.weights[:2])
        return self._turn(dx), dh_0, {f"d{name}{self.suffix}": grads[name] for name in WEIGHT_NAMES}


def truth(problem: Mapping[str, np.ndarray], dtype: DTypeLike = np.float64) -> Arrays:
    """output, dx, dh_0 and dweight_ih_l0 to the last dbias_hh, computed in `dtype`.

    No row is empty.
    """
    a = {name: array.astype(dtype) for name, array in problem.items() if name != "lengths"}
    a.setdefault("d_h_n", np.zeros_like(a["h_0"]))
    shape = shape_of(problem)
    lengths = problem.get("lengths", np.array(shape.lengths))
    names = enumerate(suffixes(shape.layers, shape.directions))
    parts = [_Part(a, index, suffix, lengths) for index, suffix in names]
    layers = [parts[i : i + shape.directions] for i in range(0, len(parts), shape.directions)]
    output = a["x"]
    for layer in layers:
        output = np.concatenate([part.forward(output) for part in layer], axis=2)
    found, dx, dh_0 = {"output": output}, a["d_output"], []
    for layer in reversed(layers):
        halves = np.split(dx, shape.directions, axis=2)
        each = [part.backward(half) for part, half in zip(layer, halves, strict=True)]
        dx = sum(of_input for of_input, _, _ in each)
        dh_0[:0] = [of_state for _, of_state, _ in each]
        for _, _, grads in each:
            found |= grads
    return found | {"dx": dx, "dh_0": np.stack(dh_0)}


def relative_error(found: np.ndarray, true: np.ndarray) -> float:
    """Largest difference over the largest true value: a gradient has entries near zero."""
    if found.shape != true.shape:
        raise AssertionError(f"shape {found.shape} where {true.shape} was due")
    return float(np.max(np.abs(found - true)) / np.max(np.abs(true)))
