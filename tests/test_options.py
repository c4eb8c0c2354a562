"""Options of a sequence: how their arrays may lie in memory, what a call writes to, dropout's rng.

That numbers are right is tested in test_family.py; here results are compared bit for bit with those
of the plainest call.
"""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from family import (
    arguments,
    arranged,
    build,
    by_reference,
    case,
    row,
    row_of,
    run_case,
    threads,
)
from helpers import (
    F32,
    F64,
    INPUTS,
    LAYOUTS,
    assert_close,
    assert_same_bits,
    at_once,
    equal,
    normal,
    read_only,
    run,
    same,
)

import gru_c

RAGGED = ("lengths", "mask", "resets")
EVERYTHING = {"layers": 2, "bidirectional": True, "ragged": RAGGED,
              "dropout": ("output", "input", "recurrent")}
both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
both_layouts = pytest.mark.parametrize("batch_first", [False, True], ids=["time", "batch"])
kinds_of_rows = pytest.mark.parametrize("ragged", [(), *((name,) for name in RAGGED), RAGGED],
                                        ids=" ".join)


def converted(call, layout):
    """The arrays of a call in another layout."""
    return {name: converted(value, layout) if isinstance(value, dict) else layout(value)
            for name, value in call.items()}


def flat(call):
    """The arrays of a call, those of dropout_masks among them; copied."""
    return [np.array(array) for value in call.values()
            for array in (value.values() if isinstance(value, dict) else [value])]


# ---- inputs --------------------------------------------------------------------------------------

@pytest.mark.parametrize("layout", INPUTS.values(), ids=INPUTS)
@both_layouts
@pytest.mark.parametrize(("steps", "rows", "sizes"), [
    (5, 3, (3, 4)), (1, 1, (16, 16)), (1, 3, (16, 32)), (4, 1, (17, 1))], ids=str)
def test_layouts_give_the_same_bits(layout, batch_first, steps, rows, sizes, dtype, reset_after):
    """And nothing is written to: not even to an h_0 that a single step could read in place."""
    drawn = case(steps, rows, sizes, reset_after=reset_after, **EVERYTHING)
    gru = build(drawn, dtype, batch_first=batch_first)
    plain = converted(arguments(gru, drawn), np.ascontiguousarray)
    other = converted(plain, layout)
    copies = flat(other)
    assert_same_bits(run(gru, **other), run(gru, **plain))
    same(flat(other), copies)
    for name in ("dropout_masks", "d_output", "d_h_n"):
        del plain[name], other[name]
    copies = flat(other)
    same(gru.eval()(**other), gru(**plain))
    same(flat(other), copies)


@both_modes
@kinds_of_rows
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("hidden", [4, 16, 32])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_single_step_writes_to_no_input(ragged, layers, hidden, bidirectional, dtype, training):
    drawn = case(1, 1, (hidden, hidden), layers=layers, bidirectional=bidirectional, ragged=ragged)
    gru = build(drawn, dtype).train(training)
    call = arguments(gru, drawn, backward=False)
    if ragged:
        call |= {name: np.full_like(call[name], name != "mask") for name in ragged}
    frozen = converted(call, read_only)
    wanted = gru(**call)
    same(gru(**frozen), wanted)
    same(flat(frozen), flat(call))
    call["h_0"][...] = np.nan if "resets" in ragged else call["h_0"]
    kept = call["h_0"].copy()
    if "resets" in ragged:                                 # they stop even a NaN, in a copy
        same(gru(**call), wanted)
        same([call["h_0"]], [kept])


