"""What a library costs besides time: memory of a training step, bytes on disk, time to import.

Memory. A fresh process each: it imports the library, runs one small training call of the same I
and H, builds the model of the real size and hands over its data. From that state on, the growth of
the resident set is what training needs: activations, gradients, workspace, results. The highest
mark of the resident set is set back beforehand (/proc/self/clear_refs, Linux), so that what the
import used for a moment does not count; without that file the process's ru_maxrss stands in. Three
steps are run, as in a loop that keeps the results of the last one while it makes the next: their
peak is the figure ("three steps"); the growth of the first step alone is given beside it. oneDNN
allocates its workspace when it is built but does not touch it before the first step, so it counts.

Disk. The files of the installed distribution, without what it depends on; gru_c's come from a
wheel, since an editable install has none of its own. It is built from a copy of the checkout.

Import. `import NAME` in fresh processes, the best of several, without the interpreter's start.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

from . import machine

OURS = "gru_c"
SIZES = (64, 64, 128, 256)
TRAINS = ("torch", "tensorflow", "tensorflow_xla", "onednn")
MODULES = {  # what a user imports
    "torch": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorflow": "tensorflow",
}
DISTRIBUTIONS = {
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "onednn": ("onednn-cpu-gomp",),
}

# ---- memory ------------------------------------------------------------------------------------


def _status(key: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {key}")


def _resident() -> int:
    """Resident bytes now; where the system does not say, the most there ever were."""
    try:
        return _status("VmRSS")
    except OSError:
        return _most_ever()


def _most_ever() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _mark() -> bool:
    """Sets the highest mark back to what is resident now; False where that cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def measure_memory(name: str, sizes: tuple[int, ...], threads: int) -> dict[str, Any]:
    """Growth of the resident set of this process by training steps of one library, in bytes."""
    from . import ours, peers
    from .shapes import shape

    cls = ours.Peer if name == OURS else peers.load(name).Peer
    small, real = shape(2, 2, *sizes[2:]), shape(*sizes)
    weights, *data = peers.random_problem(small)
    warm = cls(weights, small, threads=threads, training=True)
    warm.set_input(*data)
    warm.train()
    warm.close()
    weights, *data = peers.random_problem(real)
    peer = cls(weights, real, threads=threads, training=True)
    peer.set_input(*data)
    exact = _mark()
    peak = (lambda: _status("VmHWM")) if exact else _most_ever
    before = _resident() if exact else _most_ever()
    peer.train()
    first = peak() - before
    peer.train()
    peer.train()
    return {"peak": peak() - before, "first": first, "exact": exact, "at_rest": before}


def memory(peers: tuple[str, ...], sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """`measure_memory` of gru_c and of the peers that train, a process each, one thread."""
    found = {}
    for name in (OURS, *(peer for peer in TRAINS if peer in peers)):
        command = [sys.executable, "-m", "bench.footprint", name, *map(str, sizes)]
        found[name] = json.loads(_output(command).splitlines()[-1])
    return found


def _output(command: list[str], **options) -> str:
    env = machine.worker_environment(1, "native")
    done = subprocess.run(
        command, cwd=machine.ROOT, env=env, capture_output=True, text=True, **options
    )
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


def sizes(peers: tuple[str, ...], wheel: Path | None) -> dict[str, int | None]:
    """{distribution: bytes} of gru_c, what it needs, and the peers; None if it cannot be told."""
    known = None if _is_editable() else installed_size("gru-c")
    found = {"gru_c": unpacked_size(wheel) if wheel else known}
    needed = [(name,) for name in ("numpy", "scipy")]
    for choice in needed + [DISTRIBUTIONS[name] for name in peers if name in DISTRIBUTIONS]:
        present = [(name, size) for name in choice if (size := installed_size(name))]
        found |= dict(present[:1])
    return found


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


def wheel_and_sizes(peers: tuple[str, ...], wheel: Path | None, build: bool) -> dict[str, Any]:
    """`wheel` given, or built if `build`; a wheel that cannot be had is said, not an error."""
    with tempfile.TemporaryDirectory() as folder:
        said: dict[str, Any] = {}
        if wheel is None and build:
            try:
                wheel = build_wheel(Path(folder))
            except (OSError, RuntimeError, StopIteration) as error:
                said = {"reason": f"not built: {error}"[:300]}
        if wheel is not None:
            said = {"bytes": wheel.stat().st_size}
        found = {"sizes": sizes(peers, wheel)}
        return found | ({"wheel": said} if said else {})


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
    program = TIMED_IMPORT.format(name=name, before=before)
    command = [sys.executable, "-c", program]
    return min(float(_output(command).splitlines()[-1]) for _ in range(repeats))


def imports(peers: tuple[str, ...], repeats: int = 7) -> dict[str, float]:
    """{what: seconds}; slow ones are repeated less often."""
    found = {
        "gru_c": import_time(OURS, repeats=repeats),
        "gru_c over scipy.linalg": import_time(OURS, "import scipy.linalg", repeats),
        "numpy": import_time("numpy", repeats=repeats),
        "scipy.linalg": import_time("scipy.linalg", repeats=repeats),
    }
    for peer, module in MODULES.items():
        if peer in peers:
            first = import_time(module, repeats=1)  # compiles and reads files: not kept if slow
            more = max(1, repeats // (2 if first < 1 else 3))
            found[module] = import_time(module, repeats=more)
    return found


if __name__ == "__main__":
    library, *numbers = sys.argv[1:]
    print(json.dumps(measure_memory(library, tuple(map(int, numbers)), threads=1)))
