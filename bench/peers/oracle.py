"""The answer that every peer is checked against: a GRU layer and its gradients in plain NumPy.

Written apart from `gru_c.reference` on purpose: a benchmark whose referee shares code with one of
the runners proves little. Gate order r, z, n, reset_after=True.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def random_problem(shape, dtype=np.float32, seed: int = 0):
    """(weights, x, h0, d_output): PyTorch's initial weights, standard normal data."""
    rng = np.random.default_rng(seed)
    T, N, I, H = shape.T, shape.N, shape.I, shape.H  # noqa: E741
    bound = H**-0.5
    sizes = {"weight_ih": (3 * H, I), "weight_hh": (3 * H, H), "bias_ih": 3 * H, "bias_hh": 3 * H}
    weights = {name: rng.uniform(-bound, bound, size).astype(dtype) for name, size in sizes.items()}
    x, h0, d_output = (rng.standard_normal(s).astype(dtype) for s in [(T, N, I), (N, H), (T, N, H)])
    return weights, x, h0, d_output


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * a))


def forward_backward(weights: Mapping[str, np.ndarray], x, h0, d_output=None):
    """(output (T, N, H), gradients by name, or None without d_output), computed in float64."""
    w_ih, w_hh, b_ih, b_hh = (
        np.asarray(weights[name], np.float64)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    x, h = np.asarray(x, np.float64), np.asarray(h0, np.float64)
    saved, output = [], []
    for x_t in x:
        ir, iz, i_n = np.split(x_t @ w_ih.T + b_ih, 3, axis=1)
        hr, hz, q = np.split(h @ w_hh.T + b_hh, 3, axis=1)
        r, z = sigmoid(ir + hr), sigmoid(iz + hz)
        n = np.tanh(i_n + r * q)
        saved.append((r, z, n, q, h))
        h = n + z * (h - n)
        output.append(h)
    if d_output is None:
        return np.stack(output), None

    d_weights = [np.zeros_like(w) for w in (w_ih, w_hh, b_ih, b_hh)]
    dx, dh = np.empty_like(x), np.zeros_like(h)
    for t in reversed(range(len(x))):
        r, z, n, q, h = saved[t]
        d = dh + d_output[t]
        da_n = d * (1 - z) * (1 - n * n)
        da_r = da_n * q * r * (1 - r)
        da_z = d * (h - n) * z * (1 - z)
        da_x = np.concatenate([da_r, da_z, da_n], axis=1)
        da_h = np.concatenate([da_r, da_z, da_n * r], axis=1)
        terms = (da_x.T @ x[t], da_h.T @ h, da_x.sum(0), da_h.sum(0))
        for total, term in zip(d_weights, terms, strict=True):
            total += term
        dx[t] = da_x @ w_ih
        dh = d * z + da_h @ w_hh
    names = ("x", "h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return np.stack(output), dict(zip(names, (dx, dh, *d_weights), strict=True))


def relative_error(found: np.ndarray, true: np.ndarray) -> float:
    """Largest difference over the largest true value: a gradient has entries near zero."""
    if found.shape != true.shape:
        raise AssertionError(f"shape {found.shape} where {true.shape} was due")
    return float(np.max(np.abs(found - true)) / np.max(np.abs(true)))
