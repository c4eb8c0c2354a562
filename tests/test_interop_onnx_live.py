"""ONNX files beside ONNX Runtime, and of PyTorch's exporters, where they are installed.

tools/make_interop_onnx.py stores some of these files for environments without them.
"""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from family import ACTIVATIONS, case, title
from helpers import F32, error, normal
from test_docs import EXAMPLE
from test_onnx import DIRECTIONS, attributes_of, inputs_of

import gru_c

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


HERE = Path(__file__).resolve().parent
runtime.set_default_logger_severity(4)                     # errors come as exceptions, too


def session(path):
    return runtime.InferenceSession(str(path))


def by_runtime(path, x, **others):
    """Results of ONNX Runtime for the inputs of a file, in their order."""
    inputs = [found.name for found in session(path).get_inputs()]
    arrays = [x, *others.values()]
    assert len(inputs) == len(arrays)
    return session(path).run(None, dict(zip(inputs, arrays, strict=True)))


# ---- PyTorch's exporters -----------------------------------------------------------------------

def module(torch, states=False, **options):
    """A model that gives output and h_n of a GRU, from x and, if asked for, h_0."""
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = torch.nn.GRU(3, 4, **options)

        def forward(self, x, *h_0):
            return self.gru(x, *h_0)

    torch.manual_seed(0)
    return Model().eval()


