"""Keras 2 and 3: layers, the arrays of `get_weights`, and files, without TensorFlow.

Keras has ``kernel (I, 3H)``, ``recurrent_kernel (H, 3H)`` and a bias, gates in the order z, r, n.
The bias is (2, 3H) with reset_after=True, row 0 that of the input, and (3H,) without: the sum of
ours. Keras itself is never imported.

config.py has configurations, files.py files and their arrays, writing.py what is written.
"""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c.interop.arrays import as_array, floats
from gru_c.interop.errors import ModelFileError
from gru_c.interop.found import Found
from gru_c.interop.keras import config, files
from gru_c.interop.keras.writing import weights, write
from gru_c.interop.layers import swapped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gru_c._exchange import Path
    from gru_c._types import Array
    from gru_c.interop.keras.config import Settings
    from gru_c.interop.keras.files import File, Stored

__all__ = ["find", "read", "read_arrays", "weights", "write"]


def read(source: Any, layer: str | None, go_backwards: bool, options: Mapping[str, Any],
         max_bytes: int) -> Found:
    """A GRU of Keras: a layer, the list of its weights, or a file.

    `layer` selects one in a file. `go_backwards` is for what has no configuration. `options` are
    those of the caller: they replace what the source says, which may then be unknown here.
    """
    if isinstance(source, (str, bytes, os.PathLike)):
        return _of_file(source, layer, go_backwards, options, max_bytes)
    if layer is not None:
        raise TypeError(f"layer={layer!r} selects a layer of a file; pass the layer itself")
    if hasattr(source, "get_config") and hasattr(source, "get_weights"):
        return _of_layer(source, go_backwards, options)
    if isinstance(source, (list, tuple)):
        return _of_list(source, go_backwards, options)
    raise TypeError("source should be a layer of Keras, the list that its get_weights() gives, or "
                    f"the path of a file, got: {type(source).__name__}")


def find(path: Path, max_bytes: int) -> list[Found]:
    """Every GRU of a file: the two directions of a `Bidirectional` apart where they cannot be one.

    A warning names those that cannot be read. If there are no others, it is a ModelFileError.
    """
    with files.reading(path, max_bytes) as file:
        found: dict[str, Found] = {}
        problems: dict[str, ModelFileError] = {}
        for stored in _listed(file):
            if not stored.alone and stored.name.rpartition("/")[0] in found:
                continue
            try:
                found[stored.name] = _of_stored(file, stored, False, {})
            except ModelFileError as error:
                problems[stored.name] = error
    for name, problem in problems.items():
        if not found:
            raise problem
        if not any(other.startswith(f"{name}/") for other in found):
            warnings.warn(f"left out: {problem}", UserWarning, stacklevel=3)
    return list(found.values())


def read_arrays(path: Path, max_bytes: int) -> dict[str, Array]:
    """Every array of numbers of a file by its path in HDF5."""
    with files.reading(path, max_bytes) as file:
        return {name: file.hdf5.read(name) for name in file.hdf5.arrays}


# ---- files ---------------------------------------------------------------------------------------

def _of_file(path: Path, layer: str | None, go_backwards: bool, options: Mapping[str, Any],
             max_bytes: int) -> Found:
    with files.reading(path, max_bytes) as file:
        there = {stored.name: stored for stored in _listed(file)}
        stack = config.stack(file.config) if layer is None else []
        if len(stack) > 1:
            return _stacked([_of_stored(file, there[name], go_backwards, options)
                             for name in stack], file.where)
        return _of_stored(file, _chosen(file, layer), go_backwards, options)


def _stacked(found: list[Found], where: str) -> Found:
    """The layers of a Sequential as one GRU."""
    first = found[0].options
    for below, above in pairwise(found):
        own, width = above.options, below.options["hidden_size"] * (1 + first["bidirectional"])
        differing = [name for name in first if name != "input_size" and own[name] != first[name]]
        if differing or own["reverse"] or own["num_layers"] > 1 or own["input_size"] != width:
            names = ", ".join(repr(each.name) for each in found)
            raise ModelFileError(
                f"{where}: it holds {len(found)} GRUs, which differ in "
                f"{', '.join(differing) or 'direction or size'}, so that they are not the layers "
                f"of one; choose one with layer=: {names}")
    parameters = {name.replace("_l0", f"_l{i}"): a for i, each in enumerate(found)
                  for name, a in each.parameters.items()}
    return Found(first | {"num_layers": len(found)}, parameters, where,
                 convention=found[0].convention)


def _listed(file: File) -> list[Stored]:
    try:
        return file.stored()
    except ValueError as error:
        raise ModelFileError(f"{file.where}: {error}") from None


