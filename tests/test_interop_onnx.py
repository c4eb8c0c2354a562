"""GRU nodes of ONNX, read and written: with the onnx package alone.

Beside ONNX Runtime and PyTorch's exporters: test_interop_onnx_live.py. tools/make_interop_onnx.py
makes the files of fixtures/interop/onnx.
"""

import os
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from family import build, case
from helpers import F32, F64, error, normal
from test_onnx import DIRECTIONS, by_evaluator, inputs_of, model_of

import gru_c
from gru_c.interop import ModelFileError
from gru_c.interop import onnx as interop
from gru_c.interop.onnx import graph as graphs

onnx = pytest.importorskip("onnx")
helper = onnx.helper

FIXTURES = Path(__file__).parent / "fixtures" / "interop" / "onnx"
MAX_BYTES = 2**20
GATES = ("W", "R", "B")


# ---- models ------------------------------------------------------------------------------------

def tensor(a, name=""):
    return onnx.numpy_helper.from_array(np.asarray(a), name)


def weights(D=1, I=3, H=4, end="", dtype=F32, seed=0):  # noqa: E741
    """W, R and B of a node."""
    shapes = {"W": (D, 3 * H, I), "R": (D, 3 * H, H), "B": (D, 6 * H)}
    return {name + end: normal(*shape, seed=seed).astype(dtype) for name, shape in shapes.items()}


def gru_node(x="X", end="", outputs=("Y", "Y_h"), name="gru", more=(), **attributes):
    return helper.make_node("GRU", [x, *(key + end for key in GATES), *more],
                            [output + end for output in outputs], name=name + end, **attributes)


def model_with(nodes, arrays, inputs=("X",), outputs=("Y_h",), opset=14, **more):
    """A model of nodes with arrays, or tensors, as initialisers."""
    values = [[helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]
              for names in (inputs, outputs)]
    tensors = [a if isinstance(a, onnx.TensorProto) else tensor(a, name)
               for name, a in arrays.items()]
    graph = helper.make_graph(nodes, "graph", *values, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **more)


def one_node(arrays=None, **attributes):
    return model_with([gru_node(**attributes)], arrays or weights(
        2 if attributes.get("direction") == "bidirectional" else 1))


def from_onnx(source, *arguments, **options):
    return gru_c.GRU.from_onnx(source, *arguments, **options)


def refused(source, match, **options):
    with pytest.raises(ModelFileError, match=match) as caught:
        from_onnx(source, **options)
    return str(caught.value)


def in_zrh(a):
    r, z, n = np.split(a, 3)
    return np.concatenate([z, r, n])


def holds(gru, arrays, layer=0, end="", dtype=F32):
    """Whether the parameters of a layer are the weights of a node, bit for bit."""
    H = gru.hidden_size
    for d, direction in enumerate(("", "_reverse")[:len(arrays["W" + end])]):
        for name, a in (("weight_ih", arrays["W" + end][d]), ("weight_hh", arrays["R" + end][d]),
                        ("bias_ih", arrays["B" + end][d, :3 * H]),
                        ("bias_hh", arrays["B" + end][d, 3 * H:])):
            found = in_zrh(getattr(gru, f"{name}_l{layer}{direction}"))
            if not (found == a.astype(dtype)).all():
                return False
    return True


# ---- results -----------------------------------------------------------------------------------

def backend_tests():
    """ONNX's own. `collect_testcases` would make those of all operators, for many seconds."""
    from onnx.backend.test.case import node
    from onnx.backend.test.case.node import gru  # noqa: F401

    return [pytest.param(found, id=found.name) for found in node._NodeTestCases
            if found.model.graph.node[0].op_type == "GRU"]


def test_backend_tests_are_there():
    names = {found.id for found in backend_tests()}
    assert names >= {"test_gru_defaults", "test_gru_with_initial_bias", "test_gru_seq_length",
                     "test_gru_batchwise"}


@pytest.mark.parametrize("found", backend_tests())
def test_backend(found):
    node = found.model.graph.node[0]
    layout = next((a.i for a in node.attribute if a.name == "layout"), 0)
    for arrays, results in found.data_sets:
        given = dict(zip([value.name for value in found.model.graph.input], arrays, strict=True))
        x = given.pop("X")
        gru = from_onnx(found.model, weights=given)
        assert gru.batch_first == layout
        output, h_n = gru(x)
        ours = {"Y": output.reshape(*x.shape[:2], len(h_n), -1), "Y_h": h_n}
        if layout:
            ours["Y_h"] = h_n.swapaxes(0, 1)
        else:
            ours["Y"] = ours["Y"].swapaxes(1, 2)
        for name, theirs in zip(filter(None, node.output), results, strict=True):
            assert error(ours[name], theirs) < 1e-6


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_evaluator(direction, bias, reset_after):
    """In float64. Four rows: linear_before_reset without B went wrong elsewhere from three on."""
    drawn = case(5, 4, (4, 6), bias=bias, bidirectional=True, reset_after=reset_after)
    inputs = inputs_of(drawn, direction)
    given = {name: a for name, a in inputs.items() if name in GATES}
    gru = from_onnx(model_of(drawn, direction, inputs), weights=given)
    assert (gru.dtype, gru.bias, gru.reset_after) == (F64, bias, reset_after)
    wanted = by_evaluator(drawn, direction)
    output, h_n = gru(inputs["X"], inputs["initial_h"])
    assert error(output, wanted["output"]) < 1e-12 and error(h_n, wanted["h_n"]) < 1e-12
    assert type(gru) is (gru_c.ReverseGRU if direction == "reverse" else gru_c.GRU)


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_no_bias_and_no_state(rows):
    """linear_before_reset=1 without B: elsewhere wrong from three rows on."""
    from onnx.reference import ReferenceEvaluator

    arrays = weights()
    node = helper.make_node("GRU", ["X", "W", "R"], ["", "Y_h"], hidden_size=4,
                            linear_before_reset=1)
    model, x = model_with([node], {name: arrays[name] for name in "WR"}), normal(5, rows, 3)
    wanted, = ReferenceEvaluator(model).run(None, {"X": x})
    assert error(from_onnx(model)(x)[1], wanted) < 1e-6


def test_reverse_with_lengths(reset_after):
    """Each row begins at its own last step: as the reverse one of two directions."""
    drawn = case(5, 4, (4, 6), bidirectional=True, reset_after=reset_after)
    drawn = drawn.but(lengths=np.array([5, 1, 0, 3]))
    inputs = inputs_of(drawn, "reverse")
    gru = from_onnx(model_of(drawn, "reverse", inputs),
                    weights={name: inputs[name] for name in GATES})
    output, h_n = gru(inputs["X"], inputs["initial_h"], lengths=inputs["sequence_lens"])
    both, states = build(drawn)(drawn.call["x"], drawn.call["h_0"], lengths=drawn.call["lengths"])
    assert (output == both[:, :, 6:]).all() and (h_n == states[1:]).all()
    assert not output[3:, 3].any() and (h_n[0, 2] == inputs["initial_h"][0, 2]).all()


