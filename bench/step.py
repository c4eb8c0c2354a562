"""The time of one step of a stream, from C, Cython, Numba and Python, beside other libraries.

    python -m bench.step                  the table, in nanoseconds; about two minutes
    python -m bench.step --report         and write the page docs/performance/steps/<processor>.md
    python -m bench.step --smoke          for CI: fails on a crash, a wrong result, never a time
    python -m bench.step --show FILE      the table of an earlier run; with --report its page

One row, float32, the sizes of RTNeural's benchmark and a large one. All ways to take a step have
their turns in one process, after the states of all steps were found equal to gru_c.reference's. The
overhead of a step is its time less that of one within a call of 1,000. Results go to
bench/results/<processor>/steps.json. The exit status is 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import machine, peers, report, results
from .peers import Unsupported, best_time
from .report import Block, Table
from .shapes import shape
from .step_ways import MAKERS, ONEDNN, ONNX, THREADED, WITHIN, Problem
from .summary import threads_text
from .timing import Contender, run_rounds

SIZES = ((1, 8), (1, 16), (1, 40), (80, 256))  # I, H
STEPS = 1000
TOLERANCE = 1e-5  # of the largest state; METHOD says so
ALIKE = 1.03  # two times of the same code may be so far apart

# ---- measuring ---------------------------------------------------------------------------------


def label_of(inputs: int, hidden: int) -> str:
    return f"1,1,{inputs},{hidden}"


def problem_of(inputs: int, hidden: int, steps: int) -> Problem:
    """Weights and `steps` inputs of one row; the state begins with zeros."""
    problem = peers.random_problem(shape(steps, 1, inputs, hidden))
    return problem | {"h_0": np.zeros_like(problem["h_0"])}


def check(run: Callable, truth: np.ndarray) -> None:
    """Raise an error if the states of all steps are not those of `truth` (steps, H)."""
    output = np.full(truth.shape, np.nan, np.float32)
    run(1, output)
    error = peers.relative_error(output, truth)
    if not error <= TOLERANCE:
        raise RuntimeError(f"states are off by {error:.1e} of the largest one")


def contender(run: Callable) -> Contender:
    """Its call is a pass over all steps."""
    return Contender(lambda repeats, number: best_time(lambda: run(number), repeats) / number)


@contextlib.contextmanager
def told(made: dict[str, Any], way: str, threads: int, label: str):
    """What cannot be done is noted, what fails is an error; the others go on."""
    try:
        yield
    except Unsupported as refusal:
        made["missing"][way] = str(refusal)
    except Exception as error:
        traceback.print_exception(error)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        made["errors"].append({"config": threads_text(threads), "library": way, "kind": "",
                               "shape": label, "reason": reason})


def measure(made: dict[str, Any], sizes: tuple[int, int], steps: int, seconds: float,
            rounds: int) -> None:
    """Builds, checks and times every way at one size; its records go into `made`."""
    label = label_of(*sizes)
    problem = problem_of(*sizes, steps)
    truth = peers.truth(problem)["output"][:, 0]
    runs = {}
    for maker, threads in entries():
        with told(made, maker, threads, label):
            found = MAKERS[maker](problem, threads)
            for run in found.values():
                check(run, truth)
            runs |= {(way, threads): run for way, run in found.items()}
    contenders = {key: contender(run) for key, run in runs.items()}
    gc.collect()
    gc.disable()
    try:
        run_rounds(list(contenders.values()), seconds, rounds)
    finally:
        gc.enable()
    for (way, threads), timed in contenders.items():
        with told(made, way, threads, label):
            check(runs[way, threads], truth)
            made["records"].append({
                "shape": label, "way": way, "threads": threads, "best": timed.best / steps,
                "median": timed.median / steps, "rounds": len(timed.samples)})


def entries() -> list[tuple[str, int]]:
    """(maker, threads) of all that is measured here."""
    counts, _ = machine.useful_threads((1, 2))
    return [(maker, threads) for maker in MAKERS for threads in counts
            if threads == 1 or maker in THREADED]


# ---- what follows ------------------------------------------------------------------------------

Times = Mapping[tuple[str, int], Mapping[str, float]]  # {(way, threads): {shape: seconds}}


def times_of(made: dict[str, Any], field: str) -> Times:
    """The records' `field`, in their order."""
    found: defaultdict = defaultdict(dict)
    for record in made["records"]:
        found[record["way"], record["threads"]][record["shape"]] = record[field]
    return found


