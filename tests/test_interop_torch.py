"""PyTorch without PyTorch: files that it wrote, hostile ones, ours, state dicts, their errors.

The files and results are of tools/make_interop_torch.py; test_interop_torch_live.py has PyTorch.
"""

import argparse
import collections
import io
import itertools
import os
import pathlib
import pickle
import struct
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import error, python
from numpy.lib.array_utils import byte_bounds

import gru_c
from gru_c.interop import ModelFileError
from gru_c.interop import torch as interop
from gru_c.interop.containers import pickle_names, pt, zips
from gru_c.interop.containers.pickled import STORAGES
from gru_c.interop.found import described
from gru_c.learn import SequenceClassifier

FOLDER = Path(__file__).parent / "fixtures" / "interop" / "torch"
LIMIT = 2**20

# What reads a file, where from_torch(path) does not do.
ARGUMENTS = {
    "prefix": {"prefix": "module.encoder.gru.", "batch_first": True},
    "two": {"key": "model"},
    "cell": {},
}
REFUSED = ("module", "script")                             # not a state dict
PATHS = {path.stem: path for path in sorted(FOLDER.glob("*.pt"))}
READ = [name for name in PATHS if name not in REFUSED]

with np.load(FOLDER / "results.npz") as archive:
    RESULTS = {name: archive[name] for name in archive.files}


def load(name, **arguments):
    kind = gru_c.GRUCell if name == "cell" else gru_c.GRU
    return kind.from_torch(PATHS[name], **ARGUMENTS.get(name, {}) | arguments)


def read(data, limit=LIMIT):
    """The arrays of the bytes of a file."""
    return interop.read_pt(io.BytesIO(data), "model.pt", limit)


# ---- files that PyTorch wrote --------------------------------------------------------------------

@pytest.mark.parametrize("name", READ)
def test_results(name):
    model = load(name, dtype=np.float64)
    wanted = {key.partition("/")[2]: a for key, a in RESULTS.items() if key.startswith(f"{name}/")}
    found = model(wanted.pop("x"))                         # the state is absent: zeros
    found = found if isinstance(found, tuple) else (found,)
    assert model.training
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted.values(), strict=True):
        assert error(a, b) < 1e-12
    if model.bias:
        assert getattr(model, "bias_hh_l0" if len(found) == 2 else "bias_hh")[8:].any()


@pytest.mark.parametrize(("dtype", "wanted"), [("float64", np.float64), ("float32", np.float32),
                                               ("float16", np.float32), ("bfloat16", np.float32)])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_dtype(form, dtype, wanted):
    name = f"{form}_{dtype}"
    model = load(name)
    assert model.dtype == wanted
    for parameter, a in interop.read_arrays(PATHS[name], LIMIT).items():
        assert a.dtype == (np.float32 if dtype == "bfloat16" else dtype)
        np.testing.assert_array_equal(model.state_dict()[parameter], a)


def test_overflow_is_an_error(tmp_path):
    gru = gru_c.GRU(2, 3, dtype=np.float64, rng=0)
    gru.bias_ih_l0 = np.full(9, 1e300)
    gru.to_torch(path=tmp_path / "large.pt")
    with pytest.raises(ValueError, match=r"large\.pt: bias_ih_l0 holds values that float32"):
        gru_c.GRU.from_torch(tmp_path / "large.pt", dtype=np.float32)


def test_paths_and_found():
    path = str(PATHS["zip_float32"])
    for given in (path, os.fsencode(path), Path(path)):
        assert repr(gru_c.GRU.from_torch(given)) == repr(load("zip_float32"))
    found, = interop.find(path, LIMIT)
    assert (found.name, found.where, found.cell) == ("", path, False)
    cell, = interop.find(PATHS["cell"], LIMIT)
    assert cell.cell
    assert [found.name for found in interop.find(PATHS["two"], LIMIT)] == ["model.", "average."]
    with pytest.raises(FileNotFoundError):
        gru_c.GRU.from_torch("nowhere.pt")
    with pytest.raises(TypeError, match="a path, got: int"):
        gru_c.GRU.from_torch(3)


