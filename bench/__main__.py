"""Measure gru_c beside every peer that is installed, checked equal first, interleaved.

    python -m bench                       everything, about 45 minutes
    python -m bench --quick               under two minutes: few shapes, native, no TensorFlow
    python -m bench --smoke               for CI: fails on a crash, a wrong result, never a time
    python -m bench --report FILE.md      and write the Markdown report, its plots beside it
    python -m bench show RESULTS.json     tables, plots and report of an earlier run
    python -m bench compare OLD NEW       two runs (JSON files), case by case
    python -m bench merge A B             runs of the same code as one: the best of each library

Results go to bench_results/, results.json after each shape: Ctrl-C leaves what was measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import compare, footprint, markdown, merge, peers, plan, report, shapes, summary
from .machine import useful_isas, useful_threads
from .plan import DTYPES, ISAS, KINDS, Plan
from .runner import Runner, empty_results, find_peers, save

FOOTPRINT = ("memory", "size", "import")
QUICK_PEERS = ("torch", "onnxruntime", "openvino", "onednn")  # TensorFlow takes minutes to build
SMOKE_PEERS = ("torch", "onnxruntime")

# What --quick and --smoke change; an option that is given wins.
FULL: dict[str, Any] = {
    "shapes": ["all"],
    "peers": peers.NAMES,
    "isa": ISAS,
    "dtype": DTYPES,
    "kinds": (*KINDS, *FOOTPRINT),
    "rounds": 60,
    "seconds": 3.5,
    "roofline_seconds": 0.02,
}
QUICK = FULL | {
    "shapes": ["quick"],
    "peers": QUICK_PEERS,
    "isa": ("native",),
    "dtype": ("float32",),
    "rounds": 20,
    "seconds": 1.0,
    "roofline_seconds": 0.01,
}
SMOKE = FULL | {
    "shapes": ["smoke"],
    "peers": SMOKE_PEERS,
    "isa": ("native",),
    "kinds": (*KINDS, "memory"),
    "rounds": 2,
    "seconds": 0.1,
    "roofline_seconds": 0.002,
}


def words(allowed) -> Callable[[str], tuple[str, ...]]:
    """A type for argparse: names with commas between, "none" for an empty list."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(name for name in text.split(",") if name and name != "none")
        for name in chosen:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(allowed)}")
        return chosen

    return parse


