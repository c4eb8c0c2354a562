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
from .base import WEIGHT_NAMES

Arrays = dict[str, np.ndarray]  # by name


def random_problem(shape: Shape, dtype: DTypeLike = np.float32, seed=0) -> Arrays:
    """PyTorch's initial weights by name, and standard normal x, h_0 and d_output."""
    rng = np.random.default_rng(seed)
    T, N, I, H = shape.sizes  # noqa: E741
    bound = 1 / math.sqrt(H)
    sizes = zip(WEIGHT_NAMES, ((3 * H, I), (3 * H, H), 3 * H, 3 * H), strict=True)
    arrays = {name: rng.uniform(-bound, bound, size) for name, size in sizes}
    data = {"x": (T, N, I), "h_0": (N, H), "d_output": (T, N, H)}
    arrays |= {name: rng.standard_normal(size) for name, size in data.items()}
    return {name: array.astype(dtype) for name, array in arrays.items()}


def truth(problem: Mapping[str, np.ndarray], dtype: DTypeLike = np.float64) -> Arrays:
    """output, dx, dh_0 and dweight_ih to dbias_hh, computed in `dtype`."""
    from gru_c import reference

    a = {name: array.astype(dtype) for name, array in problem.items()}
    weights = [a[name] for name in WEIGHT_NAMES]
    output, tape = reference.forward(a["x"], a["h_0"], *weights)
    d_h_n = a.get("d_h_n", np.zeros_like(a["h_0"]))
    dx, dh_0, grads = reference.backward(tape, a["d_output"], d_h_n, *weights[:2])
    found = {"output": output, "dx": dx, "dh_0": dh_0}
    return found | {f"d{name}": grads[name] for name in WEIGHT_NAMES}


def relative_error(found: np.ndarray, true: np.ndarray) -> float:
    """Largest difference over the largest true value: a gradient has entries near zero."""
    if found.shape != true.shape:
        raise AssertionError(f"shape {found.shape} where {true.shape} was due")
    return float(np.max(np.abs(found - true)) / np.max(np.abs(true)))
