"""The numbers of GRU and GRUCell, on each instruction set and engine.

Against reference.py (the package's plain NumPy), against finite differences (both), and against
itself: other batch mates, layouts, modes, and ways to the result. There our own kernels promise the
same bits; a BLAS promises none, so that its engine is held to the tolerance (see helpers.py).
"""

from itertools import product

import numpy as np
import pytest
from helpers import (
    STACKED,
    assert_close,
    assert_same_array,
    assert_same_bits,
    differences,
    draw,
    error,
    expected,
    run,
    tolerance,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from gru_c import GRU, GRUCell, _core, reference

pytestmark = pytest.mark.usefixtures("kernels")

# Sizes around those of vectors (4 .. 16), panels (32, 64) and blocks (128): every pair of H and N
# and of I and N, and each with both T.
WIDTHS = (1, 3, 5, 17, 64, 65, 100, 257)
SIZES = [
    (WIDTHS[(i + 3 * j) % 8], H, N, 1 + (i + j) % 2)
    for (i, H), (j, N) in product(enumerate(WIDTHS), enumerate((1, 2, 3, 33)))
] + [
    (5, 17, 97, 4),                # three blocks of rows
    (3, 64, 3, 150),               # inference projects the inputs in several pieces
    (17, 65, 49, 40),              # both, and sums over many rows
    (1, 8, 1, 450),                # small layers: more steps than a chunk,
    (2, 40, 3, 70),                # the most rows of 40 units,
    (4, 8, 15, 70),                # of 8
    (3, 64, 2, 70),                # and of 64
]


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "I{}-H{}-N{}-T{}".format(*sizes))
def test_reference(sizes, dtype, reset_after):
    I, H, N, T = sizes  # noqa: E741
    bias = (SIZES.index(sizes) + reset_after + (dtype == np.float64)) % 2 == 0
    gru = GRU(I, H, bias=bias, dtype=dtype, reset_after=reset_after, rng=0)
    call = draw(gru, T, N)
    assert_close(run(gru, **call), expected(gru, **call), gru)


@pytest.mark.parametrize("layers", [2, 4])
def test_reference_of_layers(layers, dtype, reset_after):
    gru = GRU(17, 5, layers, dtype=dtype, reset_after=reset_after, rng=0)
    call = draw(gru, 6, 3)
    results = run(gru, **call)
    assert_close(results, expected(gru, **call), gru)
    inferred = dict(zip(("output", "h_n"), gru.eval()(call["x"], call["h_0"]), strict=True))
    assert_same_bits(inferred, {name: results[name] for name in inferred})


@st.composite
def models(draw):
    """A model of random sizes. In float32 it has at least three units: all of a result may be one
    number that nearly cancels, and its own magnitude no measure of the error.
    """
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return GRU(
        draw(st.integers(1, 70)), draw(st.integers(3 if dtype == np.float32 else 1, 70)),
        num_layers=draw(st.integers(1, 3)), bias=draw(st.booleans()), dtype=dtype,
        reset_after=draw(st.booleans()), rng=draw(st.integers(0, 9)),
    )


@settings(deadline=None, derandomize=True, database=None, max_examples=25)
@given(models(), st.integers(1, 9), st.integers(1, 60), st.sampled_from([1e-3, 1.0, 3.0]))
def test_random_sizes(gru, steps, rows, scale):
    """Gates from linear to half saturated, these in float64 alone: the bound of float32 does not
    hold where all gates of a lone row saturate (README)."""
    call = draw(gru, steps, rows)
    call["x"] *= gru.dtype.type(scale if gru.dtype == np.float64 else min(scale, 1))
    assert_close(run(gru, **call), expected(gru, **call), gru)


# ---- finite differences -------------------------------------------------------------------------

@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
def test_finite_differences(bias, reset_after):
    gru = GRU(3, 5, 2, bias=bias, dtype=np.float64, reset_after=reset_after, rng=0)
    call = draw(gru, 3, 2)
    found = run(gru, **call)
    gru.eval()

    def loss(x, h_0, **weights):
        gru.load_state_dict(weights)
        output, h_n = gru(x, h_0)
        return np.vdot(output, call["d_output"]) + np.vdot(h_n, call["d_h_n"])

    weights = {name: value.copy() for name, value in gru.state_dict().items()}
    wanted = differences(loss, {"x": call["x"], "h_0": call["h_0"], **weights})
    for name, value in wanted.items():
        assert error(found[f"d{name}" if name in ("x", "h_0") else name], value) <= 1e-7, name


