"""Against ONNX's reference evaluator and ONNX Runtime, where they are installed: forward alone.

A GRU node is one layer, in one direction or two; the reverse direction alone is a ReverseGRU. The
evaluator computes in float64, but ignores activations, clip and sequence_lens; ONNX Runtime has
them, in float32 alone. Stored values for other environments: test_known_answers.py.
"""

import numpy as np
import pytest
from family import ACTIVATIONS, case, title
from helpers import F32, error, tolerance

onnx = pytest.importorskip("onnx")

DIRECTIONS = {"forward": ["l0"], "reverse": ["l0_reverse"], "bidirectional": ["l0", "l0_reverse"]}


# ---- a case in ONNX -----------------------------------------------------------------------------

def by_evaluator(case, direction):
    reference = pytest.importorskip("onnx.reference")
    inputs = inputs_of(case, direction)
    evaluator = reference.ReferenceEvaluator(model_of(case, direction, inputs))
    return results(*evaluator.run(None, inputs))


def by_runtime(case, direction):
    runtime = pytest.importorskip("onnxruntime")
    inputs = {name: value.astype(F32) if value.dtype == np.float64 else value
              for name, value in inputs_of(case, direction).items()}
    model = model_of(case, direction, inputs)
    return results(*runtime.InferenceSession(model.SerializeToString()).run(None, inputs))


def results(Y, Y_h):
    T, _, N, _ = Y.shape
    return {"output": Y.transpose(0, 2, 1, 3).reshape(T, N, -1), "h_n": Y_h}


def inputs_of(case, direction):
    """Of a GRU node. Its gates are stacked z, r, h, its biases one after the other."""
    def stacked(key):
        blocks = [np.split(case.parameters[f"{key}_{name}"], 3) for name in names(case, direction)]
        return np.stack([np.concatenate([z, r, n]) for r, z, n in blocks])

    arrays = case.complete()
    inputs = {"X": arrays["x"], "W": stacked("weight_ih"), "R": stacked("weight_hh"),
              "initial_h": arrays["h_0"][columns(case, direction)]}
    if case.model["bias"]:
        inputs["B"] = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
    if "lengths" in case.call:
        inputs["sequence_lens"] = case.call["lengths"].astype(np.int32)
    return inputs


def names(case, direction):
    """Those of the parameters of one or both directions of a case."""
    return ["l0"] if case.model.get("reverse") else DIRECTIONS[direction]


def columns(case, direction):
    """Where the directions stand among those of a case."""
    if case.model.get("reverse"):
        return slice(0, 1)
    return {"forward": slice(0, 1), "reverse": slice(1, 2), "bidirectional": slice(0, 2)}[direction]


def model_of(case, direction, inputs):
    slots = ("X", "W", "R", "B", "sequence_lens", "initial_h")
    types = {name: onnx.helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in inputs.items()}
    node = onnx.helper.make_node(
        "GRU", [slot if slot in inputs else "" for slot in slots], ["Y", "Y_h"],
        direction=direction, **attributes_of(case, direction))
    graph = onnx.helper.make_graph(
        [node], "gru",
        [onnx.helper.make_tensor_value_info(name, types[name], a.shape)
         for name, a in inputs.items()],
        [onnx.helper.make_tensor_value_info(name, types["X"], None) for name in ("Y", "Y_h")])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)],
                                  ir_version=10)


def attributes_of(case, direction):
    """f and g of each direction, and the alphas and betas of those that have any, in that order."""
    model = case.model
    attributes = {"hidden_size": model["hidden_size"],
                  "linear_before_reset": int(model["reset_after"])}
    if model.get("clip"):
        attributes["clip"] = model["clip"]
    if "activation" in model or "recurrent_activation" in model:
        functions = [in_onnx(model.get("recurrent_activation", "sigmoid")),
                     in_onnx(model.get("activation", "tanh"))] * len(DIRECTIONS[direction])
        attributes["activations"] = [name for name, *_ in functions]
        for key, value in zip(("activation_alpha", "activation_beta"), (1, 2), strict=True):
            attributes[key] = [f[value] for f in functions if f[value] is not None]
    return {name: value for name, value in attributes.items() if value != []}


