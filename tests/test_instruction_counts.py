"""tools/count_instructions.py: what it reads of callgrind's files, and what fails."""

import importlib.util
import json
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "count_instructions.py"
CALLGRIND = """\
desc: Trigger: Client Request: 3,1,1,16 float32 after forward
events: Ir
ob=/usr/lib/libc.so.6
fn=memcpy
0 1000
ob=/x/gru_c/_core/kernels_avx2.cpython-311-x86_64-linux-gnu.so
fn=__pyx_fuse_0__pyx_f_5gru_c_5_core_12kernels_avx2_gates_forward
0 100
cob=/usr/lib/libc.so.6
cfn=memcpy
calls=2 0
0 1000
0 7
fn=__pyx_fuse_1__pyx_f_5gru_c_5_core_12kernels_avx2_gates_forward.isra.0
0 50
fn=gemm_f32
0 21
fn=small_helper
0 9
ob=/x/gru_c/_core/core.cpython-311-x86_64-linux-gnu.so
fn=__pyx_fuse_0__pyx_f_5gru_c_5_core_4core_pack_b.constprop.0
0 5
fn=__pyx_fuse_0__pyx_f_5gru_c_5_core_4core_pack_b
0 6
fn=__pyx_f_5gru_c_5_core_4core_place_workspace
0 30
ob=/x/gru_c/_core/gemm/blas.cpython-311-x86_64-linux-gnu.so
fn=__pyx_f_5gru_c_5_core_4gemm_4blas_call_gemm
0 40
ob=/x/gru_c/_core/binding.cpython-311-x86_64-linux-gnu.so
fn=__pyx_pw_5gru_c_5_core_7binding_1x
0 2
totals: 2200
"""
KERNELS = {"kernel gates_forward_f32": 107, "kernel gates_forward_f64": 50, "kernel gemm_f32": 21,
           "kernel pack_b_f32": 11}


@pytest.fixture
def tool(tmp_path):
    if not TOOL.exists():
        pytest.skip("tools/ is not here")
    spec = importlib.util.spec_from_file_location("count_instructions", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.FILE, module.LEAST = tmp_path / "counts.json", 10
    return module


def test_what_is_counted(tool):
    """Nothing of a callee for its caller, nothing outside the core, of functions no small ones."""
    name, functions = tool.parse(CALLGRIND)
    assert name == "3,1,1,16 float32 after forward"
    assert tool.totals([(name, functions)]) == {name: 270, **KERNELS}
    twice = {name: 2 * count for name, count in {**KERNELS, "kernel small_helper": 9}.items()}
    both = tool.totals([("one", functions), ("two", functions)])
    assert both == {"one": 270, "two": 270, **twice}
    assert tool.parse("events: Ir\n") is None


def test_a_core_without_names_is_refused(tool):
    name, functions = tool.parse(CALLGRIND.replace("_gates", "_0x1eb0"))
    with pytest.raises(SystemExit, match="no names of functions"):
        tool.totals([(name, functions)])


@pytest.mark.parametrize(("name", "count", "fails"), [
    ("a call", 10_190, False),
    ("a call", 10_210, True),
    ("kernel gates_forward_f32", 10_045, False),
    ("kernel gates_forward_f32", 10_055, True),
    ("kernel gates_forward_f32", 9_000, False),
])
def test_what_fails(tool, name, count, fails):
    problems, notes = tool.compare({name: count}, {name: {"first": 10_000, "count": 10_000}})
    assert (len(problems), len(notes)) == ((1, 0) if fails else (0, 1))


def test_the_sum_of_small_rises_fails(tool):
    for name in ("a call", "kernel gates_forward_f32"):
        problems, _ = tool.compare({name: 10_500}, {name: {"first": 10_000, "count": 10_490}})
        assert len(problems) == 1


def test_what_comes_and_goes_fails(tool):
    problems, _ = tool.compare({"kernel a": 1}, {"kernel b": {"first": 1, "count": 1}})
    assert problems == ["kernel a is not recorded", "kernel b is recorded, but was not counted"]


def test_a_rise_is_recorded_beside_the_first_count(tool):
    tool.accept({"a call": 100, "kernel a": 1000}, None, {"compiler": "gcc 12"}, "the first")
    recorded = json.loads(tool.FILE.read_text())
    counts = {"a call": 103, "kernel a": 990, "kernel b": 7}
    tool.accept(counts, recorded, {"compiler": "gcc 12"}, "a reason")
    recorded = json.loads(tool.FILE.read_text())
    assert recorded["calls"] == {"a call": {"first": 100, "count": 103},
                                 "kernel a": {"first": 1000, "count": 990},
                                 "kernel b": {"first": 7, "count": 7}}
    assert [entry["reason"] for entry in recorded["reasons"]] == ["the first", "a reason"]
    with pytest.raises(SystemExit, match=r"kernel a: 1050 is 5% or more above the first count"):
        tool.accept({"kernel a": 1050}, recorded, {}, "another")