def _chosen(file: File, layer: str | None) -> Stored:
    """The layer with that name, where the names of its models may be left out; or the only one."""
    there = _listed(file)
    if layer is None:
        found = [stored for stored in there if stored.alone]
    else:
        found = ([stored for stored in there if stored.name == layer]
                 or [stored for stored in there if stored.name.endswith(f"/{layer}")])
    if len(found) == 1:
        return found[0]
    names = ", ".join(repr(stored.name) for stored in there if layer is not None or stored.alone)
    if not there:
        why = "; its configuration names none" if file.config is not None else ""
        if file.config is not None and file.weights:
            why += (", but it has weights that could be one: pass those that "
                    f"gru_c.interop.read_arrays gives, {list(file.weights[0].arrays)}, with the "
                    "options as keywords")
        raise ModelFileError(f"{file.where}: it holds no GRU{why}")
    if layer is None:
        raise ModelFileError(f"{file.where}: it holds {len(found)} GRUs; choose one with layer=: "
                             f"{names}")
    problem = "several names end with it" if found else "there is no such GRU"
    raise ModelFileError(f"{file.where}: layer={layer!r}: {problem}; there are {names}")


def _of_stored(file: File, stored: Stored, go_backwards: bool,
               options: Mapping[str, Any]) -> Found:
    where = f"{file.where}, layer {stored.name!r}"
    try:
        told = file.settings(stored, options)
        paths = file.parts(stored, told)
        parts = [[file.hdf5.read(path) for path in own] for own in paths]
        found = _made(parts, told, where, go_backwards or stored.reverse, options, stored.name,
                      file.version)
        untold = "" if told else ", activations and direction are not in the file"
        return replace(found, arrays=tuple(chain.from_iterable(paths)),
                       convention=found.convention + untold)
    except ModelFileError:
        raise
    except ValueError as error:
        raise ModelFileError(f"{where}: {error}") from None


# ---- layers and lists ----------------------------------------------------------------------------

def _of_layer(layer: Any, go_backwards: bool, options: Mapping[str, Any]) -> Found:
    class_name = type(layer).__name__
    where = f"the {class_name}"
    found = [node for node in config.nodes(
        {"class_name": class_name, "config": layer.get_config()}) if node.alone]
    if hasattr(layer, "layers") or len(found) != 1:
        names = ", ".join(repr(node.name) for node in found) or "none"
        raise ValueError(f"{where} is not a layer that holds one GRU; pass a GRU, GRUCell, RNN of "
                         f"GRUCells or Bidirectional(GRU) of its own (GRUs that it has: {names})")
    arrays = [as_array(a, f"{where}: array {i}") for i, a in enumerate(layer.get_weights())]
    told = config.settings(found[0].class_name, found[0].config, _version(layer), options)
    if not arrays:
        raise ValueError(f"{where} has no weights yet: build it, or call it once")
    return _made(_split(arrays, len(told.groups), where), told, where, go_backwards, options,
                 str(getattr(layer, "name", "")), _version(layer))


def _version(layer: Any) -> int | None:
    """The major version of the package that the layer's class comes from."""
    package = sys.modules.get(type(layer).__module__.split(".")[0])
    if package is not None and package.__name__ == "tensorflow":
        return 2                                           # tensorflow.python.keras
    major = str(getattr(package, "__version__", "")).split(".")[0]
    return int(major) if major in ("2", "3") else None


def _of_list(arrays: Sequence[Any], go_backwards: bool, options: Mapping[str, Any]) -> Found:
    where = "the list of weights"
    if len(arrays) not in (2, 3, 4, 6):
        raise ValueError(f"{where} has {len(arrays)} arrays; get_weights() gives 2 or 3 for a GRU "
                         "(kernel, recurrent_kernel, bias), 4 or 6 for a Bidirectional")
    parts = _split([as_array(a, f"{where}: array {i}") for i, a in enumerate(arrays)],
                   1 if len(arrays) < 4 else 2, where)
    return _made(parts, None, where, go_backwards, options, "", None)


def _split(arrays: Sequence[Array], count: int, where: str) -> list[list[Array]]:
    each = len(arrays) // count
    if each not in (2, 3) or each * count != len(arrays):
        raise ValueError(f"{where} has {len(arrays)} arrays, expected {2 * count} or {3 * count}")
    return [list(arrays[i * each:(i + 1) * each]) for i in range(count)]


# ---- arrays and options --------------------------------------------------------------------------