def counts(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def chosen_shapes(names: list[str]) -> tuple[shapes.Shape, ...]:
    """Shapes by set (all, quick, smoke), by family or first word of the label, or as T,N,I,H."""
    sets = {"all": shapes.ALL, "quick": shapes.QUICK, "smoke": shapes.SMOKE}
    found: list[shapes.Shape] = []
    for name in names:
        if name in sets:
            found += sets[name]
        elif name.replace(",", "").isdecimal() and name.count(",") == 3:
            sizes = counts(name)
            known = [s for s in shapes.ALL if s.sizes == sizes]
            found += known or [shapes.shape(*sizes, "own")]
        elif some := [s for s in shapes.ALL if name in (s.family, s.label.split()[0])]:
            found += some
        else:
            labels = sorted({s.label.split()[0] for s in shapes.REALISTIC})
            known = ", ".join([*sets, "peers", "realistic", *labels])
            raise SystemExit(f"unknown shapes {name!r}: give T,N,I,H or one of {known}")
    return tuple(dict.fromkeys(found))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--quick", action="store_true", help="under two minutes")
    add("--smoke", action="store_true", help="for CI")
    add("--shapes", nargs="+", metavar="SHAPE", help="all, quick, smoke, audio, ... or T,N,I,H")
    add("--peers", type=words(peers.NAMES), help=f"of {','.join(peers.NAMES)}, or none")
    add("--threads", type=counts, default=plan.THREADS, help="default 1,2")
    add("--isa", type=words(ISAS), help=f"of {','.join(ISAS)}")
    add("--dtype", type=words(DTYPES), help=f"of {','.join(DTYPES)}")
    add("--kinds", type=words(FULL["kinds"]), help=f"of {','.join(FULL['kinds'])}")
    add("--rounds", type=int, help="most rounds a record")
    add("--seconds", type=float, help="time for the rounds of one shape in one kind")
    add("--wheel", type=Path, help="a wheel of gru_c, for its size (default: built in a full run)")
    add("--output", type=Path, default=Path("bench_results"), metavar="DIR")
    add("--report", type=Path, metavar="FILE.md", help="write the Markdown report as well")
    return made


def options(arguments: list[str]) -> argparse.Namespace:
    """The options, with what was not given filled in from the chosen mode."""
    given = parser().parse_args(arguments)
    mode = SMOKE if given.smoke else QUICK if given.quick else FULL
    for name, value in mode.items():
        if getattr(given, name, None) is None:
            setattr(given, name, value)
    return given


def make_plan(given: argparse.Namespace, found: dict[str, str], results: dict) -> Plan:
    """What will be measured here; what cannot be is noted in `results`."""
    isas, why_not = useful_isas(given.isa)
    threads, too_many = useful_threads(given.threads)
    results["skipped"] += [
        {"library": "gru_c", "kind": "", "reason": reason} for reason in [*why_not, *too_many]
    ]
    full, steps = given.shapes == FULL["shapes"], len(plan.STEPS)
    return Plan(
        shapes=chosen_shapes(given.shapes),
        peers=tuple(found),
        threads=threads,
        isas=isas,
        dtypes=given.dtype,
        kinds=given.kinds,
        steps=plan.STEPS[: 1 if given.smoke else 2 if given.quick else steps],
        seconds=given.seconds,
        rounds=given.rounds,
        roofline_seconds=given.roofline_seconds,
        float64_threads=threads[-1:] if given.smoke else None,
        float64_sizes=plan.FLOAT64_SIZES if full else None,
    )


def measure_footprint(given, found: tuple[str, ...], results: dict, keep) -> None:
    """Memory, sizes, import times into results["footprint"]; a failure is an error of the run."""
    full = not (given.quick or given.smoke)
    trained = found if not given.smoke else ()
    jobs = {
        "memory": lambda: {"memory": footprint.memory(trained)},
        "size": lambda: footprint.wheel_and_sizes(found, given.wheel, build=full),
        "import": lambda: {"imports": footprint.imports(found, 7 if full else 3)},
    }
    for kind, job in jobs.items():
        if kind not in given.kinds:
            continue
        print(f"measuring {kind}", file=sys.stderr, flush=True)
        try:
            results["footprint"] |= job()
        except RuntimeError as error:
            said = {"config": "", "library": "footprint", "kind": kind, "shape": ""}
            results["errors"].append(said | {"reason": str(error)})
        keep(results)


def command(arguments: list[str]) -> list[str]:
    """What was asked for, without the paths of this machine."""
    paths = ("--output", "--report", "--wheel")
    return [
        word
        for before, word in zip(["", *arguments], arguments, strict=False)
        if before not in paths and not word.startswith(paths)
    ]


def run(arguments: list[str]) -> int:
    given = options(arguments)
    results = empty_results(command(arguments))
    found, missing = find_peers(given.peers)
    left_out = set(peers.NAMES) - set(given.peers)
    missing |= {name: "not asked for" for name in peers.NAMES if name in left_out}
    results["peers"], results["missing"] = found, missing
    path = given.output / "results.json"

    def keep(results: dict) -> None:
        save(results, path)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `timeout` is a Ctrl-C too
    try:
        Runner(make_plan(given, found, results), results, keep).run()
        measure_footprint(given, tuple(found), results, keep)
        results["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept", file=sys.stderr)
        results["errors"].append(interruption())
    results["derived"] = summary.derived(results)
    keep(results)
    present(results, given.output, given.report)
    print(f"\nwritten: {path}", file=sys.stderr)
    return 1 if results["errors"] or not results["records"] else 0


def interruption() -> dict[str, str]:
    said = {"config": "", "library": "the run", "kind": "", "shape": ""}
    return said | {"reason": "interrupted before its end"}


def present(results: dict, folder: Path, page: Path | None) -> None:
    """Tables to stdout, plots into `folder`, the report to `page` with its plots beside it."""
    print(report.text(results))
    drawn = draw(results, folder)
    if page is None:
        return
    page.parent.mkdir(parents=True, exist_ok=True)
    images = {}
    for title, path in drawn.items():
        if "float32" not in title:
            continue  # the page has the tables; its folder need not have every picture
        copy = page.with_name(f"{page.stem}-{path.name}")
        shutil.copyfile(path, copy)
        images[title] = copy.name
    page.write_text(markdown.document(results, images))


def draw(results: dict, folder: Path) -> dict[str, Path]:
    """{title: file} of the plots; nothing without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print("no plots: matplotlib is not installed", file=sys.stderr)
        return {}
    from . import plots

    folder.mkdir(parents=True, exist_ok=True)
    return plots.plot_all(results, folder)


def load(path: str) -> dict[str, Any]:
    results = json.loads(Path(path).read_text())
    if results.get("schema") != 1:
        raise SystemExit(f"{path} is of schema {results.get('schema')}, this reads 1")
    return results


def show(arguments: list[str]) -> int:
    made = argparse.ArgumentParser(prog="python -m bench show")
    made.add_argument("results", help="JSON of an earlier run")
    made.add_argument("--output", type=Path, metavar="DIR", help="of the plots, default: beside it")
    made.add_argument("--report", type=Path, metavar="FILE.md")
    given = made.parse_args(arguments)
    present(load(given.results), given.output or Path(given.results).parent, given.report)
    return 0


def compare_files(arguments: list[str]) -> int:
    made = argparse.ArgumentParser(prog="python -m bench compare")
    made.add_argument("old")
    made.add_argument("new")
    given = made.parse_args(arguments)
    old, new = load(given.old), load(given.new)
    print(report.compared(compare.changes(old, new), *compare.unmatched(old, new)))
    return 0


def merge_files(arguments: list[str]) -> int:
    made = argparse.ArgumentParser(prog="python -m bench merge")
    made.add_argument("results", nargs="+", help="JSON of earlier runs, the largest first")
    made.add_argument("--output", type=Path, default=Path("bench_results"), metavar="DIR")
    made.add_argument("--report", type=Path, metavar="FILE.md")
    given = made.parse_args(arguments)
    try:
        results = merge.merged([load(path) for path in given.results])
    except ValueError as error:
        raise SystemExit(str(error)) from None
    save(results, given.output / "results.json")
    present(results, given.output, given.report)
    return 0


def main(arguments: list[str]) -> int:
    commands = {"compare": compare_files, "merge": merge_files, "show": show}
    if arguments and arguments[0] in commands:
        return commands[arguments[0]](arguments[1:])
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