def export(torch, model, arrays, path, **options):
    """A file by torch.onnx.export, without what it says of this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, tuple(map(torch.tensor, arrays)), str(path), verbose=False,
                          **options)


EXPORTERS = {
    "TorchScript": {"dynamo": False},
    "TorchScript, constants not folded": {"dynamo": False, "do_constant_folding": False},
    "TorchScript, opset 9": {"dynamo": False, "opset_version": 9},
    "dynamo": {"dynamo": True},
    "dynamo, not optimised": {"dynamo": True, "optimize": False},
    "dynamo, one file": {"dynamo": True, "external_data": False},
}


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(("options", "states"), [
    ({}, False), ({"bias": False}, True), ({"num_layers": 3, "batch_first": True}, False),
    ({"bidirectional": True}, False),
    ({"num_layers": 2, "bidirectional": True, "batch_first": True}, True),
    ({"num_layers": 2, "bidirectional": True}, False)], ids=str)
def test_what_pytorch_exports(exporter, options, states, tmp_path):
    """Equal to PyTorch, and to ONNX Runtime with the file."""
    torch = pytest.importorskip("torch")
    model, path = module(torch, **options), tmp_path / "model.onnx"
    D = 1 + options.get("bidirectional", False)
    arrays = {"x": normal(5, 2, 3), "h_0": normal(D * options.get("num_layers", 1), 5, 4)}
    if not options.get("batch_first"):
        arrays["h_0"] = arrays["h_0"][:, :2].copy()
    if not states:
        del arrays["h_0"]
    export(torch, model, arrays.values(), path, **EXPORTERS[exporter])
    gru = gru_c.GRU.from_onnx(path, batch_first=options.get("batch_first", False))
    assert gru.num_layers == options.get("num_layers", 1)
    with torch.no_grad():
        theirs = model(*map(torch.tensor, arrays.values()))
    for a, b, c in zip(gru(*arrays.values()), theirs,
                       by_runtime(path, **arrays), strict=True):
        assert error(a, b.numpy()) < 1e-6 and error(a, c) < 1e-6
    for name, parameter in model.gru.named_parameters():
        assert (getattr(gru, name) == parameter.detach().numpy()).all()


def test_packed_sequences(tmp_path):
    """Their lengths are sequence_lens, an input of the graph."""
    torch = pytest.importorskip("torch")
    rnn = torch.nn.utils.rnn

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = torch.nn.GRU(3, 4, num_layers=2, bidirectional=True)

        def forward(self, x, lengths):
            packed, h_n = self.gru(rnn.pack_padded_sequence(x, lengths))
            return rnn.pad_packed_sequence(packed)[0], h_n

    torch.manual_seed(0)
    model, x, lengths = Model().eval(), normal(5, 3, 3), np.array([5, 4, 2])
    export(torch, model, (x, lengths), tmp_path / "model.onnx", dynamo=False)
    gru = gru_c.GRU.from_onnx(tmp_path / "model.onnx")
    with torch.no_grad():
        theirs = model(torch.tensor(x), torch.tensor(lengths))
    assert gru.num_layers == 2
    for a, b in zip(gru(x, lengths=lengths), theirs, strict=True):
        assert error(a, b.numpy()) < 1e-6


@pytest.mark.parametrize("dynamo", [False, True])
def test_cells_of_pytorch_have_no_gru_node(dynamo, tmp_path):
    torch = pytest.importorskip("torch")
    export(torch, torch.nn.GRUCell(3, 4), (normal(2, 3), normal(2, 4)), tmp_path / "cell.onnx",
           dynamo=dynamo)
    with pytest.raises(gru_c.interop.ModelFileError, match=r"no GRU node.*onnxscript 0\.7\.1"):
        gru_c.GRU.from_onnx(tmp_path / "cell.onnx")


# ---- ONNX Runtime: files that are read -----------------------------------------------------------

def file_of(case, direction, path, **more):
    """A GRU node with the weights of a case, and the other inputs of the graph."""
    inputs = {name: a.astype(F32) if a.dtype == np.float64 else a
              for name, a in inputs_of(case, direction).items()}
    weights = [onnx.numpy_helper.from_array(inputs.pop(name), name) for name in ("W", "R", "B")
               if name in inputs]
    names = {tensor.name for tensor in weights} | inputs.keys()
    attributes = attributes_of(case, direction) | {"direction": direction} | more
    node = onnx.helper.make_node(
        "GRU", [name if name in names else ""
                for name in ("X", "W", "R", "B", "sequence_lens", "initial_h")], ["Y", "Y_h"],
        **{name: value for name, value in attributes.items() if value is not None})
    types = {name: onnx.helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in inputs.items()}
    graph = onnx.helper.make_graph(
        [node], "gru", [onnx.helper.make_tensor_value_info(name, types[name], a.shape)
                        for name, a in inputs.items()],
        [onnx.helper.make_tensor_value_info(name, types["X"], None) for name in ("Y", "Y_h")],
        weights)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)],
                                     ir_version=10), path)
    return inputs


def compared(path, inputs):
    gru = gru_c.GRU.from_onnx(path)
    Y, Y_h = session(path).run(None, inputs)
    output, h_n = gru(inputs["X"], inputs["initial_h"], lengths=inputs.get("sequence_lens"))
    assert error(output, Y.transpose(0, 2, 1, 3).reshape(output.shape)) < 1e-6
    return h_n, Y_h


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("lengths", [None, [5, 1, 3, 0]], ids=str)
def test_files(direction, bias, lengths, reset_after, tmp_path):
    """Four rows: linear_before_reset without B was wrong in ONNX Runtime from three rows on."""
    drawn = case(5, 4, (4, 6), bidirectional=True, reset_after=reset_after, bias=bias)
    if lengths:
        drawn = drawn.but(lengths=np.array(lengths))
    inputs = file_of(drawn, direction, tmp_path / "gru.onnx")
    h_n, Y_h = compared(tmp_path / "gru.onnx", inputs)
    if lengths:                                            # a row of no steps
        assert not Y_h[:, 3].any() and (h_n[:, 3] == inputs["initial_h"][:, 3]).all()
    assert error(h_n[:, :3], Y_h[:, :3]) < 1e-6


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=title)
def test_activations_of_files(activation, reset_after, tmp_path):
    drawn = case(4, 3, (4, 5), bidirectional=True, reset_after=reset_after, clip=0.7,
                 activation=activation, recurrent_activation="hard_sigmoid", scale=0.5)
    inputs = file_of(drawn, "bidirectional", tmp_path / "gru.onnx")
    h_n, Y_h = compared(tmp_path / "gru.onnx", inputs)
    assert error(h_n, Y_h) < 1e-6


@pytest.mark.parametrize("activation", ["leaky_relu", "elu", "hard_sigmoid", "tanh"])
def test_defaults_of_alpha_and_beta(activation, tmp_path):
    """Of the other activations ONNX Runtime has zeros, unlike the operators of these names."""
    drawn = case(4, 3, (4, 5), bidirectional=True, activation=activation,
                 recurrent_activation="hard_sigmoid", scale=0.5)
    inputs = file_of(drawn, "bidirectional", tmp_path / "gru.onnx", activation_alpha=None,
                     activation_beta=None)
    h_n, Y_h = compared(tmp_path / "gru.onnx", inputs)
    assert error(h_n, Y_h) < 1e-6


# ---- ONNX Runtime: files that are written --------------------------------------------------------

@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("opset", [7, 14, 22])
def test_files_that_we_write(layers, bidirectional, batch_first, bias, opset, reset_after,
                             tmp_path):
    gru = gru_c.GRU(3, 5, layers, bias, batch_first, bidirectional=bidirectional,
                    reset_after=reset_after, rng=0)
    gru.eval()
    gru.to_onnx(tmp_path / "gru.onnx", opset)
    x = normal(6, 4, 3)
    for ours, theirs in zip(gru(x), by_runtime(tmp_path / "gru.onnx", x), strict=True):
        assert error(ours, theirs) < 1e-5
    gru.to_onnx(tmp_path / "more.onnx", opset, h_0=True, lengths=True)
    T, N = x.shape[1::-1] if batch_first else x.shape[:2]
    h_0, lengths = normal(layers * (1 + bidirectional), N, 5), np.arange(1, N + 1) % T + 1
    found = by_runtime(tmp_path / "more.onnx", x, h_0=h_0, lengths=lengths.astype(np.int32))
    for ours, theirs in zip(gru(x, h_0, lengths=lengths), found, strict=True):
        assert error(ours, theirs) < 1e-5


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=title)
@pytest.mark.parametrize("role", ["activation", "recurrent_activation"])
def test_activations_that_we_write(activation, role, reset_after, tmp_path):
    gru = gru_c.ReverseGRU(3, 5, reset_after=reset_after, clip=0.8, rng=0, **{role: activation})
    gru.to_onnx(tmp_path / "gru.onnx")
    x = normal(6, 4, 3)
    for ours, theirs in zip(gru(x), by_runtime(tmp_path / "gru.onnx", x), strict=True):
        assert error(ours, theirs) < 1e-5


# ---- what the documents say ----------------------------------------------------------------------

PAGE = HERE.parent / "docs" / "interop" / "onnx.md"


@pytest.mark.parametrize("code", [match["code"] for match in EXAMPLE.finditer(PAGE.read_text())
                                  if match["skip"]], ids=range(3))
def test_examples_that_need_a_framework(code, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    shutil.copy(HERE / "fixtures" / "interop" / "onnx" / "dynamo_0_7_0.onnx", "model.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                    # of the exporter
        exec(compile(code, str(PAGE), "exec"), {"__name__": "__main__"})


def test_runtime_has_no_float64(tmp_path):
    gru_c.GRU(3, 4, dtype=np.float64).to_onnx(tmp_path / "gru.onnx")
    with pytest.raises(Exception, match="does not support double"):
        by_runtime(tmp_path / "gru.onnx", normal(5, 2, 3, dtype=np.float64))


def test_runtime_has_no_layout_1(tmp_path):
    file_of(case(5, 4, (4, 6)), "forward", tmp_path / "gru.onnx", layout=1)
    with pytest.raises(Exception, match="layout"):
        session(tmp_path / "gru.onnx")
