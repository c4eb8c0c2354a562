"""The tables of a run, as plain text for the terminal and as a page for docs/performance/.

Pure functions of the results and of the figures cited beside them. `summary_of` and `details` give
what both show, by title; the page adds how it was measured, and on which machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from .results import Change, cited
from .summary import NAMES, OURS, Row, geometric_mean, groups, rooflines, rows, threads_text, ways
from .targets import Loss, losses, targets

Table = list[list[str]]
Block = Table | str  # a string is a paragraph or a list of bullets

# ---- cells -------------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """Microseconds, three digits where there are three: 1.23, 45.6, 7890."""
    return "-" if seconds is None else times(seconds * 1e6)


def times(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.0%}"


def megabytes(size: float | None) -> str:
    return "-" if size is None else f"{size / 1e6:.{1 if size < 99.95e6 else 0}f} MB"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.{1 if seconds < 0.1 else 0}f} ms"


# ---- layouts -----------------------------------------------------------------------------------


def bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def aligned(block: Block) -> str:
    """Plain text: the first column of a table to the left, the others to the right."""
    if isinstance(block, str):
        return block
    widths = [max(map(len, column)) for column in zip(*block, strict=True)]
    lines = []
    for line in block:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def markdown(block: Block) -> str:
    if isinstance(block, str):
        return block
    head, *body = (f"| {' | '.join(line)} |" for line in block)
    return "\n".join([head, "|---|" + "---:|" * (len(block[0]) - 1), *body])


# ---- tables ------------------------------------------------------------------------------------


def heading(group: tuple) -> str:
    """Of a group, or of the first fields of a case."""
    dtype, isa, threads, kind, *variant = group
    kind = {"step": "one step from Python"}.get(kind, kind)
    return ", ".join(filter(None, (kind, *variant, dtype, isa, threads_text(threads))))


# Column: (attribute of a row, its text, whether it has a geometric mean).
COLUMNS: dict[str, tuple[str, Callable[[Any], str], bool]] = {
    "ratio": ("ratio", times, True),
    "by medians": ("ratio_of_medians", times, True),
    "any threads": ("ratio_any_threads", times, True),
    "x PyTorch": ("ratio_torch", times, True),
    "GFLOP/s": ("gflops", "{:.1f}".format, False),
    "roofline": ("roofline", percent, False),
    "2 / 1 thread": ("scaling", times, False),
    "of padded": ("of_padded", percent, True),
}


def table_of(members: list[Row]) -> Table:
    """Times in microseconds, a column a library, then what follows from them."""
    peers = [name for name in NAMES if any(name in row.times for row in members)]
    values = {name: [getattr(row, attribute) for row in members]
              for name, (attribute, _, _) in COLUMNS.items()}
    columns = [name for name in COLUMNS if any(value is not None for value in values[name])]
    table = [["T,N,I,H", OURS, *(NAMES[name] for name in peers), *columns]]
    for i, row in enumerate(members):
        cells = [row.shape.label, duration(row.best)]
        for name in peers:
            mark = "*" * (name in row.times and name not in row.eligible)
            cells.append(duration(row.times.get(name)) + mark)
        table.append(cells + [COLUMNS[name][1](values[name][i]) for name in columns])
    means = [COLUMNS[name][1](geometric_mean(values[name])) if COLUMNS[name][2] else ""
             for name in columns]
    table.append(["geometric mean", "", *("" for _ in peers), *means])
    return table


def table_of_ways(results: dict[str, Any], members: list[Row]) -> Table:
    """Each way to take one step, or to compute ragged rows; a column a shape."""
    times = ways(results)
    here = {row.case.shape: times[row.case] for row in members}
    table = [["call", *here]]
    for library, way in dict.fromkeys(key for found in here.values() for key in found):
        cells = [duration(found.get((library, way))) for found in here.values()]
        table.append([": ".join(filter(None, (NAMES[library], way))), *cells])
    return table


def overview(grouped: dict[tuple, list[Row]]) -> Table:
    """A line a configuration."""
    table = [["", "shapes", "least ratio", "geometric mean", "x PyTorch", "roofline, median"]]
    for group, members in grouped.items():
        ratios = [row.ratio for row in members if row.ratio is not None]
        roof = [row.roofline for row in members if row.roofline is not None]
        table.append([
            heading(group), str(len(members)), times(min(ratios, default=None)),
            times(geometric_mean(ratios)),
            times(geometric_mean(row.ratio_torch for row in members)),
            percent(statistics.median(roof) if roof else None),
        ])
    return table


def table_of_losses(found: Iterable[Loss]) -> Table:
    table = [["case", "faster is", "gru_c", "theirs", "ratio", "note"]]
    for loss in found:
        row = loss.row
        case = f"{heading(row.case[:4])}: {row.shape.label}"
        theirs, name = duration(loss.ratio * row.best), NAMES.get(loss.peer, loss.peer)
        table.append([case, name, duration(row.best), theirs, f"{loss.ratio:.2f}", loss.note])
    return table


def smallest(results: dict[str, Any], all_rows: list[Row]) -> list[Block]:
    """Cited libraries beside gru_c, a table each and where its figures come from."""
    blocks: list[Block] = []
    for entry in cited(results):
        library, case, seconds = entry["library"], entry["case"], entry["seconds"]
        here = [row for row in all_rows if row.shape.label in seconds
                and all(getattr(row.case, name) == value for name, value in case.items())]
        if here:
            table = [["T,N,I,H", OURS, "fastest peer", f"{library} (cited)", f"{library} / {OURS}"]]
            for row in sorted(here, key=lambda row: row.shape.H):
                theirs = seconds[row.shape.label]
                peer = row.times[row.fastest] if row.fastest else None
                table.append([row.shape.label, duration(row.best), duration(peer),
                              duration(theirs), times(theirs / row.best)])
            blocks += [table, f"{library}: {entry['source']}"]
    return blocks


def table_of_rooflines(results: dict[str, Any]) -> Table:
    table = [["", "multiply-adds", "from 32 KB", "512 KB", "8 MB", "256 MB"]]
    for (dtype, isa, threads), roof in rooflines(results).items():
        rates = [f"{roof.rate(1 << bits) / 1e9:.0f} GB/s" for bits in (15, 19, 23, 28)]
        name = f"{dtype}, {isa}, {threads_text(threads)}"
        table.append([name, f"{roof.flops / 1e9:.0f} GFLOP/s", *rates])
    return table


def tables_of_footprint(data: dict[str, Any]) -> dict[str, Table]:
    """{title: table} of memory, sizes and import times, as far as they were measured."""
    found = {}
    if memory := data.get("memory"):
        found["Peak memory of training at 64,64,128,256, above what it needs at rest"] = [
            ["library", "three steps", "first step"],
            *([NAMES[name], megabytes(m["peak"]), megabytes(m["first"])]
              for name, m in memory.items())]
    if sizes := data.get("sizes"):
        table = [["distribution", "installed"]]
        table += [[name, megabytes(size)] for name, size in sizes.items()]
        if wheel := data.get("wheel"):
            text = megabytes(wheel["bytes"]) if "bytes" in wheel else wheel["reason"]
            table.append(["gru_c, the wheel itself", text])
        found["Size on disk"] = table
    if imports := data.get("imports"):
        found["Import time, best of several processes"] = [
            ["import", "time"], *([name, milliseconds(took)] for name, took in imports.items())]
    return found


def problems(results: dict[str, Any]) -> list[str]:
    """What was not measured, what disturbed, what went wrong: a line each."""
    lines = []
    for said in results["disturbance"]:
        for who, name in {"others": "other processes", "stolen": "other machines"}.items():
            if said.get(who, 0) > 0.03:
                text = f"{name} had {said[who]:.0%} of the cores' time: times are less reliable"
                lines.append(f"disturbed: {said['config']}: {text}")
    lines += [f"not measured: {name}: {why}" for name, why in results["missing"].items()]
    for skip in results["skipped"]:
        where = f" ({skip['kind']})" if skip["kind"] else ""
        lines.append(f"skipped: {skip['library']}{where}: {skip['reason']}")
    for e in results["errors"]:
        where = ", ".join(filter(None, (e["library"], e["kind"], e["shape"], e["config"])))
        lines.append(f"ERROR: {where}: {e['reason']}")
    return lines


# ---- what the terminal and the page both show --------------------------------------------------

STARRED = """\
Times in microseconds. * not counted as a peer: not held to AVX2 (ONNX Runtime, XLA, JAX), or a
loop in C++ beside calls from Python (oneDNN at T = N = 1)."""


def summary_of(results: dict[str, Any], all_rows: list[Row]) -> dict[str, list[Block]]:
    """{title: blocks}: the overview, losses, targets, the machine's limits, what went wrong."""
    lost, wanted = losses(all_rows), targets(results, all_rows)
    missed = [f"{t.what}: wanted {t.wanted}, measured {t.got}"
              + (f" ({'; '.join(t.missed)})" if t.missed else "") for t in wanted if not t.met]
    against = any(row.times for row in all_rows)
    where: list[Block] = ["No case was measured in which another library was faster." if against
                          else "No other library was measured."]
    if lost:
        where = ["Cases in which another library was faster, times in microseconds:",
                 table_of_losses(lost)]
    if missed:
        where += ["Targets that are missed, and the shapes that miss them:", bullets(missed)]
    head = [["target", "wanted", "measured", ""]]
    found = {
        "Overview": [overview(groups(all_rows))],
        "Where we lose": where,
        **({"The smallest layers": blocks} if (blocks := smallest(results, all_rows)) else {}),
        "Targets": [head + [[t.what, t.wanted, t.got, t.verdict] for t in wanted]],
        "Limits of the machine": [table_of_rooflines(results)],
    }
    found |= {title: [table]
              for title, table in tables_of_footprint(results["footprint"]).items()}
    if lines := problems(results):
        found["What was not measured, or disturbed"] = [bullets(lines)]
    return found