def test_finite_differences_of_the_reference(reset_after):
    gru = GRU(3, 4, dtype=np.float64, reset_after=reset_after, rng=0)
    call = draw(gru, 3, 2)
    weights = {name[:-3]: value.copy() for name, value in gru.state_dict().items()}
    d_h_n = call["d_h_n"][0]

    def loss(x, h_0, **weights):
        output, _ = reference.forward(x, h_0, **weights, reset_after=reset_after)
        return np.vdot(output, call["d_output"]) + np.vdot(output[-1], d_h_n)

    arrays = {"x": call["x"], "h_0": call["h_0"][0], **weights}
    _, tape = reference.forward(**{"h": arrays["h_0"], "x": arrays["x"], **weights},
                                reset_after=reset_after)
    dx, dh_0, grads = reference.backward(tape, call["d_output"], d_h_n, weights["weight_ih"],
                                         weights["weight_hh"], reset_after)
    found = {"x": dx, "h_0": dh_0, **grads}
    for name, value in differences(loss, arrays).items():
        assert error(found[name], value) <= 1e-7, name


# ---- the same bits ------------------------------------------------------------------------------

def rows_of(call, chosen):
    """Some rows of a call, or of what results with a row a row of the batch."""
    return {name: value[:, chosen] for name, value in call.items()
            if name in ("x", "h_0", "d_output", "d_h_n", "output", "h_n", "dx", "dh_0")}


def per_row(results):
    return rows_of(results, slice(None))


panel_only = pytest.mark.parametrize(    # BLAS may choose its way by the number of rows
    "kernels", [(isa, "panel") for isa in _core.core.instruction_sets()], indirect=True,
    ids="-".join)


@panel_only
@pytest.mark.parametrize("sizes", [(17, 65), (3, 5), (2, 24), (1, 40), (4, 64), (9, 100),
                                   (20, 321)], ids=str)
def test_a_row_does_not_depend_on_its_batch(sizes, dtype, reset_after):
    """pytorch#32023. Batches of 1 .. 50 rows, of 97, and rows at other positions.

    A few rows of at most 64 units take another way than more; 5, 9, 24, 40 and 100 end in half a
    vector; the weights of 321 are asked for ahead.
    """
    gru = GRU(*sizes, dtype=dtype, reset_after=reset_after, rng=0)
    call = draw(gru, 3, 97)
    whole = run(gru, **call)
    order = np.random.default_rng(0).permutation(97)
    for rows in (*range(1, 51 if sizes[1] < 100 else 9), 33, 48, 49, 96, 97):
        for chosen in (order[:rows], slice(97 - rows, 97)):
            assert_same_bits(per_row(run(gru, **rows_of(call, chosen))), rows_of(whole, chosen))


@panel_only
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])
def test_a_row_does_not_notice_bad_mates(small, poison):
    call = draw(small, 3, 20)
    good = np.arange(20) % 3 != 0

    def results():
        found = run(small, **call)
        inferred = small.eval()(call["x"], call["h_0"])[0]
        small.train()
        return rows_of(found, good) | {"inferred": inferred[:, good]}

    wanted = results()
    for value in call.values():
        value[:, ~good] = poison
    assert_same_bits(results(), wanted)


@panel_only
@pytest.mark.parametrize(("steps", "rows", "hidden"), [
    (4, 1, 400), (4, 3, 400), (4, 50, 400), (20, 64, 64), (20, 9, 128), (3, 1, 700), (2, 2, 640),
    (5, 3, 513), (1, 300, 100)])
def test_threads_do_not_matter(steps, rows, hidden, dtype, reset_after, set_threads):
    """Neither for rows nor for sums over them. Rows are split, or where these are few, units."""
    gru = GRU(65, hidden, dtype=dtype, reset_after=reset_after, rng=0)
    call = draw(gru, steps, rows)
    set_threads(1)
    wanted = run(gru, **call)
    for count in (2, 3, 7):
        set_threads(count)
        assert_same_bits(run(gru, **call), wanted)
        assert gru.eval()(call["x"], call["h_0"])[0].tobytes() == wanted["output"].tobytes()
        gru.train()


