"""Parameters by PyTorch's names: which GRUs a mapping holds, and one of them with its options."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gru_c._parameters import NAMES, shapes
from gru_c.interop.found import Found

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gru_c.interop.nested import Flat

# weight_ih_l0_reverse of a GRU, and weight_ih of a cell.
PARAMETER = re.compile(r"(?P<prefix>.*?)(?P<kind>weight_[ih]h|bias_[ih]h)"
                       r"(_l(?P<layer>0|[1-9]\d{0,3})(?P<reverse>_reverse)?)?", re.DOTALL)
SHOWN = 12                                                 # names that an error lists
LONGEST = 100                                              # characters of one


def find(mapping: Mapping[str, Any], where: str, convention: str = "PyTorch") -> list[Found]:
    """Every GRU in a mapping of names to arrays: one for each prefix where one is whole."""
    found = []
    for prefix, own in _by_prefix(mapping).items():
        try:
            found.append(_whole(own, prefix, where, convention))
        except ValueError:                                 # an LSTM, say
            continue
    return found


def read(mapping: Mapping[str, Any], prefix: str, where: str,
         convention: str = "PyTorch") -> Found:
    """The GRU whose parameters' names begin with `prefix`, which has no other names.

    The dot at the end of a prefix can be left out.

    Raises ValueError, which lists what is there and what GRUs it could be.
    """
    if prefix and not any(_is_parameter(name.removeprefix(prefix)) for name in mapping
                          if name.startswith(prefix)):
        prefix = f"{prefix.removesuffix('.')}."
    own = {name.removeprefix(prefix): a for name, a in mapping.items() if name.startswith(prefix)}
    try:
        return _at(own, prefix, where, convention)
    except ValueError as error:
        raise ValueError(f"{where}: {error}{_advice(mapping, prefix, where)}") from None


def select(tree: Flat, prefix: str, key: str | None) -> tuple[dict[str, Any], str]:
    """The arrays of the mapping that `key` names, and where they are.

    Without a key: of the root, or of the only nested mapping that has a GRU with that prefix.
    """
    if key is not None:
        if key not in tree.mappings:
            raise tree.error(f"{tree.where}: it holds no mapping {key!r}; its mappings are "
                             f"{listed(own for own in tree.mappings if own) or 'none'}")
        return _below(tree, key)
    ends = {prefix, f"{prefix.removesuffix('.')}."} if prefix else {""}
    whole = {found.name for found in find(tree.arrays, tree.where)}
    for prefixes in (whole, _by_prefix(tree.arrays).keys()):
        keys = [own for own in tree.mappings
                if any((f"{own}.{end}" if own else end) in prefixes for end in ends)]
        if len(keys) > 1 and "" not in keys:
            raise tree.error(f"{tree.where}: it holds a GRU with prefix {prefix!r} under each of "
                             f"the keys {listed(keys)}: choose one with key=")
        if keys:
            return _below(tree, keys[0])                   # the root comes first
    return _below(tree, "")


def names(options: dict[str, Any], cell: bool) -> list[str]:
    """The parameters of a GRU with these options."""
    return [name.removesuffix("_l0") if cell else name for name in _expected(options)]


def listed(names: Iterable[str]) -> str:
    """The first of many names."""
    names = list(names)
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(repr(name)[:LONGEST] for name in names[:SHOWN]) + more


def _by_prefix(mapping: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The names of parameters without their prefixes, by these."""
    found: dict[str, dict[str, Any]] = {}
    for name, a in mapping.items():
        if match := PARAMETER.fullmatch(name):
            prefix = match["prefix"]
            found.setdefault(prefix, {})[name.removeprefix(prefix)] = a
    return found


def _below(tree: Flat, key: str) -> tuple[dict[str, Any], str]:
    if not key:
        return tree.arrays, tree.where
    return ({name.removeprefix(f"{key}."): a for name, a in tree.arrays.items()
             if name.startswith(f"{key}.")}, f"{tree.where}, {key!r}")


def _is_parameter(name: str) -> bool:
    match = PARAMETER.fullmatch(name)
    return match is not None and not match["prefix"]


def _at(own: Mapping[str, Any], prefix: str, where: str, convention: str) -> Found:
    """A GRU of names without their prefix, and none besides."""
    parameters = {name: a for name, a in own.items() if _is_parameter(name)}
    unknown = [f"{prefix}{name}" for name in own if name not in parameters]
    if not parameters:
        raise ValueError(f"no parameter of a GRU begins with {prefix!r}")
    if projections := [name for name in unknown if name[len(prefix):].startswith("weight_hr")]:
        raise ValueError(f"{projections[0]!r} is the projection of an LSTM")
    found = _whole(parameters, prefix, where, convention)
    if unknown:
        raise ValueError(f"{listed(unknown)} beside the parameters of a GRU")
    return found