def details(results: dict[str, Any], all_rows: list[Row]) -> dict[str, list[Block]]:
    """{title: tables} of each configuration."""
    return {heading(group): [table_of(members)]
            + ([table_of_ways(results, members)] if has_ways(members) else [])
            for group, members in groups(all_rows).items()}


def has_ways(members: list[Row]) -> bool:
    return any(row.case.kind == "step" or row.shape.ragged for row in members)


def text(results: dict[str, Any]) -> str:
    """What the terminal shows: the summary at the end."""
    all_rows = rows(results)
    titled = {"Tables": [STARRED]} | details(results, all_rows) | summary_of(results, all_rows)
    return "\n\n".join(
        "\n".join([title, *map(aligned, blocks)]) for title, blocks in titled.items())


def compared(found: list[Change], only_old: int, only_new: int) -> str:
    """What `compare` prints."""
    if not found:
        return "no case is in both files"
    table = [["case", "old", "new", "old / new", "of the peers", "normalised", ""]]
    for c in found:
        ratios = [f"{v:.3f}" if v else "-" for v in (c.absolute, c.drift, c.normalised)]
        case = f"{heading(c.case[:4])}: {c.case.shape}"
        table.append([case, duration(c.old), duration(c.new), *ratios, c.mark])
    mean = geometric_mean(change.absolute for change in found)
    judged = geometric_mean(change.judged for change in found)
    marks = [change.mark for change in found]
    return f"""{aligned(table)}

{len(found)} cases; {only_old} only in the first file, {only_new} in the second
geometric mean {mean:.3f}, normalised by the peers {judged:.3f}
faster by over 5%: {marks.count('faster')}, slower by over 5%: {marks.count('SLOWER')}"""


