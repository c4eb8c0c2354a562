"""Tables as plain text for the terminal, and the Markdown report. Pure functions of the results."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from .compare import Change
from .summary import NAMES, OURS, Row, geometric_mean, groups, rooflines, rows, threads_text
from .targets import Loss, Target, targets

Table = list[list[str]]

# ---- cells -------------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """Microseconds, three digits where there are three: 1.23, 45.6, 7890."""
    return "-" if seconds is None else _digits(seconds * 1e6)


def times(ratio: float | None) -> str:
    return "-" if ratio is None else _digits(ratio)


def _digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.0%}"


def megabytes(size: float | None) -> str:
    return "-" if size is None else f"{size / 1e6:.{1 if size < 99.95e6 else 0}f} MB"


def milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.{1 if seconds < 0.1 else 0}f} ms"


# ---- layouts -----------------------------------------------------------------------------------


def aligned(table: Table) -> str:
    """Plain text: the first column to the left, the others to the right."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = []
    for line in table:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def markdown(table: Table) -> str:
    head, *body = (f"| {' | '.join(line)} |" for line in table)
    ruler = "|---|" + "---:|" * (len(table[0]) - 1)
    return "\n".join([head, ruler, *body])


# ---- tables ------------------------------------------------------------------------------------


def heading(group: tuple[str, str, int, str]) -> str:
    dtype, isa, threads, kind = group
    kind = {"step": "one step from Python"}.get(kind, kind)
    return f"{kind}, {dtype}, {isa}, {threads_text(threads)}"


COLUMNS = {
    "ratio": lambda row: times(row.ratio),
    "by medians": lambda row: times(row.ratio_of_medians),
    "any threads": lambda row: times(row.ratio_any_threads),
    "PyTorch": lambda row: times(row.ratio_torch),
    "GFLOP/s": lambda row: f"{row.gflops:.1f}",
    "roofline": lambda row: percent(row.roofline),
    "2 / 1 thread": lambda row: times(row.scaling),
}
MEANS = {
    "ratio": "ratio",
    "by medians": "ratio_of_medians",
    "any threads": "ratio_any_threads",
    "PyTorch": "ratio_torch",
}


def table_of(members: list[Row]) -> Table:
    """Times in microseconds, a column a library, then what follows from them."""
    peers = [name for name in NAMES if any(name in row.times for row in members)]
    columns = [c for c in COLUMNS if any(COLUMNS[c](row) != "-" for row in members)]
    heads = [f"x {name}" if name == "PyTorch" else name for name in columns]
    table = [["T,N,I,H", OURS, *(NAMES[name] for name in peers), *heads]]
    for row in members:
        cells = [row.shape.label, duration(row.best)]
        for name in peers:
            mark = "*" * (name in row.times and name not in row.eligible)
            cells.append(duration(row.times.get(name)) + mark)
        table.append(cells + [COLUMNS[name](row) for name in columns])
    means = [
        times(geometric_mean(getattr(row, MEANS[name]) for row in members)) if name in MEANS else ""
        for name in columns
    ]
    table.append(["geometric mean", "", *("" for _ in peers), *means])
    return table


def table_of_ways(results: dict[str, Any], group: tuple[str, str, int, str]) -> Table:
    """Each way to take one step, a column a shape."""
    here = [
        r for r in results["records"] if (r["dtype"], r["isa"], r["threads"], r["kind"]) == group
    ]
    labels = list(dict.fromkeys(r["shape"] for r in here))
    ways = list(dict.fromkeys((r["library"], r["way"]) for r in here))
    found = {(r["library"], r["way"], r["shape"]): r["best"] for r in here}
    table = [["call", *labels]]
    for library, way in ways:
        cells = [duration(found.get((library, way, label))) for label in labels]
        table.append([f"{NAMES[library]}: {way}", *cells])
    return table


def overview(all_rows: list[Row]) -> Table:
    """A line a configuration."""
    table = [["", "shapes", "least ratio", "geometric mean", "x PyTorch", "roofline, median"]]
    for group, members in groups(all_rows).items():
        ratios = [row.ratio for row in members if row.ratio is not None]
        roof = [row.roofline for row in members if row.roofline is not None]
        table.append(
            [
                heading(group),
                str(len(members)),
                times(min(ratios, default=None)),
                times(geometric_mean(ratios)),
                times(geometric_mean(row.ratio_torch for row in members)),
                percent(statistics.median(roof) if roof else None),
            ]
        )
    return table


def table_of_targets(found: Iterable[Target]) -> Table:
    return [
        ["target", "wanted", "measured", ""],
        *([t.what, t.wanted, t.got, t.verdict] for t in found),
    ]


def table_of_losses(found: Iterable[Loss]) -> Table:
    table = [["case", "faster is", "gru_c", "theirs", "ratio", "note"]]
    for loss in found:
        row = loss.row
        case = f"{heading(row.case.group)}: {row.shape.label}"
        theirs, name = duration(loss.ratio * row.best), NAMES.get(loss.peer, loss.peer)
        table.append([case, name, duration(row.best), theirs, f"{loss.ratio:.2f}", loss.note])
    return table


