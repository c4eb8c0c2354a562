"""The shapes that the benchmark runs: one GRU layer, T steps, N rows, I inputs, H hidden units.

`PEERS` are the 17 shapes of the comparison that the project started from. `REALISTIC` are shapes of
things people build: audio effects, speech, recommendation, forecasting, language. `QUICK` is the
small subset for `--quick`, `SMOKE` the one for CI, where only a crash or a wrong result matters.
"""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """Sizes of one call; `label` is unique and is what tables and JSON show."""

    label: str
    T: int
    N: int
    I: int  # noqa: E741  (the name that every GRU text uses)
    H: int
    family: str

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return self.T, self.N, self.I, self.H

    @property
    def is_lone(self) -> bool:
        """A single step of a single row."""
        return self.T == self.N == 1

    def flop(self, training: bool = False) -> int:
        """Operations of the matrix products; gate arithmetic is not counted.

        Forward: 3 gates, 2 (multiply, add), N rows, H outputs, I + H inputs, T times. Training adds
        two products of that size: the gradients of the inputs and those of the weights.
        """
        forward = 6 * self.T * self.N * self.H * (self.I + self.H)
        return 3 * forward if training else forward


def shape(T: int, N: int, I: int, H: int, family: str = "peers", name: str = "") -> Shape:  # noqa: E741
    sizes = f"{T},{N},{I},{H}"
    return Shape(f"{name} {sizes}".strip(), T, N, I, H, family)


PEERS = (
    shape(1, 1, 16, 32),
    shape(1, 1, 80, 256),
    shape(1, 32, 128, 256),
    shape(1000, 1, 1, 16),
    shape(1000, 1, 1, 40),
    shape(200, 1, 42, 128),
    shape(200, 1, 128, 384),
    shape(100, 1, 80, 512),
    shape(100, 1, 256, 1024),
    shape(50, 8, 80, 256),
    shape(100, 32, 64, 128),
    shape(64, 64, 128, 256),
    shape(64, 32, 256, 512),
    shape(50, 16, 512, 1024),
    shape(20, 256, 64, 100),
    shape(28, 128, 28, 128),
    shape(24, 32, 8, 64),
)

# T is cut where a whole utterance would only make the run longer: at H=1760 one step of 64 rows is
# already a thousand million operations.
REALISTIC = (
    shape(4000, 1, 1, 8, "realistic", "audio"),
    shape(4000, 1, 1, 24, "realistic", "audio"),
    shape(2000, 1, 1, 40, "realistic", "audio"),
    shape(100, 1, 40, 512, "realistic", "speech"),
    shape(50, 1, 161, 1760, "realistic", "speech"),
    shape(50, 64, 40, 512, "realistic", "speech"),
    shape(10, 64, 161, 1760, "realistic", "speech"),
    shape(1, 512, 100, 100, "realistic", "gru4rec"),
    shape(20, 512, 100, 100, "realistic", "gru4rec"),
    shape(168, 32, 8, 64, "realistic", "forecasting"),
    shape(100, 32, 512, 512, "realistic", "language"),
)

ALL = PEERS + REALISTIC

_QUICK = {(1, 1, 16, 32), (1000, 1, 1, 16), (200, 1, 42, 128), (50, 8, 80, 256),
          (100, 32, 64, 128), (20, 256, 64, 100), (24, 32, 8, 64)}
QUICK = tuple(s for s in ALL if s.sizes in _QUICK)

# Odd sizes (no multiple of a vector), a lone step, and one shape with a batch.
SMOKE = tuple(shape(*sizes, "smoke") for sizes in ((1, 1, 16, 32), (7, 1, 3, 21), (5, 9, 13, 40)))