# ---- the page ----------------------------------------------------------------------------------

ONE_RUN = "Every figure comes from one run."
MORE_RUNS = """\
Every figure is the best of {} runs of the same code, for every library alike (`python -m bench
merge`); not every run measured everything."""
METHOD = """\
For each number of threads, instruction set and dtype one process holds gru_c and all peers. For
each shape all of them get the same weights and data, and all results (outputs, and in training the
gradients of input, initial state, weights and biases) are compared with `gru_c.reference` in
float64 before anything is timed, and once more afterwards. Then they take turns: rounds of short
bursts in rotating order, each after a pause until no thread of the process computes. The least time
is the figure, the median is used for the column "by medians". A library more than four times slower
than the fastest takes part in every fourth round.

A ratio is the fastest peer's time over gru_c's: above 1, gru_c is faster. Libraries are used at
their best: prepared sessions, bound outputs, inference mode, the cell instead of the layer where
T = 1 (PyTorch and gru_c), oneDNN from a loop in C++; conversions of data are never timed. Ragged
rows have lengths spread evenly over 1 to T, in no order. Each library computes them in two forms,
the faster of which counts: told the lengths (PyTorch packs and unpacks in each call, ONNX Runtime
and OpenVINO take lengths, TensorFlow and JAX a mask, oneDNN has nothing), and padded to T steps,
which gives the same results before the ends of rows and the same gradients. "of padded" is gru_c's
time over that of its own padded form; operations are those of the real steps. "any
threads" lets each peer use one thread where two make it slower, "x PyTorch" always does. Operations
are those of the matrix products. The roofline, a lower bound of the time, is described in
`bench/roofline.py`; its two sides were measured in the same processes. AVX2 means that the
environment variables of each library hold it to AVX2; ONNX Runtime, XLA and JAX heed none."""


