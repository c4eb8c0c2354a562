"""Files of our own, .safetensors and .npz: parameters by PyTorch's names, options in the metadata.

The metadata, texts by name:

    format          gru_c.GRU, gru_c.ReverseGRU or gru_c.GRUCell
    format_version  1
    options         the arguments of the class as a JSON object, dtype too; and what quantize was
                    given
    ...             what the user gave

docs/interop/files.md has the layout in full.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _activations, _checks
from gru_c.interop import quantized, state_dict
from gru_c.interop.containers import json_text, npz, safetensors, zips
from gru_c.interop.containers.reading import all_of
from gru_c.interop.containers.writing import write_atomically
from gru_c.interop.errors import ModelFileError
from gru_c.interop.found import Found

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import IO, Protocol, TypeAlias

    from gru_c._exchange import Path
    from gru_c._types import Array

    Known: TypeAlias = dict[str, tuple[Callable[[Any, str], Any], Any]]
    Contents: TypeAlias = tuple[dict[str, Array], dict[str, str]]

    class Container(Protocol):
        """What npz.py and safetensors.py have in common."""

        def read(self, file: IO[bytes], where: str, max_bytes: int) -> Contents: ...
        def unpack(self, data: bytes, where: str, max_bytes: int) -> Contents: ...
        def pack(self, arrays: Mapping[str, Array], metadata: Mapping[str, str],
                 bfloat16: Collection[str] = ()) -> bytes: ...

CONTAINERS: dict[str, Container] = {".safetensors": safetensors, ".npz": npz}
MAX_BESIDE = 2**25                                         # bytes of a pipe beside the arrays
VERSION = "1"
OWN = ("format", "format_version", "options")              # of the metadata
CLASSIFIER = "gru_c.SequenceClassifier"


def _dtype(value: Any, name: str) -> str:
    if value not in ("float32", "float64"):
        raise ValueError(f"{name} must be float32 or float64, got {value!r}")
    return str(value)


def _activation(value: Any, name: str) -> Any:
    return _activations.activation(value, name).argument


# The options of a file: what reads each, and what it is where a source does not tell.
CELL_OPTIONS: Known = {
    "input_size": (_checks.size, None), "hidden_size": (_checks.size, None),
    "bias": (_checks.flag, None), "dtype": (_dtype, None), "reset_after": (_checks.flag, True),
    "activation": (_activation, "tanh"), "recurrent_activation": (_activation, "sigmoid"),
    "clip": (lambda value, name: _activations.clip(value), None)}
GRU_OPTIONS: Known = CELL_OPTIONS | {
    "num_layers": (_checks.size, None), "bidirectional": (_checks.flag, None),
    "batch_first": (_checks.flag, False), "dropout": (_checks.probability, 0.0),
    "input_dropout": (_checks.probability, 0.0), "recurrent_dropout": (_checks.probability, 0.0),
    "checkpoint": (lambda value, name: None if value is None else _checks.size(value, name), None)}
CLASSES: dict[str, Known] = {"gru_c.GRU": GRU_OPTIONS, "gru_c.ReverseGRU": GRU_OPTIONS,
                             "gru_c.GRUCell": CELL_OPTIONS}
LOADERS = {name: name for name in CLASSES} | {CLASSIFIER: "gru_c.learn.SequenceClassifier"}


# ---- containers ----------------------------------------------------------------------------------

def read_container(path: Path, max_bytes: int) -> Contents:
    """The arrays and the metadata of a file of either container, by what it holds."""
    where = os.fsdecode(path)
    with open(path, "rb") as file:
        if not file.seekable():                            # a pipe
            data = all_of(file, max_bytes + MAX_BESIDE)
            return _container_in(data).unpack(data, where, max_bytes)
        container = _container_in(file.read(4))
        file.seek(0)
        return container.read(file, where, max_bytes)


def _container_in(data: bytes) -> Container:
    """The container that begins with `data`."""
    return npz if data.startswith(zips.STARTS) else safetensors


def read_arrays(path: Path, max_bytes: int) -> dict[str, Array]:
    """Every array of a file by its name; bfloat16 as float32."""
    return read_container(path, max_bytes)[0]


def container_of(path: Path) -> Container:
    """The container that the suffix of a path names."""
    suffix = os.path.splitext(os.fsdecode(path))[1].lower()
    if suffix not in CONTAINERS:
        raise ValueError(f"{os.fsdecode(path)}: the suffix is {suffix!r}, a model is saved as "
                         ".safetensors or .npz")
    return CONTAINERS[suffix]


def of_user(metadata: Mapping[str, str], own: tuple[str, ...], path: Path) -> dict[str, str]:
    """A copy of the texts that a user gives; the names in `own` are refused."""
    where = os.fsdecode(path)
    for name, text in dict(metadata).items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(f"{where}: not saved, metadata {name!r} is {text!r}, expected str and "
                            "str")
        if name in own:
            raise ValueError(f"{where}: not saved, metadata {name!r} is a name of the format; "
                             f"so are {', '.join(own)}")
        try:
            (name + text).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{where}: not saved, metadata {name!r} has characters that UTF-8 "
                             "does not have") from None
    return dict(metadata)


def save(path: Path, container: Container, arrays: Mapping[str, Array], metadata: Mapping[str, str],
         check: Callable[[dict[str, Array], dict[str, str], str], Any],
         weights: str | None = None) -> None:
    """Write a file after reading it back with `check`: what `load` would refuse is not saved.

    The parameters of a model quantized to `weights` are stored so.
    """
    where = os.fsdecode(path)
    arrays = quantized.stored(arrays, weights) if weights else arrays
    data = container.pack(arrays, metadata,
                          [name for name, a in arrays.items() if a.dtype == np.uint16])
    try:
        check(*container.unpack(data, where, len(data)), where)
    except ModelFileError as error:
        raise ValueError(f"not saved, it could not be read: {error}") from error
    write_atomically(path, data)


# ---- models --------------------------------------------------------------------------------------

def write(found: Found, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a GRU or a cell, with its metadata and what is given beside it."""
    container = container_of(path)
    texts = of_user(found.metadata | dict(metadata or {}), OWN, path)
    kind = "GRUCell" if found.cell else "ReverseGRU" if found.options.get("reverse") else "GRU"
    told = found.options | {"dtype": found.dtype.name}
    options = {name: check(told.get(name, default), name)
               for name, (check, default) in CLASSES[f"gru_c.{kind}"].items()}
    if found.quantization:
        options |= dict(zip(quantized.OPTIONS, (*found.quantization, None), strict=False))
    texts |= {"format": f"gru_c.{kind}", "format_version": VERSION,
              "options": json.dumps(options, sort_keys=True)}
    arrays = {name.removesuffix("_l0") if found.cell else name: a.astype(found.dtype, copy=False)
              for name, a in found.parameters.items()}
    save(path, container, arrays, texts, _model, *found.quantization[:1])


