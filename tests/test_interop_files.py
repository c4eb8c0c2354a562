"""Files of our own: the writer, the two containers, `save` and `load`; the classifier's files, too.
"""

import io
import json
import os
import random
import re
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path

import family
import numpy as np
import pytest
from helpers import assert_same_bits, python
from hypothesis import given
from hypothesis import strategies as st

import gru_c
from gru_c import cli
from gru_c.interop import MissingExtraError, ModelFileError, files, formats
from gru_c.interop.containers import json_text, npz, safetensors
from gru_c.interop.containers.writing import write_atomically
from gru_c.interop.found import described
from gru_c.learn import SequenceClassifier

FIXTURES = Path(__file__).parent / "fixtures" / "interop" / "files"
BIG = 2**32
MAKE = {
    "GRU": lambda **options: gru_c.GRU(2, 3, rng=0, **options),
    "ReverseGRU": lambda **options: gru_c.ReverseGRU(2, 3, rng=0, **options),
    "GRUCell": lambda **options: gru_c.GRUCell(2, 3, rng=0, **options),
    "classifier": lambda **options: SequenceClassifier(2, 3, 4, rng=0, **options),
}
CONTAINERS = {"npz": npz, "safetensors": safetensors}
each_model = pytest.mark.parametrize("kind", MAKE)
each_suffix = pytest.mark.parametrize("suffix", CONTAINERS)


@pytest.fixture(autouse=True)
def _needs_safetensors():
    pytest.importorskip("safetensors")


def load(model, path):
    return type(model).load(path)


def texts_of(path):
    """The metadata of a file."""
    return files.read_container(path, BIG)[1]


def other(path, change_arrays=None, **texts):
    """Rewrite a file with other arrays and texts (None: taken away)."""
    arrays, metadata = files.read_container(path, BIG)
    arrays = change_arrays(dict(arrays)) if change_arrays else arrays
    metadata = {name: text for name, text in (metadata | texts).items() if text is not None}
    path.write_bytes(files.container_of(path).pack(arrays, metadata))


def with_header(data, change):
    """The bytes of a safetensors file with another header: change(text) -> text."""
    size = int.from_bytes(data[:8], "little")
    header = change(data[8:8 + size].decode()).encode()
    return len(header).to_bytes(8, "little") + header + data[8 + size:]


# ---- the writer ----------------------------------------------------------------------------------

