"""Two result files side by side, so that a change can be judged: `python -m bench compare A B`.

A ratio above 1 means that the second file is faster. gru_c's own times drift with the machine; the
peers, which did not change, drift alike, so the ratio is also given with theirs divided out.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from .summary import OURS, OURS_ALONE, Case, case_of, fastest_ways, geometric_mean

NOTABLE = 0.05


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


def _times(results: dict[str, Any]) -> dict[Case, dict[str, float]]:
    grouped = defaultdict(list)
    for record in results["records"]:
        grouped[case_of(record)].append(record)
    return {
        case: {name: record["best"] for name, record in fastest_ways(records).items()}
        for case, records in grouped.items()
    }


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Cases of both files, the worst first."""
    before, after = _times(old), _times(new)
    found = []
    for case in before.keys() & after.keys():
        a, b = before[case], after[case]
        if OURS not in a or OURS not in b:
            continue
        both = (a.keys() & b.keys()) - {OURS, OURS_ALONE}
        drift = geometric_mean(a[name] / b[name] for name in both)
        absolute = a[OURS] / b[OURS]
        normalised = None if drift is None else absolute / drift
        found.append(Change(case, a[OURS], b[OURS], absolute, drift, normalised))
    return sorted(found, key=lambda change: (change.judged, change.case))


def unmatched(old: dict[str, Any], new: dict[str, Any]) -> tuple[int, int]:
    """How many cases only the first file has, and only the second."""
    before, after = set(_times(old)), set(_times(new))
    return len(before - after), len(after - before)
