"""The command line, in this process and as `python -m gru_c`: what it prints, writes and refuses.

Exit status: 0 done, 1 failed, 2 wrong arguments, 130 after Ctrl-C.
"""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same_bits

import gru_c
import gru_c.learn
from gru_c import cli
from gru_c.datasets import load_digits, split_digits
from gru_c.learn import SequenceClassifier

COLUMNS = [
    "epoch", "learning_rate", "train_loss", "train_accuracy", "validation_loss",
    "validation_accuracy", "seconds",
]
COMPLEXITY = ["complexity", "--input-size", "80", "--hidden-size", "256", "--seq-len", "100"]
needs_safetensors = pytest.mark.skipif(
    cli.find_spec("safetensors") is None, reason="safetensors is not installed"
)
# Python with Ctrl-C as it is in a terminal: a shell starts background jobs with it ignored.
WITH_CTRL_C = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from gru_c.cli import main; sys.exit(main())"
)


@pytest.fixture
def command(capsys):
    def command(*args):
        """Run the command in this process; return its status, and what it printed to where."""
        capsys.readouterr()
        try:
            status = cli.main([str(arg) for arg in args])
        except SystemExit as error:
            status = error.code
        return (status, *capsys.readouterr())

    return command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The output folder of `train` with all its defaults (seed 0), and what it printed."""
    for package in ("safetensors", "matplotlib"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("trained") / "new" / "folder"
    done = subprocess.run(
        [sys.executable, "-m", "gru_c", "train", "--output", str(folder)],
        capture_output=True, text=True, timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


def output_of(result):
    """What a command printed, which went well."""
    status, out, err = result
    assert (status, err) == (0, "")
    return out


def error_of(result, status=1):
    """The one line that a command printed, which failed."""
    assert result[:2] == (status, "") and result[2].count("\n") == 1
    return result[2]


def read_log(folder):
    with open(folder / "log.csv", newline="", encoding="ascii") as file:
        rows = list(csv.reader(file))
    return rows[0], [[float(value) for value in row] for row in rows[1:]]


def stored_test_digits():
    """The test digits as stored: pixel values 0..16."""
    images, labels = load_digits()
    _, test = split_digits()
    return images[test] * 16, labels[test]


# ---- info, complexity, arguments -----------------------------------------------------------------


def test_info(command):
    out = output_of(command("info"))
    for word in (gru_c.__version__, "instruction set", "BLAS threads", "BLAS integers", "threads"):
        assert word in out


def test_as_a_module():
    """`python -m gru_c` is the same command, and passes on the exit status."""
    def module(*args):
        return subprocess.run(
            [sys.executable, "-m", "gru_c", *args], capture_output=True, text=True, timeout=60
        )

    done = module(*COMPLEXITY, "--json")
    assert (done.returncode, done.stderr) == (0, "") and json.loads(done.stdout)
    assert module("train", "--epochs", "0").returncode == 2
    done = module("predict", "nowhere.safetensors", "--data", "digits")
    assert done.returncode == 1 and done.stderr.count("\n") == 1


@pytest.mark.parametrize("args", [["--help"], ["train", "--help"], ["predict", "--help"],
                                  ["inspect", "--help"], ["convert", "--help"]], ids=str)
def test_help(args, command):
    status, out, _ = command(*args)
    assert status == 0 and out.startswith("usage: gru-c")


@pytest.mark.parametrize("args, message", [
    ([], "the following arguments are required: COMMAND"),
    (["fly"], "invalid choice: 'fly'"),
    (["train", "--epochs", "0"], "argument --epochs: expected a whole number of at least 1"),
    (["train", "--epochs", "1.5"], "argument --epochs: expected a whole number of at least 1"),
    (["train", "--hidden-size", "-4"], "expected a whole number of at least 1, got '-4'"),
    (["train", "--layers", "two"], "expected a whole number of at least 1, got 'two'"),
    (["train", "--batch-size", "0"], "expected a whole number of at least 1, got '0'"),
    (["train", "--learning-rate", "0"], "expected a positive number, got '0'"),
    (["train", "--learning-rate", "inf"], "expected a positive number, got 'inf'"),
    (["train", "--clip", "nan"], "expected a positive number, got 'nan'"),
    (["train", "--noise", "-1"], "expected a number of at least 0, got '-1'"),
    (["train", "--seed", "-1"], "expected a whole number of at least 0, got '-1'"),
    (["train", "--what"], "unrecognized arguments: --what"),
    (["predict", "model"], "the following arguments are required: --data"),
    (["predict", "--data", "digits"], "the following arguments are required: MODEL"),
    (["complexity", "--input-size", "8"], "arguments are required: --hidden-size"),
    (["complexity", "--input-size", "x", "--hidden-size", "4"], "invalid int value: 'x'"),
    (["info", "more"], "unrecognized arguments: more"),
    (["inspect"], "the following arguments are required: FILE"),
    (["inspect", "a.npz", "b.npz"], "unrecognized arguments: b.npz"),
    (["inspect", "a.npz", "--max-bytes", "1G"], "invalid int value: '1G'"),
    (["convert", "a.npz"], "the following arguments are required: OUT"),
    (["convert", "a.npz", "b.npz", "--dtype", "float16"], "invalid choice: 'float16'"),
    (["convert", "a.npz", "b.npz", "--quantize", "int4"], "invalid choice: 'int4'"),
    (["convert", "a.npz", "b.npz", "--x-bits", "9"], "invalid choice: 9"),
], ids=" ".join)
def test_wrong_arguments(args, message, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = command(*args)
    assert (status, out) == (2, "")
    assert message in err and "Traceback" not in err
    assert os.listdir() == []


# ---- train ---------------------------------------------------------------------------------------


def test_default_training(trained):
    """The promise of the README, for seed 0: at least 97.5 % of the 360 test digits."""
    folder, out = trained
    found = re.fullmatch(
        r"test accuracy ([\d.]+) % \((\d+) of 360\), [\d.]+ s of training, files in (.*)\n", out
    )
    assert found and found[3] == str(folder)
    assert int(found[2]) >= 0.975 * 360
    assert float(found[1]) == pytest.approx(100 * int(found[2]) / 360, abs=0.051)


def test_files_of_a_training(trained):
    folder, _ = trained
    assert sorted(os.listdir(folder)) == sorted(("model.safetensors", "log.csv", *cli.PICTURES))
    header, rows = read_log(folder)
    assert header == COLUMNS and [row[0] for row in rows] == list(range(1, 31))
    best = max(rows, key=lambda row: (row[5], row[0]))
    metadata = SequenceClassifier.load(folder / "model.safetensors").metadata
    assert metadata["epoch"] == f"{best[0]:g}" and metadata["seed"] == "0"
    assert float(metadata["validation_accuracy"]) == pytest.approx(best[5], rel=1e-5)
    from matplotlib.image import imread

    for name in cli.PICTURES:
        picture = imread(folder / name)
        assert min(picture.shape[:2]) > 300 and picture[..., :3].std() > 0.02, name


@needs_safetensors
def test_training_and_training_again(command, tmp_path):
    """The same seed gives the same bits; an earlier run's files are replaced, its pictures gone."""
    for name in cli.PICTURES:
        (tmp_path / name).write_text("of an earlier run")
    (tmp_path / "mine.txt").write_text("kept")
    options = ("train", "--epochs", 2, "--hidden-size", 16, "--no-plots", "--output", tmp_path)
    models = []
    for seed in (3, 3, 4):
        assert output_of(command(*options, "--seed", seed)).startswith("test accuracy ")
        assert sorted(os.listdir(tmp_path)) == ["log.csv", "mine.txt", "model.safetensors"]
        assert len(read_log(tmp_path)[1]) == 2
        model = SequenceClassifier.load(tmp_path / "model.safetensors")
        models.append(model.state_dict() | {"epoch": np.array(model.metadata["epoch"])})
    assert_same_bits(models[0], models[1])
    assert not np.array_equal(models[0]["head.weight"], models[2]["head.weight"])


