"""Files of Keras: `.keras` (a zip), `.weights.h5` and `.h5`; their GRUs and arrays.

`.keras`, of Keras 3 and of Keras 2.12 and later: configuration in config.json, weights in
model.weights.h5, where ``layers/gru/cell/vars/0`` is named after classes, not after layers.
`.weights.h5`: the same without a configuration. `.h5` of Keras 2, as Keras 3 writes it, too: the
configuration, if there is one, in an attribute, weights under names of variables,
``model_weights/gru/gru/gru_cell/kernel:0``.
"""

from __future__ import annotations

import io
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gru_c.interop.containers import hdf5, json_text, zips
from gru_c.interop.containers.reading import opened
from gru_c.interop.errors import ModelFileError
from gru_c.interop.keras.config import Node, joined, nodes, settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gru_c._exchange import Path
    from gru_c.interop.keras.config import Settings

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
JSON_BYTES = 2**24
JSON_FACTOR = 16                                           # of its values in memory
ADVICE = "; raise max_bytes to read it"
SHOWN = 12                                                 # names that an error lists
# A variable of Keras 2, or of a file that Keras 3 writes in its form.
VARIABLE = re.compile(r"(?P<kind>kernel|recurrent_kernel|bias)(?P<number>_\d+)?(:0)?")
KINDS = {"0": "kernel", "1": "recurrent_kernel", "2": "bias"}      # of Keras 3
ORDER = ("kernel", "recurrent_kernel", "bias")
OLD_LAYERS = "_layer_checkpoint_dependencies"              # of Keras 2.12 and 2.13
NO_NAMES = ("layers", OLD_LAYERS, "cell", "cells", "layer", "vars")


@dataclass(frozen=True)
class Stored:
    """A GRU of a file: its name, and the paths of the arrays of each of its parts.

    node
        What the configuration says of it; None where there is none.
    alone
        False of one direction of a `Bidirectional`.
    reverse
        Whether a lone direction is the backward one of a `Bidirectional` without configuration.
    """

    name: str
    parts: tuple[tuple[str, ...], ...]
    node: Node | None = None
    alone: bool = True
    reverse: bool = False


@dataclass(frozen=True)
class Weights:
    """Arrays with the names and shapes of a GRU of one direction."""

    names: tuple[str, ...]                                 # of what it is in, outermost first
    arrays: tuple[str, ...]                                # paths of kernel, recurrent_kernel, bias


