"""PyTorch: modules, state dicts, and .pt and .safetensors files without it.

Only `as_state_dict` and `as_module` import PyTorch. Where a caller passes a module or a tensor, it
has been imported already.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c.interop import files, state_dict
from gru_c.interop.arrays import as_array
from gru_c.interop.containers import pt, safetensors
from gru_c.interop.containers.pickled import NumpyArray, Tensor
from gru_c.interop.containers.reading import opened
from gru_c.interop.containers.writing import write_atomically
from gru_c.interop.errors import ModelFileError
from gru_c.interop.found import Found
from gru_c.interop.layers import refuse_options
from gru_c.interop.nested import MAX_WORK, Flat, flat

if TYPE_CHECKING:
    from typing import IO

    from gru_c._exchange import Path
    from gru_c._types import Array

TARGET = "PyTorch's GRU"
CELL_OPTIONS = ("input_size", "hidden_size", "bias")
MODULE_OPTIONS = (*CELL_OPTIONS, "num_layers", "batch_first", "dropout", "bidirectional")

# Of the tree of a file, which can hold one object in many places. In what PyTorch writes, an array
# takes some 70 bytes of the pickle, and its name.
SMALL_WORK, WORK_PER_BYTE = 2**18, 16


# ---- reading -------------------------------------------------------------------------------------

def read(source: Any, prefix: str, key: str | None, max_bytes: int) -> Found:
    """The GRU of a module, a state dict or a file, with that prefix."""
    if isinstance(source, (str, bytes, os.PathLike)):
        return _of_file(source, prefix, key, max_bytes)
    if isinstance(source, Mapping):
        return from_mapping(source, prefix, "the state dict", key)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.nn.Module):
        if key is not None:
            raise TypeError("key is of a mapping or a file: it cannot be given with a module")
        return _of_module(torch, source, prefix)
    raise TypeError("expected a module of PyTorch, a state dict or a path, got: "
                    f"{type(source).__name__}")


def from_mapping(mapping: Mapping[str, Any], prefix: str, where: str,
                 key: str | None = None) -> Found:
    """The GRU with that prefix, of a mapping or of one nested in it."""
    if not isinstance(mapping, Mapping):
        raise TypeError(f"expected a mapping of names to arrays, got: {type(mapping).__name__}")
    for name, value in mapping.items():
        if isinstance(name, str) and state_dict.PARAMETER.fullmatch(name) and not _is_array(value):
            raise TypeError(f"{where}: {name} should be an array, got: {type(value).__name__}")
    tree = flat(mapping, _is_array, where)
    tree.arrays = {name: as_array(a, f"{where}: {name}")
                   if state_dict.PARAMETER.fullmatch(name) else a
                   for name, a in tree.arrays.items()}
    return _of_tree(tree, prefix, key)


def _of_tree(tree: Flat, prefix: str, key: str | None) -> Found:
    """The GRU with that prefix, of the root or of a mapping nested in it."""
    _check_prefix(prefix)
    arrays, where = state_dict.select(tree, prefix, key)
    try:
        return state_dict.read(arrays, prefix, where)
    except ValueError as error:
        raise tree.error(str(error)) from None


def _check_prefix(prefix: Any) -> None:
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str, got: {type(prefix).__name__}")


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or (
        not isinstance(value, np.generic)
        and (hasattr(value, "__array__") or hasattr(value, "__dlpack__")))


def _of_module(torch: Any, source: Any, prefix: str) -> Found:
    """Of an nn.GRU or nn.GRUCell, `source` itself or the submodule that the prefix names."""
    _check_prefix(prefix)
    where = f"the {type(source).__name__}"
    modules = dict(source.named_modules())
    name = prefix.removesuffix(".")
    module = modules.get(name)
    if not isinstance(module, (torch.nn.GRU, torch.nn.GRUCell)):
        grus = [f"{own}." if own else "" for own, other in modules.items()
                if isinstance(other, (torch.nn.GRU, torch.nn.GRUCell))]
        got = "no module" if module is None else f"a {type(module).__name__}"
        raise ValueError(f"{where}: there is {got} at {prefix!r}, expected a GRU or GRUCell; "
                         f"prefixes of these are {state_dict.listed(grus) or 'none'}")
    cell = isinstance(module, torch.nn.GRUCell)
    sizes = {"input_size": module.input_size, "hidden_size": module.hidden_size,
             "bias": module.bias, "num_layers": 1 if cell else module.num_layers,
             "bidirectional": not cell and module.bidirectional}
    # Attributes and not the state dict: a parametrization computes them.
    arrays = {own: as_array(getattr(module, own), f"{where}: {own}")
              for own in state_dict.names(sizes, cell)}
    found = state_dict.read(arrays, "", where)
    options = {} if cell else {"batch_first": module.batch_first,
                               "dropout": float(module.dropout)}
    return replace(found, options=found.options | options, name=prefix,
                   convention=f"PyTorch, nn.{'GRUCell' if cell else 'GRU'}")


# ---- files ---------------------------------------------------------------------------------------

def _of_file(path: Path, prefix: str, key: str | None, max_bytes: int) -> Found:
    where = os.fsdecode(path)
    with opened(path) as file:
        if safetensors.begins(file.read(safetensors.HEAD)):
            file.seek(0)
            return _of_safetensors(file, where, prefix, key, max_bytes)
        form = pt.form_of(file, where, max_bytes)
        return _loaded(form, _of_tree(_tree(form), prefix, key), max_bytes)


def _of_safetensors(file: IO[bytes], where: str, prefix: str, key: str | None,
                    max_bytes: int) -> Found:
    """Of a state dict that others saved; a file of ours has options beside it."""
    arrays, metadata = safetensors.read(file, where, max_bytes)
    files.refuse_own(metadata, where)
    return _of_tree(flat(arrays, _is_array, where, ModelFileError), prefix, key)


def find(path: Path, max_bytes: int) -> list[Found]:
    """Every GRU in a file; the names of nested mappings are part of the prefix."""
    with opened(path) as file:
        form = pt.form_of(file, os.fsdecode(path), max_bytes)
        return [_loaded(form, found, max_bytes)
                for found in state_dict.find(_tree(form).arrays, form.where)]


def read_arrays(path: Path, max_bytes: int) -> dict[str, Array]:
    """Every tensor of a file, read-only; names of nested mappings are joined with dots."""
    with opened(path) as file:
        return read_pt(file, os.fsdecode(path), max_bytes)


def read_pt(file: IO[bytes], where: str, max_bytes: int) -> dict[str, Array]:
    """As `read_arrays`, of an open file or ``io.BytesIO``; `where` names it in errors."""
    form = pt.form_of(file, where, max_bytes)
    return pt.arrays(form, _tree(form).arrays, max_bytes)


def _tree(form: pt.Form) -> Flat:
    most = min(MAX_WORK, SMALL_WORK + WORK_PER_BYTE * form.length)
    return flat(form.root, lambda value: isinstance(value, (Tensor, NumpyArray)), form.where,
                ModelFileError, most)


def _loaded(form: pt.Form, found: Found, max_bytes: int) -> Found:
    """With arrays in place of references to storages."""
    places: Any = found.parameters
    return replace(found, parameters=pt.arrays(form, places, max_bytes))


# ---- writing -------------------------------------------------------------------------------------

def as_state_dict(found: Found) -> OrderedDict[str, Any]:
    """Tensors by PyTorch's names, or arrays where it is not installed; copies."""
    arrays = {name: a.copy() for name, a in _parameters(found).items()}
    try:
        import torch
    except ImportError:
        return OrderedDict(arrays)
    return OrderedDict((name, torch.from_numpy(a)) for name, a in arrays.items())


def as_module(found: Found) -> Any:
    """An nn.GRU or nn.GRUCell."""
    refuse_options(found, TARGET, input_dropout=0.0, recurrent_dropout=0.0)
    try:
        import torch
    except ImportError:
        raise ImportError("a module of PyTorch needs PyTorch: pip install torch") from None
    names = CELL_OPTIONS if found.cell else MODULE_OPTIONS
    kind = torch.nn.GRUCell if found.cell else torch.nn.GRU
    options = {name: found.options[name] for name in names if name in found.options}
    # Parameters are not drawn first: it would advance the generator of PyTorch.
    module = kind(**options, dtype=getattr(torch, found.dtype.name), device="meta")
    module = module.to_empty(device="cpu")
    module.load_state_dict(as_state_dict(found))
    return module


def write(found: Found, path: Path) -> None:
    """A .pt file with the state dict, which ``torch.load(path, weights_only=True)`` reads.

    The same parameters give the same bytes.
    """
    write_atomically(path, pt.packed(_parameters(found)))


def _parameters(found: Found) -> dict[str, Array]:
    """By PyTorch's names."""
    refuse_options(found, TARGET)
    return {name.removesuffix("_l0") if found.cell else name: a
            for name, a in found.parameters.items()}