@both_layouts
def test_unbatched_options_in_other_layouts(batch_first, dtype):
    drawn = case(5, 1, (3, 4), layers=2, bidirectional=True, ragged=RAGGED)
    gru = build(drawn, dtype, batch_first=batch_first)
    call = {name: value[:, 0] if name != "lengths" else value
            for name, value in arguments(build(drawn, dtype), drawn).items()}
    wanted = run(gru, **call)
    for lengths in (int(call["lengths"][0]), np.int32(call["lengths"][0]), call["lengths"].tolist(),
                    np.array(call["lengths"][0], np.uint8)):
        assert_same_bits(run(gru, **call | {"lengths": lengths}), wanted)
    listed = {"mask": call["mask"].tolist(), "resets": tuple(call["resets"].tolist())}
    assert_same_bits(run(gru, **call | listed), wanted)


def test_broadcast_options(dtype):
    """One mask for all rows, one step for all."""
    drawn = case(5, 4, (3, 6), **EVERYTHING)
    gru = build(drawn, dtype)
    call = arguments(gru, drawn)
    call["mask"] = np.broadcast_to(call["mask"][:, :1], (5, 4))
    call["resets"] = np.broadcast_to(call["resets"][:1], (5, 4))
    call["lengths"] = np.broadcast_to(np.int8(3), 4)
    call["dropout_masks"] = {name: np.broadcast_to(mask[..., :1, :], mask.shape)
                             for name, mask in call["dropout_masks"].items()}
    assert_same_bits(run(gru, **call), run(gru, **converted(call, np.copy)))


def test_the_caller_may_reuse_options(dtype):
    """Between forward and backward, all that went in may be overwritten."""
    drawn = case(5, 4, (3, 6), **EVERYTHING)
    gru = build(drawn, dtype)
    wanted = run_case(gru, drawn)
    call = converted(arguments(gru, drawn, backward=False), np.copy)
    gru(**call)
    for name, value in call.items():
        for array in value.values() if isinstance(value, dict) else [value]:
            array[...] = 1 if name in RAGGED else np.nan
    dx, dh_0 = gru.backward(*(drawn.call[name].astype(dtype) for name in ("d_output", "d_h_n")))
    assert_same_bits({"dx": dx, "dh_0": dh_0, **gru.grads},
                     {name: value for name, value in wanted.items()
                      if name not in ("output", "h_n")})


# ---- out= and h_n_out= ---------------------------------------------------------------------------

@both_modes
@both_layouts
@kinds_of_rows
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_out(layout, ragged, batch_first, training, dtype):
    drawn = case(5, 3, (3, 5), layers=2, bidirectional=True, ragged=ragged)
    gru = build(drawn, dtype, batch_first=batch_first).train(training)
    call = arguments(gru, drawn, backward=False)
    wanted = gru(**call)
    out, h_n_out = (layout(np.full(a.shape, np.nan, dtype)) for a in wanted)
    found = gru(**call, out=out, h_n_out=h_n_out)
    assert found[0] is out
    assert found[1] is h_n_out
    same(map(np.array, found), wanted)
    if training:
        kept = {}
        for overwrite in (False, True):                    # the backward does not read them
            gru(**call, out=out, h_n_out=h_n_out)
            if overwrite:
                out[...], h_n_out[...] = np.nan, np.nan
            kept[overwrite] = [*gru.backward(wanted[0], wanted[1]), *gru.grads.values()]
        same(kept[True], kept[False])


@both_modes
@kinds_of_rows
def test_out_writes_nothing_else(ragged, training):
    for steps, rows, hidden in ((5, 3, 4), (1, 1, 4), (1, 2, 16), (4, 7, 17)):
        drawn = case(steps, rows, (3, hidden), bidirectional=True, ragged=ragged)
        gru = build(drawn, F32).train(training)
        call = arguments(gru, drawn, backward=False)
        frames = [np.full((steps + 2, rows + 3, 2 * hidden + 5), 7, F32),
                  np.full((4, rows + 3, hidden + 5), 7, F32)]
        inside = np.s_[1:-1, 2:-1, 3:-2]
        gru(**call, out=frames[0][inside], h_n_out=frames[1][inside])
        same([frame[inside] for frame in frames], gru(**call))
        for frame in frames:
            frame[inside] = 7
            assert (frame == 7).all()
        plain = np.full(2 * steps * rows * hidden + 64, 7, F32)      # nothing behind its end
        size = plain.size - 64
        gru(**call, out=plain[:size].reshape(steps, rows, 2 * hidden))
        assert (plain[size:] == 7).all()