class Claim(NamedTuple):
    """What the times are held to: `value` of the times of `above` and `below`, in seconds.

    `shapes` are those that are judged, None for all.
    """

    what: str
    above: tuple[str, int]
    below: tuple[str, int]
    value: Callable[[float, float], float]
    holds: Callable[[float], bool]
    digits: int
    shapes: Sequence[str] | None = None

    def missed(self, times: Times) -> dict[str, float]:
        """The values that do not hold, by shape."""
        return {shape: value for shape, value in self.values(times).items()
                if (self.shapes is None or shape in self.shapes) and not self.holds(value)}

    def values(self, times: Times) -> dict[str, float]:
        """By shape, where both were measured; rounded, for what is shown is judged."""
        above, below = times.get(self.above, {}), times.get(self.below, {})
        return {shape: round(self.value(above[shape], below[shape]), self.digits)
                for shape in above if shape in below}


def overhead(above: float, below: float) -> float:
    return 1e9 * (above - below)


def quotient(above: float, below: float) -> float:
    return above / below


# A call of all steps reads the input's weights once in many steps. A step alone reads them itself,
# which takes longer than all else that its overhead is made of, unless there is one input.
LEAN = [label_of(*sizes) for sizes in SIZES if sizes[0] == 1]

CLAIMS = (
    Claim("overhead from C, ns: at most 100 with one input", ("C", 1), (WITHIN, 1), overhead,
          lambda value: value <= 100, 0, LEAN),
    Claim("overhead from Python, ns: at most 1000 with one input", ("Python", 1), (WITHIN, 1),
          overhead, lambda value: value <= 1000, 0, LEAN),
    Claim("oneDNN / C: above 1", (ONEDNN, 1), ("C", 1), quotient, lambda value: value > 1, 2),
    Claim("oneDNN / C, 2 threads: above 1", (ONEDNN, 2), ("C", 2), quotient,
          lambda value: value > 1, 2),
    Claim(f"C, 2 threads / 1 thread: at most 1 (to {ALIKE - 1:.0%})", ("C", 2), ("C", 1), quotient,
          lambda value: value <= ALIKE, 2),
    *(Claim(f"{way} / Python: above 1", (way, 1), ("Python", 1), quotient,
            lambda value: value > 1, 2) for way in ONNX),
)


def missed(times: Times) -> list[str]:
    """What does not hold, and where."""
    return [f"{claim.what}: {value:.{claim.digits}f} at {shape}" for claim in CLAIMS
            for shape, value in claim.missed(times).items()]


# ---- the tables and the page -------------------------------------------------------------------


def shapes_of(made: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(record["shape"] for record in made["records"]))


def table_of_times(made: dict[str, Any], field: str) -> Table:
    """Nanoseconds, a line a way, a column a shape."""
    shapes = shapes_of(made)
    table = [["one step, ns", *shapes]]
    for (way, threads), found in times_of(made, field).items():
        name = way if threads == 1 else f"{way}, {threads} threads"
        table.append([name, *(f"{1e9 * found[shape]:.0f}" if shape in found else "-"
                              for shape in shapes)])
    return table


def table_of_claims(made: dict[str, Any], field: str) -> Table:
    shapes, times = shapes_of(made), times_of(made, field)
    table = [["claim", *shapes, ""]]
    for claim in CLAIMS:
        if values := claim.values(times):
            verdict = "MISSED" if claim.missed(times) else "met"
            cells = [f"{values[shape]:.{claim.digits}f}" if shape in values else "-"
                     for shape in shapes]
            table.append([claim.what, *cells, verdict])
    return table