def listing(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("convert", [str, os.fsencode, Path, lambda path: Bytes(path)],
                         ids=["str", "bytes", "Path", "PathLike of bytes"])
def test_paths(convert, tmp_path):
    """A path of bytes is one: there is no file named b'...'."""
    for i in range(2):                                     # a new file, and one that is replaced
        write_atomically(convert(tmp_path / "m\u00e9"), b"%d" % i)
        assert listing(tmp_path) == ["m\u00e9"]
        assert (tmp_path / "m\u00e9").read_bytes() == b"%d" % i


class Bytes:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return os.fsencode(self.path)


@pytest.mark.parametrize("convert", [str, os.fsencode], ids=["str", "bytes"])
@each_suffix
@each_model
def test_models_take_paths_of_bytes(kind, suffix, convert, tmp_path):
    model, path = MAKE[kind](), tmp_path / f"model.{suffix}"
    model.save(convert(path))
    assert listing(tmp_path) == [path.name]
    assert_same_bits(load(model, convert(path)).state_dict(), model.state_dict())


def test_a_name_of_255_bytes(tmp_path):
    path = tmp_path / ("n" * 243 + ".safetensors")
    assert len(path.name) == 255
    for model in (MAKE["GRU"](), MAKE["classifier"]()):
        model.save(path)
        assert_same_bits(load(model, path).state_dict(), model.state_dict())
    assert listing(tmp_path) == [path.name]


@contextmanager
def umask(mask):
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("old", [0o600, 0o640, 0o400, 0o444, 0o666, 0o755], ids=oct)
@pytest.mark.parametrize("mask", [0, 0o022, 0o077], ids=oct)
def test_the_mode_of_a_replaced_file_stays(old, mask, tmp_path, monkeypatch):
    """At no moment has anyone more access than before."""
    path, seen, real = tmp_path / "file", [], os.fchmod
    path.write_bytes(b"old")
    path.chmod(old)

    def look(*arguments):
        seen.extend(mode(tmp_path / name) for name in os.listdir(tmp_path))
        real(*arguments)
        seen.extend(mode(tmp_path / name) for name in os.listdir(tmp_path))

    monkeypatch.setattr(os, "fchmod", look)
    with umask(mask):
        write_atomically(path, b"new")
    assert mode(path) == old
    assert path.read_bytes() == b"new"
    assert len(seen) == 4 and not any(found & ~old for found in seen)


@pytest.mark.parametrize("mask", [0, 0o022, 0o027, 0o077], ids=oct)
def test_the_mode_of_a_new_file_is_that_of_the_umask(mask, tmp_path):
    with umask(mask):
        write_atomically(tmp_path / "file", b"")
    assert mode(tmp_path / "file") == 0o666 & ~mask


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_owner_and_group_stay(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    os.chown(path, 12345, 23456)
    write_atomically(path, b"new")
    status = os.stat(path)
    assert (status.st_uid, status.st_gid, mode(path)) == (12345, 23456, 0o640)


def test_another_group_gets_no_access(tmp_path, monkeypatch):
    """Where the group cannot stay, what it was allowed is taken away."""
    def refuse(*_):
        raise PermissionError

    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o664)
    real, monkeypatched = os.stat(path), []

    def status(descriptor):
        monkeypatched.append(descriptor)
        return os.stat_result((*real[:5], real.st_gid + 1, *real[6:]))

    monkeypatch.setattr(os, "fchown", refuse)
    monkeypatch.setattr(os, "fstat", status)
    write_atomically(path, b"new")
    assert monkeypatched and mode(path) == 0o604


def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    """Neither at the name that could be foreseen once, nor where somebody has guessed it."""
    victim, target = tmp_path / "victim", tmp_path / "model.npz"
    victim.write_bytes(b"precious")
    planted = [Path(f"{target}.{os.getpid()}.tmp"), tmp_path / f".{bytes(8).hex()}.tmp"]
    for link in planted:
        link.symlink_to(victim)
    MAKE["GRU"]().save(target)
    MAKE["classifier"]().save(target)
    assert victim.read_bytes() == b"precious"
    before = target.read_bytes()
    monkeypatch.setattr(os, "urandom", bytes)
    with pytest.raises(FileExistsError, match=re.escape(repr(str(target)))):
        write_atomically(target, b"new")
    assert victim.read_bytes() == b"precious" and target.read_bytes() == before
    assert all(link.is_symlink() for link in planted)


def test_training_makes_sure_of_its_folder_without_a_name(tmp_path):
    """The command line tries whether it can write there."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / f".{os.getpid()}.tmp").symlink_to(victim)
    cli._make_folder(tmp_path)
    assert victim.read_bytes() == b"precious" and len(listing(tmp_path)) == 2


def test_links_stay(tmp_path):
    """To a file, to one that is not there yet, in another folder, and a link to a link."""
    (tmp_path / "folder").mkdir()
    link, second = tmp_path / "link", tmp_path / "second"
    link.symlink_to(Path("folder") / "target")
    second.symlink_to("link")
    for path, data in ((link, b"1"), (second, b"2")):
        write_atomically(path, data)
        assert link.is_symlink() and second.is_symlink()
        assert (tmp_path / "folder" / "target").read_bytes() == data
    assert listing(tmp_path / "folder") == ["target"]


def test_pipes_and_devices_are_written(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, b"data")
        assert os.read(reader, 9) == b"data"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)
    write_atomically(os.devnull, b"data")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.filterwarnings("ignore::ResourceWarning",
                            "ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_leaves_no_file_open(tmp_path):
    """Not even where it comes when a file has just been opened."""
    def interrupt(frame, event, argument):
        if event == "c_return" and argument in (os.open, open):
            raise KeyboardInterrupt

    before = os.listdir("/proc/self/fd")
    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            write_atomically(tmp_path / "model.npz", b"data")
    finally:
        sys.setprofile(None)
    assert os.listdir("/proc/self/fd") == before
    assert listing(tmp_path) == []


@pytest.mark.parametrize("suffix", ["npz", "pt", "keras"])
def test_ctrl_c_stays_what_it_is(suffix, tmp_path, monkeypatch):
    """zipfile has an error of its own for an archive of which a member is not whole."""
    def interrupted(self):
        monkeypatch.undo()
        raise KeyboardInterrupt

    found = described(gru_c.GRU(2, 3))
    monkeypatch.setattr(zipfile._ZipWriteFile, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        formats.format_to_write(f".{suffix}").io.write(found, tmp_path / f"model.{suffix}")
    assert listing(tmp_path) == []


@each_suffix
@each_model
def test_a_pipe_is_read(kind, suffix, tmp_path):
    """As ``<(zcat model.npz.gz)`` of a shell is one."""
    model, path, pipe = MAKE[kind](), tmp_path / f"model.{suffix}", tmp_path / "pipe"
    model.save(path)
    os.mkfifo(pipe)
    for data in (path.read_bytes(), path.read_bytes()[:-1], b""):
        writer = threading.Thread(target=pipe.write_bytes, args=(data,))
        writer.start()
        if data == path.read_bytes():
            assert_same_bits(load(model, pipe).state_dict(), model.state_dict())
        else:
            with pytest.raises(ModelFileError, match=re.escape(f"{pipe}: ")):
                load(model, pipe)
        writer.join()


def test_a_pipe_without_end(monkeypatch):
    monkeypatch.setattr(files, "MAX_BESIDE", 2**22)
    with (subprocess.Popen(["yes"], stdout=subprocess.PIPE) as process, memory_of(2**25),
          pytest.raises(ModelFileError)):
        files.read_arrays(f"/dev/fd/{process.stdout.fileno()}", 2**20)


def test_output_through_the_name_of_a_descriptor(tmp_path):
    """/dev/stdout is a link to a pipe without a path of its own."""
    script = ("from gru_c.interop.containers.writing import write_atomically\n"
              "write_atomically('/dev/stdout', b'data')")
    assert python(script) == "data"


@pytest.mark.parametrize("name", ["", "nowhere/file", "folder", "new/", "file/x", "folder/new/"])
def test_errors_name_the_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(OSError) as caught:
        write_atomically(name, b"data")
    assert caught.value.filename == name and repr(name) in str(caught.value)
    assert listing(tmp_path) == ["file", "folder"] and listing("folder") == []


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize("function", ["fsync", "replace", "fchmod"])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, FULL, MemoryError], ids=repr)
@pytest.mark.parametrize("there", [True, False], ids=["replaced", "new"])
def test_whatever_stops_it_leaves_what_was_there(function, interruption, there, tmp_path,
                                                 monkeypatch):
    path = tmp_path / "file"
    if there:
        path.write_bytes(b"old")
    elif function == "fchmod":
        return                                             # not called for a new file

    def stop(*_):
        raise interruption

    monkeypatch.setattr(os, function, stop)
    with pytest.raises((KeyboardInterrupt, MemoryError, OSError)) as caught:
        write_atomically(path, b"new")
    if interruption is FULL:
        assert str(caught.value) == f"[Errno 28] No space left on device: {str(path)!r}"
    assert listing(tmp_path) == ["file"] * there
    assert not there or path.read_bytes() == b"old"


def test_ctrl_c_while_it_is_made(tmp_path, monkeypatch):
    """The new file is there, its descriptor not yet known."""
    real = os.open

    def interrupted(*arguments, **options):
        os.close(real(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"new")
    assert listing(tmp_path) == []


def test_a_full_device():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_atomically("/dev/full", bytes(10**5))


FILE_OF_LIMITED_SIZE = """
import resource, sys
import gru_c
gru = gru_c.GRU(64, 64)
for path in sys.argv[1:]:
    for count in (0, 1, 1000, 90_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, -1))
        try:
            gru.save(path)
        except OSError as error:
            print(error.filename == path, error.strerror)