@panel_only
@pytest.mark.parametrize("rows", [3, 64])                  # units are split, and rows
def test_threads_read_arrays_with_gaps(rows, dtype, reset_after, set_threads):
    """Each thread packs its own part of arrays whose columns are apart."""
    gru = GRU(5, 200, dtype=dtype, reset_after=reset_after, rng=0)
    call = draw(gru, 20, rows)
    apart = {name: np.repeat(value, 2, axis=-1)[..., ::2] for name, value in call.items()}
    set_threads(1)
    wanted = run(gru, **call)
    for count in (1, 2, 3):
        set_threads(count)
        assert_same_bits(run(gru, **apart), wanted)


def test_nothing_is_left_of_the_run_before(small):
    """Buffers are used again; onnxruntime#3893 and #3797 read what stood there before."""
    call = draw(small, 3, 4)
    wanted = run(small, **call)
    run(small, **{name: np.full_like(value, np.nan) for name, value in call.items()})
    assert_same_bits(run(small, **call), wanted)
    assert_same_bits(run(small, **call), wanted)


def test_absent_arrays_are_zeros(small):
    call = draw(small, 3, 4)
    for absent in (["h_0"], ["d_h_n"], ["d_output"], ["h_0", "d_output", "d_h_n"]):
        zeros = call | {name: np.zeros_like(call[name]) for name in absent}
        present = {name: value for name, value in call.items() if name not in absent}
        assert_same_bits(run(small, **present), run(small, **zeros))
    assert_same_bits(
        {"h": small.step(call["x"][0])},
        {"h": small.step(call["x"][0], np.zeros_like(call["h_0"]))},
    )


@pytest.mark.parametrize("rows", [1, 3, 50])
def test_modes_and_ways_give_the_same_bits(rows, dtype, reset_after):
    """Training, inference, a shorter sequence, and step after step."""
    gru = GRU(5, 64, 2, dtype=dtype, reset_after=reset_after, rng=0)
    call = draw(gru, 90, rows)
    output, h_n = gru(call["x"], call["h_0"])
    inferred = gru.eval()(call["x"], call["h_0"])
    assert_same_array(inferred[0], output)
    assert_same_array(inferred[1], h_n)
    assert_same_array(gru(call["x"][:7], call["h_0"])[0], output[:7])
    h = call["h_0"]
    for x_t, wanted in zip(call["x"], output, strict=True):
        h = gru.step(x_t, h)
        assert_same_array(h[-1], wanted)
    assert_same_array(h, h_n)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
def test_cell_is_one_step(bias, dtype, reset_after):
    gru = GRU(5, 17, bias=bias, dtype=dtype, reset_after=reset_after, rng=0)
    cell = GRUCell(5, 17, bias=bias, dtype=dtype, reset_after=reset_after)
    cell.load_state_dict({name[:-3]: value for name, value in gru.state_dict().items()})
    call = draw(gru, 1, 4)
    wanted = run(gru, call["x"], call["h_0"], None, call["d_h_n"])
    for rows in (slice(None), 2):                          # all, and one alone
        x, h, delta = (call[name][0, rows] for name in ("x", "h_0", "d_h_n"))
        found = {"output": cell(x, h)}
        found["dx"], found["dh_0"] = cell.backward(delta)
        assert_same_bits(found, {name: wanted[name][0, rows] for name in found})
        if rows == slice(None):
            assert_same_bits({f"{name}_l0": value for name, value in cell.grads.items()},
                             {f"{name}_l0": wanted[f"{name}_l0"] for name in cell.grads})


def test_cell_keeps_its_gates(dtype, reset_after):
    cell = GRUCell(5, 17, dtype=dtype, reset_after=reset_after, rng=0)
    rng = np.random.default_rng(0)
    x, h = rng.standard_normal((3, 5)).astype(dtype), rng.standard_normal((3, 17)).astype(dtype)
    cell(x, h)
    weights = {name: value.astype(np.float64) for name, value in cell.state_dict().items()}
    _, tape = reference.forward(
        x[None].astype(np.float64), h.astype(np.float64), **weights, reset_after=reset_after)
    [step] = tape.steps
    for got, want in ((cell.r, step.r), (cell.z, step.z), (cell.n, step.n)):
        assert error(got, want) <= tolerance(dtype, 22)
    assert_same_array(cell.x, x)
    assert_same_array(cell.hidden, h)


