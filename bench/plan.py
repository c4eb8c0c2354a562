"""What a run consists of: configurations, a worker process each, and the tasks in each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from . import shapes
from .shapes import Shape

KINDS = ("inference", "training", "step")
THREADS = (1, 2)
ISAS = ("native", "avx2")
DTYPES = ("float32", "float64")

# (I, H) of the lone step called from Python; T = N = 1.
STEPS = ((16, 32), (80, 256), (1, 16), (64, 128))

# float64 has few peers; these show each regime once.
FLOAT64_SIZES = {
    (1, 1, 80, 256),
    (1000, 1, 1, 16),
    (200, 1, 128, 384),
    (50, 8, 80, 256),
    (100, 32, 64, 128),
    (64, 64, 128, 256),
    (20, 256, 64, 100),
}


@dataclass(frozen=True)
class Config:
    """What one process can be: PyTorch, TensorFlow and OpenMP keep threads for a process's life."""

    threads: int
    isa: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.threads} thread{'s' * (self.threads > 1)}, {self.isa}, {self.dtype}"


@dataclass(frozen=True)
class Task:
    """One shape in one kind; its contenders are timed beside each other."""

    kind: str
    shape: Shape

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "shape": self.shape._asdict()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Task:
        return cls(data["kind"], Shape(**data["shape"]))


@dataclass(frozen=True)
class Plan:
    """The whole run. `seconds` and `rounds` bound the timing of one task."""

    shapes: tuple[Shape, ...] = shapes.ALL
    peers: tuple[str, ...] = ()
    threads: tuple[int, ...] = THREADS
    isas: tuple[str, ...] = ISAS
    dtypes: tuple[str, ...] = DTYPES
    kinds: tuple[str, ...] = KINDS
    steps: tuple[tuple[int, int], ...] = STEPS
    seconds: float = 3.5
    rounds: int = 60
    roofline_seconds: float = 0.02  # for each of some thirty working sets, twice a process
    float64_threads: tuple[int, ...] | None = None  # those of `threads` if None
    float64_sizes: set[tuple[int, ...]] | None = field(default_factory=lambda: FLOAT64_SIZES)

    def configs(self) -> list[Config]:
        threads = {"float32": self.threads, "float64": self.float64_threads or self.threads}
        return [Config(t, i, d) for d in self.dtypes for i in self.isas for t in threads[d]]

    def tasks(self, config: Config) -> list[Task]:
        """Shape by shape, so that a problem and its answer are made once."""
        chosen = self.shapes
        if config.dtype == "float64" and self.float64_sizes is not None:
            chosen = tuple(s for s in chosen if s.sizes in self.float64_sizes)
        sequences = [kind for kind in ("inference", "training") if kind in self.kinds]
        tasks = [Task(kind, shape) for shape in chosen for kind in sequences]
        if "step" in self.kinds:
            tasks += [Task("step", shapes.shape(1, 1, *sizes, "step")) for sizes in self.steps]
        return tasks

    def job(self, config: Config, tasks: list[Task]) -> dict[str, Any]:
        """What a worker is told, as JSON."""
        return {
            **asdict(config),
            "peers": list(self.peers),
            "seconds": self.seconds,
            "rounds": self.rounds,
            "roofline_seconds": self.roofline_seconds,
            "tasks": [task.to_json() for task in tasks],
        }