def stored():
    with np.load(FIXTURES / "results.npz") as file:
        arrays = dict(file)
    names = dict.fromkeys(name.partition("/")[0] for name in arrays)
    return {key: {name.partition("/")[2]: a for name, a in arrays.items()
                  if name.startswith(f"{key}/")} for key in names}


@pytest.mark.parametrize("name", stored())
@pytest.mark.filterwarnings("ignore:.*linear_before_reset is 0")
def test_files_of_exporters(name):
    """ONNX Runtime's results. A row of no steps has zeros there, and its h_0 here."""
    results = stored()[name]
    gru = from_onnx(FIXTURES / f"{name}.onnx", None, 1 if name == "dynamo_0_7_0" else None)
    lengths = results.get("inputs/lengths")
    output, h_n = gru(results["inputs/x"], results.get("inputs/h_0"), lengths=lengths)
    if lengths is not None:
        h_n[:, lengths == 0] = 0
    assert error(output, results["output"]) < 1e-6 and error(h_n, results["h_n"]) < 1e-6


def test_files_of_tf2onnx():
    """Two Bidirectional layers of Keras, with Keras's results; another layer is a Loop."""
    gru = from_onnx(FIXTURES / "tf2onnx.onnx", batch_first=True)
    assert gru.num_layers == 2 and gru.bidirectional and gru.bias_ih_l1.any()
    with np.load(FIXTURES / "tf2onnx.npz") as results:
        assert error(gru(results["x"])[0], results["output"]) < 1e-6
    refused(FIXTURES / "tf2onnx_loop.onnx", "no GRU node.*as a Loop.*from_keras")


def test_layout_1():
    """Input and output have the batch first; states have it second, unlike initial_h."""
    arrays = weights()
    first, second = (from_onnx(one_node(arrays, layout=layout)) for layout in (0, 1))
    assert (first.batch_first, second.batch_first) == (False, True)
    x = normal(5, 2, 3)
    assert (first(x)[0] == second(x.swapaxes(0, 1))[0].swapaxes(0, 1)).all()
    assert from_onnx(one_node(layout=1), batch_first=False).batch_first is False


# ---- attributes --------------------------------------------------------------------------------

@pytest.mark.parametrize("opset", [1, 3, 7, 14, 22])
def test_opsets(opset):
    arrays, more = weights(), {"output_sequence": 1} if opset < 7 else {}
    gru = from_onnx(model_with([gru_node(hidden_size=4, **more)], arrays, opset=opset))
    assert holds(gru, arrays) and not gru.reset_after and gru.activation.name == "tanh"


def test_linear_before_reset():
    for told in (0, 1, 2):
        assert from_onnx(one_node(linear_before_reset=told)).reset_after == bool(told)
        for given in (0, 1, True):
            gru = from_onnx(one_node(linear_before_reset=told), linear_before_reset=given)
            assert gru.reset_after == given
    with pytest.raises(ValueError, match="linear_before_reset must be None, 0 or 1, got 2"):
        from_onnx(one_node(), linear_before_reset=2)


@pytest.mark.parametrize(("attributes", "recurrent", "new"), [
    ({}, "sigmoid", "tanh"),
    ({"activations": ["SIGMOID", "relu"]}, "sigmoid", "relu"),
    ({"activations": ["HardSigmoid", "ScaledTanh"]},
     {"name": "hard_sigmoid", "alpha": 0.2, "beta": 0.5}, "scaled_tanh"),
    ({"activations": ["LeakyRelu", "ThresholdedRelu"]}, "leaky_relu", "thresholded_relu"),
    ({"activations": ["Elu", "Affine"]}, "elu", "affine"),
    ({"activations": ["Softsign", "Softplus"]}, "softsign", "softplus"),
    # Values go to those that take one, in order.
    ({"activations": ["Sigmoid", "LeakyRelu"], "activation_alpha": [0.3]},
     "sigmoid", {"name": "leaky_relu", "alpha": 0.3}),
    ({"activations": ["Elu", "ScaledTanh"], "activation_alpha": [0.3, 0.4],
      "activation_beta": [0.6]},
     {"name": "elu", "alpha": 0.3}, {"name": "scaled_tanh", "alpha": 0.4, "beta": 0.6}),
    ({"activations": ["HardSigmoid", "Elu"], "activation_alpha": [0.3, 1.0]},
     {"name": "hard_sigmoid", "alpha": 0.3, "beta": 0.5}, "elu"),
], ids=str)
def test_activations(attributes, recurrent, new):
    wanted = gru_c.GRU(3, 4, activation=new, recurrent_activation=recurrent)
    for direction, times in (("forward", 1), ("bidirectional", 2)):
        repeated = {name: list(value) * times for name, value in attributes.items()}
        gru = from_onnx(one_node(direction=direction, **repeated))
        assert gru.activation == wanted.activation
        assert gru.recurrent_activation == wanted.recurrent_activation


@pytest.mark.parametrize(("attributes", "match"), [
    ({"direction": "backward"}, "direction is 'backward', expected forward"),
    ({"layout": 2}, "layout is 2"),
    ({"hidden_size": 5}, r"hidden_size 5, and R of shape \(1, 12, 4\)"),
    ({"clip": 0.0}, "clip is 0.0"),
    ({"clip": float("nan")}, "clip is nan"),
    ({"activations": ["Gelu", "Tanh"]}, "unknown activation 'Gelu'"),
    ({"activations": ["Tanh"]}, "activations are 'Tanh', expected 2"),
    ({"activations": ["Sigmoid", "Tanh"], "activation_alpha": [0.1]},
     "activation_alpha has 1 values more than the activations 'Sigmoid', 'Tanh' take"),
    ({"activations": ["Sigmoid", "Tanh", "Sigmoid", "Relu"], "direction": "bidirectional"},
     r"directions have activations of their own.*'tanh'.*'relu'"),
    ({"activations": ["HardSigmoid", "Tanh"] * 2, "direction": "bidirectional",
      "activation_alpha": [0.1, 0.3]}, "directions have activations of their own"),
    ({"peepholes": 1}, "unknown attribute 'peepholes'"),
    ({"clip": 3}, "attribute clip is not of the type"),
], ids=str)
def test_attributes_that_a_gru_does_not_have(attributes, match):
    message = refused(one_node(**attributes), match)
    assert "node 'gru'" in message


