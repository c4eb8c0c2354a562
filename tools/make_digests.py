"""Write tests/fixtures/digests.json: digests of what the package computes, bit for bit.

    python tools/make_digests.py                    write the file
    python tools/make_digests.py --print N          print what N threads compute here, as JSON

SHA-256 of the output and of all gradients of seven shapes, both dtypes, both conventions, little
endian. The products are our own and the instruction set has fused multiply-adds: all such ones have
the same bits, and tests/test_digests.py compares each with the file. Inputs are integers of a
generator written out here, times a power of two, so that no library can change them. After a
change of the arithmetic, the file is made anew.
"""

import argparse
import hashlib
import json
import platform
import sys
from pathlib import Path

import numpy as np

from gru_c import GRU, _core, set_num_threads

FILE = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "digests.json"
SHAPES = (                                                 # T, N, I, H
    (1, 1, 16, 32),
    (300, 1, 1, 16),                                       # one row, many steps
    (7, 2, 3, 21),                                         # nothing is a multiple of a vector
    (5, 9, 13, 40),
    (3, 5, 100, 257),                                      # deep products, an odd end
    (12, 33, 64, 100),                                     # a sum over more rows than a block has
    (2, 14, 128, 512),                                     # weights that exceed the L2 cache
)


def integers(count, seed):
    """`count` integers from -2048 to 2047: the high bits of a linear congruential generator."""
    state, found = seed, []
    for _ in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        found.append((state >> 20) - 2048)
    return found


def numbers(shape, dtype, scale, seed):
    """An array of such integers times `scale`, a power of two: exact in both dtypes. A repeated
    cycle of a prime length, for the generator is slow."""
    cycle = np.array(integers(4099, seed), dtype) * np.dtype(dtype).type(scale)
    return np.resize(cycle, shape)


def results(shape, dtype, reset_after):
    """Output and gradients of one layer, by name."""
    T, N, I, H = shape  # noqa: E741  (the names that the shapes have everywhere)
    gru = GRU(I, H, dtype=dtype, reset_after=reset_after, rng=0)
    small = 2.0 ** -12 if H > 64 else 2.0 ** -11           # weights up to 0.5 or 1
    gru.load_state_dict({
        name: numbers(value.shape, dtype, small, seed)
        for seed, (name, value) in enumerate(sorted(gru.state_dict().items()), 1)})
    x, h_0 = numbers((T, N, I), dtype, 2.0 ** -10, 11), numbers((1, N, H), dtype, 2.0 ** -11, 12)
    output, h_n = gru(x, h_0)
    dx, dh_0 = gru.backward(numbers((T, N, H), dtype, 2.0 ** -11, 13),
                            numbers((1, N, H), dtype, 2.0 ** -11, 14))
    return {"output": output, "h_n": h_n, "dx": dx, "dh_0": dh_0, **gru.grads}


def digests():
    """{"T,N,I,H dtype convention": {quantity: SHA-256}} of what runs in this process."""
    found = {}
    for shape in SHAPES:
        for dtype in ("float32", "float64"):
            for convention, reset_after in (("after", True), ("before", False)):
                case = f"{','.join(map(str, shape))} {dtype} {convention}"
                found[case] = {
                    name: hashlib.sha256(value.astype(f"<f{value.itemsize}").tobytes()).hexdigest()
                    for name, value in results(shape, dtype, reset_after).items()}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--print", type=int, metavar="N", help="digests of N threads, to stdout")
    args = parser.parse_args()
    if args.print:
        set_num_threads(args.print)
        json.dump(digests(), sys.stdout)
        return
    if _core.isa == "baseline" and platform.machine().lower() not in ("arm64", "aarch64"):
        sys.exit("baseline x86-64 has no fused multiply-adds")
    if _core.engine != "panel":
        sys.exit("BLAS promises no bits: unset GRU_C_ENGINE")
    FILE.write_text(json.dumps(digests(), indent=1) + "\n")


if __name__ == "__main__":
    main()
