"""A GRU through ctypes, and the same through cffi: rows of different lengths, then a stream."""

import ctypes
import sys

import gru_c
import numpy as np

api = gru_c.ctypes_api()                                   # every function of gru_c.h
GRU_INFERENCE = 0


def check(status: int) -> None:
    """Raise what a status other than GRU_OK says."""
    if status != 0:
        raise RuntimeError(api.gru_status_text(status).decode())


def forward(model, x, lengths, hidden: int):
    """Output (T, N, H) for x (T, N, I), of which row n has lengths[n] steps."""
    steps, rows, _ = x.shape
    options = api.Options(lengths=lengths.ctypes.data)     # struct_size is set already
    size = ctypes.c_size_t()
    check(api.gru_workspace_size_f32(model, GRU_INFERENCE, steps, rows, 1, ctypes.byref(options),
                                     ctypes.byref(size)))
    workspace = np.empty(size.value, np.uint8)
    output = np.empty((steps, rows, hidden), np.float32)
    check(api.gru_forward_f32(model, steps, rows, x.ctypes.data, None, output.ctypes.data, None,
                              workspace.ctypes.data, size.value, 1, ctypes.byref(options)))
    return output


def stream(model, x, hidden: int):
    """Output (T, N, H), one step after the other."""
    steps, rows, _ = x.shape
    output = np.empty((steps, rows, hidden), np.float32)
    pointer = ctypes.c_void_p()
    check(api.gru_stream_new_f32(model, rows, 1, 1, None, ctypes.byref(pointer)))
    for t in range(steps):
        check(api.gru_stream_step_f32(pointer, x[t].ctypes.data, output[t].ctypes.data))
    check(api.gru_stream_free(pointer))
    return output


def step_with_cffi(model: int, x, h, workspace):
    """The state after one step, h (1, N, H), of no steps before it."""
    import cffi

    ffi = cffi.FFI()
    step = ffi.cast(
        "int (*)(void *, ptrdiff_t, float *, float *, float *, void *, size_t, int, void *)",
        api.address("gru_step_f32"))
    check(step(ffi.cast("void *", model), len(x), ffi.from_buffer("float[]", x), ffi.NULL,
               ffi.from_buffer("float[]", h), ffi.from_buffer(workspace), workspace.size, 1,
               ffi.NULL))
    return h


def main() -> int:
    gru = gru_c.GRU(8, 32, rng=0).eval()
    x = np.random.default_rng(0).standard_normal((50, 4, 8), np.float32)
    lengths = np.array([50, 7, 0, 23], np.intp)
    expected, _ = gru(x)
    expected_ragged, _ = gru(x, lengths=lengths)
    handle = gru.handle()
    model = handle.address

    good = np.array_equal(forward(model, x, lengths, 32), expected_ragged)
    print("forward with lengths:", "the bits of gru(x)" if good else "differs")
    same = np.array_equal(stream(model, x, 32), expected)
    print("stream:", "the bits of gru(x)" if same else "differs")
    good = good and same
    try:
        h = step_with_cffi(model, x[0], np.empty((1, 4, 32), np.float32), np.empty(10**6, np.uint8))
    except ModuleNotFoundError:
        print("cffi is not installed")
    else:
        same = np.array_equal(h[0], expected[0])
        print("cffi:", "the bits of gru(x)" if same else "differs")
        good = good and same
    return 0 if good else 1


sys.exit(main())
