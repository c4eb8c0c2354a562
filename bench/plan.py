"""What a run consists of: configurations, a worker process each, and the tasks in each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from . import peers, shapes
from .shapes import Shape, shape

KINDS = ("inference", "training", "step")
FOOTPRINT = ("memory", "size", "import")
THREADS = (1, 2)
ISAS = ("native", "avx2")
DTYPES = ("float32", "float64")

# (I, H) of the lone step called from Python; T = N = 1.
STEPS = ((16, 32), (80, 256), (1, 16), (64, 128))

# float64 has few peers; these, without variants, show each regime once.
FLOAT64_SIZES = {(1, 1, 80, 256), (1000, 1, 1, 16), (200, 1, 128, 384), (50, 8, 80, 256),
                 (100, 32, 64, 128), (64, 64, 128, 256), (20, 256, 64, 100)}


class Config(NamedTuple):
    """What one process can be: PyTorch, TensorFlow, JAX and OpenMP keep threads for its life."""

    threads: int
    isa: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.threads} thread{'s' * (self.threads > 1)}, {self.isa}, {self.dtype}"


class Task(NamedTuple):
    """One shape in one kind; its contenders are timed beside each other."""

    kind: str
    shape: Shape


@dataclass(frozen=True)
class Plan:
    """The whole run. `seconds` and `rounds` bound the timing of one task."""

    shapes: tuple[Shape, ...]
    peers: tuple[str, ...]
    threads: tuple[int, ...]
    isas: tuple[str, ...]
    dtypes: tuple[str, ...]
    kinds: tuple[str, ...]
    steps: tuple[tuple[int, int], ...]
    seconds: float
    rounds: int
    roofline_seconds: float  # for each of some thirty working sets, twice a process

    def configs(self) -> list[Config]:
        return [Config(t, i, d) for d in self.dtypes for i in self.isas for t in self.threads]

    def tasks(self, config: Config) -> list[Task]:
        """Shape by shape, so that a problem and its answer are made once."""
        chosen = self.shapes
        if config.dtype == "float64" and chosen == shapes.ALL:
            chosen = tuple(s for s in chosen if s.sizes in FLOAT64_SIZES and not s.variant)
        sequences = [kind for kind in ("inference", "training") if kind in self.kinds]
        tasks = [Task(kind, each) for each in chosen for kind in sequences]
        if "step" in self.kinds:
            tasks += [Task("step", shape(1, 1, *sizes, "step")) for sizes in self.steps]
        return tasks

    def job(self, config: Config, tasks: list[Task]) -> dict[str, Any]:
        """What a worker is told, as JSON."""
        names = ("peers", "seconds", "rounds", "roofline_seconds")
        return config._asdict() | {name: getattr(self, name) for name in names} | {"tasks": tasks}


FULL = Plan(
    shapes=shapes.ALL,
    peers=peers.NAMES,
    threads=THREADS,
    isas=ISAS,
    dtypes=DTYPES,
    kinds=KINDS + FOOTPRINT,
    steps=STEPS,
    seconds=3.5,
    rounds=60,
    roofline_seconds=0.02,
)
QUICK = replace(
    FULL,
    shapes=shapes.QUICK,
    peers=("torch", "onnxruntime", "openvino", "onednn"),  # the others take long to build
    isas=("native",),
    dtypes=("float32",),
    steps=STEPS[:2],
    seconds=1.0,
    rounds=20,
    roofline_seconds=0.01,
)
SMOKE = replace(
    FULL,
    shapes=shapes.SMOKE,
    peers=("torch", "onnxruntime"),
    isas=("native",),
    kinds=(*KINDS, "memory"),
    steps=STEPS[:1],
    seconds=0.1,
    rounds=2,
    roofline_seconds=0.002,
)
