"""Write tests/fixtures/*.npz: what PyTorch, Keras, ONNX and ONNX Runtime compute.

    python tools/make_fixtures.py [OUTPUT_FOLDER]

Needs torch, tensorflow, onnx, onnxruntime and what the tests need, whose cases and calls of Keras
and ONNX Runtime are used here. Every array is named CASE/GROUP/NAME. The groups of torch.npz are
`model` (the parameters by their PyTorch names, and flags), `call` (what goes in) and `results`
(what comes out, the gradients of the parameters by their names); those of onnx.npz, by ONNX's
reference evaluator, are `inputs`, `outputs` and `attributes` of one GRU node. keras.npz and
onnxruntime.npz have cases of tests/family.py: `model`, `parameters`, `call`, `dropout_masks`,
`results`. tests/test_known_answers.py reads all.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))
from family import case  # noqa: E402
from test_keras import by_keras  # noqa: E402
from test_onnx import by_runtime  # noqa: E402


def rounded(array):
    """To multiples of 2^-8, which compress, and which float32 holds exactly."""
    return np.round(np.asarray(array) * 256) / 256


def torch_results(module, call, gradients):
    """Forward and backward of a GRU or GRUCell: results by name."""
    arrays = {name: torch.tensor(value, requires_grad=True) for name, value in call.items()}
    found = module(*arrays.values())
    outputs = found if isinstance(found, tuple) else (found,)
    torch.autograd.backward(outputs, [torch.tensor(d) for d in gradients])
    names = ("output", "h_n") if len(outputs) == 2 else ("h",)
    results = dict(zip(names, (output.detach() for output in outputs), strict=True))
    results |= {f"d{name}": array.grad for name, array in arrays.items()}
    results |= {name: parameter.grad for name, parameter in module.named_parameters()}
    return {name: value.numpy() for name, value in results.items()}


def torch_case(module, rng, x_shape, with_state=True):
    """The arrays of one case; the state and the gradients get the shapes that x implies."""
    call = {"x": rounded(rng.standard_normal(x_shape))}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.tensor(rounded(parameter)))
        found = module(torch.tensor(call["x"]))
    shapes = [tuple(a.shape) for a in (found if isinstance(found, tuple) else (found,))]
    if with_state:
        call["h_0"] = rounded(rng.standard_normal(shapes[-1]))
    gradients = [rounded(rng.standard_normal(shape)) for shape in shapes]
    model = {name: value.detach().numpy() for name, value in module.named_parameters()}
    if isinstance(module, torch.nn.GRU):
        model["batch_first"] = np.array(module.batch_first)
    names = ("d_output", "d_h_n")[-len(gradients):]        # a cell returns the state alone
    groups = {
        "model": model,
        "call": call | dict(zip(names, gradients, strict=True)),
        "results": torch_results(module, call, gradients),
    }
    return {f"{group}/{name}": value for group, arrays in groups.items()
            for name, value in arrays.items()}


def torch_cases():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    gru, cell = torch.nn.GRU, torch.nn.GRUCell
    float64 = torch.float64
    return {
        "one layer": torch_case(gru(3, 9, dtype=float64), rng, (2, 3, 3)),
        "two layers": torch_case(gru(3, 5, 2, dtype=float64), rng, (4, 3, 3)),
        "two layers, no bias": torch_case(gru(3, 5, 2, bias=False, dtype=float64), rng, (3, 3, 3)),
        "batch first": torch_case(gru(3, 5, batch_first=True, dtype=float64), rng, (2, 4, 3)),
        "unbatched": torch_case(gru(3, 5, 2, dtype=float64), rng, (4, 3)),
        "no state": torch_case(gru(3, 5, 2, dtype=float64), rng, (3, 2, 3), with_state=False),
        "cell": torch_case(cell(3, 5, dtype=float64), rng, (3, 3)),
        "cell, no bias": torch_case(cell(3, 5, bias=False, dtype=float64), rng, (3, 3)),
        "cell, unbatched": torch_case(cell(3, 5, dtype=float64), rng, (3,)),
        "cell, no state": torch_case(cell(3, 5, dtype=float64), rng, (3, 3), with_state=False),
    }


def onnx_case(inputs, linear_before_reset):
    """One GRU node through ONNX's reference evaluator; inputs are X W R B initial_h by name."""
    slots = ("X", "W", "R", "B", "", "initial_h")          # the fifth is sequence_lens
    attributes = {"hidden_size": inputs["R"].shape[-1], "linear_before_reset": linear_before_reset}
    node = onnx.helper.make_node(
        "GRU", [slot if slot in inputs else "" for slot in slots], ["Y", "Y_h"], **attributes)
    double = onnx.TensorProto.DOUBLE
    graph = onnx.helper.make_graph(
        [node], "gru",
        [onnx.helper.make_tensor_value_info(name, double, a.shape) for name, a in inputs.items()],
        [onnx.helper.make_tensor_value_info(name, double, None) for name in ("Y", "Y_h")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)])
    outputs = zip(("Y", "Y_h"), ReferenceEvaluator(model).run(None, inputs), strict=True)
    return {
        **{f"inputs/{name}": value for name, value in inputs.items()},
        **{f"outputs/{name}": value for name, value in outputs},
        **{f"attributes/{name}": np.array(value) for name, value in attributes.items()},
    }