def test_clip_is_the_number_that_was_meant():
    assert from_onnx(one_node(clip=0.2)).clip == 0.2


# ---- weights -----------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float16, F32, F64])
@pytest.mark.parametrize("raw", [True, False], ids=["bytes", "numbers"])
def test_dtypes(dtype, raw):
    arrays = weights(dtype=dtype)
    if not raw:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        stored = {name: helper.make_tensor(name, kind, a.shape, a.ravel())
                  for name, a in arrays.items()}
        assert not stored["W"].raw_data
    gru = from_onnx(one_node(arrays if raw else stored))
    assert gru.dtype == (F64 if dtype is F64 else F32) and holds(gru, arrays, dtype=gru.dtype)


@pytest.mark.parametrize("raw", [True, False], ids=["bytes", "numbers"])
def test_bfloat16(raw):
    arrays = {name: (a.view(np.uint32) & 0xFFFF0000).view(F32) for name, a in weights().items()}
    stored = {}
    for name, a in arrays.items():
        bits = (a.view(np.uint32) >> 16).astype("<u2")
        stored[name] = onnx.TensorProto(name=name, data_type=16, dims=a.shape)
        if raw:
            stored[name].raw_data = bits.tobytes()
        else:
            stored[name].int32_data.extend(bits.ravel().tolist())
    assert holds(from_onnx(one_node(stored)), arrays)


def test_no_bias():
    arrays = weights()
    for inputs in (["X", "W", "R"], ["X", "W", "R", ""], ["X", "W", "R", "", "lengths"]):
        node = helper.make_node("GRU", inputs, ["", "Y_h"])
        gru = from_onnx(model_with([node], {name: arrays[name] for name in "WR"},
                                   ["X", "lengths"]))
        assert not gru.bias and (in_zrh(gru.weight_hh_l0) == arrays["R"][0]).all()


def test_weights_that_are_inputs():
    arrays = weights()
    model = model_with([gru_node()], {"B": arrays["B"]}, ["X", "W", "R"])
    given = {name: arrays[name] for name in "WR"}
    assert holds(from_onnx(model, weights=given), arrays)
    swapped = {name: a.astype(a.dtype.newbyteorder()) for name, a in given.items()}
    assert holds(from_onnx(model, weights=swapped), arrays)
    assert "weights={'W': array}" in refused(model, "its W, 'W', is an input of the graph")
    with pytest.raises(ValueError, match=r"weights has 'Z'.*inputs of the graph are 'X', 'W', 'R'"):
        from_onnx(model, weights=given | {"Z": np.zeros(3)})
    with pytest.raises(TypeError, match="weights must be a mapping, got list"):
        from_onnx(model, weights=[1])
    # The oldest files list initialisers as inputs, too: these are defaults.
    old = model_with([gru_node()], arrays, ["X", *GATES])
    assert holds(from_onnx(old), arrays)
    assert holds(from_onnx(old, weights={"R": 2 * arrays["R"]}), arrays | {"R": 2 * arrays["R"]})


def constant(name, **value):
    return helper.make_node("Constant", [], [name], name=f"constant_{name}", **value)


def test_constants():
    arrays = weights(1, 1, 1)
    flat = [float(number) for number in arrays["B"].ravel()]
    nodes = [constant("W", value=tensor(arrays["W"])), constant("R", value=tensor(arrays["R"])),
             constant("flat", value_floats=flat), constant("axis", value_int=0),
             constant("rows", value_ints=[1, 6]),
             helper.make_node("Reshape", ["flat", "rows"], ["B"]), gru_node()]
    gru = from_onnx(model_with(nodes, {}))
    assert holds(gru, arrays)
    nodes[0] = constant("W", value_string="three")
    refused(model_with(nodes, {}), "its W, 'W', is the Constant 'constant_W' with 'value_string'")


def test_constants_that_are_put_together():
    """As exporters leave weights that they do not fold."""
    arrays, H = weights(2), 4
    model = model_with([
        helper.make_node("Transpose", ["W_t"], ["W_i"], perm=[0, 2, 1]),
        helper.make_node("Cast", ["W_i"], ["W_c"], to=1),
        helper.make_node("Reshape", ["W_c", "kept"], ["W"]),
        helper.make_node("Slice", ["R_long", "from", "to", "axis"], ["R_2"]),
        helper.make_node("Squeeze", ["R_2", "axis"], ["R_1"]),
        helper.make_node("Unsqueeze", ["R_1", "axis"], ["R_0"]),
        helper.make_node("Identity", ["R_0"], ["R_i"]),
        helper.make_node("Concat", ["R_i", "R_last"], ["R"], axis=0),
        helper.make_node("Shape", ["B_flat"], ["size"]),
        helper.make_node("Mul", ["size", "half"], ["size_2"]),
        helper.make_node("Reshape", ["B_flat", "both"], ["B"]),
        gru_node(direction="bidirectional")], {
        "W_t": arrays["W"].swapaxes(1, 2).astype(F64),
        "R_long": np.concatenate([normal(1, 3 * H, H), arrays["R"][:1], normal(3, 3 * H, H)]),
        "from": np.array([1]), "to": np.array([-3]), "axis": np.array([0]),
        "R_last": arrays["R"][1:], "B_flat": arrays["B"].ravel(), "half": np.array([1]),
        "both": np.array([2, -1]), "kept": np.array([0, -1, 3])})
    gru = from_onnx(model)
    assert holds(gru, arrays)


def test_a_size_of_an_input():
    """Known before the model runs if the graph fixes it."""
    arrays = weights()
    nodes = [helper.make_node("Shape", ["h_0"], ["size"], start=2),
             helper.make_node("Concat", ["start", "size"], ["shape"], axis=0),
             helper.make_node("Reshape", ["R_flat", "shape"], ["R"]), gru_node()]
    model = model_with(nodes, {"W": arrays["W"], "B": arrays["B"], "R_flat": arrays["R"].ravel(),
                               "start": np.array([1, -1])}, ["X", "h_0"])
    for size, known in ((4, True), ("hidden", False)):
        model.graph.input[1].CopyFrom(helper.make_tensor_value_info("h_0", 1, (1, "batch", size)))
        if known:
            assert holds(from_onnx(model), arrays)
        else:
            refused(model, "its R, 'R', is a size of the input 'h_0'")


