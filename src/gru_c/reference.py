"""The GRU in plain NumPy: the truth for the tests, and the place to read the equations.

Names and shapes are those of the package: x (T, N, I), h (N, H), weights stacked r, z, n. `forward`
and `backward` are one direction of one layer with all its options, `run` is a whole model.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gru_c._types import Array

    Activation: TypeAlias = str | Mapping[str, Any]


# ---- activations --------------------------------------------------------------------------------

def sigmoid(a: Array) -> Array:
    return np.where(a < 0, np.exp(-np.abs(a)), 1.0) / (1.0 + np.exp(-np.abs(a)))


def elu(a: Array, alpha: float = 1.0) -> tuple[Array, Array]:
    below = np.minimum(a, 0)
    return np.where(a > 0, a, alpha * np.expm1(below)), np.where(a > 0, 1, alpha * np.exp(below))


# name: f(a), f'(a); at a kink the derivative that PyTorch takes
ACTIVATIONS: dict[str, Callable[..., tuple[Array, Array]]] = {
    "sigmoid": lambda a: (sigmoid(a), sigmoid(a) * sigmoid(-a)),
    "tanh": lambda a: (np.tanh(a), 1 - np.tanh(a) ** 2),
    "relu": lambda a: (np.maximum(a, 0), a > 0),
    "hard_sigmoid": lambda a, alpha=1 / 6, beta=0.5: (
        np.clip(alpha * a + beta, 0, 1), alpha * ((alpha * a + beta > 0) & (alpha * a + beta < 1))),
    "affine": lambda a, alpha=1.0, beta=0.0: (alpha * a + beta, np.full_like(a, alpha)),
    "leaky_relu": lambda a, alpha=0.01: (np.where(a > 0, a, alpha * a), np.where(a > 0, 1, alpha)),
    "thresholded_relu": lambda a, alpha=1.0: (np.where(a > alpha, a, 0), a > alpha),
    "scaled_tanh": lambda a, alpha=1.0, beta=1.0: (
        alpha * np.tanh(beta * a), alpha * beta * (1 - np.tanh(beta * a) ** 2)),
    "elu": elu,
    "softsign": lambda a: (a / (1 + np.abs(a)), 1 / (1 + np.abs(a)) ** 2),
    "softplus": lambda a: (np.logaddexp(a, 0), sigmoid(a)),
    "linear": lambda a: (a, np.ones_like(a)),
}


def gate(a: Array, activation: Activation, clip: float | None) -> tuple[Array, Array]:
    """The activation of `a` held between -clip and clip, and its derivative by `a`."""
    options = {"name": activation} if isinstance(activation, str) else dict(activation)
    held = a if clip is None else np.clip(a, -clip, clip)
    y, slope = ACTIVATIONS[options.pop("name")](held, **options)
    return y, slope * (held == a)


# ---- one direction of one layer -----------------------------------------------------------------

class Step(NamedTuple):
    """What `backward` reads of a step. Arrays of numbers have the rows that the step counts for."""

    t: int
    reset: Array                                           # rows, (N,), whose state is zeroed
    rows: Array                                            # rows that the step counts for
    shown: Array                                           # rows that have an output
    x_t: Array
    h_prev: Array
    h_in: Array
    r: Array
    z: Array
    n: Array
    q: Array
    r_slope: Array
    z_slope: Array
    n_slope: Array


class Tape(NamedTuple):
    steps: list[Step]                                      # in the order of the direction
    h_n: Array
    x_dropout: Array
    h_dropout: Array


def schedule(T: int, N: int, reverse: bool, lengths: Array | None, mask: Array | None,
             resets: Array | None) -> Iterator[tuple[int, Array, Array, Array]]:
    """Each t in the order of the direction, and its rows: `reset`, `rows` and `shown` of a Step."""
    inside = np.arange(T)[:, None] < (np.full(N, T) if lengths is None else np.asarray(lengths))
    counts = inside if mask is None else inside & mask
    zeroed = np.zeros_like(inside) if resets is None else inside & resets
    begun = np.zeros(N, bool)
    for t in reversed(range(T)) if reverse else range(T):
        begun = begun | counts[t]
        yield t, zeroed[t], counts[t], begun & inside[t]


def forward(x: Array, h: Array, weight_ih: Array, weight_hh: Array, bias_ih: Array, bias_hh: Array,
            reset_after: bool = True, *, reverse: bool = False, lengths: Array | None = None,
            mask: Array | None = None, resets: Array | None = None,
            input_dropout: Array | None = None, recurrent_dropout: Array | None = None,
            activation: Activation = "tanh", recurrent_activation: Activation = "sigmoid",
            clip: float | None = None) -> tuple[Array, Tape]:
    """Run all steps; returns (output (T, N, H), tape for `backward`, which has h_n, too).

    The dropouts are multipliers, (N, I) and (N, H). For the other options see `GRU`.
    """
    W_ir, W_iz, W_in = np.split(weight_ih, 3)
    W_hr, W_hz, W_hn = np.split(weight_hh, 3)
    b_ir, b_iz, b_in = np.split(bias_ih, 3)
    b_hr, b_hz, b_hn = np.split(bias_hh, 3)
    f = partial(gate, activation=recurrent_activation, clip=clip)
    g = partial(gate, activation=activation, clip=clip)
    x_dropout = np.ones_like(x[0]) if input_dropout is None else input_dropout
    h_dropout = np.ones_like(h) if recurrent_dropout is None else recurrent_dropout
    T, N, _ = x.shape
    h, output, steps = h.copy(), np.zeros((T, *h.shape), h.dtype), []
    for t, reset, rows, shown in schedule(T, N, reverse, lengths, mask, resets):
        h[reset] = 0
        h_prev = h[rows]
        x_t, h_in = x[t, rows] * x_dropout[rows], h_prev * h_dropout[rows]
        r, r_slope = f(x_t @ W_ir.T + b_ir + h_in @ W_hr.T + b_hr)
        z, z_slope = f(x_t @ W_iz.T + b_iz + h_in @ W_hz.T + b_hz)
        if reset_after:
            q = h_in @ W_hn.T + b_hn
            n, n_slope = g(x_t @ W_in.T + b_in + r * q)
        else:
            q = r * h_in
            n, n_slope = g(x_t @ W_in.T + b_in + q @ W_hn.T + b_hn)
        h[rows] = n + z * (h_prev - n)
        output[t, shown] = h[shown]
        steps.append(Step(t, reset, rows, shown, x_t, h_prev, h_in, r, z, n, q,
                          r_slope, z_slope, n_slope))
    return output, Tape(steps, h, x_dropout, h_dropout)


def backward(tape: Tape, d_output: Array, d_h: Array, weight_ih: Array, weight_hh: Array,
             reset_after: bool = True) -> tuple[Array, Array, dict[str, Array]]:
    """Gradients from dL/d output (T, N, H) and dL/dh_n (N, H).

    Returns (dx, dh_0, {"weight_ih": ..., "weight_hh": ..., "bias_ih": ..., "bias_hh": ...}).
    """
    W_hr, W_hz, W_hn = np.split(weight_hh, 3)
    dweight_ih, dweight_hh = np.zeros_like(weight_ih), np.zeros_like(weight_hh)
    dbias_ih, dbias_hh = np.zeros(len(weight_ih), d_h.dtype), np.zeros(len(weight_ih), d_h.dtype)
    dx = np.zeros((*d_output.shape[:2], weight_ih.shape[1]), d_h.dtype)
    d_h = d_h.copy()
    for (t, reset, rows, shown, x_t, h_prev, h_in, r, z, n, q,
         r_slope, z_slope, n_slope) in reversed(tape.steps):
        d_h[shown] += d_output[t, shown]
        d = d_h[rows]
        da_n = d * (1 - z) * n_slope
        da_z = d * (h_prev - n) * z_slope
        dh_prev = d * z
        if reset_after:
            dq = da_n * r
            da_r = da_n * q * r_slope
            dh_in = dq @ W_hn
            d_new, hidden = dq, h_in                       # of the product with W_hn
        else:
            dq = da_n @ W_hn
            da_r = dq * h_in * r_slope
            dh_in = dq * r
            d_new, hidden = da_n, q
        dh_in = dh_in + da_r @ W_hr + da_z @ W_hz
        d_h[rows] = dh_prev + dh_in * tape.h_dropout[rows]
        d_h[reset] = 0
        d_ih = np.concatenate([da_r, da_z, da_n], axis=1)
        dx[t, rows] = d_ih @ weight_ih * tape.x_dropout[rows]
        dweight_ih += d_ih.T @ x_t
        dweight_hh += np.concatenate([da_r.T @ h_in, da_z.T @ h_in, d_new.T @ hidden])
        dbias_ih += d_ih.sum(0)
        dbias_hh += np.concatenate([da_r, da_z, d_new], axis=1).sum(0)
    grads = {"weight_ih": dweight_ih, "weight_hh": dweight_hh,
             "bias_ih": dbias_ih, "bias_hh": dbias_hh}
    return dx, d_h, grads


# ---- a whole model ------------------------------------------------------------------------------

def run(parameters: Mapping[str, Array], x: Array, h_0: Array | None = None,
        d_output: Array | None = None, d_h_n: Array | None = None,
        dropout_masks: Mapping[str, Array] | None = None, reset_after: bool = True,
        reverse: bool = False, **options: Any) -> dict[str, Array]:
    """Forward and backward of all layers and directions that the parameters are of.

    Parameters, arrays and masks are those of a `GRU`, or with `reverse` of a `ReverseGRU`; time
    first; absent arrays are zeros. The options are those of `forward`. Returns output, h_n, dx,
    dh_0 and the gradients by name.
    """
    D = 2 if "weight_ih_l0_reverse" in parameters else 1
    L = sum("weight_ih" in name for name in parameters) // D
    layers = [[f"l{layer}", f"l{layer}_reverse"][:D] for layer in range(L)]
    states = np.zeros((L * D, x.shape[1], parameters["weight_hh_l0"].shape[1]), x.dtype)
    masks = dropout_masks or {}
    output, tapes = model_forward(parameters, layers, x, states if h_0 is None else h_0, masks,
                                  reset_after, reverse, **options)
    dx, dh_0, grads = model_backward(
        parameters, layers, tapes, np.zeros_like(output) if d_output is None else d_output,
        states if d_h_n is None else d_h_n, masks, reset_after)
    return {"output": output, "h_n": np.stack([tape.h_n for tape in tapes.values()]),
            "dx": dx, "dh_0": dh_0, **{name: grads[name] for name in parameters}}


def model_forward(parameters: Mapping[str, Array], layers: list[list[str]], x: Array, h_0: Array,
                  masks: Mapping[str, Array], reset_after: bool, reverse: bool,
                  **options: Any) -> tuple[Array, dict[str, Tape]]:
    """Output of the last layer, and a tape for each name in `layers`."""
    states, tapes = iter(h_0), {}
    for layer in layers:
        halves = []
        for name in layer:
            W_ih, W_hh = parameters[f"weight_ih_{name}"], parameters[f"weight_hh_{name}"]
            none = np.zeros(len(W_ih), W_ih.dtype)
            half, tapes[name] = forward(
                x, next(states), W_ih, W_hh, parameters.get(f"bias_ih_{name}", none),
                parameters.get(f"bias_hh_{name}", none), reset_after,
                reverse=reverse or name.endswith("reverse"),
                input_dropout=masks.get(f"input_{name}"),
                recurrent_dropout=masks.get(f"recurrent_{name}"), **options)
            halves.append(half)
        output = np.concatenate(halves, axis=2)
        x = output * masks.get(f"output_{layer[0]}", 1)
    return output, tapes


def model_backward(parameters: Mapping[str, Array], layers: list[list[str]], tapes: dict[str, Tape],
                   d_output: Array, d_h_n: Array, masks: Mapping[str, Array],
                   reset_after: bool) -> tuple[Array, Array, dict[str, Array]]:
    """dx, dh_0 and the gradients of the parameters."""
    d_h = dict(zip(tapes, d_h_n, strict=True))
    grads: dict[str, Array] = {}
    for layer in reversed(layers):
        d_output = d_output * masks.get(f"output_{layer[0]}", 1)
        halves = np.split(d_output, len(layer), axis=2)
        d_output = np.zeros((), d_output.dtype)
        for name, half in zip(layer, halves, strict=True):
            dx, d_h[name], found = backward(
                tapes[name], half, d_h[name], parameters[f"weight_ih_{name}"],
                parameters[f"weight_hh_{name}"], reset_after)
            d_output = d_output + dx                       # of the layer below
            grads |= {f"{key}_{name}": value for key, value in found.items()}
    return d_output, np.stack(list(d_h.values())), grads