METHOD = f"""\
One row of float32, the same weights and {STEPS} inputs for all. All ways to take a step are in one
process. Their states after each step are compared with `gru_c.reference` in float64 before anything
is timed, and once more afterwards: a difference above 1e-5 of the largest state is an error. Then
they take turns: rounds of short bursts in rotating order, each after a pause until no thread of the
process computes. A burst is the least of three batches, a batch whole passes over all steps; the
tables have the least and the median of all bursts. A way more than four times slower than the
fastest takes part in every fourth round.

A step takes its input from an array and puts its state where the caller can read it; the next one
goes on from there. gru_c's streams keep the state themselves: from C through the capsule, from
Cython by `cimport`, from Numba by the address of the same function, from Python with
`stream.step(x_t, out=out)`. oneDNN executes a primitive of one step in a loop in C++, its arguments
made beforehand; ONNX Runtime's session is called from Python. Both exchange two buffers, so that no
state is copied (`run` makes new arrays).

"{WITHIN}" is the time of one `gru_forward_f32` over all steps,
divided by them; the overhead of a step is its time less this one. The call reads the input's
weights once in many steps. A step alone reads them itself, so with many inputs its overhead holds
that time and is not judged."""


def blocks(made: dict[str, Any]) -> dict[str, list[Block]]:
    """{title: blocks}, of the terminal and of the page."""
    found: dict[str, list[Block]] = {}
    for title, field in {"Least times": "best", "Medians": "median"}.items():
        tables = table_of_times(made, field), table_of_claims(made, field)
        found[title] = [table for table in tables if len(table) > 1]
    if lines := report.problems(made):
        found["What was not measured, or disturbed"] = [report.bullets(lines)]
    return found


def text(made: dict[str, Any]) -> str:
    return "\n\n".join("\n\n".join([title, *map(report.aligned, some)])
                       for title, some in blocks(made).items())


def document(made: dict[str, Any]) -> str:
    command = " ".join(["python -m bench.step", *made["command"], "--report"])
    parts = [
        f"# Performance of one step on {made['machine']['processor']}",
        "Written by the benchmark; do not edit. The figures hold for this processor alone. To run "
        "it on yours:",
        f"    pip install '.[bench]'\n    {command}",
    ]
    titled = blocks(made) | {"How it was measured": [METHOD],
                             "Machine and versions": [report.machine_lines(made)]}
    for title, some in titled.items():
        parts += [f"## {title}", *map(report.markdown, some)]
    return "\n\n".join(parts) + "\n"


# ---- the command -------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench.step", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--smoke", action="store_true", help="for CI")
    made.add_argument("--show", type=Path, metavar="STEPS.json", help="measure nothing")
    made.add_argument("--seconds", type=float, default=20.0, help="for each size")
    made.add_argument("--rounds", type=int, default=200, help="most rounds a size")
    made.add_argument("--output", type=Path, metavar="DIR", help="default: by processor")
    made.add_argument("--report", type=Path, metavar="FILE.md", nargs="?", const=Path(),
                      help="write the page as well (default: docs/performance/steps/...)")
    return made


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Measures all sizes, and writes the results after each."""
    made = results.empty_results([])
    made["skipped"] = [{"library": "gru_c", "kind": "", "reason": reason}
                       for reason in machine.useful_threads((1, 2))[1]]
    for name in ("onednn", "onnxruntime"):
        with contextlib.suppress(Unsupported):
            made["peers"][name] = peers.load(name).version()
    folder = given.output or results.folder_of(made)
    path = folder / ("partial.json" if given.smoke else "steps.json")
    steps, *limits = (20, 0, 1) if given.smoke else (STEPS, given.seconds, given.rounds)
    watch = machine.Watch()
    for sizes in SIZES:
        print("measuring", label_of(*sizes), file=sys.stderr, flush=True)
        measure(made, sizes, steps, *limits)
        made["disturbance"] = [{"config": "all", **watch.shares()}]
        results.save(made, path)
    made["finished"] = results.now()
    results.save(made, path)
    return made


def main(arguments: list[str]) -> int:
    given = parser().parse_args(arguments)
    made = results.load(given.show) if given.show else run(given)
    if given.report is not None:
        page = given.report
        if page == Path():
            name = f"{made['machine']['processor']}.md"
            page = machine.ROOT / "docs" / "performance" / "steps" / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(document(made))
    print(text(made))
    slow = [] if given.smoke else missed(times_of(made, "best"))
    return 1 if made["errors"] or slow or not made["records"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