@both_modes
@kinds_of_rows
def test_outputs_between_each_other(ragged, training):
    """Columns of one array: those of x, of the output, and in the first step those of h_n."""
    drawn = case(5, 3, (3, 4), ragged=ragged)
    gru = build(drawn, F32).train(training)
    call = arguments(gru, drawn, backward=False)
    memory = np.zeros((5, 3, 11), F32)
    x, out, h_n_out = memory[..., :3], memory[..., 3:7], memory[:1, :, 7:]
    x[...] = call["x"]
    same(gru(**call | {"x": x}, out=out, h_n_out=h_n_out), gru(**call))
    same([x, out, h_n_out, memory[1:, :, 7:]], [call["x"], *gru(**call), np.zeros((4, 3, 4), F32)])


@both_modes
@kinds_of_rows
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("steps", "rows", "hidden"), [
    (4, 3, 4), (1, 1, 16), (1, 5, 16), (3, 40, 17), (2, 1, 64)])
def test_outputs_may_overlap_inputs(steps, rows, hidden, ragged, bidirectional, training):
    """As if the inputs were read first: the same memory, memory that begins a little later or
    sooner, and memory in the other direction."""
    D = 1 + bidirectional
    drawn = case(steps, rows, (D * hidden, hidden), layers=2, bidirectional=bidirectional,
                 ragged=ragged)
    gru = build(drawn, F32).train(training)
    call = arguments(gru, drawn, backward=False)
    wanted = gru(**call)
    gradients = gradients_of(gru, wanted)
    shapes = {"x": wanted[0].shape, "h_0": wanted[1].shape,
              "out": wanted[0].shape, "h_n_out": wanted[1].shape}
    for places in overlaps(*(int(np.prod(shape)) for shape in list(shapes.values())[:2])):
        memory = np.full(4 * sum(int(np.prod(shape)) for shape in shapes.values()), np.nan, F32)
        views = {name: view(memory, place, shapes[name]) for name, place in places.items()}
        for name in ("x", "h_0"):
            if name in views:
                views[name][...] = call[name]
        found = gru(**call | views)
        same(found, wanted)
        same(gradients_of(gru, wanted), gradients)


def gradients_of(gru, deltas):
    if not gru.training:
        return []
    return [*gru.backward(*deltas), *gru.grads.values()]


def view(memory, place, shape):
    """An array at (start, step) of the memory."""
    start, step = place
    size = int(np.prod(shape))
    flat = memory[start:start + size]
    return flat[::step].reshape(shape)


