"""`gru-c train` beside the same training in PyTorch: accuracy and time, seed by seed.

    python bench/train_digits.py [--seeds 0 1 2] [--repeats 3] [--json FILE]

Both train in this process, in turn, on one thread each, from the same initial weights on the same
batches: same order, same noise, drawn alike from equal generators. All settings are the defaults of
`gru-c train`, read from its parser. Before anything is timed, the first loss and gradient must
agree, and afterwards the mean loss of the first epoch.

A time is that of the training loop with its evaluations on the validation digits, without imports
and making the model. The figure for a seed is the least of its repeats; who goes first alternates.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import scipy
import torch

import gru_c
from bench import machine
from gru_c import cli
from gru_c.datasets import load_digits, split_digits
from gru_c.learn import SequenceClassifier, cross_entropy, evaluate, fit
from gru_c.learn.trainer import rate_of_epoch

AGREEMENT = 1e-5  # relative, of the first loss and gradient, in float32
EPOCH_AGREEMENT = 1e-3  # of the first epoch's loss: 41 updates magnify rounding
TARGET_ACCURACY, TARGET_RATIO = 0.975, 0.5


class TorchClassifier:
    """`SequenceClassifier` in PyTorch, with its names and weights; takes arrays, as it does."""

    def __init__(self, ours):
        sizes = ours.input_size, ours.hidden_size, ours.num_layers
        self.net = torch.nn.ModuleDict({
            "gru": torch.nn.GRU(*sizes, batch_first=True),
            "head": torch.nn.Linear(ours.hidden_size, ours.num_classes),
        })
        state = {name: torch.from_numpy(a.copy()) for name, a in ours.state_dict().items()}
        self.net.load_state_dict(state)
        self.eval = self.net.eval

    def logits(self, x):
        _, h_n = self.net["gru"](torch.from_numpy(x))
        return self.net["head"](h_n[-1])

    def loss(self, x, labels):
        return torch.nn.functional.cross_entropy(self.logits(x), torch.from_numpy(labels))

    @torch.inference_mode()
    def __call__(self, x):
        return self.logits(x).numpy()


def batches(x, labels, settings, rng):
    """The batches of an epoch, drawn as `gru_c.learn.fit` draws them."""
    order, size = rng.permutation(len(x)), settings["batch_size"]
    for start in range(0, len(x), size):
        rows = order[start : start + size]
        noise = rng.standard_normal(x[rows].shape, x.dtype)
        yield x[rows] + settings["noise"] * noise, labels[rows]


def gru_c_fit(model, train, validation, settings, rng):
    """Losses and validation accuracies by epoch."""
    epochs = fit(model, train, validation, rng=rng, **settings).epochs
    return [e.train_loss for e in epochs], [e.validation_accuracy for e in epochs]


def torch_fit(model, train, validation, settings, rng):
    """What `gru_c.learn.fit` does, by PyTorch: losses and validation accuracies by epoch."""
    net = model.net
    # Fused is PyTorch's fastest Adam on these sizes, faster than its default.
    adam = torch.optim.Adam(net.parameters(), settings["learning_rate"], fused=True)
    epochs, losses, accuracies = settings["epochs"], [], []
    for epoch in range(1, epochs + 1):
        rate = rate_of_epoch(settings["learning_rate"], epoch, epochs)
        adam.param_groups[0]["lr"] = rate
        net.train()
        losses.append(0.0)
        for x, labels in batches(*train, settings, rng):
            loss = model.loss(x, labels)
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), settings["clip"])
            adam.step()
            losses[-1] += loss.item() * len(x) / len(train[0])
        accuracies.append(evaluate(model, *validation)[1])
        if accuracies[-1] == max(accuracies):
            best = {name: p.clone() for name, p in net.state_dict().items()}
    net.load_state_dict(best)
    return losses, accuracies


class Run:
    """The data, the settings and the two contenders."""

    def __init__(self):
        args = cli.build_parser().parse_args(["train"])
        self.sizes = {"hidden_size": args.hidden_size, "num_layers": args.layers}
        names = ("epochs", "batch_size", "learning_rate", "clip", "noise")
        self.settings = {name: getattr(args, name) for name in names}
        images, labels = load_digits()
        train, test = split_digits()
        train, validation = train[:-cli.VALIDATION_COUNT], train[-cli.VALIDATION_COUNT:]
        self.train, self.validation, self.test = (
            (images[rows], labels[rows]) for rows in (train, validation, test)
        )

    def start(self, seed):
        """A fresh model and the generator of its data, as `gru-c train --seed` makes them."""
        weights_rng, data_rng = np.random.default_rng(seed).spawn(2)
        return SequenceClassifier(8, num_classes=10, rng=weights_rng, **self.sizes), data_rng

    def check(self, seed):
        """Return how far the first loss and gradient of the two are apart, relative."""
        ours, rng = self.start(seed)
        theirs = TorchClassifier(ours)
        x, labels = next(batches(*self.train, self.settings, rng))
        loss, dlogits = cross_entropy(ours.train()(x), labels)
        ours.backward(dlogits)
        their_loss = theirs.loss(x, labels)
        their_loss.backward()
        apart = [abs(loss - their_loss.item()) / loss]
        for name, p in theirs.net.named_parameters():
            grad = p.grad.numpy()
            apart.append(float(np.abs(ours.grads[name] - grad).max() / np.abs(grad).max()))
        if not max(apart) <= AGREEMENT:
            raise SystemExit(f"seed {seed}: not the same training, {max(apart):.1e} apart")
        return max(apart)

    def train_one(self, name, seed, **changes):
        """Return accuracies, first loss and seconds of "gru_c" or "torch"."""
        model, rng = self.start(seed)
        one_fit = gru_c_fit
        if name == "torch":
            model, one_fit = TorchClassifier(model), torch_fit
        settings = self.settings | changes
        start = time.perf_counter()
        losses, accuracies = one_fit(model, self.train, self.validation, settings, rng)
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "test_accuracy": evaluate(model, *self.test)[1],
            "validation_accuracy": max(accuracies),
            "first_epoch_loss": losses[0],
        }


def measure_seed(run, seed, repeats):
    """Return of each contender the accuracies, the times and the least time."""
    row, times = {"seed": seed, "apart": run.check(seed)}, {"gru_c": [], "torch": []}
    for turn in range(repeats):
        for name in times if turn % 2 == 0 else reversed(times):
            row[name] = run.train_one(name, seed)
            times[name].append(row[name]["seconds"])
    for name, found in times.items():
        row[name] |= {"seconds": min(found), "all_seconds": found}
    loss, their_loss = (row[name]["first_epoch_loss"] for name in times)
    if not abs(loss - their_loss) <= EPOCH_AGREEMENT * loss:
        raise SystemExit(f"seed {seed}: first epoch's losses {loss:.6f} and {their_loss:.6f}")
    row["ratio"] = row["gru_c"]["seconds"] / row["torch"]["seconds"]
    return row


def line(row):
    def cells(name):
        found = row[name]
        return f"{100 * found['test_accuracy']:8.2f} %{found['seconds']:9.3f} s"

    return f"{row['seed']:4}{cells('gru_c')}{cells('torch')}{row['ratio']:8.3f}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="K")
    parser.add_argument("--repeats", type=int, default=3, metavar="R", help="trainings a seed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here too")
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error("--repeats must be at least 1")
    torch.set_num_threads(1)
    gru_c.set_num_threads(1)

    run, here = Run(), machine.describe()
    print(f"{here['cpu']}, {here['cores']} cores; one thread each")
    packages = {module.__name__: module.__version__ for module in (gru_c, torch, np, scipy)}
    here["versions"] = {"python": here["python"], **packages}
    print(", ".join(f"{name} {number}" for name, number in here["versions"].items()))
    print(", ".join(f"{k} {v:g}" for k, v in (run.sizes | run.settings).items()))
    print(f"{len(run.train[0])} / {len(run.validation[0])} / {len(run.test[0])} digits to train, "
          f"validate, test; least of {args.repeats} times\n")
    print(f"seed{'gru_c':>21}{'PyTorch':>21}{'ratio':>8}")
    for name in ("gru_c", "torch"):  # first calls are slower
        run.train_one(name, 0, epochs=2)
    rows = []
    for seed in args.seeds:
        rows.append(measure_seed(run, seed, args.repeats))
        print(line(rows[-1]), flush=True)

    totals = {name: sum(row[name]["seconds"] for row in rows) for name in ("gru_c", "torch")}
    ratio = totals["gru_c"] / totals["torch"]
    worst = min(row["gru_c"]["test_accuracy"] for row in rows)
    apart = max(row["apart"] for row in rows)
    print(f"\nratio of the summed times {ratio:.3f} (at most {TARGET_RATIO} wanted), "
          f"1 / ratio {1 / ratio:.2f}")
    print(f"least test accuracy of gru_c {100 * worst:.2f} % (at least "
          f"{100 * TARGET_ACCURACY} % wanted)")
    print(f"first loss and gradients at most {apart:.1e} apart (relative)")
    if args.json is not None:
        found = {
            "machine": here, "settings": run.sizes | run.settings, "repeats": args.repeats,
            "rows": rows, "seconds": totals, "ratio": ratio,
        }
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return int(ratio > TARGET_RATIO or worst < TARGET_ACCURACY)


if __name__ == "__main__":
    sys.exit(main())
