"""Run a client of tools/check_abi.py, named in the argument: print a digest of all its results.

They are the bits of gru_c from Python, or this fails.
"""

import hashlib
import importlib
import sys

import numpy as np

import gru_c

T, N, I, H = 9, 3, 5, 20  # noqa: E741
rng = np.random.default_rng(1)
x = rng.standard_normal((T, N, I)).astype(np.float32)
d_output = rng.standard_normal((T, N, H)).astype(np.float32)


def results(client, model):
    """Of a model's address."""
    output, dx, streamed = np.empty((T, N, H), "f"), np.empty_like(x), np.empty((T, N, H), "f")
    at_x = x.ctypes.data
    for status in (client.forward(model, T, N, at_x, output.ctypes.data),
                   client.backward(model, T, N, at_x, d_output.ctypes.data, dx.ctypes.data),
                   client.steps(model, T, N, I, H, at_x, streamed.ctypes.data)):
        if status:
            sys.exit(f"status {status}")
    return [output, dx, streamed]


client = importlib.import_module(sys.argv[1])
gru = gru_c.GRU(I, H, rng=0)
weights = list(gru.state_dict().values())  # kept: their addresses go in
status, made = client.make(I, H, *(a.ctypes.data for a in weights))
if status:
    sys.exit(f"status {status}")
handle = gru.handle()
found = results(client, handle.address) + results(client, made)
if client.discard(made):
    sys.exit("the model was not freed")
output, _ = gru(x)
dx, _ = gru.backward(d_output)
for array, wanted in zip(found, 2 * [output, dx, output], strict=True):
    np.testing.assert_array_equal(array, wanted)
print(hashlib.sha256(b"".join(a.tobytes() for a in found)).hexdigest())
