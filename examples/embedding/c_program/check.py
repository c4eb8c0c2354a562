"""Run ./stream over samples and compare with gru(x) in Python."""

import subprocess
import sys

import gru_c
import numpy as np


def main() -> int:
    gru = gru_c.GRU(3, 16, num_layers=2, rng=0).eval()
    gru.save("model.safetensors")
    x = np.random.default_rng(0).standard_normal((200, 3), np.float32)
    lines = "".join(" ".join(f"{value:.9g}" for value in sample) + "\n" for sample in x)
    done = subprocess.run(["./stream", "model.safetensors"], input=lines, stdout=subprocess.PIPE,
                          text=True, check=True)
    output = np.array(done.stdout.split(), np.float32).reshape(-1, 16)
    worst = np.abs(output - gru(x)[0]).max() if len(output) == len(x) else np.inf
    print(f"{len(output)} samples, greatest difference from gru(x): {worst:.1e}")
    return 0 if worst < 1e-6 else 1


sys.exit(main())