def machine_lines(results: dict[str, Any]) -> str:
    m = results["machine"]
    caches = ", ".join(f"{name} {size}" for name, size in m["caches"].items())
    return bullets([
        f"{m['cpu']} ({m['architecture']}), {m['cores']} cores"
        + ", a virtual machine" * bool(m["virtual"]),
        f"caches: {caches}; memory {m['memory_gb']} GB; vectors: {', '.join(m['vectors'])}",
        f"{m['system']}, Python {m['python']}",
        f"gru_c at {results['revision'] or 'an unknown revision'}, "
        f"{results['started']} to {results['finished'] or 'interrupted'}",
        "versions: " + ", ".join(f"{name} {v}" for name, v in results["versions"].items()),
        "peers: " + ", ".join(f"{NAMES[name]} {v}" for name, v in results["peers"].items()),
    ])


def _runs(results: dict[str, Any]) -> str:
    runs = results.get("runs")
    if not runs:
        return ONE_RUN
    commands = (" ".join(["python -m bench", *run["command"]]) for run in runs)
    lines = [f"`{command}`, begun {run['started']}"
             for command, run in zip(commands, runs, strict=True)]
    return MORE_RUNS.format(len(runs)) + "\n\n" + bullets(lines)


def document(results: dict[str, Any], images: dict[str, str]) -> str:
    """The page; `images` is {title: path as the page sees it}."""
    command = " ".join(["python -m bench", *results["command"], "--report"])
    all_rows = rows(results)
    parts = [
        f"# Performance on {results['machine']['processor']}",
        "Written by the benchmark; do not edit. The figures hold for this processor alone. To run "
        "it on yours:",
        f"    pip install '.[bench]'\n    {command}",
    ]
    titled = summary_of(results, all_rows) | {
        "How it was measured": [_runs(results), METHOD],
        "Machine and versions": [machine_lines(results)],
        "Plots": [f"![{title}]({path})" for title, path in images.items()],
        "Tables": [STARRED],
    }
    for title, blocks in titled.items():
        parts += [f"## {title}", *map(markdown, blocks)] if blocks else []
    for title, blocks in details(results, all_rows).items():
        parts += [f"### {title}", *map(markdown, blocks)]
    return "\n\n".join(parts) + "\n"
