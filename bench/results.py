"""The file of results: what it holds, to read and write it, to merge and to compare files.

`records` and `rooflines` are raw, `derived` follows from them. Runs of different processors are
never merged or compared. `cited.json` beside it has figures of libraries that the benchmark cannot
run, measured on the same processor by other means.

Merging is for a machine that others disturb: of each library in each case the best of all runs
counts, as if its rounds had been longer. Every library gains alike from that.

In a comparison a ratio above 1 means that the second file is faster. gru_c's own times drift with
the machine; the peers, which did not change, drift alike, so the ratio is also given with theirs
divided out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from . import machine
from .summary import BESIDE, OURS, Case, by_case, derived, geometric_mean

SCHEMA = 2
SAME = ("schema", "revision", "machine", "versions", "peers")
PLACE = ("dtype", "isa", "threads", "kind", "shape", "library", "way")
NOTABLE = 0.05


def empty_results(command: list[str]) -> dict[str, Any]:
    lists = ("rooflines", "records", "skipped", "errors", "disturbance")
    return {
        "schema": SCHEMA,
        "started": now(),
        "finished": None,
        "command": command,
        "revision": machine.revision(),
        "machine": machine.describe(),
        "versions": machine.versions(),
        **{name: {} for name in ("peers", "missing", "shapes", "footprint")},
        **{name: [] for name in lists},
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def folder_of(results: dict[str, Any]) -> Path:
    """Where the results of this processor belong."""
    return machine.ROOT / "bench" / "results" / results["machine"]["processor"]


def cited(results: dict[str, Any]) -> list[dict[str, Any]]:
    """[{"library", "source", "case": fields of a Case, "seconds": {shape: seconds}}] of it."""
    path = folder_of(results) / "cited.json"
    return json.loads(path.read_text()) if path.exists() else []


def save(results: dict[str, Any], path: Path) -> None:
    """Writes in one step, so that whoever reads never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".partial")
    scratch.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(scratch, path)


def load(path: str | Path) -> dict[str, Any]:
    results = json.loads(Path(path).read_text())
    if results.get("schema") != SCHEMA:
        raise ValueError(f"{path} is of schema {results.get('schema')}, this reads {SCHEMA}")
    return results


def _of_one_processor(runs: Sequence[dict[str, Any]]) -> None:
    names = dict.fromkeys(run["machine"]["processor"] for run in runs)
    if len(names) > 1:
        raise ValueError(f"the runs are of different processors: {' and '.join(names)}")


# ---- merging -----------------------------------------------------------------------------------


def merged(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The results of all runs; ValueError if they are not comparable. None of them is changed."""
    _of_one_processor(runs)
    first, *others = runs
    for other in others:
        for name in SAME:
            if other[name] != first[name]:
                raise ValueError(f"the runs differ in {name}: {first[name]} and {other[name]}")
    found = first | {
        "records": _records(runs),
        "runs": [{"command": run["command"], "started": run["started"]} for run in runs],
        "finished": max(run["finished"] or "" for run in runs) or None,
        "shapes": {label: sizes for run in runs for label, sizes in run["shapes"].items()},
    }
    for name in ("rooflines", "disturbance", "errors"):
        found[name] = [entry for run in runs for entry in run[name]]
    found["derived"] = derived(found)
    return found


def _records(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record a place: the least time, the rounds of all, the mean of the medians by rounds."""
    found: dict[tuple, dict[str, Any]] = {}
    for new in (record for run in runs for record in run["records"]):
        place = tuple(new[name] for name in PLACE)
        if place not in found:
            found[place] = dict(new)
            continue
        old = found[place]
        rounds = old["rounds"] + new["rounds"]
        total = old["median"] * old["rounds"] + new["median"] * new["rounds"]
        old |= {"best": min(old["best"], new["best"]), "median": total / rounds, "rounds": rounds}
    return list(found.values())


# ---- comparison --------------------------------------------------------------------------------


class Change(NamedTuple):
    """One case that both files have."""

    case: Case
    old: float
    new: float
    absolute: float  # old / new of gru_c
    drift: float | None  # the same of the peers that both files have, geometric mean
    normalised: float | None  # absolute / drift

    @property
    def judged(self) -> float:
        return self.absolute if self.normalised is None else self.normalised

    @property
    def mark(self) -> str:
        if self.judged > 1 + NOTABLE:
            return "faster"
        return "SLOWER" if self.judged < 1 / (1 + NOTABLE) else ""


def _change(case: Case, a: dict[str, dict], b: dict[str, dict]) -> Change:
    both = a.keys() & b.keys() - {*BESIDE}
    ratios = {name: a[name]["best"] / b[name]["best"] for name in both}
    absolute = ratios.pop(OURS)
    drift = geometric_mean(ratios.values())
    normalised = None if drift is None else absolute / drift
    return Change(case, a[OURS]["best"], b[OURS]["best"], absolute, drift, normalised)


def changes(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[Change], int, int]:
    """Cases of both files, the worst first; how many only the first has, and only the second."""
    _of_one_processor([old, new])
    before, after = by_case(old), by_case(new)
    found = [_change(case, before[case], after[case]) for case in before.keys() & after.keys()
             if OURS in before[case] and OURS in after[case]]
    found.sort(key=lambda change: (change.judged, change.case))
    return found, len(before.keys() - after.keys()), len(after.keys() - before.keys())
