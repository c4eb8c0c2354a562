"""reference_quantized.py, the definition of int8 and bfloat16: by float64, and by its own promises.
"""

import platform
from itertools import product

import numpy as np
import pytest
from family import case, converted, row
from helpers import F32, activate, error, kernels_of, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gru_c import _core, reference
from gru_c import reference_quantized as quantized

TINY = 2.0**-100
MAX = float(np.finfo(F32).max)
OPTIONS = [
    {},
    {"layers": 2, "bidirectional": True},
    {"reverse": True, "bias": False},
    {"ragged": ("lengths", "resets"), "layers": 2, "bidirectional": True},
    {"ragged": ("mask", "resets")},
    {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
    {"clip": 1.0},
]


def inference(case, **options):
    """The call of a case in float32, for `quantized.run`, and its parameters."""
    names = ("x", "h_0", "lengths", "mask", "resets")
    call = {name: converted(case.call[name], F32) for name in names if name in case.call}
    kept = ("reset_after", "activation", "recurrent_activation", "clip", "reverse")
    call |= {name: case.model[name] for name in kept if name in case.model}
    return quantized.run(converted(case.parameters, F32), **call | options)


def in_float64(case, parameters):
    """Output and h_n of the float model, of these parameters."""
    kept = ("reset_after", "activation", "recurrent_activation", "clip", "reverse")
    found = reference.run(converted(parameters, np.float64) if parameters else case.parameters,
                          **case.call, **{k: case.model[k] for k in kept if k in case.model})
    return {name: found[name] for name in ("output", "h_n")}


# ---- the functions of the gates -----------------------------------------------------------------

EDGES = [0, -0.0, 1e-45, -1e-45, 1e-20, 20, -20, -105, 105, MAX, -MAX, np.inf, -np.inf, np.nan]


def arguments():
    rng = np.random.default_rng(0)
    small = rng.standard_normal(100_000) * np.exp(rng.uniform(-30, 1, 100_000))
    wide = rng.uniform(-110, 110, 100_000)
    return np.concatenate([wide, small, np.resize(EDGES, 32)]).astype(F32)


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_functions(name):
    """To 4 ulp, also where they are subnormal; a NaN stays one."""
    a = arguments()
    found = getattr(quantized, name)(a)
    wanted = reference.gate(a.astype(np.float64), name, None)[0]
    assert found.dtype == F32
    assert (np.isnan(found) == np.isnan(a)).all()
    ulp = np.spacing(np.abs(wanted).astype(F32)).astype(np.float64)
    assert np.nanmax(np.abs(found - wanted) / ulp) <= 4


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_functions_have_the_bits_of_the_kernels(name):
    """Of those whose instruction set has no fused multiply-add."""
    if "baseline" not in _core.core.instruction_sets() or platform.machine() != "x86_64":
        pytest.skip("no such instruction set")
    a = arguments()
    y = np.empty_like(a)
    with kernels_of("baseline", "panel"):
        activate(name, a, y)
    np.testing.assert_array_equal(getattr(quantized, name)(a), y)


# ---- weights ------------------------------------------------------------------------------------

def test_bfloat16():
    """Known values: to the nearest, ties to even, over the top to infinity."""
    pairs = {
        0x3F800000: 0x3F80, 0x3F807FFF: 0x3F80, 0x3F808000: 0x3F80, 0x3F808001: 0x3F81,
        0x3F818000: 0x3F82, 0x3F817FFF: 0x3F81, 0xBF818000: 0xBF82, 0x3FFF8000: 0x4000,
        0x7F7F7FFF: 0x7F7F, 0x7F7FFFFF: 0x7F80, 0x00000000: 0x0000, 0x80000000: 0x8000,
        0x00008000: 0x0000, 0x00018000: 0x0002, 0x7F800000: 0x7F80, 0xFF800000: 0xFF80,
    }
    found = quantized.bfloat16(np.array([*pairs], np.uint32).view(F32))
    assert found.dtype == F32
    assert [hex(bits) for bits in found.view(np.uint32)] == [hex(b << 16) for b in pairs.values()]
    nans = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(F32)
    assert np.isnan(quantized.bfloat16(nans)).all()
    w = normal(50, 60)
    assert np.abs(quantized.bfloat16(w) / w - 1).max() <= 2**-8
    np.testing.assert_array_equal(quantized.bfloat16(quantized.bfloat16(w)), quantized.bfloat16(w))


FINITE = hnp.arrays(F32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.floats(
    width=32, allow_nan=False, allow_infinity=False) | st.floats(-1, 1, width=32))


@settings(deadline=None, derandomize=True, database=None)
@given(FINITE)
def test_weights_of_int8(w):
    """Within half a step of the weights, and the same when they are quantized again."""
    integers, scale = quantized.quantize_weights(w)
    assert scale.dtype == F32 and scale.shape == (len(w), 1)
    assert np.abs(integers).max() <= 127
    held = integers * scale
    assert held.dtype == F32
    assert (held == integers.astype(np.float64) * scale.astype(np.float64)).all()
    most = np.abs(w).max(axis=1, keepdims=True).astype(np.float64)
    assert (np.abs(held - w.astype(np.float64)) <= np.maximum(most / 253, TINY)).all()
    again, same_scale = quantized.quantize_weights(held)
    np.testing.assert_array_equal(again, integers)
    np.testing.assert_array_equal(same_scale, scale)


@settings(deadline=None, derandomize=True, database=None)
@given(FINITE, st.sampled_from([8, 12]), st.sampled_from([0, 1]))
def test_activations_of_int8(x, bits, least):
    """Within half a step; the largest magnitude of a row has the largest integer."""
    integers, scale = quantized.quantize(x, bits, least)
    top = 2 ** (bits - 1) - 1
    most = np.maximum(np.abs(x).max(axis=1, keepdims=True), F32(least)).astype(np.float64)
    assert np.abs(integers).max() <= top
    assert (np.abs(integers).max(axis=1)[most[:, 0] == np.abs(x).max(axis=1)] % top == 0).all()
    held = integers * scale.astype(np.float64)
    assert (np.abs(held - x) <= np.maximum(0.501 * most / top, TINY)).all()


@pytest.mark.parametrize("quantize", [quantized.quantize, quantized.quantize_weights])
def test_rows_without_a_scale(quantize):
    rows = np.array([[0, -0.0], [TINY / 2, 0], [1e-45, -1e-45],
                     [1, np.inf], [-np.inf, 1], [np.nan, 1]], F32)
    integers, scale = quantize(rows)
    assert not integers.any()
    np.testing.assert_array_equal(scale[:, 0], [0, 0, 0, np.nan, np.nan, np.nan])
    integers, scale = quantize(np.array([[TINY, -TINY], [MAX, -MAX]], F32))
    np.testing.assert_array_equal(integers, [[127, -127]] * 2)
    np.testing.assert_allclose(scale[:, 0], [TINY / 127, MAX / 127], rtol=2**-15)


# ---- a layer and a model ------------------------------------------------------------------------

def step(x, h, W, U, b, c, reset_after, x_bits):
    """A step of one row in int8, number by number, with Python's integers in the products."""
    H, one = len(h), F32(1)

    def weights(row):
        scale = np.array(max(abs(w) for w in row) / F32(127)).view(np.uint32) >> 8 << 8
        scale = scale.astype(np.uint32).view(F32)[()]
        return [round(float(w / scale)) for w in row], scale

    def activations(values, top, least):
        most = max(F32(least), *(abs(v) for v in values))
        return [round(float(v * (F32(top) / most))) for v in values], most / F32(top)

    def term(row, values):
        (w, w_scale), (v, v_scale) = weights(row), values
        return F32(sum(a * b for a, b in zip(w, v, strict=True))) * (w_scale * v_scale)

    x8, h8 = activations(x, 127 if x_bits == 8 else 2047, 0), activations(h, 127, one)
    a_r, a_z = ([(b[k] + c[k]) + term(W[k], x8) + term(U[k], h8) for k in range(i, i + H)]
                for i in (0, H))
    r, z = quantized.sigmoid(np.array(a_r)), quantized.sigmoid(np.array(a_z))
    q8 = activations(r * h, 127, one)
    a_n = []
    for i, k in enumerate(range(2 * H, 3 * H)):
        if reset_after:
            a_n.append((b[k] + term(W[k], x8)) + r[i] * (c[k] + term(U[k], h8)))
        else:
            a_n.append(((b[k] + c[k]) + term(W[k], x8)) + term(U[k], q8))
    n = quantized.tanh(np.array(a_n))
    return n + z * (h - n)


@pytest.mark.parametrize("x_bits", [8, 12])
def test_a_step(reset_after, x_bits):
    """The bits of a step as written number by number."""
    I, H = 7, 5  # noqa: E741
    W, U = normal(3 * H, I), normal(3 * H, H)
    b, c = normal(3 * H), normal(3 * H, seed=1)
    for seed, scale in product(range(5), (0.1, 1, 30)):
        x, h = normal(1, 1, I, seed=seed) * F32(scale), normal(1, H, seed=seed) * F32(scale)
        output, h_n = quantized.forward(x, h, W, U, b, c, reset_after, x_bits)
        wanted = step(x[0, 0], h[0], W, U, b, c, reset_after, x_bits)
        np.testing.assert_array_equal(output[0, 0], wanted)
        np.testing.assert_array_equal(h_n[0], wanted)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_near_the_float_model(options, reset_after):
    drawn = case(9, 4, (5, 17), reset_after=reset_after, **options)
    wanted = in_float64(drawn, None)
    held = converted(drawn.parameters, F32)
    for weights, x_bits, most in (("int8", 8, 0.02), ("bfloat16", None, 0.006),
                                  ("bfloat16", 16, 0.01)):
        found = inference(drawn, weights=weights, x_bits=x_bits)
        rounded = in_float64(drawn, quantized.effective(held, weights))
        for name, value in found.items():
            assert value.dtype == F32
            assert 1e-4 < np.abs(value - wanted[name]).max() < most, name
            if x_bits is None:                             # nothing but the weights is rounded
                assert error(value, rounded[name]) < 1e-5, name
            if x_bits == 16:
                assert error(value, rounded[name]) > 1e-4, name


def test_more_bits_are_nearer():
    """The larger the input, the more it matters."""
    drawn = case(9, 4, (5, 17), scale=10.0)
    wanted = in_float64(drawn, None)["output"]
    errors = [np.sqrt(np.mean((inference(drawn, x_bits=bits)["output"] - wanted) ** 2))
              for bits in (8, 12)]
    assert errors[1] < 0.7 * errors[0]


def test_small_states_have_all_bits(reset_after):
    """But with the default activations: the scale of h is fixed where |h| is below 1."""
    for activation, least, most in (("softsign", 0.002, 0.02), ("tanh", 0.1, 1)):
        drawn = case(4, 3, (5, 17), bias=False, scale=1e-3, reset_after=reset_after,
                     activation=activation)
        drawn.call["h_0"] *= 1e-3
        off = error(inference(drawn)["output"], in_float64(drawn, None)["output"])
        assert least < off < most, activation


@pytest.mark.parametrize("weights, x_bits", [("int8", 16), ("bfloat16", 8), ("bfloat16", 12)])
def test_bits_that_do_not_go_together(weights, x_bits):
    with pytest.raises(ValueError, match=f"x_bits={x_bits} does not go with {weights}"):
        inference(case(1, 1, (2, 3)), weights=weights, x_bits=x_bits)


def test_a_step_of_both_in_bfloat16(reset_after):
    """Of numbers that bfloat16 holds it is exact; what is less than their distance is lost."""
    drawn = case(1, 3, (5, 17), reset_after=reset_after)
    drawn.parameters["bias_ih_l0"][:17] = 200                               # r = 1, so q = h
    held = [(drawn.call, "h_0"), (drawn.call, "x"), (drawn.parameters, "weight_ih_l0"),
            (drawn.parameters, "weight_hh_l0")]
    for owner, name in held:
        owner[name] = quantized.bfloat16(owner[name].astype(F32)).astype(np.float64)
    wanted = in_float64(drawn, None)
    for factor in (1, 1 + 2.0**-10):
        for owner, name in held[1:]:
            owner[name] *= factor
        for name, value in inference(drawn, weights="bfloat16", x_bits=16).items():
            assert error(value, wanted[name]) < 1e-6


@pytest.mark.parametrize("options", OPTIONS[:5], ids=str)
def test_rows_are_independent(options, reset_after):
    """The bits of a row alone are those it has among others, also if these are NaN."""
    drawn = case(5, 4, (3, 6), reset_after=reset_after, **options)
    results = inference(drawn)
    drawn.call["x"][2, 1, 0] = np.nan
    beside = inference(drawn)
    for i in (0, 2, 3):
        alone = inference(row(drawn, i))
        for name, value in results.items():
            np.testing.assert_array_equal(beside[name][:, i], value[:, i])
            np.testing.assert_array_equal(alone[name][:, 0], value[:, i])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite(bad, reset_after):
    drawn = case(5, 3, (3, 6), reset_after=reset_after)
    drawn.call["x"][2, 1, 0] = bad
    output = inference(drawn)["output"]
    assert np.isnan(output[2:, 1]).all()
    assert np.isfinite(output[:2]).all() and np.isfinite(output[:, [0, 2]]).all()


def test_names_of_the_default_activations():
    drawn = case(4, 2, (3, 6))
    wanted = inference(drawn)["output"]
    named = {"activation": {"name": "scaled_tanh"}, "recurrent_activation": {"name": "sigmoid"}}
    np.testing.assert_array_equal(inference(drawn, **named)["output"], wanted)
    assert (inference(drawn, clip=50.0)["output"] != wanted).any()


def test_weights_at_the_edge_of_zero_are_the_same_when_they_are_quantized_again():
    edge = TINY * (1 + np.arange(-2**12, 2**12)[:, None] * 2.0**-18)
    integers, scale = quantized.quantize_weights(edge.astype(F32))
    assert 0 < np.count_nonzero(scale) < len(scale)
    again, same_scale = quantized.quantize_weights(integers * scale)
    np.testing.assert_array_equal(again, integers)
    np.testing.assert_array_equal(same_scale, scale)
