"""Against PyTorch itself, where it is installed: many sizes, and what both refuse.

Cells, calls without a batch or a state, and batch_first: test_known_answers.py, with stored values.
"""

import numpy as np
import pytest
from helpers import draw, error, run

import gru_c

torch = pytest.importorskip("torch")


def torch_run(module, x, h_0, d_output, d_h_n):
    """Results of a torch.nn.GRU, by the names that `run` gives."""
    x, h_0 = torch.tensor(x, requires_grad=True), torch.tensor(h_0, requires_grad=True)
    output, h_n = module(x, h_0)
    torch.autograd.backward([output, h_n], [torch.tensor(d_output), torch.tensor(d_h_n)])
    results = {"output": output.detach(), "h_n": h_n.detach(), "dx": x.grad, "dh_0": h_0.grad}
    results |= {name: parameter.grad for name, parameter in module.named_parameters()}
    return {name: value.numpy() for name, value in results.items()}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("sizes", [
    # I, H, layers, N, T
    (1, 1, 1, 1, 1),
    (1, 3, 2, 2, 2),
    (5, 17, 3, 3, 7),
    (64, 65, 1, 33, 2),
    (100, 64, 2, 49, 3),
    (17, 257, 1, 3, 20),
    (257, 5, 2, 1, 100),
], ids=str)
def test_gru(sizes, bias):
    I, H, layers, N, T = sizes  # noqa: E741
    torch.manual_seed(0)
    theirs = torch.nn.GRU(I, H, layers, bias=bias, dtype=torch.float64)
    ours = gru_c.GRU(I, H, layers, bias=bias, dtype=np.float64)
    ours.load_state_dict({name: p.detach().numpy() for name, p in theirs.named_parameters()})
    call = draw(ours, T, N)
    found = run(ours, **call)
    for name, value in torch_run(theirs, **call).items():
        assert error(found[name], value) <= 1e-12, name
    output, h_n = ours.eval()(call["x"], call["h_0"])
    assert error(output, found["output"]) == error(h_n, found["h_n"]) == 0


@pytest.mark.parametrize(("kind", "shapes", "words"), [
    ("GRUCell", [(2, 5)], "input has inconsistent input_size: got 5 expected 3"),
    ("GRUCell", [(1, 2, 3)], "GRUCell: Expected input to be 1D or 2D, got 3D instead"),
    ("GRUCell", [(3,), (1, 1, 4)], None),
    ("GRUCell", [(2, 3), (4,)], None),
    ("GRUCell", [(2, 3), (2, 5)], "has inconsistent hidden_size: got 5, expected 4"),
    ("GRUCell", [(2, 3), (1, 4)], "Input batch size 2 doesn't match hidden"),
    ("GRU", [(3,)], "GRU: Expected input to be 2D or 3D, got 1D instead"),
    ("GRU", [(0, 2, 3)], "Expected sequence length to be larger than 0 in RNN"),
    ("GRU", [(5, 2, 4)], None),
    ("GRU", [(5, 3), (1, 1, 4)], None),
    ("GRU", [(5, 2, 3), (1, 4)], None),
    ("GRU", [(5, 2, 3), (1, 1, 4)], r"^Expected \w+ size \(1, 2, 4\), got"),
], ids=str)
def test_both_refuse(kind, shapes, words):
    """In the same words where some stand here. Neither broadcasts the state over the batch."""
    arrays = [np.zeros(shape, np.float32) for shape in shapes]
    with pytest.raises((RuntimeError, ValueError), match=words):
        getattr(torch.nn, kind)(3, 4)(*map(torch.from_numpy, arrays))
    with pytest.raises(ValueError, match=words):
        getattr(gru_c, kind)(3, 4)(*arrays)
