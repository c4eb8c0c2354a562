"""What gru_c wants to reach, and the cases where it is not the fastest. Pure functions of results.

The figures are the project's own. A target is judged by the figure that is shown, so what is met
within rounding is met. "Against the fastest peer" it can only be missed, never met, where a peer
that can do the case was not measured: the fastest of fewer is another figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from . import peers
from .summary import NAMES, OURS, Case, Group, Row, geometric_mean, groups, threads_text, ways

# Least ratio, geometric mean of ratios, geometric mean against PyTorch, by (isa, kind).
RATIOS = {
    ("native", "inference"): (1.0, 1.4, None),
    ("native", "training"): (1.15, 2.0, 8.0),
    ("avx2", "inference"): (1.0, None, None),
    ("avx2", "training"): (1.1, None, None),
}
RAGGED = (100, 64, 128, 256)  # the sizes of the target for ragged rows
STEP = "1,1,16,32"  # the shape of the lone step's targets
STEP_RATIOS = {"onnxruntime": (3.0, None), "torch": (6.0, "GRUCell")}


class Target(NamedTuple):
    """One line of the table; `missed` names the cases that fall short."""

    what: str
    wanted: str
    got: str
    met: bool
    missed: tuple[str, ...] = ()
    without: tuple[str, ...] = ()  # peers that had to be measured to call it met

    @property
    def verdict(self) -> str:
        if not self.met:
            return "MISSED"
        return f"not judged: without {', '.join(self.without)}" if self.without else "met"


class Loss(NamedTuple):
    """A case where somebody else is faster."""

    row: Row
    peer: str
    ratio: float
    note: str = ""


def _shown(text: str) -> float:
    return float(text.split()[0].rstrip("%"))


def _least(what: str, wanted: float, members: Iterable[Row], value: Callable[[Row], float | None],
           without: tuple[str, ...] = ()) -> list[Target]:
    """The least `value` of all rows has to reach `wanted`; nothing if no row has one."""
    found = sorted((value(row), row.shape.label) for row in members if value(row) is not None)
    if not found:
        return []
    short = tuple(f"{label}: {got:.3g}" for got, label in found if _shown(f"{got:.3g}") < wanted)
    got = f"{found[0][0]:.3g}" + (f" ({len(short)} of {len(found)} below)" if short else "")
    return [Target(what, f"no shape below {wanted:g}", got, not short, short, without)]


def _mean(what: str, wanted: float | None, values: Iterable[float | None],
          without: tuple[str, ...] = ()) -> list[Target]:
    mean = geometric_mean(values)
    if mean is None or wanted is None:
        return []
    got = f"{mean:.2f}"
    return [Target(what, f"geometric mean at least {wanted:g}", got, _shown(got) >= wanted,
                   without=without)]


def _of_group(group: Group, members: list[Row]) -> list[Target]:
    dtype, isa, threads, kind, variant = group
    if dtype != "float32" or (isa, kind) not in RATIOS:
        return []
    least, mean, torch = RATIOS[isa, kind]
    what = ", ".join(filter(None, (kind, variant, isa, threads_text(threads))))
    peers, without = f"{what}: against the fastest peer", _not_measured(isa, kind, members)
    found = [
        *_least(peers, least, members, lambda r: r.ratio, without),
        *_mean(peers, mean, (r.ratio for r in members), without),
        *_mean(f"{what}: against PyTorch", torch, (r.ratio_torch for r in members)),
    ]
    if variant:
        return found + _padded(what, members)
    wide = [r for r in members if r.shape.N >= 8 and r.shape.H >= 128]
    return [
        *found,
        *_least(f"{what}: of the roofline at N >= 8, H >= 128", 0.8, wide, lambda r: r.roofline),
        *(_scaling(f"{what}: against one thread", members) if threads == 2 else ()),
    ]


def _padded(what: str, members: list[Row]) -> list[Target]:
    """Ragged rows over the same rows padded."""
    parts = [r.of_padded for r in members if r.shape.sizes == RAGGED and r.of_padded is not None]
    return [Target(f"{what}: of the padded time at {','.join(map(str, RAGGED))}", "at most 60%",
                   f"{part:.0%}", _shown(f"{part:.0%}") <= 60) for part in parts]


def _not_measured(isa: str, kind: str, members: list[Row]) -> tuple[str, ...]:
    """Names of the peers that would count in a case of `members` but have no time there."""
    def counts(peer: type[peers.PeerBase], row: Row) -> bool:
        can, held = kind == "inference" or peer.can_train, isa == "native" or peer.obeys_avx2_env
        return can and held and not (row.shape.is_lone and peer.called_from == "C")

    return tuple(NAMES[name] for name in peers.NAMES
                 if any(name not in row.times and counts(peers.load(name), row) for row in members))


def _scaling(what: str, members: list[Row]) -> list[Target]:
    batch = [r for r in members if r.shape.N >= 8 and r.shape.H >= 64]
    single = [r for r in members if r.shape.N == 1 and r.shape.H >= 512]
    return [
        *_least(f"{what} at N >= 8, H >= 64", 1.85, batch, lambda r: r.scaling),
        *_least(f"{what} at N = 1, H >= 512", 1.7, single, lambda r: r.scaling),
        *_least(f"{what} anywhere", 0.95, members, lambda r: r.scaling),
    ]


def _step(results: dict[str, Any]) -> list[Target]:
    """The call that a stream makes, against the fastest of ONNX Runtime's and nn.GRUCell."""
    found, times = [], ways(results)
    for threads in (1, 2):
        here = times.get(Case("float32", "native", threads, "step", STEP), {})
        own = here.get((OURS, "cell(x, h, out=h)"))
        for library, (least, wanted) in STEP_RATIOS.items():
            theirs = [seconds for (name, way), seconds in here.items()
                      if name == library and wanted in (None, way)]
            if own and theirs:
                got = f"{min(theirs) / own:.2f}"
                what = f"one step from Python, {threads_text(threads)}: against {NAMES[library]}"
                found.append(Target(what, f"at least {least:g} times as fast", got,
                                    _shown(got) >= least))
    return found


