"""Measure gru_c beside every peer that is installed, checked equal first, interleaved.

    python -m bench                       everything, about an hour
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
import importlib.util
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from . import footprint, peers, plan, report, results, shapes, summary
from .machine import ROOT, useful_isas, useful_threads
from .plan import Plan
from .runner import Runner, find_peers


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


SETS = {"all": shapes.ALL, "quick": shapes.QUICK, "smoke": shapes.SMOKE,
        "smallest": shapes.SMALLEST}


def chosen_shapes(names: list[str],
                  sets: Mapping[str, tuple[shapes.Shape, ...]] = SETS) -> tuple[shapes.Shape, ...]:
    """Shapes by the name of a set, by family or word of the label, or as T,N,I,H.

    Before T,N,I,H there may be the name of a variant: "ragged 50,8,80,256" is one argument.
    """
    found: list[shapes.Shape] = []
    for name in names:
        if name in sets:
            found += sets[name]
        elif made := own_shape(name):
            known = [s for s in shapes.ALL if (s.sizes, s.variant) == (made.sizes, made.variant)]
            found += known or [made]
        elif some := [s for s in shapes.ALL if name in (s.family, s.label.split()[0])]:
            found += some
        else:
            labels = sorted({s.label.split()[0] for s in shapes.REALISTIC})
            known = ", ".join([*sets, "peers", "realistic", *labels, *shapes.VARIANTS])
            raise SystemExit(f"unknown shapes {name!r}: give T,N,I,H or one of {known}")
    return tuple(dict.fromkeys(found))


def own_shape(name: str) -> shapes.Shape | None:
    """The shape of "T,N,I,H", with the names of variants before it; None if it is not that."""
    *words, sizes = name.split()
    if not sizes.replace(",", "").isdecimal() or sizes.count(",") != 3:
        return None
    if any(word not in shapes.VARIANTS for word in words):
        return None
    fields = {field: value for word in words for field, value in shapes.VARIANTS[word].items()}
    return shapes.shape(*counts(sizes), "own", **fields)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--quick", action="store_true", help="under two minutes")
    add("--smoke", action="store_true", help="for CI")
    add("--shapes", nargs="+", metavar="SHAPE", help="all, quick, smallest, audio, ... or T,N,I,H")
    add("--peers", type=words(peers.NAMES), help=f"of {','.join(peers.NAMES)}, or none")
    add("--threads", type=counts, help="default 1,2")
    add("--isa", dest="isas", type=words(plan.ISAS), help=f"of {','.join(plan.ISAS)}")
    add("--dtype", dest="dtypes", type=words(plan.DTYPES), help=f"of {','.join(plan.DTYPES)}")
    add("--kinds", type=words(plan.FULL.kinds), help=f"of {','.join(plan.FULL.kinds)}")
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


def options(arguments: list[str]) -> tuple[argparse.Namespace, Plan]:
    """The options, and the plan of the chosen mode with what they change."""
    given = parser().parse_args(arguments)
    mode = plan.SMOKE if given.smoke else plan.QUICK if given.quick else plan.FULL
    if given.shapes is not None:
        given.shapes = chosen_shapes(given.shapes)
    asked = {name: value for name, value in vars(given).items() if value is not None}
    return given, replace(mode, **{name: asked[name] for name in asked.keys() & vars(mode).keys()})


def command(arguments: list[str]) -> list[str]:
    """What was asked for, without the paths of this machine."""
    paths = argparse.ArgumentParser(add_help=False)
    paths.add_argument("--wheel")
    places(paths)
    return paths.parse_known_args(arguments)[1]


def possible(wanted: Plan, found: dict[str, str], made: dict) -> Plan:
    """What of it will be measured here; what cannot be is noted in `made`."""
    isas, why_not = useful_isas(wanted.isas)
    threads, too_many = useful_threads(wanted.threads)
    made["skipped"] += [{"library": "gru_c", "kind": "", "reason": reason}
                        for reason in [*why_not, *too_many]]
    return replace(wanted, peers=tuple(found), isas=isas, threads=threads)


def measure_footprint(given, kinds: tuple[str, ...], made: dict, keep) -> None:
    """Memory, sizes, import times into made["footprint"]; a failure is an error of the run."""
    full, found = not (given.quick or given.smoke), tuple(made["peers"])
    jobs = {
        "memory": lambda: {"memory": footprint.memory(() if given.smoke else found)},
        "size": lambda: footprint.wheel_and_sizes(found, given.wheel, build=full),
        "import": lambda: {"imports": footprint.imports(found, 7 if full else 3)},
    }
    for kind in kinds:
        if kind not in jobs:
            continue
        print(f"measuring {kind}", file=sys.stderr, flush=True)
        try:
            made["footprint"] |= jobs[kind]()
        except peers.Unsupported as refusal:
            made["skipped"].append({"library": "footprint", "kind": kind, "reason": str(refusal)})
        except RuntimeError as error:
            made["errors"].append(failure("footprint", kind, str(error)))
        keep()


def run(arguments: list[str]) -> int:
    given, wanted = options(arguments)
    made = results.empty_results(command(arguments))
    made["peers"], made["missing"] = find_peers(wanted.peers)
    folder = given.output or results.folder_of(made)
    path = folder / ("results.json" if is_full(wanted) else "partial.json")

    def keep() -> None:
        results.save(made, path)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `timeout` is a Ctrl-C too
    try:
        Runner(possible(wanted, made["peers"], made), made, keep).run()
        measure_footprint(given, wanted.kinds, made, keep)
        made["finished"] = results.now()
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept", file=sys.stderr)
        made["errors"].append(failure("the run", "", "interrupted before its end"))
    made["derived"] = summary.derived(made)
    keep()
    present(made, folder, given.report)
    print(f"\nwritten: {path}", file=sys.stderr)
    return 1 if made["errors"] or not made["records"] else 0


def is_full(wanted: Plan) -> bool:
    """Whether everything was asked for, in every configuration."""
    names = ("shapes", "peers", "threads", "isas", "dtypes", "kinds")
    return all(set(getattr(wanted, name)) == set(getattr(plan.FULL, name)) for name in names)


def failure(library: str, kind: str, reason: str) -> dict[str, str]:
    return {"config": "", "library": library, "kind": kind, "shape": "", "reason": reason}


def present(made: dict, folder: Path, page: Path | None) -> None:
    """Tables to stdout, plots into `folder`, the page to `page` with its plots beside it."""
    print(report.text(made))
    drawn = {}
    if importlib.util.find_spec("matplotlib"):
        from . import plots

        folder.mkdir(parents=True, exist_ok=True)
        drawn = plots.plot_all(made, folder)
    else:
        print("no plots: matplotlib is not installed", file=sys.stderr)
    if page is None:
        return
    if page == Path():
        page = ROOT / "docs" / "performance" / f"{made['machine']['processor']}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    images = {}
    for title, path in drawn.items():
        if title.endswith("float32"):  # the page has all tables, its folder not every picture
            images[title] = f"{page.stem}-{path.name}"
            shutil.copyfile(path, page.with_name(images[title]))
    page.write_text(report.document(made, images))


# ---- commands over earlier runs: the JSON files that each takes --------------------------------

COMMANDS = {"show": 1, "compare": 2, "merge": "+"}


def again(name: str, arguments: list[str]) -> None:
    made = argparse.ArgumentParser(prog=f"python -m bench {name}")
    made.add_argument("results", nargs=COMMANDS[name], type=Path, help="JSON of earlier runs")
    if name != "compare":
        places(made)
    given = made.parse_args(arguments)
    runs = [results.load(path) for path in given.results]
    if name == "compare":
        print(report.compared(*results.changes(*runs)))
    elif name == "show":
        present(runs[0], given.output or given.results[0].parent, given.report)
    else:
        whole = results.merged(runs)
        folder = given.output or results.folder_of(whole)
        results.save(whole, folder / "results.json")
        present(whole, folder, given.report)


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        return run(arguments)
    try:
        again(arguments[0], arguments[1:])
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