def test_read_arrays():
    arrays = interop.read_arrays(PATHS["prefix"], LIMIT)
    assert arrays["module.embedding.weight"].shape == (7, 3)
    assert arrays["module.encoder.norm.num_batches_tracked"].dtype == np.int64
    for name in ("zip_checkpoint", "legacy_checkpoint", "protocol_5"):
        arrays = interop.read_arrays(PATHS[name], LIMIT)
        np.testing.assert_array_equal(arrays["curve"], [0.0, 1.0, 2.0])
        assert arrays["rng"].dtype == np.uint8
        assert arrays["optimizer.state.0.exp_avg"].shape == (12, 3)
        assert not any(a.flags.writeable for a in arrays.values())


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_storages_are_shared(form):
    shared = interop.read_arrays(PATHS[f"{form}_shared"], LIMIT)
    bounds = [byte_bounds(a) for a in shared.values()]
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(bounds))
    strided = interop.read_arrays(PATHS[f"{form}_strided"], LIMIT)
    assert strided["bias_ih_l0"].strides == (0,)
    assert strided["weight_ih_l0"].strides == (4, 48)


# ---- prefixes and keys ---------------------------------------------------------------------------

def test_prefix_with_and_without_dot():
    wanted = load("prefix").state_dict()
    for prefix in ("module.encoder.gru", "module.encoder.gru."):
        found = load("prefix", prefix=prefix).state_dict()
        assert all((found[name] == a).all() for name, a in wanted.items())


@pytest.mark.parametrize(("name", "arguments", "message"), [
    ("prefix", {"prefix": ""}, r"begins with ''; there are 'module\.embedding\.weight', .* in all\)"
     r"; it could be prefix='module\.encoder\.gru\.' \(input_size 3, hidden_size 4, 2 layers\)"),
    ("prefix", {"prefix": "encoder"}, r"begins with 'encoder\.'"),
    ("prefix", {"prefix": "module.linear"}, r"no parameter of a GRU begins with 'module\.linear"),
    ("two", {"key": None}, "under each of the keys 'model', 'average': choose one with key="),
    ("two", {"key": "ema"}, "no mapping 'ema'; its mappings are 'model', 'average'"),
    ("module", {}, r"holds torch\.nn\.modules\.rnn\.GRU, .* save its state_dict\(\)"),
    ("script", {}, r"a TorchScript archive; load it in PyTorch and save its state_dict\(\)"),
])
def test_what_is_not_found(name, arguments, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        load(name, **arguments)
    assert str(caught.value).startswith(str(PATHS[name]))


def test_keys_of_nested_mappings():
    inner = load("zip_float32").to_torch()
    arrays = {name: np.asarray(a) for name, a in inner.items()}
    tree = {"epoch": 1, "run": {"ema": {"gru": arrays}, "last": {f"gru.{name}": a
                                                             for name, a in arrays.items()}}}
    for arguments in ({"prefix": "run.ema.gru"}, {"prefix": "gru", "key": "run.last"},
                      {"key": "run.ema.gru"}):
        assert repr(gru_c.GRU.from_torch(tree, **arguments)) == repr(load("zip_float32"))
    with pytest.raises(ValueError, match=r"'run\.ema', 'run\.last': choose"):
        gru_c.GRU.from_torch(tree, prefix="gru.")


# ---- safetensors ---------------------------------------------------------------------------------

def test_safetensors(tmp_path):
    """A state dict as others save it, without pickle."""
    safetensors = pytest.importorskip("safetensors.numpy")
    path, wanted = tmp_path / "model.safetensors", load("zip_float64").state_dict()
    arrays = {f"encoder.gru.{name}": a for name, a in wanted.items()}
    safetensors.save_file(arrays | {"head": np.ones(3)}, path, {"format": "pt"})
    for given in (path, str(path), os.fsencode(path)):
        for prefix in ("encoder.gru.", "encoder.gru"):
            model = gru_c.GRU.from_torch(given, prefix, batch_first=True)
            assert model.batch_first
            for name, a in model.state_dict().items():
                np.testing.assert_array_equal(a, wanted[name], strict=True)
    for arguments, message in (
            ({}, "there are 'encoder.gru.* it could be prefix='encoder.gru.'"),
            ({"prefix": "head"}, "no parameter of a GRU begins with 'head.'"),
            ({"key": "model"}, "holds no mapping 'model'; its mappings are none"),
            ({"prefix": "encoder.gru", "max_bytes": 10}, "raise max_bytes")):
        with pytest.raises(ModelFileError, match=message) as caught:
            gru_c.GRU.from_torch(path, **arguments)
        assert str(caught.value).startswith(str(path))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=f"{path}: not a readable safetensors file"):
        gru_c.GRU.from_torch(path, "encoder.gru")


