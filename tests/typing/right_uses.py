"""Right uses of everything public: type checkers must find nothing here. Never run."""

import argparse
import os
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import gru_c
from gru_c import GRU, GRUCell, ReverseGRU, cli, reference
from gru_c.complexity import Bytes, Complexity, Operations, Parameters
from gru_c.datasets import DIGIT_PIXEL_MAX, load_digits, split_digits
from gru_c.interop import Found, convert, find, read_arrays
from gru_c.learn import (
    Adam,
    Epoch,
    FlatArrays,
    History,
    Linear,
    SequenceClassifier,
    clip_grad_norm,
    cross_entropy,
    evaluate,
    fit,
    log_softmax,
    plots,
    softmax,
)

Array = NDArray[Any]


def models() -> None:
    gru = GRU(3, 4, num_layers=2, bias=True, batch_first=True, dropout=0.0, bidirectional=False,
              dtype=np.float64, reset_after=False, rng=np.random.default_rng(0))
    GRU(np.int64(3), 4, dtype="float32", rng=0)
    GRUCell(3, 4, dtype=np.dtype(np.float64), rng=None)
    GRUCell(3, 4, dtype=gru.dtype, rng=np.random.SeedSequence(1))
    GRU(3, 4, activation="relu", recurrent_activation={"name": "hard_sigmoid", "alpha": 0.2})
    GRU(3, 4, activation={"name": "elu"}, clip=5, checkpoint=np.int64(3))
    GRUCell(3, 4, activation=gru.activation, clip=gru.clip)
    assert_type((gru.activation.name, gru.activation.alpha), tuple[str, float | None])
    assert_type(gru.input_size + gru.hidden_size + gru.num_layers, int)
    assert_type((gru.bias, gru.batch_first, gru.reset_after), tuple[bool, bool, bool])
    assert_type((gru.bidirectional, gru.dropout), tuple[bool, float])
    assert_type((gru.input_dropout, gru.recurrent_dropout), tuple[float, float])
    assert_type(gru.dtype, np.dtype[Any])
    assert_type(gru.training, bool)
    gru.training = False
    assert_type(gru.train().eval().train(False), GRU)
    assert_type(repr(gru), str)
    assert_type(gru.state_dict(), dict[str, Array])
    gru.load_state_dict(gru.state_dict())
    gru.load_state_dict({"weight_ih_l0": [[1.0, 2.0]], "bias_ih_l0": np.zeros(3)})
    assert_type(gru.weight_ih_l0, Array)
    print(gru.weight_hh_l3.T @ gru.weight_ih_l1)
    gru.weight_hh_l0 = np.zeros((12, 4))
    gru.bias_hh_l1 = [0.0] * 12
    gru.weight_ih_l1_reverse = gru.weight_ih_l1_reverse / 2
    print(gru.bias_ih_l0.shape)
    assert_type(gru.quantize("int8", x_bits=np.int64(12)).quantize("bfloat16"), GRU)
    assert_type(GRUCell(3, 4).quantize("bfloat16", x_bits=16), GRUCell)
    assert_type((gru.quantization, gru.x_bits), tuple[str | None, int | None])
    assert_type(gru.nbytes, int)


def sequences() -> None:
    gru = GRU(3, 4)
    x: NDArray[np.float32] = np.zeros((5, 2, 3), np.float32)
    output, h_n = gru(x)
    assert_type(output, Array | Any)
    assert_type(h_n, Array)
    print(output.shape)
    gru([[[1, 2, 3]]], h_0=None, lengths=None)
    gru(x, h_n, [5, 3], mask=[[True, False]] * 5, resets=np.zeros((5, 2), np.bool_),
        dropout_masks={"input_l0": np.ones((2, 3))}, return_output=False, h_n_out=h_n)
    assert_type(gru.backward(np.ones_like(output)), tuple[Array | Any, Array])
    dx, dh_0 = gru.backward(None, d_h_n=h_n, accumulate=True)
    print(dx.shape, dh_0.shape, gru.grads["weight_ih_l0"].sum())
    gru.backward(output, need_dx=False, need_grads=False)
    assert_type(gru.step(x[0], h_n, out=h_n), Array)


def files(path: Path) -> None:
    assert_type(read_arrays(path), dict[str, Array])
    found = find(os.fsencode(path), max_bytes=2**20)
    assert_type(found, list[Found])
    assert_type((found[0].name, found[0].parameters), tuple[str, dict[str, Array]])
    assert_type(convert(path, "model.onnx", "encoder.", np.float32, batch_first=True), Found)
    assert_type(convert(path, "model.npz", quantization=("int8", 12)), Found)


