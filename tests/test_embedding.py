"""gru_c from other languages: where its header is, its functions by ctypes and cffi, handles of
models, threads that share one, Numba and SciPy.
"""

import ctypes
import gc
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from c_calls import Calls, address, api, checked, fresh, handled, packed
from family import arguments, build, case, cases
from helpers import F32, F64, assert_same_bits, at_once, normal, python, run
from hypothesis import given, settings
from hypothesis import strategies as st

import gru_c
from gru_c import GRU, GRUCell, ReverseGRU, cython_gru, embedding

INCLUDE = Path(gru_c.get_include())
SHARE = INCLUDE.parent / "share"
COMPILER = shutil.which(os.environ.get("CC") or "cc")

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")
drawing = settings(deadline=None, derandomize=True, database=None, max_examples=60)


def output_of(*command, **environment):
    return subprocess.run(command, capture_output=True, text=True, check=True,
                          env=os.environ | environment).stdout


# ---- where things are ----------------------------------------------------------------------------

def test_the_header_is_in_the_folder():
    assert "gru_options" in (INCLUDE / "gru_c.h").read_text()


def test_nothing_is_imported_before_it_is_asked_for():
    assert python("import sys, gru_c\n"
                  "assert not {'gru_c.embedding', 'gru_c.cython_gru'} & set(sys.modules)\n"
                  "gru_c._C_API, gru_c.get_include, gru_c.ctypes_api") == ""


def test_dir_has_what_is_imported_later():
    assert {*gru_c.__all__, "datasets", "interop", "learn"} <= set(dir(gru_c))


def test_the_capsule_can_be_imported_first():
    """As C does it, in an interpreter that has not imported gru_c."""
    assert python("import ctypes\n"
                  "get = ctypes.pythonapi.PyCapsule_Import\n"
                  "get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]\n"
                  "found = get(b'gru_c._C_API', 0)\n"
                  "import gru_c\n"
                  "assert found == gru_c.ctypes_api().table") == ""


@pytest.mark.parametrize(("option", "expected"), [
    ("--includes", f"-I{INCLUDE}"), ("--cmakedir", embedding.get_cmake_dir()),
    ("--pkgconfigdir", embedding.get_pkgconfig_dir())])
def test_the_command_prints_folders(option, expected):
    """On one line, however narrow the terminal is."""
    found = output_of(sys.executable, "-m", "gru_c", option, COLUMNS="20")
    assert found == f"{expected}\n"


@pytest.fixture
def moved(tmp_path):
    """The folders that C programs use, copied to another place, with a space in its name."""
    for name in ("include", "share"):
        shutil.copytree(INCLUDE.parent / name, tmp_path / "a folder" / name)
    return tmp_path / "a folder"


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="no pkg-config")
def test_pkg_config(moved):
    def found(option):
        return output_of("pkg-config", option, "gru_c",
                         PKG_CONFIG_PATH=str(moved / "share" / "pkgconfig")).strip()

    folder = found("--cflags").removeprefix("-I").replace("\\ ", " ")
    assert Path(folder).resolve() == moved / "include"
    assert found("--modversion") == gru_c.__version__


CMAKE_PROJECT = """\
cmake_minimum_required(VERSION 3.15)
project(example C)
find_package(gru_c {version} CONFIG REQUIRED)
add_library(example OBJECT example.c)
target_link_libraries(example PRIVATE gru_c::headers)
message(STATUS "gru_c is ${{gru_c_VERSION}}")
"""


def configure(folder, prefix, version):
    """The project that wants this version, configured; what cmake said."""
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text(CMAKE_PROJECT.format(version=version))
    (folder / "example.c").write_text('#include "gru_c.h"\nint version = GRU_ABI_VERSION;\n')
    return subprocess.run(["cmake", "-S", folder, "-B", folder / "build", f"-Dgru_c_DIR={prefix}"],
                          capture_output=True, text=True, check=False)