def _made(parts: list[list[Array]], told: Settings | None, where: str, go_backwards: bool,
          given: Mapping[str, Any], name: str, version: int | None) -> Found:
    """A GRU of the arrays of its directions or layers, and of what a configuration tells."""
    bidirectional = told.bidirectional if told else len(parts) == 2
    if told:
        if go_backwards and not told.options["reverse"]:
            raise ValueError(f"{where}: go_backwards=True, but its configuration says False")
        options = dict(told.options)
    else:
        options = {"reverse": go_backwards, "batch_first": True}
    if go_backwards and bidirectional:
        raise ValueError(f"{where}: go_backwards=True is of one direction, and it has two")
    suffixes = ["l0", "l0_reverse"] if bidirectional else [f"l{i}" for i in range(len(parts))]
    for part, suffix in zip(parts, suffixes, strict=True):
        _check(part, told, f"{where}, {suffix}" if len(parts) > 1 else where)
    _check_alike(parts, bidirectional, where)
    parameters = {f"{kind}_{suffix}": a for part, suffix in zip(parts, suffixes, strict=True)
                  for kind, a in _parameters(part).items()}
    asked = given.get("reset_after", told and told.reset_after)
    options |= {"reset_after": _reset_after(parts[0], asked, told is None, where),
                "input_size": parts[0][0].shape[0], "hidden_size": len(parts[0][1]),
                "num_layers": 1 if bidirectional else len(parts), "bias": len(parts[0]) == 3,
                "bidirectional": bidirectional}
    convention = f"Keras{f' {version}' if version else ''}, reset_after={options['reset_after']}"
    return Found(options, parameters, where, name, convention)


def _reset_after(part: list[Array], asked: bool | None, default: bool, where: str) -> bool:
    """What the shape of the bias says, which `asked` must not contradict; without a bias, `asked`.

    `default` is for None: False for a configuration, which is then older than the option, and True
    for a list of arrays.
    """
    if len(part) < 3:
        return default if asked is None else bool(asked)
    found = part[2].shape != (3 * len(part[1]),)
    if asked is not None and bool(asked) != found:
        raise ValueError(f"{where}: reset_after={asked}, but its bias has shape {part[2].shape}, "
                         f"which is that of reset_after={found}")
    return found


def _check(part: list[Array], told: Settings | None, where: str) -> None:
    """The shapes of kernel, recurrent_kernel and bias, and what is told of them."""
    part[:] = [floats(a, f"{where}: {kind}")
               for kind, a in zip(files.ORDER, part, strict=False)]
    shapes = [a.shape for a in part]
    if len(shapes) not in (2, 3) or not files.is_gru(shapes):
        raise ValueError(f"{where}: arrays have shapes {', '.join(map(str, shapes))}, expected "
                         "kernel (I, 3H), recurrent_kernel (H, 3H) and bias (3H,) or (2, 3H)")
    if told and (len(part[1]), len(part) == 3) != (told.units, told.bias):
        raise ValueError(f"{where}: arrays have shapes {', '.join(map(str, shapes))}, but its "
                         f"configuration says units={told.units}, use_bias={told.bias}")


def _check_alike(parts: list[list[Array]], bidirectional: bool, where: str) -> None:
    """Both directions have the same shapes, and each layer takes what the one below gives."""
    first, H = [a.shape for a in parts[0]], len(parts[0][1])
    for part in parts[1:]:
        shapes = [a.shape for a in part]
        expected = first if bidirectional else [(H, 3 * H), *first[1:]]
        if shapes != expected:
            raise ValueError(f"{where}: arrays have shapes {', '.join(map(str, shapes))}, expected "
                             f"{', '.join(map(str, expected))} beside those of the first")


def _parameters(part: list[Array]) -> dict[str, Array]:
    """Our parameters of one direction of one layer.

    The bias (6H,) of a CuDNNGRU is both biases, one after the other. Its matrices are those of
    cuDNN, gate by gate: ``weight_ih (H, I)`` in an array of shape (I, H), ``weight_hh (H, H)``.
    """
    kernel, recurrent, *bias = part
    I, H = len(kernel), len(recurrent)  # noqa: E741
    if bias and bias[0].shape == (6 * H,):
        found = {"weight_ih": np.concatenate([np.ascontiguousarray(gate).reshape(H, I)
                                              for gate in np.split(kernel, 3, axis=1)]),
                 "weight_hh": np.concatenate(np.split(recurrent, 3, axis=1))}
    else:
        found = {"weight_ih": kernel.T, "weight_hh": recurrent.T}
    if bias:
        if bias[0].size == 3 * H:
            found |= {"bias_ih": bias[0], "bias_hh": np.zeros_like(bias[0])}
        else:
            found["bias_ih"], found["bias_hh"] = bias[0].reshape(2, 3 * H)
    return {kind: swapped(a) for kind, a in found.items()}
