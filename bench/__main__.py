"""Measure gru_c beside every peer that is installed, checked equal first, interleaved.

    python -m bench                       everything, about 45 minutes
    python -m bench --quick               under two minutes: few shapes, native, no TensorFlow
    python -m bench --smoke               for CI: fails on a crash, a wrong result, never a time
    python -m bench --report [FILE.md]    and write the page, its plots beside it
    python -m bench show RESULTS.json     tables, plots and report of an earlier run
    python -m bench compare OLD NEW       two runs (JSON files), case by case
    python -m bench merge A B             runs of the same code as one: the best of each library

Results go to bench/results/<processor>/: results.json of a full run, partial.json of any other,
after each shape, so that Ctrl-C leaves what was measured. The page is by default
docs/performance/<processor>.md. Runs of different processors are neither merged nor compared.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import footprint, peers, plan, report, results, shapes, summary
from .machine import ROOT, useful_isas, useful_threads
from .plan import DTYPES, ISAS, KINDS, Plan
from .runner import Runner, find_peers

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
    places(made)
    return made


def places(made: argparse.ArgumentParser) -> None:
    """The options that say where to write."""
    made.add_argument("--output", type=Path, metavar="DIR", help="default: by processor")
    made.add_argument("--report", type=Path, metavar="FILE.md", nargs="?", const=Path(),
                      help="write the page as well (default: docs/performance/<processor>.md)")


def options(arguments: list[str]) -> argparse.Namespace:
    """The options, with what was not given filled in from the chosen mode."""
    given = parser().parse_args(arguments)
    mode = SMOKE if given.smoke else QUICK if given.quick else FULL
    for name, value in mode.items():
        if getattr(given, name, None) is None:
            setattr(given, name, value)
    return given


def make_plan(given: argparse.Namespace, found: dict[str, str], made: dict) -> Plan:
    """What will be measured here; what cannot be is noted in `made`."""
    isas, why_not = useful_isas(given.isa)
    threads, too_many = useful_threads(given.threads)
    made["skipped"] += [{"library": "gru_c", "kind": "", "reason": reason}
                        for reason in [*why_not, *too_many]]
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
        float64_threads=threads[-1:] if given.smoke else threads,
        float64_sizes=plan.FLOAT64_SIZES if full else None,
    )


def measure_footprint(given, found: tuple[str, ...], made: dict, keep) -> None:
    """Memory, sizes, import times into made["footprint"]; a failure is an error of the run."""
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
            made["footprint"] |= job()
        except peers.Unsupported as refusal:
            made["skipped"].append({"library": "footprint", "kind": kind, "reason": str(refusal)})
        except RuntimeError as error:
            made["errors"].append(failure("footprint", kind, str(error)))
        keep(made)


def command(arguments: list[str]) -> list[str]:
    """What was asked for, without the paths of this machine."""
    paths = ("--output", "--report", "--wheel")
    return [
        word
        for before, word in zip(["", *arguments], arguments, strict=False)
        if (not word.startswith(paths) if word.startswith("--") else before not in paths)
    ]


def run(arguments: list[str]) -> int:
    given = options(arguments)
    made = results.empty_results(command(arguments))
    found, missing = find_peers(given.peers)
    missing |= {name: "not asked for" for name in peers.NAMES if name not in given.peers}
    made["peers"], made["missing"] = found, missing
    folder = given.output or results.folder_of(made)
    path = folder / ("results.json" if is_full(given) else "partial.json")

    def keep(made: dict) -> None:
        results.save(made, path)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `timeout` is a Ctrl-C too
    try:
        Runner(make_plan(given, found, made), made, keep).run()
        measure_footprint(given, tuple(found), made, keep)
        made["finished"] = results.now()
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept", file=sys.stderr)
        made["errors"].append(failure("the run", "", "interrupted before its end"))
    made["derived"] = summary.derived(made)
    keep(made)
    present(made, folder, given.report)
    print(f"\nwritten: {path}", file=sys.stderr)
    return 1 if made["errors"] or not made["records"] else 0


def is_full(given: argparse.Namespace) -> bool:
    """Whether everything was asked for, in every configuration."""
    names = ("shapes", "peers", "isa", "dtype", "kinds")
    return given.threads == plan.THREADS and all(
        set(getattr(given, name)) == set(FULL[name]) for name in names)


def failure(library: str, kind: str, reason: str) -> dict[str, str]:
    return {"config": "", "library": library, "kind": kind, "shape": "", "reason": reason}


def present(made: dict, folder: Path, page: Path | None) -> None:
    """Tables to stdout, plots into `folder`, the page to `page` with its plots beside it."""
    print(report.text(made))
    drawn = draw(made, folder)
    if page is None:
        return
    if page == Path():
        page = ROOT / "docs" / "performance" / f"{made['machine']['processor']}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    images = {}
    for title, path in drawn.items():
        if "float32" not in title:
            continue  # the page has the tables; its folder need not have every picture
        copy = page.with_name(f"{page.stem}-{path.name}")
        shutil.copyfile(path, copy)
        images[title] = copy.name
    page.write_text(report.document(made, images))


def draw(made: dict, folder: Path) -> dict[str, Path]:
    """{title: file} of the plots; nothing without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print("no plots: matplotlib is not installed", file=sys.stderr)
        return {}
    from . import plots

    folder.mkdir(parents=True, exist_ok=True)
    return plots.plot_all(made, folder)


def show(arguments: list[str]) -> int:
    made = argparse.ArgumentParser(prog="python -m bench show")
    made.add_argument("results", type=Path, help="JSON of an earlier run")
    places(made)
    given = made.parse_args(arguments)
    present(results.load(given.results), given.output or given.results.parent, given.report)
    return 0


def compare(arguments: list[str]) -> int:
    made = argparse.ArgumentParser(prog="python -m bench compare")
    made.add_argument("old")
    made.add_argument("new")
    given = made.parse_args(arguments)
    found = results.changes(results.load(given.old), results.load(given.new))
    print(report.compared(*found))
    return 0


def merge(arguments: list[str]) -> int:
    made = argparse.ArgumentParser(prog="python -m bench merge")
    made.add_argument("results", nargs="+", help="JSON of earlier runs, the largest first")
    places(made)
    given = made.parse_args(arguments)
    whole = results.merged([results.load(path) for path in given.results])
    folder = given.output or results.folder_of(whole)
    results.save(whole, folder / "results.json")
    present(whole, folder, given.report)
    return 0


def main(arguments: list[str]) -> int:
    commands = {"compare": compare, "merge": merge, "show": show}
    if not arguments or arguments[0] not in commands:
        return run(arguments)
    try:
        return commands[arguments[0]](arguments[1:])
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