@needs_compiler
@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
def test_cmake(moved, tmp_path):
    prefix = moved / "share" / "cmake" / "gru_c"
    for version in ("", "0.0.1", gru_c.__version__):
        folder = tmp_path / f"wants-{version}"
        done = configure(folder, prefix, version)
        assert done.returncode == 0, done.stderr
        assert f"gru_c is {gru_c.__version__}\n" in done.stdout
    output_of("cmake", "--build", str(folder / "build"))
    newer = configure(tmp_path / "newer", prefix, "99.0")
    assert newer.returncode != 0
    assert f"version: {gru_c.__version__}" in newer.stderr


# ---- ctypes and cffi -----------------------------------------------------------------------------

LAYOUT = """\
#include <stdio.h>
#include "gru_c.h"
#define SHOW(member) printf("%zu\\n", offsetof(gru_options, member));
int main(void)
{{
    {members}
    printf("%zu\\n", sizeof(gru_options));
    {constants}
    return 0;
}}
"""


@needs_compiler
def test_options_and_constants_are_those_of_a_c_compiler(tmp_path):
    members = [name for name, _ in api.Options._fields_]
    constants = {name: value for name, value in vars(api).items() if name.startswith("GRU_")}
    source, program = tmp_path / "layout.c", tmp_path / "layout"
    source.write_text(LAYOUT.format(
        members="".join(f"SHOW({name})" for name in members),
        constants="".join(f'printf("%d\\n", {name});' for name in constants)))
    subprocess.run([COMPILER, f"-I{INCLUDE}", source, "-o", program], check=True)
    found = [int(line) for line in output_of(program).split()]
    assert found == [*(getattr(api.Options, name).offset for name in members),
                     ctypes.sizeof(api.Options), *constants.values()]
    assert len(members) == 31
    assert len(constants) == 1 + 19 + 3 + 13 + 3


def test_options():
    assert api.Options().struct_size == ctypes.sizeof(api.Options)
    assert api.Options(num_layers=2, clip=0.5).clip == 0.5
    with pytest.raises(AttributeError, match="bidirektional"):
        api.Options(bidirektional=1)
    with pytest.raises(AttributeError, match="bidirektional"):
        api.Options().bidirektional = 1


def test_names():
    assert api is gru_c.ctypes_api()
    for name, (place, _) in cython_gru.entries().items():
        assert ctypes.cast(getattr(api, name), ctypes.c_void_p).value == place
        assert api.address(name) == place
    with pytest.raises(AttributeError, match=r"gru_c\.h of this version .* has no 'gru_forwards'"):
        api.gru_forwards  # noqa: B018
    with pytest.raises(AttributeError, match="has no function 'GRU_OK'"):
        api.address("GRU_OK")


def test_arguments():
    shape, handle = (ctypes.c_ssize_t * 5)(), GRU(3, 4).handle()
    for model in (handle, handle.address, ctypes.c_void_p(handle.address)):
        shape[:] = [0] * 5
        checked(api.gru_model_shape(model, ctypes.byref(shape)))
        assert list(shape) == [3, 4, 1, 1, 4]
    assert api.gru_model_shape(None, shape) == api.GRU_NULL_POINTER
    assert api.gru_status_text(api.GRU_NOT_A_MODEL).startswith(b"no model")
    with pytest.raises(ctypes.ArgumentError):
        api.gru_model_shape(handle, np.empty(5))           # not an address
    with pytest.raises(TypeError, match="takes"):
        api.gru_model_shape(handle)


def test_cffi():
    ffi = pytest.importorskip("cffi").FFI()
    ffi.cdef(api.cdef)
    functions = ffi.cast("const gru_api *", api.table)
    assert functions.struct_size == ffi.sizeof("gru_api")
    assert functions.abi_version == api.GRU_ABI_VERSION
    assert ffi.string(functions.version).decode() == gru_c.__version__
    assert ffi.sizeof("gru_options") == ctypes.sizeof(api.Options)
    for name in cython_gru.entries():
        assert int(ffi.cast("uintptr_t", getattr(functions, name))) == api.address(name)
    shape, handle = ffi.new("ptrdiff_t[5]"), GRU(3, 4).handle()
    assert functions.gru_model_shape(ffi.cast("gru_model *", handle.address), shape) == ffi.typeof(
        "enum gru_status").relements["GRU_OK"]
    assert list(shape) == [3, 4, 1, 1, 4]