"""


@each_suffix
def test_no_room(suffix, tmp_path):
    """A limit of the file's size stands for a full disk."""
    old, new = tmp_path / f"old.{suffix}", tmp_path / f"new.{suffix}"
    old.write_bytes(b"old")
    assert python(FILE_OF_LIMITED_SIZE, str(old), str(new)) == "True File too large\n" * 8
    assert listing(tmp_path) == [old.name] and old.read_bytes() == b"old"


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts a small disk")
@each_model
def test_a_full_disk(kind, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a container that cannot mount")
    try:
        path = tmp_path / "model.npz"
        small = MAKE[kind]()
        small.save(path)
        old = path.read_bytes()
        large = SequenceClassifier if kind == "classifier" else type(small)
        with pytest.raises(OSError, match="No space left on device: " + re.escape(repr(str(path)))):
            large(64, 64, *([4] if kind == "classifier" else [])).save(path)
        assert path.read_bytes() == old and listing(tmp_path) == [path.name]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


SAVER = """
import sys, time
import gru_c
from gru_c.learn import SequenceClassifier
make = {"GRU": lambda: gru_c.GRU(30, 40, rng=0), "GRUCell": lambda: gru_c.GRUCell(30, 40, rng=0),
        "ReverseGRU": lambda: gru_c.ReverseGRU(30, 40, rng=0),
        "classifier": lambda: SequenceClassifier(30, 40, 4, rng=0)}
model, end = make[sys.argv[1]](), time.monotonic() + 1
while time.monotonic() < end:
    model.save(sys.argv[2])
"""


@each_suffix
@pytest.mark.parametrize("kind", ["GRU", "classifier"])
def test_two_savers_to_one_path(kind, suffix, tmp_path):
    """In two threads and another process, for a second: each reader sees a whole file."""
    path, errors = tmp_path / f"model.{suffix}", []
    model = (gru_c.GRU(30, 40, rng=0) if kind == "GRU" else SequenceClassifier(30, 40, 4, rng=0))
    model.save(path)
    process = subprocess.Popen([sys.executable, "-c", SAVER, kind, str(path)],
                               stderr=subprocess.PIPE)
    end, counts = time.monotonic() + 1, {"saved": 0, "read": 0}

    def repeat(name, action):
        while time.monotonic() < end:
            try:
                action()
                counts[name] += 1
            except Exception as error:
                errors.append(error)

    def read():
        assert_same_bits(load(model, path).state_dict(), model.state_dict())

    threads = [threading.Thread(target=repeat, args=(name, action)) for name, action in
               (("saved", lambda: model.save(path)),) * 2 + (("read", read),) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.communicate()[1] == b""
    assert errors == [] and min(counts.values()) > 5
    assert listing(tmp_path) == [path.name]


# ---- round trips ---------------------------------------------------------------------------------

@st.composite
def models(draw):
    """A GRU, a ReverseGRU or a cell with any options, and any texts."""
    case = draw(family.cases())
    options = case.model | {"dtype": draw(st.sampled_from([np.float32, np.float64])), "rng": 0}
    kind = draw(st.sampled_from([gru_c.GRU, gru_c.ReverseGRU, gru_c.GRUCell]))
    if kind is gru_c.ReverseGRU:
        options["bidirectional"] = False
    if kind is gru_c.GRUCell:
        del options["num_layers"], options["bidirectional"]
    else:
        p = st.sampled_from([0.0, 0.1, 1 / 3, 1.0])
        options |= {"batch_first": draw(st.booleans()), "input_dropout": draw(p),
                    "recurrent_dropout": draw(p), "dropout": draw(p) if case.layers > 1 else 0.0,
                    "checkpoint": draw(st.none() | st.integers(1, 9))}
    model = kind(**options)
    names = st.text(st.characters(exclude_categories=["Cs"])).filter(
        lambda name: name not in files.OWN)
    model.metadata = draw(st.dictionaries(names, names, max_size=3))
    return model


@given(models(), st.sampled_from(list(CONTAINERS)))
def test_round_trips(tmp_path_factory, model, suffix):
    """All options, the bits of all parameters, the metadata; and the same file again."""
    path = tmp_path_factory.getbasetemp() / f"round_trip.{suffix}"
    model.save(path)
    again = load(model, path)
    assert type(again) is type(model) and repr(again) == repr(model)
    assert described(again).options == described(model).options
    assert again.dtype == model.dtype and again.metadata == model.metadata
    assert_same_bits(again.state_dict(), model.state_dict())
    first = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == first


@each_suffix
@each_model
def test_bits(kind, suffix, dtype, tmp_path):
    """NaN with a payload, infinities, negative zero and denormals; the classifier has none."""
    model, path = MAKE[kind](dtype=dtype), tmp_path / f"model.{suffix}"
    bits = np.frombuffer(np.random.default_rng(0).bytes(8 * 1000), dtype)
    if kind == "classifier":
        bits = bits[np.isfinite(bits)]
    model.load_state_dict({name: np.resize(np.roll(bits, i), a.shape)
                           for i, (name, a) in enumerate(model.state_dict().items())})
    model.save(path)
    again = load(model, path)
    for name, a in model.state_dict().items():
        assert again.state_dict()[name].tobytes() == a.tobytes()


@each_suffix
@each_model
def test_metadata_is_kept(kind, suffix, tmp_path):
    model, path = MAKE[kind](), tmp_path / f"model.{suffix}"
    model.save(path, {"a": "1", "h\u00e9": "\U0001f600\n\0"})
    again = load(model, path)
    assert again.metadata == {"a": "1", "h\u00e9": "\U0001f600\n\0"} and model.metadata == {}
    again.save(path, {"a": "2", "b": ""})
    assert load(model, path).metadata == {"a": "2", "b": "", "h\u00e9": "\U0001f600\n\0"}


def test_modes():
    """A new model is in training mode, but with dropout in eval mode; a classifier in eval mode."""
    assert gru_c.GRUCell.load(FIXTURES / "cell.npz").training
    assert gru_c.GRU.load(FIXTURES / "reverse.npz").training
    assert not gru_c.GRU.load(FIXTURES / "gru.npz").training
    assert not SequenceClassifier.load(FIXTURES / "classifier.npz").gru.training


SAVE_BOTH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from make_interop_files import MODELS
for name, model in MODELS.items():
    for suffix in ("npz", "safetensors"):
        for i in range(5):
            path = Path(sys.argv[1], str(i), f"{name}.{suffix}")
            path.parent.mkdir(exist_ok=True)
            model.save(path, {"note": "h\\u00e9llo", "a": "1"})
"""


@pytest.mark.parametrize("seed", ["0", "1", "2", "3"])
def test_one_model_is_one_file(seed, tmp_path):
    """In several processes, five times in each; today as when the fixtures were made."""
    python(SAVE_BOTH, str(tmp_path), str(FIXTURES.parents[3] / "tools"), PYTHONHASHSEED=seed)
    expected = {path.name: path.read_bytes() for path in FIXTURES.iterdir()
                if path.name != "classifier_earlier.safetensors"}
    for i in range(5):
        assert {path.name: path.read_bytes()
                for path in (tmp_path / str(i)).iterdir()} == expected


@each_suffix
def test_files_of_this_version(suffix):
    """A later one has to read them."""
    gru = gru_c.GRU.load(FIXTURES / f"gru.{suffix}")
    assert repr(gru) == repr(gru_c.GRU(
        2, 3, num_layers=2, bidirectional=True, batch_first=True, dropout=0.25,
        activation={"name": "elu", "alpha": 0.3}, clip=4.0, checkpoint=8))
    reverse = gru_c.GRU.load(FIXTURES / f"reverse.{suffix}")
    assert repr(reverse) == repr(gru_c.ReverseGRU(2, 3, reset_after=False, dtype=np.float64))
    cell = gru_c.GRUCell.load(FIXTURES / f"cell.{suffix}")
    assert repr(cell) == repr(gru_c.GRUCell(2, 3, bias=False, recurrent_activation="hard_sigmoid"))
    for seed, model in ((1, gru), (2, reverse), (3, cell)):
        assert model.metadata == {"note": "h\u00e9llo", "a": "1"}
        first = next(iter(model.state_dict().values()))
        drawn = np.random.default_rng(seed).uniform(-1, 1, first.shape) / np.sqrt(3)
        assert first == pytest.approx(drawn, abs=1e-6)
    assert SequenceClassifier.load(FIXTURES / f"classifier.{suffix}").num_classes == 4
    for name, made in (("int8", gru_c.GRU(2, 3, num_layers=2, rng=5).quantize("int8", x_bits=12)),
                       ("bfloat16", gru_c.GRUCell(2, 3, rng=6).quantize("bfloat16"))):
        model = type(made).load(FIXTURES / f"{name}.{suffix}")
        assert repr(model) == repr(made)
        for found, drawn in zip(model.state_dict().values(), made.state_dict().values(),
                                strict=True):
            assert found == pytest.approx(drawn, abs=1e-6)
    model = SequenceClassifier.load(FIXTURES / f"classifier_int8.{suffix}")
    assert (model.num_classes, model.gru.quantization, model.gru.x_bits) == (4, "int8", 8)


def test_a_classifier_of_an_earlier_version():
    """Commit 2b1250e wrote the file, and computed the logits."""
    model = SequenceClassifier.load(FIXTURES / "classifier_earlier.safetensors")
    assert model.metadata == {"note": "h\u00e9llo", "epoch": "3"}
    assert (model.num_layers, model.dtype, model.reset_after) == (2, np.float64, False)
    assert model(np.ones((1, 2, 3))) == pytest.approx(
        np.array([[-0.16840823, -0.55286959, -0.12893234, -0.09901149]]), abs=1e-8)


def test_numpy_reads_npz(tmp_path):
    model, path = MAKE["GRU"](), tmp_path / "model.npz"
    model.save(path, {"a": "1"})
    with np.load(path, allow_pickle=False) as arrays:
        metadata = json.loads(bytes(arrays["__metadata__"]))
        assert_same_bits({name: arrays[name] for name in model.state_dict()}, model.state_dict())
        assert set(arrays) == {*model.state_dict(), "__metadata__"}
    assert json.loads(metadata["options"])["hidden_size"] == 3 and metadata["a"] == "1"


def test_safetensors_reads_safetensors(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    model, path = MAKE["GRUCell"](), tmp_path / "model.safetensors"
    model.save(path, {"a": "1"})
    assert_same_bits(load_file(path), model.state_dict())
    with safe_open(path, "np") as file:
        assert file.metadata()["format"] == "gru_c.GRUCell" and file.metadata()["a"] == "1"


# ---- which class reads what ----------------------------------------------------------------------

def test_the_content_tells_the_format(tmp_path):
    model = MAKE["GRU"]()
    for suffix, wrong in (("npz", "safetensors"), ("safetensors", "npz")):
        model.save(tmp_path / f"right.{suffix}")
        os.rename(tmp_path / f"right.{suffix}", tmp_path / f"wrong.{wrong}")
        assert repr(gru_c.GRU.load(tmp_path / f"wrong.{wrong}")) == repr(model)


def test_classes(tmp_path):
    path = tmp_path / "model.npz"
    MAKE["ReverseGRU"]().save(path)
    assert type(gru_c.GRU.load(path)) is type(gru_c.ReverseGRU.load(path)) is gru_c.ReverseGRU
    with pytest.raises(ValueError, match=r"model.npz: reverse=True, which a GRUCell does not have"):
        gru_c.GRUCell.load(path)
    MAKE["GRU"](batch_first=True).save(path)
    with pytest.raises(ValueError, match=r"model\.npz: the GRU runs forwards, which a ReverseGRU"):
        gru_c.ReverseGRU.load(path)
    assert_same_bits({"weight_ih": gru_c.GRUCell.load(path).weight_ih},
                     {"weight_ih": gru_c.GRU.load(path).weight_ih_l0})
    MAKE["GRUCell"](clip=2.0).save(path)
    assert gru_c.GRU.load(path).clip == 2.0 and not gru_c.GRU.load(path).batch_first
    for options, word in (({"num_layers": 2}, "num_layers=2"),
                          ({"input_dropout": 0.5}, "input_dropout=0.5"),
                          ({"bidirectional": True}, "bidirectional=True")):
        MAKE["GRU"](**options).save(path)
        with pytest.raises(ValueError, match=f"model.npz: {word}, which a GRUCell does not have"):
            gru_c.GRUCell.load(path)
    MAKE["classifier"]().save(path)
    with pytest.raises(ModelFileError, match=r"gru_c\.learn\.SequenceClassifier\.load reads it"):
        gru_c.GRU.load(path)


def test_a_subclass(tmp_path):
    class Mine(gru_c.GRU):
        pass

    Mine(2, 3).save(tmp_path / "model.npz")
    assert type(Mine.load(tmp_path / "model.npz")) is Mine
    assert type(gru_c.GRU.load(tmp_path / "model.npz")) is gru_c.GRU


def test_foreign_files(tmp_path):
    """A file of PyTorch is told from a damaged one, with what reads it."""
    from safetensors.numpy import save_file

    state = {f"encoder.{name}": a for name, a in MAKE["GRU"]().state_dict().items()}
    for metadata in (None, {"format": "pt"}):
        save_file(state, tmp_path / "foreign.safetensors", metadata)
        np.savez(tmp_path / "foreign.npz", **state)
        for suffix in CONTAINERS:
            path = tmp_path / f"foreign.{suffix}"
            with pytest.raises(ModelFileError, match=re.escape(f"{path}: the metadata do not say")
                               + ".*from_state_dict.*read_arrays"):
                gru_c.GRU.load(path)
            gru = gru_c.GRU.from_state_dict(files.read_arrays(path, BIG), "encoder.")
            assert_same_bits({f"encoder.{name}": a for name, a in gru.state_dict().items()}, state)
            assert [found.name for found in files.find(path, BIG)] == ["encoder."]


@each_suffix
def test_find(suffix, tmp_path):
    path = tmp_path / f"model.{suffix}"
    gru = MAKE["GRU"](reset_after=False, clip=1.5)
    gru.save(path, {"a": "1"})
    found, = files.find(path, BIG)
    assert (found.convention, found.options["clip"], found.metadata) == (
        "gru_c.GRU", 1.5, {"a": "1"})
    model = MAKE["classifier"](reset_after=False)
    model.save(path)
    found, = files.find(path, BIG)
    assert found.name == "gru." and found.convention == "gru_c.SequenceClassifier"
    assert found.options["batch_first"] and not found.options["reset_after"]
    files.write(found, tmp_path / f"gru.{suffix}")
    assert repr(gru_c.GRU.load(tmp_path / f"gru.{suffix}")) == repr(model.gru)


def test_suffixes(tmp_path):
    for name in ("model", "model.pt", "model.npz.", ".npz", "model.safetensors.tmp"):
        with pytest.raises(ValueError, match=re.escape(f"{tmp_path / name}: the suffix is")
                           + r".*\.safetensors or \.npz"):
            MAKE["GRU"]().save(tmp_path / name)
    MAKE["GRU"]().save(tmp_path / "model.NPZ")
    assert listing(tmp_path) == ["model.NPZ"]


def test_garbage_without_safetensors(tmp_path, monkeypatch):
    """What is no file of a model is told so, whatever is installed."""
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "model.npz").write_bytes(b"garbage " * 9)
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        gru_c.GRU.load(tmp_path / "model.npz")


def test_without_safetensors(tmp_path, monkeypatch):
    model, path = MAKE["GRU"](), tmp_path / "model.safetensors"
    model.save(path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for action in (lambda: model.save(path), lambda: gru_c.GRU.load(path),
                   lambda: files.find(path, BIG), lambda: gru_c.GRU.from_torch(path)):
        with pytest.raises(MissingExtraError, match=re.escape("pip install 'gru-c[safetensors]'")):
            action()
    for kind in MAKE:
        model = MAKE[kind]()
        model.save(tmp_path / "model.npz")
        load(model, tmp_path / "model.npz")


def test_the_command_line_reads_npz(tmp_path, monkeypatch, capsys):
    path = tmp_path / "model.npz"
    SequenceClassifier(8, 4, 10, rng=0).save(path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert cli.main(["predict", str(path), "--data", "digits"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 361
    path.write_bytes(path.read_bytes()[:-9])
    assert cli.main(["predict", str(path), "--data", "digits"]) == 1
    assert f"error: {path}: it is truncated" in capsys.readouterr().err


def test_imports():
    """Files of NumPy alone import no package of an extra."""
    assert python("import sys, gru_c\nprint('gru_c.interop' in sys.modules)\n"
                  "gru_c.GRU.load(sys.argv[1])\n"
                  "print({'safetensors', 'h5py', 'onnx'} & set(sys.modules))",
                  str(FIXTURES / "gru.npz")) == "False\nset()\n"


# ---- what is not saved ---------------------------------------------------------------------------

@pytest.mark.parametrize(("metadata", "error", "message"), [
    ({"format": "x"}, ValueError, "metadata 'format' is a name of the format; so are"),
    ({"a": 1}, TypeError, "metadata 'a' is 1, expected str and str"),
    ({1: "a"}, TypeError, "metadata 1 is 'a', expected str and str"),
    ({"a": "\ud800"}, ValueError, "metadata 'a' has characters that UTF-8 does not have"),
    ({"\udfff": "a"}, ValueError, "has characters that UTF-8 does not have"),
], ids=str)
@each_suffix
@each_model
def test_metadata_that_is_not_saved(kind, suffix, metadata, error, message, tmp_path):
    model, path = MAKE[kind](), tmp_path / f"model.{suffix}"
    for given_ in (True, False):
        if not given_:
            model.metadata = metadata
        with pytest.raises(error, match=re.escape(f"{path}: not saved, {message}"
                                                  if not message.startswith("has") else message)):
            model.save(path, metadata if given_ else None)
    assert listing(tmp_path) == []


@each_model
def test_save_refuses_what_load_would(kind, tmp_path):
    """More text than a header may have."""
    for suffix in CONTAINERS:
        with pytest.raises(ValueError, match="not saved, it could not be read"):
            MAKE[kind]().save(tmp_path / f"model.{suffix}", {"text": "x" * 2**24})
    assert listing(tmp_path) == []


# ---- what is not loaded --------------------------------------------------------------------------

def options(path, **changed):
    """The text of the options with some of them other (None: taken away)."""
    found = json.loads(texts_of(path)["options"]) | changed
    return json.dumps({name: value for name, value in found.items() if value != "gone"})


@pytest.mark.parametrize(("changed", "message"), [
    ({"hidden_size": 4}, "the metadata say hidden_size=4, names and shapes of the arrays 3"),
    ({"input_size": 10**4000}, "the metadata say input_size="),
    ({"num_layers": 2}, "the metadata say num_layers=2"),
    ({"bias": False}, "the metadata say bias=False"),
    ({"bidirectional": True}, "the metadata say bidirectional=True"),
    ({"dtype": "float64"}, "is float32, the metadata say float64"),
    ({"dtype": "float16"}, "metadata options: dtype must be float32 or float64, got 'float16'"),
    ({"dtype": []}, "metadata options: dtype must be"),
    ({"bias": 1}, "metadata options: bias should be of type bool, got: int"),
    ({"hidden_size": "3"}, "metadata options: hidden_size should be of type int, got: str"),
    ({"hidden_size": True}, "metadata options: hidden_size should be of type int"),
    ({"dropout": 2}, "metadata options: dropout should be a number in range [0, 1]"),
    ({"dropout": float("nan")}, "metadata options: dropout should be"),
    ({"recurrent_dropout": None}, "metadata options: recurrent_dropout should be a number"),
    ({"activation": "sine"}, "metadata options: unknown activation 'sine'"),
    ({"activation": {"name": "elu", "alpha": -1}}, "metadata options: alpha of activation 'elu'"),
    ({"activation": {"name": "elu", "alpha": 10**400}}, "alpha of activation 'elu' must be finite"),
    ({"activation": {"name": ["elu"]}}, "metadata options: unknown activation"),
    ({"activation": None}, "metadata options: activation should be a name or a dict"),
    ({"clip": -1}, "metadata options: clip must be None or a positive number"),
    ({"clip": float("inf")}, "metadata options: clip must be finite"),
    ({"checkpoint": 0}, "metadata options: checkpoint must be greater than zero"),
    ({"checkpoint": "gone"}, "metadata options should be a JSON object with the names"),
    ({"another": 1}, "metadata options should be a JSON object with the names"),
], ids=lambda value: str(value)[:40])
@each_suffix
def test_options_that_are_wrong(changed, message, suffix, tmp_path):
    path = tmp_path / f"model.{suffix}"
    MAKE["GRU"]().save(path)
    other(path, options=options(path, **changed))
    with pytest.raises(ModelFileError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        gru_c.GRU.load(path)


@pytest.mark.parametrize(("texts", "message"), [
    ({"format": None}, "the metadata do not say that this is a model that gru_c saved"),
    ({"format": "gru_c.LSTM"}, "the metadata do not say that this is a model that gru_c saved"),
    ({"format": "gru_c.GRUCell", "options": None}, "metadata options: not readable JSON"),
    ({"format_version": None}, "metadata format_version is None, this gru_c reads '1'"),
    ({"format_version": "2"}, "metadata format_version is '2', this gru_c reads '1'"),
    ({"options": None}, "metadata options: not readable JSON"),
    ({"options": "[]"}, "metadata options should be a JSON object"),
    ({"options": "null"}, "metadata options should be a JSON object"),
    ({"options": "9" * 5000}, "metadata options: not readable JSON (Exceeds the limit"),
    ({"options": "[" * 10**5}, "metadata options: not readable JSON"),
    ({"options": '{"a":' * 10**5}, "metadata options: not readable JSON"),
    ({"options": '{"bias": true, "bias": true}'},
     "metadata options: not readable JSON ('bias' is there twice)"),
], ids=lambda value: str(value)[:40])
@each_suffix
def test_metadata_that_is_wrong(texts, message, suffix, tmp_path):
    path = tmp_path / f"model.{suffix}"
    MAKE["GRU"]().save(path)
    other(path, **texts)
    with pytest.raises(ModelFileError, match=re.escape(f"{path}: {message}")):
        gru_c.GRU.load(path)


@pytest.mark.parametrize(("change", "message"), [
    (lambda arrays: arrays | {"extra": np.zeros(1, np.float32)},
     "'extra' beside the parameters of a GRU"),
    (lambda arrays: {}, "it is empty"),
    (lambda arrays: {name: a for name, a in arrays.items() if name != "bias_hh_l0"},
     "missing 'bias_hh_l0'"),
    (lambda arrays: arrays | {"weight_ih_l2": arrays["weight_ih_l0"]}, "missing 'weight_ih_l1'"),
    (lambda arrays: arrays | {"bias_ih_l0": np.zeros(8, np.float32)},
     "bias_ih_l0 has shape (8,), expected (9,)"),
    (lambda arrays: arrays | {"bias_ih_l0": np.zeros(9)},
     "bias_ih_l0 is float64, the metadata say float32"),
    (lambda arrays: arrays | {"bias_ih_l0": np.zeros(9, np.int32)},
     "bias_ih_l0 has dtype int32, expected a floating dtype"),
    (lambda arrays: {name.removesuffix("_l0"): a for name, a in arrays.items()},
     "are not those of a gru_c.GRU"),
    (lambda arrays: {f"a.{name}": a for name, a in arrays.items()}, "prefix='a.'"),
    (lambda arrays: {name: np.zeros((0, 0), np.float32) for name in arrays}, "has shape (0, 0)"),
], ids=["extra", "none", "missing", "layer 2", "shape", "float64", "int32", "cell", "prefix", "0"])
@each_suffix
def test_arrays_that_are_wrong(change, message, suffix, tmp_path):
    path = tmp_path / f"model.{suffix}"
    MAKE["GRU"]().save(path)
    other(path, change)
    with pytest.raises(ModelFileError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        gru_c.GRU.load(path)


def test_a_reverse_gru_of_two_directions(tmp_path):
    path = tmp_path / "model.npz"
    MAKE["GRU"](bidirectional=True).save(path)
    other(path, format="gru_c.ReverseGRU")
    with pytest.raises(ModelFileError, match="has one direction, the file has two"):
        gru_c.GRU.load(path)


@pytest.mark.parametrize("kind", ["GRU", "classifier"])
def test_null_metadata(kind, tmp_path):
    model, path = MAKE[kind](), tmp_path / "model.safetensors"
    model.save(path)
    path.write_bytes(with_header(path.read_bytes(), lambda text: re.sub(
        r'"__metadata__":\{.*?"\},', '"__metadata__":null,', text)))
    assert b'"__metadata__":null' in path.read_bytes()
    with pytest.raises(ModelFileError, match=re.escape(f"{path}: the metadata do")):
        load(model, path)
    assert files.read_arrays(path, BIG).keys() == model.state_dict().keys()


@pytest.mark.parametrize("text", ["9" * 5000, "9" * 11, "0" * 5000 + "3", "-3", "3.0", "\u0663"])
@each_suffix
def test_sizes_of_thousands_of_digits(text, suffix, tmp_path):
    path = tmp_path / f"model.{suffix}"
    MAKE["classifier"]().save(path)
    other(path, hidden_size=text)
    with pytest.raises(ModelFileError, match="hidden_size should be a positive number, got '"):
        SequenceClassifier.load(path)


@pytest.mark.parametrize("kind", ["GRU", "classifier"])
@pytest.mark.parametrize("inserted", [
    '"__metadata__":{"a":1},', '"__metadata__":[],', '"__metadata__":"x",', '"a":null,', '"a":{},',
    '"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":' + "9" * 5000 + "},",
    '"a":{"dtype":"F32","shape":[' + "9" * 5000 + '],"data_offsets":[0,0]},',
    '"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":' + "[" * 9**5 + "]" * 9**5 + "},",
    '"a":{"dtype":"F32","shape":[0,4611686018427387904,9],"data_offsets":[0,0]},',
    '"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]},',
    '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,0]},',
    '"a":{"dtype":"F32","shape":[0],"data_offsets":[9,9]},', '"\\ud800":{},', "]", "NaN",
], ids=lambda text: text[:40])
def test_headers_that_are_wrong(kind, inserted, tmp_path):
    model, path = MAKE[kind](), tmp_path / "model.safetensors"
    model.save(path)
    path.write_bytes(with_header(path.read_bytes(), lambda text: text[0] + inserted + text[1:]))
    with pytest.raises(ModelFileError, match=re.escape(f"{path}: ")):
        load(model, path)


@each_suffix
@pytest.mark.parametrize("kind", ["GRUCell", "classifier"])
def test_truncated_at_every_byte(kind, suffix, tmp_path):
    model, path = MAKE[kind](), tmp_path / f"model.{suffix}"
    model.save(path)
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(ModelFileError, match=re.escape(f"{path}: ")):
            load(model, path)


@pytest.mark.filterwarnings("ignore:dropout option adds dropout")
@each_suffix
@each_model
def test_flipped_bits(kind, suffix, tmp_path):
    """A clear error, or in the numbers of safetensors other numbers."""
    model, path = MAKE[kind](), tmp_path / f"model.{suffix}"
    model.save(path)
    data, rng, loaded = path.read_bytes(), random.Random(0), 0
    for _ in range(600):
        spoiled = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            spoiled[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        with path.open("r+b") as file:                     # much faster than a new file
            file.write(spoiled)
        try:
            again = load(model, path)
            loaded += 1
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert again.state_dict().keys() == model.state_dict().keys()
    assert loaded < 600


@each_suffix
@pytest.mark.parametrize("data", [b"", b"\0", b"\0" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\xff" * 99,
                                  b"PK\3\4", b"PK\5\6" + b"\0" * 18, b"PK\3\4" + b"\xff" * 99])
def test_what_is_neither(suffix, data, tmp_path):
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(data)
    for action in (gru_c.GRU.load, SequenceClassifier.load):
        with pytest.raises(ModelFileError, match=re.escape(f"{path}: ")):
            action(path)


def test_what_cannot_be_opened(tmp_path):
    for action in (gru_c.GRU.load, SequenceClassifier.load):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
            action(tmp_path / "nowhere.npz")
        with pytest.raises(IsADirectoryError):
            action(tmp_path)


@each_suffix
@each_model
def test_max_bytes(kind, suffix, tmp_path):
    model, path = MAKE[kind](), tmp_path / f"model.{suffix}"
    model.save(path)
    declared = sum(a.nbytes for a in files.read_arrays(path, BIG).values())
    with pytest.raises(ModelFileError, match=f"take {declared:,} bytes, more than max_bytes="
                                             f"{declared - 1:,}; raise max_bytes to read it"):
        type(model).load(path, max_bytes=declared - 1)
    type(model).load(path, max_bytes=declared)


# ---- the container .npz --------------------------------------------------------------------------

def npz_of(members, **options):
    """A zip archive of these files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def npy_of(a, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, a, version)
    return file.getvalue()


def header(text, version=b"\1\0", data=b""):
    width = 2 if version == b"\1\0" else 4
    text = text.encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(width, "little") + text + data


ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.zeros((0, 3)),
    "one": np.array(3.5), "big": np.arange(3, dtype=">f8"), "bool": np.array([True, False]),
    "Fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "half": np.ones(2, np.float16),
    "complex": np.ones(2, np.complex64), "text": np.array(["a", "h\u00e9"]),
    "bytes": np.array(b"a"), "a/b": np.arange(2, dtype=np.uint8),
    "h\u00e9": np.arange(3, dtype=">i2"),
    "many": np.zeros((1,) * 32, np.int64), "view": np.arange(9)[::2]}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_numpy(save, tmp_path):
    save(tmp_path / "a.npz", **ARRAYS)
    found = files.read_arrays(os.fsencode(tmp_path / "a.npz"), BIG)
    assert list(found) == list(ARRAYS)
    for name, a in ARRAYS.items():
        assert found[name].shape == a.shape and (found[name] == a).all()
        assert found[name].dtype == a.dtype.newbyteorder("=") and found[name].dtype.isnative


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=str)
def test_versions_of_npy(version):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                    # older versions of NumPy lack version 3
        data = npz_of({f"{name}.npy": npy_of(a, version) for name, a in ARRAYS.items()})
    found = npz.unpack(data, "", BIG)[0]
    assert all((found[name] == a).all() for name, a in ARRAYS.items())


