"""Fail if the compiled core calls Python where it must not.

Cython's C for each module of `_core` is made afresh, and every C function that stands for a `nogil`
function of the source is searched for calls of the Python API. Performance hints of Cython count as
failures too. `python tools/check_hot_loops.py`, from anywhere.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "src" / "gru_c" / "_core"
MODULES = ("blas", "call", "kernels_baseline", "panels", "recurrence", "threads")
PYTHON_CALL = re.compile(r"\b(_?Py(?!Mem_Raw)[A-Z]\w*|__Pyx_(?!pretend|RefNanny)\w+)\s*\(")
FUNCTION = re.compile(
    r"^static [^;{}]*?(__pyx_(?:fuse_\w*?)?(?:__pyx_)?f_\w+)\([^;{}]*\) \{$", re.M)
NOGIL = re.compile(
    r"^cdef (?:inline )?[\w* ]*?(\w+)\((?:[^()]|\([^()]*\))*\) (?:noexcept )?nogil:", re.M)
DIRECTIVES = ("boundscheck=False", "wraparound=False", "cdivision=True", "initializedcheck=False")


def translate(source: Path, folder: Path) -> tuple[str, str]:
    """The C of a module, and what Cython said."""
    target = folder / f"{source.stem}.c"
    options = [part for directive in DIRECTIVES for part in ("-X", directive)]
    command = [sys.executable, "-m", "cython", "-3", *options, "-I", str(ROOT / "src"),
               str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return target.read_text(), done.stderr


def nogil_names(source: Path) -> set[str]:
    """Names of the nogil functions with a body, in a module and the files it includes."""
    text = source.read_text()
    for included in re.findall(r'^include "(.*)"$', text, re.M):
        path = source.parent / included
        text += path.read_text() if path.exists() else ""
    return set(NOGIL.findall(text))


def bodies(c: str):
    """(name, body) of every function of the C that stands for a cdef function."""
    for match in FUNCTION.finditer(c):
        end = c.index("\n}\n", match.end())
        yield match.group(1), c[match.end():end]


def check(source: Path, folder: Path) -> list[str]:
    c, said = translate(source, folder)
    problems = [line for line in said.splitlines() if "performance hint" in line]
    wanted = nogil_names(source)
    seen = set()
    for name, body in bodies(c):
        plain = max((w for w in wanted if name.endswith(f"_{w}")), key=len, default=None)
        if plain is None:
            continue
        seen.add(plain)
        code = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
        calls = sorted(set(PYTHON_CALL.findall(code)))
        problems += [f"{source.name}: {plain} calls {call}" for call in calls]
    problems += [f"{source.name}: no C found for {name}" for name in sorted(wanted - seen)]
    print(f"{source.name}: {len(seen)} functions without the GIL, {len(problems)} problems")
    return problems


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        sources = [CORE / f"{name}.pyx" for name in MODULES if (CORE / f"{name}.pyx").exists()]
        problems = [problem for source in sources for problem in check(source, Path(folder))]
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
