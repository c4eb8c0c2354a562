"""What a library costs besides time: memory of a training step, bytes on disk, time to import.

Memory. A fresh process each: it imports the library, runs one small training call of the same I
and H, builds the model of the real size and hands over its data. From that state on, the growth of
the resident set is what training needs: activations, gradients, workspace, results. The highest
mark of the resident set is set back beforehand (/proc/self/clear_refs, on Linux alone), so that
what the import used for a moment does not count. Three steps are run, as in a loop that keeps the
results of the last one while it makes the next: their peak is the figure ("three steps"); the
growth of the first step alone is given beside it. oneDNN allocates its workspace when it is built
but does not touch it before the first step, so it counts.

Disk. The files of the installed distribution, without what it depends on; gru_c's come from a
wheel, since an editable install has none of its own. It is built from a copy of the checkout.

Import. `import NAME` in fresh processes, the best of several, without the interpreter's start.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

from . import machine, ours, peers
from .shapes import shape
from .summary import OURS

SIZES = (64, 64, 128, 256)
MODULES = ("torch", "onnxruntime", "openvino", "tensorflow", "jax")  # what a user imports
CLEAR_REFS = Path("/proc/self/clear_refs")

# ---- memory ------------------------------------------------------------------------------------


def _status(key: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measure_memory(name: str) -> dict[str, Any]:
    """Growth of the resident set of this process by training steps of one library, in bytes."""
    cls = ours.Peer if name == OURS else peers.load(name)
    warm = cls(peers.random_problem(shape(2, 2, *SIZES[2:])), training=True)
    warm.run()
    warm.close()
    peer = cls(peers.random_problem(shape(*SIZES)), training=True)
    CLEAR_REFS.write_text("5")  # the highest mark is what is resident now
    before = _status("VmRSS")
    peer.run()
    first = _status("VmHWM") - before
    peer.run()
    peer.run()
    return {"peak": _status("VmHWM") - before, "first": first, "at_rest": before}


def memory(found: tuple[str, ...]) -> dict[str, Any]:
    """`measure_memory` of gru_c and of the peers that train, a process each, one thread."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError as error:
        raise peers.Unsupported(f"it takes a mark that can be set back: {error}") from error
    measured = {}
    for name in (OURS, *(name for name in found if peers.load(name).can_train)):
        printed = _output([sys.executable, "-m", "bench.footprint", name])
        measured[name] = json.loads(printed.splitlines()[-1])
    return measured


def _output(command: list[str]) -> str:
    env = machine.worker_environment(1, "native")
    done = subprocess.run(command, cwd=machine.ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        tail = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise RuntimeError(f"{' '.join(command[1:4])} ended with {done.returncode}: {tail}")
    return done.stdout


# ---- bytes on disk -----------------------------------------------------------------------------


def installed_size(distribution: str) -> int | None:
    """Bytes of all files that a distribution has installed, None if it is not there."""
    try:
        files = metadata.files(distribution) or ()
    except metadata.PackageNotFoundError:
        return None
    paths = {Path(entry.locate()).resolve() for entry in files}
    return sum(path.stat().st_size for path in paths if path.is_file())


def sizes(found: tuple[str, ...], wheel: Path | None) -> dict[str, int | None]:
    """{distribution: bytes} of gru_c, what it needs, and the peers; None if it cannot be told."""
    known = None if _is_editable() else installed_size("gru-c")
    measured = {"gru_c": unpacked_size(wheel) if wheel else known}
    for choice in [("numpy",), ("scipy",), *(peers.load(name).distributions for name in found)]:
        present = [(name, size) for name in choice if (size := installed_size(name))]
        measured |= dict(present[:1])
    return measured


def _is_editable() -> bool:
    try:
        text = metadata.distribution("gru-c").read_text("direct_url.json") or "{}"
    except metadata.PackageNotFoundError:
        return True
    return bool(json.loads(text).get("dir_info", {}).get("editable"))


def unpacked_size(wheel: Path) -> int:
    with zipfile.ZipFile(wheel) as archive:
        return sum(entry.file_size for entry in archive.infolist())


SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "src")


def build_wheel(folder: Path) -> Path:
    """A wheel of the checkout, from a copy of it: nothing in the checkout is built or changed."""
    copy = folder / "source"
    copy.mkdir()
    made = shutil.ignore_patterns("*.so", "*.pyd", "*.c", "*.egg-info", "__pycache__", "*.html")
    for name in SOURCES:
        source = machine.ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=made)
        elif source.exists():
            shutil.copy(source, copy / name)
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q"]
    _output([sys.executable, "-m", "pip", "wheel", str(copy), *options, "-w", str(folder)])
    return next(folder.glob("*.whl"))


def wheel_and_sizes(found: tuple[str, ...], wheel: Path | None, build: bool) -> dict[str, Any]:
    """`wheel` given, or built if `build`; a wheel that cannot be had is said, not an error."""
    said: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None and build:
            try:
                wheel = build_wheel(Path(folder))
            except (OSError, RuntimeError, StopIteration) as error:
                said = {"wheel": {"reason": f"not built: {error}"[:300]}}
        if wheel is not None:
            said = {"wheel": {"bytes": wheel.stat().st_size}}
        return {"sizes": sizes(found, wheel)} | said


# ---- import ------------------------------------------------------------------------------------

TIMED_IMPORT = """
import sys, time
{before}
start = time.perf_counter()
import {name}
print(time.perf_counter() - start)
"""


def import_time(name: str, before: str = "", repeats: int = 7) -> float:
    """Least seconds of `import name` over fresh processes."""
    command = [sys.executable, "-c", TIMED_IMPORT.format(name=name, before=before)]
    return min(float(_output(command).splitlines()[-1]) for _ in range(repeats))


def imports(found: tuple[str, ...], repeats: int = 7) -> dict[str, float]:
    """{what: seconds}; slow ones are repeated less often."""
    measured = {
        "gru_c": import_time(OURS, repeats=repeats),
        "gru_c over scipy.linalg": import_time(OURS, "import scipy.linalg", repeats),
        "numpy": import_time("numpy", repeats=repeats),
        "scipy.linalg": import_time("scipy.linalg", repeats=repeats),
    }
    several = max(2, repeats // 2)  # the first compiles and reads files
    measured |= {name: import_time(name, repeats=several) for name in MODULES if name in found}
    return measured


if __name__ == "__main__":
    print(json.dumps(measure_memory(sys.argv[1])))
