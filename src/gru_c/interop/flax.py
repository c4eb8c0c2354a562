"""Flax: parameter trees of GRU cells, of its linen and of its nnx API.

    linen   ir, iz, in {kernel (I, H), bias (H,)}   hr, hz {kernel (H, H)}   hn {kernel, bias}
    nnx     dense_i {kernel (I, 3H), bias (3H,)}    dense_h {kernel (H, 3H)}      stacked r, z, n

Both compute x W, n = tanh(x W_in + b_in + r * (h W_hn + b_hn)) and h' = (1 - z) * n + z * h; there
is no b_hn in nnx. Source: flax/linen/recurrent.py and flax/nnx/nn/recurrent.py of Flax 0.12.
"""

from __future__ import annotations

import re
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

WHERE = "the tree"
FORM = gates.Form("x W", reset_after=True, z_times="h")
LINEN = ("ir/kernel", "ir/bias", "iz/kernel", "iz/bias", "in/kernel", "in/bias",
         "hr/kernel", "hz/kernel", "hn/kernel", "hn/bias")
NNX = ("dense_i/kernel", "dense_i/bias", "dense_h/kernel")
DEEPEST, MAX_NODES = 100, 2**18                            # of a tree
APIS = {"linen": LINEN, "nnx": NNX}


def read(source: Any, path: str) -> Found:
    """The GRU of a tree, or of trees of layers and directions."""
    layers = arranged(source, WHERE)
    directions = []
    for i, layer in enumerate(layers):
        directions.append(tuple(_cell(tree, path, place(WHERE, layers, i, j))
                                for j, tree in enumerate(layer)))
    return joined(directions, WHERE, path, "Flax")


def tree(found: Found) -> Any:
    """Trees of linen cells, arranged as `read` takes them."""
    refuse_options(found, "a GRUCell of Flax")
    return simplest([tuple(_linen(own) for own in layer) for layer in separated(found)])


# ---- from trees ---------------------------------------------------------------------------------

def leaves(source: Any, where: str) -> dict[str, Any]:
    """Every leaf of nested mappings by its path; keys of flat ones hold "/" or "." or are tuples.
    """
    if not isinstance(source, Mapping):
        raise TypeError(f"{where}: expected a mapping of parameters, got: {type(source).__name__} "
                        "(nnx.state(module) gives one)")
    found, nodes = {}, [("", source)]
    for path, node in nodes:
        for key, value in node.items():
            own = "/".join(map(str, key)) if isinstance(key, tuple) else str(key)
            own = path + re.sub("[/.]+", "/", own)
            if isinstance(value, Mapping):
                nodes.append((f"{own}/", value))
                if own.count("/") > DEEPEST or len(nodes) > MAX_NODES:
                    raise ValueError(f"{where}: it is too deep or too large, or holds itself")
            else:
                found[own] = value
    return found


def cells(paths: Any) -> dict[str, str]:
    """Where a GRU cell may be, and of which API: where a leaf of one is, and not of another cell.
    """
    found: dict[str, str] = {}
    for path in paths:
        for api, names in APIS.items():
            for name in (names[0], names[-1]):
                if path == name or path.endswith(f"/{name}"):
                    found[path.removesuffix(name)] = api
    return found


def _cell(source: Any, path: str, where: str) -> Direction:
    """The one cell below `path`."""
    found = leaves(source, where)
    below = f"{re.sub('[/.]+', '/', path).strip('/')}/".removeprefix("/")
    there = {at: api for at, api in cells(found).items() if at.startswith(below)}
    if len(there) != 1:
        raise ValueError(f"{where}: {_advice(path, there, found)}")
    (at, api), = there.items()
    own = {name.removeprefix(at): leaf for name, leaf in found.items() if name.startswith(at)}
    _check_names(own, at, api, where)
    return _direction({name: floats(own[name], f"{where}: {at}{name}") for name in APIS[api]},
                      api, f"{where}, {at.rstrip('/')!r}" if at else where)


def _advice(path: str, there: Mapping[str, str], found: Mapping[str, Any]) -> str:
    """Why there is not one cell, and what there is."""
    below = f" below {path!r}" if path else ""
    if there:
        could = " or ".join(repr(at.rstrip("/")) for at in there)
        return f"{len(there)} GRU cells{below}; path could be {could}"
    return f"no GRU cell{below}; there are {listed(found) if found else 'no parameters'}"


def _check_names(own: dict[str, Any], at: str, api: str, where: str) -> None:
    """Refuse a cell without a leaf that it should have, or with more in the same places."""
    expected = APIS[api]
    places = {name.partition("/")[0] for name in expected}
    for kind, names in (
            ("missing", [name for name in expected if name not in own]),
            ("unexpected", [name for name in own
                            if name.partition("/")[0] in places and name not in expected])):
        if names:
            raise ValueError(f"{where}: {kind} {listed(at + name for name in names)} of a GRUCell "
                             f"of {api}; there are {listed(at + name for name in own)}")


def _direction(own: dict[str, Array], api: str, where: str) -> Direction:
    if api == "nnx":
        mapping: dict[str, Any] = {
            "rzn": (own["dense_i/kernel"], own["dense_h/kernel"], own["dense_i/bias"], None)}
    else:
        mapping = {gate: (own[f"i{gate}/kernel"], own[f"h{gate}/kernel"], own[f"i{gate}/bias"],
                          own.get(f"h{gate}/bias")) for gate in "rzn"}
    return gates.direction(mapping, FORM, where)


# ---- to trees -----------------------------------------------------------------------------------

def _linen(own: Direction) -> dict[str, dict[str, Array]]:
    """The tree of a linen cell. Its r and z have one bias: the sum of two."""
    zeros = np.zeros(len(own.weight_hh), own.weight_hh.dtype)
    b_i, b_h = (np.split(zeros if b is None else b, 3) for b in (own.bias_ih, own.bias_hh))
    tree = {}
    for k, gate in enumerate("rzn"):
        tree[f"i{gate}"] = {"kernel": np.split(own.weight_ih, 3)[k].T.copy(),
                            "bias": b_i[k].copy() if gate == "n" else b_i[k] + b_h[k]}
        tree[f"h{gate}"] = {"kernel": np.split(own.weight_hh, 3)[k].T.copy()}
    tree["hn"]["bias"] = b_h[2].copy()
    return tree