class File:
    """An open file of Keras.

    version
        The major version of Keras that wrote it, or None.
    """

    def __init__(self, hdf5_file: hdf5.File, where: str, config: Any, version: str | None) -> None:
        self.hdf5: hdf5.File = hdf5_file
        self.where: str = where
        self.config: Any = config
        major = (version or "").split(".")[0]
        self.version: int | None = int(major) if major in ("1", "2", "3", "4") else None

    @cached_property
    def weights(self) -> list[Weights]:
        """All arrays that could be a GRU of one direction."""
        return list(_weights(self.hdf5))

    def stored(self) -> list[Stored]:
        """Every GRU, in the order of the configuration, or by name where there is none."""
        if self.config is None:
            return list(_by_name(self.weights))
        return [Stored(node.name, (), node, node.alone) for node in nodes(self.config)]

    def settings(self, stored: Stored, given: Mapping[str, Any]) -> Settings | None:
        """What the configuration tells of it."""
        node = stored.node
        if node is None:
            return None
        return settings(node.class_name, node.config, self.version, given, node.name)

    def parts(self, stored: Stored, told: Settings | None) -> list[tuple[str, ...]]:
        """The paths of its arrays."""
        if told is None or stored.node is None:
            return list(stored.parts)
        groups = [joined(stored.node.group, group) for group in told.groups]
        if {"layers", OLD_LAYERS} & set(self.hdf5.children("")):
            own, found = stored.node.config.get("name"), joined(stored.node.group, "vars")
            kept = self.hdf5.text(found, "name")
            if kept not in (None, own):
                raise ModelFileError(f"{self.where}: layer {stored.name!r} should be at {found}, "
                                     f"but that is {kept!r}")
            return [self._in_group(group, stored.name) for group in groups]
        return self._by_variables(stored, told)

    def _in_group(self, group: str, name: str) -> tuple[str, ...]:
        """In a file that names groups after classes."""
        group = self._group(group)
        paths = [f"{group}/vars/{i}" for i in range(3)]
        found = tuple(path for path in paths if path in self.hdf5.arrays)
        if not found:
            raise ModelFileError(f"{self.where}: layer {name!r} has no weights at {group}/vars")
        return found

    def _group(self, group: str) -> str:
        """The group in the file. Keras 2.12 and 2.13 count layers with weights twice, so that
        ``layers/gru_1`` is ``_layer_checkpoint_dependencies/gru_2`` there."""
        if OLD_LAYERS not in self.hdf5.children(""):
            return group
        found = ""
        for part in group.split("/"):
            if found.endswith(OLD_LAYERS):
                base, number = _numbered(part)
                there = sorted((own[1], child) for child in self.hdf5.children(found)
                               if (own := _numbered(child))[0] == base)
                part = there[number][1] if number < len(there) else part
            found = joined(found, OLD_LAYERS if part == "layers" else part)
        return found

    def _by_variables(self, stored: Stored, told: Settings) -> list[tuple[str, ...]]:
        """In a file that names groups after variables: those whose path has the layer's names.

        The path of a wrapped layer lacks the layer's own name; that of a renamed layer has the old.
        """
        top, *names = stored.name.split("/")
        found = [weights for weights in self.weights if weights.names[0] == top]
        if not stored.alone:                               # forward_gru: any name that begins so
            names[-1] = names[-1].partition("_")[0] + "_"
        for name in names:
            found = [weights for weights in found if _has(weights, name)] or found
        if len(told.hints) > 1:
            found = [weights for hint in told.hints for weights in found if _has(weights, hint)]
        if len(found) != len(told.groups):
            sets = ", ".join("/".join(weights.names) for weights in found)
            raise ModelFileError(f"{self.where}: layer {stored.name!r} should have "
                                 f"{len(told.groups)} set(s) of weights, found {len(found)}: "
                                 f"{sets}")
        return [weights.arrays for weights in found]


def _numbered(name: str) -> tuple[str, int]:
    """``"gru_2"`` as ``("gru", 2)``, ``"gru"`` as ``("gru", 0)``."""
    base, _, number = name.rpartition("_")
    return (base, int(number)) if base and number.isdecimal() else (name, 0)


def _has(weights: Weights, hint: str) -> bool:
    """Whether a group that it is in has this name, or begins with it if it ends with "_".

    A backward layer may have any name: it is what is not the forward one.
    """
    if hint == "backward_":
        return not _has(weights, "forward_")
    return any(name == hint or (hint.endswith("_") and name.startswith(hint))
               for name in weights.arrays[0].split("/")[:-1])


# ---- weights without a configuration -------------------------------------------------------------

def _weights(file: hdf5.File) -> Iterator[Weights]:
    """All arrays that could be a GRU of one direction."""
    sets: dict[tuple[str, str], dict[str, str]] = {}
    whole_model = any(name.startswith("model_weights/") for name in file.arrays)
    for path in file.arrays:
        group, _, last = path.rpartition("/")
        match = VARIABLE.fullmatch(last)
        if match and (not whole_model or path.startswith("model_weights/")):
            sets.setdefault((group, match["number"] or ""), {})[match["kind"]] = path
        elif group.split("/")[-1] == "vars":
            sets.setdefault((group, ""), {})[KINDS.get(last, last)] = path
    for (group, _), paths in sets.items():
        if {"kernel", "recurrent_kernel"} <= paths.keys() <= set(ORDER):
            arrays = tuple(paths[kind] for kind in ORDER if kind in paths)
            if is_gru([file.arrays[path][0] for path in arrays]):
                yield Weights(_names(file, group), arrays)


def is_gru(shapes: list[tuple[int, ...]]) -> bool:
    """Whether shapes are those of kernel, recurrent_kernel and bias."""
    kernel, recurrent, *bias = shapes
    if len(kernel) != 2 or len(recurrent) != 2 or 0 in (*kernel, *recurrent):
        return False
    H = recurrent[0]
    return kernel[1] == recurrent[1] == 3 * H and all(
        shape in ((3 * H,), (6 * H,), (2, 3 * H)) for shape in bias)


