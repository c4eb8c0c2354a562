"""Rounding: gru_c's errors against a truth of higher precision, beside PyTorch's.

    python -m bench.accuracy [T,N,I,H ...] [--dtype float32] [--rows] [--save FILE]

The error of a result is the root mean square of its difference from the truth, over the root mean
square of the truth; of small shapes over several draws of the inputs. What is printed is gru_c's
error over PyTorch's, on one thread, and the geometric mean. Without PyTorch it is over the errors
in tests/fixtures/torch_rounding.json, which `--save` writes. The exit status is 1 where a limit is
missed. `--rows` measures the weight gradients of 60,000 to 1,000,000 rows instead.

The truth is gru_c.reference: in float64 for float32 results; for float64 in long double, which
takes minutes for the large shapes, for NumPy has no fast product of long doubles.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

import gru_c
from bench import peers, shapes
from bench.peers import WEIGHT_NAMES
from bench.summary import geometric_mean

FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "torch_rounding.json"
SIX = ((5, 2, 512, 1024), (20, 9, 161, 400), (40, 16, 128, 256), (100, 4, 64, 128),
       (200, 32, 32, 64), (3, 1, 1500, 1500))
MOST_STEPS = 100
WEIGHTS = [f"{name}_l0" for name in WEIGHT_NAMES]
MANY_ROWS = ((60, 1000), (240, 1000), (1000, 1000), (60_000, 1))           # T, N
DTYPES = ("float32", "float64")
MOST_RATIO, MOST_MEAN = 1.5, 0.9                           # what we hold ourselves to


def all_shapes() -> list[tuple]:
    """The six shapes, and those of the benchmark's plain layers with T cut."""
    cut = [(min(s.T, MOST_STEPS), s.N, s.I, s.H) for s in (*shapes.PEERS, *shapes.REALISTIC)]
    return list(dict.fromkeys([*SIX, *cut]))