def test_pack_and_unpack_npz():
    texts = {"b": "h\u00e9", "a": "\n"}
    arrays, metadata = npz.unpack(npz.pack(ARRAYS, texts), "", BIG)
    assert metadata == texts and list(arrays) == list(ARRAYS)
    for name, a in ARRAYS.items():
        assert arrays[name].shape == a.shape and (arrays[name] == a).all()
    with np.load(io.BytesIO(npz.pack(ARRAYS, {})), allow_pickle=False) as found:
        assert set(found) == set(ARRAYS)
        assert all((found[name] == a).all() for name, a in ARRAYS.items())


FLOATS = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n"


@pytest.mark.parametrize(("members", "message"), [
    ({"a.npy": npy_of(np.zeros(3))[:-1]}, "'a.npy' has 151 bytes; its header and an array of shape "
                                         "(3,) and dtype float64 take 152"),
    ({"a.npy": npy_of(np.zeros(3)) + b"x"}, "'a.npy' has 153 bytes"),
    ({"a.npy": npy_of(np.array([None], object))}, "'a.npy' is not an array of numbers"),
    ({"a.npy": npy_of(np.zeros(2, "f4,i4"))}, "'a.npy' is not an array of numbers"),
    ({"a.npy": npy_of(np.zeros(2, "M8[s]"))}, "'a.npy' is not an array of numbers"),
    ({"a.npy": b""}, "'a.npy' does not begin as a .npy file"),
    ({"a.npy": b"\x93NUMPY\4\0" + b"\0" * 99}, "does not begin as a .npy file"),
    ({"a.npy": header(FLOATS % ("9" * 5000))}, "is not an array of numbers"),
    ({"a.npy": header(FLOATS % "9999999999999999999, 0")}, "cannot have shape (99"),
    ({"a.npy": header(FLOATS % "4611686018427387904, 8, 0")}, "cannot have shape"),
    ({"a.npy": header(FLOATS % "1000000000,")}, " take 4000000077"),
    ({"a.npy": header(FLOATS % "-1,")}, "is not an array of numbers"),
    ({"a.npy": header(FLOATS % "1,,")}, "is not an array of numbers"),
    ({"a.npy": header(FLOATS % "", data=b"12345")},
     "header and an array of shape () and dtype float32 take"),
    ({"a.npy": header((FLOATS % "").replace("'shape'", "'descr'"))}, "is not an array of numbers"),
    ({"a.npy": header("{'descr': '<f4', 'fortran_order': False, 'descr': '<f4'}")}, "is not an"),
    ({"a.npy": header((FLOATS % "").replace("}", ", 'x': 1}"))}, "is not an array of numbers"),
    ({"a.npy": header((FLOATS % "1,").replace("f4", "f7"))}, "'<f7'"),
    ({"a.npy": header((FLOATS % "1,").replace("f4", "U0"))}, "is not an array of numbers"),
    ({"a.npy": header((FLOATS % "1,").replace("<f4", "O"))}, "is not an array of numbers"),
    ({"a.npy": header("__import__('os').abort()\n")}, "is not an array of numbers"),
    ({"a.npy": header("{" + " " * 9990 + "}")}, "is not an array of numbers"),
    ({"a.npy": header((FLOATS % "").replace(" ", " " * 2000))}, "does not begin as a .npy file"),
    ({"a.npy": header(FLOATS % "", b"\2\0", b"1234"), "b": b""}, "'b' is not a .npy file"),
    ({"a/": b""}, "'a/' is not a .npy file"),
    ({"/a.npy": npy_of(np.zeros(1))}, "'/a.npy' leads out of the archive"),
    ({"../a.npy": npy_of(np.zeros(1))}, "leads out of the archive"),
    ({"a/../../b.npy": npy_of(np.zeros(1))}, "leads out of the archive"),
    ({"__metadata__.npy": npy_of(np.zeros(1))}, "__metadata__ has dtype float64"),
    ({"__metadata__.npy": npy_of(np.array(["{}"]))}, "__metadata__ has dtype <U2"),
    ({"__metadata__.npy": npy_of(np.frombuffer(b'{"a": 1}', np.uint8))}, "not a JSON object"),
    ({"__metadata__.npy": npy_of(np.frombuffer(b"null", np.uint8))}, "not a JSON object of texts"),
    ({"__metadata__.npy": npy_of(np.frombuffer(b'{"a": "\xff"}', np.uint8))}, "not readable JSON"),
    ({"__metadata__.npy": npy_of(np.frombuffer(b"9" * 5000, np.uint8))}, "not readable JSON"),
    ({"__metadata__.npy": npy_of(np.frombuffer(b"[" * 9**5, np.uint8))}, "not readable JSON"),
], ids=lambda value: str(value)[:60])
def test_npz_that_is_wrong(members, message):
    with pytest.raises(ModelFileError, match="^model: .*" + re.escape(message)):
        npz.unpack(npz_of(members), "model", BIG)


