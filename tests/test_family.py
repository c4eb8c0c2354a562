"""Every option of a GRU: against reference.py in cases that hypothesis draws, and against itself.

Which rows, steps and threads there are beside it never changes the bits of a row; what does not
count (x past a row's end or at a masked step, d_output where the output is zero by definition)
reaches nothing. A BLAS is held to the tolerance instead (see helpers.py).
"""

from itertools import product

import numpy as np
import pytest
from family import (
    ACTIVATIONS,
    arguments,
    assert_same_without_and_into,
    build,
    by_reference,
    case,
    cases,
    ignored,
    row,
    row_of,
    run_case,
    threads,
    title,
)
from helpers import (
    F32,
    F64,
    assert_close,
    assert_same_array,
    assert_same_bits,
    error,
    kernels_of,
    run,
    same,
    tolerance,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from gru_c import GRUCell, _core

drawing = settings(deadline=None, derandomize=True, database=None, max_examples=60)
wide = cases(least_hidden=3, reverse=True)                 # for float32, too
dtypes = st.sampled_from([F32, F64])

EVERYTHING = {"layers": 2, "bidirectional": True, "ragged": ("lengths", "mask", "resets"),
              "dropout": ("output", "input", "recurrent")}
REVERSE = EVERYTHING | {"bidirectional": False, "reverse": True}
everything = pytest.mark.parametrize("options", [EVERYTHING, REVERSE], ids=["two", "reverse"])


# ---- against the reference ----------------------------------------------------------------------

@drawing
@given(cases(reverse=True), st.booleans(), st.sampled_from([1, 2]))
def test_float64(case, batch_first, count):
    gru = build(case, batch_first=batch_first)
    with threads(count):
        found = run_case(gru, case)
    assert_close(found, by_reference(case), gru)


@drawing
@given(cases(least_hidden=3, activation=False, reverse=True), st.booleans(),
       st.sampled_from([1, 2]))
def test_float32(case, batch_first, count):
    gru = build(case, F32, batch_first=batch_first)
    with threads(count):
        found = run_case(gru, case)
    assert_close(found, by_reference(case), gru)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=title)
def test_activations(activation, dtype, reset_after):
    """In either role, with clip and without; of sizes that are no multiple of anything."""
    for role, clip in product(("activation", "recurrent_activation"), (None, 0.4)):
        drawn = case(3, 5, (4, 19), reset_after=reset_after, scale=0.5, **{role: activation},
                     clip=clip)
        wanted = by_reference(drawn)
        for kernels in product(_core.core.instruction_sets(), _core.ENGINES):
            with kernels_of(*kernels):
                gru = build(drawn, dtype)
                assert_close(run_case(gru, drawn), wanted, gru)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=title)
def test_cell_and_step(activation, dtype, reset_after):
    """A GRUCell, and step of a model, are one step of it."""
    for role in ("activation", "recurrent_activation"):
        options = {role: activation, "clip": 0.4, "reset_after": reset_after}
        drawn = case(1, 5, (4, 19), scale=0.5, absent=("d_output",), **options)
        gru, cell = build(drawn, dtype), GRUCell(4, 19, dtype=dtype, **options)
        cell.load_state_dict({name[:-3]: value for name, value in gru.state_dict().items()})
        call = arguments(gru, drawn)
        wanted = run(gru, **call)
        found = {"output": cell(call["x"][0], call["h_0"][0])}
        found["dx"], found["dh_0"] = cell.backward(call["d_h_n"][0])
        found |= {f"{name}_l0": value for name, value in cell.grads.items()}
        assert_same_bits(found, {name: wanted[name] if name.endswith("_l0") else wanted[name][0]
                                 for name in found})
        assert_same_array(gru.step(call["x"][0], call["h_0"]), wanted["h_n"])


@everything
@pytest.mark.parametrize("sizes", [(5, 65), (130, 100), (3, 257)], ids=str)
def test_larger(options, sizes, dtype, reset_after):
    """More than one block of rows, more units than a panel has, and threads that share units."""
    for rows in (2, 70):
        drawn = case(4, rows, sizes, reset_after=reset_after, **options)
        gru = build(drawn, dtype)
        with threads(2):
            assert_close(run_case(gru, drawn), by_reference(drawn), gru)


# ---- the same bits ------------------------------------------------------------------------------

@drawing
@given(wide, dtypes, st.integers(0, 8))
def test_a_row_is_as_it_is_alone(case, dtype, i):
    i %= case.call["x"].shape[1]
    gru = build(case, dtype)
    results = run_case(gru, case)
    assert_same_bits(row_of(run_case(gru, row(case, i)), 0), row_of(results, i))
    stop = case.call["lengths"][i] if "lengths" in case.call else 0
    if stop:                                               # cut there instead of having a length
        assert_same_bits(row_of(run_case(gru, row(case, i, stop)), 0), row_of(results, i, stop))


