"""gru_c.learn: gradients, Adam and clipping, the classifier and its file, the training loop.

Against finite differences in float64, and against numbers that PyTorch 2.13 gave.
"""

import json
import os
import re
import stat
import sys
from functools import partial
from itertools import pairwise

import helpers
import numpy as np
import pytest
from helpers import assert_same_bits, differences, error, tolerance

from gru_c import GRU
from gru_c.learn import (
    Adam,
    FlatArrays,
    Linear,
    MissingExtraError,
    ModelFileError,
    SequenceClassifier,
    clip_grad_norm,
    cross_entropy,
    evaluate,
    fit,
    log_softmax,
    softmax,
)
from gru_c.learn import trainer as trainer_module

normal = partial(helpers.normal, dtype=np.float64)
LABELS = np.array([2, 0, 1, 1, 3])


# ---- head and loss -------------------------------------------------------------------------------


def test_head_against_finite_differences():
    head, x, dy = Linear(4, 3, np.float64, rng=0), normal(5, 4), normal(5, 3, seed=1)
    head(x)
    found = {"x": head.backward(dy), **head.grads}
    wanted = differences(lambda **_: (head(x) * dy).sum(), {"x": x, **head.state_dict()})
    for name, value in wanted.items():
        assert error(found[name], value) <= 1e-7, name


def test_cross_entropy_against_finite_differences():
    logits = normal(5, 4)
    wanted = differences(lambda logits: cross_entropy(logits, LABELS)[0], {"logits": logits})
    assert error(cross_entropy(logits, LABELS)[1], wanted["logits"]) <= 1e-7


def test_cross_entropy_values():
    """Values of torch.nn.functional.cross_entropy."""
    logits = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
    loss, dlogits = cross_entropy(logits, np.array([2, 0]))
    assert loss == pytest.approx(2.0352404030498565, abs=1e-14)
    assert dlogits == pytest.approx(np.array([
        [0.3018744480743129, 0.015029443784787011, -0.3169038918590999],
        [-0.47669368871101303, 0.4681197759382529, 0.008573912772760194],
    ]), abs=1e-14)


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30], ids=str)
def test_softmax_of_large_logits(scale, dtype):
    logits = (scale * normal(6, 4)).astype(dtype)
    loss, dlogits = cross_entropy(logits, np.arange(6) % 4)
    assert np.isfinite(loss) and np.isfinite(dlogits).all()
    assert dlogits.dtype == softmax(logits).dtype == log_softmax(logits).dtype == dtype
    assert softmax(logits).sum(axis=1) == pytest.approx(np.ones(6), abs=1e-6)
    assert dlogits.sum(axis=1) == pytest.approx(np.zeros(6), abs=1e-6)


