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
MODULES = ("core", "kernels_baseline", "gemm/blas", "binding")         # testing.pyx is for tests
TAKES_THE_GIL = {"poll_signals"}           # to run the handlers of signals
PYTHON_CALL = re.compile(r"\b(_?Py(?!Mem_Raw|Thread_get)[A-Z]\w*|"
                         r"__Pyx_(?!pretend|RefNanny)\w+)\s*\(")
FUNCTION = re.compile(r"^(?:static |__PYX_EXTERN_C |\w)[^;{}()]*?\b(\w+)\([^;{}]*\) \{$", re.M)
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


def source_text(source: Path) -> str:
    """A module and the files that it includes."""
    text = source.read_text()
    for included in re.findall(r'^include "(.*)"$', text, re.M):
        path = source.parent / included
        if path.name != "blas_int.pxi":                    # generated, one line
            text += path.read_text()
    return text


def plain_name(name: str) -> str:
    """gemm for __pyx_f_5gru_c_5_core_4core_gemm, with a __pyx_fuse_0 or
    __pyx_fuse_0_1 before it or not."""
    name, found = re.subn(r"^(?:__pyx_fuse(?:_\d+)+)*__pyx_f_", "", name)
    while found and (length := re.match(r"\d+", name)):
        name = name[length.end() + int(length[0]) + 1:]
    return name


def bodies(c: str):
    """(name in the source, body) of every function of the C."""
    for match in FUNCTION.finditer(c):
        end = c.index("\n}\n", match.end())
        yield plain_name(match.group(1)), c[match.end():end]


def check(source: Path, folder: Path) -> list[str]:
    c, said = translate(source, folder)
    problems = [line for line in said.splitlines() if "performance hint" in line]
    wanted = set(NOGIL.findall(source_text(source))) - TAKES_THE_GIL
    inlined = {name for path in CORE.rglob("*.pxd") for name in NOGIL.findall(path.read_text())}
    seen = set()
    for name, body in bodies(c):
        if name not in wanted | inlined:
            continue
        seen.add(name)
        code = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
        calls = sorted(set(PYTHON_CALL.findall(code)))
        problems += [f"{source.name}: {name} calls {call}" for call in calls]
    problems += [f"{source.name}: no C found for {name}" for name in sorted(wanted - seen)]
    if not seen:
        problems.append(f"{source.name}: no function without the GIL")
    print(f"{source.name}: {len(seen)} functions without the GIL, {len(problems)} problems")
    return problems


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        problems = [problem for name in MODULES
                    for problem in check(CORE / f"{name}.pyx", Path(folder))]
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