def test_the_header_of_npy_is_read_in_linear_time():
    """Blanks wherever they may stand."""
    text = "{" + " " * 3000 + "'descr'" + " " * 3000 + ":" + " " * 3000 + "'<f4'" + " " * 900 + "x}"
    began = time.perf_counter()
    with pytest.raises(ModelFileError):
        npz.unpack(npz_of({"a.npy": header(text)}), "model", BIG)
    assert time.perf_counter() - began < 1


def test_zip_archives_that_are_wrong():
    good = npz_of({"a.npy": npy_of(np.arange(3.0)), "b.npy": npy_of(np.zeros(2))})
    central, end = good.index(b"PK\1\2"), good.index(b"PK\5\6")
    changes = [
        ("is encrypted", central + 8, b"\1\0"),
        ("method 12", central + 10, b"\x0c\0"),
        ("checksum does not match", central + 16, b"1234"),
        ("declares 152 bytes", central + 20, (151).to_bytes(4, "little")),
        ("which are not in the file", central + 20, (10**6).to_bytes(4, "little")),
        ("has 77 bytes; its header", central + 24, (77).to_bytes(4, "little")),
        ("truncated or damaged", central + 42, (2**31).to_bytes(4, "little")),
        ("not there", end + 12, (2**32 - 2).to_bytes(4, "little")),
    ]
    for message, place, data in changes:
        spoiled = good[:place] + data + good[place + len(data):]
        with pytest.raises(ModelFileError, match=f"^model: .*{message}"):
            npz.unpack(spoiled, "model", BIG)
    for name, message in ((b"a.npy", r"'a\.npy' is there twice"),
                          (b"b\0npy", r"is not a \.npy file")):
        with pytest.raises(ModelFileError, match=message):
            npz.unpack(good.replace(b"b.npy", name), "model", BIG)


