"""Interleaved timing: rounds in which every contender has a short burst, in rotating order.

What disturbs a measurement (another tenant, the clock, the temperature) comes and goes over
seconds. Contenders that take turns within tens of milliseconds suffer it alike, so ratios hold
where absolute times drift. The least time of all rounds is the figure; the median is kept too.

Before each burst there is a pause until the process is idle. The worker threads of ONNX Runtime
(for up to 70 milliseconds) and of OpenMP go on spinning after a call, waiting for the next one; on
two cores that would take a core from whoever is next. Nobody's spinning is switched off, because it
makes a library's own next call faster: within a burst everyone profits from it. The burst's first
batch of calls wakes the threads and fills the caches; the best of three batches is kept.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

BATCH_SECONDS = 0.002  # a batch is at least this long, or one call
LONG_CALL = 0.1  # such a call wakes its threads in a vanishing part of its time: one is a burst
LAGGARD = 4.0  # times the fastest; such a contender takes part in every fourth round only
FEWEST_ROUNDS = 4


@dataclass
class Contender:
    """One thing to time: `time(repeats, number)` gives the least seconds a call."""

    time: Callable[[int, int], float]
    samples: list[float] = field(default_factory=list)
    number: int = 1
    expected: float = 0.0  # seconds a call

    @property
    def best(self) -> float:
        return min(self.samples)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def calibrate(self) -> None:
        """One call that is not kept, to know how many make a batch."""
        self._expect(self.time(1, 1))

    def burst(self) -> None:
        taken = self.time(3 if self.expected < LONG_CALL else 1, self.number)
        self.samples.append(taken)
        self._expect(self.best)

    def _expect(self, seconds: float) -> None:
        self.expected = seconds
        self.number = max(1, round(BATCH_SECONDS / max(seconds, 1e-9)))


def wait_until_idle(limit: float = 0.25) -> bool:
    """Sleeps until no thread of this process computes; False if that took longer than `limit`."""
    end, calm = time.perf_counter() + limit, 0
    while calm < 2:
        start, computed = time.perf_counter(), time.process_time()
        time.sleep(0.001)
        now = time.perf_counter()
        calm = calm + 1 if time.process_time() - computed < 0.15 * (now - start) else 0
        if now > end:
            return False
    return True


def take_part(contenders: Sequence[Contender], turn: int) -> list[Contender]:
    """Who has a burst in round `turn`, in which order: all in the first two rounds."""
    shift = turn % len(contenders)
    order = [*contenders[shift:], *contenders[:shift]]
    if turn < 2 or turn % 4 == 0:
        return order
    fastest = min(contender.best for contender in contenders)
    return [c for c in order if c.best <= LAGGARD * fastest]


def run_rounds(
    contenders: Sequence[Contender],
    seconds: float = 4.0,
    rounds: int = 60,
    pause: Callable[[], object] = wait_until_idle,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Fills `samples` of every contender: up to `rounds` rounds, fewer if `seconds` are over."""
    for contender in contenders:
        pause()
        contender.calibrate()
    start = clock()
    for turn in range(rounds):
        for contender in take_part(contenders, turn):
            pause()
            contender.burst()
        if turn + 1 >= FEWEST_ROUNDS and clock() - start > seconds:
            return