@pytest.mark.parametrize("logits, labels, kind, message", [
    ((2, 3), [0, 3], ValueError, "label 3 is out of bounds for 3 classes"),
    ((2, 3), [-1, 0], ValueError, "label -1 is out of bounds for 3 classes"),
    ((2, 3), [0], ValueError, "expected logits (N, C) and labels (N,), got (2, 3) and (1,)"),
    ((2,), [0, 0], ValueError, "expected logits (N, C) and labels (N,), got (2,) and (2,)"),
    ((2, 3), [0.0, 1.0], TypeError, "expected integer labels, got float64"),
    ((0, 3), [], ValueError, "the mean over an empty batch is not defined"),
])
def test_cross_entropy_refuses(logits, labels, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        cross_entropy(np.zeros(logits), np.array(labels))


def test_head_refuses():
    head = Linear(4, 3, rng=0)
    with pytest.raises(RuntimeError, match="forward pass in training mode first"):
        head.backward(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=re.escape("x of shape (N, 4), got (2, 5)")):
        head(np.zeros((2, 5), np.float32))
    with pytest.raises(TypeError, match="dtype float32, got float64"):
        head(np.zeros((2, 4)))
    head(np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match=re.escape("dy of shape (2, 3), got (3, 2)")):
        head.backward(np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match=re.escape("bias: expected shape (3,), got (2,)")):
        head.load_state_dict({"weight": np.ones((3, 4)), "bias": np.zeros(2)})
    assert (head.weight != 1).all()  # nothing was copied
    with pytest.raises(RuntimeError):
        head.eval().backward(np.zeros((2, 3), np.float32))


# ---- Adam and clipping ---------------------------------------------------------------------------

# Learning rates and gradients, with the norms that torch.nn.utils.clip_grad_norm_(..., 2.0) gave;
# and the parameters after each step of torch.optim.Adam, from [0.5, -1, 2, 0].
GRADIENTS = [
    (0.1, [3.0, -0.5, 0.0, 1e-9], 3.0413812651491097),
    (0.1, [-1.0, 0.25, 0.5, 0.0], 1.14564392373896),
    (0.05, [0.25, -4.0, -2.0, 1e-3], 4.479118328421342),
]
ADAM = [((0.9, 0.999), 1e-8, [
    [0.40000000050689705, -0.9000000030413822, 2.0, -0.0061702071412672345],
    [0.3738979960866627, -0.8917248811616143, 1.9255863197475123, -0.00914676197794956],
    [0.362210919931094, -0.8598841557710353, 1.9394141235592808, -0.04108624172716523],
]), ((0.8, 0.95), 1e-3, [
    [0.4000506640229756, -0.9003032160306568, 2.0, -6.575953005734203e-08],
    [0.379366327301054, -0.8978231255110631, 1.9226369518806194, -9.498599366513655e-08],
    [0.3699792995305042, -0.8638690060108877, 1.9393816226111389, -0.0072368051996776995],
])]


@pytest.mark.parametrize("betas, eps, wanted", ADAM)
def test_adam_and_clipping_values(betas, eps, wanted, dtype):
    """Values of PyTorch 2.13 in float64."""
    allowed = 1e-13 if dtype == np.float64 else 2e-7
    parameters = np.array([0.5, -1.0, 2.0, 0.0], dtype)
    adam = Adam(parameters, 0.1, betas, eps)
    for (rate, gradient, norm), expected in zip(GRADIENTS, wanted, strict=True):
        gradient = np.array(gradient, dtype)
        assert clip_grad_norm(gradient, 2.0) == pytest.approx(norm, rel=allowed)
        kept = gradient.copy()
        adam.learning_rate = rate
        adam.step(gradient)
        assert adam.parameters is parameters and parameters.dtype == dtype
        assert parameters == pytest.approx(np.array(expected), abs=allowed)
        assert (gradient == kept).all()


@pytest.mark.parametrize("gradient, expected", [
    ([3.0, 4.0], [0.6, 0.8]),
    ([0.3, 0.4], [0.3, 0.4]),
    ([0.0, 0.0], [0.0, 0.0]),
])
def test_clip_grad_norm(gradient, expected):
    gradient = np.array(gradient)
    norm = np.hypot(*gradient)
    assert clip_grad_norm(gradient, 1.0) == pytest.approx(norm)
    assert gradient == pytest.approx(np.array(expected), rel=1e-6)


def test_clip_grad_norm_spreads_nan():
    gradient = np.array([1.0, np.nan])
    assert np.isnan(clip_grad_norm(gradient, 1.0)) and np.isnan(gradient).all()


def test_flat_arrays():
    source = {"a": normal(2, 3), "b": normal(4)}
    flat = FlatArrays(source)
    assert not any(np.shares_memory(flat.vector, a) for a in source.values())
    assert all(np.shares_memory(flat.vector, view) for view in flat.views.values())
    flat.gather({"b": source["b"] + 1, "a": source["a"].T.copy().T})
    assert (flat.vector == np.concatenate([source["a"].ravel(), source["b"] + 1])).all()
    with pytest.raises(TypeError, match="one dtype"):
        FlatArrays({"a": np.zeros(2), "b": np.zeros(2, np.float32)})


# ---- classifier ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2])
def test_classifier_against_finite_differences(layers, reset_after):
    model = SequenceClassifier(3, 5, 4, layers, np.float64, reset_after, rng=0)
    x, weights = normal(5, 6, 3), FlatArrays(model.state_dict())

    def loss(**_):
        model.load_state_dict(weights.views)
        return cross_entropy(model(x), LABELS)[0]

    _, dlogits = cross_entropy(model(x), LABELS)
    dx = model.backward(dlogits)
    grads = FlatArrays(model.grads)
    assert list(grads.views) == list(weights.views)
    wanted = differences(loss, {"x": x, "weights": weights.vector})
    assert error(dx, wanted["x"]) <= 1e-7
    assert error(grads.vector, wanted["weights"]) <= 1e-7


@pytest.mark.parametrize("layers", [1, 2])
def test_classifier_is_a_gru_and_a_head(layers, reset_after, dtype):
    model, x = SequenceClassifier(3, 5, 4, layers, dtype, reset_after, rng=0), normal(5, 6, 3)
    x = x.astype(dtype)
    state = model.state_dict()
    gru = GRU(3, 5, layers, batch_first=True, dtype=dtype, reset_after=reset_after)
    gru.load_state_dict({name[4:]: w for name, w in state.items() if name.startswith("gru.")})
    _, h_n = gru(x)
    assert error(model(x), h_n[-1] @ state["head.weight"].T + state["head.bias"]) <= tolerance(
        dtype, 5)


def test_classifier_predictions(dtype):
    model = SequenceClassifier(3, 5, 4, dtype=dtype, rng=0).eval()
    x = normal(7, 6, 3).astype(dtype)
    probabilities = model.predict_proba(x, batch_size=3)
    assert probabilities.shape == (7, 4) and probabilities.dtype == dtype
    assert probabilities == pytest.approx(softmax(model(x)), abs=1e-6)
    assert (model.predict(x) == model(x).argmax(axis=1)).all()
    assert model.predict_proba(x[:0]).shape == (0, 4) and model.predict(x[:0]).shape == (0,)
    with pytest.raises(RuntimeError):
        model.backward(np.zeros((7, 4), dtype))


# ---- the model file ------------------------------------------------------------------------------


@pytest.fixture
def model_file(tmp_path):
    """A model and the file that it was saved in."""
    pytest.importorskip("safetensors")
    model = SequenceClassifier(3, 5, 4, 2, rng=0)
    path = tmp_path / "model.safetensors"
    model.save(path, {"note": "hello"})
    return model, path


@pytest.mark.parametrize("layers", [1, 2])
def test_save_and_load(layers, dtype, reset_after, tmp_path):
    pytest.importorskip("safetensors")
    model = SequenceClassifier(3, 5, 4, layers, dtype, reset_after, rng=0)
    path = tmp_path / "model.safetensors"
    model.save(path, {"note": "h\u00e9llo"})
    again = SequenceClassifier.load(path)
    assert_same_bits(again.state_dict(), model.state_dict())
    assert again.metadata == {"note": "h\u00e9llo"}
    for name in ("input_size", "hidden_size", "num_classes", "num_layers", "dtype", "reset_after"):
        assert getattr(again, name) == getattr(model, name), name
    assert not again.gru.training and not again.head.training
    x = normal(7, 6, 3).astype(dtype)
    assert_same_bits({"logits": again(x)}, {"logits": model.eval()(x)})
    again.save(path, again.metadata)
    assert SequenceClassifier.load(path).metadata == again.metadata
    assert os.listdir(tmp_path) == [path.name]


def change(path, tensors=None, metadata=None):
    """Rewrite a model file with some of its tensors and metadata other (None: taken away)."""
    from safetensors.numpy import load, save

    data = path.read_bytes()
    old = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    new_tensors, new = load(data) | (tensors or {}), old | (metadata or {})
    path.write_bytes(save(
        {name: a for name, a in new_tensors.items() if a is not None},
        {name: text for name, text in new.items() if text is not None} or None,
    ))


NO_METADATA = dict.fromkeys((
    "format", "dtype", "reset_after", "input_size", "hidden_size", "num_classes", "num_layers",
    "note",
))


@pytest.mark.parametrize("tensors, metadata, message", [
    ({"head.bias": None}, {}, "tensor head.bias is missing"),
    ({"gru.weight_hh_l1": None}, {}, "tensor gru.weight_hh_l1 is missing"),
    ({"extra": np.zeros(1, np.float32)}, {}, "unexpected tensor extra"),
    ({"head.bias": np.zeros(3, np.float32)}, {},
     "tensor head.bias has shape (3,), the metadata ask for (4,)"),
    ({"head.bias": np.zeros(4)}, {}, "tensor head.bias is float64, the metadata say float32"),
    ({"head.bias": np.full(4, np.nan, np.float32)}, {},
     "tensor head.bias holds values that are not finite"),
    ({}, {"hidden_size": "6"}, "has shape (15, 3), the metadata ask for (18, 3)"),
    ({}, {"hidden_size": "2000000000"}, "has shape (15, 3), the metadata ask for"),
    ({}, {"num_layers": "1"}, "unexpected tensor gru.bias_hh_l1"),
    ({}, {"num_layers": "2000000000"}, "tensor gru.weight_ih_l2 is missing"),
    ({}, {"num_layers": "0"}, "metadata num_layers should be a positive number, got '0'"),
    ({}, {"input_size": "-3"}, "metadata input_size should be a positive number, got '-3'"),
    ({}, {"num_classes": "\u0664"}, "metadata num_classes should be a positive number"),
    ({}, {"input_size": None}, "metadata input_size should be a positive number, got ''"),
    ({}, {"dtype": "float16"}, "metadata dtype should be float32 or float64, got 'float16'"),
    ({}, {"reset_after": "yes"}, "metadata reset_after should be True or False, got 'yes'"),
    ({}, {"format": "pt"}, "the metadata does not say that this is a gru_c.SequenceClassifier"),
    ({}, NO_METADATA, "the metadata does not say that this is a gru_c.SequenceClassifier"),
])
def test_load_refuses(model_file, tensors, metadata, message):
    _, path = model_file
    change(path, tensors, metadata)
    with pytest.raises(ModelFileError, match=re.escape(message)) as caught:
        SequenceClassifier.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("spoil", [
    lambda data: b"",
    lambda data: b"PK\x03\x04 this is a zip archive",
    lambda data: data[:100],
    lambda data: data[:-1],
    lambda data: b"\xff" * 8 + data[8:],
], ids=["empty", "zip", "no-header", "cut", "huge-header"])
def test_load_refuses_what_is_not_safetensors(model_file, spoil):
    _, path = model_file
    path.write_bytes(spoil(path.read_bytes()))
    message = "not a readable safetensors file|no zip archive"
    with pytest.raises(ModelFileError, match=message) as caught:
        SequenceClassifier.load(path)
    assert str(path) in str(caught.value)


def test_load_of_a_missing_file(tmp_path):
    pytest.importorskip("safetensors")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SequenceClassifier.load(tmp_path / "nowhere")


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left")])
def test_an_interrupted_save_leaves_the_old_file(model_file, monkeypatch, function, interruption):
    model, path = model_file
    old = path.read_bytes()
    model.head.bias += 1

    def interrupted(*_):
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(os, function, interrupted)
        with pytest.raises((KeyboardInterrupt, OSError)):
            model.save(path)
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]
    model.save(path)
    assert path.read_bytes() != old


