"""The shapes that the benchmark runs: a GRU of T steps, N rows, I inputs, H hidden units.

`PEERS` are the 17 shapes of the comparison that the project started from. `SMALLEST` are layers of
one row and one input, two of them among `PEERS`, for which a library compiled for one size is made
(`results.cited`). `REALISTIC` are shapes of things people build: audio effects, speech,
recommendation, forecasting, language. `FAMILY` are the shapes of README's table as ragged batches,
with two directions and with two layers. `QUICK` is the small subset for `--quick`, `SMOKE` the one
for CI, where only a crash or a wrong result matters.
"""

from __future__ import annotations

import random
from typing import NamedTuple


class Shape(NamedTuple):
    """Sizes of one call; `label` is unique and is what tables and JSON show."""

    label: str
    T: int
    N: int
    I: int  # noqa: E741  (the name that every GRU text uses)
    H: int
    family: str
    layers: int = 1
    directions: int = 1
    ragged: bool = False

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return self.T, self.N, self.I, self.H

    @property
    def variant(self) -> str:
        """What makes it more than a plain layer, in the words of `VARIANTS`; empty for one."""
        words = {"ragged": self.ragged, f"{self.layers}-layer": self.layers > 1,
                 "bidirectional": self.directions > 1}
        return " ".join(word for word, true in words.items() if true)

    @property
    def is_lone(self) -> bool:
        """A single step of a single row."""
        return self.T == self.N == 1

    @property
    def is_cell(self) -> bool:
        """A single step of a plain layer, which a library's cell can take."""
        return self.T == 1 and not self.variant

    @property
    def inputs(self) -> tuple[int, ...]:
        """Input size of each layer."""
        return self.I, *(self.directions * self.H for _ in range(self.layers - 1))

    @property
    def lengths(self) -> list[int]:
        """Steps of each row; a ragged batch has quantiles of the uniform distribution, shuffled."""
        if not self.ragged:
            return [self.T] * self.N
        found = [-(-self.T * (2 * i + 1) // (2 * self.N)) for i in range(self.N)]
        random.Random(0).shuffle(found)
        return found

    def flop(self, training: bool = False) -> int:
        """Operations of the matrix products; gate arithmetic is not counted.

        Forward: 3 gates, 2 (multiply, add), H outputs, inputs + H of each layer, in each direction,
        at each step of each row. Training adds two products of that size: the gradients of the
        inputs and those of the weights.
        """
        products = self.directions * sum(inputs + self.H for inputs in self.inputs)
        forward = 6 * sum(self.lengths) * self.H * products
        return 3 * forward if training else forward


VARIANTS = {
    "ragged": {"ragged": True},
    "bidirectional": {"directions": 2},
    "2-layer": {"layers": 2},
}


def shape(T: int, N: int, I: int, H: int, family: str = "peers", name: str = "",  # noqa: E741
          **variant) -> Shape:
    """A shape with its label; `variant` are fields such as `VARIANTS` has."""
    made = Shape("", T, N, I, H, family, **variant)
    words = made.variant, name, f"{T},{N},{I},{H}"
    return made._replace(label=" ".join(filter(None, words)))


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

_SMALLEST = (*(s for s in PEERS if s.sizes[:3] == (1000, 1, 1)),
             *(shape(1000, 1, 1, H, "smallest") for H in (8, 24, 32, 64)))
SMALLEST = tuple(sorted(_SMALLEST, key=lambda s: s.H))

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

_README = ((1000, 1, 1, 16), (200, 1, 42, 128), (50, 8, 80, 256), (64, 64, 128, 256),
           (20, 256, 64, 100), (100, 1, 256, 1024), (10, 64, 161, 1760), (24, 32, 8, 64))

# One row alone is not ragged. The last is the shape of our own goal for ragged batches.
_RAGGED = (*(sizes for sizes in _README if sizes[1] > 1), (100, 64, 128, 256))

FAMILY = tuple(shape(*sizes, variant, **VARIANTS[variant])
               for variant, chosen in {"ragged": _RAGGED, "bidirectional": _README,
                                       "2-layer": _README}.items()
               for sizes in chosen)

ALL = tuple(dict.fromkeys(PEERS + SMALLEST + REALISTIC + FAMILY))

_QUICK = {(1, 1, 16, 32), (1000, 1, 1, 16), (200, 1, 42, 128), (50, 8, 80, 256),
          (100, 32, 64, 128), (20, 256, 64, 100), (24, 32, 8, 64)}
QUICK = tuple(s for s in ALL if s.sizes in _QUICK and not s.variant)

# Odd sizes (no multiple of a vector), a lone step, one shape with a batch, and each variant.
SMOKE = (
    *(shape(*sizes, "smoke") for sizes in ((1, 1, 16, 32), (7, 1, 3, 21), (5, 9, 13, 40))),
    *(shape(5, 3, 7, 21, "smoke", **variant) for variant in VARIANTS.values()),
)