def overlaps(x, h):
    """Where of x, h_0, out and h_n_out two or more may lie, x and h elements long."""
    far = 2 * (x + h)                                      # beside all else
    for shift in (0, 1, x // 2, x):
        for step in (1, -1):
            yield {"x": (0, 1), "out": (shift, step)}
            yield {"x": (shift, 1), "out": (0, step)}
    for shift in (0, 1, h // 2):
        for step in (1, -1):
            yield {"h_0": (0, 1), "h_n_out": (shift, step)}
            yield {"h_0": (shift, 1), "h_n_out": (0, step)}
            yield {"x": (0, 1), "h_n_out": (shift, step)}
            yield {"h_0": (0, 1), "out": (shift, step)}
            yield {"h_0": (shift, 1), "out": (0, step), "h_n_out": (far, 1)}
    yield {"x": (0, 1), "h_0": (x, 1), "out": (0, 1), "h_n_out": (x, 1)}
    yield {"x": (h, 1), "h_0": (0, 1), "out": (0, 1), "h_n_out": (x, 1)}
    yield {"x": (0, 1), "h_0": (x, 1), "h_n_out": (0, 1), "out": (h, 1)}


# ---- between layers, and over calls --------------------------------------------------------------

@pytest.mark.parametrize("dropout", [(), ("output",), ("input",), ("recurrent",)], ids=" ".join)
@pytest.mark.parametrize("bidirectional", [False, True])
@kinds_of_rows
def test_what_goes_up(ragged, bidirectional, dropout, dtype, reset_after):
    """A layer reads the saved states of the one below where they are its output, else a copy."""
    for sizes in ((4, 19), (16, 32)):
        drawn = case(6, 5, sizes, reset_after=reset_after, layers=3, bidirectional=bidirectional,
                     ragged=ragged, dropout=dropout)
        gru = build(drawn, dtype)
        found = run_case(gru, drawn)
        assert_close(found, by_reference(drawn), gru)
        if not dropout:
            same(gru.eval()(**arguments(gru, drawn, backward=False)),
                 [found["output"], found["h_n"]])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", ["lengths", "mask"])
def test_a_nan_that_is_held_does_not_go_up(name, bidirectional, dtype, reset_after):
    """A row that has no steps, in a model without dropout: not into a gradient, either."""
    drawn = case(5, 4, (4, 19), reset_after=reset_after, layers=2, bidirectional=bidirectional,
                 ragged=(name,))
    drawn.call[name][..., 1] = 0
    gru = build(drawn, dtype)
    wanted = run_case(gru, drawn)
    for array in ("x", "h_0", "d_output", "d_h_n"):
        drawn.call[array][:, 1] = np.nan
    found = run_case(gru, drawn)
    for array in ("h_n", "dh_0"):
        assert np.isnan(found[array][:, 1]).all()
        found[array][:, 1] = wanted[array][:, 1]
    assert_same_bits(found, wanted)


HOLDERS = {"nobody": lambda model: None, "the dict": lambda model: model.grads,
           "the arrays": lambda model: list(model.grads.values())}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("sizes", [(3, 5), (16, 16), (32, 16), (5, 32)], ids=str)
@pytest.mark.parametrize(("steps", "rows"), [(3, 2), (40, 150)])
def test_gradients_add_up(steps, rows, sizes, bidirectional, hold, dtype, reset_after):
    """From none on, whether their rows are whole lines or not; in place where nobody has them."""
    drawn = case(steps, rows, sizes, reset_after=reset_after, layers=2, bidirectional=bidirectional)
    gru, twin = build(drawn, dtype), build(drawn, dtype)
    wanted = run_case(twin, drawn)
    terms = [value.copy() for value in twin.grads.values()]
    call, deltas = arguments(gru, drawn, backward=False), arguments(gru, drawn)
    garbage = [np.full(term.shape, np.nan, dtype) for term in terms]
    del garbage                                            # else new memory held zeros
    sums = [np.zeros_like(term) for term in terms]
    held = kept = addresses = None
    for _ in range(3):
        gru(**call)
        same(gru.backward(deltas["d_output"], deltas["d_h_n"], accumulate=True),
             [wanted["dx"], wanted["dh_0"]])
        sums = [total + term for total, term in zip(sums, terms, strict=True)]
        same(gru.grads.values(), sums)
        if held:
            same(held.values() if isinstance(held, dict) else held, kept)
        elif addresses:
            assert addresses == [value.ctypes.data for value in gru.grads.values()]
        held, kept = hold(gru), sums
        addresses = [value.ctypes.data for value in gru.grads.values()]


# ---- parameters, copies --------------------------------------------------------------------------

def test_parameters_of_directions(dtype):
    gru = gru_c.GRU(3, 4, 2, bidirectional=True, dtype=dtype, rng=0)
    shapes = {f"{name}_l{layer}{end}": shape for layer in range(2) for end in ("", "_reverse")
              for name, shape in (("weight_ih", (12, 8 if layer else 3)), ("weight_hh", (12, 4)),
                                  ("bias_ih", (12,)), ("bias_hh", (12,)))}
    assert {name: value.shape for name, value in gru.state_dict().items()} == shapes
    assert list(gru.state_dict()) == list(shapes)
    other = gru_c.GRU(3, 4, 2, bidirectional=True, dtype=dtype, rng=1)
    x = normal(5, 2, 3, dtype=dtype)
    wanted = other(x)
    gru.load_state_dict(other.state_dict())
    same(gru(x), wanted)
    assert list(run(gru, x, d_output=wanted[0]))[4:] == list(shapes)
    for name, value in other.state_dict().items():         # each is one of its own
        changed = gru_c.GRU(3, 4, 2, bidirectional=True, dtype=dtype, rng=1)
        setattr(changed, name, value + 1)
        same([getattr(changed, name)], [value + 1])
        same([kept for key, kept in changed.state_dict().items() if key != name],
             [kept for key, kept in other.state_dict().items() if key != name])
        assert not equal(changed(x)[0], wanted[0])


def test_names_of_the_other_number_of_directions():
    one, two = gru_c.GRU(3, 4, 2), gru_c.GRU(3, 4, 2, bidirectional=True)
    with pytest.raises(ValueError, match=r"unexpected key\(s\): 'weight_ih_l0_reverse'"):
        one.load_state_dict(two.state_dict())
    with pytest.raises(ValueError, match=r"missing key\(s\): 'weight_ih_l0_reverse'"):
        two.load_state_dict(one.state_dict())
    with pytest.raises(AttributeError, match="no parameter 'weight_hh_l1_reverse'"):
        one.weight_hh_l1_reverse = np.zeros((12, 4), F32)
    with pytest.raises(AttributeError, match="has no attribute 'weight_hh_l2_reverse'"):
        _ = two.weight_hh_l2_reverse


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model))}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@both_modes
def test_copies_draw_the_same_masks(copied, training):
    """From their own generator: what the one draws, the other does not miss."""
    drawn = case(4, 3, (5, 8), layers=2, bidirectional=True, ragged=RAGGED)
    gru = build(drawn, F32, dropout=0.5, input_dropout=0.25, recurrent_dropout=0.125, rng=0)
    run_case(gru, drawn)
    gru.train(training)
    twin = copied(gru)
    for name in ("bidirectional", "dropout", "input_dropout", "recurrent_dropout", "training"):
        assert getattr(twin, name) == getattr(gru, name)
    assert list(twin.state_dict()) == list(gru.state_dict())
    call = arguments(gru, drawn, backward=False)
    same(twin(**call), gru(**call))
    wanted = [run_case(gru.train(), drawn) for _ in range(3)]
    for each in wanted:
        assert_same_bits(run_case(twin.train(), drawn), each)