@drawing
@given(wide, dtypes)
def test_threads(case, dtype):
    gru = build(case, dtype)
    wanted = run_case(gru, case)
    for count in (1, 2, 3):
        with threads(count):
            assert_same_bits(run_case(gru, case), wanted)


@drawing
@given(wide, dtypes)
def test_layouts(case, dtype):
    wanted = run_case(build(case, dtype), case)
    assert_same_bits(run_case(build(case, dtype, batch_first=True), case), wanted)


@drawing
@given(wide, dtypes, st.integers(1, 8))
def test_checkpoint(case, dtype, every):
    assert_same_bits(run_case(build(case, dtype, checkpoint=every), case),
                     run_case(build(case, dtype), case))


@drawing
@given(cases(dropout=(), least_hidden=3, reverse=True), dtypes)
def test_ways_to_the_results(case, dtype):
    """Both modes, with the output and without it, in new arrays and in the caller's."""
    gru = build(case, dtype)
    call = arguments(gru, case, backward=False)
    output, h_n = gru(**call)
    for mode in (True, False):
        gru.train(mode)
        same(gru(**call), (output, h_n))
        assert_same_without_and_into(gru, call, output, h_n)


@drawing
@given(wide, dtypes)
def test_parts_of_a_backward(case, dtype):
    """dx and gradients of parameters that nobody needs, and gradients that add up."""
    gru = build(case, dtype)
    call, deltas = arguments(gru, case, backward=False), arguments(gru, case)
    deltas = [deltas.get(name) for name in ("d_output", "d_h_n")]

    def backward(**options):
        gru(**call)
        return gru.backward(*deltas, **options)

    dx, dh_0 = backward()
    grads = dict(gru.grads)
    found = backward(need_dx=False)
    assert found[0] is None
    same((found[1], *gru.grads.values()), (dh_0, *grads.values()))
    found = backward(need_grads=False)
    same((*found, *gru.grads.values()), (dx, dh_0, *grads.values()))
    found = backward(accumulate=True)
    same(found, (dx, dh_0))
    for name, value in grads.items():
        assert error(gru.grads[name], 2 * value) <= tolerance(dtype, 100, 20, backward=True), name


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("directions", [{}, {"bidirectional": True}, {"reverse": True}], ids=str)
def test_results_over_inputs(layers, directions, dtype, reset_after):
    """out= may be x, and h_n_out= h_0; a backward does not miss them."""
    drawn = case(5, 4, (18 if "bidirectional" in directions else 9, 9), layers=layers,
                 ragged=("lengths", "mask", "resets"), reset_after=reset_after, **directions)
    gru = build(drawn, dtype)
    wanted = run_case(gru, drawn)
    for mode in (True, False):
        call = arguments(gru.train(mode), drawn, backward=False)
        output, h_n = gru(**call, out=call["x"], h_n_out=call["h_0"])
        found = {"output": output, "h_n": h_n}
        if mode:
            deltas = arguments(gru, drawn)
            found["dx"], found["dh_0"] = gru.backward(deltas["d_output"], deltas["d_h_n"])
            found |= gru.grads
        assert_same_bits(found, {name: wanted[name] for name in found})


@everything
def test_unbatched(options, dtype, reset_after):
    drawn = case(5, 1, (4, 9), reset_after=reset_after, **options)
    gru = build(drawn, dtype)
    wanted = run(gru, **arguments(gru, drawn))
    call = arguments(gru, drawn)
    alone = {name: value[:, 0] for name, value in call.items()
             if name not in ("lengths", "dropout_masks")}
    alone["lengths"] = call["lengths"][0]
    alone["dropout_masks"] = {name: value[:, 0] if name.startswith("output") else value[0]
                              for name, value in call["dropout_masks"].items()}
    found = run(gru, **alone)
    assert_same_bits(found, wanted | {name: value[:, 0] for name, value in wanted.items()
                                      if name in ("output", "h_n", "dx", "dh_0")})


def test_no_rows(dtype):
    drawn = case(5, 0, (4, 9), **EVERYTHING)
    found = run_case(build(drawn, dtype), drawn)
    assert found["output"].shape == (5, 0, 18)
    assert found["dh_0"].shape == found["h_n"].shape == (4, 0, 9)
    assert not any(found[name].any() for name in drawn.parameters)


# ---- what does not count, and bad mates ---------------------------------------------------------

poisons = pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])


@everything
@poisons
@pytest.mark.parametrize("ragged", [
    ("lengths",), ("mask",), ("lengths", "mask", "resets")], ids=str)
def test_what_does_not_count(options, ragged, poison, dtype, reset_after):
    drawn = case(7, 9, (4, 19), reset_after=reset_after, **options | {"ragged": ragged})
    gru = build(drawn, dtype)
    wanted = run_case(gru, drawn)
    no_x, no_d = ignored(drawn)
    assert no_x.any()
    assert no_d.any()
    x, d_output = drawn.call["x"].copy(), drawn.call["d_output"].copy()
    x[no_x], d_output[no_d] = poison, poison
    assert_same_bits(run_case(gru, drawn.but(x=x, d_output=d_output)), wanted)
    assert not wanted["output"][no_d].any()
    assert not wanted["dx"][no_x].any()


