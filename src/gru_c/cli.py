"""The command ``gru-c``, also ``python -m gru_c``: train, predict, complexity, info.

The subcommands inspect and convert stand in _cli_files.py.

Exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong arguments, 130 after Ctrl-C.
Everything that only `train` and `predict` need is imported when they run.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import shlex
import sys
import tempfile
import zipfile
from dataclasses import astuple, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gru_c import _cli_files, complexity, embedding, show_config

if TYPE_CHECKING:
    from collections.abc import Sequence

VALIDATION_COUNT: int = 144  # of the 1,437 training digits
PICTURES = ("curves.png", "confusion.png", "digits.png")
FAILED, INTERRUPTED = 1, 130


class UserError(Exception):
    """Something the user can put right; the message is all that they need to see."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: that of the process) and return the exit status."""
    args = build_parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()  # here, where a broken pipe is caught, not while Python shuts down
        return status
    except KeyboardInterrupt:
        return _report("interrupted", INTERRUPTED)
    except BrokenPipeError:  # `gru-c predict ... | head`: nobody wants the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        # Ours and the system's explain themselves; of any other, the type is half of the message.
        known = isinstance(error, (UserError, OSError, ImportError, ValueError, ArithmeticError))
        name = "" if known else f"{type(error).__name__}: "
        return _report(f"error: {name}{str(error).splitlines()[0] if str(error) else ''}", FAILED)