def test_weights_that_are_computed():
    arrays = weights()
    matmul = helper.make_node("MatMul", ["A", "W_0"], ["W"], name="product")
    arrays["W_0"] = arrays.pop("W")
    refused(model_with([matmul, gru_node()], arrays | {"A": arrays["R"]}),
            "its W, 'W', is computed by the MatMul node 'product'")
    refused(model_with([gru_node()], arrays), "nothing gives 'W'")
    loop = [helper.make_node("Identity", ["V"], ["W"]), helper.make_node("Identity", ["W"], ["V"])]
    refused(model_with([*loop, gru_node()], arrays), "too many steps")


def test_a_sparse_initialiser_is_named():
    model = one_node({name: a for name, a in weights().items() if name != "W"})
    model.graph.sparse_initializer.add().values.name = "W"
    refused(model, "its W, 'W', is a sparse initialiser")


@pytest.mark.parametrize(("name", "shape", "match"), [
    ("W", (1, 12), r"W has shape \(1, 12\), expected \(1, 3 \* hidden_size, input_size\)"),
    ("W", (2, 12, 3), r"W has shape \(2, 12, 3\), expected \(1, "),
    ("W", (1, 12, 0), r"W has shape \(1, 12, 0\)"),
    ("R", (1, 16, 4), r"W has shape|R has shape \(1, 16, 4\)"),
    ("R", (1, 12, 5), "has shape"),
    ("R", (), r"R has shape \(\)|W has shape"),
    ("B", (1, 12), r"B has shape \(1, 12\), expected \(1, 6 \* hidden_size\), with hidden_size 4"),
], ids=str)
def test_shapes(name, shape, match):
    refused(one_node(weights() | {name: np.zeros(shape, F32)}), match)


def test_integers_are_no_weights():
    refused(one_node(weights() | {"B": np.zeros((1, 24), np.int32)}),
            "its B, 'B', has dtype int32, expected a floating dtype")


# ---- sizes and files -----------------------------------------------------------------------------

def test_declared_bytes_are_held_against_max_bytes(tmp_path):
    model = one_node()
    size = sum(a.nbytes for a in weights().values())
    onnx.save(model, tmp_path / "gru.onnx")
    for source in (model, tmp_path / "gru.onnx"):
        assert from_onnx(source, max_bytes=size).hidden_size == 4
        refused(source, f"take {size:,} bytes, more than max_bytes={size - 1:,}; raise max_bytes",
                max_bytes=size - 1)
    model.graph.initializer.add(name="huge", data_type=1, dims=[2**40, 2**20])
    refused(model, "take .* bytes, more than max_bytes")
    refused(model, "many more than max_bytes|take", max_bytes=0)


@pytest.mark.parametrize(("change", "match"), [
    ({"dims": [1, 12, 4]}, r"'W' has 144 bytes, expected 192 for dims \[1, 12, 4\]"),
    ({"dims": [-1, -12, 3]}, r"'W' has dims \[-1, -12, 3\]"),
    ({"dims": [1] * 100}, "'W' has dims"),
    ({"data_type": 8}, "'W' has the ONNX type 8"),
    ({"data_type": 17}, "'W' has the ONNX type 17"),
    ({"data_type": 0}, "'W' has the ONNX type 0"),
    ({"segment": onnx.TensorProto.Segment(begin=0, end=1)}, "'W' is a segment"),
], ids=str)
def test_tensors_that_do_not_hold_together(change, match):
    damaged = tensor(weights()["W"], "W")
    for key, value in change.items():
        damaged.ClearField(key)
        if key == "segment":
            damaged.segment.CopyFrom(value)
        elif key == "dims":
            damaged.dims.extend(value)
        else:
            setattr(damaged, key, value)
    refused(one_node(weights() | {"W": damaged}), match)


def test_numbers_that_are_too_few():
    few = helper.make_tensor("W", 1, (1, 12, 3), weights()["W"].ravel())
    del few.float_data[5:]
    refused(one_node(weights() | {"W": few}), "'W' has 5 values, expected 36")


def external(tmp_path, **entries):
    """A file with W in a file beside it, and what it says of that."""
    arrays = weights()
    (tmp_path / "w.bin").write_bytes(bytes(16) + arrays["W"].tobytes())
    outside = onnx.TensorProto(name="W", data_type=1, dims=arrays["W"].shape, data_location=1)
    for key, value in ({"location": "w.bin", "offset": "16", "length": "144"} | entries).items():
        if value is not None:
            outside.external_data.add(key=key, value=value)
    onnx.save(one_node(arrays | {"W": outside}), tmp_path / "gru.onnx")
    return tmp_path / "gru.onnx"


def test_external_data(tmp_path, monkeypatch):
    path = external(tmp_path)
    assert holds(from_onnx(path), weights())
    assert holds(from_onnx(os.fsencode(path)), weights())
    assert holds(from_onnx(external(tmp_path, length=None)), weights())
    monkeypatch.chdir(tmp_path)
    assert holds(from_onnx("gru.onnx"), weights())
    refused(onnx.load(path, load_external_data=False), "give the path of the model")
    assert holds(from_onnx(onnx.load(path)), weights())