def test_safetensors_of_ours(tmp_path):
    """They have options, which from_torch would leave out."""
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    for model, kind, loader in (
            (gru_c.GRU(2, 3, reset_after=False), "gru_c.GRU", "gru_c.GRU"),
            (gru_c.GRUCell(2, 3), "gru_c.GRUCell", "gru_c.GRUCell"),
            (SequenceClassifier(2, 3, 4), "gru_c.SequenceClassifier",
             "gru_c.learn.SequenceClassifier")):
        model.save(path)
        with pytest.raises(ModelFileError) as caught:
            gru_c.GRU.from_torch(path)
        assert str(caught.value) == f"{path}: this is a {kind}; {loader}.load reads it"


# ---- state dicts ---------------------------------------------------------------------------------

def state(input_size=3, hidden_size=4, gates=3, layers=(0,)):
    """A state dict of ones without biases."""
    found = {}
    for layer in layers:
        columns = input_size if layer == 0 else hidden_size
        found |= {f"weight_ih_l{layer}": np.ones((gates * hidden_size, columns), np.float32),
                  f"weight_hh_l{layer}": np.ones((gates * hidden_size, hidden_size), np.float32)}
    return found


@pytest.mark.parametrize(("mapping", "message"), [
    ({}, "begins with ''; it is empty"),
    (state(gates=4), r"weight_hh_l0 has shape \(16, 4\): this is an LSTM"),
    (state(gates=1), "this is a plain RNN"),
    (state(gates=4) | {"weight_hr_l0": np.ones((2, 4))}, "'weight_hr_l0' is the projection of an"),
    (state(layers=(0, 2)), "parameters of layer 2, but none of layer 1: missing 'weight_ih_l1'"),
    (state(layers=(1,)), "missing 'weight_ih_l0', 'weight_hh_l0'"),
    (state() | {"bias_ih_l0": np.ones(12)}, "missing 'bias_hh_l0'"),
    (state() | {"weight_ih_l0_reverse": np.ones((12, 3))}, "missing 'weight_hh_l0_reverse'"),
    (state() | {"fc.weight": np.ones((2, 4))}, r"'fc\.weight' beside the parameters of a GRU"),
    (state() | {"weight_ih": np.ones((12, 3))}, "unexpected 'weight_ih'"),
    (state() | {"weight_ih_l0": np.ones((12, 3), np.int64)}, "weight_ih_l0 has dtype int64"),
    (state() | {"weight_ih_l0": np.ones((9, 3))}, r"shape \(9, 3\), expected \(12, 3\)"),
    (state() | {"weight_ih_l0": np.ones(12)}, r"weight_ih_l0 has shape \(12,\)"),
    (state() | {"weight_hh_l0": np.ones((0, 0))}, r"weight_hh_l0 has shape \(0, 0\)"),
])
def test_state_dicts_that_are_none_of_a_gru(mapping, message):
    for call in (gru_c.GRU.from_state_dict, gru_c.GRU.from_torch):
        with pytest.raises(ValueError, match=message):
            call(mapping)


def test_no_layer_is_left_out_in_silence(tmp_path):
    model = gru_c.GRU(3, 4, num_layers=3, rng=0)
    arrays = model.state_dict()
    for missing in arrays:
        rest = {name: a for name, a in arrays.items() if name != missing}
        with pytest.raises(ValueError, match=f"missing.*'{missing}'"):
            gru_c.GRU.from_state_dict(rest)
    assert gru_c.GRU.from_state_dict(arrays).num_layers == 3


def test_sizes_cannot_be_given():
    for name in ("input_size", "num_layers", "bias"):
        with pytest.raises(TypeError, match=f"{name} is found from the parameters"):
            gru_c.GRU.from_state_dict(state(), **{name: 1})
    with pytest.raises(TypeError, match="expected a mapping of names to arrays, got: list"):
        gru_c.GRU.from_state_dict([1])
    with pytest.raises(TypeError, match="the state dict: bias_ih_l0 should be an array, got: list"):
        gru_c.GRU.from_state_dict(state() | {"bias_ih_l0": [0.0] * 12})


