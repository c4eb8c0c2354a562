"""RTNeural: its JSON files, of models of Keras and of state dicts of PyTorch.

    {"in_shape": [null, null, I],                          python/model_utils.py
     "layers": [{"type": "gru", "activation": "tanh", "shape": [null, null, H],
                 "weights": [kernel (I, 3H), recurrent (H, 3H), bias (2, 3H)]}, ...]}
    {"gru.weight_ih_l0": [[...], ...], ...}                RTNeural/torch_helpers.h; or the same
                                                           under the key "state_dict"

A GRU of the first form stacks z, r, n; its biases are of x and of h, and it computes x W,
n = tanh(x W_n + b_in + r * (h U_n + b_hn)) and h' = (1 - z) * n + z * h, always with sigmoid and
tanh. Source: RTNeural/model_loader.h and RTNeural/gru/gru.h.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _checks
from gru_c.interop import gates, state_dict
from gru_c.interop.containers.reading import all_of
from gru_c.interop.containers.writing import write_atomically
from gru_c.interop.errors import ModelFileError
from gru_c.interop.layers import joined, refuse_options, separated, swapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gru_c._exchange import Path
    from gru_c._types import Array
    from gru_c.interop.found import Found
    from gru_c.interop.layers import Direction

FORM = gates.Form("x W", reset_after=True, z_times="h")
CONVENTION = "RTNeural"
NAME = "layers.{}.weights.{}"                              # of an array of a file of layers
# Bytes of the Python objects that a file becomes, at most, by the characters that each needs.
SIZES = {b",": 48, b"[": 104, b"{": 320, b'"': 64}


def read(source: Any, layer: int | str | Sequence[int] | None, max_bytes: int) -> Found:
    """The GRU of a file, or of what a file holds, as a mapping."""
    if isinstance(source, Mapping):
        return _chosen(source, layer, "the mapping")
    where = os.fsdecode(source)
    try:
        return _chosen(_parsed(source, max_bytes), layer, where)
    except ValueError as error:
        raise ModelFileError(str(error)) from None


def find(path: Path, max_bytes: int) -> list[Found]:
    """Every GRU of a file."""
    model, where = _parsed(path, max_bytes), os.fsdecode(path)
    try:
        if "layers" not in model:
            return [*state_dict.find(_state_dict(model, where), where, CONVENTION)]
        layers = _layers(model, where)
        return [_joined([index], layers, where) for index in _grus(layers)]
    except ValueError as error:
        raise ModelFileError(str(error)) from None


def read_arrays(path: Path, max_bytes: int) -> dict[str, Array]:
    """Every array of a file: ``layers.0.weights.0``, or the names of the state dict."""
    model, where = _parsed(path, max_bytes), os.fsdecode(path)
    try:
        if "layers" not in model:
            return _state_dict(model, where)
        return {NAME.format(i, k): a
                for i, layer in enumerate(_layers(model, where))
                for k, a in enumerate(_weights(layer, f"{where}, layer {i}"))}
    except ValueError as error:
        raise ModelFileError(str(error)) from None


def write(found: Found, path: Path) -> None:
    """Write a file of the first form, one layer for each of the GRU."""
    refuse_options(found, "RTNeural", bidirectional=False)
    layers = [_layer(own) for own, in separated(found)]
    model = {"in_shape": [None, None, found.options["input_size"]], "layers": layers}
    try:
        text = json.dumps(model, allow_nan=False)
    except ValueError:
        raise ValueError(f"{found.where} has parameters that are NaN or infinite, which JSON "
                         "cannot hold") from None
    write_atomically(path, text.encode())


# ---- what a file holds --------------------------------------------------------------------------

def _parsed(path: Path, max_bytes: int) -> dict[str, Any]:
    """The object in a file. Numbers are read as floats; those that are not finite are errors."""
    where = os.fsdecode(path)
    with open(path, "rb") as file:
        text = all_of(file, max_bytes)
    need = len(text) * (1 if text.isascii() else 8)
    need += sum(text.count(mark) * size for mark, size in SIZES.items())
    if len(text) > max_bytes or need > 4 * max_bytes:
        raise ModelFileError(f"{where}: the file needs more than max_bytes={max_bytes}; raise it "
                             "to read the file")
    try:
        model = json.loads(text, parse_int=float, parse_constant=_refuse)
    except RecursionError:
        raise ModelFileError(f"{where}: the JSON is nested too deeply") from None
    except ValueError as error:
        raise ModelFileError(f"{where}: no valid JSON: {error}") from None
    if not isinstance(model, dict):
        raise ModelFileError(f"{where}: expected a JSON object, got {_kind(model)}")
    return model


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def _kind(value: Any) -> str:
    kinds: dict[type[Any], str] = {dict: "an object", list: "an array", str: "a string"}
    return kinds.get(type(value), "a number")


def _array(value: Any, name: str) -> Array:
    """Of nested lists of numbers: float32 if they are numbers of float32, else float64."""
    try:
        given = _checks.any_array(value, "it")
        if given.dtype.kind in "SU":
            raise TypeError("it holds texts")
        a = given.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is not an array of numbers: {error}") from None
    if not np.isfinite(a).all():
        raise ValueError(f"{name} has a number that is missing or not finite")
    with np.errstate(over="ignore"):
        single = a.astype(np.float32)
    return single if (single == a).all() else a


# ---- layers -------------------------------------------------------------------------------------

def _chosen(model: Mapping[str, Any], layer: int | str | Sequence[int] | None,
            where: str) -> Found:
    if "layers" not in model:
        if layer is not None and not isinstance(layer, str):
            raise ValueError(f"{where} is a state dict: layer must be a prefix of its names, "
                             f"got {layer!r}")
        return _of_state_dict(_state_dict(model, where), layer, where)
    layers = _layers(model, where)
    grus = _grus(layers)
    if layer is None and len(grus) == 1:
        layer = grus[0]
    indices = [layer] if isinstance(layer, int) else layer
    if (not indices or not isinstance(indices, (list, tuple))
            or not all(index in grus for index in indices)
            or list(indices) != [*range(indices[0], indices[0] + len(indices))]):
        raise ValueError(f"{where}: layer={layer!r}, but the layers are {_listed(layers)}; layer "
                         "must be the index of a GRU, or a list of those of GRUs that follow one "
                         "another")
    return _joined(indices, layers, where)


def _of_state_dict(arrays: dict[str, Array], prefix: str | None, where: str) -> Found:
    """The GRU with that prefix, or the only one."""
    found = state_dict.find(arrays, where, CONVENTION)
    if prefix is None and len(found) == 1:
        return found[0]
    own = {name: a for name, a in arrays.items() if name.startswith(prefix or "")}
    return state_dict.read(arrays if prefix is None else own, prefix or "", where, CONVENTION)


def _state_dict(model: Mapping[str, Any], where: str) -> dict[str, Array]:
    own = model.get("state_dict", model)
    if not isinstance(own, Mapping):
        raise ValueError(f"{where}: state_dict is {_kind(own)}, expected an object")
    return {name: _array(value, f"{where}: {name}") for name, value in own.items()}


def _layers(model: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    layers = model["layers"]
    if not isinstance(layers, list) or not all(isinstance(layer, Mapping) for layer in layers):
        raise ValueError(f"{where}: layers is not an array of objects")
    return layers


def _grus(layers: list[Mapping[str, Any]]) -> list[int]:
    return [index for index, layer in enumerate(layers) if layer.get("type") == "gru"]


def _listed(layers: Iterable[Mapping[str, Any]]) -> str:
    return state_dict.listed(f"{index}: {layer.get('type')}"
                             for index, layer in enumerate(layers)) or "none"


def _weights(layer: Mapping[str, Any], where: str) -> list[Array]:
    weights = layer.get("weights", [])
    if not isinstance(weights, list):
        raise ValueError(f"{where}: weights is {_kind(weights)}, expected an array")
    return [_array(value, f"{where}: weights[{k}]") for k, value in enumerate(weights)]


def _joined(indices: Sequence[int], layers: list[Mapping[str, Any]], where: str) -> Found:
    found = joined([(_direction(layers[index], f"{where}, layer {index}"),) for index in indices],
                   where, ",".join(map(str, indices)), CONVENTION)
    return replace(found, arrays=tuple(NAME.format(index, k) for index in indices
                                       for k in range(3)))


def _direction(layer: Mapping[str, Any], where: str) -> Direction:
    """Of a layer, which RTNeural could load."""
    weights = _weights(layer, where)
    shapes = ", ".join(str(a.shape) for a in weights)
    H = weights[1].shape[0] if len(weights) == 3 and weights[1].ndim == 2 else 0
    if not H or [a.shape[-1:] for a in weights] != [(3 * H,)] * 3 or weights[2].shape[:-1] != (2,):
        raise ValueError(f"{where}: weights of shapes {shapes or 'none'}, expected (I, 3 H), "
                         "(H, 3 H), (2, 3 H): a GRU of Keras with biases and reset_after=True")
    if layer.get("activation", "") not in ("", "tanh"):
        raise ValueError(f"{where}: activation={layer['activation']!r}, but a GRU of RTNeural "
                         "always has tanh")
    W, U, (b_i, b_h) = weights
    return gates.direction({"zrn": (W, U, b_i, b_h)}, FORM, where)


def _layer(own: Direction) -> dict[str, Any]:
    """A layer of a file. Without biases, they are zeros."""
    zeros = np.zeros(len(own.weight_hh))
    biases = [swapped(zeros if b is None else b) for b in (own.bias_ih, own.bias_hh)]
    weights = [swapped(own.weight_ih).T, swapped(own.weight_hh).T, np.stack(biases)]
    return {"type": "gru", "activation": "tanh", "shape": [None, None, own.weight_hh.shape[1]],
            "weights": [a.tolist() for a in weights]}
