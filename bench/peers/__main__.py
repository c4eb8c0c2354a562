"""Self-check: every installed peer against the reference, one line each kind of call.

    python -m bench.peers [--dtype float64] [--threads 2] [--shape T,N,I,H] [NAME ...]

Exits with 1 if a result is wrong or a peer crashes. The check is the one before a measurement; the
times are rough: for a look, not a report.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from ..plan import Task
from ..runner import find_peers
from ..shapes import shape
from ..worker import TOLERANCE, Worker
from . import NAMES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"of {', '.join(NAMES)}")
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shape", default="11,9,13,40", help="T,N,I,H")
    given = parser.parse_args()
    found, missing = find_peers(tuple(given.names))
    for name, reason in missing.items():
        print(f"{name:17} not measured: {reason}")
    seen: Counter[str] = Counter()

    def say(event, **said):
        seen[event] += 1
        if event == "record":
            result = f"error {said['error']:.1e} {1e6 * said['best']:8.1f} us {said['way']}"
            print(f"{said['library']:17} {said['kind']:9} ok    {result}", flush=True)
        elif event in ("skip", "error"):
            word = "-" if event == "skip" else "WRONG"
            print(f"{said['library']:17} {said['kind']:9} {word:5} {said['reason']}", flush=True)

    job = {"threads": given.threads, "isa": "native", "dtype": given.dtype, "peers": list(found),
           "seconds": 0, "rounds": 1}
    worker, sizes = Worker(job, say), shape(*map(int, given.shape.split(",")))
    for task in (Task("inference", sizes), Task("training", sizes),
                 Task("step", shape(1, 1, 16, 32))):
        worker.task(task)
    return 1 if seen["error"] else 0


if __name__ == "__main__":
    sys.exit(main())
