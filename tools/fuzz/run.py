"""Fuzz the readers of model files.

    python tools/fuzz/run.py TARGET... [--runs N]

with targets of `targets.py`, or ``all``. atheris guides the mutations by the coverage of
`gru_c.interop`; with ``--plain`` they are random, and atheris is not needed. Each reader runs in a
process of its own, which starts again after a crash or a hang. An input is fine if

- the file is read, or refused with a `ModelFileError` of one line that begins with its path;
- it takes less than a second of CPU time;
- the arrays that it declares are at most `MAX_BYTES`, and the memory that reading takes is at most
  four times them, plus `BASE`, and for the objects of pickles as much as they are promised.
  tracemalloc, which sees NumPy's memory too, is slow: it counts for
  one input of `TRACED`, and once more for each that makes the process grow by `GROWTH`. The address
  space may grow by `SPACE`;
- nothing is run or imported, and nothing but the file, and files beside it, is opened.

What is not fine is written to ``--out``, with the corpus, and the exit status is then 1; not so for
a crash or a hang of a library that reads the file, which is only printed.
"""

from __future__ import annotations

import argparse
import codecs
import faulthandler
import importlib
import json
import mmap
import os
import pkgutil
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import mutations
from targets import TARGETS, Target

MAX_BYTES = 2**18                                          # the reader's max_bytes
BASE = 2**20                                               # beside four times the arrays
TRACED = 16                                                # every so many inputs with tracemalloc
GROWTH = 2**19                                             # bytes: with tracemalloc, again
SPACE = 2**28
RELIMITED = 10_000                                         # every so many inputs
SECONDS = 1.0                                              # of CPU time, for one input
# Seconds of CPU time until a process is ended: with tracemalloc, a parser of ours takes its time.
HANG, HANG_OF_LIBRARY = 20, 3

# Events of sys.addaudithook that reading has no use for, once a first file is read.
FORBIDDEN = re.compile(r"open|exec|import|compile|pickle\..*|subprocess\..*|socket\..*|ctypes\..*|"
                       r"shutil\..*|tempfile\..*|os\..*|urllib\..*|marshal\..*|cpython\.run.*")

# What is imported when it is needed.
LATE_ENCODINGS = ("unicode-escape", "utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le", "ascii")
LATE_PACKAGES = ("safetensors.numpy", "h5py", "onnx")


class Problem(Exception):
    """An input is not fine."""


class Harness:
    """Runs a reader on inputs and checks what it does."""

    def __init__(self, target: Target, folder: Path) -> None:
        import gru_c.interop
        from gru_c import GRU
        from gru_c.interop.errors import ModelFileError
        from gru_c.interop.found import build

        self.gru, self.build, self.error = GRU, build, ModelFileError
        self.reader, self.wrap, self.beside = target.reader(), target.wrap, target.beside
        self.path = folder / f"input{target.suffix}"
        tempfile.tempdir = str(folder)
        self.events: list[str] = []
        self.watched = False
        self.count = 0
        for module in pkgutil.walk_packages(gru_c.interop.__path__, "gru_c.interop."):
            importlib.import_module(module.name)
        for encoding in LATE_ENCODINGS:
            codecs.lookup(encoding)
        for package in LATE_PACKAGES:
            with suppress(ImportError):
                importlib.import_module(package)
        sys.addaudithook(self.audit)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watched or not FORBIDDEN.fullmatch(event):
            return
        if event.startswith("tempfile.") or (event in ("open", "os.remove") and str(
                arguments[0]).startswith(str(self.path.parent))):
            return
        self.events.append(f"{event} {arguments!r:.200}")

    def run(self, data: bytes) -> None:
        """Read a file that holds the data; raises Problem, or what left the reader."""
        self.path.write_bytes(self.wrap(data))
        self.count += 1
        if self.count % RELIMITED == 0:                    # libFuzzer grows by and by
            limit_space()
        traced = self.count % TRACED == 0
        peak = peak_memory()
        declared, found = self.measured(data) if traced else self.checked()
        if not traced and peak_memory() - peak > GROWTH:
            self.measured(data)
            reset_peak_memory()
        if declared is not None and declared > MAX_BYTES:
            raise Problem(f"gives {declared} bytes of arrays")
        for one in found:
            self.make(one)

    def measured(self, data: bytes) -> tuple[int | None, list[Any]]:
        """Read the file, and check the memory that this takes: slow."""
        tracemalloc.start()
        try:
            declared, found = self.checked(slow=True)
            taken = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        beside = BASE + self.beside(data)
        if taken > 4 * (MAX_BYTES if declared is None else declared) + beside:
            raise Problem(f"takes {taken} bytes of memory for {declared} bytes of arrays")
        return declared, found

    def checked(self, slow: bool = False) -> tuple[int | None, list[Any]]:
        """Read the file, and check how long this takes and what else is done."""
        self.events.clear()
        began = time.process_time()
        self.watched = True
        try:
            result = self.read()
        finally:
            self.watched = False
        seconds = time.process_time() - began
        if self.events:
            raise Problem(f"does {self.events[0]}")
        if seconds > SECONDS and not slow:
            raise Problem(f"takes {seconds:.1f} s")
        return result

    def read(self) -> tuple[int | None, list[Any]]:
        """Bytes of all arrays of the file, and the GRUs; None if it is refused."""
        try:
            if self.wrap is not bytes:                     # an input is a part of a file
                return None, self.reader.find(self.path, MAX_BYTES)
            arrays = self.reader.read_arrays(self.path, MAX_BYTES)
            return sum(a.nbytes for a in arrays.values()), self.reader.find(self.path, MAX_BYTES)
        except self.error as error:
            text = str(error)
            if not text.startswith(str(self.path)) or not text.isprintable() or len(text) > 5000:
                raise Problem(f"says {text!r:.500}") from error
            return None, []

    def make(self, found: Any) -> None:
        """A GRU of what was found; a ValueError is the answer to values that a dtype lacks."""
        try:
            with warnings.catch_warnings(action="ignore"):  # dropout of one layer
                self.build(self.gru, found)
        except ValueError as error:
            if "hold" not in str(error):
                raise