def _advice(mapping: Mapping[str, Any], prefix: str, where: str) -> str:
    """What is there, and what GRUs it could be."""
    others = [f"prefix={f.name!r} ({size(f)})" for f in find(mapping, where) if f.name != prefix]
    could = f"; it could be {' or '.join(others[:SHOWN])}" if others else ""
    return f"; there are {listed(mapping)}{could}" if mapping else "; it is empty"


def size(found: Found) -> str:
    """The size of a GRU in words."""
    options = found.options
    layers, both = options["num_layers"], options["bidirectional"]
    return (f"input_size {options['input_size']}, hidden_size {options['hidden_size']}"
            f"{f', {layers} layers' if layers > 1 else ''}{', two directions' if both else ''}"
            f"{', in reverse' if options.get('reverse') else ''}"
            f"{'' if options['bias'] else ', no biases'}")


def _whole(own: Mapping[str, Any], prefix: str, where: str, convention: str) -> Found:
    """A GRU of all the names in `own`, without their prefix."""
    cell = "weight_hh" in own
    first = "" if cell else "_l0"
    if lacking := [f"{prefix}{name}{first}" for name in ("weight_ih", "weight_hh")
                   if f"{name}{first}" not in own]:
        raise ValueError(f"missing {listed(lacking)}")
    options = _options(own, prefix, first)
    expected = _expected(options)
    parameters = {f"{name}_l0" if cell else name: a for name, a in own.items()}
    for kind, names in (("missing", [name for name in expected if name not in parameters]),
                        ("unexpected", [name for name in parameters if name not in expected])):
        if names:
            raise ValueError(f"{kind} {listed(prefix + name for name in names)}")
    for name, shape in expected.items():
        a = parameters[name]
        if tuple(a.shape) != shape:
            raise ValueError(f"{prefix}{name} has shape {tuple(a.shape)}, expected {shape}")
        if a.dtype.kind != "f":
            raise ValueError(f"{prefix}{name} has dtype {a.dtype}, expected a floating dtype")
    return Found(options, {name: parameters[name] for name in expected}, where, prefix, convention,
                 cell=cell, arrays=tuple(prefix + name for name in own))


def _options(own: Mapping[str, Any], prefix: str, first: str) -> dict[str, Any]:
    """What names and shapes tell."""
    weight_ih, weight_hh = own[f"weight_ih{first}"], own[f"weight_hh{first}"]
    for name, a in ((f"weight_ih{first}", weight_ih), (f"weight_hh{first}", weight_hh)):
        if a.ndim != 2 or 0 in a.shape:
            raise ValueError(f"{prefix}{name} has shape {tuple(a.shape)}, expected "
                             "(3 * hidden_size, ...)")
    rows, H = weight_hh.shape
    if rows != 3 * H:
        other = {H: "a plain RNN", 4 * H: "an LSTM"}.get(rows, "no GRU")
        raise ValueError(f"{prefix}weight_hh{first} has shape {tuple(weight_hh.shape)}: this is "
                         f"{other}; a GRU has (3 * hidden_size, hidden_size)")
    matches = [match for name in own if first and (match := PARAMETER.fullmatch(name))]
    layers = {int(match["layer"]) for match in matches if match["layer"]} or {0}
    num_layers = 1 + max(layers)
    if len(layers) != num_layers:
        absent = next(layer for layer in range(num_layers) if layer not in layers)
        raise ValueError(f"there are parameters of layer {num_layers - 1}, but none of layer "
                         f"{absent}: missing {prefix + f'weight_ih_l{absent}'!r}")
    return {"input_size": weight_ih.shape[1], "hidden_size": H, "num_layers": num_layers,
            "bias": f"bias_ih{first}" in own or f"bias_hh{first}" in own,
            "bidirectional": any(match["reverse"] for match in matches)}


def _expected(options: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters, in the order of `GRU.state_dict`."""
    directions = ("", "_reverse")[:1 + options["bidirectional"]]
    H = options["hidden_size"]
    found: dict[str, tuple[int, ...]] = {}
    for layer in range(options["num_layers"]):
        inputs = options["input_size"] if layer == 0 else len(directions) * H
        own = shapes(inputs, H, options["bias"])
        found |= {f"{name}_l{layer}{direction}": own[name] for direction in directions
                  for name in NAMES if name in own}
    return found
