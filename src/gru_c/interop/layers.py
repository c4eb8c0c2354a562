"""Layers and directions: a GRU from the parameters of each, and the parameters of each again.

What `from_gates`, `from_flax` and `from_equinox` take is arranged alike: one thing is one direction
of one layer, a tuple holds the two directions of a layer, and a list holds layers, lowest first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gru_c import _checks
from gru_c._parameters import NAMES
from gru_c.interop.found import Found

if TYPE_CHECKING:
    from gru_c._types import Array

SUFFIXES = ("", "_reverse")
FLOATS = (np.float16, np.float32, np.float64)

# Options that a target without activations, clip and reset_after cannot hold, and what it computes.
PLAIN: dict[str, Any] = {"reset_after": True, "activation": "tanh",
                         "recurrent_activation": "sigmoid", "clip": None, "reverse": False}


class Direction(NamedTuple):
    """The parameters of one direction of one layer, in the layout of `gru_c.GRU`."""

    weight_ih: Array                                       # (3H, I)
    weight_hh: Array                                       # (3H, H)
    bias_ih: Array | None = None                           # (3H,)
    bias_hh: Array | None = None


# ---- what a caller gives ------------------------------------------------------------------------

def arranged(source: Any, where: str) -> list[tuple[Any, ...]]:
    """Layers, each a tuple of its directions; all have one, or all have two."""
    layers = source if isinstance(source, list) else [source]
    if not layers:
        raise ValueError(f"{where}: the list of layers is empty")
    found = [layer if isinstance(layer, tuple) else (layer,) for layer in layers]
    counts = sorted({len(layer) for layer in found})
    if counts not in ([1], [2]):
        raise ValueError(f"{where}: layers of {' and '.join(map(str, counts))} directions; a list "
                         "holds layers, a tuple the forward and the reverse direction of one")
    return found


def place(where: str, layers: list[tuple[Any, ...]], layer: int, direction: int) -> str:
    """`where`, and which of the layers and directions it is about."""
    words = [where]
    if len(layers) > 1:
        words.append(f"layer {layer}")
    if len(layers[0]) > 1:
        words.append(("forward", "reverse")[direction])
    return ", ".join(words)


def as_array(value: Any, name: str) -> Array:
    """An array of anything like one: a list, a JAX array, a variable of Flax, a tensor."""
    value = value.detach() if hasattr(value, "detach") else value      # a parameter of PyTorch
    try:
        a = _checks.any_array(value, "it")
        if a.dtype == object and hasattr(value, "value"):  # VariableState of older versions of Flax
            a = np.asarray(value.value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} is no array: {error}") from None
    if a.dtype.name == "bfloat16":
        a = a.astype(np.float32)
    a = a.astype(a.dtype.newbyteorder("="), copy=False)
    if a.dtype not in FLOATS:
        raise ValueError(f"{name} has dtype {a.dtype}, expected a floating dtype")
    return a


# ---- to a GRU and back --------------------------------------------------------------------------

def joined(layers: list[tuple[Direction, ...]], where: str, name: str, convention: str,
           **options: Any) -> Found:
    """The GRU of these layers; one without a bias has zeros where another one has a bias."""
    bias = any(b is not None for layer in layers for own in layer for b in own[2:])
    first = layers[0][0]
    H = first.weight_hh.shape[1]
    inputs = first.weight_ih.shape[1]
    parameters: dict[str, Array] = {}
    for i, layer in enumerate(layers):
        for j, own in enumerate(layer):
            _check(own, inputs, H, place(where, layers, i, j))
            arrays = own[:2] + tuple(_or_zeros(b, own.weight_hh) for b in own[2:]) * bias
            parameters |= {f"{key}_l{i}{SUFFIXES[j]}": a
                           for key, a in zip(NAMES, arrays, strict=False)}
        inputs = len(layer) * H
    sizes = {"input_size": first.weight_ih.shape[1], "hidden_size": H, "num_layers": len(layers),
             "bias": bias, "bidirectional": len(layers[0]) == 2}
    return Found(sizes | options, parameters, where, name, convention)


def separated(found: Found) -> list[tuple[Direction, ...]]:
    """The parameters of a GRU by layers and directions."""
    suffixes = SUFFIXES[:1 + found.options["bidirectional"]]
    names = NAMES if found.options["bias"] else NAMES[:2]
    return [tuple(Direction(*[found.parameters[f"{name}_l{layer}{suffix}"] for name in names])
                  for suffix in suffixes) for layer in range(found.options["num_layers"])]


def simplest(layers: list[tuple[Any, ...]]) -> Any:
    """The inverse of `arranged`."""
    found = [layer if len(layer) > 1 else layer[0] for layer in layers]
    return found if len(found) > 1 else found[0]


def refuse_options(found: Found, target: str, **more: Any) -> None:
    """An error for an option that the target cannot hold; `more` are others that it cannot."""
    for name, value in (PLAIN | more).items():
        if found.options.get(name, value) != value:
            raise ValueError(f"{found.where} has {name}={found.options[name]!r}, which {target} "
                             f"cannot hold: it has {name}={value!r}")


def _check(own: Direction, inputs: int, H: int, where: str) -> None:
    for name, a, shape in (("weight_hh", own.weight_hh, (3 * H, H)),
                           ("weight_ih", own.weight_ih, (3 * H, inputs))):
        if a.shape != shape:
            raise ValueError(f"{where}: {name}, gates stacked, has shape {a.shape}, expected "
                             f"{shape}, since the GRU has hidden_size {H} and this layer reads "
                             f"{inputs}")


def _or_zeros(b: Array | None, weight_hh: Array) -> Array:
    return np.zeros(len(weight_hh), weight_hh.dtype) if b is None else b