def _footprint(results: dict[str, Any]) -> list[Target]:
    data, found = results.get("footprint", {}), []

    def at_most(what: str, most: float, unit: str, got: str) -> None:
        found.append(Target(what, f"at most {most:g}{unit}", f"{got}{unit}", _shown(got) <= most))

    memory = data.get("memory", {})
    if OURS in memory and "torch" in memory:
        part = max(memory[OURS][key] / memory["torch"][key] for key in ("peak", "first"))
        at_most("peak memory of training, against PyTorch", 60, "%", f"{100 * part:.0f}")
    if size := data.get("wheel", {}).get("bytes"):
        at_most("wheel", 1.5, " MB", f"{size / 1e6:.2f}")
    over = data.get("imports", {}).get("gru_c over scipy.linalg")
    if over is not None:
        at_most("import, over scipy.linalg", 20, " ms", f"{over * 1e3:.1f}")
    return found


def targets(results: dict[str, Any], rows: list[Row]) -> list[Target]:
    """All targets that the results and their rows can speak about."""
    found = []
    for group, members in groups(rows).items():
        found += _of_group(group, members)
    return found + _step(results) + _footprint(results)


def losses(rows: list[Row]) -> list[Loss]:
    """Every case in which a library was faster, whether it counts for a target or not."""
    found = []
    for row in rows:
        found += [Loss(row, name, seconds / row.best, _note(row, name))
                  for name, seconds in row.times.items() if seconds < row.best]
        if row.ratio_any_threads and row.ratio_any_threads < min(1.0, row.ratio):
            note = "with one thread, in another process"
            found.append(Loss(row, row.fastest_any_threads, row.ratio_any_threads, note))
    return sorted(found, key=lambda loss: loss.ratio)


def _note(row: Row, name: str) -> str:
    if name in row.eligible:
        return ""
    if row.shape.is_lone and peers.load(name).called_from == "C":
        return "called in a C++ loop, gru_c from Python"
    return "not held to AVX2"
