"""Equinox: the arrays of ``equinox.nn.GRUCell``.

    weight_ih (3H, I), weight_hh (3H, H), bias (3H,), bias_n (H,)       stacked r, z, n

It computes W x, n = tanh(W_in x + b_in + r * (W_hn h + bias_n)) and h' = n + z * (h - n). Without
biases they are None. Source: equinox/nn/_rnn.py of Equinox 0.13.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c.interop import gates
from gru_c.interop.arrays import floats
from gru_c.interop.layers import (
    Direction,
    arranged,
    joined,
    place,
    refuse_options,
    separated,
    simplest,
)
from gru_c.interop.state_dict import listed

if TYPE_CHECKING:
    from gru_c._types import Array
    from gru_c.interop.found import Found

WHERE = "the cell"
FORM = gates.Form("W x", reset_after=True, z_times="h")
WEIGHTS, BIASES = ("weight_ih", "weight_hh"), ("bias", "bias_n")
SIZES = ("input_size", "hidden_size", "use_bias")          # of a cell, no arrays


def read(source: Any) -> Found:
    """The GRU of a cell or the arrays of one, or of cells of layers and directions."""
    layers = arranged(source, WHERE)
    return joined([tuple(_direction(cell, place(WHERE, layers, i, j))
                         for j, cell in enumerate(layer)) for i, layer in enumerate(layers)],
                  WHERE, "", "Equinox")


def arrays(found: Found) -> Any:
    """The arrays of cells by name, arranged as `read` takes them."""
    refuse_options(found, "a GRUCell of Equinox")
    return simplest([tuple(_arrays(own) for own in layer) for layer in separated(found)])


def _direction(cell: Any, where: str) -> Direction:
    if isinstance(cell, Mapping):
        own = dict(cell)
    else:
        own = {name: getattr(cell, name) for name in WEIGHTS + BIASES if hasattr(cell, name)}
    unknown = [name for name in own if name not in WEIGHTS + BIASES + SIZES]
    missing = [name for name in WEIGHTS if own.get(name) is None]
    if len({own.get(name) is None for name in BIASES}) > 1:
        missing += [name for name in BIASES if own.get(name) is None]
    for kind, names in (("missing", missing), ("unknown", unknown)):
        if names:
            there = listed(own) if own else f"no arrays in a {type(cell).__name__}"
            raise ValueError(f"{where}: {kind} {listed(names)}; there are {there}")
    parts = {name: floats(own[name], f"{where}: {name}")
             for name in WEIGHTS + BIASES if own.get(name) is not None}
    W, U, *biases = parts.values()
    if biases:
        b, b_n = biases
        if U.shape[1:] != b_n.shape:
            raise ValueError(f"{where}: bias_n has shape {b_n.shape}, expected {U.shape[1:]}")
        biases = [b, np.concatenate([np.zeros(2 * len(b_n), b_n.dtype), b_n])]
    return gates.direction({"rzn": (W, U, *biases)}, FORM, where)


def _arrays(own: Direction) -> dict[str, Array | None]:
    """Of one cell. Its r and z have one bias: the sum of two."""
    b = b_n = None
    if own.bias_ih is not None and own.bias_hh is not None:
        H = own.weight_hh.shape[1]
        b, b_n = own.bias_ih.copy(), own.bias_hh[2 * H:].copy()
        b[:2 * H] += own.bias_hh[:2 * H]
    return {"weight_ih": own.weight_ih.copy(), "weight_hh": own.weight_hh.copy(),
            "bias": b, "bias_n": b_n}