@needs_safetensors
def test_options_reach_the_training(command, tmp_path, monkeypatch):
    """... and training, validation and test digits are kept apart."""
    calls = []

    def fit(model, train, validation, **options):
        calls.append((model, train, validation, options))
        raise KeyboardInterrupt

    monkeypatch.setattr(gru_c.learn, "fit", fit)
    result = command(
        "train", "--epochs", 7, "--hidden-size", 9, "--layers", 2, "--batch-size", 11, "--clip", 2,
        "--learning-rate", 0.5, "--noise", 0, "--seed", 5, "--output", tmp_path, "--no-plots",
    )
    assert error_of(result, 130) == "gru-c: interrupted\n"
    [(model, train, validation, options)] = calls
    assert (model.hidden_size, model.num_layers) == (9, 2)
    assert {k: v for k, v in options.items() if k not in ("rng", "callback")} == {
        "epochs": 7, "batch_size": 11, "learning_rate": 0.5, "clip": 2.0, "noise": 0.0,
    }
    images, labels = load_digits()
    rows, _ = split_digits()
    assert (len(train[0]), len(validation[0])) == (1293, 144)
    assert np.array_equal(np.concatenate([train[0], validation[0]]), images[rows])
    assert np.array_equal(np.concatenate([train[1], validation[1]]), labels[rows])


