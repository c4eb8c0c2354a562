"""C programs without Python: the static library of tools/make_static_library.py, and what it does.

The programs are in c/ and in examples/embedding/. They are linked with the library alone, give the
bits of the package, and are refused what is wrong; steps neither allocate nor call the system.
"""

import importlib.util
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import family
import numpy as np
import pytest
from helpers import F32, STACKED, assert_same_bits, kernels_of

from gru_c import GRU, _activations, _core

HERE = Path(__file__).parent
ROOT = HERE.parent
EXAMPLES = ROOT / "examples" / "embedding"
MAKE_LIBRARY = ROOT / "tools" / "make_static_library.py"
PYTHON = re.compile(r"\b_?Py[A-Z_]\w*")
C_FLAGS = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")
CXX_FLAGS = ("-std=c++17", "-Wall", "-Wextra", "-pedantic", "-Werror")
INFERENCE, TRAINING, STREAM, STEPS = range(4)              # as in family.c
NO_SECCOMP = 77                                            # as in steps.c

COMPILER = shutil.which(os.environ.get("CC") or "cc")
CXX = shutil.which(os.environ.get("CXX") or "c++")

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="options of GNU binutils"),
    pytest.mark.skipif(not MAKE_LIBRARY.exists(), reason="no tools to make the library"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler"),
    pytest.mark.skipif(not all(map(shutil.which, ("ar", "nm", "objcopy"))), reason="no binutils"),
    pytest.mark.skipif(importlib.util.find_spec("Cython") is None, reason="no Cython"),
    pytest.mark.skipif(not Path(sysconfig.get_path("include"), "Python.h").exists(),
                       reason="no Python.h"),
]


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, check=False, **options)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The folder of the static library."""
    folder = tmp_path_factory.mktemp("gru_c")
    run(sys.executable, MAKE_LIBRARY, folder, "--cc", COMPILER)
    return folder


@pytest.fixture(scope="module")
def program(library, tmp_path_factory):
    """Compile a program of c/ and link it: its path."""
    folder = tmp_path_factory.mktemp("programs")

    def build(name, *flags, compiler=(COMPILER, *C_FLAGS)):
        target = folder / "-".join((name, *flags)).replace("/", "")
        run(*compiler, *flags, "-O1", f"-I{library / 'include'}", HERE / "c" / f"{name}.c",
            "-x", "none", library / "lib" / "libgru_c.a", "-lm", "-pthread", "-o", target)
        return target

    return build


# ---- the library ---------------------------------------------------------------------------------

def test_no_symbol_of_python_is_wanted(library):
    undefined = run("nm", "-u", library / "lib" / "libgru_c.a").decode()
    assert "pthread_create" in undefined                   # nm did look
    assert PYTHON.findall(undefined) == []


def test_only_the_names_of_the_header_are_global(library, tmp_path):
    defined = run("nm", "-g", "--defined-only", library / "lib" / "libgru_c.a").decode()
    names = set(re.findall(r" [A-Z] (\w+)$", defined, re.M))
    source = tmp_path / "names.c"
    source.write_text('#include "gru_c.h"\n#define SHOW(name, arguments) @name@\n'
                      "GRU_ALL_FUNCTIONS(SHOW)\n")
    shown = run(COMPILER, "-E", f"-I{library / 'include'}", source).decode()
    assert names == {*re.findall(r"@(\w+)@", shown), "gru_status_text"}


def test_pkg_config_and_cmake_find_it(library, tmp_path):
    """After it has been moved."""
    moved = tmp_path / "moved"
    shutil.copytree(library, moved)
    (tmp_path / "main.c").write_text('#include "gru_c.h"\n'
                                     "int main(void) { return gru_status_text(0) == 0; }\n")
    if shutil.which("pkg-config"):
        flags = run("pkg-config", "--cflags", "--libs", "gru_c", env=os.environ | {
            "PKG_CONFIG_PATH": str(moved / "lib" / "pkgconfig")}).decode().split()
        run(COMPILER, tmp_path / "main.c", *flags, "-o", tmp_path / "main")
        run(tmp_path / "main")
    if shutil.which("cmake"):
        (tmp_path / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.10)\nproject(main C)\n"
            "find_package(gru_c 0.1 REQUIRED)\nadd_executable(main main.c)\n"
            "target_link_libraries(main gru_c::gru_c)\n")
        run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={moved}")
        run("cmake", "--build", tmp_path / "build")
        run(tmp_path / "build" / "main")


# ---- the bits of the package ---------------------------------------------------------------------

@pytest.fixture(scope="module")
def answer(program):
    """What family.c makes of a case: a function of a model of the package, the case and a pass."""
    path = program("family")

    def ask(gru, case, wanted, threads):
        out = run(path, input=request(gru, case, wanted, threads))
        return unpack(np.frombuffer(out, gru.dtype), gru, case, wanted)

    return ask


def number_of(activation):
    """Of a gru_activation_name."""
    return 1 + list(_activations.DEFAULTS).index(activation.name)


def request(gru, case, wanted, threads):
    """The input of family.c."""
    call, item = case.complete() | case.call, gru.dtype.itemsize
    steps, rows, inputs = call["x"].shape
    given = [name in case.call for name in ("lengths", "mask", "resets")]
    parameters = [value for activation in (gru.activation, gru.recurrent_activation)
                  for value in (activation.alpha or 0.0, activation.beta or 0.0)]
    numbers = struct.pack(
        "21q5d", item, inputs, gru.hidden_size, gru.num_layers, gru.bidirectional,
        case.model.get("reverse", False), not gru.reset_after, number_of(gru.activation),
        number_of(gru.recurrent_activation), gru.bias, wanted, steps, rows, threads, *given,
        "h_0" in case.call, "dropout_masks" in case.call,
        (None, "bfloat16", "int8").index(gru.quantization), gru.x_bits or 0, *parameters,
        gru.clip or 0.0)
    arrays = [case.parameters[name] for name in names_of(case)]
    arrays += [call["x"], *([call["h_0"]] if "h_0" in case.call else [])]
    kinds = {"lengths": np.intp, "mask": np.uint8, "resets": np.uint8}
    arrays += [call[name].astype(kind) for name, kind in kinds.items() if name in case.call]
    if "dropout_masks" in case.call:
        masks = multipliers(case)
        arrays += [np.array([0 if mask is None else mask.size for mask in masks], np.int64)]
        arrays += [mask for mask in masks if mask is not None]
    arrays += [call["d_output"], call["d_h_n"]]
    return numbers + b"".join(family.converted(array, gru.dtype).tobytes() for array in arrays)


def ends_of(case):
    """What ends the names of each layer and direction."""
    return [f"l{layer}{end}" for layer in range(case.layers)
            for end in ("", "_reverse")[:case.directions]]


def names_of(case):
    return [f"{kind}_{end}" for end in ends_of(case) for kind in STACKED
            if case.model["bias"] or kind.startswith("weight")]


def multipliers(case):
    """Three for each layer and direction, in the order of gru_options.dropout_masks."""
    masks = case.call["dropout_masks"]
    return [masks.get(name) for end in ends_of(case)
            for name in (f"output_{end.partition('_')[0]}", f"input_{end}", f"recurrent_{end}")]


def unpack(numbers, gru, case, wanted):
    """Results by name, from the output of family.c."""
    call = case.complete()
    shapes = {}
    if wanted == TRAINING:
        shapes |= {"dx": call["x"].shape, "dh_0": call["h_0"].shape}
        shapes |= {name: case.parameters[name].shape for name in names_of(case)}
    shapes |= {"output": call["d_output"].shape, "h_n": call["h_0"].shape}
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])
    assert numbers.size == ends[-1]
    parts = np.split(numbers, ends[:-1])
    return {name: part.reshape(shape) for (name, shape), part in
            zip(shapes.items(), parts, strict=True)}


CASES = {
    "one layer": family.case(7, 3, (5, 17)),
    "layers": family.case(9, 4, (6, 33), layers=3, absent=("h_0",)),
    "many rows": family.case(4, 70, (12, 40), layers=2),
    "two directions": family.case(11, 3, (4, 20), layers=2, bidirectional=True),
    "reverse": family.case(6, 2, (3, 9), reverse=True, layers=2),
    "without bias": family.case(5, 2, (3, 8), bias=False),
    "reset before": family.case(8, 5, (7, 19), reset_after=False, layers=2),
    "ragged": family.case(9, 6, (5, 16), layers=2, bidirectional=True, ragged=("lengths",)),
    "mask": family.case(9, 6, (5, 16), layers=2, ragged=("mask", "resets")),
    "all rows": family.case(9, 6, (5, 16), layers=2, bidirectional=True, reset_after=False,
                            ragged=("lengths", "mask", "resets")),
    "dropout": family.case(7, 3, (5, 11), layers=3, bidirectional=True,
                           dropout=("output", "input", "recurrent")),
    "activations": family.case(6, 3, (4, 10), layers=2, clip=2.5,
                               activation={"name": "leaky_relu", "alpha": 0.2},
                               recurrent_activation={"name": "hard_sigmoid", "alpha": 0.25}),
    "no rows": family.case(4, 0, (3, 8), layers=2),
}
FEWER_BITS = [("bfloat16",), ("bfloat16", 16), ("int8",), ("int8", 12)]  # arguments of quantize


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_training_has_the_bits_of_the_package(answer, name, threads, dtype):
    case = CASES[name]
    with kernels_of(_core.core.instruction_sets()[0], "panel"):
        gru = family.build(case, dtype)
        assert_same_bits(answer(gru, case, TRAINING, threads), family.run_case(gru, case))


@pytest.mark.parametrize("name", [name for name in CASES if name != "dropout"])
def test_inference_has_the_bits_of_the_package(answer, name, dtype):
    case = CASES[name]
    with kernels_of(_core.core.instruction_sets()[0], "panel"):
        gru = family.build(case, dtype).eval()
        output, h_n = gru(**family.arguments(gru, case, backward=False))
        assert_same_bits(answer(gru, case, INFERENCE, 1), {"output": output, "h_n": h_n})


CAUSAL = [name for name, case in CASES.items()
          if case.directions == 1 and not {"mask", "lengths"} & set(case.call)
          and not case.model.get("reverse") and name != "no rows"]


@pytest.mark.parametrize("wanted", [STREAM, STEPS], ids=["stream", "steps"])
@pytest.mark.parametrize("name", CAUSAL)
def test_steps_have_the_bits_of_a_sequence(answer, name, wanted, dtype):
    case = CASES[name]
    with kernels_of(_core.core.instruction_sets()[0], "panel"):
        gru = family.build(case, dtype).eval()
        output, h_n = gru(**family.arguments(gru, case, backward=False))
        assert_same_bits(answer(gru, case, wanted, 1), {"output": output, "h_n": h_n})


@pytest.mark.parametrize("bits", FEWER_BITS, ids=str)
@pytest.mark.parametrize("name", [name for name in CASES if name != "dropout"])
def test_fewer_bits_have_the_bits_of_the_package(answer, name, bits):
    """The library gets the weights of the float model, and rounds them."""
    case = CASES[name]
    with kernels_of(_core.core.instruction_sets()[0], "panel"):
        gru = family.build(case, F32).quantize(*bits)
        output, h_n = gru(**family.arguments(gru, case, backward=False))
        for wanted in (INFERENCE, STREAM, STEPS) if name in CAUSAL else (INFERENCE,):
            assert_same_bits(answer(gru, case, wanted, 2), {"output": output, "h_n": h_n})


# ---- wrong arguments, threads --------------------------------------------------------------------

@pytest.mark.parametrize("flags", [(), ("-DDOUBLE",)], ids=["float32", "float64"])
def test_wrong_arguments_get_a_status_and_nothing_is_written(program, flags):
    assert run(program("wrong", *flags)) == b"0 wrong\n"


def test_threads_that_share_a_model_get_the_bits_of_one(program):
    assert run(program("threads")) == b"0 results with other bits\n"


def test_a_forked_child_starts_threads_of_its_own(program):
    assert run(program("threads"), "fork") == b"0 results with other bits\n"


@pytest.mark.skipif(CXX is None, reason="no C++ compiler")
def test_the_header_is_cpp_too(program):
    program("threads", compiler=(CXX, "-x", "c++", *CXX_FLAGS))


# ---- what steps do besides arithmetic ------------------------------------------------------------

def test_ten_thousand_steps_allocate_nothing(program):
    before, in_steps = map(int, run(program("steps"), "malloc").split())
    assert before > 0                                      # it does count
    assert in_steps == 0


def test_ten_thousand_steps_make_no_system_call(program):
    path = program("steps")
    done = subprocess.run([path, "calls"], capture_output=True, check=False)
    if done.returncode == NO_SECCOMP:
        pytest.skip("no seccomp")
    assert (done.returncode, done.stdout) == (0, b"done\n")
    killed = subprocess.run([path, "getpid"], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL            # it does look


def test_silence_takes_no_longer_than_samples(program):
    """The promise is 1.1; the least of some attempts, since other processes disturb the clock. Some
    processors are as fast with denormal numbers: there it counts that there are none."""
    attempts = [run(program("steps"), "silence").split() for _ in range(3)]
    assert min(float(ratio) for ratio, _ in attempts) <= 1.2
    assert {int(denormal) for _, denormal in attempts} == {0}


# ---- the examples --------------------------------------------------------------------------------

def copied(name, tmp_path):
    """A copy of an example, in which its own files alone are."""
    target = tmp_path / name
    shutil.copytree(EXAMPLES / name, target, ignore=shutil.ignore_patterns("*.o", "weights.h"))
    return target


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("bias", [True, False])
def test_the_example_in_c_runs_a_saved_model(library, tmp_path, bias):
    pytest.importorskip("safetensors")
    folder = copied("c_program", tmp_path)
    gru = GRU(3, 10, 2, bias=bias, rng=0).eval()
    gru.save(tmp_path / "model.safetensors")
    x = np.random.default_rng(1).standard_normal((20, 1, 3), F32)
    text = "\n".join(" ".join(f"{number:.9g}" for number in row) for row in x[:, 0])
    run("make", "-C", folder, f"GRU_C={library}", f"CC={COMPILER}", "CFLAGS=-O1 -Werror")
    out = run(folder / "stream", tmp_path / "model.safetensors", input=text.encode())
    got = np.array(out.split(), F32).reshape(20, 1, 10)
    with kernels_of(_core.core.instruction_sets()[0], "panel"):
        assert_same_bits({"output": got}, {"output": gru(x)[0]})


def broken_files(whole):
    """Files that are no model, from one that is."""
    size = int.from_bytes(whole[:8], "little")
    header = whole[8:8 + size]
    yield from (whole[:cut] for cut in (0, 7, 8, 20, 8 + size, len(whole) - 1))
    yield (1 << 63).to_bytes(8, "little") + whole[8:]
    for old, new in ((b"F32", b"F16"), (b"[0,", b"[1,"), (b"data_offsets", b"data_offsetz"),
                     (b"weight_hh_l0", b"weight_hx_l0"), (b'"shape":[30,10]', b'"shape":[90,10]'),
                     (b'"shape":[30,10]', b'"shape":[31,10]'), (b"{", b"["), (b":", b",")):
        yield whole[:8] + header.replace(old, new) + whole[8 + size:]
    yield whole[:8] + b"{" * size + whole[8 + size:]
    yield whole[:8] + b'"' * size + whole[8 + size:]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_the_example_in_c_refuses_broken_files(library, tmp_path):
    """Under AddressSanitizer, which ends it with another status than its own."""
    pytest.importorskip("safetensors")
    folder = copied("c_program", tmp_path)
    GRU(3, 10, rng=0).save(tmp_path / "model.safetensors")
    run("make", "-C", folder, f"GRU_C={library}", f"CC={COMPILER}",
        "CFLAGS=-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined")
    for content in broken_files((tmp_path / "model.safetensors").read_bytes()):
        (tmp_path / "broken.safetensors").write_bytes(content)
        done = subprocess.run([folder / "stream", tmp_path / "broken.safetensors"], input=b"",
                              capture_output=True, check=False,
                              env=os.environ | {"ASAN_OPTIONS": "exitcode=99:detect_leaks=0"})
        assert done.returncode == 1, (content[:300], done.stderr)
        assert done.stderr.startswith(b"stream: ")


@pytest.mark.skipif(shutil.which("make") is None or CXX is None, reason="no make or C++ compiler")
def test_the_plug_in_gives_the_same_in_blocks_of_any_size(library, tmp_path):
    folder = copied("cpp_plugin", tmp_path)
    source = Path(_core.__file__).parents[2]
    run("make", "-C", folder, f"GRU_C={library}", f"CXX={CXX}", f"PYTHON={sys.executable}",
        "CXXFLAGS=-O1 -Werror", env=os.environ | {"PYTHONPATH": str(source)})
    assert b"the same in blocks of any size" in run(folder / "plugin")