def test_save_through_a_link_and_to_a_pipe(model_file):
    """A symbolic link stays one; a pipe (or device, /dev/null) is written to, not replaced."""
    model, path = model_file
    link, pipe = path.with_name("link"), path.with_name("pipe")
    link.symlink_to(path.name)
    model.head.bias += 1
    model.save(link)
    assert link.is_symlink()
    assert (SequenceClassifier.load(path).head.bias == model.head.bias).all()
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        model.save(pipe)
        assert len(os.read(reader, 2**16)) > 100
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["gru.weight_hh_l1", "head.bias"])
def test_save_refuses_what_is_not_finite(model_file, name, value):
    model, path = model_file
    old = path.read_bytes()
    state = {key: array.copy() for key, array in model.state_dict().items()}
    state[name].flat[-1] = value
    model.load_state_dict(state)
    for target in (path, path.with_name("new")):
        message = f"{target}: not saved, {name} holds values that are not finite"
        with pytest.raises(ValueError, match=re.escape(message)):
            model.save(target)
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]


def test_without_safetensors(model_file, monkeypatch):
    model, path = model_file
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda: model.save(path), lambda: SequenceClassifier.load(path)):
        with pytest.raises(MissingExtraError, match=re.escape("pip install 'gru-c[safetensors]'")):
            call()


