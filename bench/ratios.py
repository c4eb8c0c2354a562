"""What gru_c gains from ragged rows and two threads, and pays for memory: ratios of its times.

    python -m bench.ratios [T,N,I,H ...] [--seconds S] [--rounds R]

    ragged      lengths uniform in 1..T over the same rows padded to T steps, with as many threads
    directions  a layer of two directions on two threads over one of one direction on one
    checkpoint  training with checkpoint=64 over training without; checkpoint2: of two layers

For inference and for training where nothing else is said, float32. The two sides of a ratio take
turns in one process and are checked against gru_c.reference first; medians are compared. The exit
status is 1 where a ratio is above its limit. Shapes that are given have no limit, unless they are
usual ones.
"""

from __future__ import annotations

import argparse
import functools
import sys

from . import peers
from .machine import useful_threads
from .ours import Peer
from .shapes import VARIANTS, Shape, shape
from .summary import threads_text
from .timing import Contender, run_rounds
from .worker import TOLERANCE

RAGGED_LIMITS = {(100, 64, 128, 256): 0.60}
DIRECTIONS_LIMITS = {(100, rows, 128, 256): 1.15 for rows in (64, 8, 1)}
CHECKPOINT_LIMITS = {(4000, 16, 128, 128): 1.40}


class Checkpointed(Peer):
    """gru_c with checkpoints."""

    checkpoint = 64


@functools.cache
def solved(made: Shape) -> tuple[dict, dict]:
    """A problem of this shape and its truth."""
    problem = peers.random_problem(made)
    return problem, peers.truth(problem)


def checked(made: Shape, threads: int, training: bool, padded: bool = False,
            kind: type[Peer] = Peer) -> Peer:
    """gru_c at a shape, after its first call was found right."""
    problem, truth = solved(made)
    peer = kind(peers.padded(problem) if padded else problem, threads, training)
    peer.run()
    for name, value in peer.results().items():
        error = peers.relative_error(value, truth[name])
        if not error <= TOLERANCE["float32"]:
            raise SystemExit(f"{made.label}: {name} is off by {error:.1e}")
    return peer


def ragged(sizes: tuple, threads: int, training: bool) -> list[Peer]:
    """Both sides of the ratio: ragged rows, the same rows padded."""
    made = shape(*sizes, **VARIANTS["ragged"])
    return [checked(made, threads, training), checked(made, threads, training, padded=True)]


def directions(sizes: tuple, threads: int, training: bool) -> list[Peer]:
    """Both sides of the ratio: two directions on `threads` threads, one direction on one."""
    two = shape(*sizes, **VARIANTS["bidirectional"])
    return [checked(two, threads, training), checked(shape(*sizes), 1, training)]


def checkpoint(sizes: tuple, threads: int, training: bool, layers: int = 1) -> list[Peer]:
    """Both sides of the ratio: with checkpoints, without."""
    made = shape(*sizes, layers=layers)
    return [checked(made, threads, training, kind=kind) for kind in (Checkpointed, Peer)]


def checkpoint2(sizes: tuple, threads: int, training: bool) -> list[Peer]:
    return checkpoint(sizes, threads, training, layers=2)


def ratio(sides: list[Peer], seconds: float, rounds: int) -> float:
    """The median of the first over that of the second."""
    first, second = contenders = [Contender(peer.time) for peer in sides]
    run_rounds(contenders, seconds, rounds)
    return first.median / second.median


def cases(shapes: list[tuple]) -> list[tuple]:
    """(the function that makes both sides, sizes, threads, limit or None, inference or training).
    """
    counts, _ = useful_threads((1, 2))
    found = [(ragged, sizes, threads, RAGGED_LIMITS.get(sizes), (False, True))
             for sizes in shapes or RAGGED_LIMITS for threads in counts]
    found += [(directions, sizes, 2, DIRECTIONS_LIMITS.get(sizes), (False, True))
              for sizes in shapes or DIRECTIONS_LIMITS if 2 in counts]
    found += [(sides, sizes, threads, CHECKPOINT_LIMITS.get(sizes), (True,))
              for sides in (checkpoint, checkpoint2)
              for sizes in shapes or CHECKPOINT_LIMITS for threads in counts]
    return found


def sizes_of(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ratios", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="T,N,I,H", type=sizes_of)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each ratio")
    parser.add_argument("--rounds", type=int, default=60, help="most rounds a ratio")
    given, missed = parser.parse_args(), 0
    for sides, sizes, threads, limit, modes in cases(given.shapes):
        for training in modes:
            found = ratio(sides(sizes, threads, training), given.seconds, given.rounds)
            above = limit is not None and found > limit
            verdict = "" if limit is None else f"at most {limit}: {'MISSED' if above else 'met'}"
            print(f"{sides.__name__:11} {','.join(map(str, sizes)):16} "
                  f"{'training' if training else 'inference':9} {threads_text(threads):9} "
                  f"{found:6.3f}  {verdict}".rstrip(), flush=True)
            missed += above
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