def read(path: Path, max_bytes: int) -> Found:
    """The model of a file that `write` wrote; nothing is made of it yet."""
    return _model(*read_container(path, max_bytes), os.fsdecode(path))


def find(path: Path, max_bytes: int) -> list[Found]:
    """The model of a file of ours; of any other, the GRUs that have PyTorch's names."""
    arrays, metadata = read_container(path, max_bytes)
    where = os.fsdecode(path)
    if metadata.get("format") in CLASSES:
        return [_model(arrays, metadata, where)]
    if metadata.get("format") != CLASSIFIER:
        return state_dict.find(arrays, where)
    parameters, quantization = quantized.of_texts(arrays, metadata, where)
    own = {"batch_first": True, "reset_after": metadata.get("reset_after") != "False"}
    return [replace(gru, options=gru.options | own, convention=CLASSIFIER,
                    quantization=quantization, arrays=quantized.names(gru.arrays, arrays))
            for gru in state_dict.find(parameters, where)]


def _model(arrays: dict[str, Array], metadata: dict[str, str], where: str) -> Found:
    """The model that a container holds, after every check."""
    kind = metadata.get("format", "")
    if kind not in CLASSES:
        refuse_own(metadata, where)
        raise ModelFileError(
            f"{where}: the metadata do not say that this is a model that gru_c saved. Parameters "
            "by PyTorch's names are read by from_state_dict(gru_c.interop.read_arrays(path), "
            "prefix)")
    if metadata.get("format_version") != VERSION:
        raise ModelFileError(f"{where}: metadata format_version is "
                             f"{metadata.get('format_version')!r}, this gru_c reads {VERSION!r}")
    options = _options(metadata.get("options", ""), CLASSES[kind], where)
    parameters, quantization = _unquantized(arrays, options, where)
    try:
        found = state_dict.read(parameters, "", where, kind)
    except ValueError as error:
        raise ModelFileError(str(error)) from None
    for name, a in parameters.items():
        if a.dtype != options["dtype"]:
            raise ModelFileError(f"{where}: {name} is {a.dtype}, the metadata say "
                                 f"{options['dtype']}")
    del options["dtype"]
    for name in options:
        if options[name] != found.options.get(name, options[name]):
            raise ModelFileError(f"{where}: the metadata say {name}={options[name]!r}, names and "
                                 f"shapes of the arrays {found.options[name]!r}")
    if (kind == "gru_c.GRUCell") != found.cell:
        raise ModelFileError(f"{where}: the names {state_dict.listed(arrays)} are not those of a "
                             f"{kind}")
    reverse = kind == "gru_c.ReverseGRU"
    if reverse and found.options["bidirectional"]:
        raise ModelFileError(f"{where}: a {kind} has one direction, the file has two")
    texts = {name: text for name, text in metadata.items() if name not in OWN}
    return replace(found, options=found.options | options | {"reverse": reverse}, metadata=texts,
                   quantization=quantization, arrays=tuple(arrays))


def _unquantized(arrays: dict[str, Array], options: dict[str, Any],
                 where: str) -> tuple[dict[str, Array], tuple[Any, ...]]:
    """The parameters in float, and what `quantize` was given, which leaves the options."""
    if "quantization" not in options:
        return arrays, ()
    weights, x_bits = (options.pop(name) for name in quantized.OPTIONS)
    return quantized.effective(arrays, weights, x_bits, where), quantized.given(weights, x_bits)


def _options(text: str, known: Known, where: str) -> dict[str, Any]:
    """The arguments in the metadata, each checked as the class checks it."""
    options = json_text.parse(text, f"{where}: metadata options")
    given = {}
    if isinstance(options, dict):
        given = {name: options.pop(name) for name in quantized.OPTIONS if name in options}
    if not isinstance(options, dict) or options.keys() != known.keys():
        raise ModelFileError(f"{where}: metadata options should be a JSON object with the names "
                             f"{', '.join(known)}, got {text[:200]!r}")
    try:
        checked = {name: check(options[name], name) for name, (check, _) in known.items()}
        return checked | (quantized.options(checked["dtype"], **given) if given else {})
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelFileError(f"{where}: metadata options: {error}") from None


def refuse_own(metadata: Mapping[str, str], where: str) -> None:
    """Refuse a file of ours: a reader of other files would ignore its options."""
    kind = metadata.get("format", "")
    if kind in LOADERS:
        raise ModelFileError(f"{where}: this is a {kind}; {LOADERS[kind]}.load reads it")