class Exporter:
    """An array of a library that NumPy knows by DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_dlpack():
    model = gru_c.GRU(3, 4, rng=0)
    exported = {name: Exporter(a.copy()) for name, a in model.state_dict().items()}
    for call in (gru_c.GRU.from_state_dict, gru_c.GRU.from_torch):
        found = call(exported).state_dict()
        assert all((found[name] == a).all() for name, a in model.state_dict().items())

    class Elsewhere(Exporter):
        def __dlpack__(self, **options):
            raise BufferError("on a GPU")

    exported["bias_hh_l0"] = Elsewhere(np.ones(12))
    with pytest.raises(ValueError, match="bias_hh_l0 cannot become an array of NumPy: on a"):
        gru_c.GRU.from_state_dict(exported)


def test_a_mask_is_not_lost():
    masked = state() | {"weight_ih_l0": np.ma.masked_array(np.ones((12, 3)), mask=True)}
    for call in (gru_c.GRU.from_state_dict, gru_c.GRU.from_torch):
        with pytest.raises(TypeError, match="the state dict: weight_ih_l0 is a masked array"):
            call(masked)


# ---- writing -------------------------------------------------------------------------------------

MODELS = {
    "gru": gru_c.GRU(3, 4, rng=0),
    "two layers, two directions": gru_c.GRU(3, 4, 2, bidirectional=True, dtype=np.float64, rng=0),
    "no biases": gru_c.GRU(3, 4, bias=False, rng=0),
    "cell": gru_c.GRUCell(3, 4, rng=0),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_round_trip(model, tmp_path):
    path = tmp_path / "model.pt"
    assert model.to_torch(path=path) is None
    found = type(model).from_torch(path)
    assert repr(found) == repr(model)
    for name, a in model.state_dict().items():
        np.testing.assert_array_equal(found.state_dict()[name], a, strict=True)
    again = type(model).from_torch(model.to_torch())
    assert all((again.state_dict()[name] == a).all() for name, a in model.state_dict().items())
    first = path.read_bytes()
    model.to_torch(path=path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", "<f2"])
def test_dtypes_that_are_written(dtype, tmp_path):
    found = described(MODELS["gru"])
    arrays = {name: a.astype(dtype) for name, a in found.parameters.items()}
    interop.write(replace(found, parameters=arrays), tmp_path / "model.pt")
    for name, a in interop.read_arrays(tmp_path / "model.pt", LIMIT).items():
        np.testing.assert_array_equal(a, arrays[name])
        assert a.dtype == np.dtype(dtype).newbyteorder("=")


def test_a_state_dict_is_a_copy():
    model = gru_c.GRU(3, 4, rng=0)
    found = model.to_torch()
    found["weight_ih_l0"][:] = 0
    assert model.weight_ih_l0.any()


@pytest.mark.parametrize(("name", "value"), [
    ("reset_after", False), ("activation", "relu"), ("recurrent_activation", "hard_sigmoid"),
    ("clip", 3.0), ("input_dropout", 0.5), ("recurrent_dropout", 0.5)])
def test_what_pytorch_cannot_hold(name, value, tmp_path):
    model = gru_c.GRU(3, 4, **{name: value})
    message = f"the GRU has {name}={value!r}, which PyTorch's GRU cannot hold"
    with pytest.raises(ValueError, match=message):
        model.to_torch(module=True)
    if "dropout" in name:                                  # a state dict has no options
        assert model.to_torch()
        return
    for arguments in ({}, {"path": tmp_path / "model.pt"}):
        with pytest.raises(ValueError, match=message):
            model.to_torch(**arguments)
    assert not list(tmp_path.iterdir())


def test_a_reverse_gru_is_refused():
    with pytest.raises(ValueError, match="the ReverseGRU has reverse=True"):
        gru_c.ReverseGRU(3, 4).to_torch()


def test_module_or_path(tmp_path):
    with pytest.raises(TypeError, match="give module or path"):
        MODELS["gru"].to_torch(module=True, path=tmp_path / "model.pt")


def test_nothing_is_imported():
    """A file is read without PyTorch and the extras."""
    code = """
import sys
import gru_c
assert not any(name.startswith("gru_c.interop") for name in sys.modules)
path = sys.argv[1]
before = set(sys.modules)
found = gru_c.GRU.from_torch(path)
print(found)
print(sorted({"torch", "h5py", "onnx", "safetensors"} & set(sys.modules)))
"""
    text = python(code, str(PATHS["zip_float32"]))
    assert text.splitlines() == [repr(load("zip_float32")), "[]"]


# ---- files that lie ------------------------------------------------------------------------------

def pickled(*parts):
    return b"\x80\2" + b"".join(parts) + b"."


def zipped(pickle, storages=(), method=zipfile.ZIP_STORED):
    """An archive of the zip form."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as new:
        new.writestr("archive/data.pkl", pickle)
        for key, data in dict(storages).items():
            new.writestr(f"archive/data/{key}", data)
    return buffer.getvalue()


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def tuple_of(*numbers):
    return b"(" + b"".join(map(integer, numbers)) + b"t"


