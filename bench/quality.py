"""What quantizing a model costs in quality: int8 and bfloat16, with x in several numbers of bits.

    python -m bench.quality               the tables; about a minute
    python -m bench.quality --smoke       for CI: one short training, few sizes, seconds

Three tables. Trained models: the test accuracy on handwritten digits (an image read row by row) and
on Japanese vowels (utterances of 7 to 29 frames), the mean of five trainings, and what is lost of
it. Random models: the error of h over 1,000 steps beside the float64 model, its maximum and root
mean square (h is in -1 .. 1); x is standard normal, the weights are those that a new model has.
Hard inputs: the same with inputs and weights that have a few large numbers among small ones. The
weights with "wide rows" have one element in 32 that is 30 times the others, in rows of the norm
that they had before.

Beside them, where PyTorch is installed, its dynamic int8. The exit status is 1 where a trained
model loses more than its limit (not with --smoke) or the error of a random one is above its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import gru_c
from bench import report, vowels
from gru_c.datasets import load_digits, split_digits
from gru_c.learn import Adam, FlatArrays, Linear, clip_grad_norm, cross_entropy
from gru_c.learn.trainer import rate_of_epoch

FORMS = {                                                  # arguments of `quantize`
    "int8": {"weights": "int8"},
    "int8, x 12": {"weights": "int8", "x_bits": 12},
    "bfloat16": {"weights": "bfloat16"},
    "bfloat16, x 16": {"weights": "bfloat16", "x_bits": 16},
}
TORCH = "PyTorch int8"
# Points of accuracy, and the error of random models
MOST_LOST = {"int8": 0.3, "int8, x 12": 0.3, "bfloat16": 0.1, "bfloat16, x 16": 0.1}
MOST_RMS = {"int8": 3e-3, "int8, x 12": 1.5e-3, "bfloat16": 6e-4, "bfloat16, x 16": 9e-4}
SEEDS = range(5)
STEPS, ROWS = 1000, 8
SIZES = ((16, 32), (40, 64), (64, 128), (80, 256), (256, 512))             # I, H
HARD_SIZES = (64, 128)
HIDDEN = 64                                                # of the trained models

Run = Callable[..., tuple[np.ndarray, np.ndarray]]         # what a model is when it is called


# ---- models ------------------------------------------------------------------------------------

def in_float64(gru: gru_c.GRU) -> Run:
    """A model of the same weights."""
    made = gru_c.GRU(gru.input_size, gru.hidden_size, dtype=np.float64)
    made.load_state_dict({k: w.astype(np.float64) for k, w in gru.state_dict().items()})
    return made.eval()


def forms(gru: gru_c.GRU) -> dict[str, Run]:
    """The quantized models of a GRU by name, and PyTorch's."""
    found: dict[str, Run] = {name: gru.quantize(**form) for name, form in FORMS.items()}
    if importlib.util.find_spec("torch"):
        found[TORCH] = quantized_by_torch(gru)
    return found


