"""Runs of one machine and one code as one, for a machine that others disturb.

`python -m bench merge A B [C ...]`: of each library in each case the best of all runs counts, as if
its rounds had been longer. Every library gains alike from that, gru_c no more than the others.
"""

from __future__ import annotations

from typing import Any

from .summary import derived

SAME = ("schema", "revision", "machine", "versions", "peers")
PLACE = ("dtype", "isa", "threads", "kind", "shape", "library", "way")


def merged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The results of all runs; ValueError if they are not comparable. None of them is changed."""
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


def _records(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record a place: the least time, the rounds of all, the mean of the medians by rounds."""
    found: dict[tuple, dict[str, Any]] = {}
    for run in runs:
        for new in run["records"]:
            place = tuple(new[name] for name in PLACE)
            old = found.get(place)
            if old is None:
                found[place] = dict(new)
                continue
            rounds = old["rounds"] + new["rounds"]
            total = old["median"] * old["rounds"] + new["median"] * new["rounds"]
            best = min(old["best"], new["best"])
            old |= {"best": best, "median": total / rounds, "rounds": rounds}
    return list(found.values())
