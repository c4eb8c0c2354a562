"""The two engines of the products beside each other: our microkernel, and GEMM of BLAS.

`python bench/engines.py` prints, for each instruction set that this processor has, the GFLOP/s of a
whole layer's inference (T = 20, I = H, float32, one thread) with each engine, best of many turns.
For a fair AVX2 row start it with OPENBLAS_CORETYPE=Haswell, which holds OpenBLAS to AVX2.
"""

import argparse
import time

import numpy as np

import gru_c
from gru_c import _core

STEPS = 20
SIZES = [(128, 1), (128, 8), (128, 32), (256, 8), (256, 64), (512, 2), (512, 32)]


def rates(isa: str, hidden: int, rows: int, seconds: float) -> dict[str, float]:
    """GFLOP/s of each engine; a model is packed for the kernels that run it, so there are two."""
    x = np.random.default_rng(0).standard_normal((STEPS, rows, hidden)).astype(np.float32)
    models, best = {}, {}
    for engine in _core.ENGINES:
        _core.bind(_core.contexts(isa, engine))            # a layer keeps what it is packed for
        models[engine] = gru_c.GRU(hidden, hidden, rng=0).eval()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for engine, model in models.items():
            start = time.perf_counter()
            model(x)
            best[engine] = min(best.get(engine, np.inf), time.perf_counter() - start)
    operations = 2 * STEPS * rows * 3 * hidden * 2 * hidden
    return {engine: operations / took / 1e9 for engine, took in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each pair")
    seconds = parser.parse_args().seconds
    gru_c.set_num_threads(1)
    print("   H   N  instruction set   panel    BLAS")
    for isa in _core.core.instruction_sets():
        for hidden, rows in SIZES:
            found = rates(isa, hidden, rows, seconds)
            print(f"{hidden:4} {rows:3}  {isa:15} {found['panel']:7.0f} {found['blas']:7.0f}")


if __name__ == "__main__":
    main()