def quantized_by_torch(gru: gru_c.GRU) -> Run:
    import torch

    made = torch.nn.GRU(gru.input_size, gru.hidden_size, gru.num_layers,
                        bidirectional=gru.bidirectional)
    made.load_state_dict({k: torch.tensor(w) for k, w in gru.state_dict().items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                    # it is deprecated
        parts = torch.nn.ModuleList([made])                # it replaces modules in others
        [made] = torch.ao.quantization.quantize_dynamic(parts, {torch.nn.GRU}, torch.qint8)

    @torch.inference_mode()
    def run(x, lengths=None):
        given = torch.tensor(x)
        if lengths is not None:
            given = torch.nn.utils.rnn.pack_padded_sequence(given, torch.tensor(lengths),
                                                            enforce_sorted=False)
        output, h_n = made(given)
        return output if lengths is not None else output.numpy(), h_n.numpy()

    return run


# ---- trained models ----------------------------------------------------------------------------

class Data(NamedTuple):
    """Sequences (T, N, I) with the time first, and a split of them."""

    x: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray


def digits() -> Data:
    images, labels = load_digits()
    x = np.ascontiguousarray(images.swapaxes(0, 1))
    return Data(x, np.full(len(labels), len(x)), labels, *split_digits())


def spoken_vowels() -> Data:
    x, lengths, labels = vowels.load()
    train, test = np.split(np.arange(len(labels)), [vowels.TRAINING])
    return Data(np.ascontiguousarray(x.swapaxes(0, 1)), lengths, labels, train, test)


# name: data, epochs, what else the GRU is
TRAININGS = {
    "digits": (digits, 30, {}),
    "vowels": (spoken_vowels, 60, {}),
    "vowels, 2 layers, both directions": (spoken_vowels, 60,
                                          {"num_layers": 2, "bidirectional": True}),
}


class Classifier:
    """A GRU, and a linear head on the last state of its last layer, of both directions."""

    def __init__(self, data: Data, seed: int, **options):
        rng = np.random.default_rng(seed)
        self.gru = gru_c.GRU(data.x.shape[2], HIDDEN, rng=rng, **options)
        self.directions = 1 + self.gru.bidirectional
        self.head = Linear(self.directions * HIDDEN, data.labels.max() + 1, rng=rng)

    def logits(self, data: Data, rows: np.ndarray, gru: Run | None = None) -> np.ndarray:
        _, h_n = (gru or self.gru)(data.x[:, rows], lengths=data.lengths[rows])
        return self.head(np.concatenate(h_n[-self.directions:], axis=1))

    def backward(self, dlogits: np.ndarray) -> dict[str, np.ndarray]:
        dh_n = np.zeros((self.gru.num_layers * self.directions, len(dlogits), HIDDEN), np.float32)
        dh_n[-self.directions:] = np.split(self.head.backward(dlogits), self.directions, axis=1)
        self.gru.backward(None, dh_n)
        return self.gru.grads | self.head.grads

    def accuracy(self, data: Data, gru: Run | None = None) -> float:
        """In per cent of the test sequences."""
        found = self.logits(data, data.test, gru).argmax(axis=1)
        return 100 * float(np.mean(found == data.labels[data.test]))


def trained(data: Data, epochs: int, seed: int, **options) -> Classifier:
    """Adam in batches of 32, the rate 3e-3 at first, the norm of the gradient at most 1."""
    model, rng = Classifier(data, seed, **options), np.random.default_rng([seed, 1])
    own = FlatArrays(model.gru.state_dict() | model.head.state_dict())
    gradients, adam = FlatArrays(own.views), Adam(own.vector)
    for epoch in range(1, epochs + 1):
        adam.learning_rate = rate_of_epoch(3e-3, epoch, epochs)
        order = rng.permutation(data.train)
        for start in range(0, len(order), 32):
            rows = order[start:start + 32]
            _, dlogits = cross_entropy(model.logits(data, rows), data.labels[rows])
            gradients.gather(model.backward(dlogits))
            clip_grad_norm(gradients.vector, 1)
            adam.step(gradients.vector)
            model.gru.load_state_dict({k: own.views[k] for k in model.gru.state_dict()})
            model.head.load_state_dict(own.views)
    model.gru.eval()
    model.head.eval()
    return model


def accuracies(name: str, seeds: range, epochs: int | None = None) -> dict[str, float]:
    """The mean test accuracy of a training by the form of the model, the float one first."""
    load, usual, options = TRAININGS[name]
    data, found = load(), []
    for seed in seeds:
        model = trained(data, epochs or usual, seed, **options)
        found.append({"float32": model.accuracy(data)} | {
            form: model.accuracy(data, run) for form, run in forms(model.gru).items()})
    return {form: float(np.mean([one[form] for one in found])) for form in found[0]}


def table_of_accuracies(found: dict[str, dict[str, float]]) -> report.Table:
    names = list(next(iter(found.values())))
    table = [["accuracy, %, and points lost", *names]]
    for name, one in found.items():
        lost = [f"{one[form]:.2f} ({one['float32'] - one[form]:+.2f})" for form in names[1:]]
        table.append([name, f"{one['float32']:.2f}", *lost])
    return table


def losses_missed(found: dict[str, dict[str, float]]) -> list[str]:
    return [f"{name}, {form}: {one['float32'] - one[form]:.2f} points lost, at most {most} wanted"
            for name, one in found.items() for form, most in MOST_LOST.items()
            if one["float32"] - one[form] > most]


# ---- random models -----------------------------------------------------------------------------

def random_case(sizes: tuple[int, int], steps: int) -> tuple[gru_c.GRU, np.ndarray]:
    rng = np.random.default_rng(sizes)
    gru = gru_c.GRU(*sizes, rng=rng).eval()
    return gru, rng.standard_normal((steps, ROWS, sizes[0]), np.float32)


def one_large_feature(gru, x, rng):
    x[:, :, 0] *= 30


def heavy_tails(gru, x, rng):
    x[:] = rng.standard_t(2, x.shape)


def wide_rows(gru, x, rng):
    state = gru.state_dict()
    for name in ("weight_ih_l0", "weight_hh_l0"):
        w = state[name]
        wide = np.where(rng.random(w.shape) < 1 / 32, 30 * w, w)
        norms = (np.linalg.norm(one, axis=1, keepdims=True) for one in (w, wide))
        state[name] = wide * np.divide(*norms)
    gru.load_state_dict(state)


def ten_times(gru, x, rng):
    x *= 10


def a_tenth(gru, x, rng):
    x *= 0.1


HARD = {
    "x as it is": lambda gru, x, rng: None,
    "one feature 30 times the others": one_large_feature,
    "x of Student's t, 2 degrees of freedom": heavy_tails,
    "wide rows of weights": wide_rows,
    "x times 10": ten_times,
    "x times 0.1": a_tenth,
}


Errors = dict[str, tuple[float, float]]                    # maximum and RMS by form of the model


def errors(gru: gru_c.GRU, x: np.ndarray) -> Errors:
    """Of h, beside the float64 model of the same weights."""
    truth, _ = in_float64(gru)(x.astype(np.float64))
    found = {}
    for form, run in {"float32": gru, **forms(gru)}.items():
        apart = np.abs(run(x)[0] - truth)
        found[form] = float(apart.max()), float(np.sqrt(np.mean(apart**2)))
    return found


def table_of_errors(found: dict[str, Errors]) -> report.Table:
    table = [["error of h, maximum and RMS", *next(iter(found.values()))]]
    for name, one in found.items():
        table.append([name, *(f"{most:.1e} {rms:.1e}" for most, rms in one.values())])
    return table


def errors_missed(found: dict[str, Errors]) -> list[str]:
    return [f"{name}, {form}: RMS {one[form][1]:.1e}, at most {most} wanted"
            for name, one in found.items() for form, most in MOST_RMS.items()
            if not one[form][1] <= most]


# ---- command line ------------------------------------------------------------------------------

def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="for CI")
    smoke = parser.parse_args().smoke
    steps, sizes, seeds = (50, SIZES[:2], SEEDS[:1]) if smoke else (STEPS, SIZES, SEEDS)

    found = {name: accuracies(name, seeds, 10 if smoke else None) for name in TRAININGS}
    print(report.aligned(table_of_accuracies(found)), flush=True)
    of_sizes = {"I={}, H={}".format(*one): errors(*random_case(one, steps)) for one in sizes}
    print(f"\n{report.aligned(table_of_errors(of_sizes))}", flush=True)
    hard = {}
    for name, change in HARD.items():
        gru, x = random_case(sizes[-1] if smoke else HARD_SIZES, steps)
        change(gru, x, np.random.default_rng(0))
        hard[name] = errors(gru, x)
    print(f"\n{report.aligned(table_of_errors(hard))}")
    missed = errors_missed(of_sizes) + ([] if smoke else losses_missed(found))
    print("".join(f"MISSED {line}\n" for line in missed), end="")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