# ---- the training loop ---------------------------------------------------------------------------


def task(count=120, seed=0):
    """A small task: is the first channel bright? Not solved in a few epochs."""
    x = np.random.default_rng(seed).random((count, 5, 3), np.float32)
    return x, (x[:, :, 0].sum(axis=1) > 2.5).astype(int)


def train(seed=0, callback=None, validation=None, **options):
    """A model trained for a few epochs, its history, and its weights after every epoch."""
    model, weights = SequenceClassifier(3, 8, 2, rng=seed), []

    def record(history):
        weights.append(FlatArrays(model.state_dict()).vector)
        if callback is not None:
            callback(history)

    options = {"epochs": 6, "learning_rate": 0.02, "rng": seed} | options
    history = fit(model, task(), validation or task(60, 1), callback=record, **options)
    return model, history, weights


def outcome(history):
    """The epochs without their times."""
    return [tuple(vars(epoch).items())[:-1] for epoch in history.epochs]


def test_same_seed_same_result():
    one, two, other = train(), train(), train(1)
    assert_same_bits(one[0].state_dict(), two[0].state_dict())
    assert outcome(one[1]) == outcome(two[1]) != outcome(other[1])


@pytest.mark.parametrize("seed", range(4))
def test_best_model_is_left(seed):
    validation = task(5, 1)                                  # so few that epochs tie
    model, history, weights = train(seed, validation=validation, epochs=10, learning_rate=0.1)
    accuracies = [epoch.validation_accuracy for epoch in history.epochs]
    assert accuracies.count(max(accuracies)) > 1
    best = max(range(10), key=lambda i: (accuracies[i], i))  # the latest of the best
    assert history.best is history.epochs[best]
    assert (FlatArrays(model.state_dict()).vector == weights[best]).all()
    assert evaluate(model, *validation)[1] == history.best.validation_accuracy
    assert not model.gru.training and not model.head.training


