"""The problem that every peer gets, and the answer it is checked against: gru_c.reference's.

The reference is plain NumPy and shares no code with the core that is measured. Imported late,
because limits must be in the environment before anything heavy is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .base import GRADIENT_NAMES, WEIGHT_NAMES


def random_problem(shape, dtype=np.float32, seed: int = 0):
    """(weights, x, h0, d_output): PyTorch's initial weights, standard normal data."""
    rng = np.random.default_rng(seed)
    T, N, I, H = shape.T, shape.N, shape.I, shape.H  # noqa: E741
    bound = H**-0.5
    sizes = zip(WEIGHT_NAMES, ((3 * H, I), (3 * H, H), 3 * H, 3 * H), strict=True)
    weights = {name: rng.uniform(-bound, bound, size).astype(dtype) for name, size in sizes}
    x, h0, d_output = (rng.standard_normal(s).astype(dtype) for s in [(T, N, I), (N, H), (T, N, H)])
    return weights, x, h0, d_output


def forward_backward(weights: Mapping[str, np.ndarray], x, h0, d_output):
    """(output (T, N, H), gradients by name), computed in float64."""
    from gru_c import reference

    x, h0, d_output, *arrays = (
        np.asarray(a, np.float64)
        for a in (x, h0, d_output, *(weights[name] for name in WEIGHT_NAMES)))
    output, tape = reference.forward(x, h0, *arrays)
    dx, dh0, d_weights = reference.backward(tape, d_output, np.zeros_like(h0), *arrays[:2])
    values = (dx, dh0, *(d_weights[name] for name in WEIGHT_NAMES))
    return output, dict(zip(GRADIENT_NAMES, values, strict=True))


def relative_error(found: np.ndarray, true: np.ndarray) -> float:
    """Largest difference over the largest true value: a gradient has entries near zero."""
    if found.shape != true.shape:
        raise AssertionError(f"shape {found.shape} where {true.shape} was due")
    return float(np.max(np.abs(found - true)) / np.max(np.abs(true)))
