"""Quantized GRUs in plain NumPy: the definition of "int8" and "bfloat16", for models of float32.

bfloat16: the weights are rounded, all else is `reference`, and the kernels agree to the rounding of
float32. With x_bits=16 both factors of each product are rounded. A difference in the last bit of h
may then become one of bfloat16, so kernels agree to about 1e-4. int8: the products are those of
integers and exact, the rest is float32, every operation rounded by itself and in the order that is
written here. So the compiled kernels give the same bits (with the default activations).

Names and shapes are those of `reference`. A row of weights, of x or of h has one scale, so that an
integer times the scale of its row is the number that it stands for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _checks, reference
from gru_c._activations import SIGMOID, TANH
from gru_c._activations import activation as as_activation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gru_c._types import Array
    from gru_c.reference import Activation

F = np.float32
TINY = F(2**-100)                                          # a row of x below it counts as zeros
TINY_SCALE = F(2**-107)                                    # the same of a row of weights


# ---- weights ------------------------------------------------------------------------------------

def bfloat16(w: Array) -> Array:
    """The nearest numbers that bfloat16 holds, ties to even, in float32."""
    bits = w.view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return np.where(np.isfinite(w), rounded.view(F), w)


@np.errstate(all="ignore")
def quantize_weights(w: Array) -> tuple[Array, Array]:
    """Integers -127 .. 127 and a scale (rows, 1) for each row of (rows, columns).

    The scale has 16 significant bits. So integer times scale is exact in float32, and quantizing
    that gives the same integers and scale.
    """
    most = np.abs(w).max(axis=1, keepdims=True)
    scale = ((most / F(127)).view(np.uint32) & 0xFFFFFF00).view(F)
    return unless_zero_or_nan(scale, TINY_SCALE, np.rint(w / scale), scale)


def effective(parameters: Mapping[str, Array], weights: str) -> dict[str, Array]:
    """The numbers that the quantized weights stand for, with the biases: `state_dict`."""
    def rounded(w: Array) -> Array:
        if weights == "bfloat16":
            return bfloat16(w)
        integers, scale = quantize_weights(w)
        return integers * scale
    return {name: rounded(value) if name.startswith("weight") else value
            for name, value in parameters.items()}


# ---- activations: x, h and r h ------------------------------------------------------------------

@np.errstate(all="ignore")
def quantize(x: Array, bits: int = 8, least: float = 0) -> tuple[Array, Array]:
    """Integers of so many bits and a scale (N, 1) for each row of (N, columns).

    The largest integer stands for the largest magnitude of the row, or for `least` if that is more.
    With 16 bits they are x in bfloat16, with scales of 1.
    """
    if bits == 16:
        return bfloat16(x), np.ones((len(x), 1), F)
    top = F(2 ** (bits - 1) - 1)
    most = np.maximum(np.abs(x).max(axis=1, keepdims=True), F(least))
    return unless_zero_or_nan(most, TINY, np.rint(x * (top / most)), most / top)


def unless_zero_or_nan(most: Array, tiny: F, integers: Array, scale: Array) -> tuple[Array, Array]:
    """Zeros for a row of nearly zeros, and the scale NaN for one that has an infinity or a NaN."""
    usable = np.isfinite(most) & (most >= tiny)
    scale = np.where(usable, scale, np.where(most < tiny, F(0), F(np.nan)))
    return np.where(usable, integers, 0).astype(np.int16), scale


def product(rows: tuple[Array, Array], weights: tuple[Array, Array]) -> Array:
    """rows @ weights.T, of numbers and scales both."""
    (x, x_scale), (w, w_scale) = rows, weights
    # float64 holds the sums of integers exactly, and NumPy multiplies it far faster than these.
    sums = x.astype(np.float64) @ w.astype(np.float64).T
    return sums.astype(F) * (x_scale * w_scale.T)


# ---- the functions of the gates, operation by operation those of math.h -------------------------

def exp_parts(x: Array, extra: int) -> tuple[Array, Array]:
    """scale and p of e^x = scale (1 + p) 2^-extra, scale a power of two."""
    offset = F(1.5 * 2**23 + 127 + extra)                  # the sum's low bits: the exponent
    shifted = x * F(1.44269504088896341) + offset
    k = shifted - offset
    r = (x - k * F(0.693145751953125)) - k * F(1.42860682030941723e-6)
    r2 = r * r
    polynomial = ((F(1.3926213466332443e-3) * r2
                   + (F(8.3632029715758550e-3) * r + F(4.1666554437685939e-2))) * r2
                  + (F(1.6666576845993976e-1) * r + F(0.5)))
    return (shifted.view(np.int32) << 23).view(F), r + r2 * polynomial


def sigmoid(a: Array) -> Array:
    s = F(2**-62)
    scale, p = exp_parts(-np.clip(a, F(-105), F(20)), -62)
    return s / ((s + scale) + scale * p)


def tanh(a: Array) -> Array:
    scale, p = exp_parts(F(2) * np.clip(a, F(-10), F(10)), 0)
    m = scale * p + (scale - F(1))
    return m / (m + F(2))


# ---- one direction of one layer, and a whole model ----------------------------------------------

@np.errstate(all="ignore")
def forward(x: Array, h: Array, weight_ih: Array, weight_hh: Array, bias_ih: Array, bias_hh: Array,
            reset_after: bool = True, x_bits: int = 8, *, reverse: bool = False,
            lengths: Array | None = None, mask: Array | None = None, resets: Array | None = None,
            activation: Activation = "tanh", recurrent_activation: Activation = "sigmoid",
            clip: float | None = None) -> tuple[Array, Array]:
    """Run all steps, from float32 arrays; returns (output (T, N, H), h_n (N, H)).

    x has `x_bits`, h has 8, and weights are int8. With x_bits=16 x, h and weights are bfloat16.
    Activations other than the default ones are those of `reference`.
    """
    f, g = sigmoid, tanh
    least = 1                                              # |h| is below it
    if not are_default(activation, recurrent_activation, clip):
        f = partial(first, recurrent_activation, clip)
        g = partial(first, activation, clip)
        least = 0
    H = h.shape[1]
    h_bits = 16 if x_bits == 16 else 8
    if x_bits == 16:
        ih, hh = quantize(weight_ih, 16), quantize(weight_hh, 16)
    else:
        ih, hh = quantize_weights(weight_ih), quantize_weights(weight_hh)
    hh_n = hh[0][2 * H:], hh[1][2 * H:]
    both = bias_ih + bias_hh
    h, output = h.copy(), np.zeros((*x.shape[:2], H), F)
    schedule = reference.schedule(*x.shape[:2], reverse, lengths, mask, resets)
    for t, reset, rows, shown in schedule:
        h[reset] = 0
        h_prev = h[rows]
        ih_r, ih_z, ih_n = np.split(product(quantize(x[t, rows], x_bits), ih), 3, axis=1)
        hh_r, hh_z, hh_q = np.split(product(quantize(h_prev, h_bits, least), hh), 3, axis=1)
        r = f(both[:H] + ih_r + hh_r)
        z = f(both[H:2 * H] + ih_z + hh_z)
        if reset_after:
            q = bias_hh[2 * H:] + hh_q
            n = g(bias_ih[2 * H:] + ih_n + r * q)
        else:
            q = r * h_prev
            n = g(both[2 * H:] + ih_n + product(quantize(q, h_bits, least), hh_n))
        h[rows] = n + z * (h_prev - n)
        output[t, shown] = h[shown]
    return output, h


def first(activation: Activation, clip: float | None, a: Array) -> Array:
    return reference.gate(a, activation, clip)[0]


def are_default(activation: Activation, recurrent_activation: Activation,
                clip: float | None) -> bool:
    """Whether the gates are sigmoid and tanh, under whatever name."""
    return (clip is None and as_activation(activation, "activation").core == TANH.core
            and as_activation(recurrent_activation, "activation").core == SIGMOID.core)


def run(parameters: Mapping[str, Array], x: Array, h_0: Array | None = None,
        weights: str = "int8", x_bits: int | None = None, reset_after: bool = True,
        reverse: bool = False, **options: Any) -> dict[str, Array]:
    """Output and h_n of all layers and directions that the parameters are of, as `reference.run`.

    `weights` and `x_bits` are those of `quantize`. The options are those of `forward`.
    """
    if x_bits not in (None, *_checks.X_BITS[weights]):
        raise ValueError(f"x_bits={x_bits} does not go with {weights}")
    one: Callable[..., tuple[Array, Any]] = partial(forward, x_bits=x_bits or 8)
    if weights == "bfloat16" and x_bits is None:
        parameters, one = effective(parameters, weights), reference.forward
    D = 2 if "weight_ih_l0_reverse" in parameters else 1
    L = sum("weight_ih" in name for name in parameters) // D
    none = np.zeros(len(parameters["weight_hh_l0"]), x.dtype)
    h_n = np.zeros((L * D, x.shape[1], len(none) // 3), x.dtype)
    h_n[:] = 0 if h_0 is None else h_0
    for layer in range(L):
        halves = []
        for d, name in enumerate([f"l{layer}", f"l{layer}_reverse"][:D]):
            half, last = one(
                x, h_n[layer * D + d], parameters[f"weight_ih_{name}"],
                parameters[f"weight_hh_{name}"], parameters.get(f"bias_ih_{name}", none),
                parameters.get(f"bias_hh_{name}", none), reset_after,
                reverse=reverse or d == 1, **options)
            h_n[layer * D + d] = last.h_n if isinstance(last, reference.Tape) else last
            halves.append(half)
        x = np.concatenate(halves, axis=2)
    return {"output": x, "h_n": h_n}