def test_validation_data_teach_nothing():
    """Other validation data choose another epoch; the course of the training is the same."""
    _, history, weights = train()
    x, labels = task(60, 1)
    _, other, other_weights = train(validation=(x[::-1] * 0.5, 1 - labels))
    assert [e.train_loss for e in history.epochs] == [e.train_loss for e in other.epochs]
    assert all((a == b).all() for a, b in zip(weights, other_weights, strict=True))


def test_the_data_are_left_alone():
    data = [*task(), *task(60, 1)]
    kept = [array.copy() for array in data]
    for array in data:
        array.setflags(write=False)
    fit(SequenceClassifier(3, 8, 2, rng=0), data[:2], data[2:], epochs=2, rng=0)
    assert all((a == b).all() for a, b in zip(data, kept, strict=True))


def test_history():
    seen = []
    _, history, _ = train(callback=lambda history: seen.append(len(history.epochs)))
    assert seen == [1, 2, 3, 4, 5, 6] == [epoch.epoch for epoch in history.epochs]
    assert not history.interrupted
    assert history.seconds == sum(epoch.seconds for epoch in history.epochs) > 0
    rates = [epoch.learning_rate for epoch in history.epochs]
    assert rates == pytest.approx([0.02, 0.02, 0.02, 0.02, 0.02 * 2 / 3, 0.02 / 3])
    for epoch in history.epochs:
        assert 0 < epoch.train_loss < 5 and 0 < epoch.validation_loss < 5
        assert 0 <= epoch.train_accuracy <= 1 and 0 <= epoch.validation_accuracy <= 1


@pytest.mark.parametrize("epochs", [1, 2, 5, 30])
def test_learning_rate_falls_to_zero_behind_the_end(epochs):
    rates = [trainer_module.rate_of_epoch(1.0, i, epochs) for i in range(1, epochs + 2)]
    assert rates[0] == 1 and rates[-1] == 0
    assert all(a >= b for a, b in pairwise(rates)) and min(rates[:-1]) > 0


@pytest.mark.parametrize("noise", [0, 0.5])
def test_an_epoch_sees_every_sequence_once(noise):
    x, labels = task()
    x = x.copy()
    x[:, 0, 0] = np.arange(120) * 100
    batches = list(
        trainer_module._batches(x, labels, 32, noise, np.random.default_rng(0))
    )
    assert [len(batch) for batch, _ in batches] == [32, 32, 32, 24]
    rows = np.concatenate([batch for batch, _ in batches])
    order = (rows[:, 0, 0] / 100).round().astype(int)
    assert sorted(order) == list(range(120)) and not (order == np.arange(120)).all()
    assert (np.concatenate([part for _, part in batches]) == labels[order]).all()
    spread = (rows - x[order]).std()
    assert spread == pytest.approx(noise, rel=0.1) and rows.dtype == np.float32


def test_ctrl_c_between_epochs():
    def interrupt(history):
        if len(history.epochs) == 4:
            raise KeyboardInterrupt

    model, history, weights = train(callback=interrupt)
    assert history.interrupted and len(history.epochs) == 4
    assert (FlatArrays(model.state_dict()).vector == weights[history.best.epoch - 1]).all()