def swapped(call):
    """The sequences of a call or of results with the batch first; the states stay."""
    return {name: value.swapaxes(0, 1) if name in ("x", "d_output", "output", "dx") else value
            for name, value in call.items()}


@pytest.mark.parametrize("rows", [3, 100])                 # one block of rows, and two
def test_batch_first(rows, small):
    twin = GRU(5, 17, 2, batch_first=True, dtype=small.dtype, reset_after=small.reset_after)
    twin.load_state_dict(small.state_dict())
    call = draw(small, 4, rows)
    wanted = run(small, **call)
    assert_same_bits(swapped(run(twin, **swapped(call))), wanted)
    contiguous = {name: np.ascontiguousarray(value) for name, value in swapped(call).items()}
    assert_same_bits(swapped(run(twin, **contiguous)), wanted)
    assert twin.eval()(contiguous["x"])[0].flags.c_contiguous


def test_unbatched(small):
    call = draw(small, 4, 1)
    wanted = run(small, **call)
    alone = {name: value[:, 0] for name, value in call.items()}
    found = run(small, **alone)
    assert_same_bits(found, wanted | {name: value[:, 0] for name, value in per_row(wanted).items()})
    twin = GRU(5, 17, 2, batch_first=True, dtype=small.dtype, reset_after=small.reset_after)
    twin.load_state_dict(small.state_dict())               # which an unbatched call has no use for
    assert_same_bits(run(twin, **alone), found)
    assert_same_array(small.step(alone["x"][0])[:, None], small.step(call["x"][0]))


def test_an_infinite_gradient_stays_infinite():
    """The digits that a sum of biases lacks are none where it is infinite: inf, not NaN."""
    gru = GRU(2, 3, dtype=np.float64, rng=0)
    d_output = np.ones((1, 600, 3))
    d_output[0, 500] = np.inf                              # more rows come after, in another block
    gru(np.ones((1, 600, 2)))
    gru.backward(d_output)
    assert np.isinf(gru.grads["bias_ih_l0"][6:]).all()     # of the new gate


def test_no_rows_over_many_steps():
    """Sums of no rows are zero, also where as many steps of one row would need two levels."""
    gru = GRU(2, 3, dtype=np.float64, rng=0)
    for _ in range(2):                                     # the second time, memory is used again
        gru(np.ones((70_000, 1, 2)))
        gru.backward(np.ones((70_000, 1, 3)))
        gru(np.ones((70_000, 0, 2)))
        gru.backward(np.ones((70_000, 0, 3)))
        assert not any(gradient.any() for gradient in gru.grads.values())


@pytest.mark.parametrize(("layers", "steps", "rows"), [(1, 70, 70), (2, 7, 3), (1, 1, 1)])
def test_time_reversed(layers, steps, rows, dtype, reset_after):
    """Reversed layers on reversed x are the layers on x, in both modes, and so are gradients."""
    def flip(results):
        return {name: np.flip(a, 0) if name in ("x", "output", "d_output", "dx") else a
                for name, a in results.items()}

    gru = GRU(5, 20, layers, dtype=dtype, reset_after=reset_after, rng=0)
    call = draw(gru, steps, rows)
    wanted = flip(run(gru, **call))
    gru._layers = tuple(_core.Layer(layer.weights, reset_after, True,
                                    tuple(f"{name}_l{i}" for name in STACKED), True)
                        for i, layer in enumerate(gru._layers))
    found = run(gru, **flip(call))
    assert_close(found, wanted, gru)                       # weight gradients sum in another order
    names = ("output", "h_n", "dx", "dh_0")
    assert_same_bits({name: found[name] for name in names}, {name: wanted[name] for name in names})
    inferred = gru.eval()(flip(call)["x"], call["h_0"])
    assert_same_bits(dict(zip(names[:2], inferred, strict=True)),
                     {name: wanted[name] for name in names[:2]})