def exchanged(path: Path, arrays: dict[str, Array], source: object) -> None:
    assert_type(GRU.from_state_dict(arrays, "gru.", np.float32, batch_first=True), GRU)
    assert_type(GRUCell.from_state_dict(arrays, clip=5), GRUCell)
    assert_type(GRU.from_torch(path, prefix="gru.", key="model", dropout=0.5, rng=0), GRU)
    assert_type(ReverseGRU.from_torch(source, dtype="float64", max_bytes=2**20), ReverseGRU)
    assert_type(Counting.from_keras(list(arrays.values()), reset_after=False), Counting)
    assert_type(GRU.from_keras(path, "encoder/gru", np.float32, max_bytes=2**20), GRU)
    assert_type(ReverseGRU.from_keras(source, go_backwards=True), ReverseGRU)
    assert_type(GRU.from_onnx(path, node="gru", linear_before_reset=1, weights=arrays), GRU)
    assert_type(GRU.from_gates({"rzn": tuple(arrays.values())}, product="W x", reset_after=True,
                               z_times="h", concatenated="x h", activation="relu"), GRU)
    assert_type(GRU.from_flax({"cell": arrays}, path="cell", batch_first=True), GRU)
    assert_type(GRUCell.from_equinox(source, np.float64), GRUCell)
    assert_type(GRU.from_rtneural(path, layer=[0, 1], max_bytes=2**20), GRU)
    assert_type(GRU.from_rtneural({"layers": []}, "gru."), GRU)

    gru = GRU(3, 4)
    assert_type(gru.to_keras(), list[Any])
    gru.to_torch(module=True)
    gru.to_torch(path=path)
    gru.to_onnx(path, opset=17, h_0=True, lengths=True)
    gru.to_rtneural(os.fsencode(path))
    print(gru.to_flax(), gru.to_equinox())


def in_reverse() -> GRU:
    gru = ReverseGRU(3, 4, num_layers=2, batch_first=True, rng=0)
    assert_type(gru.train().eval(), ReverseGRU)
    assert_type(gru(np.zeros((2, 5, 3), np.float32), lengths=[5, 3]), tuple[Array | Any, Array])
    assert_type(gru.weight_ih_l1, Array)
    return gru


def cells() -> None:
    cell = GRUCell(3, 4, bias=True, rng=0)
    h = cell(np.zeros((2, 3), np.float32))
    assert_type(cell.forward([1.0, 2.0, 3.0], h, out=h), Array)
    assert_type(cell.backward(h), tuple[Array, Array])
    assert_type(cell.Wrx, Array)
    cell.Wrx = cell.Wrx - 0.1 * cell.dWrx
    cell.bnh = cell.bnh - 0.1 * cell.dbnh
    cell.weight_hh, cell.bias_ih = np.zeros((12, 4)), [0.0] * 12
    cell.Wzh = 1 - cell.Wzh
    for saved in (cell.x, cell.hidden, cell.r, cell.z, cell.n):
        assert_type(saved, Array)
    eye = np.eye(4)
    cell.init_weights(eye, eye, eye, eye, eye, eye)
    cell.init_weights(Wrx=eye, Wzx=eye, Wnx=eye, Wrh=eye, Wzh=eye, Wnh=[[1.0]], brx=[1], bnh=None)


class Counting(GRU):
    """A subclass with an attribute and a forward of its own."""

    calls: int = 0

    def forward(self, x: Any, *args: Any, **options: Any) -> tuple[Array | Any, Array]:
        self.calls += 1
        return super().forward(x, *args, **options)


def settings() -> None:
    gru_c.set_num_threads(gru_c.get_num_threads())
    assert_type(gru_c.get_num_threads(), int)
    gru_c.show_config()
    assert_type(gru_c.__version__, str)
    assert_type(cli.main(["info"]) + cli.main(), int)
    assert_type(cli.build_parser(), argparse.ArgumentParser)


def costs() -> None:
    cost = gru_c.complexity(80, 256, 4, seq_len=np.int32(9), bias=False, num_layers=2,
                            reset_after=False, dtype=np.float64)
    assert_type(cost, Complexity)
    gru_c.complexity(80, 256, 2, 9, bidirectional=True, lengths=[9, np.int64(3)], dropout=0.5,
                     input_dropout=0, recurrent_dropout=0.2, activation="relu", clip=3,
                     recurrent_activation={"name": "hard_sigmoid", "alpha": 0.2}, checkpoint=4)
    gru_c.complexity(80, 256, 2, 9, lengths=np.array([9, 3]), clip=None, checkpoint=None)
    assert_type((cost.operations, cost.executed), tuple[Operations, Operations])
    assert_type((cost.parameters, cost.bytes), tuple[Parameters, Bytes])
    assert_type(cost.operations.reset + cost.bytes.saved + cost.parameters.total, int)
    assert_type(cost.as_dict(), dict[str, Any])
    assert_type(cost.operations.as_dict(), dict[str, int])