@pytest.mark.parametrize("batches", [2, 4 + 2], ids=["first-epoch", "second-epoch"])
def test_ctrl_c_within_an_epoch(batches, monkeypatch):
    calls = []

    def clip(*args):
        calls.append(args)
        if len(calls) > batches:
            raise KeyboardInterrupt
        return clip_grad_norm(*args)

    monkeypatch.setattr(trainer_module, "clip_grad_norm", clip)
    model, history, weights = train()
    assert history.interrupted and len(history.epochs) == len(weights) == batches // 4
    found = FlatArrays(model.state_dict()).vector
    assert not (found == FlatArrays(SequenceClassifier(3, 8, 2, rng=0).state_dict()).vector).all()
    if weights:
        assert (found == weights[0]).all()
    else:
        assert history.best is None


def diverge(model, epochs_before, monkeypatch, error=None):
    """Train `model`; a batch of the epoch after `epochs_before` spoils it, then raises `error`."""
    calls, weights = [], []

    def clip(gradient, max_norm):
        calls.append(1)
        if len(calls) == 4 * epochs_before + 3 and error is not None:
            raise error
        if len(calls) == 4 * epochs_before + 2:
            gradient[:] = np.nan
        return clip_grad_norm(gradient, max_norm)

    monkeypatch.setattr(trainer_module, "clip_grad_norm", clip)
    fit(model, task(), task(60, 1), epochs=3, rng=0,
        callback=lambda history: weights.append(FlatArrays(model.state_dict()).vector))
    return weights


def test_divergence_is_reported():
    model = SequenceClassifier(3, 8, 2, rng=0)
    with pytest.raises(FloatingPointError, match="in epoch 1; try a smaller learning rate"):
        fit(model, task(), task(60, 1), epochs=6, learning_rate=1e38, rng=0)


@pytest.mark.parametrize("epochs_before", [0, 1])
def test_divergence_leaves_the_best_weights(epochs_before, monkeypatch):
    """Those that the model came with are the best before the end of the first epoch."""
    best = SequenceClassifier(3, 8, 2, rng=0)
    if epochs_before:                                      # a run of one epoch has the same first
        fit(best, task(), task(60, 1), epochs=3, rng=0, callback=stop_after_one)
    model = SequenceClassifier(3, 8, 2, rng=0)
    with pytest.raises(FloatingPointError, match=f"in epoch {epochs_before + 1};"):
        diverge(model, epochs_before, monkeypatch)
    assert_same_bits(model.state_dict(), best.state_dict())
    assert not model.gru.training and not model.head.training


def stop_after_one(history):
    raise KeyboardInterrupt


def test_ctrl_c_after_divergence_leaves_finite_weights(monkeypatch):
    model = SequenceClassifier(3, 8, 2, rng=0)
    diverge(model, 0, monkeypatch, KeyboardInterrupt())
    assert_same_bits(model.state_dict(), SequenceClassifier(3, 8, 2, rng=0).state_dict())


def test_small_features_train():
    """No noise by default: it is in the units of the data, and would drown small features."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    time = np.arange(12)
    waves = np.sin(time * np.array([[0.5], [1.0], [1.5]]) + rng.uniform(0, 6, (300, 1, 1)))
    x = (0.05 * waves[np.arange(300), labels, :, None]).astype(np.float32)
    model = SequenceClassifier(1, 16, 3, rng=0)
    history = fit(model, (x[:200], labels[:200]), (x[200:], labels[200:]), epochs=60,
                  batch_size=8, rng=0)
    assert history.best.validation_accuracy >= 0.99


@pytest.mark.parametrize("x, found", [
    ([np.zeros((5, 3), np.float32), np.zeros((2, 3), np.float32)], "list"),
    (np.zeros((2, 3), np.float32), "(2, 3)"),
], ids=["list", "2D"])
@pytest.mark.parametrize("which", ["training", "validation"])
def test_fit_takes_one_array(which, x, found):
    bad = x, np.zeros(2, int)
    data = (bad, task()) if which == "training" else (task(), bad)
    message = (f"{which} data: sequences should be one array (N, T, I), all of T steps, "
               f"got: {found}")
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(SequenceClassifier(3, 8, 2, rng=0), *data)


@pytest.mark.parametrize("rows, labels", [(0, 0), (5, 4)])
@pytest.mark.parametrize("which", ["training", "validation"])
def test_fit_refuses(which, rows, labels):
    bad = np.zeros((rows, 5, 3), np.float32), np.zeros(labels, int)
    data = (bad, task()) if which == "training" else (task(), bad)
    message = f"{which} data: {rows} sequences and {labels} labels"
    with pytest.raises(ValueError, match=message):
        fit(SequenceClassifier(3, 8, 2, rng=0), *data)