@contextmanager
def memory_of(most):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def test_a_file_cannot_ask_for_memory():
    """What it declares is held against max_bytes, and against what it has, before."""
    declared = header(FLOATS % "25000000,")
    bomb = npz_of({"a.npy": declared + bytes(10**8)}, compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 2 * 10**5
    stored = bytearray(npz_of({"a.npy": declared}))
    central = stored.index(b"PK\1\2")
    stored[central + 24:central + 28] = (len(declared) + 10**8).to_bytes(4, "little")
    lied = bytearray(stored)
    lied[central + 20:central + 24] = (len(declared) + 10**8).to_bytes(4, "little")
    for data, message in ((bomb, "raise max_bytes"), (stored, "not in the file"),
                          (lied, "not in the file")):
        with memory_of(2**20 + 10 * len(data)), pytest.raises(ModelFileError, match=message):
            npz.unpack(bytes(data), "model", 10**7 if data is bomb else BIG)
    with memory_of(2.2 * 10**8):
        npz.unpack(bomb, "model", BIG)


# ---- the container safetensors -------------------------------------------------------------------

def tensors_of(*tensors, size=None):
    """A safetensors file of (name, dtype, shape, bytes)."""
    header, data = {}, b""
    for name, dtype, shape, own in tensors:
        offsets = [len(data), len(data) + len(own)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += own
    text = json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def test_dtypes_of_safetensors():
    rng = np.random.default_rng(0)
    known = ("f8", "f4", "f2", "c8", "?", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1")
    names = ("F64", "F32", "F16", "C64", "BOOL", "I64", "I32", "I16", "I8", "U64", "U32", "U16",
             "U8")
    arrays = {name: rng.integers(0, 2, (2, 3)).astype(dtype)
              for name, dtype in zip(names, known, strict=True)}
    data = tensors_of(*((name, name, [2, 3], a.tobytes()) for name, a in arrays.items()))
    found, metadata = safetensors.unpack(data, "", BIG)
    assert metadata == {} and list(found) == list(arrays)
    for name, a in arrays.items():
        assert found[name].dtype == a.dtype and (found[name] == a).all()


def test_bfloat16():
    """The upper half of a float32: exact, NaN and infinity too."""
    bits = np.arange(2**16, dtype=np.uint16)
    data = tensors_of(("a", "BF16", [256, 256], bits.tobytes()))
    found = safetensors.unpack(data, "", BIG)[0]["a"]
    assert found.dtype == np.float32 and found.shape == (256, 256)
    assert (found.view(np.uint32).ravel() == bits.astype(np.uint32) << 16).all()
    assert found[0x3f, 0x80] == 1.0


def test_pack_and_unpack_safetensors():
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3).T, "a": np.array(2.5),
              "h\u00e9\n": np.zeros((0, 2)), "c": np.arange(3, dtype=np.float16)}
    data = safetensors.pack(arrays, {"z": "h\u00e9", "a": "\x01"})
    found, metadata = safetensors.unpack(data, "", BIG)
    assert metadata == {"z": "h\u00e9", "a": "\x01"} and found.keys() == arrays.keys()
    for name, a in arrays.items():
        assert found[name].shape == a.shape and (found[name] == a).all()
    assert int.from_bytes(data[:8], "little") % 8 == 0     # tensors begin at a multiple of 8


@pytest.mark.parametrize(("data", "message"), [
    (tensors_of(("a", "F8_E4M3", [2], b"12")), "tensor 'a' has dtype F8_E4M3, expected one of F64"),
    (tensors_of(("a", "X", [2], b"12")), "not a readable safetensors file"),
    (tensors_of(("a", "F32", [1], b"12")), "not a readable safetensors file"),
    (tensors_of(("a", "F32", [1], b"1234")) + b"x", "not a readable safetensors file"),
    (tensors_of(("a", "F32", [1], b"1234"), size=2**24 + 1), "the header would be 16777217"),
    (tensors_of(("a", "F32", [1], b"1234"), size=2**63), "the header would be"),
    (b"\x01" + b"\0" * 7 + b"{", "the header would be 1"),
    (b"\x02" + b"\0" * 7 + b"\xff\xff", "not a readable safetensors file"),
], ids=range(8))
def test_safetensors_that_is_wrong(data, message):
    with pytest.raises(ModelFileError, match="^model: .*" + re.escape(message)):
        safetensors.unpack(data, "model", BIG)


def test_a_large_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(tensors_of())
    os.truncate(path, 2**36)                               # a file of holes
    with memory_of(2**20), pytest.raises(ModelFileError, match="raise max_bytes to read it"):
        files.read_arrays(path, BIG)


@each_suffix
def test_memory_of_a_load(suffix, tmp_path):
    """The arrays four times beyond what the model holds, at most; read twice."""
    path = tmp_path / f"model.{suffix}"
    model = gru_c.GRU(200, 200, num_layers=2, rng=0)
    model.save(path)
    size = sum(a.nbytes for a in model.state_dict().values())
    for action, most in ((lambda: files.read(path, BIG), 2.2), (lambda: gru_c.GRU.load(path), 4.2)):
        action()
        tracemalloc.start()
        result = action()
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak - (held if result.__class__ is gru_c.GRU else 0) < most * size


def test_json_text():
    assert json_text.parse(b'{"a": [1, "\xc3\xa9"]}', "x") == {"a": [1, "\u00e9"]}
    for text in (b"\xff", "{", '{"a": 1, "a": 2}', "1" * 5000, "[" * 10**5, b"\xff\xfe{\0}\0"):
        with pytest.raises(ModelFileError, match=r"^x: not readable JSON"):
            json_text.parse(text, "x")