@pytest.mark.parametrize(("entries", "match"), [
    ({"location": "../w.bin"}, "not in the folder of the model"),
    ({"location": "a/../../w.bin"}, "not in the folder of the model"),
    ({"location": "..\\w.bin"}, "not in the folder of the model"),
    ({"location": "/etc/passwd"}, "not in the folder of the model"),
    ({"location": ""}, "not in the folder of the model"),
    ({"location": None}, "not in the folder of the model"),
    ({"location": "other.bin"}, "which is not there"),
    ({"location": "."}, "not a regular file"),
    ({"location": "link"}, "a link out of the folder"),
    ({"location": "pipe"}, "not a regular file"),
    ({"offset": "17"}, "from 17 to 161, but that has 160 bytes"),
    ({"offset": "-1"}, "no numbers"),
    ({"offset": "9" * 5000}, "no numbers"),
    ({"length": "143"}, "with 143 bytes, expected 144"),
], ids=lambda value: str(value)[:30])
def test_external_data_that_is_not_there(entries, match, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = external(folder, **entries)
    (tmp_path / "w.bin").write_bytes(bytes(160))
    (folder / "link").symlink_to(tmp_path / "w.bin")
    os.mkfifo(folder / "pipe")
    assert str(path) in refused(path, match)


def test_constants_that_are_copied_over_and_over():
    """Thirty doublings make no memory of a billion times the tensors, nor do two of 40 times."""
    arrays = weights()
    for times, count, match in ((2, 30, "copied|too many steps"), (40, 2, "copied over and over")):
        nodes = [helper.make_node("Concat", [f"a{i}"] * times, [f"a{i + 1}"], axis=0)
                 for i in range(count)]
        nodes += [helper.make_node("Identity", [f"a{count}"], ["W"]), gru_node()]
        refused(model_with(nodes, {"a0": normal(1, 120, 30), "R": arrays["R"], "B": arrays["B"]}),
                match)
    expand = [helper.make_node("Expand", ["one", "shape"], ["W"]), gru_node()]
    refused(model_with(expand, {"one": np.ones(1, F32), "shape": np.array([1, 12, 10**9]),
                                "R": arrays["R"], "B": arrays["B"]}), "larger than all tensors")


def test_no_model(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("ir_version: 8, no protobuf at all")
    for name in ("empty", "text"):
        assert str(tmp_path / name) in refused(tmp_path / name, "not an ONNX model")
    with pytest.raises(FileNotFoundError):
        from_onnx(tmp_path / "nothing")
    with pytest.raises(TypeError, match=r"a path or an onnx\.ModelProto, got int"):
        from_onnx(3)


def test_a_large_file_is_not_read(tmp_path):
    with open(tmp_path / "gru.onnx", "wb") as file:
        file.truncate(2**30)                               # a hole
    refused(tmp_path / "gru.onnx", "it has 1073741824 bytes or more, many more than max_bytes",
            max_bytes=1000)


def test_damage(tmp_path):
    """Whatever a byte becomes, and wherever the file ends: a model, or an error of ours."""
    data = (FIXTURES / "torchscript.onnx").read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / "damaged.onnx"
    read = 0
    for i in range(300):
        changed = bytearray(data)
        if i % 3:
            changed[rng.integers(len(data))] = rng.integers(256)
        else:
            del changed[rng.integers(len(data)):]
        path.write_bytes(changed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for action in (from_onnx, lambda path: interop.find(path, MAX_BYTES),
                           lambda path: interop.read_arrays(path, MAX_BYTES)):
                try:
                    action(path)
                    read += 1
                except ModelFileError as error:
                    assert str(error).startswith(str(path))
    assert 0 < read < 900


# ---- several nodes -----------------------------------------------------------------------------

def stacked(*between, D=1, above=None, **attributes):
    """Two GRU nodes, and the nodes between Y_0 and X_1."""
    direction = {"direction": "bidirectional"} if D == 2 else {}
    arrays = weights(D, 3, 4, "_0") | weights(D, 4 * D, 4, "_1", seed=1)
    nodes = [gru_node("X", "_0", **direction, **attributes), *between,
             gru_node("X_1", "_1", **direction, **(above or attributes))]
    shapes = {"axis": np.array([1]), "last": np.array([-3]), "shape": np.array([0, 0, -1]),
              "wrong": np.array([0, -1, 4 * D]), "rows in steps": np.array([-1, 1, 4]),
              "steps in rows": np.array([1, -1, 4])}
    return model_with(nodes, arrays | shapes, outputs=["Y_h_1"]), arrays


def between(*ops):
    """Nodes in a row from Y_0 to X_1."""
    names = ["Y_0", *(f"between_{i}" for i in range(1, len(ops))), "X_1"]
    return [helper.make_node(op, [names[i], *more], [names[i + 1]], **attributes)
            for i, (op, more, attributes) in enumerate(ops)]


SQUEEZE = ("Squeeze", ["axis"], {})
MOVE = ("Transpose", [], {"perm": [0, 2, 1, 3]})
JOIN = ("Reshape", ["shape"], {})


@pytest.mark.parametrize(("ops", "D", "attributes"), [
    ([SQUEEZE], 1, {}),
    ([("Squeeze", [], {"axes": [1]})], 1, {}),
    ([("Squeeze", ["last"], {})], 1, {}),
    ([("Squeeze", [], {})], 1, {"hidden_size": 4}),
    ([("Identity", [], {}), SQUEEZE, ("Dropout", [], {}), ("Cast", [], {"to": 1})], 1, {}),
    ([SQUEEZE, ("Transpose", [], {"perm": [1, 0, 2]}), ("Transpose", [], {"perm": [1, 0, 2]})],
     1, {}),
    ([MOVE, JOIN], 1, {}),
    ([MOVE, JOIN], 2, {}),
    ([JOIN], 1, {"layout": 1}),
    ([JOIN], 2, {"layout": 1}),
], ids=str)
def test_layers(ops, D, attributes):
    model, arrays = stacked(*between(*ops), D=D, **attributes)
    gru = from_onnx(model)
    assert gru.num_layers == 2 and gru.bidirectional == (D == 2)
    assert holds(gru, arrays, 0, "_0") and holds(gru, arrays, 1, "_1")
    alone = from_onnx(model, node="gru_1")
    assert alone.num_layers == 1 and holds(alone, arrays, 0, "_1")
    assert from_onnx(model, node="gru_0, gru_1").num_layers == 2


@pytest.mark.parametrize(("ops", "D", "above"), [
    ([MOVE, SQUEEZE], 1, {}),                              # the batch, if that is one row
    ([("Squeeze", [], {})], 1, {"hidden_size": 1}),
    ([SQUEEZE, ("Transpose", [], {"perm": [1, 0, 2]})], 1, {}),
    ([JOIN], 1, {}),                                       # rows side by side
    ([("Reshape", ["wrong"], {})], 2, {}),
    ([("Reshape", ["rows in steps"], {})], 1, {}),
    ([("Reshape", ["steps in rows"], {})], 1, {}),
    ([SQUEEZE, ("Cast", [], {"to": 6}), ("Cast", [], {"to": 1})], 1, {}),
    ([SQUEEZE, ("Identity", [], {"domain": "other"})], 1, {}),
    ([SQUEEZE, ("Tanh", [], {})], 1, {}),
    ([SQUEEZE], 1, {"clip": 3.0}),
    ([SQUEEZE], 1, {"linear_before_reset": 1}),
    ([SQUEEZE], 1, {"direction": "reverse"}),
    ([SQUEEZE], 1, {"layout": 1}),
], ids=str)
def test_nodes_that_are_no_layers(ops, D, above):
    """They are listed, none is left out in silence."""
    own = {"hidden_size": 1} if above == {"hidden_size": 1} else {}
    model, arrays = stacked(*between(*ops), D=D, above=above, **own)
    message = refused(model, "it has 2 GRUs, which are not the layers of one")
    assert "node='gru_0'" in message and "node='gru_1'" in message
    if not own:
        assert "input_size 3, hidden_size 4" in message
        assert holds(from_onnx(model, node="gru_1"), arrays, 0, "_1")


def test_batch_first_layers_with_the_steps_first_between():
    turned = ("Transpose", [], {"perm": [1, 0, 2]})
    model, _ = stacked(*between(JOIN, turned), layout=1)
    refused(model, "it has 2 GRUs, which are not the layers of one")
    model, _ = stacked(*between(JOIN, turned, turned), layout=1)
    assert from_onnx(model).num_layers == 2


def directions_apart(**other):
    """Nodes from Y_0 to X_1 as tf2onnx writes them."""
    own = {"starts": (0, 1), "ends": (1, 2), "axis": 2, "order": (0, 1), "squeezed": 1} | other
    nodes = [helper.make_node("Slice", ["Y_0", f"from_{own['starts'][d]}", f"to_{own['ends'][d]}",
                                        "axis"], [f"cut_{d}"]) for d in range(2)]
    nodes += [helper.make_node("Squeeze", [f"cut_{d}", f"from_{own['squeezed']}"], [f"part_{d}"])
              for d in range(2)]
    nodes.append(helper.make_node("Concat", [f"part_{d}" for d in own["order"]], ["X_1"],
                                  axis=own["axis"]))
    numbers = {"from_0": 0, "from_1": 1, "to_1": 1, "to_2": 2, "to_9": 9}
    return nodes, {name: np.array([number]) for name, number in numbers.items()}


@pytest.mark.parametrize(("other", "stack"), [
    ({}, True), ({"ends": (1, 9)}, True), ({"axis": -1}, True), ({"axis": 0}, False),
    ({"order": (1, 0)}, False), ({"order": (0, 0)}, False), ({"order": (0, 1, 0)}, False),
    ({"starts": (0, 0)}, False), ({"ends": (2, 2)}, False), ({"squeezed": 0}, False)], ids=str)
def test_layers_of_which_the_directions_are_cut_apart(other, stack):
    nodes, numbers = directions_apart(**other)
    model, arrays = stacked(*nodes, D=2)
    model.graph.initializer.extend(tensor(a, name) for name, a in numbers.items())
    if stack:
        gru = from_onnx(model)
        assert holds(gru, arrays, 0, "_0") and holds(gru, arrays, 1, "_1")
    else:
        refused(model, "it has 2 GRUs, which are not the layers of one")


def test_attributes_of_other_nodes_that_make_no_sense():
    model, arrays = stacked(*between(("Transpose", [], {"perm": 3}), SQUEEZE))
    refused(model, "it has 2 GRUs, which are not the layers of one")
    nodes = [constant("W", value_float=1), gru_node()]
    nodes[0].attribute[0].type = 2
    refused(model_with(nodes, {"R": arrays["R_0"]}), "'constant_W' does not fit its inputs: .*type")


def test_layers_of_several_grus():
    """Two that share the layer below are no stack with it; names select."""
    arrays = weights(1, 3, 4, "_0") | weights(1, 4, 4, "_1", seed=1) | weights(1, 4, 4, "_2")
    nodes = [gru_node("X", "_0"), helper.make_node("Squeeze", ["Y_0", "axis"], ["X_1"]),
             gru_node("X_1", "_1"), gru_node("X_1", "_2", name="")]
    nodes[-1].name = ""
    model = model_with(nodes, arrays | {"axis": np.array([1])})
    message = refused(model, "it has 3 GRUs")
    assert all(f"node='{name}'" in message for name in ("gru_0", "gru_1", "Y_2"))
    for node, end in (("gru_1", "_1"), ("Y_1", "_1"), ("Y_h_1", "_1"), ("Y_2", "_2")):
        assert holds(from_onnx(model, node=node), arrays, 0, end)
    refused(model, "it has no node 'gru'", node="gru")
    with pytest.raises(TypeError, match="node must be a str, got int"):
        from_onnx(model, node=1)


def test_a_node_that_no_gru_is_like_beside_others():
    arrays = weights(end="_0") | weights(end="_1", seed=1)
    nodes = [gru_node("X", "_0", clip=-1.0), gru_node("X", "_1")]
    model = model_with(nodes, arrays)
    assert holds(from_onnx(model, node="gru_1"), arrays, 0, "_1")
    refused(model, "node 'gru_0': clip is -1.0", node="gru_0")
    with pytest.warns(UserWarning, match="left out: .*clip is"):
        assert [f.name for f in interop.find(model, MAX_BYTES)] == ["gru_1"]


def test_layers_of_which_one_has_lengths():
    """The other would run over the padding: h_n would differ."""
    model, _ = stacked(*between(SQUEEZE))
    model.graph.input.add(name="lengths")
    for count, node in enumerate((model.graph.node[0], model.graph.node[-1]), 1):
        node.input.append("lengths")
        if count == 1:
            refused(model, "it has 2 GRUs, which are not the layers of one")
    assert from_onnx(model).num_layers == 2


def test_layers_of_which_one_has_no_bias():
    model, arrays = stacked(*between(SQUEEZE))
    model.graph.node[0].input[3] = ""
    gru = from_onnx(model)
    assert gru.num_layers == 2 and holds(gru, arrays | {"B_0": 0 * arrays["B_0"]}, 0, "_0")


def test_layers_of_other_sizes():
    model, _ = stacked(*between(SQUEEZE))
    arrays = weights(1, 4, 5, "_1")
    for found in model.graph.initializer:
        if found.name in arrays:
            found.CopyFrom(tensor(arrays[found.name], found.name))
    refused(model, r"'gru_1' has W and R for 4 inputs and hidden_size 5, but as a layer above")
    assert from_onnx(model, node="gru_1").hidden_size == 5


def test_a_node_in_a_branch_and_in_a_function():
    """Weights of the graph around a branch; weights that are arguments of a function."""
    arrays = weights()
    info = helper.make_tensor_value_info
    branch = helper.make_graph([gru_node()], "branch", [], [info("Y_h", 1, None)])
    other = helper.make_graph([helper.make_node("Identity", ["X"], ["Z"])], "other", [],
                              [info("Z", 1, None)])
    choice = helper.make_node("If", ["chosen"], ["result"], name="choice", then_branch=branch,
                              else_branch=other)
    model = model_with([choice], arrays, ["X", "chosen"])
    assert holds(from_onnx(model), arrays)
    assert interop._nodes(interop.load(model, MAX_BYTES))[0].name == "choice.then_branch/gru"

    node = gru_node(name="inner")
    node.attribute.add(name="clip", ref_attr_name="limit", type=1)
    function = helper.make_function("own", "Encoder", ["X", *GATES], ["Y_h"], [node],
                                    [helper.make_opsetid("", 14)], ["limit"])
    calls = [helper.make_node("Encoder", ["X", *(f"{name}_{i}" for name in GATES)], [f"out_{i}"],
                              name=f"call_{i}", domain="own", limit=i + 0.5) for i in range(2)]
    both = weights(end="_0") | weights(end="_1", seed=1)
    model = model_with(calls, both, functions=[function])
    for i in range(2):
        gru = from_onnx(model, node=f"call_{i}/inner")
        assert holds(gru, both, 0, f"_{i}") and gru.clip == i + 0.5
    assert len(interop.load(model, MAX_BYTES).scopes) == 3


def test_functions_that_call_themselves():
    """And functions that call others twice, each: no billion nodes are looked at."""
    opsets = [helper.make_opsetid("", 14), helper.make_opsetid("own", 1)]
    calls = {f"f{i}": [helper.make_node(f"f{i + 1}", ["X"], [f"Y{j}"], domain="own")
                       for j in range(60)] for i in range(9)}
    for bodies in ({"f0": [helper.make_node("f0", ["X"], ["Y0"], domain="own")]}, calls):
        functions = [helper.make_function("own", name, ["X"], ["Y0"], body, opsets)
                     for name, body in bodies.items()]
        model = model_with([helper.make_node("f0", ["X"], ["Y"], domain="own")], {},
                           functions=functions)
        refused(model, "call each other more than 16 deep|more than 200000 nodes")


def test_no_gru_node():
    message = refused(FIXTURES / "cell.onnx", "it has no GRU node")
    assert "Gemm" in message or "MatMul" in message
    assert "onnxscript 0.7.1" in message and "dynamo=False" in message and "from_torch" in message
    refused(model_with([], {}), "its nodes are none")


# ---- what a model does not keep ----------------------------------------------------------------

def test_constants_that_are_no_parameters():
    arrays = weights() | {"lengths": np.array([3, 2], np.int32), "h": normal(1, 2, 4),
                          "zeros": np.zeros((1, 2, 4), F32)}
    for inputs, match in ((["lengths"], "its sequence_lens, 'lengths', is a constant.*as lengths"),
                          (["", "h"], r"its initial_h, 'h', is a constant.*as h_0 .*read_arrays")):
        with pytest.warns(UserWarning, match=match):
            from_onnx(model_with([gru_node(more=inputs)], arrays))
    from_onnx(model_with([gru_node(more=["", "zeros"])], arrays))
    from_onnx(model_with([gru_node(more=["lengths_in", "h_in"])], arrays,
                         ["X", "lengths_in", "h_in"]))


def test_zero_of_pytorch_is_told():
    path = FIXTURES / "dynamo_0_7_0.onnx"
    with pytest.warns(UserWarning, match=r"onnxscript 0\.5\.7 to 0\.7\.0.*pass that, or 0"):
        assert from_onnx(path).reset_after is False
    for given in (0, 1):
        assert from_onnx(path, linear_before_reset=given).reset_after == given
    assert from_onnx(FIXTURES / "dynamo.onnx").reset_after is True


# ---- writing -----------------------------------------------------------------------------------

def by_evaluator_of(path, **inputs):
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(str(path)).run(None, inputs)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_written_and_read(layers, bidirectional, batch_first, bias, reset_after, dtype, tmp_path):
    """The same parameters; the results that ONNX's evaluator has."""
    gru = gru_c.GRU(3, 4, layers, bias, batch_first, bidirectional=bidirectional, dtype=dtype,
                    reset_after=reset_after, rng=0)
    path = tmp_path / "gru.onnx"
    for opset in (7, 10, 13, 14, 22):
        gru.to_onnx(path, opset, h_0=True)
        onnx.checker.check_model(str(path), full_check=True)
        again = from_onnx(path, batch_first=batch_first)
        assert (again.num_layers, again.reset_after, again.dtype) == (layers, reset_after, dtype)
        assert again.state_dict().keys() == gru.state_dict().keys()
        assert all((a == getattr(gru, name)).all() for name, a in again.state_dict().items())
        x, h_0 = normal(5, 2, 3, dtype=dtype), normal(
            layers * (1 + bidirectional), 5 if batch_first else 2, 4, dtype=dtype)
        for ours, theirs in zip(gru(x, h_0), by_evaluator_of(path, input=x, h_0=h_0), strict=True):
            assert ours.shape == theirs.shape and error(ours, theirs) < 1e-6


def test_inputs_and_outputs(tmp_path):
    def shapes(values):
        return {value.name: [dim.dim_param or dim.dim_value for dim in
                             value.type.tensor_type.shape.dim] for value in values}

    path = tmp_path / "gru.onnx"
    gru_c.GRU(3, 4, 2, bidirectional=True).to_onnx(path, h_0=True, lengths=True)
    graph = onnx.load(path).graph
    assert shapes(graph.input) == {"input": ["steps", "batch", 3], "h_0": [4, "batch", 4],
                                   "lengths": ["batch"]}
    assert shapes(graph.output) == {"output": ["steps", "batch", 8], "h_n": [4, "batch", 4]}
    gru_c.GRU(3, 4, batch_first=True).to_onnx(path)
    graph = onnx.load(path).graph
    assert shapes(graph.input) == {"input": ["batch", "steps", 3]}
    assert shapes(graph.output) == {"output": ["batch", "steps", 4], "h_n": [1, "batch", 4]}
    gru_c.GRU(3, 4).to_onnx(path, lengths=True)
    node = onnx.load(path).graph.node[0]
    assert list(node.input) == ["input", "W_l0", "R_l0", "B_l0", "lengths"]


@pytest.mark.parametrize("role", ["activation", "recurrent_activation"])
@pytest.mark.parametrize("name", gru_c.reference.ACTIVATIONS)
def test_options_are_kept(role, name, tmp_path):
    gru = gru_c.ReverseGRU(3, 4, clip=0.3, **{role: name})
    gru.metadata = {"b": "2", "a": "1"}
    gru.to_onnx(tmp_path / "gru.onnx")
    found, = interop.find(tmp_path / "gru.onnx", MAX_BYTES)
    assert found.metadata == gru.metadata
    again = from_onnx(tmp_path / "gru.onnx")
    assert type(again) is gru_c.ReverseGRU and again.clip == 0.3
    expected = {"linear": "affine"}.get(name, name)
    assert getattr(again, role).name == expected
    if name != "linear" and "alpha" in gru_c._activations.DEFAULTS[name]:
        assert getattr(again, role).alpha == pytest.approx(getattr(gru, role).alpha, rel=1e-7)
    onnx.checker.check_model(str(tmp_path / "gru.onnx"), full_check=True)


def test_equal_models_give_equal_bytes(tmp_path):
    for name, model in (("a", gru_c.GRU(3, 4, 2, rng=0)), ("b", gru_c.GRU(3, 4, 2, rng=0))):
        model.metadata = dict([("x", "1"), ("y", "2")][::1 if name == "a" else -1])
        model.to_onnx(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_cells(tmp_path):
    cell = gru_c.GRUCell(3, 4, rng=0)
    cell.to_onnx(tmp_path / "cell.onnx")
    again = gru_c.GRUCell.from_onnx(tmp_path / "cell.onnx")
    assert (again.weight_hh == cell.weight_hh).all()
    gru_c.GRU(3, 4, 2).to_onnx(tmp_path / "two.onnx")
    with pytest.raises(ValueError, match="num_layers=2, which a GRUCell does not have"):
        gru_c.GRUCell.from_onnx(tmp_path / "two.onnx")


def test_what_onnx_cannot_hold(tmp_path, monkeypatch):
    path = tmp_path / "gru.onnx"
    for options, match in (
            ({"clip": 1e39}, "clip is 1e.39, which an attribute of ONNX"),
            ({"activation": {"name": "elu", "alpha": 1e300}}, r"alpha of activation is 1e\+300"),
            ({"clip": 1e-50}, "clip is 1e-50")):
        with pytest.raises(ValueError, match=match):
            gru_c.GRU(3, 4, **options).to_onnx(path)
    for opset in (6, 1000):
        with pytest.raises(ValueError, match=f"opset must be from 7 to .*, got {opset}"):
            gru_c.GRU(3, 4).to_onnx(path, opset)
    for name in ("h_0", "lengths"):
        with pytest.raises(TypeError, match=f"{name} should be of type bool"):
            gru_c.GRU(3, 4).to_onnx(path, **{name: 1})
    monkeypatch.setattr("gru_c.interop.onnx.writing.MAX_BYTES", 100)
    with pytest.raises(ValueError, match=r"the GRU has parameters of \d+ bytes.*less than 2 GiB"):
        gru_c.GRU(3, 4).to_onnx(path)
    assert not path.exists()


# ---- find, read_arrays ---------------------------------------------------------------------------

def test_find():
    arrays = weights(end="_0") | weights(1, 4, 4, "_1", seed=1) | weights(end="_2", seed=2)
    nodes = [gru_node("X", "_0"), helper.make_node("Squeeze", ["Y_0", "axis"], ["X_1"]),
             gru_node("X_1", "_1"), gru_node("X", "_2")]
    model = model_with(nodes, arrays | {"axis": np.array([1])})
    found = interop.find(model, MAX_BYTES)
    assert [(f.name, f.options["num_layers"]) for f in found] == [("gru_0, gru_1", 2), ("gru_2", 1)]
    assert found[0].convention == "ONNX, linear_before_reset=0"
    for f in found:
        assert from_onnx(model, node=f.name).num_layers == f.options["num_layers"]
    assert interop.find(FIXTURES / "cell.onnx", MAX_BYTES) == []
    nodes[-1].attribute.add(name="peepholes", type=2, i=1)
    nodes[-1].input[1] = "X"
    with pytest.warns(UserWarning, match="left out: .*its W, 'X', is an input"):
        del nodes[-1].attribute[:]
        model = model_with(nodes, arrays | {"axis": np.array([1])})
        assert [f.name for f in interop.find(model, MAX_BYTES)] == ["gru_0, gru_1"]


def test_read_arrays():
    arrays = {**weights(), "half": normal(3).astype(np.float16), "integers": np.arange(3),
              "bools": np.array([True, False]), "complex": normal(2) + 1j, "number": np.array(2.0)}
    model = model_with([gru_node(), constant("fixed", value=tensor(normal(2, 2)))], arrays)
    found = interop.read_arrays(model, MAX_BYTES)
    assert found.keys() == arrays.keys() | {"fixed"}
    for name, a in arrays.items():
        assert found[name].dtype == a.dtype and (found[name] == a).all(), name
    model.graph.initializer.add(name="text", data_type=8, dims=[1], string_data=[b"text"])
    with pytest.warns(UserWarning, match="left out, since NumPy does not have .*: 'text'"):
        assert interop.read_arrays(model, MAX_BYTES).keys() == found.keys()


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "uint64",
                                  "bool", "complex64", "complex128", "float16", "float64"])
def test_numbers_of_all_types(kind):
    a = np.array([0, 1, 100]).astype(kind)
    numbers = helper.make_tensor("a", helper.np_dtype_to_tensor_dtype(a.dtype), a.shape, a)
    assert not numbers.raw_data
    found = interop.read_arrays(model_with([], {"a": numbers}), MAX_BYTES)["a"]
    assert found.dtype == a.dtype and (found == a).all()


def test_a_pipe_without_end(monkeypatch):
    monkeypatch.setattr(graphs, "FILE_BEYOND_ARRAYS", 2**20)
    with (subprocess.Popen(["yes"], stdout=subprocess.PIPE) as process,
          pytest.raises(ModelFileError, match="many more than max_bytes=0")):
        gru_c.GRU.from_onnx(f"/dev/fd/{process.stdout.fileno()}", max_bytes=0)


def test_the_state_of_one_gru_that_begins_with_that_of_another():
    """As layers, the second would begin with zeros."""
    model, _ = stacked(*between(SQUEEZE))
    model.graph.node[0].output[:] = ["Y_0", "Y_h_0"]
    model.graph.node[-1].input.extend([""] * (5 - len(model.graph.node[-1].input)) + ["Y_h_0"])
    refused(model, "it has 2 GRUs, which are not the layers of one")


def test_a_default_of_ours_that_no_float32_is(tmp_path):
    model = gru_c.GRU(3, 4, recurrent_activation="hard_sigmoid", dtype=F64)
    model.to_onnx(tmp_path / "model.onnx")
    again = from_onnx(tmp_path / "model.onnx")
    assert again.recurrent_activation == model.recurrent_activation


def test_two_names_of_one_option():
    model, _ = stacked(*between(SQUEEZE))
    with pytest.raises(TypeError, match="linear_before_reset and reset_after are one option"):
        from_onnx(model, linear_before_reset=0, reset_after=True)


@pytest.mark.parametrize(("text", "error"), [(5, TypeError), ("\ud800", ValueError)])
def test_metadata_that_is_no_text(text, error, tmp_path):
    model = gru_c.GRU(3, 4)
    model.metadata["note"] = text
    with pytest.raises(error, match=r"model\.onnx: not saved, metadata 'note' "):
        model.to_onnx(tmp_path / "model.onnx")


def test_an_empty_tensor_of_dims_that_numpy_cannot_multiply():
    tensor = onnx.TensorProto(name="a", data_type=onnx.TensorProto.FLOAT, raw_data=b"",
                              dims=[0, 2**40, 2**40])
    with pytest.raises(ModelFileError, match=r"tensor 'a' has dims \[0, 1099511627776"):
        interop.read_arrays(model_with([], {"a": tensor}), MAX_BYTES)
