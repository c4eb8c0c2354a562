"""A loop with a deadline: blocks of 64 samples at 48 kHz, each to be done before the next arrives.

Prints, for a loop in Python and for one in Cython (block_loop.pyx, if it is built), the median, the
99.9th percentile and the worst latency: of the GRU alone, and from the arrival of a block to its
result, which has the time that the operating system takes to wake the loop, too.
"""

import argparse
import gc
import sys
import time

import gru_c
import numpy as np

RATE, BLOCK = 48_000, 64
PERIOD = BLOCK * 10**9 // RATE                             # ns: 1.33 ms


def run_blocks(stream, blocks, output, period, woken, done):
    """What block_loop.run_blocks does, in Python."""
    due = time.monotonic_ns()
    for i in range(len(done)):
        due += period
        k = i % len(blocks)
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        woken[i] = time.monotonic_ns() - due
        stream.run(blocks[k], out=output[k])
        done[i] = time.monotonic_ns() - due


def report(name, latencies):
    """One line of the table, in microseconds, and how many blocks came too late."""
    median, high = np.percentile(latencies, [50, 99.9]) / 1e3
    late = np.sum(latencies > PERIOD)
    print(f"{name:<28}{median:10.1f}{high:10.1f}{latencies.max() / 1e3:10.1f}{late:8}")


def measure(name, loop, gru, seconds):
    """Run the loop, print its latencies, return whether its results are those of gru(x)."""
    count = max(1, round(seconds * 1e9 / PERIOD))
    kinds = min(count, RATE // BLOCK)                      # a second of noise, again and again
    blocks = np.random.default_rng(0).standard_normal((kinds, BLOCK, 1, 1), np.float32)
    output = np.zeros((kinds, BLOCK, 1, gru.hidden_size), np.float32)
    woken, done = np.zeros(count, np.int64), np.zeros(count, np.int64)
    stream = gru.stream(1)
    gc.disable()                                           # no pause for garbage inside the loop
    try:
        loop(stream, blocks, output, PERIOD, woken, done)
    finally:
        gc.enable()
    report(f"{name}: the GRU", done - woken)
    report(f"{name}: arrival to result", done)
    return np.array_equal(output, expected_output(gru, blocks, count))


def expected_output(gru, blocks, count):
    """What the loop leaves in `output`: gru(x) over all of it, each second over the one before."""
    expected, h = np.empty((*blocks.shape[:3], gru.hidden_size), np.float32), None
    for start in range(0, count, len(blocks)):
        part = blocks[:count - start]
        output, h = gru(part.reshape(-1, 1, 1), h)
        expected[:len(part)] = output.reshape(-1, *expected.shape[1:])
    return expected


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--hidden", type=int, default=40)
    arguments = parser.parse_args()
    gru = gru_c.GRU(1, arguments.hidden, rng=0).eval()
    loops = {"Python": run_blocks}
    try:
        import block_loop
        loops["Cython"] = block_loop.run_blocks
    except ModuleNotFoundError:
        print("block_loop is not built: Python only")
    print(f"H = {arguments.hidden}, {arguments.seconds:g} s each, deadline {PERIOD / 1e3:.0f} us")
    print(f"{'microseconds':<28}{'median':>10}{'99.9 %':>10}{'worst':>10}{'late':>8}")
    same = [measure(name, loop, gru, arguments.seconds) for name, loop in loops.items()]
    print("the same bits as gru(x)" if all(same) else "differs from gru(x)")
    return 0 if all(same) else 1


sys.exit(main())
