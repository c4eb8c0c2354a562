"""The Markdown report, for docs/performance.md: everything that was measured, in one page."""

from __future__ import annotations

from typing import Any

from . import report
from .summary import NAMES, groups, rows
from .targets import losses, targets

ONE_RUN = "Every figure comes from one run."
MORE_RUNS = """\
Every figure is the best of {} runs of the same code, for every library alike (`python -m bench
merge`); not every run measured everything."""
METHOD = """\
For each number of threads, instruction set and dtype one process
holds gru_c and all peers. For each shape all of them get the same weights and data, and all results
(outputs, and in training the gradients of input, initial state, weights and biases) are compared
with a float64 oracle before anything is timed, and once more afterwards. Then they take turns:
rounds of short bursts in rotating order, each after a pause until no thread of the process
computes. The least time is the figure, the median is used for the column "by medians". A library
more than four times slower than the fastest takes part in every fourth round.

A ratio is the fastest peer's time over gru_c's: above 1, gru_c is faster. Libraries are used at
their best: prepared sessions, bound outputs, inference mode, the cell instead of the layer where
T = 1 (PyTorch and gru_c), oneDNN from a loop in C++; conversions of data are never timed. "any
threads" lets each peer use one thread where two make it slower, "x PyTorch" always does. Operations
are those of the matrix products. The roofline, a lower bound of the time, is described in
`bench/roofline.py`; its two sides were measured in the same processes. AVX2 means that the
environment variables of each library hold it to AVX2."""


def _bullets(items) -> str:
    return "\n".join(f"- {item}" for item in items)


def _machine(results: dict[str, Any]) -> str:
    m = results["machine"]
    caches = ", ".join(f"{name} {size}" for name, size in m["caches"].items())
    lines = [
        f"{m['cpu']} ({m['architecture']}), {m['cores']} cores"
        + ", a virtual machine" * bool(m["virtual"]),
        f"caches: {caches}; memory {m['memory_gb']} GB; vectors: {', '.join(m['vectors'])}",
        f"{m['system']}, Python {m['python']}",
        f"gru_c at {results['revision'] or 'an unknown revision'}, "
        f"{results['started']} to {results['finished'] or 'interrupted'}",
        "versions: " + ", ".join(f"{name} {v}" for name, v in results["versions"].items()),
        "peers: " + ", ".join(f"{NAMES[name]} {v}" for name, v in results["peers"].items()),
    ]
    return _bullets(lines)


def _runs(results: dict[str, Any]) -> str:
    runs = results.get("runs")
    if not runs:
        return ONE_RUN
    return "\n\n".join([MORE_RUNS.format(len(runs)), _bullets(
        f"`{' '.join(['python -m bench', *run['command']])}`, begun {run['started']}"
        for run in runs)])


def _losses(results: dict[str, Any]) -> str:
    parts = []
    found = losses(results)
    if found:
        parts.append("Cases in which another library was faster, times in microseconds:")
        parts.append(report.markdown(report.table_of_losses(found)))
    else:
        parts.append("No case was measured in which another library was faster.")
    missed = [target for target in targets(results) if not target.met]
    if missed:
        parts.append("Targets that are missed, and the shapes that miss them:")
        parts.append(
            _bullets(
                f"{t.what}: wanted {t.wanted}, measured {t.got}"
                + (f" ({'; '.join(t.missed)})" if t.missed else "")
                for t in missed
            )
        )
    return "\n\n".join(parts)


def _tables(results: dict[str, Any]) -> list[str]:
    parts = []
    for group, members in groups(rows(results)).items():
        parts.append(f"### {report.heading(group)}")
        parts.append(report.markdown(report.table_of(members)))
        if group[3] == "step":
            parts.append(report.markdown(report.table_of_ways(results, group)))
    return parts


def document(results: dict[str, Any], images: dict[str, str]) -> str:
    """The report; `images` is {title: path as the page sees it}."""
    command = " ".join(["python -m bench", *results["command"], "--report FILE.md"])
    parts = [
        "# Performance",
        "Written by the benchmark; do not edit. To run it again, here or on your own machine:",
        f"    pip install '.[bench]'\n    {command}",
        report.markdown(report.overview(rows(results))),
        "## Where we lose",
        _losses(results),
        "## Targets",
        report.markdown(report.table_of_targets(targets(results))),
        "## How it was measured",
        _runs(results) + "\n\n" + METHOD,
        "## Machine and versions",
        _machine(results),
        report.markdown(report.table_of_rooflines(results)),
    ]
    if lines := report.problems(results):
        parts.append(_bullets(lines))
    parts += [f"![{title}]({path})" for title, path in images.items()]
    for title, table in report.tables_of_footprint(results["footprint"]).items():
        parts += [f"## {title[0].upper()}{title[1:]}", report.markdown(table)]
    parts += ["## Tables", f"Times in microseconds. {report.STARRED}", *_tables(results)]
    return "\n\n".join(parts) + "\n"