# ---- dropout -------------------------------------------------------------------------------------

KINDS = ("dropout", "input_dropout", "recurrent_dropout")


@pytest.mark.parametrize("kind", KINDS)
def test_what_draws(kind):
    """A forward in training, where a mask is not given; nothing else."""
    def draws(call):
        before = rng.bit_generator.state
        call()
        return rng.bit_generator.state != before

    rng = np.random.default_rng(5)
    drawn = case(4, 3, (5, 8), layers=2, bidirectional=True,
                 dropout=("output", "input", "recurrent"))
    gru = build(drawn, F32, **{kind: 0.5}, rng=rng)
    x = normal(4, 3, 5)
    masks = arguments(gru, drawn)["dropout_masks"]
    assert draws(lambda: gru(x))
    assert not draws(lambda: gru.backward(None))
    assert not draws(lambda: gru(x, dropout_masks=masks))
    first = next(name for name in masks if name.startswith(kind.partition("_")[0].replace(
        "dropout", "output")))
    assert draws(lambda: gru(x, dropout_masks={first: masks[first]})) is (kind != "dropout")
    assert not draws(lambda: gru.eval()(x))
    assert not draws(lambda: gru(x, lengths=[4, 2, 0]))
    one = gru_c.GRU(5, 8, 2, **{kind: 0.5}, rng=rng)
    assert not draws(lambda: one.step(x[0]))
    assert not draws(lambda: gru_c.GRU(5, 8, 2, rng=np.random.default_rng(5))(x))
    zero = gru_c.GRU(5, 8, 2, **dict.fromkeys(KINDS, 0.0), rng=rng)
    assert not draws(lambda: zero(x))