# ---- results -------------------------------------------------------------------------------------

@drawing
@given(cases(reverse=True), st.sampled_from([F32, F64]), st.sampled_from([1, 2]), st.booleans())
def test_every_option_by_handle_and_by_packing(case, dtype, threads, by_handle):
    """The bits of Python: forward, training and backward."""
    gru = build(case, dtype)
    with nullcontext(handled(gru, threads)) if by_handle else packed(gru, threads) as calls:
        call = arguments(gru, case)
        assert_same_bits(calls.train_on(call), run(gru, **call))
        call = {name: value for name, value in arguments(gru, case, backward=False).items()
                if name != "dropout_masks"}
        output, h_n = gru.eval()(**call)
        assert_same_bits(calls.forward_of(call), {"output": output, "h_n": h_n})


one_direction = st.builds(
    case, st.integers(1, 7), st.integers(1, 9), st.tuples(st.integers(1, 33), st.integers(1, 33)),
    seed=st.integers(0, 999), layers=st.integers(1, 3), bias=st.booleans(),
    reset_after=st.booleans(), absent=st.sampled_from([(), ("h_0",)]),
    activation=st.sampled_from(["tanh", "relu", "elu"]), clip=st.sampled_from([None, 2.0]))


@drawing
@given(one_direction, st.sampled_from([F32, F64]), st.sampled_from([1, 2]), st.integers(1, 4),
       st.integers(0, 7), st.booleans())
def test_streams_by_handle_and_by_packing(case, dtype, threads, max_steps, begin, by_handle):
    gru = build(case, dtype).eval()
    call = arguments(gru, case, backward=False)
    output, h_n = gru(**call)
    with nullcontext(handled(gru, threads)) if by_handle else packed(gru, threads) as calls:
        found = calls.stream_of(call, max_steps, min(begin, len(call["x"])))
    assert_same_bits(found, {"output": output, "h_n": h_n})


# ---- weights in fewer bits -----------------------------------------------------------------------

FEWER_BITS = [("bfloat16",), ("bfloat16", 16), ("int8",), ("int8", 12)]  # arguments of quantize


@drawing
@given(cases(reverse=True, dropout=()), st.sampled_from(FEWER_BITS), st.sampled_from([1, 2]),
       st.booleans())
def test_fewer_bits_by_handle_and_by_packing(case, bits, threads, by_handle):
    gru = build(case, F32).quantize(*bits)
    call = arguments(gru, case, backward=False)
    output, h_n = gru(**call)
    with nullcontext(handled(gru, threads)) if by_handle else packed(gru, threads) as calls:
        assert_same_bits(calls.forward_of(call), {"output": output, "h_n": h_n})


@drawing
@given(one_direction, st.sampled_from(FEWER_BITS), st.sampled_from([1, 2]), st.integers(1, 4),
       st.integers(0, 7), st.booleans())
def test_streams_of_fewer_bits_by_handle_and_by_packing(case, bits, threads, max_steps, begin,
                                                        by_handle):
    gru = build(case, F32).quantize(*bits)
    call = arguments(gru, case, backward=False)
    output, h_n = gru(**call)
    with nullcontext(handled(gru, threads)) if by_handle else packed(gru, threads) as calls:
        found = calls.stream_of(call, max_steps, min(begin, len(call["x"])))
    assert_same_bits(found, {"output": output, "h_n": h_n})


@pytest.mark.parametrize("bits", FEWER_BITS, ids=str)
@pytest.mark.parametrize(("I", "H"), [(1000, 40), (7, 300), (161, 400)])
@pytest.mark.parametrize(("T", "N"), [(1, 40), (30, 1), (30, 7), (5, 150)])
def test_large_layers_of_fewer_bits(bits, I, H, T, N):  # noqa: E741
    """With work for several threads."""
    gru, call = GRU(I, H, num_layers=2, rng=0).quantize(*bits), {"x": normal(T, N, I)}
    expected = dict(zip(("output", "h_n"), gru(**call), strict=True))
    with packed(gru, 4) as calls:
        for calls.threads in range(1, 5):
            assert_same_bits(calls.forward_of(call), expected)


