"""What a file is, what is in it, and files made from others: gru_c.interop.formats."""

import contextlib
import copy
import io
import os
import pathlib
import subprocess
import sys
import tracemalloc
import zipfile
from functools import partial

import numpy as np
import pytest
from helpers import F32, F64

import gru_c
from gru_c.interop import MissingExtraError, ModelFileError, convert, find, formats, read_arrays

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "interop"
NEEDS = {".safetensors": "safetensors", ".onnx": "onnx", ".weights.h5": "h5py", ".keras": "h5py",
         ".h5": "h5py"}
KNOWN = "a model is a file of safetensors (.safetensors), npz (.npz), PyTorch (.pt, .pth), Keras "


def zip_of(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return file.getvalue()


def model(**options):
    """With every part of a GRU that all formats have in one form or another."""
    return gru_c.GRU(3, 4, rng=0, **options)


def saved(path, gru, prefix="", **others):
    """Parameters by PyTorch's names, with other arrays, in an npz file."""
    np.savez(path, **others, **{prefix + name: a for name, a in gru.state_dict().items()})
    return path


def assert_same_parameters(found, wanted):
    assert list(found) == list(wanted)
    for name, a in wanted.items():
        np.testing.assert_array_equal(found[name], a, strict=True)


# ---- what a file is -----------------------------------------------------------------------------

CONTENTS = {
    "safetensors": (b"\x02\0\0\0\0\0\0\0{}", formats.SAFETENSORS),
    "safetensors that begins as a pickle": (b"\x80\2\0\0\0\0\0\0{", formats.SAFETENSORS),
    "npz": (zip_of("weight_ih_l0.npy", "b.npy"), formats.NPZ),
    "npz of nothing": (zip_of(), formats.NPZ),
    "zip of PyTorch": (zip_of("archive/data.pkl", "archive/data/0"), formats.TORCH),
    "legacy form of PyTorch": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", formats.TORCH),
    "pickle of protocol 5": (b"\x80\x05\x95", formats.TORCH),
    "zip of Keras 3": (zip_of("metadata.json", "config.json", "model.weights.h5"), formats.KERAS),
    "HDF5": (b"\x89HDF\r\n\x1a\n\0\0", formats.KERAS),
    "ONNX": (b"\x08\x0a\x12\x07pytorch", formats.ONNX),
    "ONNX without a producer": (b"\x08\x08:\x20", formats.ONNX),
    "JSON": (b' \n{"layers": []}', formats.RTNEURAL),
    "JSON with a byte order mark": (b"\xef\xbb\xbf{}", formats.RTNEURAL),
}


@pytest.mark.parametrize(("content", "wanted"), CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("name", ["model", "model.pt", "model.npz"])
def test_the_content_tells(name, content, wanted, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    assert formats.format_of(path) is wanted
    assert formats.format_of(os.fsencode(path)) is wanted


@pytest.mark.parametrize("content", [
    b"hello", b"\x93NUMPY\1\0v\0{'descr'", b"\x89PNG\r\n\x1a\n", b"\0" * 99, b"\x80", b"\x80\x80",
    b"\x08", b"\x08\x0a", b"\x08\x0a\x99", b"x{"])
def test_nothing_known(content, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    for read in (read_arrays, find, formats.format_of):
        with pytest.raises(ModelFileError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: no known format; {KNOWN}")


def test_an_empty_file(tmp_path):
    path = tmp_path / "model.pt"
    path.touch()
    with pytest.raises(ModelFileError, match=r"model\.pt: an empty file; a model is"):
        find(path)


def test_onnx_by_its_suffix(tmp_path):
    """A model may begin with another field than exporters write first."""
    path = tmp_path / "model.ONNX"
    path.write_bytes(b"\x3a\0")
    assert formats.format_of(path) is formats.ONNX


def test_other_zip_files(tmp_path):
    path = tmp_path / "model.zip"
    path.write_bytes(zip_of("a.txt", "b.npy", "c", "d", "e"))
    with pytest.raises(ModelFileError,
                       match=r"a zip file of 'a.txt', 'b.npy', 'c', 'd', \.\.\.; a model is"):
        find(path)
    path.write_bytes(zip_of("a.npy", "b.npy")[:-9])
    with pytest.raises(ModelFileError, match=r"model\.zip: "):
        find(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        find(tmp_path / "model.pt")
    with pytest.raises(IsADirectoryError):
        read_arrays(tmp_path)


# ---- what is in it ------------------------------------------------------------------------------

def test_arrays_beside_a_gru(tmp_path):
    gru = model(num_layers=2)
    others = {"embedding.weight": np.ones((5, 3), F32), "steps": np.arange(3)}
    path = saved(tmp_path / "model.npz", gru, "rnn.", **others)
    arrays = read_arrays(path)
    assert_same_parameters(arrays, others | {f"rnn.{name}": a
                                             for name, a in gru.state_dict().items()})
    one, = find(os.fspath(path))
    assert one.name == "rnn."
    assert_same_parameters(one.parameters, gru.state_dict())
    assert sorted(one.arrays) == sorted(arrays.keys() - others.keys())


def test_several(tmp_path):
    """All are found; one has to be named."""
    first, second = model(), model(bidirectional=True)
    path = saved(tmp_path / "model.npz", first, "a.",
                 **{f"b.{name}": a for name, a in second.state_dict().items()})
    assert {one.name: one.options["bidirectional"] for one in find(path)} == {
        "a.": False, "b.": True}
    assert_same_parameters(formats.find_one(path, "b.").parameters, second.state_dict())
    with pytest.raises(ModelFileError, match=r"2 GRUs are in it; name one of them: 'b\.', 'a\.'"):
        formats.find_one(path)
    with pytest.raises(ModelFileError, match=r"no GRU has the name 'c\.'; there are: 'b\.', 'a\.'"):
        formats.find_one(path, "c.")


def test_none(tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, weight=np.ones(3))
    assert find(path) == []
    with pytest.raises(ModelFileError, match=r"model\.npz: no GRU is in it"):
        formats.find_one(path)


def test_max_bytes(tmp_path):
    path = saved(tmp_path / "model.npz", model())
    size = sum(a.nbytes for a in read_arrays(path).values())
    assert find(path, size)
    for read in (find, read_arrays):
        with pytest.raises(ModelFileError, match=f"max_bytes={size - 1}"):
            read(path, size - 1)


def fixtures():
    """Files of models in folders that have the names of the modules that read them."""
    return [path for folder in ("files", "keras", "onnx", "rtneural", "torch")
            for path in sorted((FIXTURES / folder).glob("*"))
            if path.suffix in (".onnx", ".json", ".pt", ".safetensors", ".keras", ".h5")]


@pytest.mark.parametrize("path", fixtures(), ids=lambda path: path.name)
def test_files_of_others(path, tmp_path):
    """Each is recognised, and its GRUs are found, or an error names it."""
    if path.suffix in NEEDS:
        pytest.importorskip(NEEDS[path.suffix])
    assert formats.format_of(path).module == path.parent.name
    try:
        found, arrays = find(path), read_arrays(path)
    except ModelFileError as error:
        assert str(error).startswith(f"{path}: ")
        return
    for one in found:
        assert one.arrays
        assert arrays.keys() >= set(one.arrays)
        converted = convert(path, tmp_path / "new.npz", one.name, reset_after=True)
        assert_same_parameters(converted.parameters, {
            name: a.astype(one.dtype) for name, a in one.parameters.items()})


# ---- from one to another ------------------------------------------------------------------------

SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".onnx", ".keras", ".weights.h5", ".json")


def needs(suffix):
    if suffix in NEEDS:
        pytest.importorskip(NEEDS[suffix])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
def test_there_and_back(suffix, dtype, tmp_path):
    """Parameters bit for bit, and what the model computes."""
    needs(suffix)
    gru = model(dtype=dtype)
    source = saved(tmp_path / "model.npz", gru)
    target, back = tmp_path / f"other{suffix}", tmp_path / "back.npz"
    written = convert(source, target)
    assert_same_parameters(written.parameters, gru.state_dict())
    assert formats.format_of(target) is formats.format_to_write(target)
    convert(target, back)
    assert_same_parameters(gru_c.GRU.load(back).state_dict(), gru.state_dict())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [source.name, target.name, back.name])


def test_a_chain(tmp_path):
    """From each format to the next; the parameters arrive with all their bits."""
    for suffix in SUFFIXES:
        needs(suffix)
    gru = model(dtype=F64)
    path = saved(tmp_path / "first.npz", gru)
    for i, suffix in enumerate(SUFFIXES):
        target = tmp_path / f"{i}{suffix}"
        convert(path, target)
        path = target
    assert_same_parameters(convert(path, tmp_path / "last.npz").parameters, gru.state_dict())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_suffixes_in_capitals(suffix, tmp_path):
    needs(suffix)
    source, target = saved(tmp_path / "model.npz", model()), tmp_path / f"OTHER{suffix.upper()}"
    convert(source, target)
    assert formats.format_of(target) is formats.format_to_write(target)
    assert_same_parameters(find(target)[0].parameters, model().state_dict())


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt", ".onnx"])
def test_layers_and_directions(suffix, tmp_path):
    needs(suffix)
    gru = model(num_layers=3, bidirectional=True)
    source, target = saved(tmp_path / "a.npz", gru), tmp_path / f"b{suffix}"
    convert(source, target)
    one, = find(target)
    assert (one.options["num_layers"], one.options["bidirectional"]) == (3, True)
    assert_same_parameters(convert(target, source).parameters, gru.state_dict())


def test_layers_of_rtneural(tmp_path):
    """They stand alone in a file; the name says which of them are one GRU."""
    gru = model(num_layers=3)
    source, target = saved(tmp_path / "a.npz", gru), tmp_path / "b.json"
    convert(source, target)
    assert [one.name for one in find(target)] == ["0", "1", "2"]
    with pytest.raises(ModelFileError, match="the layers are '0: gru', '1: gru', '2: gru'"):
        convert(target, source)
    assert_same_parameters(convert(target, source, "0,1,2").parameters, gru.state_dict())
    assert convert(target, source, "1").options["input_size"] == 4


def test_onnx_without_a_gru(tmp_path):
    """The reader of ONNX says which exporters write none."""
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "model.onnx"
    shape = [onnx.helper.make_tensor_value_info(name, 1, [2]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", *(
        [value] for value in shape))
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    assert find(path) == []
    with pytest.raises(ModelFileError, match=r"it has no GRU node; its nodes are Relu \(1\)\. Py"):
        convert(path, tmp_path / "new.npz")


@pytest.mark.parametrize("reset_after", [True, False, None])
def test_reset_after_of_onnx(reset_after, tmp_path):
    """Some of PyTorch's exporters wrote linear_before_reset=0: a warning, unless it is said."""
    onnx = pytest.importorskip("onnx")
    source, target = tmp_path / "model.onnx", tmp_path / "new.npz"
    model(reset_after=False).to_onnx(source)
    proto = onnx.load(source)
    proto.producer_name = "pytorch"
    onnx.save(proto, source)
    options = {} if reset_after is None else {"reset_after": reset_after}
    warned = pytest.warns(UserWarning, match="linear_before_reset is 0, which PyTorch's")
    with contextlib.nullcontext() if options else warned:
        convert(source, target, **options)
    assert gru_c.GRU.load(target).reset_after is bool(reset_after)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_our_own_files_hold_all(suffix, tmp_path):
    needs(suffix)
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True, "reset_after": False,
               "dropout": 0.5, "activation": {"name": "elu", "alpha": 0.5}, "clip": 2.0}
    for gru in (model(**options), gru_c.ReverseGRU(3, 4, 2, rng=0), gru_c.GRU(3, 4, bias=False)):
        source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        gru.save(source, {"author": "me"})
        convert(source, target)
        again = gru_c.GRU.load(target)
        assert (type(again), repr(again)) == (type(gru), repr(gru))
        assert again.metadata == {"author": "me"}
        assert_same_parameters(again.state_dict(), gru.state_dict())


@pytest.mark.parametrize(("suffix", "options", "named"), [
    (".pt", {"reset_after": False}, "reset_after"),
    (".pt", {"activation": "relu"}, "activation"),
    (".onnx", {"clip": 1e300}, "clip"),
    (".json", {"bidirectional": True}, "bidirectional"),
    (".json", {"recurrent_activation": "hard_sigmoid"}, "recurrent_activation"),
    (".keras", {"clip": 3.0}, "clip"),
    (".weights.h5", {"clip": 3.0}, "clip")])
def test_what_a_target_cannot_hold(suffix, options, named, tmp_path):
    """An error that names the option; what was there stays."""
    needs(suffix)
    source, target = tmp_path / "model.npz", tmp_path / f"other{suffix}"
    model(**options).save(source)
    target.write_bytes(b"old")
    with pytest.raises(ValueError, match=named):
        convert(source, target)
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_the_source_does_not_tell(tmp_path):
    source, target = saved(tmp_path / "a.npz", model()), tmp_path / "b.npz"
    found = convert(source, target, batch_first=True, reset_after=False)
    assert (found.options["batch_first"], found.options["reset_after"]) == (True, False)
    again = gru_c.GRU.load(target)
    assert (again.batch_first, again.reset_after) == (True, False)
    with pytest.raises(TypeError, match="hidden_size is found from the parameters"):
        convert(source, target, hidden_size=4)


def test_one_of_several(tmp_path):
    source, target = tmp_path / "a.npz", tmp_path / "b.npz"
    saved(source, model(), "a.", **{f"b.{name}": 2 * a for name, a in model().state_dict().items()})
    with pytest.raises(ModelFileError, match="2 GRUs are in it"):
        convert(source, target)
    assert not target.exists()
    convert(source, target, name="b.")
    assert_same_parameters(gru_c.GRU.load(target).state_dict(),
                           {name: 2 * a for name, a in model().state_dict().items()})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cell(suffix, tmp_path):
    """It stays one in our files and in PyTorch's, and is a layer elsewhere."""
    needs(suffix)
    cell = gru_c.GRUCell(3, 4, rng=0)
    source, target = saved(tmp_path / "a.npz", cell, "cell."), tmp_path / f"b{suffix}"
    convert(source, target)
    one, = find(target)
    assert one.cell == (suffix in (".safetensors", ".npz", ".pt", ".pth"))
    assert_same_parameters(one.parameters,
                           {f"{name}_l0": a for name, a in cell.state_dict().items()})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_of_the_arrays(suffix, tmp_path):
    """Those that a GRU is made from, as `read_arrays` names them."""
    needs(suffix)
    source, target = saved(tmp_path / "a.npz", model()), tmp_path / f"b{suffix}"
    convert(source, target)
    one, = find(target)
    sizes = [read_arrays(target)[name].size for name in one.arrays]
    assert sum(sizes) == sum(a.size for a in model().state_dict().values())


@pytest.mark.parametrize("stored", [np.float16, F32, F64])
@pytest.mark.parametrize("dtype", [None, F32, F64])
def test_dtype(stored, dtype, tmp_path):
    source, target = tmp_path / "a.npz", tmp_path / "b.npz"
    arrays = {name: a.astype(stored) for name, a in model().state_dict().items()}
    np.savez(source, **arrays)
    convert(source, target, dtype=dtype)
    wanted = dtype or (F64 if stored == F64 else F32)
    assert_same_parameters(gru_c.GRU.load(target).state_dict(),
                           {name: a.astype(wanted) for name, a in arrays.items()})


def test_values_that_the_dtype_cannot_hold(tmp_path):
    source, target = tmp_path / "a.npz", tmp_path / "b.npz"
    arrays = {name: a.astype(F64) for name, a in model().state_dict().items()}
    arrays["bias_ih_l0"][2] = 1e300
    np.savez(source, **arrays)
    with pytest.raises(ValueError, match="bias_ih_l0 holds values that float32 cannot hold"):
        convert(source, target, dtype=F32)
    assert not target.exists()


def test_onto_itself(tmp_path):
    path = saved(tmp_path / "model.npz", model(), "rnn.", other=np.ones(3))
    convert(path, os.fsencode(path))
    assert_same_parameters(gru_c.GRU.load(path).state_dict(), model().state_dict())


def test_an_unknown_suffix(tmp_path):
    """Told before anything is read."""
    with pytest.raises(ValueError, match=r"x\.bin: the suffix should name a format to write"):
        convert(tmp_path / "none.npz", tmp_path / "x.bin")


@pytest.mark.parametrize(("package", "suffix"), [
    ("safetensors", ".safetensors"), ("onnx", ".onnx"), ("h5py", ".keras")])
def test_without_the_extra(package, suffix, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    source = saved(tmp_path / "model.npz", model())
    with pytest.raises(MissingExtraError, match=f"{package} is needed for this"):
        convert(source, tmp_path / f"other{suffix}")
    content = {formats.SAFETENSORS: "safetensors", formats.ONNX: "ONNX", formats.KERAS: "HDF5"}
    path = tmp_path / "model"
    path.write_bytes(CONTENTS[content[formats.format_to_write(f"x{suffix}")]][0])
    with pytest.raises(MissingExtraError, match=f"{package} is needed for this"):
        find(path)


# ---- files that another method reads ------------------------------------------------------------

@pytest.mark.parametrize("suffix", [".pt", ".npz", ".keras", ".onnx", ".json"])
@pytest.mark.parametrize("method", ["from_torch", "from_keras", "from_onnx", "from_rtneural",
                                    "load"])
def test_a_reader_says_which_reads_a_file(suffix, method, tmp_path):
    gru_c.GRU(3, 4).save(tmp_path / "gru.npz")
    path = tmp_path / f"model{suffix}"
    convert(tmp_path / "gru.npz", path)
    own = formats.format_of(path).methods[0]
    if method == own:
        assert getattr(gru_c.GRU, method)(path).hidden_size == 4
        return
    with pytest.raises(ModelFileError, match=f"this is a file of .*: {own} reads it"):
        getattr(gru_c.GRU, method)(path)


@pytest.mark.parametrize("name", ["model.a.gru.", "model.a.gru", "a.gru"])
def test_a_name_is_a_prefix_or_its_end(name, tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, **{f"{prefix}.gru.{key}": a for prefix in ("model.a", "model.b")
                      for key, a in gru_c.GRU(3, 4).state_dict().items()})
    assert formats.find_one(path, name).name == "model.a.gru."
    with pytest.raises(ModelFileError, match="2 GRUs are in it"):
        formats.find_one(path, "gru")


def test_the_repr_of_what_is_found_is_short():
    found = formats.described(gru_c.GRU(80, 256))
    assert len(repr(found)) < 400 and "hidden_size=256" in repr(found)


@pytest.mark.parametrize("suffix", ["npz", "pt", "keras", "onnx", "json"])
def test_a_pipe(suffix, tmp_path):
    """What a file is cannot be told from a pipe without taking bytes from it."""
    path = tmp_path / f"model.{suffix}"
    gru_c.GRU(3, 4, rng=0).save(tmp_path / "model.npz")
    convert(tmp_path / "model.npz", path)
    own = {"pt": gru_c.GRU.from_torch, "keras": gru_c.GRU.from_keras}.get(suffix, find)
    for read in (find, read_arrays, own):
        with path.open("rb") as file, subprocess.Popen(["cat"], stdin=file,
                                                       stdout=subprocess.PIPE) as process:
            pipe = f"/dev/fd/{process.stdout.fileno()}"
            with pytest.raises(ModelFileError, match=f"{pipe}: a pipe cannot be read"):
                read(pipe)


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pt", "keras", "onnx", "json"])
def test_max_bytes_is_not_taken_from_the_start(suffix, tmp_path):
    """A small file is read where there is not room for max_bytes."""
    path = tmp_path / f"model.{suffix}"
    gru_c.GRU(3, 4, rng=0).save(tmp_path / "model.npz")
    convert(tmp_path / "model.npz", path)
    find(path)                                             # imports what it needs
    tracemalloc.start()
    try:
        assert len(find(path)) == 1
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("limit", "error", "text"), [
    (None, TypeError, "should be of type int, got: NoneType"), ("5", TypeError, ".*got: str"),
    (1e9, TypeError, ".*got: float"), (True, TypeError, ".*got: bool"),
    (-1, ValueError, "must not be negative, got -1")], ids=str)
def test_max_bytes_is_a_number_of_bytes(limit, error, text, tmp_path):
    path = tmp_path / "gru.npz"
    gru_c.GRU(3, 4).save(path)
    kinds = gru_c.GRU, gru_c.learn.SequenceClassifier
    for read in (find, read_arrays, partial(convert, path), *(kind.load for kind in kinds),
                 gru_c.GRU.from_torch, gru_c.GRU.from_keras, gru_c.GRU.from_onnx,
                 gru_c.GRU.from_rtneural):
        with pytest.raises(error, match=f"max_bytes {text}"):
            read(path, max_bytes=limit)


def test_copies_have_metadata_of_their_own(tmp_path):
    model = gru_c.GRU(3, 4)
    copy.copy(model).metadata["epoch"] = "3"
    assert model.metadata == {}
    model.metadata = None
    with pytest.raises(TypeError, match="metadata of the model should be a mapping"):
        model.save(tmp_path / "gru.npz")