def test_rng_is_the_generator_of_the_masks():
    x, rng = normal(3, 3, 5), np.random.default_rng(4)
    gru = gru_c.GRU(5, 8, input_dropout=0.5, rng=rng)
    assert gru.rng is rng
    state = rng.bit_generator.state
    first = gru(x)[0]
    assert rng.bit_generator.state != state
    gru.rng.bit_generator.state = state
    same(gru(x)[0], first)
    twin = pickle.loads(pickle.dumps(gru))
    assert twin.rng.bit_generator.state == rng.bit_generator.state != state
    twin.rng.bit_generator.state = state
    same(twin(x)[0], first)
    with pytest.raises(AttributeError, match="rng of a GRU cannot change"):
        gru.rng = np.random.default_rng(5)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_statistics_of_masks(p, dtype):
    """Each multiplier is 0 with probability p, else 1 / (1 - p), whatever the others are."""
    gru = gru_c.GRU(40, 50, 2, bidirectional=True, dtype=dtype, rng=1, **dict.fromkeys(KINDS, p))
    calls = gru._dropout.multipliers(None, 30, 60, True, False, True)
    names = ("output", "input", "recurrent")
    masks = {(name, index): mask for index, call in enumerate(calls)
             for name, mask in zip(names, call, strict=True) if mask is not None}
    assert masks.pop(("output", 1)) is masks["output", 0]  # both directions of a layer
    assert {key: mask.shape for key, mask in masks.items()} == {
        ("output", 0): (30, 60, 100), **{("recurrent", i): (60, 50) for i in range(4)},
        **{("input", i): (60, 100 if i > 1 else 40) for i in range(4)}}
    for mask in masks.values():
        assert mask.dtype == dtype
        assert set(np.unique(mask)) == {0, dtype(1 / (1 - p))}
        kept = (mask != 0).reshape(-1, mask.shape[-1])
        assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / kept.size)
        for axis in (0, 1):                                # neighbours know nothing of each other
            a, b = np.delete(kept, 0, axis), np.delete(kept, -1, axis)
            assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)
    pairs = [(masks[name, i], masks[name, j]) for name in names for i in range(4) for j in range(i)
             if (name, i) in masks and masks[name, i].shape == getattr(
                 masks.get((name, j)), "shape", None)]
    assert len(pairs) == 8
    for a, b in pairs:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)


@both_layouts
def test_drawn_masks_are_arranged(batch_first):
    """A batch of one row, unbatched and batched, gets the same masks."""
    drawn = case(6, 1, (5, 8), layers=2, bidirectional=True, absent=("h_0", "d_h_n"))
    plain = arguments(build(drawn, F32), drawn)
    options = {"rng": 4, "batch_first": batch_first, **dict.fromkeys(KINDS, 0.5)}
    batched, alone = build(drawn, F32, **options), build(drawn, F32, **options)
    found = run(batched, **arranged(plain, batched))
    wanted = run(alone, **{name: value[:, 0] for name, value in plain.items()})
    found["output"], found["dx"] = (found[name].reshape(wanted[name].shape)
                                    for name in ("output", "dx"))
    found["h_n"], found["dh_0"] = found["h_n"][:, 0], found["dh_0"][:, 0]
    assert_same_bits(found, wanted)


# ---- extents -------------------------------------------------------------------------------------