@pytest.mark.parametrize("bits", FEWER_BITS, ids=str)
def test_a_workspace_of_fewer_bits_is_enough_for_fewer_threads(bits):
    """One that is too small is refused, so no other status may come."""
    for T, N, H in [(1000, 15, 16), (40, 12, 256), (9, 30, 130)]:
        gru = GRU(H, H, rng=0).quantize(*bits)
        x, calls = normal(T, N, H), handled(gru)
        for threads in range(1, 9):
            workspace = calls.memory("workspace_size", api.GRU_INFERENCE, T, N, threads, None)
            for fewer in range(1, threads + 1):
                calls.forward(calls.model, T, N, address(x), None, None, None, address(workspace),
                              workspace.size, fewer, None)


def never_written(gru, rows, pattern=0x7FC12345):
    """How many words of its workspace a call leaves as they were."""
    x, calls = normal(20, rows, gru.input_size), handled(gru)
    workspace = calls.memory("workspace_size", api.GRU_INFERENCE, 20, rows, 1, None)
    workspace.view(np.uint32)[:] = pattern
    calls.forward(calls.model, 20, rows, address(x), None, None, None, address(workspace),
                  workspace.size, 1, None)
    return np.count_nonzero(workspace.view(np.uint32) == pattern)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_padding_of_small_layers_is_written(rows, reset_after):
    """What fresh memory holds there may be denormals. 32 units have none, and as much memory."""
    def left(units):
        gru = GRU(4, units, reset_after=reset_after, rng=0).quantize("bfloat16", 16)
        return never_written(gru, rows)
    for units in (17, 20, 24):
        assert left(units) <= left(32) + 8 * rows


@pytest.mark.parametrize("bits", FEWER_BITS, ids=str)
def test_fewer_bits_have_no_training(bits):
    handle, x = GRU(3, 4).quantize(*bits).handle(), normal(1, 2, 3)
    size, room = ctypes.c_size_t(), np.zeros(1 << 16, np.uint8)
    given = (address(room), room.size, 1, None)
    assert handle.training is False
    for which in (api.GRU_TRAINING, api.GRU_BACKWARD):
        assert api.gru_workspace_size_f32(handle, which, 1, 2, 1, None, ctypes.byref(size)
                                          ) == api.GRU_NO_TRAINING
    assert api.gru_saved_size_f32(handle, 1, 2, None, ctypes.byref(size)) == api.GRU_NO_TRAINING
    assert api.gru_forward_training_f32(handle, 1, 2, address(x), None, None, None, address(room),
                                        room.size, *given) == api.GRU_NO_TRAINING
    assert api.gru_backward_f32(handle, 1, 2, None, None, None, None, None, address(room),
                                room.size, *given) == api.GRU_NO_TRAINING


@pytest.mark.parametrize("imported", ["import gru_c.cython_gru", "gru_c._C_API",
                                      "gru_c.ctypes_api()"])
def test_c_needs_no_python_for_fewer_bits(imported):
    """The kernels are there when the functions are, though Python has quantized nothing."""
    assert python(f"""
import ctypes, sys
import numpy as np, gru_c
assert not [name for name in sys.modules if "kernels_int8" in name]
{imported}
assert [name for name in sys.modules if "kernels_int8" in name]
api, gru, model = gru_c.ctypes_api(), gru_c.GRU(3, 20, rng=0), ctypes.c_void_p()
weights = list(gru.state_dict().values())
x = np.random.default_rng(0).standard_normal((5, 2, 3), np.float32)
found, room = np.empty((5, 2, 20), np.float32), np.empty(1 << 20, np.uint8)
assert api.gru_model_new_f32(3, 20, api.Options(weights=api.GRU_WEIGHTS_INT8),
                             ctypes.byref(model)) == 0
assert api.gru_model_pack_f32(model, 0, *(a.ctypes.data for a in weights)) == 0
assert api.gru_forward_f32(model, 5, 2, x.ctypes.data, None, found.ctypes.data, None,
                           room.ctypes.data, room.size, 1, None) == 0
np.testing.assert_array_equal(found, gru.quantize("int8")(x)[0])
""") == ""


