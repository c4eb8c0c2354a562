"""One process of the benchmark: gru_c and every peer at one number of threads, in one dtype.

`runner.py` starts `python -m bench.worker` with the limits in the environment, writes a job (JSON,
see `Plan.job`) to its stdin and reads events from its stdout, one JSON object a line:

    {"event": "roofline", ...}   the machine's limits, at the beginning and at the end
    {"event": "task", "index"}   begins
    {"event": "record", ...}     a time of one library
    {"event": "skip" | "error"}  with a reason
    {"event": "end"}

A result is compared with gru_c.reference in float64 before its library is timed, and once more
afterwards. Of ragged rows each library is timed in two forms: told the lengths ("packed"), and
computing T steps of every row ("padded"), whose results past a row's end are of no account.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import sys
import time
import traceback
from dataclasses import asdict
from typing import NamedTuple

import numpy as np

from . import peers, roofline
from .ours import OneThread, Peer
from .peers import Unsupported, best_time
from .plan import Task
from .shapes import Shape
from .summary import OURS, OURS_ALONE, OURS_PADDED
from .timing import Contender, run_rounds

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


class WrongResult(Exception):
    """A library's numbers differ from the reference's by more than rounding."""


class Entrant(NamedTuple):
    """A library in one form."""

    library: str
    cls: type[peers.PeerBase]
    form: str = ""  # of ragged rows: packed or padded


class Worker:
    """Runs the tasks of one job; `say` takes events."""

    def __init__(self, job, say):
        self.job, self.say = job, say
        self.threads, self.dtype = job["threads"], job["dtype"]
        self.peers = {name: peers.load(name) for name in job["peers"]}
        self.problem_of = None

    def run(self) -> None:
        self._roofline()
        for index, (kind, sizes) in enumerate(self.job["tasks"]):
            self.say(event="task", index=index)
            self.task(Task(kind, Shape(*sizes)))
        self._roofline()
        self.say(event="end")

    def _roofline(self) -> None:
        where, seconds = (self.job["isa"], self.threads), self.job["roofline_seconds"]
        try:
            found = roofline.measure(self.dtype, *where, seconds)
        except Unsupported as refusal:
            self.say(event="skip", library="roofline", kind="", shape="", reason=str(refusal))
        else:
            self.say(event="roofline", **asdict(found))

    # ---- one task ------------------------------------------------------------------------------

    def task(self, task: Task) -> None:
        """Builds, checks and times every library in one case."""
        self._make_problem(task.shape)
        built, contenders = {}, {}
        self.built_in = {}  # seconds, with the first calls and their check
        self.errors = {}  # the largest relative one of each entrant
        for entrant in self._entrants(task):
            start = time.perf_counter()
            try:
                built[entrant] = self._build(task, entrant)
                contenders |= self._checked(task, entrant, built[entrant])
            except Unsupported as refusal:
                self._tell(task, entrant.library, "skip", str(refusal))
            except Exception as error:  # of a peer, of any kind: the others go on
                self._tell(task, entrant.library, "error", _one_line(error))
            self.built_in[entrant] = round(time.perf_counter() - start, 3)
        gc.collect()
        gc.disable()
        try:
            self._time(task, built, contenders)
        finally:
            gc.enable()
            for peer in built.values():
                peer.close()

    def _tell(self, task, library, event, reason) -> None:
        where = {"library": library, "kind": task.kind, "shape": task.shape.label}
        self.say(event=event, **where, reason=reason)

    def _make_problem(self, shape) -> None:
        """Weights, data and the right answers; kept while the shape stays."""
        if self.problem_of != shape:
            self.problem = peers.random_problem(shape, self.dtype)
            self.truth = peers.truth(self.problem)
            self.problem_of = shape

    def _entrants(self, task: Task) -> list[Entrant]:
        """gru_c once more with one thread beside several, and padded beside ragged rows."""
        found = [Entrant(OURS, Peer)]
        if self.threads > 1 and task.kind != "step":
            found.append(Entrant(OURS_ALONE, OneThread))
        if task.shape.ragged:
            found.append(Entrant(OURS_PADDED, Peer, "padded"))
        forms = ("packed", "padded") if task.shape.ragged else ("",)
        return found + [Entrant(*peer, form) for peer in self.peers.items() for form in forms]

    def _build(self, task: Task, entrant: Entrant) -> peers.PeerBase:
        problem = peers.padded(self.problem) if entrant.form == "padded" else self.problem
        return entrant.cls(problem, self.threads, task.kind == "training")

    def _checked(self, task: Task, entrant: Entrant, peer) -> dict[tuple[Entrant, str], Contender]:
        """What of this peer will be timed, by way, after its results were found right."""
        if task.kind == "step" and peer.called_from == "Python":
            state = self.truth["output"][0]
            with peer.scope():
                steps = peer.steps()
                for step in steps.values():
                    self._compare(entrant, "state", step.to_numpy(step.call()), state)
            return {(entrant, way): _step_contender(peer, step) for way, step in steps.items()}
        for _ in range(2):  # what a first call leaves behind must not change a second
            peer.run()
            self._compare_all(entrant, peer)
        way = "loop in C++" if task.kind == "step" else entrant.form
        return {(entrant, way): Contender(peer.time)}

    def _compare_all(self, entrant, peer) -> None:
        found = peer.results()
        if peer.training and found.keys() != self.truth.keys():
            raise WrongResult(f"gradients of {sorted(found)}")
        for what, value in found.items():
            self._compare(entrant, what, value, self.truth[what])

    def _compare(self, entrant, what, found, true) -> None:
        error = peers.relative_error(np.asarray(found, np.float64), true)
        if not error <= TOLERANCE[self.dtype]:
            raise WrongResult(f"{what} is off by {error:.1e} of its largest value")
        self.errors[entrant] = max(error, self.errors.get(entrant, 0))

    def _time(self, task: Task, built, contenders) -> None:
        if not contenders:
            return
        run_rounds(list(contenders.values()), self.job["seconds"], self.job["rounds"])
        for (entrant, way), contender in contenders.items():
            peer = built[entrant]
            if task.kind != "step":  # a step that moved its state on cannot be checked again
                try:
                    self._compare_all(entrant, peer)
                except WrongResult as error:
                    self._tell(task, entrant.library, "error", f"after timing: {error}")
                    continue
            self.say(event="record", **self._record(task, entrant, way, peer, contender))

    def _record(self, task, entrant, way, peer, contender) -> dict:
        return {
            "kind": task.kind,
            "shape": task.shape.label,
            "library": entrant.library,
            "way": way,
            "best": contender.best,
            "median": contender.median,
            "rounds": len(contender.samples),
            "calls_per_batch": contender.number,
            "build_seconds": self.built_in[entrant],
            "error": self.errors[entrant],
            # False: the environment does not hold this library to the instruction set.
            "held": self.job["isa"] == "native" or peer.obeys_avx2_env,
            "caller": peer.called_from,
        }


def _step_contender(peer, step) -> Contender:
    def timer(repeats, number):
        with peer.scope():
            return best_time(step.call, repeats, number)

    return Contender(timer)


def _one_line(error: Exception) -> str:
    traceback.print_exception(error)  # to the worker's stderr, which the runner keeps
    return f"{type(error).__name__}: {error}".splitlines()[0][:500]


def main() -> None:
    faulthandler.enable()
    # Libraries print; events have the real stdout for themselves.
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**event):
        events.write(json.dumps(event) + "\n")

    Worker(json.load(sys.stdin), say).run()
    events.flush()
    os._exit(0)  # several frameworks in one process may trip over each other when they unload


if __name__ == "__main__":
    main()
