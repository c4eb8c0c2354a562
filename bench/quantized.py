"""Quantized GRUs: time and error of gru_c in int8 and bfloat16, beside other libraries'.

    python -m bench.quantized                       six shapes, one thread; some minutes
    python -m bench.quantized --shapes all          those and every plain layer with N <= 64
    python -m bench.quantized --isa avx2            gru_c and all peers held to AVX2
    python -m bench.quantized --smoke               for CI: fails on a crash or a wrong result
    python -m bench.quantized show QUANTIZED.json   the tables of an earlier run

Each shape has a process of its own, in which all take turns: gru_c in float32, in bfloat16 with and
without x and h rounded to 16 bits, in int8 with inputs of 8 and 12 bits; and what
peers/quantized.py has. Weights are uniform in +-1/sqrt(H), x is standard normal, the state begins
with zeros. The error is the difference from gru_c.reference in float64 with the float32 weights:
the largest, and the root mean square.

The two forms of the GRU are compared apart: the reset gate after the product (reset_after=True, as
in PyTorch) and before it. A ratio is the time of the fastest peer of that precision over gru_c's:
above 1, gru_c is faster. Both kinds of int8 are compared with peers in int8, both of bfloat16 with
peers in bfloat16 and float16. oneDNN, whose loop runs in C++, is no peer at T = N = 1. The gain is
gru_c's time in float32 over its own. OpenVINO's int8 needs nncf.

Results go to bench/results/<processor>/quantized.json; those of chosen shapes or peers, and of
--smoke, to partial.json.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import machine, peers, plan, report, results, shapes
from .__main__ import chosen_shapes, counts, words
from .ours import Peer, Quantized
from .peers import PeerBase, Unsupported
from .peers.quantized import PEERS
from .report import Block, Table
from .runner import find_peers
from .shapes import Shape, shape
from .summary import NAMES, OURS, geometric_mean, threads_text
from .timing import Contender, run_rounds
from .worker import WrongResult

FIVE = tuple(shape(*sizes) for sizes in (
    (100, 1, 256, 512), (100, 1, 256, 1024), (50, 1, 512, 2048), (100, 4, 256, 1024),
    (50, 16, 512, 1024)))
USUAL = (*FIVE, shape(100, 1, 64, 128))
PLAIN = tuple(s for s in shapes.ALL if s.N <= 64 and not s.variant)
SETS = {"usual": USUAL, "five": FIVE,
        "all": (*USUAL, *(s for s in PLAIN if s.sizes not in {u.sizes for u in USUAL})),
        "smoke": tuple(s for s in shapes.SMOKE if not s.variant)}

# ---- what is measured --------------------------------------------------------------------------

TWELVE, SIXTEEN = "int8, 12-bit x", "bfloat16, 16-bit x"
X_BITS = {TWELVE: 12, SIXTEEN: 16}


def ours(precision: str, reset_after: bool) -> type[PeerBase]:
    """The class of one kind of gru_c's."""
    fields: dict[str, Any] = {"precision": precision, "reset_after": reset_after}
    if precision != "float32":
        fields |= {"weights_in": precision.partition(",")[0], "x_bits": X_BITS.get(precision)}
    return type("Ours", (Quantized if "weights_in" in fields else Peer,), fields)


PRECISIONS = ("float32", "bfloat16", SIXTEEN, "int8", TWELVE)  # of gru_c
CLASSES = {OURS: tuple(ours(*kind) for kind in itertools.product(PRECISIONS, (True, False)))}
CLASSES |= PEERS
# Above this part of the truth an error (root mean squares) is a wrong result, not rounding.
LIMITS = {"float32": 1e-5, "bfloat16": 0.05, "float16": 0.05, SIXTEEN: 0.05, "int8": 0.5,
          TWELVE: 0.5}


def problem_of(made: Shape) -> dict[str, np.ndarray]:
    """Weights and inputs; the state begins with zeros."""
    problem = peers.random_problem(made)
    return problem | {"h_0": np.zeros_like(problem["h_0"])}


def truth_of(problem: Mapping[str, np.ndarray], reset_after: bool) -> np.ndarray:
    """The output in float64."""
    from gru_c import reference

    x, h_0 = (problem[name].astype(np.float64) for name in ("x", "h_0"))
    weights = {name: problem[f"{name}_l0"].astype(np.float64) for name in peers.WEIGHT_NAMES}
    return reference.forward(x, h_0[0], **weights, reset_after=reset_after)[0]