def ragged(arrays: list[NDArray[np.float32]]) -> None:
    padded, lengths = gru_c.pad_sequences(arrays, batch_first=True)
    assert_type(padded, Array)
    assert_type(lengths, NDArray[np.intp])
    assert_type(gru_c.unpad_sequences(padded, lengths, batch_first=True), list[Array])
    gru_c.pad_sequences(([[1.0, 2.0]] * steps for steps in (3, 5)), dtype=np.float32)
    gru_c.unpad_sequences(padded, [3, 5])


def plain_numpy() -> None:
    x, h, w, u, b = (np.zeros((2, 2)) for _ in range(5))
    output, tape = reference.forward(x, h, w, u, b, b, reset_after=False)
    assert_type(output, Array)
    dx, dh, grads = reference.backward(tape, output, h, w, u)
    print(dx, dh, grads["bias_ih"], reference.sigmoid(x))


def training(path: Path) -> None:
    images, labels = load_digits()
    assert_type(images, NDArray[np.float32])
    assert_type(labels, NDArray[np.int64])
    train, test = split_digits()
    model = SequenceClassifier(8, 64, 10, num_layers=1, dtype=np.float32, rng=0)
    history = fit(model, (images[train] / DIGIT_PIXEL_MAX, labels[train]),
                  (images[test], labels[test]), epochs=2, batch_size=32, learning_rate=1e-3,
                  clip=1, noise=0.15, rng=0, callback=lambda history: print(history.best))
    assert_type(history, History)
    assert_type(history.epochs, list[Epoch])
    if history.best is not None:
        assert_type(history.best.validation_accuracy + history.seconds, float)
    assert_type(evaluate(model, images, labels), tuple[float, float])
    model.save(path, {"note": "text"})
    model.save("model.safetensors")
    again = SequenceClassifier.load(path)
    assert_type(again, SequenceClassifier)
    assert_type(again.quantize("int8"), SequenceClassifier)
    assert_type(again.metadata, dict[str, str])
    assert_type(again.predict(images), NDArray[np.int64])
    probabilities = again.eval().predict_proba(images, batch_size=10)
    assert_type(probabilities, Array)
    plots.save_figure(plots.training_curves(history), path)
    plots.confusion_matrix(labels, probabilities.argmax(axis=1), classes=10)
    plots.digit_gallery(images, labels, probabilities)


def saved(path: Path) -> None:
    gru = gru_c.ReverseGRU(2, 3)
    gru.metadata = {"note": "text"}
    gru.save(path, {"epoch": "3"})
    gru.save(b"model.npz")
    assert_type(gru_c.GRU.load(path), gru_c.GRU)
    assert_type(gru_c.GRUCell.load("model.npz", max_bytes=10**6).metadata, dict[str, str])
    assert_type(SequenceClassifier.load(b"model.npz", max_bytes=10**6), SequenceClassifier)


def streams(gru: gru_c.GRU, x: NDArray[np.float32]) -> None:
    stream = gru.stream(batch_size=2)
    assert_type(stream, gru_c.Stream)
    assert_type(stream.step(x[0], out=x[0]), Array)
    assert_type(stream.run(x), Array)
    assert_type(stream.state, Array)
    stream.reset(rows=[0])


def in_other_languages(gru: gru_c.GRU, cell: gru_c.GRUCell) -> None:
    assert_type(gru_c.get_include(), str)
    handle, api = gru.eval().handle(), gru_c.ctypes_api()
    assert_type(handle.address + cell.handle().hidden_size, int)
    assert_type(api.address("gru_step_f32") + api.table, int)
    assert_type(api.cdef, str)
    print(api.gru_model_free(handle), api.GRU_OK, api.Options(num_layers=2))


def by_hand(x: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    model = SequenceClassifier(8, 16, 10).train()
    flat, gradients = FlatArrays(model.state_dict()), FlatArrays(model.state_dict())
    adam = Adam(flat.vector, learning_rate=1e-3, betas=(0.9, 0.999), eps=1e-8)
    loss, dlogits = cross_entropy(model(x), labels)
    assert_type(loss, float)
    assert_type(model.backward(dlogits), Array)
    gradients.gather(model.grads)
    assert_type(clip_grad_norm(gradients.vector, 1.0), float)
    adam.learning_rate /= 2
    adam.step(gradients.vector)
    model.load_state_dict(flat.views)
    head = Linear(16, 10, np.float32, rng=0)
    assert_type(head.train()(x), Array)
    print(head.weight + head.grads["weight"])
    print(log_softmax(x), softmax(x), model.gru.weight_ih_l0, model.head.bias, head.backward(x))