def _names(file: hdf5.File, group: str) -> tuple[str, ...]:
    """The names of the layers that a group of arrays lies in."""
    parts = group.removeprefix("model_weights/").split("/")
    if parts[-1] != "vars":                                # variables: top/top/gru/gru_cell
        stacked = "stacked_rnn_cells" in "/".join(parts)
        if len(parts) > 1 and not stacked and re.fullmatch(r".*cell(_\d+)?", parts[-1]):
            parts = parts[:-1]
        return tuple(parts[1:] if len(parts) > 1 and parts[0] == parts[1] else parts)
    names = []
    for i, part in enumerate(parts):
        path = "/".join(parts[:i + 1])
        own = file.text(f"{path}/vars", "name")            # Keras 3.5 and later
        if own and part in ("forward_layer", "backward_layer"):
            side = part.removesuffix("layer")
            names.append(side + own.removeprefix(side))
        elif part == "layer" and own:
            names.append(own)
        elif part not in NO_NAMES:
            names.append(own or part)
    return tuple(names) or (group,)


def _by_name(weights: list[Weights]) -> Iterator[Stored]:
    """GRUs of weights alone; a pair of a forward and a backward layer are two directions."""
    for own in weights:
        name = "/".join(own.names)
        *outer, last = own.names
        if last.startswith("forward_"):
            backward = [w for w in weights if w.names[:-1] == tuple(outer)
                        and w.names[-1].startswith("backward_")]
            if len(backward) == 1:
                yield Stored("/".join(outer), (own.arrays, backward[0].arrays))
                yield Stored(name, (own.arrays,), alone=False)
                yield Stored("/".join(backward[0].names), (backward[0].arrays,), alone=False,
                             reverse=True)
                continue
        if not (last.startswith("backward_") and any(
                w.names[:-1] == tuple(outer) and w.names[-1].startswith("forward_")
                for w in weights)):
            yield Stored(name, (own.arrays,))


# ---- opening -------------------------------------------------------------------------------------

@contextmanager
def reading(path: Path, max_bytes: int) -> Iterator[File]:
    """An open file of Keras; ModelFileError where it is none."""
    where = os.fsdecode(path)
    most = min(JSON_BYTES, max_bytes // JSON_FACTOR)
    hdf5.h5py()                                            # before the file is looked at
    with opened(path) as file:
        start = file.read(len(zips.HEAD))
        file.seek(0)
        if start != zips.HEAD:
            with hdf5.reading(file, where, max_bytes) as arrays:
                config = arrays.text("", "model_config")
                version = (arrays.text("", "keras_version")
                           or arrays.text("model_weights", "keras_version"))
                if config is not None and len(config) > most:
                    raise ModelFileError(f"{where}: its model_config has {len(config):,} "
                                         f"characters, more than {most:,}{ADVICE}")
                parsed = None if config is None else json_text.parse(config, where)
                yield File(arrays, where, parsed, version)
        else:
            archive = zips.Archive(file, os.fstat(file.fileno()).st_size, where)
            config, metadata = (json_text.parse(_member(archive, name, most),
                                                f"{where}, {name}") for name in (CONFIG, METADATA))
            version = metadata.get("keras_version") if isinstance(metadata, dict) else None
            weights = _member(archive, WEIGHTS, max_bytes)
            with hdf5.reading(io.BytesIO(weights), f"{where}, {WEIGHTS}", max_bytes) as arrays:
                yield File(arrays, where, config, version if isinstance(version, str) else None)


def _member(archive: zips.Archive, name: str, most: int) -> bytes:
    """A file of a .keras file, of at most so many bytes."""
    if name not in archive.members:
        names = ", ".join(map(repr, list(archive.members)[:SHOWN]))
        raise archive.error(f"no .keras file: it has no {name}; it has {names or 'nothing'}")
    if archive.size(name) > most:
        raise archive.error(f"{name} has {archive.size(name):,} bytes, more than {most:,}{ADVICE}")
    return archive.read(name)
