"""Parameters by PyTorch's names: which GRUs a mapping holds, and one of them with its options."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gru_c._parameters import NAMES, shapes
from gru_c.interop.found import Found

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gru_c._types import Array

# weight_ih_l0_reverse of a GRU, and weight_ih of a cell.
PARAMETER = re.compile(r"(?P<prefix>.*?)(?P<kind>weight_[ih]h|bias_[ih]h)"
                       r"(_l(?P<layer>0|[1-9]\d{0,3})(?P<reverse>_reverse)?)?", re.DOTALL)
SHOWN = 12                                                 # names that an error lists


def find(mapping: Mapping[str, Array], where: str, convention: str = "PyTorch") -> list[Found]:
    """Every GRU in a mapping of names to arrays: one for each prefix where one is whole."""
    by_prefix: dict[str, dict[str, Array]] = {}
    for name, a in mapping.items():
        if match := PARAMETER.fullmatch(name):
            prefix = match["prefix"]
            by_prefix.setdefault(prefix, {})[name.removeprefix(prefix)] = a
    found = []
    for prefix, own in by_prefix.items():
        try:
            found.append(_whole(own, prefix, where, convention))
        except ValueError:                                 # an LSTM, say
            continue
    return found


def read(mapping: Mapping[str, Array], prefix: str, where: str,
         convention: str = "PyTorch") -> Found:
    """The GRU whose parameters' names begin with `prefix`, which has no other names.

    Raises ValueError, which lists what is there and what GRUs it could be.
    """
    own = {name.removeprefix(prefix): a for name, a in mapping.items() if name.startswith(prefix)}
    unknown = [name for name in own if not _is_parameter(name)]
    try:
        if not own:
            raise ValueError(f"no name begins with {prefix!r}" if prefix else "it is empty")
        if unknown:
            raise ValueError(f"unknown {listed(prefix + name for name in unknown)}")
        return _whole(own, prefix, where, convention)
    except ValueError as error:
        raise ValueError(f"{where}: {error}{_advice(mapping, prefix, where)}") from None


def listed(names: Iterable[str]) -> str:
    """The first of many names."""
    names = list(names)
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def _is_parameter(name: str) -> bool:
    match = PARAMETER.fullmatch(name)
    return match is not None and not match["prefix"]


def _advice(mapping: Mapping[str, Array], prefix: str, where: str) -> str:
    """What is there, and what GRUs it could be."""
    others = [f"prefix={f.name!r} ({size(f)})" for f in find(mapping, where) if f.name != prefix]
    could = f"; it could be {' or '.join(others[:SHOWN])}" if others else ""
    return f"; there are {listed(mapping)}{could}" if mapping else could


def size(found: Found) -> str:
    """The size of a GRU in words."""
    options = found.options
    layers, both = options["num_layers"], options["bidirectional"]
    return (f"input_size {options['input_size']}, hidden_size {options['hidden_size']}"
            f"{f', {layers} layers' if layers > 1 else ''}{', two directions' if both else ''}"
            f"{', in reverse' if options.get('reverse') else ''}"
            f"{'' if options['bias'] else ', no biases'}")


def _whole(own: Mapping[str, Array], prefix: str, where: str, convention: str) -> Found:
    """A GRU of all the names in `own`, without their prefix."""
    cell = "weight_hh" in own
    first = "" if cell else "_l0"
    if f"weight_hh{first}" not in own or f"weight_ih{first}" not in own:
        lacking = [name for name in ("weight_ih", "weight_hh") if f"{name}{first}" not in own]
        raise ValueError("missing " + listed(f"{prefix}{name}{first}" for name in lacking))
    options = _options(own, first, cell)
    expected = _expected(options)
    parameters = {f"{name}_l0" if cell else name: a for name, a in own.items()}
    for kind, names in (("missing", [name for name in expected if name not in parameters]),
                        ("unexpected", [name for name in parameters if name not in expected])):
        if names:
            raise ValueError(f"{kind} {listed(prefix + name for name in names)}")
    for name, shape in expected.items():
        if parameters[name].shape != shape:
            raise ValueError(f"{prefix}{name} has shape {parameters[name].shape}, expected {shape}")
    return Found(options, {name: parameters[name] for name in expected}, where, prefix, convention,
                 arrays=tuple(prefix + name for name in own))


def _options(own: Mapping[str, Array], first: str, cell: bool) -> dict[str, Any]:
    """What names and shapes tell."""
    weight_ih, weight_hh = own[f"weight_ih{first}"], own[f"weight_hh{first}"]
    for name, a in ((f"weight_ih{first}", weight_ih), (f"weight_hh{first}", weight_hh)):
        if a.ndim != 2 or 0 in a.shape:
            raise ValueError(f"{name} has shape {a.shape}, expected (3 * hidden_size, ...)")
    rows, H = weight_hh.shape
    if rows != 3 * H:
        other = {H: "a plain RNN", 4 * H: "an LSTM"}.get(rows, "no GRU")
        raise ValueError(f"weight_hh{first} has shape {weight_hh.shape}: this is {other}; a GRU "
                         f"has (3 * hidden_size, hidden_size)")
    matches = [] if cell else [PARAMETER.fullmatch(name) for name in own]
    layers = [int(match["layer"]) for match in matches if match and match["layer"]]
    return {"input_size": weight_ih.shape[1], "hidden_size": H,
            "num_layers": 1 + max(layers, default=0),
            "bias": f"bias_ih{first}" in own or f"bias_hh{first}" in own,
            "bidirectional": any(match and match["reverse"] for match in matches)}


def _expected(options: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters, in the order of `GRU.state_dict`."""
    directions = ("", "_reverse")[:1 + options["bidirectional"]]
    H, found = options["hidden_size"], {}
    for layer in range(options["num_layers"]):
        inputs = options["input_size"] if layer == 0 else len(directions) * H
        own = shapes(inputs, H, options["bias"])
        found |= {f"{name}_l{layer}{direction}": own[name] for direction in directions
                  for name in NAMES if name in own}
    return found