@everything
@poisons
@pytest.mark.parametrize("ragged", [("lengths",), ("mask",), ("resets",)], ids=str)
def test_a_row_does_not_notice_bad_mates(options, ragged, poison, dtype, reset_after):
    """Nor do the gradients of the parameters, where the bad rows have no steps."""
    drawn = case(5, 12, (4, 19), reset_after=reset_after, **options | {"ragged": ragged})
    bad = np.arange(12) % 3 == 0
    if "lengths" in ragged:
        drawn.call["lengths"][bad] = 0
    if "mask" in ragged:
        drawn.call["mask"][:, bad] = False
    gru = build(drawn, dtype)
    wanted = run_case(gru, drawn)
    poisoned = {name: drawn.call[name].copy() for name in ("x", "h_0", "d_output", "d_h_n")}
    for value in poisoned.values():
        value[:, bad] = poison
    found = run_case(gru, drawn.but(**poisoned))
    for i in np.flatnonzero(~bad):
        assert_same_bits(row_of(found, i), row_of(wanted, i))
    if "resets" not in ragged:
        same([found[name] for name in drawn.parameters],
             [wanted[name] for name in drawn.parameters])
        same([found["h_n"][:, bad], found["dh_0"][:, bad]],
             [np.full_like(found["h_n"][:, bad], poison)] * 2)


@poisons
def test_a_reset_stops_everything(poison, dtype, reset_after):
    """A state before it reaches no output, a gradient after it no state; neither a parameter."""
    drawn = case(6, 5, (4, 19), layers=2, bidirectional=True, reset_after=reset_after)
    resets = np.zeros((6, 5), bool)
    resets[[0, 5]] = True                                  # where each direction begins
    drawn = drawn.but(resets=resets)
    gru = build(drawn, dtype)
    wanted = run_case(gru, drawn)
    h_0 = np.full_like(drawn.call["h_0"], poison)
    assert_same_bits(run_case(gru, drawn.but(h_0=h_0)), wanted)
    assert not wanted["dh_0"].any()


# ---- dropout ------------------------------------------------------------------------------------

KINDS = ("dropout", "input_dropout", "recurrent_dropout")


def test_all_is_dropped(dtype, reset_after):
    """With probability 1, all multipliers are 0."""
    drawn = case(4, 3, (5, 9), reset_after=reset_after, **EVERYTHING)
    zeros = {name: np.zeros_like(mask) for name, mask in drawn.call["dropout_masks"].items()}
    wanted = run_case(build(drawn, dtype), drawn.but(dropout_masks=zeros))
    gru = build(drawn, dtype, **dict.fromkeys(KINDS, 1.0))
    assert_same_bits(run_case(gru, drawn.but(dropout_masks={})), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_multipliers(kind, dtype, reset_after):
    """In a call of one row and step, the gradients tell which columns are dropped. The others are
    multiplied by 1 / (1 - p): handing that in gives the same bits."""
    drawn = case(1, 1, (64, 80), layers=2, bidirectional=True, reset_after=reset_after)
    gru = build(drawn, dtype, **{kind: 0.25}, rng=0)
    found = run_case(gru, drawn)
    names = ("l0", "l0_reverse", "l1", "l1_reverse")
    told = {"input_dropout": {f"input_{name}": f"weight_ih_{name}" for name in names},
            "recurrent_dropout": {f"recurrent_{name}": f"weight_hh_{name}" for name in names},
            "dropout": {"output_l0": "weight_ih_l1"}}[kind]
    masks = {name: found[gradient].any(axis=0)[None] / 0.75 for name, gradient in told.items()}
    assert all(0.4 < mask.mean() * 0.75 < 0.95 for mask in masks.values())
    assert len({mask.tobytes() for mask in masks.values()}) == len(masks)
    if kind == "dropout":
        masks["output_l0"] = masks["output_l0"][None]
    assert_same_bits(run_case(build(drawn, dtype), drawn.but(dropout_masks=masks)), found)


def test_variational_masks(dtype, reset_after):
    """One a sequence: the same at all its steps, another in each row."""
    drawn = case(4, 3, (40, 9), reset_after=reset_after)
    dropped = run_case(build(drawn, dtype, input_dropout=0.5, rng=0), drawn)["dx"] == 0
    assert (dropped == dropped[0]).all()
    assert len({row.tobytes() for row in dropped[0]}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_reproducible(kind, dtype):
    """From rng; each call draws anew; eval() drops nothing."""
    drawn = case(3, 4, (5, 20), layers=2)
    first, second = (build(drawn, dtype, **{kind: 0.5}, rng=3) for _ in range(2))
    wanted = run_case(first, drawn)
    assert_same_bits(run_case(second, drawn), wanted)
    assert error(run_case(first, drawn)["output"], wanted["output"]) > 1e-3
    call = arguments(first, drawn, backward=False)
    same(first.eval()(**call), build(drawn, dtype)(**call))
