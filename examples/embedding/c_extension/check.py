"""Run gru_blocks from four threads that share one model, and compare with gru(x) in Python."""

import sys
from concurrent.futures import ThreadPoolExecutor

import gru_blocks
import gru_c
import numpy as np


def main() -> int:
    gru = gru_c.GRU(8, 32, rng=0).eval()
    weights = gru.state_dict()
    model = gru_blocks.pack(*(weights[name] for name in (
        "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")))
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((100, rows, 8), np.float32) for rows in (1, 2, 5, 16)]
    outputs = [np.empty((*x.shape[:2], 32), np.float32) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(gru_blocks.forward, [model] * 4, inputs, outputs))
    for x, output in zip(inputs, outputs, strict=True):
        if not np.array_equal(output, gru(x)[0]):
            print(f"{x.shape}: differs from gru(x)")
            return 1
    try:
        gru_blocks.forward(model, inputs[0], outputs[1])
    except ValueError as error:
        print(f"a wrong shape is an error: {error}")
    else:
        print("a wrong shape is no error")
        return 1
    print("four threads, one model: the same bits as gru(x)")
    return 0


sys.exit(main())