def storage(size, key="0", kind="Float"):
    return (b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu")
            + integer(size) + b"tQ")


def tensor(size=6, offset=0, shape=(2, 3), strides=(3, 1), kind="Float"):
    return (b"ctorch._utils\n_rebuild_tensor\n(" + storage(size, kind=kind) + integer(offset)
            + tuple_of(*shape) + tuple_of(*strides) + b"tR")


SIX = {"0": np.arange(6, dtype="<f4").tobytes()}


def legacy(pickle, storages):
    """A file of the legacy form; each storage as elements and bytes."""
    keys = b"".join(text(key) + b"a" for key in storages)
    data = b"".join(struct.pack("<q", count) + data for count, data in storages.values())
    head = (pickles_of(pt.MAGIC), pickles_of(pt.VERSION), pickled(b"}"))
    return b"".join((*head, pickle, pickled(b"]", keys), data))


def pickles_of(number):
    return pickled(integer(number))


@pytest.mark.parametrize("kind", ["Double", "Long", "Int", "Short", "Char", "Byte", "Bool",
                                  "ComplexFloat", "ComplexDouble", "Half", "Float", "BFloat16"])
def test_element_types(kind):
    stored = STORAGES[f"{kind}Storage"].stored
    data = np.arange(6).astype(stored).tobytes()
    found = read(zipped(pickled(tensor(kind=kind)), {"0": data}))[""]
    wanted = np.arange(6, dtype=np.uint32) << 16 if kind == "BFloat16" else np.arange(6)
    wanted = wanted.view(np.float32) if kind == "BFloat16" else wanted.astype(found.dtype)
    np.testing.assert_array_equal(found, wanted.reshape(2, 3))
    assert found.dtype == STORAGES[f"{kind}Storage"].dtype


