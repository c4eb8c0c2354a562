"""Programs built against this version run with a later one, and the reverse is refused clearly.

    python tools/check_abi.py                       about two minutes

The gru_c that Python imports here is the old version; it must be built from this checkout. The new
one is built from a copy with one more member at the end of gru_options, one more function at the
end of the table, and the members of the structs behind gru_model and gru_stream in another order.
The clients in tools/abi/ are built against the headers of each and run with both.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import gru_c

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = ROOT / "tools" / "abi"
RUN = CLIENTS / "run_client.py"
BOTH = ("cython_client", "capsule_client")
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
BAD_OPTIONS_SIZE = f"status {gru_c.ctypes_api().GRU_BAD_OPTIONS_SIZE}"

# Structs, by the file that declares them under src/gru_c/; none is made by its members' order.
REORDERED = {"_core/surface/types.pxd": ("Model", "Stream", "Request"),
             "_core/rnn/call.pxd": ("PackedLayer", "Call")}


def replace_once(path: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, path.read_text(), flags=re.S)
    if count != 1:
        sys.exit(f"{path}: {pattern!r} stands there {count} times: mend tools/check_abi.py")
    path.write_text(text)


def reorder(path: Path, struct: str) -> None:
    """The members from the last to the first, but the tag, by which versions know each other."""
    def reordered(match: re.Match[str]) -> str:
        members = [line for line in match[2].splitlines() if not line.strip().startswith("#")]
        tags = [line for line in members if " tag" in line]
        others = [line for line in reversed(members) if line not in tags]
        return "\n".join([match[1], *tags, *others]) + "\n"

    text, count = re.subn(rf"(cdef struct {struct}:)\n((?:    .*\n)+)", reordered, path.read_text())
    if count != 1:
        sys.exit(f"{path}: there is no struct {struct}: mend tools/check_abi.py")
    path.write_text(text)


def make_new_version(folder: Path) -> Path:
    """Build the changed copy; the folder to import it from."""
    built = shutil.ignore_patterns("*.so", "*.c", "*.html", "__pycache__", "core.h", "kernels_*.h")
    shutil.copytree(ROOT / "src", folder / "src", ignore=built)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    package = folder / "src" / "gru_c"
    replace_once(package / "include/gru_c.h", r"\} gru_options;", "    int added;\n} gru_options;")
    replace_once(package / "include/gru_c.h", r"(#define GRU_FUNCTIONS_OF_BOTH.*?)\n\n",
                 r"\1 \\\n    F(gru_added, (int n))\n\n")
    replace_once(package / "cython_gru.pxd", r"(ctypedef struct gru_options:.*?)\n\n",
                 r"\1\n        int added\n\n")
    with open(package / "cython_gru.pxd", "a") as file:
        file.write("\ncdef int gru_added(int n) noexcept nogil\n")
    with open(package / "_core/surface/functions.pxi", "a") as file:
        file.write("\n\ncdef int gru_added(int n) noexcept nogil:\n    return n + 1\n")
    replace_once(package / "_config.py", r'__version__: str = ".*?"', '__version__: str = "99.0"')
    for name, structs in REORDERED.items():
        for struct in structs:
            reorder(package / name, struct)
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder,
                   check=True, stdout=subprocess.DEVNULL)
    return folder / "src"


def build_clients(library: Path, target: Path, names: tuple[str, ...]) -> Path:
    """Against the headers of a library; the folder to import them from."""
    target.mkdir()
    compiler = os.environ.get("CC") or "cc"
    for name in names:
        source = CLIENTS / f"{name}.c"
        if not source.exists():
            source = target / f"{name}.c"
            subprocess.run([sys.executable, "-m", "cython", "-3", "-I", library,
                            CLIENTS / f"{name}.pyx", "-o", source], check=True)
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", f"-I{library / 'gru_c' / 'include'}",
                        f"-I{sysconfig.get_path('include')}", source, "-o",
                        target / f"{name}{SUFFIX}"], check=True)
    return target


def python(library: Path, clients: Path, *arguments: str | Path) -> tuple[str, str]:
    """What a program with this library and these clients prints on each of the two streams."""
    env = {"PYTHONPATH": f"{library}{os.pathsep}{clients}",
           "MALLOC_PERTURB_": "85"}  # glibc overwrites freed memory: who still reads it, fails
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False,
                          env=os.environ | env)
    return done.stdout.strip(), done.stderr.strip()


class Checks:
    """What was found; a check that fails prints what the program said."""

    def __init__(self) -> None:
        self.failed = False

    def add(self, what: str, right: bool, said: tuple[str, str]) -> None:
        print(f"{'ok   ' if right else 'WRONG'} {what}", flush=True)
        if not right:
            self.failed = True
            print(*said, sep="\n")


def check_results(checks: Checks, pairs: dict[str, tuple[Path, Path]]) -> None:
    """Each pair of a library and clients has the same results."""
    digests: list[str] = []
    for what, (library, clients) in pairs.items():
        for name in BOTH:
            said = python(library, clients, RUN, name)
            digests.append(said[0])
            checks.add(f"{name} {what}", said == (digests[0], "") != ("", ""), said)


def check_added(checks: Checks, old: Path, new: Path, clients: Path) -> None:
    """What was built against the newer headers finds out what the older library lacks."""
    said = python(new, clients, "-c", "import needs_added; print(needs_added.added(1))")
    checks.add("the added function is there", said == ("2", ""), said)
    said = python(old, clients, "-c", "import needs_added")
    checks.add("without it, Cython names it", "ImportError" in said[1] and "gru_c.cython_gru does "
               "not export expected C function gru_added" in said[1], said)
    said = python(old, clients, RUN, "capsule_client")
    checks.add("an old table is refused by the header", "ImportError" in said[1]
               and f"gru_c {gru_c.__version__} has version" in said[1]
               and "install a newer gru_c" in said[1], said)
    said = python(old, clients, RUN, "cython_client")
    checks.add("longer options are refused by the function", said == ("", BAD_OPTIONS_SIZE), said)


def main() -> int:
    old, checks = Path(gru_c.__file__).parents[1], Checks()
    for name in ("include/gru_c.h", "cython_gru.pxd"):
        if (old / "gru_c" / name).read_text() != (ROOT / "src" / "gru_c" / name).read_text():
            sys.exit(f"{old / 'gru_c'} is not built from {ROOT}: {name} is another")
    with tempfile.TemporaryDirectory() as work:
        new = make_new_version(Path(work) / "new")
        clients = build_clients(old, Path(work) / "clients", BOTH)
        newer = build_clients(new, Path(work) / "newer_clients", (*BOTH, "needs_added"))
        check_results(checks, {
            "runs": (old, clients), "runs with the newer library": (new, clients),
            "of the newer version runs": (new, newer)})
        check_added(checks, old, new, newer)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