@needs_safetensors
def test_progress_bar(command, tmp_path, monkeypatch):
    pytest.importorskip("tqdm")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    options = ("train", "--epochs", 2, "--no-plots", "--output", tmp_path)
    for quiet in ([], ["--quiet"]):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        assert command(*options, *quiet)[0] == 0
        shown = re.search(r"2/2 .*loss \d\.\d{4}, validation \d+\.\d %", terminal.getvalue())
        assert bool(shown) != bool(quiet), terminal.getvalue()
        assert bool(terminal.getvalue()) != bool(quiet)


@needs_safetensors
@pytest.mark.parametrize("below, message", [
    ("", "this is a file, a folder is needed"),
    ("sub/folder", "cannot write there (Not a directory)"),
])
def test_output_that_cannot_be_a_folder(below, message, command, tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    err = error_of(command("train", "--no-plots", "--output", file / below))
    assert err == f"gru-c: error: --output {file / below}: {message}\n"
    assert file.read_text() == "kept" and os.listdir(tmp_path) == ["file"]


@needs_safetensors
def test_output_without_permission(command, tmp_path):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("root may write everywhere")           # .ci/run takes the right from it
    err = error_of(command("train", "--no-plots", "--output", tmp_path))
    assert "cannot write there (Permission denied)" in err


@needs_safetensors
def test_divergence_is_one_line(command, tmp_path):
    (tmp_path / "model.safetensors").write_text("of an earlier run")
    err = error_of(command("train", "--learning-rate", "1e38", "--no-plots", "--output", tmp_path))
    assert "in epoch 1; try a smaller learning rate" in err
    assert (tmp_path / "model.safetensors").read_text() == "of an earlier run"


@needs_safetensors
def test_ctrl_c(command, tmp_path):
    """Ctrl-C in the middle of a long training leaves the best model so far, and says so."""
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_CTRL_C, "train", "--epochs", "100000", "--output", tmp_path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    try:
        log, give_up = tmp_path / "log.csv", time.monotonic() + 60
        while not (log.exists() and log.read_text().count("\n") >= 3):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < give_up, "no log of two epochs after a minute"
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out) == (130, "")
    found = re.fullmatch(
        r"gru-c: interrupted after (\d+) of 100000 epochs; the best model so far \(epoch (\d+), "
        r"validation accuracy [\d.]+ %\) is (.*)\n", err
    )
    assert found, err
    model = tmp_path / "model.safetensors"
    assert found[3] == str(model) and sorted(os.listdir(tmp_path)) == ["log.csv", model.name]
    _, rows = read_log(tmp_path)
    assert len(rows) in (int(found[1]), int(found[1]) - 1)
    assert SequenceClassifier.load(model).metadata["epoch"] == found[2]
    assert len(output_of(command("predict", model, "--data", "digits")).splitlines()) == 361