def onnx_cases():
    rng = np.random.default_rng(0)
    T, N, I, H = 3, 3, 4, 5  # noqa: E741
    shapes = {"X": (T, N, I), "W": (1, 3 * H, I), "R": (1, 3 * H, H), "B": (1, 6 * H),
              "initial_h": (1, N, H)}
    random = {name: rounded(rng.uniform(-1, 1, shape)) for name, shape in shapes.items()}
    weights = {name: random[name] for name in "XWR"}
    # The inputs of ONNX's own backend tests test_gru_defaults and test_gru_with_initial_bias.
    defaults = {"X": np.arange(1.0, 7).reshape(1, 3, 2), "W": np.full((1, 15, 2), 0.1),
                "R": np.full((1, 15, 5), 0.1)}
    initial_bias = {"X": np.arange(1.0, 10).reshape(1, 3, 3), "W": np.full((1, 9, 3), 0.1),
                    "R": np.full((1, 9, 3), 0.1), "B": np.repeat([[0.1, 0.0]], 9, axis=1)}
    cases = {"test_gru_defaults": onnx_case(defaults, 0),
             "test_gru_with_initial_bias": onnx_case(initial_bias, 0)}
    for linear_before_reset in (0, 1):
        name = f"linear_before_reset={linear_before_reset}"
        cases[name] = onnx_case(random, linear_before_reset)
        cases[f"{name}, no bias, no state"] = onnx_case(weights, linear_before_reset)
    return cases


def stored(case, results):
    """A case of family.py and its results. Its numbers are those of float32."""
    call = dict(case.call)
    groups = {"model": {"options": np.array(json.dumps(case.model))},
              "parameters": case.parameters, "dropout_masks": call.pop("dropout_masks", {}),
              "call": call}
    arrays = {f"{group}/{name}": value.astype(np.float32) if value.dtype == np.float64 else value
              for group, found in groups.items() for name, value in found.items()}
    return arrays | {f"results/{name}": value for name, value in results.items()}


def keras_cases():
    cases = {}
    for reset_after in (True, False):
        drawn = {
            "masks": case(5, 3, (2, 3), layers=2, bidirectional=True, ragged=("mask",),
                          reset_after=reset_after),
            "dropout": case(4, 2, (4, 5), dropout=("input", "recurrent"), reset_after=reset_after),
            "activations": case(
                4, 2, (3, 4), bidirectional=True, activation="relu", reset_after=reset_after,
                recurrent_activation={"name": "hard_sigmoid", "alpha": 0.2}),
        }
        cases |= {f"{name}, reset_after={reset_after}": stored(found, by_keras(found))
                  for name, found in drawn.items()}
    return cases


def onnxruntime_cases():
    cases = {}
    for reset_after in (True, False):
        options = {"bidirectional": True, "reset_after": reset_after}
        drawn = {
            "lengths": case(5, 4, (3, 4), **options).but(lengths=np.array([2, 5, 1, 4])),
            "clip": case(4, 2, (3, 4), clip=0.4, **options),
            "activations": case(
                4, 2, (3, 4), activation={"name": "scaled_tanh", "alpha": 1.2, "beta": 0.7},
                recurrent_activation={"name": "hard_sigmoid", "alpha": 0.3, "beta": 0.4},
                **options),
        }
        cases |= {f"{name}, reset_after={reset_after}": stored(
            found, by_runtime(found, "bidirectional")) for name, found in drawn.items()}
    return cases


def write(path, cases):
    arrays = {f"{case}/{name}": value for case, found in cases.items()
              for name, value in found.items()}
    np.savez_compressed(path, **arrays)
    print(f"{path}: {len(cases)} cases, {path.stat().st_size:,} bytes")


def main(arguments):
    if len(arguments) > 1:
        raise SystemExit(__doc__)
    folder = Path(arguments[0]) if arguments else TESTS / "fixtures"
    write(folder / "torch.npz", torch_cases())
    write(folder / "onnx.npz", onnx_cases())
    write(folder / "keras.npz", keras_cases())
    write(folder / "onnxruntime.npz", onnxruntime_cases())


if __name__ == "__main__":
    main(sys.argv[1:])