def draws(shape: tuple) -> int:
    """How many draws of the inputs it takes: the error of few elements is chance."""
    return min(64, -(-2048 // (shape[1] * shape[3])))


def case(shape: tuple, dtype: str, draw: int = 0) -> dict[str, np.ndarray]:
    """Inputs, weights and gradients of a call by name, the same on every machine."""
    rng = np.random.default_rng([draw, *shape])
    problem = peers.random_problem(shapes.shape(*shape), dtype, rng)
    return problem | {"d_h_n": rng.standard_normal(problem["h_0"].shape).astype(dtype)}


def many_rows(T: int, N: int, dtype: str, draw: int = 0) -> dict[str, np.ndarray]:
    """A case of T*N rows whose weight gradients sum numbers of one sign."""
    arrays = case((T, N, 8, 16), dtype)
    rng = np.random.default_rng(0)
    arrays["x"] = rng.random((T, N, 8)).astype(dtype)
    arrays["d_output"] = np.ones((T, N, 16), dtype)
    return arrays


def truth(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Results and gradients in higher precision, by name."""
    higher = np.float64 if arrays["x"].dtype == np.float32 else np.longdouble
    return peers.truth(arrays, higher)


# ---- the contestants -----------------------------------------------------------------------------

def ours(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same from gru_c."""
    gru = gru_c.GRU(arrays["x"].shape[2], arrays["h_0"].shape[2], dtype=arrays["x"].dtype)
    gru.load_state_dict({name: arrays[name] for name in WEIGHTS})
    output, _ = gru(arrays["x"], arrays["h_0"])
    dx, dh_0 = gru.backward(arrays["d_output"], arrays["d_h_n"])
    results = {"output": output, "dx": dx, "dh_0": dh_0}
    return results | {f"d{name}": gru.grads[name] for name in WEIGHTS}


def torchs(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same from PyTorch."""
    import torch

    torch.set_num_threads(1)
    t = {name: torch.tensor(value) for name, value in arrays.items()}
    gru = torch.nn.GRU(arrays["x"].shape[2], arrays["h_0"].shape[2], dtype=t["x"].dtype)
    gru.load_state_dict({name: t[name] for name in WEIGHTS})
    x, h_0 = t["x"].requires_grad_(), t["h_0"].requires_grad_()
    output, h_n = gru(x, h_0)
    torch.autograd.backward((output, h_n), (t["d_output"], t["d_h_n"]))
    results = {"output": output.detach(), "dx": x.grad, "dh_0": h_0.grad}
    results |= {f"d{name}": getattr(gru, name).grad for name in WEIGHTS}
    return {name: value.numpy() for name, value in results.items()}


def errors(make, sizes: tuple, count: int, libraries: dict) -> dict[str, dict[str, float]]:
    """Relative root-mean-square errors of each library, by name, over `count` draws."""
    squares: defaultdict[tuple[str, str], float] = defaultdict(float)
    for draw in range(count):
        arrays = make(*sizes, draw)
        true = truth(arrays)
        for name, value in true.items():
            squares["truth", name] += float(np.sum(np.square(value)))
        for library, run in libraries.items():
            for name, value in run(arrays).items():
                squares[library, name] += float(np.sum(np.square(value - true[name])))
    return {library: {name: math.sqrt(squares[library, name] / squares["truth", name])
                      for name in true} for library in libraries}


# ---- command line --------------------------------------------------------------------------------

def cases(arguments) -> dict[str, tuple]:
    """What to measure: the function that makes a case, its arguments, how many draws; by name."""
    dtypes = [arguments.dtype] if arguments.dtype else DTYPES
    if arguments.rows:
        return {f"rows {T},{N} {dtype}": (many_rows, (T, N, dtype), 1)
                for T, N in MANY_ROWS for dtype in dtypes}
    chosen = arguments.shapes or all_shapes()
    return {name_of(shape, dtype): (case, (shape, dtype), draws(shape))
            for shape in chosen for dtype in dtypes}


def name_of(shape: tuple, dtype: str) -> str:
    return f"{','.join(map(str, shape))} {dtype}"


def sizes(text: str) -> tuple[int, int, int, int]:
    T, N, I, H = map(int, text.split(","))  # noqa: E741
    return T, N, I, H


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="T,N,I,H", type=sizes)
    parser.add_argument("--dtype", choices=DTYPES, help="one of the two")
    parser.add_argument("--rows", action="store_true", help="weight gradients of many rows")
    parser.add_argument("--save", type=Path, metavar="FILE", help="add PyTorch's errors to FILE")
    arguments = parser.parse_args()
    saved = json.loads(FIXTURE.read_text()) if FIXTURE.exists() else {}
    libraries = {"gru_c": ours}
    if importlib.util.find_spec("torch"):
        libraries["torch"] = torchs
    ratios = []
    for name, (make, details, count) in cases(arguments).items():
        found = errors(make, details, count, libraries)
        if "torch" not in found and name not in saved:
            parser.error(f"{name}: no PyTorch, and {FIXTURE.name} has no errors of it")
        saved[name] = found.get("torch") or saved[name]
        ratio = {key: value / saved[name][key] for key, value in found["gru_c"].items()}
        if arguments.rows:                                 # nobody trains on dx of these
            ratio = {key: value for key, value in ratio.items() if key.startswith(("dw", "db"))}
        ratios += ratio.values()
        print(f"{name:28}", *(f"{key} {value:.2f}" for key, value in ratio.items()), flush=True)
        if arguments.save:
            arguments.save.write_text(json.dumps(saved, indent=1) + "\n")
    mean, highest = geometric_mean(ratios), max(ratios)
    print(f"geometric mean {mean:.3f}, highest {highest:.2f}")
    return int(highest > MOST_RATIO or mean > MOST_MEAN)


if __name__ == "__main__":
    sys.exit(main())
