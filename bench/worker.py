"""One process of the benchmark: gru_c and every peer at one number of threads, in one dtype.

`runner.py` starts `python -m bench.worker` with the limits in the environment, writes a job (JSON,
see `Plan.job`) to its stdin and reads events from its stdout, one JSON object a line:

    {"event": "roofline", ...}   the machine's limits, at the beginning and at the end
    {"event": "task", "index"}   begins
    {"event": "record", ...}     a time of one library
    {"event": "skip" | "error"}  with a reason
    {"event": "end"}

A result is compared with gru_c.reference in float64 before its library is timed, and once more
afterwards.
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

import numpy as np

from . import ours, peers, roofline
from .peers import Unsupported, best_time
from .plan import Task
from .timing import Contender, run_rounds

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
OURS = "gru_c"
FROM_C = ("onednn",)  # their loops of timed calls are not Python's


class WrongResult(Exception):
    """A library's numbers differ from the reference's by more than rounding."""


class Worker:
    """Runs the tasks of one job; `say` takes events."""

    def __init__(self, job, say):
        self.job, self.say = job, say
        self.threads, self.dtype = job["threads"], np.dtype(job["dtype"])
        self.peers = {name: peers.load(name).Peer for name in job["peers"]}
        self.problem_of = None

    def run(self) -> None:
        self._roofline()
        for index, data in enumerate(self.job["tasks"]):
            self.say(event="task", index=index)
            self.task(Task.from_json(data))
        self._roofline()
        self.say(event="end")

    def _roofline(self) -> None:
        where, seconds = (self.job["isa"], self.threads), self.job["roofline_seconds"]
        try:
            found = roofline.measure(self.dtype.name, *where, seconds)
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
        self.errors = {}  # the largest relative one of each library
        for name, make in self._makers(task).items():
            start = time.perf_counter()
            try:
                built[name] = make()
                contenders |= self._checked(task, name, built[name])
            except Unsupported as refusal:
                self._tell(task, name, "skip", str(refusal))
            except Exception as error:  # of a peer, of any kind: the others go on
                self._tell(task, name, "error", _one_line(error))
            self.built_in[name] = round(time.perf_counter() - start, 3)
        gc.collect()
        gc.disable()
        try:
            self._time(task, built, contenders)
        finally:
            gc.enable()
            for peer in built.values():
                peer.close()

    def _tell(self, task, library, event, reason) -> None:
        self.say(
            event=event, library=library, kind=task.kind, shape=task.shape.label, reason=reason
        )

    def _make_problem(self, shape) -> None:
        """Weights, data and the right answers; kept while the shape stays."""
        if self.problem_of != shape:
            self.problem = peers.random_problem(shape, self.dtype)
            self.truth = peers.forward_backward(*self.problem)
            self.problem_of = shape

    def _makers(self, task: Task) -> dict:
        """How to build each library; with several threads gru_c comes a second time with one."""
        weights, *data = self.problem
        arguments = (weights, task.shape, self.dtype, self.threads, task.kind == "training")

        def maker(cls, **keywords):
            def make():
                peer = cls(*arguments, **keywords)
                peer.set_input(*data)
                return peer

            return make

        makers = {OURS: maker(ours.Peer)}
        if self.threads > 1 and task.kind != "step":
            makers[f"{OURS} (1 thread)"] = maker(ours.Peer, own_threads=1)
        return makers | {name: maker(cls) for name, cls in self.peers.items()}

    def _checked(self, task: Task, name: str, peer) -> dict[str, Contender]:
        """What of this peer will be timed, by key, after its results were found right."""
        if task.kind == "step" and name not in FROM_C:
            with peer.scope():
                steps = peer.steps()
                for step in steps.values():
                    self._compare(name, "state", step.to_numpy(step.call()), self.truth[0][0])
            return {f"{name}: {way}": _step_contender(peer, way, s) for way, s in steps.items()}
        for _ in range(2):  # what a first call leaves behind must not change a second
            (peer.train if peer.training else peer.infer)()
            self._compare_all(name, peer)
        timer = peer.time_train if peer.training else peer.time_infer
        way = ": loop in C++" if task.kind == "step" else ""
        return {name + way: Contender(name, timer)}

    def _compare_all(self, name, peer) -> None:
        self._compare(name, "output", peer.output(), self.truth[0])
        if peer.training:
            found, true = peer.gradients(), self.truth[1]
            if found.keys() != true.keys():
                raise WrongResult(f"gradients of {sorted(found)}")
            for key, value in found.items():
                self._compare(name, f"d{key}", value, true[key])

    def _compare(self, name, what, found, true) -> None:
        error = peers.relative_error(np.asarray(found, np.float64), true)
        if not error <= TOLERANCE[self.dtype.name]:
            raise WrongResult(f"{what} is off by {error:.1e} of its largest value")
        self.errors[name] = max(error, self.errors.get(name, 0))

    def _time(self, task: Task, built, contenders) -> None:
        if not contenders:
            return
        run_rounds(list(contenders.values()), self.job["seconds"], self.job["rounds"])
        for key, contender in contenders.items():
            library, _, way = key.partition(": ")
            peer = built[library]
            if task.kind != "step":  # a step that moved its state on cannot be checked again
                try:
                    self._compare_all(library, peer)
                except WrongResult as error:
                    self._tell(task, library, "error", f"after timing: {error}")
                    continue
            self.say(event="record", **self._record(task, library, way, peer, contender))

    def _record(self, task, library, way, peer, contender) -> dict:
        return {
            "kind": task.kind,
            "shape": task.shape.label,
            "library": library,
            "way": way,
            "best": contender.best,
            "median": contender.median,
            "rounds": len(contender.samples),
            "calls_per_batch": contender.number,
            "build_seconds": self.built_in[library],
            "error": self.errors[library],
            # False: the environment does not hold this library to the instruction set.
            "held": self.job["isa"] == "native" or peer.obeys_avx2_env,
            "caller": "C" if library in FROM_C else "Python",
        }


def _step_contender(peer, way, step) -> Contender:
    def timer(repeats, number):
        with peer.scope():
            return best_time(step.call, repeats, number)

    return Contender(way, timer)


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
