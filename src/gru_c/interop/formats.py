"""What a file is, and what can be done with a file of any format.

The content of a file tells how to read it; a name tells only how to write. The modules that read
and write are imported when a file needs them.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gru_c import _checks
from gru_c._exchange import MAX_BYTES
from gru_c.cell import GRUCell
from gru_c.gru import GRU
from gru_c.interop.containers import safetensors, zips
from gru_c.interop.containers.reading import opened
from gru_c.interop.errors import ModelFileError
from gru_c.interop.found import build, described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Unpack

    from gru_c._exchange import Path
    from gru_c._types import Array, DType, Options
    from gru_c.interop.found import Found


@dataclass(frozen=True)
class Format:
    """A kind of file: its name, its suffixes, the module of this package that knows it, and the
    methods of `GRU` that read it."""

    name: str
    suffixes: tuple[str, ...]
    module: str
    methods: tuple[str, ...]

    @property
    def io(self) -> Any:
        """The module, with ``find``, ``read_arrays`` and ``write``; imported now."""
        return import_module(f"gru_c.interop.{self.module}")


SAFETENSORS = Format("safetensors", (".safetensors",), "files", ("load", "from_torch"))
NPZ = Format("npz", (".npz",), "files", ("load",))
TORCH = Format("PyTorch", (".pt", ".pth"), "torch", ("from_torch",))
KERAS = Format("Keras", (".keras", ".h5"), "keras", ("from_keras",))
ONNX = Format("ONNX", (".onnx",), "onnx", ("from_onnx",))
RTNEURAL = Format("RTNeural", (".json",), "rtneural", ("from_rtneural",))
FORMATS = (SAFETENSORS, NPZ, TORCH, KERAS, ONNX, RTNEURAL)

HEAD = 64                                                  # bytes that tell all but zip files apart
MEMBERS = 4                                                # of a zip file that an error lists
HDF5 = b"\x89HDF\r\n\x1a\n"
# An ONNX model begins with its ir_version, field 1, below 128; a length-delimited field, its
# producer (2, 3), domain (4), doc (6), graph (7) or opset (8), or model_version (5) follows.
ONNX_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42"


# ---- what a file is -----------------------------------------------------------------------------

def format_of(path: Path) -> Format:
    """The format of a file, by what it holds."""
    shown = os.fsdecode(path)
    with opened(path) as file:
        head = file.read(HEAD)
        if head.startswith(zips.STARTS):
            return _of_zip(zips.Archive(file, os.fstat(file.fileno()).st_size, shown))
    found = _of_head(head)
    if found is None and shown.lower().endswith(ONNX.suffixes):
        found = ONNX                                       # its reader says what is wrong
    if found is None:
        raise ModelFileError(f"{shown}: {'an empty file' if not head else 'no known format'}; "
                             f"a model is a file of {_listed()}")
    return found


def _of_head(head: bytes) -> Format | None:
    """The format of a file that begins with these bytes, and is no zip file."""
    if safetensors.begins(head):
        return SAFETENSORS
    if head.startswith(HDF5):
        return KERAS
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):      # pickle, by protocol
        return TORCH
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return RTNEURAL
    if head[:1] == b"\x08" and head[1:2] < b"\x80" and head[2:3] and head[2] in ONNX_FIELDS:
        return ONNX
    return None


def _of_zip(archive: zips.Archive) -> Format:
    """The format of a zip file, by the names of its members."""
    names = list(archive.members)
    if "config.json" in names or "model.weights.h5" in names:
        return KERAS
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return TORCH
    if all(name.endswith(".npy") for name in names):       # none is an npz file, too
        return NPZ
    listed = ", ".join(map(repr, names[:MEMBERS])) + (", ..." if len(names) > MEMBERS else "")
    raise archive.error(f"a zip file of {listed}; a model is a file of {_listed()}")


def _listed() -> str:
    *names, last = (f"{one.name} ({', '.join(one.suffixes)})" for one in FORMATS)
    return f"{', '.join(names)} or {last}"


@contextmanager
def only(method: str, source: Any, max_bytes: int) -> Iterator[None]:
    """Let the error of a reader say what the file is, where another method reads it."""
    _checks.byte_limit(max_bytes)
    try:
        yield
    except ModelFileError as error:
        found = _known(source)
        if found is None or method in found.methods:
            raise
        raise ModelFileError(f"{error}; this is a file of {found.name}: {found.methods[0]} reads it"
                             ) from None


def _known(source: Any) -> Format | None:
    """The format of a file, if it is one and has one."""
    try:
        is_path = isinstance(source, (str, bytes, os.PathLike))
        return format_of(source) if is_path and os.path.isfile(source) else None
    except (ModelFileError, OSError):                      # a pipe cannot be read again
        return None


# ---- what is in it ------------------------------------------------------------------------------

def read_arrays(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Array]:
    """Every array of a file by its name: of layers that are no GRU, too.

    Parameters
    ----------
    path : path
        A file of safetensors, npz, PyTorch (``.pt``), Keras (``.keras``, ``.h5``), ONNX or
        RTNeural. Its content tells which.
    max_bytes : int
        The most bytes that the arrays of the file may have together.

    Returns
    -------
    dict of str to ndarray
        In the order of the file, with the dtypes of the file, but bfloat16 as float32. Names are
        those of the format: keys of a state dict, paths in an HDF5 file, initializers of a graph.

    Raises
    ------
    ModelFileError
        The file is of another format, damaged, or has more than `max_bytes`.
    MissingExtraError
        A package that reads this format is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, gru_c
    >>> from gru_c.interop import read_arrays
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     np.savez(path, embedding=np.ones((10, 3)), **gru_c.GRU(3, 4).state_dict())
    ...     arrays = read_arrays(path)
    >>> {name: a.shape for name, a in arrays.items() if "bias" not in name}
    {'embedding': (10, 3), 'weight_ih_l0': (12, 3), 'weight_hh_l0': (12, 4)}
    """
    limit = _checks.byte_limit(max_bytes)
    arrays: dict[str, Array] = format_of(path).io.read_arrays(path, limit)
    return arrays


def find(path: Path, max_bytes: int = MAX_BYTES) -> list[Found]:
    """Every GRU of a file.

    Parameters
    ----------
    path, max_bytes
        As for `read_arrays`.

    Returns
    -------
    list of Found
        Each has a `name` that selects it in its file (a prefix of PyTorch's names, a layer of
        Keras, a node of ONNX), `options` (arguments of `gru_c.GRU`, and ``reverse``), `parameters`
        by the names of `gru_c.GRU.state_dict`, a `convention` in words, and `metadata`.

    Raises
    ------
    ModelFileError, MissingExtraError
        As `read_arrays`.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, gru_c
    >>> from gru_c.interop import find
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     gru = gru_c.GRU(3, 4, num_layers=2)
    ...     np.savez(path, **{f"encoder.{name}": a for name, a in gru.state_dict().items()})
    ...     found = find(path)
    >>> [(one.name, one.options["hidden_size"], one.options["num_layers"]) for one in found]
    [('encoder.', 4, 2)]
    """
    limit = _checks.byte_limit(max_bytes)
    models: list[Found] = format_of(path).io.find(path, limit)
    return models


def _read_onnx(io: Any, path: Path, name: str | None, max_bytes: int, options: Options) -> Any:
    reset_after = options.get("reset_after")
    return io.read(path, name, None if reset_after is None else int(reset_after), None, max_bytes)


def _read_keras(io: Any, path: Path, name: str | None, max_bytes: int, options: Options) -> Any:
    return io.read(path, name, False, options, max_bytes)


def _read_rtneural(io: Any, path: Path, name: str | None, max_bytes: int, _: Options) -> Any:
    """A name is a prefix of a state dict, or the layer: "0"; "0,1" for layers of one GRU."""
    indices = name if name is None or not re.fullmatch(r"\d{1,9}(,\d{1,9})*", name) else [
        int(index) for index in name.split(",")]
    return io.read(path, indices, max_bytes)


# Formats of which a reader knows better than `find` what a name selects, and what to say of it.
READ_ONE: dict[Format, Callable[..., Any]] = {
    ONNX: _read_onnx, KERAS: _read_keras, RTNEURAL: _read_rtneural}


def find_one(path: Path, name: str | None = None, max_bytes: int = MAX_BYTES,
             **options: Unpack[Options]) -> Found:
    """The only GRU of a file, or the one with this name; an error lists those there are.

    `options` are what the caller knows better than the file.
    """
    max_bytes = _checks.byte_limit(max_bytes)
    kind = format_of(path)
    if kind in READ_ONE:
        found_one: Found = READ_ONE[kind](kind.io, path, name, max_bytes, options)
        return found_one
    found: list[Found] = kind.io.find(path, max_bytes)
    shown = os.fsdecode(path)
    chosen = found if name is None else _named(found, name)
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(repr(one.name) for one in found)
    if not found:
        raise ModelFileError(f"{shown}: no GRU is in it")
    if chosen or name is None:
        raise ModelFileError(f"{shown}: {len(chosen)} GRUs are in it; name one of them: {names}")
    raise ModelFileError(f"{shown}: no GRU has the name {name!r}; there are: {names}")


def _named(found: list[Found], name: str) -> list[Found]:
    """Those with this name, or, if there are none, those whose prefix is it or ends in it."""
    return [one for one in found if one.name == name] or [
        one for one in found if f".{one.name}".endswith(f".{name.removesuffix('.')}.")]


# ---- from one to another ------------------------------------------------------------------------

def convert(source: Path, target: Path, name: str | None = None, dtype: DType | None = None,
            max_bytes: int = MAX_BYTES, quantization: Sequence[Any] | str = (),
            **options: Unpack[Options]) -> Found:
    """Write the GRU of one file to another, in the format that the suffix of `target` names.

    Parameters
    ----------
    source : path
        A file as for `read_arrays`.
    target : path
        ``.safetensors`` and ``.npz`` (files of `gru_c.GRU.load`), ``.pt`` and ``.pth`` (a state
        dict), ``.onnx``, ``.keras``, ``.h5`` and ``.weights.h5``, or ``.json`` (RTNeural). It is
        replaced as a whole once all is well, so it may be `source`.
    name : str, optional
        Which GRU, where the file has several: see `find`.
    dtype : float32 or float64, optional
        Of what is written; that of the file if absent, float32 for halves.
    max_bytes : int
        As for `read_arrays`.
    quantization : sequence or str
        Arguments for `gru_c.GRU.quantize`: ``["int8", 12]``. Files of `gru_c.GRU.load` are small
        then; the others hold the rounded values in float32, and not that x has fewer bits.
    **options
        Arguments of `gru_c.GRU` that the file does not tell, or tells wrongly: ``batch_first``,
        ``reset_after``, ...

    Returns
    -------
    Found
        What was written, see `find`.

    Raises
    ------
    ModelFileError, MissingExtraError
        As `read_arrays`; or there is no GRU, or there are several and `name` names none.
    ValueError
        An unknown suffix, or an option that the format of `target` cannot hold. Nothing is written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, gru_c
    >>> from gru_c.interop import convert
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     source, target = (os.path.join(folder, name) for name in ("state.npz", "model.npz"))
    ...     np.savez(source, **gru_c.GRU(3, 4, rng=0).state_dict())
    ...     written = convert(source, target, batch_first=True)
    ...     model = gru_c.GRU.load(target)
    >>> model.batch_first, bool((model.weight_ih_l0 == written.parameters["weight_ih_l0"]).all())
    (True, True)
    """
    writer = format_to_write(target)
    found = find_one(source, name, max_bytes, **options)
    model = build(GRUCell if found.cell else GRU, found, dtype, **options)
    if isinstance(quantization, str):
        quantization = (quantization,)
    new = described(model.quantize(*quantization) if quantization else model)
    new = replace(new, where=found.where, name=found.name, metadata=found.metadata)
    writer.io.write(new, target)
    return new


def format_to_write(path: Path) -> Format:
    """The format that the suffix of a file names."""
    shown = os.fsdecode(path)
    for one in FORMATS:
        if shown.lower().endswith(one.suffixes):
            return one
    raise ValueError(f"{shown}: the suffix should name a format to write: {_listed()}")