def table_of_rooflines(results: dict[str, Any]) -> Table:
    table = [["", "multiply-adds", "from 32 KB", "512 KB", "8 MB", "256 MB"]]
    for (dtype, isa, threads), roof in rooflines(results).items():
        rates = [
            f"{roof.rate(size) / 1e9:.0f} GB/s" for size in (1 << 15, 1 << 19, 1 << 23, 1 << 28)
        ]
        name = f"{dtype}, {isa}, {threads_text(threads)}"
        table.append([name, f"{roof.flops / 1e9:.0f} GFLOP/s", *rates])
    return table


def tables_of_footprint(data: dict[str, Any]) -> dict[str, Table]:
    """{title: table} of memory, sizes and import times, as far as they were measured."""
    found = {}
    if memory := data.get("memory"):
        table = [["library", "three steps", "first step"]]
        table += [
            [NAMES[name], megabytes(m["peak"]), megabytes(m["first"])] for name, m in memory.items()
        ]
        found["peak memory of training at 64,64,128,256, above what it needs at rest"] = table
    if sizes := data.get("sizes"):
        table = [["distribution", "installed"]]
        table += [[name, megabytes(size)] for name, size in sizes.items()]
        if wheel := data.get("wheel"):
            text = megabytes(wheel["bytes"]) if "bytes" in wheel else wheel["reason"]
            table.append(["gru_c, the wheel itself", text])
        found["size on disk"] = table
    if imports := data.get("imports"):
        table = [["import", "time"]]
        table += [[name, milliseconds(seconds)] for name, seconds in imports.items()]
        found["import time, best of several processes"] = table
    return found


def table_of_changes(found: Iterable[Change]) -> Table:
    table = [["case", "old", "new", "old / new", "of the peers", "normalised", ""]]
    for c in found:
        case = f"{heading(c.case.group)}: {c.case.shape}"
        ratios = [f"{v:.3f}" if v else "-" for v in (c.absolute, c.drift, c.normalised)]
        table.append([case, duration(c.old), duration(c.new), *ratios, c.mark])
    return table


# ---- whole texts -------------------------------------------------------------------------------

STARRED = (
    "* not counted as a peer: not held to AVX2 (ONNX Runtime), or a loop in C++ beside calls from "
    "Python (oneDNN at T = N = 1)."
)


def problems(results: dict[str, Any]) -> list[str]:
    """What was not measured, what disturbed, what went wrong: a line each."""
    lines = _disturbances(results)
    lines += [f"not measured: {name}: {why}" for name, why in results["missing"].items()]
    for skip in results["skipped"]:
        where = f" ({skip['kind']})" if skip["kind"] else ""
        lines.append(f"skipped: {skip['library']}{where}: {skip['reason']}")
    for e in results["errors"]:
        where = ", ".join(filter(None, (e["library"], e["kind"], e["shape"], e["config"])))
        lines.append(f"ERROR: {where}: {e['reason']}")
    return lines


def _disturbances(results: dict[str, Any]) -> list[str]:
    lines = []
    for said in results["disturbance"]:
        for who, name in {"others": "other processes", "stolen": "other machines"}.items():
            if said.get(who, 0) > 0.03:
                text = f"{name} had {said[who]:.0%} of the cores' time: times are less reliable"
                lines.append(f"disturbed: {said['config']}: {text}")
    return lines


def text(results: dict[str, Any]) -> str:
    """What the terminal shows."""
    all_rows = rows(results)
    parts = []
    for group, members in groups(all_rows).items():
        table = aligned(table_of(members))
        parts.append(f"{heading(group)} (microseconds)\n{table}")
        if group[3] == "step":
            parts.append(aligned(table_of_ways(results, group)))
    if any(set(row.times) - set(row.eligible) for row in all_rows):
        parts.append(STARRED)
    if len(all_rows) > 1:
        parts.append(aligned(overview(all_rows)))
    for title, table in tables_of_footprint(results["footprint"]).items():
        parts.append(f"{title}\n{aligned(table)}")
    if found := targets(results):
        parts.append(aligned(table_of_targets(found)))
    if lines := problems(results):
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def compared(found: list[Change], only_old: int, only_new: int) -> str:
    """What `compare` prints."""
    if not found:
        return "no case is in both files"
    mean = geometric_mean(change.absolute for change in found)
    judged = geometric_mean(change.judged for change in found)
    marks = [change.mark for change in found]
    lines = [aligned(table_of_changes(found)), ""]
    lines.append(f"{len(found)} cases; {only_old} only in the first file, {only_new} in the second")
    lines.append(f"geometric mean {mean:.3f}, normalised by the peers {judged:.3f}")
    lines.append(
        f"faster by over 5%: {marks.count('faster')}, slower by over 5%: {marks.count('SLOWER')}"
    )
    return "\n".join(lines)
