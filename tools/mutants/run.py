"""Whether the tests notice: break the code in one place, run the tests named for it, one by one.

    python tools/mutants/run.py                 # all of breaks.py, some ten minutes
    python tools/mutants/run.py NAME ...        # some
    python tools/mutants/run.py --quick         # those in Python, which need no compiler
    python tools/mutants/run.py --half 0        # every second one, from the first (1: the second)
    python tools/mutants/run.py --tested        # the tests have just passed without a break
    python tools/mutants/run.py --list

Each break is made in a copy of the checkout, where only the extension modules that it changes are
built again. It is caught where a test fails, crashes or never ends, and missed where all pass. A
break whose old text does not stand in its file exactly once, or that does not compile, is an error:
the list has to follow the code. First the tests run without a break: a test that always fails
would catch everything. Exit status: 0 if all were caught.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from breaks import BREAKS

ROOT = Path(__file__).resolve().parents[2]
CORE = Path("src/gru_c/_core")
SECONDS = 300                              # for the tests of one break; a deadlock is caught, too
SECONDS_OF_ALL = 1200                      # for the tests of all of them, without a break
LEFT_OUT = shutil.ignore_patterns(".git", "__pycache__", ".*_cache", ".hypothesis", "results")


class Outdated(Exception):
    """The list of breaks no longer fits the code."""


def environment(folder):
    path = os.pathsep.join(filter(None, [str(folder / "src"), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def build(folder):
    done = subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise Outdated(f"does not compile:\n{(done.stdout + done.stderr)[-2000:]}")


def is_compiled(file):
    return CORE in Path(file).parents and Path(file).suffix != ".py"


def changed_modules(folder, file):
    """Name patterns of the extension modules that a file of the core goes into."""
    path = (folder / file).relative_to(folder / CORE)
    if path.suffix == ".pyx":
        return [path.stem]
    if path.suffix == ".pxi":
        return [source.stem for source in (folder / CORE).rglob("*.pyx")
                if f'include "{path.as_posix()}"' in source.read_text(encoding="utf-8")]
    if path.name in ("kernels.h", "math.h", "activations.h", "vector.h",
                     "microkernel.h"):
        return ["kernels_*"]
    return ["*"]


def rebuild(folder, file):
    """Build what the file goes into. setup.py lets every module depend on every header: what the
    others were built from is made to look older than they are."""
    patterns = changed_modules(folder, file)
    for pattern in patterns:
        for built in (folder / "build").rglob(f"{pattern}.*.so"):
            built.unlink()
    now = time.time()
    os.utime(folder / file, (now, now))
    stay = [path for suffix in ("c", "so") for path in folder.rglob(f"*.{suffix}")
            if not any(path.match(f"{pattern}.*") for pattern in patterns)]
    for path in stay:
        os.utime(path, (now + 1, now + 1))
    build(folder)


def broken_text(folder, change):
    """The text of the file with the break in it."""
    path = folder / change.file
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = text.count(change.old)
    if found != 1:
        raise Outdated(f"{change.file} has the old text {found} times, not once: {change.old!r}")
    return text.replace(change.old, change.new)


def mutate(folder, change):
    """Make the break; the tests that are to notice it are the caller's business."""
    (folder / change.file).write_text(broken_text(folder, change), encoding="utf-8")
    if is_compiled(change.file):
        rebuild(folder, change.file)


def run_tests(folder, files, seconds=SECONDS):
    """None where all pass, else what failed."""
    missing = [file for file in files if not (folder / file).exists()]
    if missing:
        raise Outdated(f"no such tests: {', '.join(missing)}")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
    try:
        done = subprocess.run(command, cwd=folder, env=environment(folder), timeout=seconds,
                              capture_output=True, text=True, check=False)
    except subprocess.TimeoutExpired:
        return f"no end after {seconds} s"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode != 1 or not lines:
        raise Outdated(f"pytest did not come to run the tests:\n{done.stdout[-2000:]}{done.stderr}")
    return lines[0].split(" - ")[0]


def try_break(pristine, work, change):
    """(caught, what to print) of one break."""
    folder = work / change.name
    shutil.copytree(pristine, folder)
    try:
        mutate(folder, change)
        failure = run_tests(folder, change.tests)
        return failure is not None, failure or "MISSED"
    except Outdated as error:
        return False, f"OUT OF DATE: {error}"
    finally:
        shutil.rmtree(folder)


def chosen(names, quick, half):
    known = {change.name: change for change in BREAKS}
    if len(known) != len(BREAKS):
        raise SystemExit("two breaks have one name")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"no such break: {', '.join(unknown)}")
    found = [known[name] for name in names] if names else BREAKS
    found = [change for change in found if not (quick and is_compiled(change.file))]
    return found if half is None else found[half::2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="only breaks of Python code")
    parser.add_argument("--half", type=int, choices=[0, 1], help="only every second break")
    parser.add_argument("--tested", action="store_true",
                        help="do not run the tests without a break first: they have just passed")
    parser.add_argument("--list", action="store_true", help="print the breaks, run nothing")
    args = parser.parse_args()
    changes = chosen(args.names, args.quick, args.half)
    if args.list:
        for change in changes:
            print(f"{change.name:<28}{change.file:<34}{change.old.strip()!r} -> {change.new!r}")
        return 0
    for change in BREAKS:                                  # also those that are not tried now
        broken_text(ROOT, change)
    with tempfile.TemporaryDirectory(prefix="mutants-") as work:
        work = Path(work)
        pristine = work / "pristine"
        shutil.copytree(ROOT, pristine, ignore=LEFT_OUT)
        build(pristine)
        files = sorted({file for change in changes for file in change.tests})
        failure = None if args.tested else run_tests(pristine, files, SECONDS_OF_ALL)
        if failure:
            print(f"without a break: {failure}")
            return 1
        caught = 0
        for change in changes:
            start = time.perf_counter()
            found, text = try_break(pristine, work, change)
            caught += found
            print(f"{change.name:<28}{text}  ({time.perf_counter() - start:.0f} s)", flush=True)
    print(f"{caught} of {len(changes)} caught")
    return 0 if caught == len(changes) else 1


if __name__ == "__main__":
    sys.exit(main())
