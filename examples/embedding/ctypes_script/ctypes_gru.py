"""A GRU through ctypes, and the same through cffi: rows of different lengths, then a stream."""

import ctypes
import sys

import gru_c
import numpy as np

api = gru_c.ctypes_api()               # every function and every constant of gru_c.h


def check(status: int) -> None:
    """Raise what a status other than GRU_OK says."""
    if status != api.GRU_OK:
        raise RuntimeError(api.gru_status_text(status).decode())


def forward(model, x, lengths, hidden: int):
    """Output (T, N, H) for x (T, N, I), of which row n has lengths[n] steps."""
    steps, rows, _ = x.shape
    options = api.Options(lengths=lengths.ctypes.data)     # struct_size is set already
    size = ctypes.c_size_t()
    check(api.gru_workspace_size_f32(model, api.GRU_INFERENCE, steps, rows, 1, options,
                                     ctypes.byref(size)))
    workspace = np.empty(size.value, np.uint8)
    output = np.empty((steps, rows, hidden), np.float32)
    check(api.gru_forward_f32(model, steps, rows, x.ctypes.data, None, output.ctypes.data, None,
                              workspace.ctypes.data, size.value, 1, options))
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


def step_with_cffi(handle, x, hidden: int):
    """The state (1, N, H) after one step from zeros."""
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(api.cdef)
    functions = ffi.cast("const gru_api *", api.table)
    model = ffi.cast("const gru_model *", handle.address)
    size, h = ffi.new("size_t *"), np.empty((1, len(x), hidden), np.float32)
    check(functions.gru_workspace_size_f32(model, api.GRU_INFERENCE, 1, len(x), 1, ffi.NULL, size))
    check(functions.gru_step_f32(model, len(x), ffi.from_buffer("float[]", x), ffi.NULL,
                                 ffi.from_buffer("float[]", h), ffi.new("char[]", size[0]), size[0],
                                 1, ffi.NULL))
    return h


def main() -> int:
    gru = gru_c.GRU(8, 32, rng=0).eval()
    x = np.random.default_rng(0).standard_normal((50, 4, 8), np.float32)
    lengths = np.array([50, 7, 0, 23], np.intp)
    expected, _ = gru(x)
    expected_ragged, _ = gru(x, lengths=lengths)
    model = gru.handle()               # ctypes takes it as a pointer; it keeps the weights alive

    good = np.array_equal(forward(model, x, lengths, 32), expected_ragged)
    print("forward with lengths:", "the bits of gru(x)" if good else "differs")
    same = np.array_equal(stream(model, x, 32), expected)
    print("stream:", "the bits of gru(x)" if same else "differs")
    good = good and same
    try:
        h = step_with_cffi(model, x[0], 32)
    except ModuleNotFoundError:
        print("cffi is not installed")
    else:
        same = np.array_equal(h[0], expected[0])
        print("cffi:", "the bits of gru(x)" if same else "differs")
        good = good and same
    return 0 if good else 1


sys.exit(main())