def peak_memory() -> int:
    """Bytes that the process has had in memory at most, since the last reset."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak_memory() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class Findings:
    """One input for each way of not being fine, in a folder, and how often it was seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.list = folder / "findings.json"
        self.seen: dict[str, dict[str, Any]] = (
            json.loads(self.list.read_text()) if self.list.exists() else {})

    def add(self, data: bytes, kind: str, text: str) -> None:
        entry = self.seen.setdefault(kind, {"count": 0, "bytes": len(data) + 1, "text": text})
        entry["count"] += 1
        if len(data) < entry["bytes"]:
            entry |= {"bytes": len(data), "text": text}
            name = re.sub(r"\W+", "-", kind)[:80] + f"-{zlib.crc32(kind.encode()):08x}"
            entry["file"] = name
            (self.folder / name).write_bytes(data)
        if entry["count"] & entry["count"] - 1 == 0:       # now and then
            self.write()

    def write(self) -> None:
        self.list.write_text(json.dumps(self.seen, indent=1))

    def add_error(self, data: bytes, error: BaseException) -> None:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "interop" in f.filename]
        place = (f"{frames[-1].filename.rpartition('interop/')[2]}:{frames[-1].lineno}"
                 if frames else "")
        kind = f"{type(error).__name__} {place}"
        if isinstance(error, Problem):
            kind += re.sub(r"\d+(\.\d+)?", "N", str(error))[:60]
        last = "".join(traceback.format_exception(error, limit=-3))
        self.add(data, kind, last[-2000:])


def child(name: str, folder: Path, runs: int, plain: bool, seed: int) -> None:
    """The process that reads: all seeds, then mutations of them."""
    target = TARGETS[name]
    faulthandler.enable()                                  # says where a crash or a hang was
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", UserWarning)           # of a reader, about what it leaves out
    if plain:
        harness = Harness(target, folder)
    else:
        import atheris

        import gru_c  # noqa: F401  not instrumented
        with atheris.instrument_imports(include=["gru_c.interop"]):
            harness = Harness(target, folder)
    with (folder / "progress").open("r+b") as file:
        progress = mmap.mmap(file.fileno(), 8)
    findings = Findings(folder / "findings")

    current = (folder / "input").open("wb", buffering=0)

    def one(data: bytes) -> None:
        os.pwrite(current.fileno(), data, 0)
        os.ftruncate(current.fileno(), len(data))
        progress[:] = (int.from_bytes(progress[:], "little") + 1).to_bytes(8, "little")
        try:
            harness.run(data)
        except Exception as error:
            findings.add_error(data, error)

    seeds = [path.read_bytes() for path in sorted((folder / "seeds").iterdir())]
    for data in seeds[:3]:                                 # what is imported late is imported now
        with suppress(Exception):
            harness.run(data)
    limit_space()
    (random_runs if plain else guided_runs)(target, folder, seeds, runs, seed, one)


def limit_space() -> None:
    """Let the address space grow by SPACE only: more is a MemoryError."""
    if sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * mmap.PAGESIZE + SPACE, most))


def random_runs(target: Target, folder: Path, seeds: list[bytes], runs: int, seed: int,
                one: Callable[[bytes], None]) -> None:
    rng = Random(seed)
    havoc = mutations.havoc(rng)
    for data in seeds:
        one(data)
    for _ in range(runs - len(seeds)):
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = target.mutate(data, rng, havoc)
        one(data[:target.max_length])