def test_options_of_a_program_that_knows_no_storage():
    """Nothing past the end of its struct is read."""
    older = api.Options.weights.offset
    options = api.Options(struct_size=older, weights=99, x_bits=99)
    assert size_of("gru_model_size_f32", 30, 40, options) == size_of(
        "gru_model_size_f32", 30, 40, None)
    assert size_of("gru_model_size_f32", 30, 40, api.Options(weights=api.GRU_WEIGHTS_INT8)) < (
        size_of("gru_model_size_f32", 30, 40, None))
    for size in range(older + 1, ctypes.sizeof(options)):
        assert api.gru_model_size_f32(30, 40, api.Options(struct_size=size), ctypes.byref(
            ctypes.c_size_t())) == api.GRU_BAD_OPTIONS_SIZE


# ---- handles -------------------------------------------------------------------------------------

def test_attributes_of_a_handle():
    gru = GRU(3, 4, num_layers=2, bidirectional=True, dtype=F64, bias=False)
    handle = gru.handle()
    assert (handle.input_size, handle.hidden_size, handle.num_layers, handle.directions) == (
        3, 4, 2, 2)
    assert (handle.dtype, handle.training) == (F64, True)
    assert gru.eval().handle().training is False
    assert repr(handle) == (f"<Handle at {handle.address:#x}: float64, input_size=3, hidden_size=4,"
                            " num_layers=2, directions=2, training=True>")
    with pytest.raises(AttributeError):
        handle.training = False


@pytest.mark.parametrize("kind", [GRUCell, GRU, ReverseGRU])
def test_every_model_has_a_handle(kind, dtype):
    """A cell is a layer of one step; what runs backwards has no streams."""
    model = kind(3, 17, dtype=dtype, rng=0).eval()
    gru = GRU(3, 17, dtype=dtype) if kind is GRUCell else model
    x, h = normal(1, 5, 3, dtype=dtype), normal(1, 5, 17, dtype=dtype)
    found = Calls(model.handle(), gru).forward_of({"x": x, "h_0": h})["h_n"][0]
    expected = model(x[0], h[0]) if kind is GRUCell else model(x, h)[1][0]
    assert found.tobytes() == expected.tobytes()
    stream, suffix = ctypes.c_void_p(), "f32" if dtype == F32 else "f64"
    status = getattr(api, f"gru_stream_new_{suffix}")(model.handle(), 1, 1, 1, None,
                                                      ctypes.byref(stream))
    assert status == (api.GRU_NOT_CAUSAL if kind is ReverseGRU else api.GRU_OK)
    checked(api.gru_stream_free(stream))


def test_a_step_is_that_of_the_cell(dtype):
    cell = GRUCell(3, 17, dtype=dtype, rng=0)
    calls = Calls(cell.handle(), GRU(3, 17, dtype=dtype))
    x, h = normal(5, 3, dtype=dtype), normal(5, 17, dtype=dtype)
    workspace = calls.memory("workspace_size", api.GRU_INFERENCE, 1, 5, 1, None)
    expected = cell(x, h)
    calls.step(calls.model, 5, address(x), address(h), address(h), address(workspace),
               workspace.size, 1, None)                    # h_next may be h
    assert h.tobytes() == expected.tobytes()


def test_a_handle_outlives_its_model():
    gru = GRU(40, 70, num_layers=2, rng=0)
    call = {"x": normal(7, 3, 40)}
    expected, calls = run(gru, **call), handled(gru)
    del gru
    gc.collect()
    others = [GRU(40, 70, num_layers=2, rng=seed) for seed in range(1, 20)]   # in freed memory
    assert_same_bits(calls.train_on(call), expected)
    capsule = calls.model.capsule
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    calls.model = get(capsule, b"gru_c.model")             # the capsule alone is left
    gc.collect()
    others += [GRU(40, 70, num_layers=2, rng=seed) for seed in range(1, 20)]
    assert_same_bits(calls.train_on(call), expected)