def in_onnx(activation):
    """Name, alpha and beta, as far as it has them."""
    options = {"name": activation} if isinstance(activation, str) else activation
    name, alpha, beta = IN_ONNX[options["name"]]
    return name, options.get("alpha", alpha), options.get("beta", beta)


IN_ONNX = {                                                # with our alpha and beta
    "sigmoid": ("Sigmoid", None, None),
    "tanh": ("Tanh", None, None),
    "relu": ("Relu", None, None),
    "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
    "affine": ("Affine", 1.0, 0.0),
    "leaky_relu": ("LeakyRelu", 0.01, None),
    "thresholded_relu": ("ThresholdedRelu", 1.0, None),
    "scaled_tanh": ("ScaledTanh", 1.0, 1.0),
    "elu": ("Elu", 1.0, None),
    "softsign": ("Softsign", None, None),
    "softplus": ("Softplus", None, None),
    "linear": ("Affine", 1.0, 0.0),
}


# ---- tests --------------------------------------------------------------------------------------

def compared(results_of, case, direction, theirs, allowed):
    """Output and h_n of some directions agree."""
    wanted, H = theirs(case, direction), case.model["hidden_size"]
    found = results_of(case)
    chosen = columns(case, direction)
    output = found["output"][:, :, chosen.start * H:chosen.stop * H]
    assert error(output, wanted["output"]) <= allowed
    assert error(found["h_n"][chosen], wanted["h_n"]) <= allowed


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("absent", [(), ("h_0",)], ids=["state", "no state"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
def test_evaluator(direction, absent, bias, reset_after, results_of):
    drawn = case(5, 3, (4, 6), bias=bias, bidirectional=True, reset_after=reset_after,
                 absent=absent)
    compared(results_of, drawn, direction, by_evaluator, 1e-12)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("lengths", [None, [5, 1, 3, 5], [2, 5, 5, 1]], ids=str)
def test_runtime(direction, lengths, reset_after, results_of):
    drawn = case(5, 4, (4, 6), bidirectional=True, reset_after=reset_after)
    if lengths:
        drawn = drawn.but(lengths=np.array(lengths))
    compared(results_of, drawn, direction, by_runtime, tolerance(F32, 10, 5))


@pytest.mark.parametrize("lengths", [None, [5, 1, 3, 5]], ids=str)
def test_reverse_alone(lengths, reset_after, results_of):
    drawn = case(5, 4, (4, 6), reverse=True, reset_after=reset_after)
    if lengths:
        drawn = drawn.but(lengths=np.array(lengths))
    else:
        compared(results_of, drawn, "reverse", by_evaluator, 1e-12)
    compared(results_of, drawn, "reverse", by_runtime, tolerance(F32, 10, 5))


def test_a_row_of_no_steps(reset_after, results_of):
    """Its h_n is h_0; ONNX Runtime has zeros there, and nothing else in which it differs."""
    drawn = case(5, 4, (4, 6), bidirectional=True, reset_after=reset_after)
    drawn = drawn.but(lengths=np.array([3, 0, 5, 1]))
    wanted, found = by_runtime(drawn, "bidirectional"), results_of(drawn)
    assert not wanted["h_n"][:, 1].any()
    wanted["h_n"][:, 1] = drawn.call["h_0"][:, 1]
    for name, value in wanted.items():
        assert error(found[name], value) <= tolerance(F32, 10, 5)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=title)
def test_activations(activation, reset_after, results_of):
    """In either role, with clip and without."""
    for role in ("activation", "recurrent_activation"):
        for clip in (None, 0.4):
            drawn = case(4, 3, (4, 5), bidirectional=True, reset_after=reset_after, scale=0.5,
                         **{role: activation}, clip=clip)
            compared(results_of, drawn, "bidirectional", by_runtime, tolerance(F32, 9, 4))
