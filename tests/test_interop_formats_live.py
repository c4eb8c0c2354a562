"""Files of PyTorch, converted for ONNX Runtime and Keras, give there what they gave in PyTorch."""

import os

import numpy as np
import pytest

import gru_c
from gru_c.interop import convert

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def module(torch, tmp_path):
    """A module in a file, an input, and its output and h_n."""
    def module(**options):
        torch.manual_seed(0)
        gru = torch.nn.GRU(5, 7, batch_first=True, **options)
        path = tmp_path / "model.pt"
        torch.save(gru.state_dict(), path)
        x = np.random.default_rng(0).standard_normal((3, 6, 5), np.float32)
        with torch.no_grad():
            output, h_n = gru(torch.tensor(x))
        return path, x, output.numpy(), h_n.numpy()
    return module


def test_in_onnx_runtime(module, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    path, x, output, h_n = module(num_layers=2, bidirectional=True)
    convert(path, tmp_path / "model.onnx", batch_first=True)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    found = session.run(None, {session.get_inputs()[0].name: x})
    assert np.abs(found[0] - output).max() < 1e-5
    assert np.abs(found[1] - h_n).max() < 1e-5


def test_in_keras(module, tmp_path):
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    path, x, output, _ = module()
    convert(path, tmp_path / "model.keras", batch_first=True)
    layer = keras.saving.load_model(tmp_path / "model.keras")
    found = np.asarray(layer(x))
    assert np.abs(found - (output if found.ndim == 3 else output[:, -1])).max() < 1e-6


def test_back_in_pytorch(torch, module, tmp_path):
    """Through files of our own, with all bits."""
    path, x, output, _ = module(num_layers=2, bias=False)
    convert(path, tmp_path / "model.npz", batch_first=True)
    assert np.abs(gru_c.GRU.load(tmp_path / "model.npz")(x)[0] - output).max() < 1e-6
    convert(tmp_path / "model.npz", tmp_path / "again.pt")
    wanted, found = (torch.load(tmp_path / name) for name in ("model.pt", "again.pt"))
    assert list(wanted) == list(found)
    assert all(torch.equal(found[name], a) for name, a in wanted.items())
