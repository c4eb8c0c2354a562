"""Answers known from elsewhere, on each instruction set and engine.

Arraymancer's printed values (which are PyTorch's), fixtures with what PyTorch, Keras, ONNX's
evaluator and ONNX Runtime computed (written by tools/make_fixtures.py), and the bugs that other
implementations had.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from family import Case, build, run_case
from helpers import F32, F64, assert_close, draw, error, expected, run, tolerance

from gru_c import GRU, GRUCell

pytestmark = pytest.mark.usefixtures("kernels")


def cases(file):
    """A file of fixtures as {case: {group: {name: array}}}."""
    found = {}
    with np.load(Path(__file__).parent / "fixtures" / file) as archive:
        for key in archive.files:
            case, group, name = key.split("/")
            found.setdefault(case, {}).setdefault(group, {})[name] = archive[key]
    return found


TORCH, ONNX = cases("torch.npz"), cases("onnx.npz")
FAMILY = {f"{peer}, {name}": groups for peer in ("keras", "onnxruntime")
          for name, groups in cases(f"{peer}.npz").items()}


# ---- Arraymancer --------------------------------------------------------------------------------
# Numbers of tests/nn_primitives/test_nnp_gru.nim, github.com/mratsim/Arraymancer at 0b3fc93: what
# goes in, and what PyTorch gave, to ten places.

def ramp(rows, columns, start, by_row, by_column):
    i, j = np.indices((rows, columns))
    return start + by_row * i + by_column * j


STEPS_6 = np.arange(1, 7) / 10
FIRST_LAYER = {"weight_hh": np.tile([[-0.3, -0.1], [-0.2, 0.0]], (3, 1)),
               "bias_ih": STEPS_6, "bias_hh": -STEPS_6}


def test_arraymancer_cell():
    cell = GRUCell(4, 2, dtype=np.float64)
    cell.load_state_dict({"weight_ih": ramp(6, 4, 0.9, -0.1, -0.1), **FIRST_LAYER})
    x = np.array([[0.1, 0.2, 0.3, 0.4], [-0.1, -0.2, -0.3, -0.4], [0.5, 0.6, 0.7, 0.8]])
    wanted = [[-0.5317437280, -0.4752916969],
              [-0.3930421219, -0.3209550879],
              [-0.7325259335, -0.6429624731]]
    for mode in (True, False):
        np.testing.assert_allclose(cell.train(mode)(x, np.full((3, 2), -1.0)), wanted, atol=5.1e-11)


def test_arraymancer_two_layers():
    second_layer = {"weight_ih": ramp(6, 2, 0.5, -0.1, 0.1),
                    "weight_hh": np.tile([[-0.4, -0.5], [-0.4, 0.5]], (3, 1)),
                    "bias_ih": [0.2, 0.3, 0.4, 0.2, 0.3, 0.4], "bias_hh": STEPS_6}
    first_layer = {"weight_ih": ramp(6, 5, 0.9, -0.1, -0.1), **FIRST_LAYER}
    gru = GRU(5, 2, 2, dtype=np.float64)
    gru.load_state_dict({f"{name}_l{index}": value
                         for index, layer in enumerate((first_layer, second_layer))
                         for name, value in layer.items()})
    up, high = np.arange(1, 6) / 10, np.arange(5, 10) / 10
    x = np.array([[up, -up, high], [-up, -up, high], [up, -up, -up], [-up, -up, -up]])
    h_0 = np.array([[[-1.0, -1.0]] * 3, [[2.0, 3.0]] * 3])
    output = [[[0.2564464804, 2.4324064858], [0.3212793315, 2.4821776260],
               [0.1983539289, 2.3849941275]],
              [[0.1323593874, 2.1939630024], [0.1591080583, 2.2447442148],
               [0.0683269257, 2.1121420346]],
              [[0.1233993158, 1.9977140846], [0.1320258443, 2.0434525564],
               [0.0904040251, 1.9111566097]],
              [[0.1355803839, 1.8195602154], [0.1369919053, 1.8612790359],
               [0.1230976350, 1.7381913793]]]
    h_n = [[[0.0155439572, 0.1680427130], [-0.0038861287, 0.1854366532],
            [-0.0549487103, 0.1189245136]], output[-1]]
    for mode in (True, False):
        found = gru.train(mode)(x, h_0)
        np.testing.assert_allclose(found[0], output, rtol=0, atol=5.1e-11)
        np.testing.assert_allclose(found[1], h_n, rtol=0, atol=5.1e-11)


# ---- PyTorch ------------------------------------------------------------------------------------

def model_like(parameters, dtype, batch_first=None):
    """A GRU or GRUCell with these parameters of PyTorch."""
    suffix = "" if batch_first is None else "_l0"
    H, I = (parameters[f"{name}{suffix}"].shape[1] for name in ("weight_hh", "weight_ih"))  # noqa: E741
    options = {"bias": f"bias_ih{suffix}" in parameters, "dtype": dtype}
    if batch_first is None:
        model = GRUCell(I, H, **options)
    else:
        layers = sum(name.startswith("weight_hh") for name in parameters)
        model = GRU(I, H, layers, batch_first=bool(batch_first), **options)
    model.load_state_dict({name: value.astype(dtype) for name, value in parameters.items()})
    return model


@pytest.mark.parametrize("case", TORCH)
def test_torch_fixtures(case, dtype):
    """Values of PyTorch 2.13 in float64; their inputs are exact in float32 too. `no state` is where
    mlx#3249 lost b_hn; flax#5594 lost it altogether."""
    parameters = dict(TORCH[case]["model"])
    model = model_like(parameters, dtype, parameters.pop("batch_first", None))
    call = {name: value.astype(dtype) for name, value in TORCH[case]["call"].items()}
    if isinstance(model, GRU):
        found = run(model, **call)
    else:
        found = {"h": model(call["x"], call.get("h_0"))}
        found["dx"], found["dh_0"] = model.backward(call["d_h_n"])
        found |= model.grads
    for name, value in TORCH[case]["results"].items():
        allowed = tolerance(dtype, 15, 8, backward=name not in ("output", "h_n", "h"))
        assert found[name].dtype == dtype
        assert error(found[name], value) <= allowed, name


