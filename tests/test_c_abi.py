"""What gru_c promises to compiled programs never changes: compared with fixtures/c_abi.json.

tools/make_c_abi.py makes that file, and says how to add something.
"""

import copy
import ctypes
import importlib.util
import json
import re
from pathlib import Path

import pytest

import gru_c
from gru_c import cython_gru

HERE = Path(__file__).parent
TOOL = HERE.parent / "tools" / "make_c_abi.py"
PINNED = json.loads((HERE / "fixtures" / "c_abi.json").read_text())


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_c_abi", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_has_changed(tool):
    difference = tool.explain(PINNED, tool.snapshot())
    assert not difference, difference


def test_the_pinned_functions_are_all_that_is_exported():
    assert {*PINNED["exports"]} == {*cython_gru.__pyx_capi__}
    assert [*PINNED["exports"]] == [re.findall(r"gru_\w+", member)[0]
                                    for member in PINNED["table"][3:]]


def test_the_table_in_memory():
    """struct_size, abi_version and the version, then the functions in their order."""
    api, word = gru_c.ctypes_api(), ctypes.sizeof(ctypes.c_void_p)
    names = [*PINNED["exports"]]
    words = (ctypes.c_size_t * (3 + len(names))).from_address(api.table)
    assert words[0] == ctypes.sizeof(words)
    assert ctypes.c_int.from_address(api.table + word).value == PINNED["abi_version"]
    assert ctypes.string_at(words[2]).decode() == gru_c.__version__
    assert words[3:] == [api.address(name) for name in names]


def test_header_and_pxd_have_the_same_signatures(tool):
    """The compiler sees no difference: the table is filled by name."""
    def as_cython(argument):
        kind = re.sub(r"\w+$", "", argument)               # without the name
        return re.sub(r"^const ((?:unsigned )?\w+)", r"\1 const", kind).strip()

    declared = {name: ", ".join(map(as_cython, arguments.split(", ")))
                for name, arguments in tool.prototypes(tool.header()).items()}
    exported = dict(PINNED["exports"])
    assert exported.pop("gru_status_text") == "char const *(int)"
    assert exported == {name: f"int ({arguments})" for name, arguments in declared.items()}


def test_pxd_declares_all_options_and_constants():
    text = (Path(gru_c.__file__).parent / "cython_gru.pxd").read_text()
    struct = text.partition("ctypedef struct gru_options:\n")[2].partition("\n\n")[0]
    members = [re.findall(r"(\w+) \(", member)[0] for member in PINNED["options"]["members"]]
    assert re.findall(r"(\w+)$", struct, re.MULTILINE) == members
    constants = {item.partition(" ")[0] for items in PINNED["enums"].values() for item in items}
    assert {*re.findall(r"\bGRU_\w+", text)} == constants | {"GRU_ABI_VERSION"}


def added(snapshot):
    """What may be done."""
    snapshot["table"].append("int gru_new(int n)")
    snapshot["exports"]["gru_new"] = "int (int)"
    snapshot["enums"]["gru_status"].append("GRU_NEW = 19")
    snapshot["enums"]["gru_other"] = ["GRU_OTHER = 0"]
    snapshot["options"]["members"].append("200: int extra (4 bytes)")
    snapshot["options"]["size"] = 208


def swap(items, i, j):
    items[i], items[j] = items[j], items[i]


BREAKS = {
    "version": lambda s: s.update(abi_version=2),
    "function removed": lambda s: s["table"].pop(),
    "function renamed": lambda s: s["table"].__setitem__(5, "int gru_other(int n)"),
    "function in between": lambda s: s["table"].insert(20, "int gru_new(int n)"),
    "order of functions": lambda s: swap(s["table"], 6, 7),
    "signature": lambda s: s["exports"].update(gru_model_free="int (gru_model const *)"),
    "export removed": lambda s: s["exports"].pop("gru_model_free"),
    "value": lambda s: s["enums"]["gru_status"].__setitem__(2, "GRU_BAD_SIZE = 3"),
    "enum removed": lambda s: s["enums"].pop("gru_pass"),
    "option removed": lambda s: s["options"]["members"].pop(),
    "order of options": lambda s: swap(s["options"]["members"], 3, 4),
    "option of the old size": lambda s: s["options"]["members"].append("196: char c (1 bytes)"),
    "size alone": lambda s: s["options"].update(size=216),
}


def test_what_is_added_is_accepted_by_the_tool_alone(tool):
    new = copy.deepcopy(PINNED)
    added(new)
    assert tool.problems(PINNED, new) == []
    assert "run `python tools/make_c_abi.py`" in tool.explain(PINNED, new)


@pytest.mark.parametrize("change", BREAKS.values(), ids=BREAKS)
def test_changes_are_refused(tool, change):
    new = copy.deepcopy(PINNED)
    change(new)
    assert tool.problems(PINNED, new)
    assert "add instead, see the top of tools/make_c_abi.py" in tool.explain(PINNED, new)