class _Print(argparse.Action):
    """Print the constant and exit: as action="version", which breaks long lines."""

    def __init__(self, *args, **options):
        super().__init__(*args, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser, *_):
        print(self.const)
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands; each sets ``run``, a function of the arguments."""
    parser = argparse.ArgumentParser(
        prog="gru-c",
        description="Train a GRU on handwritten digits, use it, count what it costs; say what is "
        "in the file of a model, and convert it.",
    )
    add = parser.add_argument
    add("--includes", action=_Print, const=f"-I{shlex.quote(embedding.get_include())}",
        help="print the compiler's option for the folder of gru_c.h")
    add("--cmakedir", action=_Print, const=embedding.get_cmake_dir(),
        help="print the folder of gru_cConfig.cmake")
    add("--pkgconfigdir", action=_Print, const=embedding.get_pkgconfig_dir(),
        help="print the folder of gru_c.pc")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train a GRU with a linear head on handwritten digits",
        description="Train a GRU with a linear head on the 1,437 training digits, an image read "
        "row by row, and test it on the other 360. Ctrl-C ends the training and leaves the best "
        "model so far. Files of an earlier run in DIR are replaced once the first epoch is over.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = train.add_argument
    add("--epochs", type=_count, default=30, metavar="N", help="passes over the training digits")
    add("--hidden-size", type=_count, default=64, metavar="H", help="width of the GRU's state")
    add("--layers", type=_count, default=1, metavar="L", help="GRU layers")
    add("--batch-size", type=_count, default=32, metavar="N", help="images in a batch")
    add("--learning-rate", type=_positive, default=6e-3, metavar="R", help="of Adam, at the start")
    add("--clip", type=_positive, default=1.0, metavar="C", help="largest norm of the gradient")
    add("--noise", type=_not_negative, default=0.15, metavar="S",
        help="standard deviation of the noise on training pixels, which range from 0 to 1")
    add("--seed", type=_seed, default=0, metavar="K", help="of weights, shuffling and noise")
    add("--output", type=Path, default=Path("gru_c_digits"), metavar="DIR", help="output folder")
    add("--no-plots", action="store_true", help="write no pictures")
    add("--quiet", action="store_true", help="show no progress bar")
    train.set_defaults(run=run_train)

    predict = commands.add_parser(
        "predict",
        help="use a trained model on images of digits",
        description="Print the predicted digit of each image and its probability, one image a "
        "line.",
    )
    add = predict.add_argument
    add("model", type=Path, metavar="MODEL", help="the model.safetensors that train wrote, or .npz")
    add("--data", required=True, metavar="FILE",
        help="images, shape (N, 8, 8) or (N, 64) with pixel values 0..16, as .npz (the array named "
        "images, or the only one), .npy or .csv; or the word digits: the 360 test digits")
    add("--output", type=Path, metavar="FILE.csv", help="write the predictions here instead")
    predict.set_defaults(run=run_predict)

    cost = commands.add_parser(
        "complexity", help="count the operations, parameters and bytes of a GRU"
    )
    add = cost.add_argument
    add("--input-size", type=int, required=True, metavar="I")
    add("--hidden-size", type=int, required=True, metavar="H")
    add("--batch-size", type=int, default=1, metavar="N")
    add("--seq-len", type=int, default=1, metavar="T")
    add("--num-layers", type=int, default=1, metavar="L")
    add("--bidirectional", action="store_true", help="count two directions")
    add("--lengths", type=int, nargs="+", metavar="T_n", help="steps of each of the N rows")
    add("--checkpoint", type=int, metavar="K", help="save each K-th state only")
    add("--no-bias", action="store_true", help="count without biases")
    add("--reset-before", action="store_true", help="reset gate on the state, before its product")
    add("--dtype", choices=["float32", "float64"], default="float32")
    add("--json", action="store_true", help="print JSON instead of a table")
    cost.set_defaults(run=run_complexity)

    _cli_files.add_commands(commands)

    info = commands.add_parser("info", help="say what this installation runs on")
    info.set_defaults(run=run_info)
    return parser


# ---- train --------------------------------------------------------------------------------------


def run_train(args: argparse.Namespace) -> int:
    """Train, test and write the output folder; return the exit status."""
    _require("safetensors")
    if not args.quiet:
        _require("tqdm")
    if not args.no_plots:
        _require("matplotlib")
    from gru_c.datasets import load_digits, split_digits
    from gru_c.learn import SequenceClassifier, fit

    _make_folder(args.output)
    images, labels = load_digits()
    train, test = split_digits()
    train, validation = train[:-VALIDATION_COUNT], train[-VALIDATION_COUNT:]
    weights_rng, data_rng = np.random.default_rng(args.seed).spawn(2)
    model = SequenceClassifier(8, args.hidden_size, 10, args.layers, rng=weights_rng)
    with _Progress(args) as progress:
        history = fit(
            model,
            (images[train], labels[train]),
            (images[validation], labels[validation]),
            epochs=args.epochs,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            clip=args.clip,
            noise=args.noise,
            rng=data_rng,
            callback=lambda history: progress.show(model, history),
        )
    if history.best is None:
        return _report("interrupted before the end of the first epoch; no model yet", INTERRUPTED)
    # Once more: Ctrl-C may have come in the middle of saving it.
    progress.save(model, history)
    if history.interrupted:
        return _report(
            f"interrupted after {len(history.epochs)} of {args.epochs} epochs; the best model so "
            f"far (epoch {history.best.epoch}, validation accuracy "
            f"{_percent(history.best.validation_accuracy)}) is {progress.model_path}",
            INTERRUPTED,
        )
    probabilities = model.predict_proba(images[test])
    if not args.no_plots:
        _write_pictures(args.output, history, images[test], labels[test], probabilities)
    print(
        f"test {_accuracy(probabilities, labels[test])}, {history.seconds:.1f} s of training, "
        f"files in {args.output}"
    )
    return 0


class _Progress:
    """What is shown and written after every epoch: the bar, the log, the best model so far."""

    def __init__(self, args):
        self.args = args
        self.model_path = args.output / "model.safetensors"
        self.log = None

    def __enter__(self):
        self.bar = None
        if not self.args.quiet:
            from tqdm import tqdm

            # disable=None: no bar where stderr is not a terminal
            self.bar = tqdm(total=self.args.epochs, unit="epoch", disable=None)
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()
        if self.log is not None:
            self.log.close()

    def show(self, model, history):
        epoch = history.epochs[-1]
        if self.log is None:
            self._start_log(epoch)
        if history.best is epoch:
            self.save(model, history)
        self._write_row(f"{value:.6g}" for value in astuple(epoch))
        if self.bar is not None:
            self.bar.set_postfix_str(
                f"loss {epoch.train_loss:.4f}, validation {_percent(epoch.validation_accuracy)}",
                refresh=False,
            )
            self.bar.update()

    def save(self, model, history):
        metadata = {
            "data": "gru_c digits, an image read row by row, pixels 0..1",
            "seed": str(self.args.seed),
            "epoch": str(history.best.epoch),
            "validation_accuracy": f"{history.best.validation_accuracy:.6g}",
        }
        model.save(self.model_path, metadata)

    def _start_log(self, epoch):
        # Only now is there something to put in place of what an earlier run left. Its pictures
        # must not stand beside the new model.
        for name in PICTURES:
            (self.args.output / name).unlink(missing_ok=True)
        self.log = open(self.args.output / "log.csv", "w", encoding="ascii", newline="")  # noqa: SIM115
        self._write_row(field.name for field in fields(epoch))

    def _write_row(self, values):
        self.log.write(",".join(values) + "\n")
        self.log.flush()


def _make_folder(path):
    """Make the output folder, and make sure before the training that files can be written to it."""
    if path.exists() and not path.is_dir():
        raise UserError(f"--output {path}: this is a file, a folder is needed")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"--output {path}: cannot write there ({error.strerror})") from error


def _write_pictures(folder, history, images, labels, probabilities):
    from gru_c.learn import plots

    figures = (
        plots.training_curves(history),
        plots.confusion_matrix(labels, probabilities.argmax(axis=1)),
        plots.digit_gallery(images, labels, probabilities),
    )
    for name, figure in zip(PICTURES, figures, strict=True):
        plots.save_figure(figure, folder / name)


# ---- predict ------------------------------------------------------------------------------------


def run_predict(args: argparse.Namespace) -> int:
    """Print or write the predictions; return the exit status."""
    if args.model.suffix.lower() != ".npz":
        _require("safetensors")
    from gru_c.datasets import DIGIT_PIXEL_MAX, load_digits, split_digits
    from gru_c.learn import SequenceClassifier

    model = SequenceClassifier.load(args.model)
    if (model.input_size, model.num_classes) != (8, 10):
        raise UserError(
            f"{args.model}: the model reads rows of {model.input_size} values and knows "
            f"{model.num_classes} classes; digits have rows of 8 and 10 classes"
        )
    labels = None
    if args.data == "digits":
        images, labels = load_digits()
        _, test = split_digits()
        images, labels = images[test], labels[test]
    else:
        images = _read_images(args.data) / DIGIT_PIXEL_MAX
    probabilities = model.predict_proba(images.astype(model.dtype))
    if args.output is None:
        for row in probabilities:
            print(f"{row.argmax()} {row.max():.4f}")
    else:
        _write_predictions(args.output, probabilities)
    if labels is not None:
        print(_accuracy(probabilities, labels))
    return 0


def _read_images(path):
    """Return the images (N, 8, 8) of the file, float64, pixel values 0..16 as they are."""
    images = _read_array(path)
    if images.dtype.kind not in "iuf":
        raise UserError(f"{path}: pixel values must be numbers, got an array of {images.dtype}")
    if images.shape[1:] not in ((8, 8), (64,)):
        hint = "; is the last column the label?" if images.shape[1:] == (65,) else ""
        raise UserError(f"{path}: expected shape (N, 8, 8) or (N, 64), got {images.shape}{hint}")
    if len(images) == 0:
        raise UserError(f"{path}: there is no image in it")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 16):  # in this form a NaN is refused too
        raise UserError(f"{path}: pixel values must be in 0..16, got {low:g}..{high:g}")
    if high <= 1:
        _report(f"note: {path} holds no pixel above 1; the scale is 0..16", 0)
    return images.reshape(-1, 8, 8).astype(np.float64)


def _read_array(path):
    suffix = Path(path).suffix.lower()
    if suffix not in (".npz", ".npy", ".csv"):
        raise UserError(f"--data {path}: expected a .npz, .npy or .csv file, or the word digits")
    try:
        if suffix == ".csv":
            lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
            lines = [line for line in lines if line.partition("#")[0].strip()]
            return np.loadtxt(lines, delimiter=",", ndmin=2) if lines else np.empty((0, 64))
        with open(path, "rb") as file:  # np.load leaves it open if it is no archive after all
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return loaded[_array_name(path, loaded.files)]
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable {suffix} file ({error})") from error


def _array_name(path, names):
    if "images" in names:
        return "images"
    if len(names) == 1:
        return names[0]
    raise UserError(f"{path}: expected an array named images, got {', '.join(names) or 'none'}")


def _write_predictions(path, probabilities):
    from gru_c.interop.containers.writing import write_atomically

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "digit", "probability"))
    for index, row in enumerate(probabilities):
        writer.writerow((index, row.argmax(), f"{row.max():.6f}"))
    try:
        write_atomically(path, text.getvalue().encode("ascii"))
    except OSError as error:
        raise UserError(f"--output {path}: cannot write there ({error.strerror})") from error


# ---- complexity and info ------------------------------------------------------------------------


def run_complexity(args: argparse.Namespace) -> int:
    """Print the table, or the JSON, that was asked for; 2 after a size that is refused."""
    try:
        cost = complexity(
            args.input_size, args.hidden_size, args.batch_size, args.seq_len,
            bias=not args.no_bias, reset_after=not args.reset_before, num_layers=args.num_layers,
            dtype=args.dtype, bidirectional=args.bidirectional, lengths=args.lengths,
            checkpoint=args.checkpoint,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(cost.as_dict(), indent=2) if args.json else cost)
    return 0


def run_info(_: argparse.Namespace) -> int:
    """Print what this installation runs on; return the exit status."""
    show_config()
    return 0


# ---- shared -------------------------------------------------------------------------------------


def _require(package):
    """Refuse now, before any work is done, what would fail for want of `package` later."""
    from gru_c.interop import MissingExtraError

    if find_spec(package) is None:
        raise MissingExtraError(package, "train")


def _report(message, status):
    print(f"gru-c: {message}", file=sys.stderr)
    return status


def _accuracy(probabilities, labels):
    right = int((probabilities.argmax(axis=1) == labels).sum())
    return f"accuracy {_percent(right / len(labels))} ({right} of {len(labels)})"


def _percent(share):
    return f"{100 * share:.1f} %"


def _number(convert, accept, wanted):
    """Return a type for argparse: `convert` the text, and refuse what `accept` does not."""

    def parse(text):
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not accept(value):
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
        return value

    return parse


_count = _number(int, lambda n: n >= 1, "a whole number of at least 1")
_seed = _number(int, lambda n: n >= 0, "a whole number of at least 0")
_positive = _number(float, lambda v: 0 < v < math.inf, "a positive number")
_not_negative = _number(float, lambda v: 0 <= v < math.inf, "a number of at least 0")
