"""What follows from raw records: ratios, means, fractions of the roofline. Pure functions.

A ratio is always a peer's time over gru_c's: above 1, gru_c is faster. Least times are compared;
`ratio_of_medians` shows the same by medians.

Whom gru_c is compared with ("the fastest peer"):

- with AVX2, peers that the environment holds to AVX2; ONNX Runtime, XLA and JAX cannot be held,
  they are shown;
- ragged rows: each peer in its faster form, packed or padded;
- at T = N = 1, peers called from Python, as gru_c is. oneDNN's loop runs in C++: it is shown.

With several threads a second ratio, `ratio_any_threads`, lets each peer use one thread where that
makes it faster than several: its time then comes from another process of the same run. The ratio to
PyTorch always does so, because several threads can make PyTorch many times slower.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from . import peers
from .roofline import Roofline
from .shapes import Shape

OURS = "gru_c"
OURS_ALONE = "gru_c (1 thread)"
OURS_PADDED = "gru_c (padded)"
BESIDE = (OURS_ALONE, OURS_PADDED)  # gru_c once more, to compare it with itself
NAMES = {name: name for name in (OURS, *BESIDE)}
NAMES |= {name: peers.load(name).name for name in peers.NAMES}
Records = dict[str, dict[str, Any]]  # by library


class Case(NamedTuple):
    """What is compared: everything of a record but the library and its time."""

    dtype: str
    isa: str
    threads: int
    kind: str
    shape: str

    @classmethod
    def of(cls, record: dict[str, Any]) -> Case:
        return cls(*(record[name] for name in cls._fields))


Group = tuple[str, str, int, str, str]  # a case without its shape, and the variant of that


class Row:
    """A case with gru_c's time beside the others'; None where something was not measured.

    `found` are the records of the case by library, `with_one` those of the same case with one
    thread, if this one has several.
    """

    def __init__(self, case: Case, shape: Shape, found: Records, with_one: Records,
                 limit: Roofline | None):
        found, training = dict(found), case.kind == "training"
        own = found.pop(OURS)
        alone, padded = (found.pop(name, None) for name in BESIDE)
        self.case, self.shape = case, shape
        best, median = own["best"], own["median"]
        self.best, self.median = best, median
        self.times = {name: record["best"] for name, record in found.items()}  # of the peers
        # Those that count as "fastest peer".
        self.eligible = tuple(name for name, r in found.items()
                              if r["held"] and not (shape.is_lone and r["caller"] == "C"))
        first = min(self.eligible, key=self.times.get, default=None)
        self.fastest = first
        self.ratio = self.times[first] / best if first else None
        medians = [found[name]["median"] for name in self.eligible]
        self.ratio_of_medians = min(medians) / median if first else None
        least = {name: min(r[name]["best"] for r in (found, with_one) if name in r)
                 for name in found}
        first_of_any = min(self.eligible, key=least.get, default=None) if with_one else None
        self.ratio_any_threads = least[first_of_any] / best if first_of_any else None
        self.fastest_any_threads = first_of_any
        self.ratio_torch = least["torch"] / best if "torch" in found else None
        self.gflops = shape.flop(training) / best / 1e9
        # A fraction: the least possible time over gru_c's.
        self.roofline = limit.gru_limit(shape, training) / best if limit else None
        # gru_c with one thread over gru_c with several, in one process.
        self.scaling = alone["best"] / best if alone else None
        # Ragged rows over the same rows padded to T steps, in one process.
        self.of_padded = best / padded["best"] if padded else None

    @property
    def group(self) -> Group:
        """Rows of one group share a table."""
        return *self.case[:4], self.shape.variant


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Of those that are not None; None if there are none."""
    logs = [math.log(value) for value in values if value is not None]
    return math.exp(sum(logs) / len(logs)) if logs else None


def threads_text(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def rooflines(results: dict[str, Any]) -> dict[tuple[str, str, int], Roofline]:
    """{(dtype, isa, threads): the best of its measurements}."""
    found: dict[tuple[str, str, int], Roofline] = {}
    for data in results["rooflines"]:
        new = Roofline(**data | {"bandwidth": {int(k): v for k, v in data["bandwidth"].items()}})
        key = (new.dtype, new.isa, new.threads)
        old = found.get(key, new)
        bandwidth = {k: max(v, old.bandwidth.get(k, v)) for k, v in new.bandwidth.items()}
        found[key] = Roofline(*key, new.vector_bytes, max(new.flops, old.flops), bandwidth)
    return found


def by_case(results: dict[str, Any]) -> dict[Case, Records]:
    """{case: {library: its fastest record}}: a library may have several ways to do it."""
    found: dict[Case, Records] = defaultdict(dict)
    for record in results["records"]:
        libraries = found[Case.of(record)]
        old = libraries.setdefault(record["library"], record)
        if record["best"] < old["best"]:
            libraries[record["library"]] = record
    return found


def ways(results: dict[str, Any]) -> dict[Case, dict[tuple[str, str], float]]:
    """{case: {(library, way): seconds}}, where `by_case` has the fastest way alone."""
    found: dict[Case, dict[tuple[str, str], float]] = defaultdict(dict)
    for record in results["records"]:
        found[Case.of(record)][record["library"], record["way"]] = record["best"]
    return found


def rows(results: dict[str, Any]) -> list[Row]:
    """One row a case that gru_c was measured in, in the order of measurement."""
    by, limits, made = by_case(results), rooflines(results), []
    for case, found in by.items():
        if OURS in found:
            shape = Shape(case.shape, *results["shapes"][case.shape])
            with_one = by.get(case._replace(threads=1), {}) if case.threads > 1 else {}
            limit = limits.get((case.dtype, case.isa, case.threads))
            made.append(Row(case, shape, found, with_one, limit))
    return made


def groups(all_rows: Iterable[Row]) -> dict[Group, list[Row]]:
    """{(dtype, isa, threads, kind, variant): rows}, in the order of the first of each."""
    found: dict[Group, list[Row]] = defaultdict(list)
    for row in all_rows:
        found[row.group].append(row)
    return found


def derived(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows as plain dicts, for the JSON file."""
    found = []
    for row in rows(results):
        case = row.case._asdict() | {"flop": row.shape.flop(row.case.kind == "training")}
        found.append(case | {k: v for k, v in vars(row).items() if k not in ("case", "shape")})
    return found