def errors_of(peer: PeerBase, truth: np.ndarray) -> dict[str, float]:
    """The largest error and the root mean square; WrongResult if that is above its limit."""
    apart = peer.output() - truth
    if apart.shape != truth.shape:
        raise WrongResult(f"shape {apart.shape} where {truth.shape} was due")
    rms, of_all = (float(np.sqrt(np.mean(np.square(a)))) for a in (apart, truth))
    if not rms <= LIMITS[peer.precision] * of_all:
        raise WrongResult(f"off by {rms:.1e} (root mean square), the truth has {of_all:.1e}")
    return {"max_error": float(np.abs(apart).max()), "rms_error": rms}


def checked(peer: PeerBase, truth: np.ndarray) -> PeerBase:
    for _ in range(2):  # what a first call leaves behind must not change a second
        peer.run()
        errors_of(peer, truth)
    return peer


@contextlib.contextmanager
def told(found: dict[str, list], made: Shape, library: str, cls: type[PeerBase]):
    """What cannot be done is noted, what fails is an error; the others go on."""
    where = {"library": library, "kind": title(cls.precision, cls.reset_after)}
    try:
        yield
    except Unsupported as refusal:
        found["skipped"].append(where | {"reason": str(refusal)})
    except Exception as error:
        traceback.print_exception(error)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        found["errors"].append(where | {"shape": made.label, "config": "", "reason": reason})


def measure(made: Shape, libraries: Iterable[str], threads: int, seconds: float,
            rounds: int) -> dict[str, list]:
    """{"records", "skipped", "errors"} of one shape: all are built, checked, timed in turns."""
    found: dict[str, list] = {"records": [], "skipped": [], "errors": []}
    problem, built = problem_of(made), {}
    truths = {after: truth_of(problem, after) for after in (True, False)}
    for library in libraries:
        for cls in CLASSES[library]:
            with told(found, made, library, cls):
                peer = cls(problem, threads)
                built[library, cls] = checked(peer, truths[cls.reset_after])
    contenders = timed(built, seconds, rounds)
    for (library, cls), peer in built.items():
        contender = contenders[library, cls]
        with told(found, made, library, cls):
            found["records"].append({
                "shape": made.label, "library": library, "precision": cls.precision,
                "reset_after": cls.reset_after, "best": contender.best,
                "median": contender.median, "rounds": len(contender.samples),
                "counts": not (made.is_lone and cls.called_from == "C"),
                **errors_of(peer, truths[cls.reset_after])})
        peer.close()
    return found


def timed(built: Mapping[Any, PeerBase], seconds: float, rounds: int) -> dict[Any, Contender]:
    """Their times, taken in turns."""
    contenders = {key: Contender(peer.time) for key, peer in built.items()}
    gc.collect()
    gc.disable()
    try:
        if contenders:
            run_rounds(list(contenders.values()), seconds, rounds)
    finally:
        gc.enable()
    return contenders