def test_a_capsule_frees_what_it_kept():
    """Of 50 models of 3 MB and more, the memory of few is there at once."""
    tracemalloc.start()
    try:
        for _ in range(50):
            capsule = GRU(300, 300).handle().capsule
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert capsule is not None


def test_new_weights_are_those_of_a_new_handle():
    gru = GRU(3, 17, rng=0)
    call = {"x": normal(7, 3, 3)}
    before, expected = handled(gru), run(gru, **call)
    gru.weight_hh_l0 = 2 * gru.weight_hh_l0
    gru.eval()
    assert_same_bits(before.train_on(call), expected)
    changed = handled(gru).forward_of(call)
    assert_same_bits(changed, dict(zip(("output", "h_n"), gru(**call), strict=True)))
    assert not np.array_equal(changed["output"], expected["output"])


def test_a_handle_of_eval_mode_has_no_backward():
    calls = handled(GRU(3, 4).eval())
    assert api.gru_workspace_size_f32(
        calls.model, api.GRU_TRAINING, 1, 1, 1, None, ctypes.byref(ctypes.c_size_t())
    ) == api.GRU_NO_TRAINING


def test_c_can_neither_free_nor_change_a_handle():
    gru = GRU(3, 4)
    handle, weights = gru.handle(), list(gru.state_dict().values())
    given = [address(a) for a in weights]
    assert api.gru_model_free(handle) == api.GRU_NOT_A_MODEL
    assert api.gru_model_pack_f32(handle, 0, *given) == api.GRU_ALREADY_PACKED
    assert api.gru_model_pack_f64(handle, 0, *given) == api.GRU_OTHER_DTYPE


def test_a_handle_cannot_be_pickled():
    with pytest.raises(TypeError, match="pickle or copy the model"):
        pickle.dumps(GRU(3, 4).handle())


# ---- threads -------------------------------------------------------------------------------------

def test_eight_threads_that_share_a_handle():
    """At once, each of other sizes and with other options: the bits of one after the other."""
    gru = build(case(1, 1, (24, 40), layers=2, bidirectional=True), F32)
    sizes = [(1, 1), (7, 3), (20, 9), (33, 2), (5, 40), (64, 1), (12, 12), (3, 70)]
    ragged = [(), ("lengths",), ("mask",), ("resets",)] * 2
    calls = [arguments(gru, case(*size, (24, 40), layers=2, bidirectional=True, seed=seed,
                                 ragged=ragged[seed])) for seed, size in enumerate(sizes)]
    shared = [handled(gru, threads=1 + index % 2) for index in range(8)]
    for index in range(1, 8):
        shared[index].model = shared[0].model
    expected = [run(gru, **call) for call in calls]

    def work(index):
        return [shared[index].train_on(calls[index]) for _ in range(20)]

    for found, wanted in zip(at_once(*(lambda i=i: work(i) for i in range(8))), expected,
                             strict=True):
        for results in found:
            assert_same_bits(results, wanted)


# ---- Numba and SciPy -----------------------------------------------------------------------------

def test_numba_finds_the_functions():
    get = pytest.importorskip("numba.extending").get_cython_function_address
    for name in cython_gru.entries():
        assert get("gru_c.cython_gru", name) == api.address(name)


@pytest.mark.parametrize("bits", [None, *FEWER_BITS], ids=str)
def test_numba_calls_a_stream_in_a_loop(bits):
    numba = pytest.importorskip("numba")
    gru, x = GRU(3, 8, rng=0).eval(), normal(50, 1, 3)
    gru = gru.quantize(*bits) if bits else gru
    step = api.gru_stream_step_f32

    @numba.njit
    def total(stream, x, output):
        found = 0.0
        for t in range(len(x)):
            if step(stream, x[t].ctypes, output.ctypes) != 0:
                return np.nan
            found += output.sum()
        return found

    with handled(gru).stream(1, 1) as stream:
        found = total(stream.value, x, np.empty((1, 8), F32))
    assert found == pytest.approx(gru(x)[0].sum(), rel=1e-5)


