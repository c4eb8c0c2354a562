"""Starts one worker process a configuration and keeps what they report."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from . import machine, peers
from .plan import Config, Plan, Task


def find_peers(wanted: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """({name: version} of those of `wanted` that are installed, {name: reason} of the others)."""
    found, missing = {}, {}
    for name in peers.NAMES:
        try:
            if name in wanted:
                found[name] = peers.load(name).version()
            else:
                missing[name] = "not asked for"
        except peers.Unsupported as refusal:
            missing[name] = str(refusal)
    return found, missing


class Runner:
    """Runs a plan into `results`; `keep()` is called after each task."""

    def __init__(self, plan: Plan, results: dict[str, Any], keep: Callable[[], None]):
        self.plan, self.results, self.keep = plan, results, keep

    def run(self) -> None:
        configs = self.plan.configs()
        self.total = sum(len(self.plan.tasks(config)) for config in configs)
        self.begun, self.start = 0, time.monotonic()
        for config in configs:
            self._config(config)

    def _config(self, config: Config) -> None:
        """A worker that dies takes down one task: the next worker goes on behind it."""
        tasks = self.plan.tasks(config)
        self.results["shapes"] |= {task.shape.label: list(task.shape[1:]) for task in tasks}
        while tasks:
            begun, problem = self._worker(config, tasks)
            if problem is None:
                return
            died = tasks[begun] if begun >= 0 else tasks[0]
            self._error(config, "worker", died.kind, died.shape.label, problem)
            self.keep()
            # Before the first task, a second attempt would end the same way.
            tasks = tasks[begun + 1 :] if begun >= 0 else []

    def _worker(self, config: Config, tasks: list[Task]) -> tuple[int, str | None]:
        """(index of the last task that began, None or why the process ended too early)."""
        watch = machine.Watch()
        with tempfile.TemporaryFile("w+") as chatter:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.worker"],
                cwd=machine.ROOT,
                env=machine.worker_environment(config.threads, config.isa),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=chatter,
                text=True,
                start_new_session=True,  # Ctrl-C is for the runner, which ends the worker
            )
            try:
                with contextlib.suppress(BrokenPipeError):  # it died: the reason is told below
                    process.stdin.write(json.dumps(self.plan.job(config, tasks)))
                    process.stdin.close()
                begun, ended = self._listen(config, tasks, process.stdout)
                process.wait()
            finally:
                process.kill()
                process.wait()
                self.results["disturbance"].append({"config": str(config)} | watch.shares())
            if ended and process.returncode == 0:
                return begun, None
            chatter.seek(0)
            tail = " | ".join(chatter.read().strip().splitlines()[-4:])
        return begun, f"the process ended with {process.returncode}: {tail}"

    def _listen(self, config: Config, tasks: list[Task], lines) -> tuple[int, bool]:
        """Takes events until the worker closes its end: (last task that began, was it all)."""
        begun, ended = -1, False
        for line in lines:
            event = json.loads(line)
            kind = event.pop("event")
            ended |= kind == "end"
            if kind == "task":
                self.keep()
                begun = event["index"]
                self._progress(f"{config}: {tasks[begun].kind} {tasks[begun].shape.label}")
            elif kind == "record":
                self.results["records"].append(config._asdict() | event)
            elif kind == "roofline":
                self.results["rooflines"].append(event)
            elif kind == "skip":
                self._skip(event)
            elif kind == "error":
                self._error(config, **event)
        self.keep()
        return begun, ended

    def _progress(self, text: str) -> None:
        self.begun += 1
        minutes = (time.monotonic() - self.start) / 60
        place = f"[{self.begun}/{self.total}, {minutes:.1f} min]"
        print(place, text, file=sys.stderr, flush=True)

    def _skip(self, event: dict[str, Any]) -> None:
        """One line a reason, however many shapes it concerns."""
        said = {"library": event["library"], "kind": event["kind"], "reason": event["reason"]}
        if said not in self.results["skipped"]:
            self.results["skipped"].append(said)

    def _error(self, config, library, kind, shape, reason) -> None:
        said = {"config": str(config), "library": library, "kind": kind, "shape": shape}
        self.results["errors"].append(said | {"reason": reason})
        print(f"ERROR {library}, {kind} {shape} ({config}): {reason}", file=sys.stderr, flush=True)