def test_big_endian_and_deflated():
    data = {"0": np.arange(6, dtype=">f4").tobytes()}
    archive = io.BytesIO(zipped(pickled(tensor()), data, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("archive/byteorder", "big")
    np.testing.assert_array_equal(read(archive.getvalue())[""], [[0, 1, 2], [3, 4, 5]])


def test_python_2():
    """An OrderedDict of lists, names in BINSTRING, as in the first files."""
    pickle = pickled(b"ccollections\nOrderedDict\n(](](U\1a", tensor(), b"eetR")
    np.testing.assert_array_equal(read(legacy(pickle, {"0": (6, SIX["0"])}))["a"],
                                  [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(("start", "size", "message"), [
    (2, 4, None), (3, 4, "storage '0' has 6 elements, a view ends at 7"),
    (2, 3, r"a tensor of shape \(2, 2\) ends at element 4 of a storage of 3")])
def test_view_of_a_storage(start, size, message):
    whole = storage(6)[:-2]
    view = whole + b"(" + text("view") + integer(start) + integer(size) + b"ttQ"
    data = legacy(pickled(tensor(shape=(2, 2), strides=(2, 1)).replace(whole + b"tQ", view)),
                  {"0": (6, SIX["0"])})
    if message is None:
        np.testing.assert_array_equal(read(data)[""], [[2, 3], [4, 5]])
        return
    with pytest.raises(ModelFileError, match=message):
        read(data)


@pytest.mark.parametrize(("storages", "message"), [
    ({}, "it holds no storage '0'"),
    ({"0": (5, SIX["0"])}, "storage '0' has 20 bytes, a tensor declares 24"),
    ({"0": (7, SIX["0"])}, "storage '0' has 7 elements, which are not in the file"),
    ({"0": (2**62, SIX["0"])}, "elements, which are not in the file"),
    ({"0": (-1, SIX["0"])}, "elements, which are not in the file"),
    ({"1": (6, SIX["0"])}, "it holds a storage that no tensor has"),
])
def test_legacy_storages_that_lie(storages, message):
    with pytest.raises(ModelFileError, match=message):
        read(legacy(pickled(tensor()), storages))


@pytest.mark.parametrize("kind", ["Float", "BFloat16", "Bool"])
def test_memory(kind):
    """At most four times what is declared, deflated or not."""
    count = 2**20
    width = STORAGES[f"{kind}Storage"].stored.itemsize
    data = np.random.default_rng(0).bytes(count * width)
    pickle = pickled(tensor(count, shape=(count,), strides=(1,), kind=kind))
    for file in (zipped(pickle, {"0": data}), zipped(pickle, {"0": data}, zipfile.ZIP_DEFLATED),
                 legacy(pickle, {"0": (count, data)})):
        tracemalloc.start()
        found = interop.read_pt(io.BytesIO(file), "model.pt", 2**23)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found[""].shape == (count,)
        assert peak < 4 * count * width + 2**17


def wide(data, **changed):
    """The archive, with all sizes and places in 64 bits, as where they are beyond 4 GiB."""
    start, full = data.index(b"PK\1\2"), 2**32 - 1
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        infos = old.infolist()
    directory = b"".join(
        zips.ENTRY.pack(b"PK\1\2", 45, 45, 0, 0, 0, 0, info.CRC, full, full, len(info.filename), 28,
                        0, 0, 0, 0, full) + info.filename.encode()
        + struct.pack("<2H3Q", 1, 24, changed.get("size", info.file_size), info.compress_size,
                      changed.get("place", info.header_offset)) for info in infos)
    end = changed.get("end", start + len(directory))
    count = changed.get("count", len(infos))
    return b"".join((data[:start], directory, zips.END_64.pack(
        b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), start),
        zips.LOCATOR_64.pack(b"PK\6\7", 0, end, 1),
        zips.END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, full, full, 0)))


def test_archives_of_64_bits():
    data = zipped(pickled(tensor()), SIX)
    assert zipfile.ZipFile(io.BytesIO(wide(data))).testzip() is None
    np.testing.assert_array_equal(read(wide(data))[""], [[0, 1, 2], [3, 4, 5]])
    for changed, message in (
            ({"size": 2**63}, f"declares {2**63} bytes, which are not in the file"),
            ({"place": 2**63}, "what its directory names is not there"),
            ({"end": 2**63}, "what its directory names is not there"),
            ({"count": 2**63}, f"its directory declares {2**63} entries"),
            ({"count": 3}, "its directory is truncated")):
        with pytest.raises(ModelFileError, match=message):
            read(wide(data, **changed))


@pytest.mark.parametrize(("changed", "message"), [
    ({"shape": (2, 4)}, r"a tensor of shape \(2, 4\) ends at element 7 of a storage of 6"),
    ({"offset": 1}, "ends at element 7 of a storage of 6"),
    ({"offset": -1}, "a size is no natural number of 63 bits"),
    ({"shape": (2, -3)}, "a size is no natural number"),
    ({"strides": (-3, 1)}, "a size is no natural number"),
    ({"strides": (1,)}, "a tensor has 2 axes and 1 strides"),
    ({"size": 7}, r"storage '0' has 24 bytes, a tensor declares 28"),
    ({"size": 2**62}, "storage '0' has 24 bytes, a tensor declares"),
    ({"shape": (2**40, 2**40), "strides": (0, 0)}, "too large for any machine"),
    ({"shape": (0, 2**62)}, "too large for any machine"),
    ({"shape": (1,) * 65, "strides": (0,) * 65}, "a shape is no short tuple"),
    ({"shape": (2**40,), "strides": (0,)}, "its arrays take more than 1048576 bytes; raise max_b"),
])
def test_sizes_that_lie(changed, message):
    with pytest.raises(ModelFileError, match=message):
        read(zipped(pickled(tensor(**changed)), SIX))


def test_max_bytes_counts_what_is_declared():
    data = zipped(pickled(tensor(shape=(2, 3), strides=(0, 0))), SIX)
    assert read(data, 24)[""].shape == (2, 3)
    with pytest.raises(ModelFileError, match=r"model\.pt: its arrays take more than 23 bytes"):
        read(data, 23)
    part = zipped(pickled(tensor(shape=(1, 1))), SIX)
    with pytest.raises(ModelFileError, match="the storages of its arrays take more than 23 bytes"):
        read(part, 23)


def test_max_bytes_counts_the_gru_alone():
    """A large model around it, or the state of an optimizer, need not fit."""
    arrays = interop.read_arrays(PATHS["zip_checkpoint"], LIMIT)
    own = sum(a.nbytes for name, a in arrays.items() if name.startswith("state.model."))
    assert gru_c.GRU.from_torch(PATHS["zip_checkpoint"], max_bytes=own)
    with pytest.raises(ModelFileError, match="raise max_bytes"):
        gru_c.GRU.from_torch(PATHS["zip_checkpoint"], max_bytes=own - 1)
    with pytest.raises(ModelFileError, match="raise max_bytes"):
        interop.read_arrays(PATHS["zip_checkpoint"], own)


def damaged(data, step):
    """The bytes with each byte changed."""
    for i in range(0, len(data), step):
        for value in (0, 0xFF, data[i] ^ 0x20):
            yield data[:i] + bytes([value]) + data[i + 1:]


@pytest.mark.parametrize(("name", "step"), [
    ("deflated", 2), ("no_checksums", 2), ("legacy_float16", 1), ("legacy_checkpoint", 31),
    ("zip_checkpoint", 31)])
def test_damaged_at_each_byte(name, step):
    data = PATHS[name].read_bytes()
    refused = 0
    for changed in damaged(data, step):
        try:
            read(changed)
        except ModelFileError as caught:
            assert str(caught).startswith("model.pt: ")
            refused += 1
    assert refused                                         # numbers in storages may be any


@pytest.mark.parametrize("name", ["zip_float16", "legacy_float16"])
def test_truncated_at_each_byte(name):
    data = PATHS[name].read_bytes()
    for i in range(len(data)):
        with pytest.raises(ModelFileError):
            read(data[:i])


@pytest.mark.parametrize(("data", "message"), [
    (b"", "no file of torch.save"),
    (b"GIF89a", "no file of torch.save"),
    (bytes(257) + b"ustar" + bytes(250), "PyTorch's oldest form, a tar archive"),
    (pickled(b"}"), "a pickle, but none of torch.save"),
    (zipped(pickled(b"}")).replace(b"data.pkl", b"data.bin"), "0 files named data.pkl"),
    (zipped(pickled(b"}")).replace(b"archive/data.pkl", b"a/archive_format"),
     r"an archive of torch\.export"),
    (zipped(pickled(tensor())), "it holds no storage 'archive/data/0'"),
    (zipped(pickled(tensor()), SIX, zipfile.ZIP_LZMA), "compressed by method 14"),
])
def test_other_files(data, message):
    with pytest.raises(ModelFileError, match=message):
        read(data)


# ---- files that attack ---------------------------------------------------------------------------

COMMAND = text("touch hacked")
ONE = b"\x85"                                              # a tuple of the object on top


def attacks():
    """Pickles that would run a command, by each way that pickle has."""
    for module, name in (("os", "system"), ("posix", "system"), ("builtins", "eval"),
                         ("__builtin__", "exec"), ("subprocess", "Popen"), ("nt", "system"),
                         ("torch", "load"), ("torch.serialization", "load"), ("numpy", "load"),
                         ("torch._utils", "os.system"), ("builtins", "getattr"),
                         ("torch", "FloatStorage.__class__"), ("collections", "OrderedDict.update"),
                         ("torch.storage", "_load_from_bytes"), ("copyreg", "_reconstructor"),
                         ("numpy.core.multiarray", "_reconstruct.__globals__")):
        path = f"{module}\n{name}\n".encode()
        yield b"c" + path + COMMAND + ONE + b"R"
        yield b"c" + path + COMMAND + ONE + b"\x81"        # NEWOBJ
        yield b"c" + path + COMMAND + ONE + b"}\x92"       # NEWOBJ_EX
        yield b"(" + COMMAND + b"i" + path                 # INST
        yield b"(c" + path + COMMAND + b"o"                # OBJ
        yield text(module) + text(name) + b"\x93" + COMMAND + ONE + b"R"
    yield b"\x82\1" + COMMAND + ONE + b"R"                 # EXT1: copyreg's registry
    yield b"Ptouch hacked\n"                               # PERSID
    yield COMMAND + b"Q"                                   # BINPERSID
    yield b"(" + text("module") + b"cos\nsystem\n" + COMMAND + COMMAND + b"tQ"


def listed_names():
    """Every name that is known, called and built on with what it does not expect."""
    states = (b"N", b"}", b")", COMMAND, b"]", b"}" + text("__class__") + COMMAND + b"s",
              b"}" + text("__dict__") + b"}s" + ONE, integer(2**70))
    for full in pickle_names.NAMES:
        module, _, name = full.rpartition(".")
        named = f"c{module}\n{name}\n".encode()
        for state in states:
            yield named + state + b"b"                     # BUILD on the name itself
            yield named + b")R" + state + b"b"
            for count in range(9):
                yield named + b"(" + state * count + b"tR"
                yield named + b"(" + (named + state) * (count // 2) + b"tR" + state + b"b"


def test_pickle_itself_executes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickled(next(attacks())))
    assert list(tmp_path.iterdir())


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for attack in attacks():
        for data in (zipped(pickled(attack)), pickled(attack)):
            with pytest.raises(ModelFileError):
                read(data)
    for attack in listed_names():
        for end in (b"", text("key") + b"}\x86b"):
            try:
                read(zipped(pickled(attack + end)))
            except ModelFileError:
                continue
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_is_named():
    for module, name in (("os", "system"), ("argparse", "ArgumentParser"), ("__main__", "Net")):
        data = zipped(pickled(f"c{module}\n{name}\n".encode()))
        with pytest.raises(ModelFileError, match=rf"model\.pt: it holds {module}\.{name}, which"):
            read(data)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_stands_beside_a_state_dict(protocol):
    """Objects that checkpoints often hold, and that nobody asks a reader of arrays for."""
    lists = collections.defaultdict(list, {"loss": [1.0, 0.5]})
    data = pickle.dumps({
        "model": MODELS["gru"].state_dict(), "lists": lists, "seen": collections.Counter("abca"),
        "counts": collections.defaultdict(int), "args": argparse.Namespace(
            lr=0.1, path=pathlib.PurePosixPath("/data/x")), "at": pathlib.PureWindowsPath("c:/x"),
    }, protocol)
    arrays = read(zipped(data))
    assert {name.removeprefix("model.") for name in arrays} == set(MODELS["gru"].state_dict())


DOUBLED = b"q\0h\0\x86"                                   # a pair of the object on top and itself


@pytest.mark.parametrize("attack", [
    b"N" + ONE * 200_000,                                  # depth
    b"]" * 100_000 + b"a" * 99_999,
    b"}" * 10_000 + (text("a") + b"}s") * 9_000,
    b"]q\0h\0a",                                           # a list in itself
    b"}q\0" + text("a") + b"h\0s",
    b"(" * 200_000,
    b"N" + b"".join(b"r" + struct.pack("<I", 2**32 - 1 - i) for i in range(1000)),
    b"X\xff\xff\xff\xff", b"\x8d" + b"\xff" * 8, b"\x8e" + b"\xff" * 7 + b"\0",
    b"B\xff\xff\xff\x7f", b"T\xff\xff\xff\xff", b"\x8b\xff\xff\xff\xff",
    b"\x96" + b"\xff" * 8, b"\x95" + b"\xff" * 8,
    b"}\x8b" + struct.pack("<i", 9000) + b"\x7f" * 9000 + b"Ns",
    b"]" + DOUBLED * 28,
    b"}N" + DOUBLED * 60 + b"Ns",
    b"ccollections\nOrderedDict\nq\0](" + b"NN\x86" * 50_000 + b"eq\1" + b"h\0h\1\x85R" * 50_000,
    b"}(" + b"".join(integer(i * (2**61 - 1)) + b"N" for i in range(30_000)) + b"u",
], ids=range(20))
def test_pickles_that_grow(attack):
    for data in (zipped(pickled(attack)), pickled(attack)):
        with pytest.raises(ModelFileError):
            found = read(data)
            assert not found
            raise ModelFileError("nothing in it is an array")


def test_bombs():
    for bomb in (pickled(text("a" * 2**24)), pickled(b"N" * 2**20)):
        for data in (bomb, zipped(bomb, method=zipfile.ZIP_DEFLATED)):
            with pytest.raises(ModelFileError, match="its objects take more than 16777216 bytes"):
                read(data, 0)
    bomb = zipped(pickled(tensor(2**22, shape=(2**22,), strides=(1,))), {"0": bytes(2**24)},
                  zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelFileError, match="its arrays take more than 1048576"):
        read(bomb)


def test_described_knows_a_cell():
    assert described(MODELS["cell"]).cell
    assert not described(MODELS["gru"]).cell


@pytest.mark.parametrize("prefix", [None, 5, b"gru."])
def test_a_prefix_that_is_no_text(prefix):
    arrays = gru_c.GRU(3, 4).state_dict()
    for read in (gru_c.GRU.from_torch, gru_c.GRU.from_state_dict):
        with pytest.raises(TypeError, match="prefix must be a str, got: "):
            read(arrays, prefix)
