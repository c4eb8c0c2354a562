"""`gru-c train` beside the same training in PyTorch: accuracy and time, seed by seed.

    python bench/train_digits.py [--seeds 0 1 2] [--repeats 3] [--json FILE]

Both train in this process, in turn, on one thread each, from the same initial weights on the same
batches: same order, same noise, made by the same generator. All settings are the defaults of
`gru-c train`, read from its parser; batches, learning rates and choice of the best epoch are those
of `gru_c.learn.trainer`. Before anything is timed, the first loss and gradient must agree.

A time is that of the training loop with its evaluations on the validation digits, without imports
and making the model. The figure for a seed is the least of its repeats; who goes first alternates.
"""

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import torch

import gru_c
from gru_c import cli
from gru_c.datasets import load_digits, split_digits
from gru_c.learn import SequenceClassifier, cross_entropy, evaluate, fit, trainer

AGREEMENT = 1e-5  # relative, of the first loss and gradient, in float32
TARGET_ACCURACY, TARGET_RATIO = 0.975, 0.5


class TorchClassifier(torch.nn.Module):
    """What `SequenceClassifier` is, with its names."""

    def __init__(self, ours):
        super().__init__()
        self.gru = torch.nn.GRU(
            ours.input_size, ours.hidden_size, ours.num_layers, batch_first=True
        )
        self.head = torch.nn.Linear(ours.hidden_size, ours.num_classes)
        state = {name: torch.from_numpy(a.copy()) for name, a in ours.state_dict().items()}
        self.load_state_dict(state)

    def forward(self, x):
        _, h_n = self.gru(x)
        return self.head(h_n[-1])


class FromNumPy:
    """A PyTorch model as `gru_c.learn.evaluate` calls one."""

    def __init__(self, model):
        self.model, self.eval = model, model.eval

    @torch.inference_mode()
    def __call__(self, x):
        return self.model(torch.from_numpy(x)).numpy()


def torch_fit(model, train, validation, settings, rng):
    """What `gru_c.learn.fit` does with PyTorch's own loss, gradients and Adam; its epochs."""
    # Fused is PyTorch's fastest Adam on these sizes, faster than its default.
    adam = torch.optim.Adam(model.parameters(), settings["learning_rate"], fused=True)
    epochs, history, best = settings["epochs"], [], None
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        rate = trainer.rate_of_epoch(settings["learning_rate"], epoch, epochs)
        adam.param_groups[0]["lr"] = rate
        model.train()
        loss, hits = 0.0, 0
        batches = trainer._batches(*train, settings["batch_size"], settings["noise"], rng)
        for x, labels in batches:
            labels = torch.from_numpy(labels)
            logits = model(torch.from_numpy(x))
            batch_loss = torch.nn.functional.cross_entropy(logits, labels)
            adam.zero_grad()
            batch_loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip"])
            adam.step()
            loss += batch_loss.item() * len(x)
            hits += int((logits.detach().argmax(1) == labels).sum())
        count, result = len(train[0]), evaluate(FromNumPy(model), *validation)
        seconds = time.perf_counter() - start
        last = trainer.Epoch(epoch, rate, loss / count, hits / count, *result, seconds)
        history.append(last)
        if trainer._as_good(last, best):
            best, state = last, {name: p.clone() for name, p in model.state_dict().items()}
    model.load_state_dict(state)
    return history


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
        size, noise = self.settings["batch_size"], self.settings["noise"]
        x, labels = next(trainer._batches(*self.train, size, noise, rng))
        loss, dlogits = cross_entropy(ours.train()(x), labels)
        ours.backward(dlogits)
        their_loss = torch.nn.functional.cross_entropy(
            theirs(torch.from_numpy(x)), torch.from_numpy(labels)
        )
        their_loss.backward()
        apart = [abs(loss - their_loss.item()) / loss]
        for name, p in theirs.named_parameters():
            grad = p.grad.numpy()
            apart.append(float(np.abs(ours.grads[name] - grad).max() / np.abs(grad).max()))
        if not max(apart) <= AGREEMENT:
            raise SystemExit(f"seed {seed}: not the same training, {max(apart):.1e} apart")
        return max(apart)

    def gru_c(self, seed, **changes):
        model, rng = self.start(seed)
        start = time.perf_counter()
        history = fit(model, self.train, self.validation, rng=rng, **self.settings | changes)
        return self._result(history.epochs, time.perf_counter() - start, model)

    def torch(self, seed, **changes):
        ours, rng = self.start(seed)
        model = TorchClassifier(ours)
        start = time.perf_counter()
        epochs = torch_fit(model, self.train, self.validation, self.settings | changes, rng)
        return self._result(epochs, time.perf_counter() - start, FromNumPy(model))

    def _result(self, epochs, seconds, model):
        return {
            "seconds": seconds,
            "test_accuracy": evaluate(model, *self.test)[1],
            "validation_accuracy": max(epoch.validation_accuracy for epoch in epochs),
            "first_epoch_loss": epochs[0].train_loss,
        }


def measure(run, seeds, repeats):
    """Return one dict a seed: of each contender the accuracies, the times and the least time."""
    rows, turn = [], 0
    names = ("gru_c", "torch")
    for name in names:  # not timed: first calls are slower
        getattr(run, name)(0, epochs=2)
    for seed in seeds:
        row = {"seed": seed, "apart": run.check(seed)}
        times = {name: [] for name in names}
        for _ in range(repeats):
            for name in names if turn % 2 == 0 else names[::-1]:
                result = getattr(run, name)(seed)
                times[name].append(result.pop("seconds"))
                row[name] = result
            turn += 1
        for name in names:
            row[name] |= {"seconds": min(times[name]), "all_seconds": times[name]}
        row["ratio"] = row["gru_c"]["seconds"] / row["torch"]["seconds"]
        rows.append(row)
        print(line(row), flush=True)
    return rows


def line(row):
    def cells(name):
        found = row[name]
        return f"{100 * found['test_accuracy']:8.2f} %{found['seconds']:9.3f} s"

    return f"{row['seed']:4}{cells('gru_c')}{cells('torch')}{row['ratio']:8.3f}"


def describe():
    """Return processor, threads and versions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (text.partition(":")[2].strip() for text in lines if text.startswith("model name"))
    packages = {"gru_c": gru_c.__version__, "torch": torch.__version__}
    packages |= {name: version(name) for name in ("numpy", "scipy")}
    return {
        "cpu": next(models, platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "threads": {"gru_c": gru_c.get_num_threads(), "torch": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), **packages},
    }


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

    run, machine = Run(), describe()
    print(f"{machine['cpu']}, {machine['cores']} cores; one thread each")
    print(", ".join(f"{name} {number}" for name, number in machine["versions"].items()))
    print(", ".join(f"{k} {v:g}" for k, v in (run.sizes | run.settings).items()))
    print(f"{len(run.train[0])} / {len(run.validation[0])} / {len(run.test[0])} digits to train, "
          f"validate, test; least of {args.repeats} times\n")
    print(f"seed{'gru_c':>21}{'PyTorch':>21}{'ratio':>8}")
    rows = measure(run, args.seeds, args.repeats)

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
            "machine": machine, "settings": run.sizes | run.settings, "repeats": args.repeats,
            "rows": rows, "seconds": totals, "ratio": ratio,
        }
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return int(ratio > TARGET_RATIO or worst < TARGET_ACCURACY)


if __name__ == "__main__":
    sys.exit(main())