@needs_safetensors
def test_ctrl_c_before_there_is_a_model(command, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gru_c.learn.trainer.evaluate", interrupted)
    err = error_of(command("train", "--no-plots", "--output", tmp_path), 130)
    assert err == "gru-c: interrupted before the end of the first epoch; no model yet\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("args, package", [
    (["train"], "safetensors"),
    (["train"], "tqdm"),
    (["train", "--quiet"], "matplotlib"),
    (["predict", "model", "--data", "digits"], "safetensors"),
], ids=str)
def test_missing_extra(args, package, command, tmp_path, monkeypatch):
    for name in ("safetensors", "tqdm", "matplotlib"):
        if name != package and cli.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    assert error_of(command(*args)) == (
        f"gru-c: error: {package} is needed for this and is not installed: "
        "pip install 'gru-c[train]'\n"
    )
    assert os.listdir() == []


@needs_safetensors
def test_quiet_training_without_pictures_needs_only_safetensors(command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    output_of(command("train", "--epochs", 1, "--quiet", "--no-plots", "--output", tmp_path))


# ---- predict -------------------------------------------------------------------------------------


def test_predict_digits(trained, command):
    """The saved model makes the mistakes that `train` counted."""
    folder, printed = trained
    model = folder / "model.safetensors"
    *lines, last = output_of(command("predict", model, "--data", "digits")).splitlines()
    assert len(lines) == 360 and all(re.fullmatch(r"\d [01]\.\d{4}", line) for line in lines)
    _, labels = stored_test_digits()
    right = sum(int(line[0]) == label for line, label in zip(lines, labels, strict=True))
    assert last == f"accuracy {100 * right / 360:.1f} % ({right} of 360)"
    assert printed.startswith(f"test {last}, ")


@pytest.mark.parametrize("shape", [(-1, 8, 8), (-1, 64)], ids=["8x8", "64"])
@pytest.mark.parametrize("suffix", ["npz", "npz-one", "npy", "npy-uint8", "npy-fortran", "csv"])
def test_predict_files(suffix, shape, trained, command, tmp_path):
    model = trained[0] / "model.safetensors"
    images, _ = stored_test_digits()
    wanted = command("predict", model, "--data", "digits")[1].splitlines()[:20]
    images = images[:20].reshape(shape)
    path = tmp_path / f"images.{suffix[:3]}"
    match suffix:
        case "npz":
            np.savez_compressed(path, other=np.zeros(3), images=images)
        case "npz-one":
            np.savez(path, whatever=images)
        case "npy":
            np.save(path, images)
        case "npy-uint8":
            np.save(path, images.astype(np.uint8))
        case "npy-fortran":
            np.save(path, np.asfortranarray(images))
        case "csv":
            np.savetxt(path, images.reshape(20, 64), "%g", ",")
    assert output_of(command("predict", model, "--data", path)).splitlines() == wanted


@pytest.mark.parametrize("data", ["digits", "file"])
def test_predict_output(data, trained, command, tmp_path):
    model, output, count = trained[0] / "model.safetensors", tmp_path / "out.csv", 360
    output.write_text("of an earlier run")
    wanted = command("predict", model, "--data", "digits")[1].splitlines()
    source = data
    if data == "file":
        source, count = tmp_path / "images.npy", 1
        np.save(source, stored_test_digits()[0][:1])
    out = output_of(command("predict", model, "--data", source, "--output", output))
    assert out.splitlines() == (wanted[-1:] if data == "digits" else [])
    header, *rows = csv.reader(output.read_text().splitlines())
    assert header == ["image", "digit", "probability"] and len(rows) == count
    for index, (row, line) in enumerate(zip(rows, wanted[:count], strict=True)):
        assert row[:2] == [str(index), line[0]]
        assert float(row[2]) == pytest.approx(float(line[2:]), abs=1e-4)
    assert "out.csv" in os.listdir(tmp_path) and not list(tmp_path.glob("*.tmp"))


def test_predict_output_that_cannot_be_written(trained, command, tmp_path):
    model = trained[0] / "model.safetensors"
    for output, why in ((tmp_path / "no" / "out.csv", "No such file or directory"),
                        (tmp_path, "Is a directory")):
        status, _, err = command("predict", model, "--data", "digits", "--output", output)
        assert (status, err) == (
            1, f"gru-c: error: --output {output}: cannot write there ({why})\n")
    assert os.listdir(tmp_path) == []


@needs_safetensors
@pytest.mark.parametrize("content, message", [
    (None, "No such file or directory"),
    (b"not a model", "not a readable safetensors file"),
    (SequenceClassifier(5, 4, 3, rng=0),
     "rows of 5 values and knows 3 classes; digits have rows of 8"),
], ids=["none", "another-file", "another-model"])
def test_predict_without_a_model(content, message, command, tmp_path):
    model = tmp_path / "model.safetensors"
    if isinstance(content, bytes):
        model.write_bytes(content)
    elif content is not None:
        content.save(model)
    err = error_of(command("predict", model, "--data", "digits"))
    assert message in err and str(model) in err


@needs_safetensors
@pytest.mark.parametrize("name, content, message", [
    ("a.txt", b"1,2", "expected a .npz, .npy or .csv file, or the word digits"),
    ("a.npy", None, "No such file or directory"),
    ("a.npy", b"", "not a readable .npy file"),
    ("a.npz", b"PK\x03\x04", "not a readable .npz file"),
    ("a.csv", b"", "there is no image in it"),
    ("a.csv", b"# only a remark\n", "there is no image in it"),
    ("a.csv", b"one,two\n", "not a readable .csv file"),
    ("a.csv", b"\xff\xfe", "not a readable .csv file"),
    ("a.csv", b"1,2,3\n", "expected shape (N, 8, 8) or (N, 64), got (1, 3)"),
    ("a.csv", b",".join([b"1"] * 65), "got (1, 65); is the last column the label?"),
    ("a.npy", np.zeros((64,)), "expected shape (N, 8, 8) or (N, 64), got (64,)"),
    ("a.npy", np.zeros((8, 8)), "expected shape (N, 8, 8) or (N, 64), got (8, 8)"),
    ("a.npy", np.float64(3), "expected shape (N, 8, 8) or (N, 64), got ()"),
    ("a.npy", np.zeros((0, 8, 8)), "there is no image in it"),
    ("a.npy", np.full((2, 64), 17), "pixel values must be in 0..16, got 17..17"),
    ("a.npy", np.full((2, 64), -1.5), "pixel values must be in 0..16, got -1.5..-1.5"),
    ("a.npy", np.full((2, 64), np.nan), "pixel values must be in 0..16, got nan..nan"),
    ("a.npy", np.full((2, 64), "x"), "pixel values must be numbers, got an array of <U1"),
    ("a.npy", np.full((2, 64), 1j), "pixel values must be numbers, got an array of complex128"),
    ("a.npz", {"a": np.zeros(2), "b": np.zeros(2)}, "expected an array named images, got a, b"),
    ("a.npz", {}, "expected an array named images, got none"),
])
def test_predict_refuses(name, content, message, command, tmp_path):
    model, path = tmp_path / "model.safetensors", tmp_path / name
    SequenceClassifier(8, 4, 10, rng=0).save(model)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    elif content is not None:
        np.save(path, content)
    err = error_of(command("predict", model, "--data", path))
    assert message in err and str(path) in err


@needs_safetensors
def test_predict_notes_a_wrong_scale(command, tmp_path):
    model, path = tmp_path / "model.safetensors", tmp_path / "a.npy"
    SequenceClassifier(8, 4, 10, rng=0).save(model)
    np.save(path, np.ones((1, 64)))
    status, out, err = command("predict", model, "--data", path)
    assert status == 0 and out.count("\n") == 1
    assert err == f"gru-c: note: {path} holds no pixel above 1; the scale is 0..16\n"


# ---- inspect and convert -------------------------------------------------------------------------


@pytest.fixture
def model_file(tmp_path):
    """A file as PyTorch names its arrays: a GRU of two layers between other layers."""
    gru = gru_c.GRU(3, 4, 2, bidirectional=True, rng=0)
    arrays = {f"encoder.{name}": a for name, a in gru.state_dict().items()}
    arrays |= {"embedding.weight": np.zeros((10, 3), np.float32), "steps": np.int64(5)}
    np.savez(tmp_path / "model.npz", **arrays)
    return tmp_path / "model.npz"


def test_inspect(model_file, command):
    assert output_of(command("inspect", model_file)) == f"""\
{model_file}: npz, 1 GRU, 2 other arrays

GRU 'encoder.'
  size        input_size 3, hidden_size 4, 2 layers, two directions
  convention  PyTorch
  dtype       float32
  parameters  552 (2,208 bytes)

other arrays
  embedding.weight  (10, 3) float32
  steps             () int64
"""


def test_the_page_shows_what_is_printed(model_file, command, monkeypatch):
    """docs/interop/command-line.md."""
    monkeypatch.chdir(model_file.parent)
    page = Path(__file__).parent.parent / "docs" / "interop" / "command-line.md"
    shown, = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    _, *examples = re.split(r"^\$ gru-c ", shown, flags=re.MULTILINE)
    assert len(examples) == 3
    for example in examples:
        line, _, wanted = example.partition("\n")
        assert output_of(command(*line.split())) == wanted


def test_inspect_options_and_metadata(command, tmp_path):
    """Options that are not the default, but reset_after in any case."""
    path = tmp_path / "model.npz"
    gru = gru_c.ReverseGRU(3, 4, dtype=np.float64, bias=False, clip=3.0,
                           activation={"name": "elu", "alpha": 0.5})
    gru.save(path, {"author": "me", "two lines": "a\nb\x1b[2J"})
    assert output_of(command("inspect", path)) == f"""\
{path}: npz, 1 GRU, no other arrays

GRU
  size        input_size 3, hidden_size 4, in reverse, no biases
  convention  gru_c.ReverseGRU
  options     reset_after=True, activation={{'name': 'elu', 'alpha': 0.5}}, clip=3.0
  dtype       float64
  parameters  84 (672 bytes)

metadata
  author     me
  two lines  'a\\nb\\x1b[2J'
"""


def test_inspect_halves(command, tmp_path):
    """What is stored, though a model of it has float32."""
    path = tmp_path / "model.npz"
    parameters = gru_c.GRU(3, 4).state_dict()
    np.savez(path, **{name: a.astype(np.float16) for name, a in parameters.items()})
    found = json.loads(output_of(command("inspect", "--json", path)))["models"][0]
    assert (found["dtype"], found["parameters"], found["bytes"]) == ("float16", 108, 216)


def test_inspect_json(model_file, command):
    found = json.loads(output_of(command("inspect", "--json", model_file)))
    assert found == {
        "file": str(model_file), "format": "npz",
        "models": [{
            "name": "encoder.", "size": "input_size 3, hidden_size 4, 2 layers, two directions",
            "convention": "PyTorch", "options": {}, "cell": False, "input_size": 3,
            "hidden_size": 4, "num_layers": 2, "bidirectional": True, "reverse": False,
            "bias": True, "dtype": "float32", "parameters": 552, "bytes": 2208}],
        "other_arrays": {"embedding.weight": {"shape": [10, 3], "dtype": "float32"},
                         "steps": {"shape": [], "dtype": "int64"}},
        "problem": None, "metadata": {}}


def test_inspect_a_gru_that_cannot_be_read(command, tmp_path):
    """The arrays are shown; the error says why."""
    path = tmp_path / "model.keras"
    gru_c.GRU(3, 4).save(tmp_path / "model.npz")
    gru_c.interop.convert(tmp_path / "model.npz", path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = members["config.json"].replace(b'"tanh"', b'"gelu"')
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    status, out, err = command("inspect", path)
    assert status == 1
    assert "no GRUs, 3 other arrays" in out
    assert re.fullmatch(r"gru-c: error: .*model\.keras, layer .*'gelu'.*\n", err)


def test_inspect_a_file_of_no_gru(command, tmp_path):
    path = tmp_path / "\N{GREEK SMALL LETTER ALPHA}.npz"
    np.savez(path, weight=np.zeros((2, 3), np.float16))
    out = output_of(command("inspect", path))
    assert out == f"{path}: npz, no GRUs, 1 other array\n\nother arrays\n  weight  (2, 3) float16\n"
    done = subprocess.run([sys.executable, "-m", "gru_c", "inspect", str(path)],
                          env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u03b1.npz: npz, no GRUs" in done.stdout


def test_convert(model_file, command, tmp_path):
    target = tmp_path / "new.npz"
    assert output_of(command("convert", model_file, target, "--dtype", "float64", "--batch-first",
                             "--no-reset-after")) == (
        f"{target}: npz, input_size 3, hidden_size 4, 2 layers, two directions, float64, "
        "552 parameters\n")
    gru = gru_c.GRU.load(target)
    assert (gru.dtype, gru.batch_first, gru.reset_after) == (np.float64, True, False)
    with np.load(model_file) as source:
        assert_same_bits(gru.state_dict(), {name: source[f"encoder.{name}"].astype(np.float64)
                                            for name in gru.state_dict()})


def test_quantized(model_file, command, tmp_path):
    """Converted to fewer bits, inspected, and back in the formats that hold floats."""
    target, exported = tmp_path / "new.npz", tmp_path / "new.pt"
    assert output_of(command("convert", model_file, target, "--quantize", "int8", "--x-bits",
                             "12")).endswith("weights rounded to int8, x_bits=12, 552 parameters\n")
    gru = gru_c.GRU.load(target)
    assert (gru.quantization, gru.x_bits) == ("int8", 12)
    shown = output_of(command("inspect", target))
    assert "  options     reset_after=True, quantization='int8', x_bits=12\n" in shown
    assert "  parameters  552 (1,224 bytes)\n" in shown     # of 2,208, with biases and scales
    assert "no other arrays" in shown
    found = json.loads(output_of(command("inspect", "--json", target)))["models"][0]
    assert (found["options"]["x_bits"], found["bytes"]) == (12, 1224)
    output_of(command("convert", target, exported))
    assert_same_bits(gru_c.GRU.from_torch(exported).state_dict(), gru.state_dict())
    output_of(command("convert", model_file, target, "--quantize", "bfloat16"))
    assert repr(gru_c.GRU.load(target)).endswith("quantization='bfloat16')")
    output_of(command("convert", model_file, target, "--quantize", "bfloat16", "--x-bits", "16"))
    assert repr(gru_c.GRU.load(target)).endswith("quantization='bfloat16', x_bits=16)")
    before = target.read_bytes()
    for arguments, message in (
            (["--quantize", "int8"], "has bfloat16 weights already: quantize the float model"),
            (["--x-bits", "8"], "--x-bits needs --quantize"),
            (["--quantize", "bfloat16", "--x-bits", "12"], "x_bits must be 8 or 12 with int8, 16 "),
            (["--quantize", "int8", "--dtype", "float64"], "only a float32 model can be")):
        assert message in error_of(command("convert", target, target, *arguments))
        assert target.read_bytes() == before


def test_inspect_a_quantized_classifier(command, tmp_path):
    path = tmp_path / "model.npz"
    SequenceClassifier(8, 16, 10, rng=0).quantize("int8").save(path)
    shown = output_of(command("inspect", path))
    assert "1 GRU, 2 other arrays" in shown and "quantization='int8', x_bits=8" in shown
    assert len(output_of(command("predict", path, "--data", "digits")).splitlines()) == 361


def test_convert_one_of_several(command, tmp_path):
    path, target = tmp_path / "a.npz", tmp_path / "b.npz"
    models = {"a.": gru_c.GRU(3, 4, rng=0), "b.": gru_c.GRU(5, 6, 2, dropout=0.5, rng=0)}
    np.savez(path, **{prefix + name: a for prefix, gru in models.items()
                      for name, a in gru.state_dict().items()})
    assert "2 GRUs are in it; name one of them: " in error_of(command("convert", path, target))
    assert "hidden_size 6, 2 layers" in output_of(command("convert", path, target, "--name", "b."))
    assert_same_bits(gru_c.GRU.load(target).state_dict(), models["b."].state_dict())


def test_notes(command, tmp_path):
    """What a reader warns of is a line on stderr, beside what is printed."""
    onnx = pytest.importorskip("onnx")
    path, target = tmp_path / "model.onnx", tmp_path / "new.npz"
    gru_c.GRU(3, 4, reset_after=False, rng=0).to_onnx(path)
    proto = onnx.load(path)
    proto.producer_name = "pytorch"
    onnx.save(proto, path)
    status, out, err = command("convert", path, target)
    assert status == 0 and out.startswith(f"{target}: npz, input_size 3")
    assert err.startswith("gru-c: note: ") and err.count("\n") == 1
    assert "linear_before_reset is 0" in err
    output_of(command("convert", path, target, "--reset-after"))
    assert gru_c.GRU.load(target).reset_after


@pytest.mark.parametrize("command_line", [
    ["inspect", "{}"], ["inspect", "{}", "--json"], ["convert", "{}", "new.npz"]], ids=" ".join)
@pytest.mark.parametrize("content, message", [
    (None, "No such file or directory"),
    (b"", "an empty file; a model is a file of safetensors"),
    (b"hello", "no known format; a model is a file of safetensors"),
    (b"PK\3\4 and no more", "model.pt: "),
    (b"\x80\2.", "model.pt: "),
    (b"{]", "model.pt: "),
    ("folder", "Is a directory"),
], ids=["none", "empty", "text", "zip", "pickle", "json", "folder"])
def test_broken_files(command_line, content, message, command, tmp_path, monkeypatch):
    """One line, which names the file; nothing is written."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    before = os.listdir()
    err = error_of(command(*(word.format(path) for word in command_line)))
    assert str(path) in err and message in err
    assert os.listdir() == before


@pytest.mark.parametrize("target, message", [
    ("new", "the suffix should name a format to write: safetensors (.safetensors), npz (.npz)"),
    ("nowhere/new.npz", "No such file or directory"),
    ("folder.npz", "Is a directory"),
    ("new.json", "bidirectional=True"),
])
def test_convert_refuses(target, message, model_file, command, tmp_path):
    (tmp_path / "folder.npz").mkdir()
    before = sorted(os.listdir(tmp_path))
    err = error_of(command("convert", model_file, tmp_path / target))
    assert message in err
    assert sorted(os.listdir(tmp_path)) == before


def test_too_large(model_file, command):
    err = error_of(command("inspect", model_file, "--max-bytes", "100"))
    assert str(model_file) in err and "max_bytes=100" in err


def test_without_an_extra(model_file, command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    err = error_of(command("convert", model_file, tmp_path / "new.safetensors"))
    assert "safetensors is needed for this and is not installed: pip install" in err


def test_a_closed_pipe(model_file):
    """The reader has gone: no traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gru_c", "inspect", str(model_file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 1)
    process.stderr.close()


def test_unexpected_errors_are_one_line(command, monkeypatch):
    def fail():
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(cli, "show_config", fail)
    assert command("info") == (1, "", "gru-c: error: RuntimeError: first line\n")