def test_low_level_callable():
    callable_of = pytest.importorskip("scipy").LowLevelCallable.from_cython
    for name, (_, signature) in cython_gru.entries().items():
        assert callable_of(cython_gru, name).signature == signature


# ---- what a call refuses -------------------------------------------------------------------------

def size_of(name, *arguments):
    size = ctypes.c_size_t()
    checked(getattr(api, name)(*arguments, ctypes.byref(size)))
    return size.value


def test_a_workspace_is_enough_for_fewer_threads():
    """Of 4 threads, 15 rows are too few to share out; of 3 they are not, and each needs scratch."""
    handle = GRU(16, 16, rng=0).handle()
    sizes = [size_of("gru_workspace_size_f32", handle, api.GRU_BACKWARD, 1000, 15, threads, None)
             for threads in range(1, 9)]
    assert sizes == sorted(sizes)


def test_saved_activations_of_another_model_in_the_same_memory_are_refused():
    c = api
    options = c.Options(training=1)
    memory = np.zeros(max(size_of("gru_model_size_f32", 3, H, options) for H in (4, 64)), np.uint8)
    x, model = normal(1, 2, 3), ctypes.c_void_p()
    saved = workspace = None
    for H in (4, 64):
        weights = [normal(*shape) for shape in ((3 * H, 3), (3 * H, H), (3 * H,), (3 * H,))]
        checked(c.gru_model_init_f32(memory.ctypes.data, memory.size, 3, H, options,
                                     ctypes.byref(model)))
        checked(c.gru_model_pack_f32(model, 0, *(weight.ctypes.data for weight in weights)))
        if saved is None:
            saved = np.zeros(size_of("gru_saved_size_f32", model, 1, 2, options), np.uint8)
            workspace = np.zeros(1 << 20, np.uint8)
            checked(c.gru_forward_training_f32(
                model, 1, 2, x.ctypes.data, None, None, None, saved.ctypes.data, saved.size,
                workspace.ctypes.data, workspace.size, 1, options))
    assert c.gru_backward_f32(model, 1, 2, None, None, None, None, None, saved.ctypes.data,
                              saved.size, workspace.ctypes.data, workspace.size, 1,
                              options) == c.GRU_NOT_SAVED


@pytest.mark.parametrize("given", [{"output_row": 16}, {"output_step": 32}, {"x_row": 3},
                                   {"x_step": 6}])
def test_one_distance_of_a_pair_is_refused(given):
    c = api
    size = ctypes.c_size_t()
    assert c.gru_workspace_size_f32(GRU(3, 16).handle(), c.GRU_INFERENCE, 5, 2, 1,
                                    c.Options(**given), ctypes.byref(size)) == c.GRU_BAD_OPTION


def status_of_training(steps, rows, **given):
    """That of the size query of a layer of 3 inputs with these options."""
    return api.gru_workspace_size_f32(GRU(3, 4).handle(), api.GRU_TRAINING, steps, rows, 1,
                                      api.Options(x_stays=1, **given),
                                      ctypes.byref(ctypes.c_size_t()))


@pytest.mark.parametrize(("steps", "rows", "given", "expected"), [
    (5, 2, {}, "OK"),
    (5, 2, {"x_step": 6, "x_row": 3}, "OK"),
    (5, 2, {"x_step": 8, "x_row": 4}, "BAD_OPTION"),       # a gap after each row
    (5, 2, {"x_step": 7, "x_row": 3}, "BAD_OPTION"),
    (5, 2, {"x_step": -6, "x_row": 3}, "BAD_OPTION"),
    (5, 2, {"x_step": -6, "x_row": -3}, "BAD_OPTION"),
    (5, 1, {"x_step": 4, "x_row": 3}, "BAD_OPTION"),
    (5, 1, {"x_step": 3, "x_row": 9}, "OK"),               # there is no second row
    (1, 2, {"x_step": 9, "x_row": 3}, "OK"),
    (1, 2, {"x_step": 8, "x_row": 4}, "BAD_OPTION"),
    (1, 1, {"x_step": 9, "x_row": 9}, "OK"),
    (5, 0, {"x_step": 9, "x_row": 9}, "OK")])