# ---- ONNX ---------------------------------------------------------------------------------------

def model_from_onnx(inputs, attributes, dtype):
    """A GRU with the weights of a node, whose gates are stacked z, r, h."""
    def gates(stacked):
        z, r, n = np.split(stacked.astype(dtype), 3)
        return np.concatenate([r, z, n])

    weights = {"weight_ih_l0": gates(inputs["W"][0]), "weight_hh_l0": gates(inputs["R"][0])}
    if "B" in inputs:
        bias_ih, bias_hh = np.split(inputs["B"][0], 2)
        weights |= {"bias_ih_l0": gates(bias_ih), "bias_hh_l0": gates(bias_hh)}
    gru = GRU(inputs["W"].shape[2], inputs["R"].shape[2], bias="B" in inputs, dtype=dtype,
              reset_after=bool(attributes["linear_before_reset"]))
    gru.load_state_dict(weights)
    return gru


@pytest.mark.parametrize("case", ONNX)
def test_onnx_fixtures(case, dtype):
    """Both conventions. `linear_before_reset=1, no bias, no state` with three rows is what
    onnxruntime#3893 got wrong."""
    inputs, attributes, outputs = (ONNX[case][key] for key in ("inputs", "attributes", "outputs"))
    gru = model_from_onnx(inputs, attributes, dtype)
    x, h_0 = inputs["X"].astype(dtype), inputs.get("initial_h")
    h_0 = None if h_0 is None else h_0.astype(dtype)
    for mode in (True, False):
        output, h_n = gru.train(mode)(x, h_0)
        for got, want in ((output, outputs["Y"][:, 0]), (h_n, outputs["Y_h"])):
            assert error(got, want) <= tolerance(dtype, gru.input_size + gru.hidden_size, len(x))


# ---- Keras and ONNX Runtime ---------------------------------------------------------------------

@pytest.mark.parametrize("case", FAMILY)
def test_family_fixtures(case, dtype):
    """Options of layers of Keras 3.15 in float64, and of ONNX Runtime 1.32 in float32."""
    groups = FAMILY[case]
    parameters, call, masks = ({name: a.astype(F64) if a.dtype == F32 else a
                                for name, a in groups.get(group, {}).items()}
                               for group in ("parameters", "call", "dropout_masks"))
    if masks:
        call["dropout_masks"] = masks
    stored = Case(json.loads(str(groups["model"]["options"])), parameters, call)
    found = run_case(build(stored, dtype), stored)
    for name, value in groups["results"].items():
        least = F32 if F32 in (value.dtype, dtype) else F64
        allowed = tolerance(least, 15, 10, backward=name not in ("output", "h_n"))
        assert error(found[name], value) <= allowed, name


# ---- bugs of others -----------------------------------------------------------------------------

@pytest.mark.parametrize("rows", [3, 8])
def test_no_bias_with_several_rows(rows, dtype, reset_after):
    """onnxruntime#3893 and #3797: without bias, rows from the third on started from leftovers."""
    biased = GRU(4, 5, dtype=dtype, reset_after=reset_after, rng=0)
    gru = GRU(4, 5, bias=False, dtype=dtype, reset_after=reset_after, rng=0)
    call = draw(gru, 3, rows)
    run(biased, **call)                                    # fills memory with other numbers
    del call["h_0"]
    assert_close(run(gru, **call), expected(gru, **call), gru)


def test_large_inputs_of_both_signs(dtype, reset_after):
    """onnxruntime#4628: wide inputs that drive the gates to both ends."""
    gru = GRU(1000, 64, dtype=dtype, reset_after=reset_after, rng=0)
    call = draw(gru, 5, 3)
    call["x"] *= dtype(2 if dtype == np.float32 else 100)  # float32 has no more digits to agree in
    wanted = expected(gru, **call)
    output, h_n = gru(call["x"], call["h_0"])
    assert error(output, wanted["output"]) <= tolerance(dtype, 1064, 5)
    assert error(h_n, wanted["h_n"]) <= tolerance(dtype, 1064, 5)
    call["x"] *= dtype(1e30)
    output, _ = gru(call["x"], call["h_0"])
    assert np.abs(output).max() <= np.abs(call["h_0"]).max()
    gru.backward(call["d_output"], call["d_h_n"])
    assert all(np.isfinite(grad).all() for grad in gru.grads.values())
