"""GRUs written by hand: matrices per gate or stacked in any order, in the forms that people use.

A mapping is one direction of one layer. A key names the gates that its arrays stack, in their
order: "r", "z" and "n", or "zrn", or "rz" and "n". A value is a tuple of arrays:

    (W, U), (W, U, b), (W, U, b_i, b_h)     of x and of h, and biases beside W x and beside U h
    (W,), (W, b), (W, b_i, b_h)             of [x, h] or [h, x], if they are concatenated
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _activations, _checks
from gru_c.interop.arrays import floats
from gru_c.interop.layers import Direction, arranged, joined, place

if TYPE_CHECKING:
    from gru_c._types import Array
    from gru_c.interop.found import Found

WHERE = "the gates"
CHOICES = {"product": ("W x", "x W"), "z_times": ("h", "n"), "concatenated": (None, "x h", "h x")}


@dataclass(frozen=True)
class Form:
    """How the equations are written; `gru_c.GRU.from_gates` has the words for it."""

    product: str
    reset_after: bool
    z_times: str
    concatenated: str | None = None

    def __post_init__(self) -> None:
        _checks.flag(self.reset_after, "reset_after")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, "
                                 f"got {getattr(self, name)!r}")


def read(gates: Any, form: Form, options: Mapping[str, Any]) -> Found:
    """The GRU of these gates. `options` are the other arguments of the model."""
    if form.z_times == "n":
        _check_symmetric(options.get("recurrent_activation", "sigmoid"))
    layers = arranged(gates, WHERE)
    directions = [tuple(direction(own, form, place(WHERE, layers, i, j))
                        for j, own in enumerate(layer)) for i, layer in enumerate(layers)]
    return joined(directions, WHERE, "", "by hand", reset_after=form.reset_after)


def direction(gates: Any, form: Form, where: str) -> Direction:
    """One direction of one layer."""
    if not isinstance(gates, Mapping):
        raise TypeError(f"{where}: expected a mapping of gates to tuples of arrays, got: "
                        f"{type(gates).__name__}")
    if sorted("".join(map(str, gates))) != ["n", "r", "z"] or "" in gates:
        raise ValueError(f"{where}: expected the gates r (reset), z (update) and n (new) once "
                         f"each, alone or stacked as in 'zrn', got {list(gates)}")
    blocks: dict[str, Any] = {}
    for key, arrays in gates.items():
        blocks |= _blocks(key, arrays, form, f"{where}, {key!r}")
    if form.z_times == "n":                                # 1 - f(a) = f(-a)
        blocks["z"] = tuple(None if a is None else -a for a in blocks["z"])
    for i, name in enumerate(("W", "U")):
        if len({blocks[gate][i].shape for gate in "rzn"}) > 1:
            shapes = ", ".join(f"{gate} {blocks[gate][i].shape}" for gate in "rzn")
            raise ValueError(f"{where}: the gates have {name} of different shapes, as for W x: "
                             f"{shapes}")
    return Direction(*(_stacked([blocks[gate][i] for gate in "rzn"]) for i in range(4)))


def _blocks(key: str, arrays: Any, form: Form, where: str) -> dict[str, tuple[Any, ...]]:
    """W (H, I), U (H, H) and two biases, which may be None, of each gate that the key names."""
    if not isinstance(arrays, tuple):
        raise TypeError(f"{where}: expected a tuple of arrays, got: {type(arrays).__name__}")
    matrices = 1 if form.concatenated else 2
    if not matrices <= len(arrays) <= matrices + 2:
        raise ValueError(f"{where}: {len(arrays)} arrays, expected {matrices} "
                         f"{'matrix' if matrices == 1 else 'matrices'} and up to two biases")
    W, U = _matrices(key, arrays[:matrices], form, where)
    biases = _biases(key, arrays[matrices:], form, len(U), where)
    parts = [[None] * len(key) if a is None else np.split(a, len(key)) for a in (W, U, *biases)]
    return dict(zip(key, zip(*parts, strict=True), strict=True))


def _matrices(key: str, given: tuple[Any, ...], form: Form, where: str) -> tuple[Array, Array]:
    """W (k H, I) and U (k H, H) of k gates."""
    k, names = len(key), ("W", "U")
    found = [floats(a, f"{where}: {name}") for name, a in zip(names, given, strict=False)]
    if all(a.ndim == 2 for a in found):
        W, U = (a.T if form.product == "x W" else a for a in (found[0], found[-1]))
        H = len(U) // k
        if form.concatenated:
            columns = np.split(W, [W.shape[1] - H if form.concatenated == "x h" else H], axis=1)
            W, U = columns if form.concatenated == "x h" else columns[::-1]
        if len(W) == len(U) == k * H and W.shape[1] > 0 and U.shape[1] == H > 0:
            return W, U
    rows = "H" if k == 1 else f"{k} H"
    expected = " and ".join(f"({c}, {rows})" if form.product == "x W" else f"({rows}, {c})"
                            for c in (["I + H"] if form.concatenated else ["I", "H"]))
    raise ValueError(f"{where}: expected {' and '.join(names[:len(found)])} of shape {expected} "
                     f"with product={form.product!r}, got "
                     f"{' and '.join(str(a.shape) for a in found)}")


def _biases(key: str, given: tuple[Any, ...], form: Form, size: int,
            where: str) -> tuple[Array | None, Array | None]:
    """The biases beside W x and beside U h."""
    found: list[Array | None] = []
    for value in given:
        a = None if value is None else floats(value, f"{where}: a bias")
        if a is not None and (a.size != size or max(a.shape, default=0) != size):
            raise ValueError(f"{where}: a bias has shape {a.shape}, expected ({size},)")
        found.append(None if a is None else a.reshape(-1))
    if len(found) == 1 and found[0] is not None and form.reset_after and "n" in key:
        raise ValueError(
            f"{where}: with reset_after=True one bias of n could stand outside or inside of "
            "r * (U h + b): say which by a None in the other's place, (..., b, None) for outside "
            "and (..., None, b) for inside")
    found += [None] * (2 - len(found))
    return found[0], found[1]


def _stacked(parts: list[Any]) -> Any:
    """Of r, z and n; zeros where only another gate has a bias."""
    there = [a for a in parts if a is not None]
    if not there:
        return None
    return np.concatenate([np.zeros_like(there[0]) if a is None else a for a in parts])


def _check_symmetric(value: Any) -> None:
    """Refuse an activation of z without f(-a) = 1 - f(a), if z has to become 1 - z."""
    own = _activations.activation(value, "recurrent_activation")
    if own.name != "sigmoid" and not (own.name in ("hard_sigmoid", "affine") and own.beta == 0.5):
        raise ValueError(
            f"z_times='n' with recurrent_activation={own.argument!r}: z becomes 1 - z by other "
            "signs of its weights, which needs f(-a) = 1 - f(a); sigmoid has that, and "
            "hard_sigmoid and affine with beta=0.5")