@pytest.mark.parametrize("bidirectional", [False, True])
def test_all_rows_have_no_steps(bidirectional, dtype, reset_after):
    drawn = case(5, 4, (3, 6), layers=2, reset_after=reset_after, bidirectional=bidirectional,
                 ragged=("mask", "resets"), dropout=("output", "input", "recurrent"))
    drawn.call["lengths"] = np.zeros(4, int)
    for name in ("x", "d_output"):
        drawn.call[name][...] = np.nan
    for mode in (True, False):
        gru = build(drawn, dtype).train(mode)
        if mode:
            found = run_case(gru, drawn)
            assert not any(found[name].any() for name in (*drawn.parameters, "dx"))
            same([found["dh_0"]], [drawn.call["d_h_n"].astype(dtype)])
        else:
            del drawn.call["dropout_masks"]
            found = dict(zip(("output", "h_n"), gru(**arguments(gru, drawn, backward=False)),
                             strict=True))
        assert not found["output"].any()
        same([found["h_n"]], [drawn.call["h_0"].astype(dtype)])


@both_layouts
@both_modes
@pytest.mark.parametrize("bidirectional", [False, True])
def test_no_rows(bidirectional, batch_first, training):
    drawn = case(5, 0, (3, 6), layers=2, bidirectional=bidirectional, ragged=RAGGED,
                 dropout=("output", "input", "recurrent") if training else ())
    gru = build(drawn, F32, batch_first=batch_first).train(training)
    call = arguments(gru, drawn, backward=False)
    output, h_n = gru(**call)
    for lead in range(3):                                  # arrays of no elements never overlap
        memory = np.zeros((6, 6, 40), F32)[:, :, 8 * lead:]
        out, h_n_out = (memory[:a.shape[0], :a.shape[1], :a.shape[2]] for a in (output, h_n))
        found = gru(**call | {"out": out, "h_n_out": h_n_out})
        assert found[0] is out
        assert found[1] is h_n_out
    if training:
        dx, dh_0 = gru.backward(output, h_n, accumulate=True)
        assert (dx.shape, dh_0.shape) == (call["x"].shape, h_n.shape)
        assert not any(value.any() for value in gru.grads.values())
        gru(**call)
        gru.backward(output, h_n, accumulate=True)
        assert not any(value.any() for value in gru.grads.values())


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_large_ragged_batches(count, bidirectional, dtype):
    """Of 300 rows on several threads, which share the rows by their lengths: many have no steps."""
    drawn = case(12, 300, (24, 40), bidirectional=bidirectional, ragged=("lengths",))
    drawn.call["lengths"][::3] = 0
    gru = build(drawn, dtype)
    with threads(count):
        found = run_case(gru, drawn)
        call = arguments(gru, drawn, backward=False)
        h_n_out = np.full(found["h_n"].shape, np.nan, dtype)
        same(gru.eval()(**call, h_n_out=h_n_out), [found["output"], found["h_n"]])
        gru.train()
    assert_close(found, by_reference(drawn), gru)
    longest = int(np.argmax(drawn.call["lengths"]))
    for i in (0, 1, 2, 150, 299, longest):
        assert_same_bits(row_of(run_case(gru, row(drawn, i)), 0), row_of(found, i))


@pytest.mark.parametrize("count", [2, 5])
def test_one_long_row_among_empty_ones(count, dtype, reset_after):
    """A thread may have no row at all."""
    drawn = case(400, 40, (16, 48), reset_after=reset_after, layers=2, ragged=("lengths",))
    drawn.call["lengths"][...] = 0
    drawn.call["lengths"][[7, 9]] = 400, 1
    gru = build(drawn, dtype)
    with threads(count):
        found = run_case(gru, drawn)
    for i in (0, 7, 9, 39):
        assert_same_bits(row_of(run_case(gru, row(drawn, i)), 0), row_of(found, i))


