"""Self-check: every installed peer against the NumPy oracle, one line each.

    python -m bench.peers [--dtype float64] [--threads 2] [--shape T,N,I,H] [NAME ...]

Exits with 1 if a result is wrong or a peer crashes. The times are rough: for a look, not a report.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from ..shapes import shape as make_shape
from . import NAMES, Unsupported, forward_backward, load, random_problem, relative_error

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


def check(module, problem, truth, shape, dtype, threads, training):
    """(largest relative error of the output, of the gradients, rough seconds)."""
    weights, *data = problem
    output, d_true = truth
    peer = module.Peer(weights, shape, dtype, threads, training)
    try:
        peer.set_input(*data)
        errors = [0.0, 0.0]
        # Twice: what a first call leaves behind must not change a second.
        for _ in range(2):
            (peer.train if training else peer.infer)()
            errors[0] = max(errors[0], relative_error(peer.output(), output))
            if training:
                found = peer.gradients()
                if found.keys() != d_true.keys():
                    raise AssertionError(f"gradients of {sorted(found)}")
                errors[1] = max([errors[1], *(relative_error(found[k], d_true[k]) for k in found)])
        timer = peer.time_train if training else peer.time_infer
        return *errors, timer(repeats=10)
    finally:
        peer.close()


def check_steps(module, dtype, threads, tolerance):
    """Text with the rough time of each way to call one step; a wrong state is an error."""
    shape = make_shape(1, 1, 16, 32)
    weights, *data = random_problem(shape, dtype)
    peer = module.Peer(weights, shape, dtype, threads)
    try:
        peer.set_input(*data)
        output, _ = forward_backward(weights, *data)
        with peer.scope():
            for step in peer.steps().values():
                error = relative_error(step.to_numpy(step.call()), output[0])
                if error > tolerance:
                    raise AssertionError(f"step: error {error:.1e}")
        times = peer.time_steps(repeats=20, number=20)
        return ", ".join(f"{name} {seconds * 1e6:.1f} us" for name, seconds in times.items())
    finally:
        peer.close()


def report(name, shape, problem, truth, dtype, threads) -> bool:
    """Prints the line of one peer; False if it is wrong."""
    module = load(name)
    version = module.available()
    if version is None:
        print(f"{name:15} not measured: {module.reason()}")
        return True
    tolerance, texts, good = TOLERANCE[dtype], [], True
    for training in (False, True):
        try:
            error, d_error, seconds = check(module, problem, truth, shape, dtype, threads, training)
        except Unsupported as refusal:
            texts.append(f"[{refusal}]")
            continue
        good &= max(error, d_error) <= tolerance
        label, gradients = ("train", f" gradients {d_error:.1e}") if training else ("infer", "")
        texts.append(f"{label}: error {error:.1e}{gradients} {seconds * 1e6:.0f} us")
    try:
        texts.append("step: " + check_steps(module, dtype, threads, tolerance))
    except Unsupported as refusal:
        texts.append(f"[{refusal}]")
    verdict = "ok" if good else "WRONG"
    said_once = "; ".join(dict.fromkeys(texts))
    print(f"{name:15} {version:10} {verdict:5} {said_once}", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"of {', '.join(NAMES)}")
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shape", default="11,9,13,40", help="T,N,I,H")
    given = parser.parse_args()
    shape = make_shape(*map(int, given.shape.split(",")))
    problem = random_problem(shape, given.dtype)
    truth = forward_backward(*problem)
    assert all(np.isfinite(value).all() for value in truth[1].values())
    results = [
        report(name, shape, problem, truth, given.dtype, given.threads) for name in given.names
    ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