def test_only_x_in_c_order_can_stay(steps, rows, given, expected):
    assert status_of_training(steps, rows, **given) == getattr(api, f"GRU_{expected}")


@pytest.mark.parametrize("name", ["lengths", "mask", "dropout_masks"])
def test_x_stays_is_read_by_training_alone(name):
    array = np.zeros(30, np.uintp)
    given = {name: address(array)}
    assert status_of_training(5, 2, **given) == api.GRU_BAD_OPTION
    options, size = api.Options(x_stays=1, x_step=9, x_row=4, **given), ctypes.c_size_t()
    handle = GRU(3, 4).handle()
    checked(api.gru_workspace_size_f32(handle, api.GRU_INFERENCE, 5, 2, 1, options,
                                       ctypes.byref(size)))
    checked(api.gru_stream_size_f32(handle, 2, 5, 1, options, ctypes.byref(size)))


@pytest.mark.parametrize("max_steps", [1, 4])
@pytest.mark.parametrize(("given", "expected"), [
    ({"x_row": 3}, "BAD_OPTION"), ({"output_row": 4}, "BAD_OPTION"),
    ({"x_step": 6}, "BAD_OPTION"), ({"x_step": 6, "x_row": 3}, "OK")])
def test_streams_need_both_distances(max_steps, given, expected):
    """With one step at a time, too: a run may have more."""
    assert api.gru_stream_size_f32(
        GRU(3, 4).handle(), 2, max_steps, 1, api.Options(**given), ctypes.byref(ctypes.c_size_t())
    ) == getattr(api, f"GRU_{expected}")


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("max_steps", [1, 2, 9])
def test_distances_of_a_stream(N, max_steps):
    gru, x = GRU(3, 17, rng=0).eval(), normal(7, N, 5)
    output, handle, stream = fresh((7, N, 20), F32), gru.handle(), ctypes.c_void_p()
    options = api.Options(x_step=5 * N, x_row=5, output_step=20 * N, output_row=20)
    checked(api.gru_stream_new_f32(handle, N, max_steps, 1, options, ctypes.byref(stream)))
    checked(api.gru_stream_run_f32(stream, 7, address(x), address(output)))
    checked(api.gru_stream_free(stream))
    assert output[..., :17].tobytes() == gru(x[..., :3])[0].tobytes()
    assert (output[..., 17:] == -77).all()


# ---- the ends of what a call takes ---------------------------------------------------------------

def test_more_threads_than_there_can_be():
    """The limit of a team is no error: `threads` is the most that a call may use."""
    gru = GRU(40, 128, rng=0)
    call = {"x": normal(20, 200, 40)}
    assert_same_bits(handled(gru, threads=1000).train_on(call), run(gru, **call))


@pytest.mark.parametrize("T", [1, 5])
def test_no_rows(T):
    """Gradients of parameters are zero."""
    gru = GRU(3, 4, num_layers=2, rng=0)
    found = handled(gru).train_on({"x": np.empty((T, 0, 3), F32)})
    assert found["output"].size == found["dx"].size == 0
    assert all(not found[name].any() for name in gru.state_dict())


@pytest.mark.parametrize("threads", [1, 2])
def test_flush_denormals(threads):
    """On every thread of the team, and only for the length of the call."""
    gru = GRU(1, 256, bias=False, rng=0).eval()
    calls, tiny = handled(gru, threads), np.float32(1e-40)
    call = {"x": np.zeros((1, 64, 1), F32), "h_0": np.full((1, 64, 256), tiny)}
    plain = calls.forward_of(call)
    assert plain["output"].all()
    calls.options = lambda arrays: api.Options(flush_denormals=1)
    assert not calls.forward_of(call)["output"].any()
    assert tiny * np.float32(0.5) != 0
    del calls.options
    assert_same_bits(calls.forward_of(call), plain)