def test_long_sequences(reset_after):
    """A reset splits a sequence: the parts are as they are alone, with sums over all steps."""
    drawn = case(20_000, 2, (3, 5), reset_after=reset_after, ragged=("lengths",),
                 absent=("d_h_n",))
    drawn.call["lengths"][...] = 20_000, 13_333
    cut = 9_999
    resets = np.zeros((20_000, 2), bool)
    resets[cut] = True
    drawn = drawn.but(resets=resets)
    gru = build(drawn, F64)
    whole = run_case(gru, drawn)
    assert_close(whole, by_reference(drawn), gru)
    call = arguments(gru, drawn)
    first = run(gru, call["x"][:cut], call["h_0"], call["d_output"][:cut])
    second = run(gru, call["x"][cut:], None, call["d_output"][cut:],
                 lengths=call["lengths"] - cut)
    for name in ("output", "dx"):
        same([whole[name]], [np.concatenate([first[name], second[name]])])
    same([whole["h_n"], whole["dh_0"]], [second["h_n"], first["dh_0"]])


# ---- threads, memory -----------------------------------------------------------------------------

def test_many_threads_with_options(dtype):
    """In eval, threads with calls of all kinds get the bits that they get one by one."""
    gru = gru_c.GRU(9, 33, 2, bidirectional=True, dtype=dtype, dropout=0.5, rng=0).eval()
    calls = []
    for seed, (steps, rows) in enumerate([(1, 1), (2, 3), (40, 1), (7, 12), (20, 60), (5, 0)]):
        for ragged in ((), ("lengths",), ("mask",), ("resets",), RAGGED):
            drawn = case(steps, rows, (9, 33), seed=seed, layers=2, bidirectional=True,
                         ragged=ragged)
            calls.append(arguments(gru, drawn, backward=False))
    wanted = [gru(**call) for call in calls]

    def work(first):
        wrong = []
        for place in range(60):
            index = (7 * place + first) % len(calls)
            output, h_n = wanted[index]
            out = np.full(output.shape, np.nan, dtype)
            _, found = gru(**calls[index], out=out)
            _, alone = gru(**calls[index], return_output=False)
            if not (equal(out, output) and equal(found, h_n) and equal(alone, h_n)):
                wrong.append(index)
        return wrong

    with threads(3):
        assert at_once(*(lambda first=first: work(first) for first in range(6))) == [[]] * 6


def test_ragged_calls_do_not_leak():
    """Packed rows, masks, arrays between layers and copies for `out` go with their call."""
    drawn = case(6, 5, (7, 9), **EVERYTHING)
    gru = build(drawn, F32, dropout=0.5, rng=0)
    call = arguments(gru, drawn, backward=False)
    quiet = {name: value for name, value in call.items() if name != "dropout_masks"}
    output, h_n = gru(**call)

    def use():
        gru(**call)
        gru.backward(output, h_n, accumulate=True)
        gru(**quiet, return_output=False)
        gru.backward(None, h_n, need_dx=False, need_grads=False)
        gru(**quiet, out=np.repeat(output, 2, axis=2)[..., ::2], h_n_out=h_n.copy())
        gru.eval()(**quiet, out=output.copy())
        gru.train()(**quiet)
        for wrong in ({"lengths": [7] * 5}, {"mask": output}, {"resets": [True]}, {"out": h_n},
                      {"dropout_masks": {"input_l0": output}}, {"dropout_masks": {"": 1}}):
            with pytest.raises((TypeError, ValueError)):
                gru(**quiet | wrong)

    def growth():
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(250):
            use()
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        use()
        assert any(growth() < 4000 for _ in range(10))
    finally:
        tracemalloc.stop()


def test_a_step_that_nobody_reads_makes_no_output():
    drawn = case(3000, 4, (3, 32), ragged=("lengths",))
    gru = build(drawn, F32).eval()
    call = arguments(gru, drawn, backward=False)
    tracemalloc.start()
    try:
        gru(**call, return_output=False)
        assert tracemalloc.get_traced_memory()[1] < 3000 * 4 * 32 * 4 / 4
    finally:
        tracemalloc.stop()
