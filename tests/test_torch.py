"""Against PyTorch, where it is installed: the package and reference.py, and what both refuse.

Cells, calls without a batch or a state: test_known_answers.py, with stored values.
"""

import numpy as np
import pytest
from family import build, by_package, by_reference, case, cases, run_case
from helpers import assert_results, error
from hypothesis import given, settings
from hypothesis import strategies as st

import gru_c
from gru_c import reference

torch = pytest.importorskip("torch")


def by_torch(case, batch_first=False):
    """Results of torch.nn.GRU: of all layers at once, or one by one where multipliers stand between
    them. Lengths go through pack_padded_sequence."""
    masks = case.call.get("dropout_masks", {})
    parts = [[i] for i in range(case.layers)] if masks else [range(case.layers)]
    arrays = case.complete()
    x, h_0 = (torch.tensor(arrays[name], requires_grad=True) for name in ("x", "h_0"))
    output, states, gradients = x, [], {}
    for part, h in zip(parts, h_0.split(case.directions * len(parts[0])), strict=True):
        module = module_of(case, part, output.shape[2], batch_first)
        output, h_n = layers_of(module, output, h, case.call.get("lengths"))
        gradients |= {renamed(name, part[0]): p for name, p in module.named_parameters()}
        states.append(h_n)
        if f"output_l{part[0]}" in masks:
            output = output * torch.tensor(masks[f"output_l{part[0]}"])
    h_n = torch.cat(states)
    torch.autograd.backward([output, h_n], [torch.tensor(arrays[name])
                                            for name in ("d_output", "d_h_n")])
    results = {"output": output.detach(), "h_n": h_n.detach(), "dx": x.grad, "dh_0": h_0.grad}
    results |= {name: gradients[name].grad for name in case.parameters}
    return {name: value.numpy() for name, value in results.items()}


def renamed(name, first):
    """The parameter's name in a model where layer `first` is the module's layer 0."""
    head, _, tail = name.rpartition("_l")
    return f"{head}_l{first + int(tail[0])}{tail[1:]}"


def module_of(case, part, width, batch_first):
    """A torch.nn.GRU of some layers."""
    model = case.model
    module = torch.nn.GRU(width, model["hidden_size"], len(part), model["bias"], batch_first,
                          bidirectional=model["bidirectional"], dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.tensor(case.parameters[renamed(name, part[0])]))
    return module


def layers_of(module, x, h_0, lengths):
    """Output and h_n, time-major."""
    swap = (lambda a: a.swapaxes(0, 1)) if module.batch_first else (lambda a: a)
    if lengths is None:
        output, h_n = module(swap(x), h_0)
    else:
        rnn = torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(swap(x), torch.tensor(lengths), module.batch_first,
                                          enforce_sorted=False)
        packed, h_n = module(packed, h_0)
        output, _ = rnn.pad_packed_sequence(packed, module.batch_first, total_length=len(x))
    return swap(output), h_n


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
def test_sizes(sizes, bias):
    I, H, layers, N, T = sizes  # noqa: E741
    drawn = case(T, N, (I, H), layers=layers, bias=bias)
    gru = build(drawn)
    found = run_case(gru, drawn)
    assert_results(found, by_torch(drawn))
    output, h_n = gru.eval()(drawn.call["x"], drawn.call["h_0"])
    assert error(output, found["output"]) == error(h_n, found["h_n"]) == 0


# PyTorch refuses a row of no steps.
drawn_cases = cases(ragged=("lengths",), dropout=("output",), activation=False,
                    reset_after=st.just(True)).map(lambda case: case.but(
                        lengths=np.maximum(case.call["lengths"], 1))
                        if "lengths" in case.call else case)
drawing = settings(deadline=None, derandomize=True, database=None, max_examples=60)


@drawing
@given(drawn_cases)
def test_reference(case):
    assert_results(by_reference(case), by_torch(case))


@drawing
@given(drawn_cases, st.booleans())
def test_package(case, batch_first):
    assert_results(by_package(case, batch_first=batch_first), by_torch(case, batch_first))


functional = torch.nn.functional


@pytest.mark.parametrize(("activation", "theirs"), [
    ("sigmoid", torch.sigmoid),
    ("tanh", torch.tanh),
    ("relu", torch.relu),
    ("hard_sigmoid", functional.hardsigmoid),
    ("leaky_relu", functional.leaky_relu),
    ({"name": "leaky_relu", "alpha": 0.3}, lambda a: functional.leaky_relu(a, 0.3)),
    ("thresholded_relu", lambda a: functional.threshold(a, 1.0, 0.0)),
    ("elu", functional.elu),
    ({"name": "elu", "alpha": 0.5}, lambda a: functional.elu(a, 0.5)),
    ("softsign", functional.softsign),
    ("softplus", lambda a: functional.softplus(a, threshold=100)),   # 20 cuts digits
])
def test_activations(activation, theirs):
    """Of the reference, also at the kinks, and held between -2 and 2. The slope of PyTorch's
    hardsigmoid is 1/6 in float32."""
    for clip in (None, 2.0):
        a = torch.linspace(-4, 4, 65, dtype=torch.float64, requires_grad=True)
        y = theirs(a if clip is None else a.clamp(-clip, clip))
        y.sum().backward()
        found, slope = reference.gate(a.detach().numpy(), activation, clip)
        assert error(found, y.detach()) <= 1e-15
        assert error(slope, a.grad) <= (5e-8 if activation == "hard_sigmoid" else 1e-15)


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
