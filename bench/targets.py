"""What gru_c wants to reach, and the cases where it is not the fastest. Pure functions of results.

The figures are the project's own; the report shows each one, met or missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .summary import NAMES, OURS, Row, geometric_mean, groups, rows


class Target(NamedTuple):
    """One line of the table; `missed` names the cases that fall short."""

    what: str
    wanted: str
    got: str
    met: bool
    missed: tuple[str, ...] = ()


class Loss(NamedTuple):
    """A case where somebody else is faster."""

    row: Row
    peer: str
    ratio: float
    note: str = ""


def threads_text(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def _least(
    what: str, wanted: float, members: Iterable[Row], value: Callable[[Row], float | None]
) -> list[Target]:
    """The least `value` of all rows has to reach `wanted`; nothing if no row has one."""
    found = sorted((value(row), row.shape.label) for row in members if value(row) is not None)
    if not found:
        return []
    short = tuple(f"{label}: {got:.3g}" for got, label in found if got < wanted)
    got = f"{found[0][0]:.3g}" + (f" ({len(short)} of {len(found)} below)" if short else "")
    return [Target(what, f"no shape below {wanted:g}", got, not short, short)]


def _mean(what: str, wanted: float, values: Iterable[float | None]) -> list[Target]:
    got = geometric_mean(values)
    if got is None:
        return []
    return [Target(what, f"geometric mean at least {wanted:g}", f"{got:.2f}", got >= wanted)]


# Least ratio, geometric mean of ratios, geometric mean against PyTorch, by (isa, kind).
RATIOS = {
    ("native", "inference"): (1.0, 1.4, None),
    ("native", "training"): (1.15, 2.0, 8.0),
    ("avx2", "inference"): (1.0, None, None),
    ("avx2", "training"): (1.1, None, None),
}


def _of_group(group: tuple, members: list[Row]) -> list[Target]:
    dtype, isa, threads, kind = group
    if dtype != "float32" or (isa, kind) not in RATIOS:
        return []
    least, mean, torch = RATIOS[isa, kind]
    what = f"{kind}, {isa}, {threads_text(threads)}"
    found = _least(f"{what}: against the fastest peer", least, members, lambda r: r.ratio)
    if mean is not None:
        found += _mean(f"{what}: against the fastest peer", mean, (r.ratio for r in members))
    if torch is not None:
        found += _mean(f"{what}: against PyTorch", torch, (r.ratio_torch for r in members))
    wide = [r for r in members if r.shape.N >= 8 and r.shape.H >= 128]
    found += _least(f"{what}: of the roofline at N >= 8, H >= 128", 0.8, wide, lambda r: r.roofline)
    if threads == 2:
        found += _scaling(what, members)
    return found


def _scaling(what: str, members: list[Row]) -> list[Target]:
    what = f"{what}: against one thread"
    batch = [r for r in members if r.shape.N >= 8 and r.shape.H >= 64]
    single = [r for r in members if r.shape.N == 1 and r.shape.H >= 512]
    return [
        *_least(f"{what} at N >= 8, H >= 64", 1.85, batch, lambda r: r.scaling),
        *_least(f"{what} at N = 1, H >= 512", 1.7, single, lambda r: r.scaling),
        *_least(f"{what} anywhere", 0.95, members, lambda r: r.scaling),
    ]


def _step(results: dict[str, Any]) -> list[Target]:
    """The call that a stream makes, against the fastest of ONNX Runtime's and nn.GRUCell."""
    found = []
    wanted = {"onnxruntime": (3.0, None), "torch": (6.0, "GRUCell")}
    for threads in (1, 2):
        here = [
            r
            for r in results["records"]
            if (r["kind"], r["threads"], r["isa"], r["dtype"], r["shape"])
            == ("step", threads, "native", "float32", "1,1,16,32")
        ]
        own = [r["best"] for r in here if r["way"] == "cell(x, h, out=h)"]
        for library, (least, way) in wanted.items():
            times = [r["best"] for r in here if r["library"] == library and way in (None, r["way"])]
            if own and times:
                got = min(times) / own[0]
                what = f"one step from Python, {threads_text(threads)}: against {NAMES[library]}"
                text = f"at least {least:g} times as fast"
                found.append(Target(what, text, f"{got:.2f}", got >= least))
    return found


def _footprint(results: dict[str, Any]) -> list[Target]:
    data, found = results.get("footprint", {}), []
    memory = data.get("memory", {})
    if OURS in memory and "torch" in memory:
        got = max(memory[OURS][key] / memory["torch"][key] for key in ("peak", "first"))
        what = "peak memory of training, against PyTorch"
        found.append(Target(what, "at most 60%", f"{got:.0%}", got <= 0.6))
    if data.get("wheel", {}).get("bytes"):
        size = data["wheel"]["bytes"] / 1e6
        found.append(Target("wheel", "at most 1.5 MB", f"{size:.2f} MB", size <= 1.5))
    over = data.get("imports", {}).get("gru_c over scipy.linalg")
    if over is not None:
        text = f"{over * 1e3:.1f} ms"
        found.append(Target("import, over scipy.linalg", "at most 20 ms", text, over <= 0.020))
    return found


def targets(results: dict[str, Any]) -> list[Target]:
    """All targets that the results can speak about."""
    found = []
    for group, members in groups(rows(results)).items():
        found += _of_group(group, members)
    return found + _step(results) + _footprint(results)


def losses(results: dict[str, Any]) -> list[Loss]:
    """Every case in which a library was faster, whether it counts for a target or not."""
    found = []
    for row in rows(results):
        for name, seconds in row.times.items():
            ratio = seconds / row.best
            if ratio < 1:
                found.append(Loss(row, name, ratio, _note(row, name)))
        if row.ratio_any_threads and row.ratio_any_threads < min(1.0, row.ratio):
            note = "with one thread, in another process"
            found.append(Loss(row, row.fastest_any_threads, row.ratio_any_threads, note))
    return sorted(found, key=lambda loss: loss.ratio)


def _note(row: Row, name: str) -> str:
    if name in row.eligible:
        return ""
    if row.lone and name == "onednn":
        return "called in a C++ loop, gru_c from Python"
    return "not held to AVX2"