def guided_runs(target: Target, folder: Path, seeds: list[bytes], runs: int, seed: int,
                one: Callable[[bytes], None]) -> None:
    import atheris

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = Random(seed)
        own = mutations.havoc(rng)

        def havoc(part: bytes) -> bytes:
            if rng.random() < 0.3:
                return own(part)
            return atheris.Mutate(part, min(2 * len(part) + 16, max_size))

        changed = target.mutate(data, rng, havoc)
        return changed if len(changed) <= max_size else atheris.Mutate(data, max_size)

    atheris.Setup(
        [sys.argv[0], str(folder / "corpus"), str(folder / "seeds"), f"-runs={runs}",
         f"-max_len={target.max_length}", f"-seed={seed}", "-timeout=1000", "-rss_limit_mb=0",
         "-len_control=0", "-reload=0", "-handle_segv=0", "-handle_bus=0", "-handle_fpe=0",
         "-handle_abrt=0", f"-artifact_prefix={folder}/artifact-"],
        one, custom_mutator=mutate)
    atheris.Fuzz()


def fuzz(name: str, runs: int, plain: bool, seed: int, out: Path) -> dict[str, Any]:
    """Run a target in child processes until `runs` inputs are read; a summary."""
    began = time.monotonic()
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as temporary:
        folder = Path(temporary)
        prepare(name, folder, out / name / "corpus")
        crashes, done, log = 0, 0, ""
        while done < runs:
            before = done
            log, ended = watch(name, folder, runs - done, plain, seed + crashes)
            done = int.from_bytes((folder / "progress").read_bytes(), "little")
            if done == before:
                sys.exit(f"{name}: {log}")
            if ended != "exit 0":
                crashes += 1
                found = Findings(folder / "findings")
                found.add((folder / "input").read_bytes(), f"ended by {ended} {place(log)}",
                          log[-2000:])
                found.write()
        findings = Findings(folder / "findings").seen
        for part in ("corpus", "findings"):
            shutil.copytree(folder / part, out / name / part, dirs_exist_ok=True)
    coverage = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", log)
    seconds = time.monotonic() - began
    return {"target": name, "executions": done, "seconds": round(seconds),
            "per_second": round(done / seconds), "crashes": crashes,
            "coverage": coverage[-1] if coverage else None,
            "findings": {kind: entry["count"] for kind, entry in findings.items()}}


def prepare(name: str, folder: Path, previous: Path) -> None:
    """The files that the processes of a run share."""
    for part in ("corpus", "seeds"):
        (folder / part).mkdir()
    for data in {data for _, data in TARGETS[name].inputs(name)}:
        (folder / "seeds" / f"{zlib.crc32(data):08x}").write_bytes(data)
    if previous.is_dir():
        shutil.copytree(previous, folder / "corpus", dirs_exist_ok=True)
    (folder / "progress").write_bytes(bytes(8))


def place(log: str) -> str:
    """The innermost line of ours that faulthandler shows."""
    lines = re.findall(r'/interop/([\w/]+\.py)", line (\d+)', log)
    return ":".join(lines[0]) if lines else ""


def cpu_seconds(pid: int) -> float:
    """That a process has used; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(name: str, folder: Path, runs: int, plain: bool, seed: int) -> tuple[str, str]:
    """Run one child; what it printed, and how it ended."""
    command = [sys.executable, __file__, name, "--child", str(folder), "--runs", str(runs),
               "--seed", str(seed)] + ["--plain"] * plain
    log, hang = folder / "log", HANG if TARGETS[name].ours else HANG_OF_LIBRARY
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        progress, since, used = (folder / "progress").read_bytes(), time.monotonic(), 0.0
        first = progress
        while True:
            try:
                process.wait(0.5)
                ended = f"exit {process.returncode}"
                break
            except subprocess.TimeoutExpired:
                now = (folder / "progress").read_bytes()
                waited, took = time.monotonic() - since, cpu_seconds(process.pid) - used
                if now != progress:
                    progress, since, used = now, since + waited, used + took
                elif waited > 60 or (took > hang and progress != first):
                    process.send_signal(signal.SIGABRT)    # faulthandler prints where it is
                    time.sleep(0.1)
                    process.kill()
                    process.wait()
                    ended = "hang"
                    break
    return log.read_text(errors="replace"), ended


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="+", choices=["all", *TARGETS])
    parser.add_argument("--runs", type=int, default=20000, help="inputs for each target")
    parser.add_argument("--plain", action="store_true", help="random mutations, without atheris")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the corpus and what was found go")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.targets[0], options.child, options.runs, options.plain, options.seed)
        return 0
    out = options.out or Path(tempfile.mkdtemp(prefix="fuzz-"))
    failed = False
    for name in TARGETS if "all" in options.targets else options.targets:
        summary = fuzz(name, options.runs, options.plain, options.seed, out)
        print(json.dumps(summary), flush=True)
        failed |= any(TARGETS[name].ours or not kind.startswith("ended by")
                      for kind in summary["findings"])
    if failed:
        print(f"the inputs are in {out}")
    elif not options.out:
        shutil.rmtree(out)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
