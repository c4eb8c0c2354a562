"""The problem that every peer gets, and the answer it is checked against: gru_c.reference's.

The reference is plain NumPy and shares no code with the core that is measured. Imported late,
because limits must be in the environment before anything heavy is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from ..shapes import Shape
from .base import WEIGHT_NAMES, suffixes, zeros_past_end

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


def truth(problem: Mapping[str, np.ndarray], dtype: DTypeLike = np.float64) -> Arrays:
    """output, dx, dh_0 and dweight_ih_l0 to the last dbias_hh, computed in `dtype`."""
    from gru_c import reference

    data = ("x", "h_0", "d_output", "d_h_n")
    arrays = {name: array.astype(dtype) for name, array in problem.items() if name != "lengths"}
    weights = {name: array for name, array in arrays.items() if name not in data}
    given = {name: array for name, array in arrays.items() if name in data}
    found = reference.run(weights, **given, lengths=problem.get("lengths"))
    named = {f"d{name}": found[name] for name in weights}
    return {name: found[name] for name in ("output", "dx", "dh_0")} | named


def relative_error(found: np.ndarray, true: np.ndarray) -> float:
    """Largest difference over the largest true value: a gradient has entries near zero."""
    if found.shape != true.shape:
        raise AssertionError(f"shape {found.shape} where {true.shape} was due")
    return float(np.max(np.abs(found - true)) / np.max(np.abs(true)))