def work() -> None:
    """One process: `measure` with a job (JSON) from stdin; its result to stdout."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print; the real stdout is for the answer
    job = json.load(sys.stdin)
    json.dump(measure(Shape(*job.pop("shape")), **job), answer)
    answer.flush()
    os._exit(0)  # several frameworks in one process may trip over each other when they unload


def run_worker(job: dict[str, Any], threads: int, isa: str) -> dict[str, list]:
    """What a process with these limits answers; an error if it ends without an answer."""
    command = [sys.executable, "-m", "bench.quantized", "work"]
    done = subprocess.run(command, input=json.dumps(job | {"threads": threads}), text=True,
                          capture_output=True, cwd=machine.ROOT,
                          env=machine.worker_environment(threads, isa))
    try:
        return json.loads(done.stdout)
    except ValueError:
        tail = " | ".join(done.stderr.strip().splitlines()[-4:])
        reason = f"the process ended with {done.returncode}: {tail}"
        where = {"library": "worker", "kind": "", "shape": job["shape"][0], "config": ""}
        return {"records": [], "skipped": [], "errors": [where | {"reason": reason}]}


# ---- what follows ------------------------------------------------------------------------------


class Case(NamedTuple):
    """What shares a table."""

    isa: str
    threads: int
    reset_after: bool


Key = tuple[str, str]  # library, precision
Records = dict[Key, dict[str, Any]]

# Column: (gru_c's precision, those of the peers).
RATIOS = {
    "int8": ("int8", ("int8",)),
    TWELVE: (TWELVE, ("int8",)),
    "bfloat16": ("bfloat16", ("bfloat16", "float16")),
    SIXTEEN: (SIXTEEN, ("bfloat16", "float16")),
}


def by_case(made: dict[str, Any]) -> dict[Case, dict[str, Records]]:
    """{case: {shape: records}}, in the order of measurement."""
    found: defaultdict = defaultdict(lambda: defaultdict(dict))
    for record in made["records"]:
        case = Case(*(record[name] for name in Case._fields))
        found[case][record["shape"]][record["library"], record["precision"]] = record
    return found


def fastest(records: Records, precisions: Iterable[str]) -> Key | None:
    """The fastest peer of these precisions that counts."""
    some = [key for key, record in records.items()
            if key[0] != OURS and key[1] in precisions and record["counts"]]
    return min(some, key=lambda key: records[key]["best"], default=None)


def ratio(records: Records, above: Key | None, below: Key) -> float | None:
    """The quotient of two times; None if one is missing."""
    if above not in records or below not in records:
        return None
    return records[above]["best"] / records[below]["best"]


def quotients(records: Records) -> dict[str, float | None]:
    """Ratios and gains by column."""
    found = {f"ratio {name}": ratio(records, fastest(records, theirs), (OURS, own))
             for name, (own, theirs) in RATIOS.items()}
    gains = {f"gain {own}": ratio(records, (OURS, "float32"), (OURS, own))
             for own in PRECISIONS[1:]}
    return found | gains


# ---- the tables --------------------------------------------------------------------------------

WIDE = 6  # columns of shapes in a table


def title(precision: str, reset_after: bool) -> str:
    return precision + ("" if reset_after else ", reset before")


def heading(case: Case) -> str:
    form = "after" if case.reset_after else "before"
    return f"{case.isa}, {threads_text(case.threads)}, reset gate {form} the product"


def tables_of(found: dict[str, Records], what: str,
              cell: Callable[[dict[str, Any]], str]) -> list[Block]:
    """A line for each library and precision, a column a shape; several tables of many shapes."""
    tables: list[Block] = []
    keys = dict.fromkeys(key for records in found.values() for key in records)
    names = list(found)
    for here in (names[i : i + WIDE] for i in range(0, len(names), WIDE)):
        table = [[what, *here]]
        for library, precision in keys:
            some = [found[shape].get((library, precision)) for shape in here]
            table.append([f"{NAMES[library]} {precision}",
                          *("-" if record is None else cell(record) for record in some)])
        tables.append(table)
    return tables


def table_of_ratios(found: dict[str, Records], sizes: Mapping[str, list]) -> Table:
    """A line a shape, and the geometric means of the five shapes and of all with H >= 256."""
    rows = {label: quotients(records) for label, records in found.items()}
    columns = [name for name in next(iter(rows.values()))
               if any(row[name] is not None for row in rows.values())]
    table = [["T,N,I,H", *columns]]
    table += [[label, *(report.times(row[name]) for name in columns)]
              for label, row in rows.items()]
    five = {made.sizes for made in FIVE}
    chosen = {
        "the five": [label for label in rows if tuple(sizes[label][:4]) in five],
        "H >= 256": [label for label in rows if sizes[label][3] >= 256]}
    for name, labels in chosen.items():
        means = [geometric_mean(rows[label][column] for label in labels) for column in columns]
        table.append([f"geometric mean, {name} ({len(labels)})", *map(report.times, means)])
    return table


def blocks(made: dict[str, Any]) -> dict[str, list[Block]]:
    """{title: blocks}, the ratios of all cases at the end."""
    found: dict[str, list[Block]] = {}
    ratios: dict[str, list[Block]] = {}
    for case, by_shape in by_case(made).items():
        found[heading(case)] = [
            *tables_of(by_shape, "microseconds", lambda r: report.duration(r["best"])),
            *tables_of(by_shape, "largest error", lambda r: f"{r['max_error']:.1e}"),
            *tables_of(by_shape, "RMS error", lambda r: f"{r['rms_error']:.1e}")]
        table = table_of_ratios(by_shape, made["shapes"])
        if len(table[0]) > 1:
            ratios[f"Ratios: {heading(case)}"] = [table]
    if lines := report.problems(made):
        ratios["What was not measured, or disturbed"] = [report.bullets(lines)]
    return found | ratios


def text(made: dict[str, Any]) -> str:
    parts = ["\n\n".join([title, *map(report.aligned, some)])
             for title, some in blocks(made).items()]
    return "\n\n".join([*parts, report.machine_lines(made)])


# ---- the command -------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench.quantized", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--smoke", action="store_true", help="for CI: small shapes, no time worth a look")
    add("--shapes", nargs="+", metavar="SHAPE", help=f"{', '.join(SETS)}, or T,N,I,H")
    add("--peers", type=words(tuple(PEERS)), help=f"of {','.join(PEERS)}, or none")
    add("--threads", type=counts, default=(1,), help="default 1")
    add("--isa", dest="isas", type=words(plan.ISAS), default=("native",),
        help=f"of {','.join(plan.ISAS)}, default native")
    add("--rounds", type=int, default=200, help="most rounds a shape")
    add("--seconds", type=float, default=20.0, help="time for the rounds of a shape")
    add("--output", type=Path, metavar="DIR", help="default: by processor")
    return made


def run(arguments: list[str]) -> tuple[dict[str, Any], Path]:
    """Measures what is asked for, and writes the results after each shape."""
    given = parser().parse_args(arguments)
    made = results.empty_results(command(arguments))
    wanted = tuple(PEERS) if given.peers is None else given.peers
    made["peers"], missing = find_peers(wanted)
    made["missing"] = {name: why for name, why in missing.items() if name in PEERS}
    isas, no_isas = machine.useful_isas(given.isas)
    threads, too_many = machine.useful_threads(given.threads)
    made["skipped"] = [{"library": OURS, "kind": "", "reason": reason}
                       for reason in [*no_isas, *too_many]]
    chosen = chosen_shapes(given.shapes or ["smoke" if given.smoke else "usual"], SETS)
    usual = not given.smoke and given.shapes is None and given.peers is None
    folder = given.output or results.folder_of(made)
    path = folder / ("quantized.json" if usual else "partial.json")
    job = {"libraries": [OURS, *made["peers"]],
           "seconds": 0.0 if given.smoke else given.seconds,
           "rounds": 1 if given.smoke else given.rounds}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `timeout` is a Ctrl-C too
    try:
        for place in itertools.product(isas, threads, chosen):
            add(made, job, *place)
            results.save(made, path)
        made["finished"] = results.now()
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept", file=sys.stderr)
        made["errors"].append({"library": "the run", "kind": "", "shape": "", "config": "",
                               "reason": "interrupted before its end"})
    results.save(made, path)
    return made, path


def add(made: dict[str, Any], job: dict[str, Any], isa: str, threads: int, here: Shape) -> None:
    """Measures one shape into `made`."""
    config = f"{isa}, {threads_text(threads)}"
    print("measuring", here.label, f"({config})", file=sys.stderr, flush=True)
    watch = machine.Watch()
    found = run_worker(job | {"shape": here}, threads, isa)
    made["shapes"][here.label] = list(here[1:])
    made["disturbance"].append({"config": f"{config}, {here.label}"} | watch.shares())
    made["records"] += [{"isa": isa, "threads": threads} | record for record in found["records"]]
    made["errors"] += [error | {"config": config} for error in found["errors"]]
    made["skipped"] += [skip for skip in found["skipped"] if skip not in made["skipped"]]


def command(arguments: list[str]) -> list[str]:
    """What was asked for, without the paths of this machine."""
    paths = argparse.ArgumentParser(add_help=False)
    paths.add_argument("--output")
    return paths.parse_known_args(arguments)[1]


def main(arguments: list[str]) -> int:
    if arguments == ["work"]:
        work()
    if arguments[:1] == ["show"]:
        made = argparse.ArgumentParser(prog="python -m bench.quantized show")
        made.add_argument("results", type=Path, help="JSON of an earlier run")
        print(text(results.load(made.parse_args(arguments[1:]).results)))
        return 0
    made, path = run(arguments)
    print(text(made))
    print(f"\nwritten: {path}", file=sys.stderr)
    return 1 if made["errors"] or not made["records"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
