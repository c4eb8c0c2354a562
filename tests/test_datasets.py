"""The digits: what is in them, their split, and the tool that made the archive."""

import gzip
import importlib.util
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from gru_c.datasets import DIGIT_PIXEL_MAX, load_digits, split_digits

ARCHIVE = files("gru_c.datasets") / "digits.npz"
TOOL = Path(__file__).parents[1] / "tools" / "make_digits.py"


@pytest.fixture(scope="module")
def tool():
    """tools/make_digits.py as a module."""
    if not TOOL.exists():
        pytest.skip("tools/ is not here")
    spec = importlib.util.spec_from_file_location("make_digits", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_table(path, images, labels):
    """Write a digits.csv.gz: 64 whole pixel values and the label a line."""
    rows = np.column_stack([images.reshape(len(images), -1), labels])
    text = "".join(",".join(f"{value:g}" for value in row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode("ascii")))


def test_images_and_labels():
    images, labels = load_digits()
    assert images.shape == (1797, 8, 8) and images.dtype == np.float32
    assert labels.shape == (1797,) and labels.dtype == np.int64
    pixels = images * DIGIT_PIXEL_MAX
    assert (pixels == pixels.round()).all() and (pixels.min(), pixels.max()) == (0, 16)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    again, _ = load_digits()
    assert (again == images).all() and not np.shares_memory(again, images)


def test_images_look_like_their_labels():
    """The nearest mean image is of the right digit for nine in ten."""
    images, labels = load_digits()
    means = np.stack([images[labels == digit].mean(axis=0) for digit in range(10)])
    distances = np.square(images[:, None] - means).sum(axis=(2, 3))
    assert (distances.argmin(axis=1) == labels).mean() > 0.9


def test_split():
    train, test = split_digits()
    assert (train.shape, test.shape) == ((1437,), (360,))
    assert train.dtype == test.dtype == np.int64
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(1797))
    _, labels = load_digits()
    assert np.bincount(labels[test], minlength=10).min() >= 25


def test_split_is_the_same_every_time():
    """NumPy's global random state neither matters nor is touched."""
    np.random.seed(1)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    train, test = split_digits()
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert train[:8].tolist() == [1081, 1707, 927, 713, 262, 182, 303, 895]
    assert test[:8].tolist() == [1442, 455, 584, 147, 160, 1111, 750, 1117]
    for one, two in zip(split_digits(), (train, test), strict=True):
        assert (one == two).all() and one is not two


def test_size_of_the_archive():
    assert len(ARCHIVE.read_bytes()) < 60_000


def test_tool_writes_the_archive_again(tool, tmp_path, capsys):
    images, labels = load_digits()
    source, output = tmp_path / "digits.csv.gz", tmp_path / "digits.npz"
    write_table(source, images * DIGIT_PIXEL_MAX, labels)
    tool.main([str(source), str(output)])
    assert "1797 images" in capsys.readouterr().out
    with np.load(output) as new, np.load(ARCHIVE) as old:
        assert new.files == old.files == ["images", "labels"]
        for name in new.files:
            assert new[name].dtype == old[name].dtype == np.uint8
            assert (new[name] == old[name]).all()
    first = output.read_bytes()
    tool.main([str(source), str(output)])
    assert output.read_bytes() == first
    assert len(first) < 60_000


@pytest.mark.parametrize("change, message", [
    (lambda table: table[:-1], r"expected 1797 lines of 65 values, got \(1796, 65\)"),
    (lambda table: table[:, :-1], r"expected 1797 lines of 65 values, got \(1797, 64\)"),
    (lambda table: table + 0.5, "expected whole pixel values 0..16 and labels 0..9"),
    (lambda table: table * 2, "expected whole pixel values 0..16 and labels 0..9"),
], ids=["rows", "columns", "fractions", "range"])
def test_tool_refuses(tool, tmp_path, change, message):
    images, labels = load_digits()
    table = change(np.column_stack([images.reshape(1797, 64) * 16, labels]))
    source, output = tmp_path / "digits.csv.gz", tmp_path / "digits.npz"
    write_table(source, table[:, :-1], table[:, -1])
    with pytest.raises(SystemExit, match=message):
        tool.main([str(source), str(output)])
    assert not output.exists()


@pytest.mark.parametrize("arguments", [[], ["one", "two", "three"]], ids=len)
def test_tool_wants_one_or_two_arguments(tool, arguments):
    with pytest.raises(SystemExit, match=r"make_digits.py DIGITS.csv.gz"):
        tool.main(arguments)
