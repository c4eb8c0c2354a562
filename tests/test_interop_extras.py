"""Without the packages of the extras and the frameworks: what works, and the errors of the rest.

The first tests run in a new interpreter that can import none of them, installed or not. The error
of a file that needs a package says which, and which extra brings it.
"""

import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from helpers import python

import gru_c
from gru_c import interop
from gru_c.interop import MissingExtraError

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures" / "interop"
EXTRAS = {"h5py": "keras", "onnx": "onnx", "safetensors": "safetensors"}

# No module of these names can be imported from here on.
WITHOUT = """
import sys
ABSENT = ["h5py", "onnx", "safetensors", "torch", "tensorflow", "keras", "flax", "jax", "equinox"]
sys.modules.update(dict.fromkeys(ABSENT))
def interop_modules():
    return [name for name in sys.modules if name.startswith("gru_c.interop")]
"""

CORE = """
import numpy as np, gru_c
assert not interop_modules()
x = np.ones((5, 2, 3), np.float32)
gru = gru_c.GRU(3, 4, num_layers=2, bidirectional=True)
output, h_n = gru(x)
gru.backward(np.ones_like(output))
assert output.shape == (5, 2, 8) and set(gru.grads) == set(gru.state_dict())
gru_c.GRUCell(3, 4)(x[0])
gru_c.ReverseGRU(3, 4)(x)
gru_c.GRU(3, 4).step(x[0])
gru_c.GRU(3, 4, rng=0).load_state_dict(gru_c.GRU(3, 4).state_dict())
assert not interop_modules()
print("done")
"""

INTEROP = """
import os, tempfile
import numpy as np, gru_c, gru_c.interop
assert interop_modules()
import gru_c.interop.keras, gru_c.interop.onnx, gru_c.interop.files, gru_c.interop.torch

def same(found, gru):
    own = gru.state_dict()
    return all((a == own[name]).all() for name, a in found.state_dict().items())

GRU, gru = gru_c.GRU, gru_c.GRU(3, 4, rng=0)
assert same(GRU.from_state_dict(gru.state_dict()), gru)
assert same(GRU.from_torch(gru.to_torch()), gru)
assert same(GRU.from_keras(gru.to_keras()), gru)
assert same(GRU.from_gates({"rzn": tuple(gru.state_dict().values())}, product="W x",
                           reset_after=True, z_times="h"), gru)
for read, written in ((GRU.from_flax, gru.to_flax()), (GRU.from_equinox, gru.to_equinox())):
    assert (read(written).weight_hh_l0 == gru.weight_hh_l0).all()
os.chdir(tempfile.mkdtemp())
gru.save("gru.npz")
gru.to_rtneural("gru.json")
gru.to_torch(path="gru.pt")
assert same(GRU.load("gru.npz"), gru)
assert same(GRU.from_rtneural("gru.json"), gru)
assert same(GRU.from_torch("gru.pt"), gru)
for suffix in ("npz", "json", "pt"):
    path = f"gru.{suffix}"
    assert len(gru_c.interop.read_arrays(path)) >= 3 and len(gru_c.interop.find(path)) == 1
    gru_c.interop.convert(path, "other.npz")
    assert same(GRU.load("other.npz"), gru)
try:
    gru.to_torch(module=True)
except ImportError as error:
    print(error)
"""


def test_the_core():
    """`import gru_c` imports nothing of gru_c.interop, nor do models."""
    assert python(WITHOUT + CORE) == "done\n"


def test_what_numpy_is_enough_for():
    assert python(WITHOUT + INTEROP) == "a module of PyTorch needs PyTorch: pip install torch\n"


def test_nothing_is_imported_before_it_is_needed():
    """Where the packages are installed, too."""
    script = ("import sys, gru_c.interop.keras, gru_c.interop.onnx, gru_c.interop.files, "
              f"gru_c.interop.torch\nprint(sorted({{*{[*EXTRAS, 'torch']}}} & set(sys.modules)))")
    assert python(script) == "[]\n"


# ---- what needs a package ------------------------------------------------------------------------

GRU, CELL = gru_c.GRU(3, 4), gru_c.GRUCell(3, 4)
KERAS = [FIXTURES / "keras" / name for name in ("keras3.keras", "keras3.h5", "keras2.h5")]
ONNX = FIXTURES / "onnx" / "dynamo.onnx"
OURS = FIXTURES / "files" / "gru.safetensors"
READERS = {
    "h5py": [(kind.from_keras, path) for kind in (gru_c.GRU, gru_c.GRUCell) for path in KERAS],
    "onnx": [(kind.from_onnx, ONNX) for kind in (gru_c.GRU, gru_c.GRUCell)],
    "safetensors": [(gru_c.GRU.load, OURS), (gru_c.GRU.from_torch, OURS),
                    (gru_c.GRUCell.load, FIXTURES / "files" / "cell.safetensors")],
}
for package, path in (*(("h5py", path) for path in KERAS), ("onnx", ONNX), ("safetensors", OURS)):
    READERS[package] += [(read, path) for read in (interop.read_arrays, interop.find)]
WRITERS = {
    "h5py": [(interop.convert, name) for name in ("gru.keras", "gru.h5", "gru.weights.h5")],
    "onnx": [(GRU.to_onnx, "gru.onnx"), (CELL.to_onnx, "gru.onnx"), (interop.convert, "gru.onnx")],
    "safetensors": [(GRU.save, "gru.safetensors"), (CELL.save, "gru.safetensors"),
                    (interop.convert, "gru.safetensors")],
}


def names_the_extra(package, action, *arguments):
    with pytest.raises(MissingExtraError) as caught:
        action(*arguments)
    assert str(caught.value) == (f"{package} is needed for this and is not installed: "
                                 f"pip install 'gru-c[{EXTRAS[package]}]'")


@pytest.mark.parametrize("package", EXTRAS)
def test_readers_name_the_package_and_the_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for read, path in READERS[package]:
        names_the_extra(package, read, path)


@pytest.mark.parametrize("package", EXTRAS)
def test_writers_name_the_package_and_the_extra(package, monkeypatch, tmp_path):
    """Nothing is written."""
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    np.savez("source.npz", **GRU.state_dict())
    for write, name in WRITERS[package]:
        names_the_extra(package, write, *(["source.npz"] if write is interop.convert else []), name)
        assert [path.name for path in tmp_path.iterdir()] == ["source.npz"]


def test_the_extras_are_those_of_the_package():
    """An error that names an extra which does not exist, or brings something else, helps nobody."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for package, extra in EXTRAS.items():
        assert [line for line in extras[extra] if line.startswith(f"{package}>=")]
    assert extras["interop"] == [f"{project['name']}[safetensors,keras,onnx]"]
