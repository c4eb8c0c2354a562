"""A GRU cell inside a Numba loop: each step's input holds what the step before has predicted.

Such a loop cannot be one call of gru(x). Numba compiles it whole; the cell is a call of C in it.
"""

import ctypes
import sys

import gru_c
import numpy as np
from numba import njit
from numba.extending import get_cython_function_address

# int gru_step_f32(model, rows, x, h, h_next, workspace, workspace_size, threads, options)
# Addresses are integers here: handle.address and array.ctypes.data go in as they are.
ADDRESS = ctypes.c_size_t
step = ctypes.CFUNCTYPE(
    ctypes.c_int, ADDRESS, ctypes.c_ssize_t, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ctypes.c_size_t,
    ctypes.c_int, ADDRESS,
)(get_cython_function_address("gru_c.cython_gru", "gru_step_f32"))


@njit(nogil=True)
def predict(model, workspace, signal, weight, predictions):
    """Predict each sample from the last one and the last prediction. Returns a status.

    signal (T), weight (H), predictions y (T): x_t = (signal_{t-1}, y_{t-1}) and
    y_t = tanh(weight . h_t).
    """
    x = np.zeros((1, 2), np.float32)
    h = np.zeros((1, weight.size), np.float32)
    for t in range(signal.size):
        status = step(model, 1, x.ctypes.data, h.ctypes.data, h.ctypes.data,
                      workspace.ctypes.data, workspace.size, 1, 0)
        if status != 0:
            return status
        y = np.float32(0)
        for k in range(weight.size):
            y += weight[k] * h[0, k]
        predictions[t] = np.tanh(y)
        x[0, 0] = signal[t]
        x[0, 1] = predictions[t]
    return 0


def predict_in_python(gru, signal, weight):
    """The same with gru.step."""
    x, h = np.zeros((1, 2), np.float32), None
    predictions = np.empty_like(signal)
    for t in range(signal.size):
        h = gru.step(x, h)
        predictions[t] = np.tanh(h[0, 0] @ weight)
        x = np.array([[signal[t], predictions[t]]], np.float32)
    return predictions


def main() -> int:
    gru = gru_c.GRU(2, 16, rng=0).eval()
    rng = np.random.default_rng(0)
    signal = np.sin(np.arange(1000) / 7).astype(np.float32)
    weight = rng.uniform(-0.5, 0.5, 16).astype(np.float32)

    handle = gru.handle()                  # keep it as long as its address is in use
    api = gru_c.ctypes_api()
    size = ctypes.c_size_t()
    api.gru_workspace_size_f32(handle, api.GRU_INFERENCE, 1, 1, 1, None, ctypes.byref(size))
    workspace = np.empty(size.value, np.uint8)
    predictions = np.empty_like(signal)
    status = predict(handle.address, workspace, signal, weight, predictions)
    if status != api.GRU_OK:
        print(api.gru_status_text(status).decode())
        return 1

    expected = predict_in_python(gru, signal, weight)
    worst = np.abs(predictions - expected).max()
    print(f"{signal.size} steps, greatest difference from gru.step: {worst:.1e}")
    return 0 if worst < 1e-5 else 1        # the sums of y differ in their order


sys.exit(main())
