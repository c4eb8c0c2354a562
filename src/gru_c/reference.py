"""The GRU in plain NumPy: the truth for the tests, and the place to read the equations.

Names and shapes are those of the package: x (T, N, I), h (N, H), weights stacked r, z, n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from gru_c._types import Array

Tape: TypeAlias = "list[tuple[Array, Array, Array, Array, Array, Array]]"


def sigmoid(a: Array) -> Array:
    return np.where(a < 0, np.exp(-np.abs(a)), 1.0) / (1.0 + np.exp(-np.abs(a)))


def forward(x: Array, h: Array, weight_ih: Array, weight_hh: Array, bias_ih: Array, bias_hh: Array,
            reset_after: bool = True) -> tuple[Array, Tape]:
    """Run all steps; returns (output (T, N, H), tape for `backward`)."""
    W_ir, W_iz, W_in = np.split(weight_ih, 3)
    W_hr, W_hz, W_hn = np.split(weight_hh, 3)
    b_ir, b_iz, b_in = np.split(bias_ih, 3)
    b_hr, b_hz, b_hn = np.split(bias_hh, 3)
    output, tape = [], []
    for x_t in x:
        r = sigmoid(x_t @ W_ir.T + b_ir + h @ W_hr.T + b_hr)
        z = sigmoid(x_t @ W_iz.T + b_iz + h @ W_hz.T + b_hz)
        if reset_after:
            q = h @ W_hn.T + b_hn
            n = np.tanh(x_t @ W_in.T + b_in + r * q)
        else:
            q = r * h
            n = np.tanh(x_t @ W_in.T + b_in + q @ W_hn.T + b_hn)
        tape.append((x_t, h, r, z, n, q))
        h = n + z * (h - n)
        output.append(h)
    return np.stack(output), tape


def backward(tape: Tape, d_output: Array, d_h: Array, weight_ih: Array, weight_hh: Array,
             reset_after: bool = True) -> tuple[Array, Array, dict[str, Array]]:
    """Gradients from dL/d output (T, N, H) and dL/dh_n (N, H).

    Returns (dx, dh_0, {"weight_ih": ..., "weight_hh": ..., "bias_ih": ..., "bias_hh": ...}).
    """
    W_hr, W_hz, W_hn = np.split(weight_hh, 3)
    dweight_ih, dweight_hh = np.zeros_like(weight_ih), np.zeros_like(weight_hh)
    dbias_ih, dbias_hh = np.zeros(len(weight_ih), d_h.dtype), np.zeros(len(weight_ih), d_h.dtype)
    dx = []
    for (x_t, h, r, z, n, q), d_t in zip(reversed(tape), reversed(d_output), strict=True):
        d = d_h + d_t
        da_n = d * (1 - z) * (1 - n * n)
        da_z = d * (h - n) * z * (1 - z)
        d_h = d * z
        if reset_after:
            dq = da_n * r
            da_r = da_n * q * r * (1 - r)
            d_h = d_h + dq @ W_hn
            d_new, hidden = dq, h                          # of the product with W_hn
        else:
            dq = da_n @ W_hn
            da_r = dq * h * r * (1 - r)
            d_h = d_h + dq * r
            d_new, hidden = da_n, q
        d_h = d_h + da_r @ W_hr + da_z @ W_hz
        d_ih = np.concatenate([da_r, da_z, da_n], axis=1)
        dx.append(d_ih @ weight_ih)
        dweight_ih += d_ih.T @ x_t
        dweight_hh += np.concatenate([da_r.T @ h, da_z.T @ h, d_new.T @ hidden])
        dbias_ih += d_ih.sum(0)
        dbias_hh += np.concatenate([da_r, da_z, d_new], axis=1).sum(0)
    grads = {"weight_ih": dweight_ih, "weight_hh": dweight_hh,
             "bias_ih": dbias_ih, "bias_hh": dbias_hh}
    return np.stack(dx[::-1]), d_h, grads
