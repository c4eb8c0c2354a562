"""Quantized models: the bits of int8, bfloat16 as rounded weights, memory, and what a model does.

Results with int8 are compared bit by bit with reference_quantized.py, and with those of other
batches, threads, streams and instruction sets. Files of quantized models stand at the end.
"""

import copy
import gc
import inspect
import json
import os
import pickle
import platform
import random
import re
import tracemalloc
from functools import partial
from pathlib import Path

import family
import numpy as np
import pytest
from c_calls import handled
from family import booleans, threads
from helpers import (
    BLOCKS,
    F32,
    F64,
    assert_same_bits,
    at_once,
    error,
    kernels_of,
    normal,
    promises_bits,
    python,
    same,
    tolerance,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gru_c
from gru_c import GRU, GRUCell, ReverseGRU, _checks, _core, reference_quantized
from gru_c.interop import ModelFileError, convert, files, find
from gru_c.learn import SequenceClassifier

ISAS = _core.core.instruction_sets()
KINDS = {"int8": ("int8", 8), "int8, 12 bits": ("int8", 12), "bfloat16": ("bfloat16",),
         "bfloat16, x too": ("bfloat16", 16)}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
each_bits = pytest.mark.parametrize("x_bits", [8, 12])
each_isa = pytest.mark.parametrize("isa", ISAS)
drawing = settings(deadline=None, derandomize=True, database=None, max_examples=60)


def make(*sizes, kind=("int8",), **options):
    return GRU(*(sizes or (5, 17, 2)), **{"rng": 0} | options).quantize(*kind)


def results(model, *call, **options):
    """Of a forward, in a dict."""
    return dict(zip(("output", "h_n"), model(*call, **options), strict=True))


def assert_bits(got, want):
    """Two dicts of results are the same in every bit, but a NaN is a NaN."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == value.dtype and got[name].shape == value.shape, name
        differ = (got[name] != value) & ~(np.isnan(got[name]) & np.isnan(value))
        assert not differ.any(), f"{name}: {differ.sum()} of {differ.size} differ"


def weights_of(model):
    return {name: a for name, a in model.state_dict().items() if "weight" in name}


# ---- the definition ------------------------------------------------------------------------------

@st.composite
def cases(draw, activation=False):
    """A case, and its call in float32: x of any size, h_0 beyond 1, rows of nothing or of NaN."""
    case = draw(family.cases(dropout=(), activation=activation, least_hidden=1, reverse=True))
    call = {name: family.converted(case.call[name], F32) for name in
            ("x", "h_0", "lengths", "mask", "resets") if name in case.call}
    call["x"] *= F32(draw(st.sampled_from([1, 1e-3, 30])))
    if "h_0" in call:
        call["h_0"] *= F32(draw(st.sampled_from([0.1, 1, 5])))
    x = call["x"]
    for value in draw(st.lists(st.sampled_from(
            [np.nan, np.inf, -np.inf, 3e38, -1e30, 1e-30, 1e-40, 2**-100, -0.0]), max_size=2)):
        x[draw(st.integers(0, len(x) - 1)), draw(st.integers(0, x.shape[1] - 1)),
          draw(st.just(slice(None)) | st.just(0))] = value
    return case, call


def defined(case, call, **options):
    """By reference_quantized.py."""
    kept = ("reset_after", "activation", "recurrent_activation", "clip", "reverse")
    return reference_quantized.run(
        family.converted(case.parameters, F32), **call, **options,
        **{name: value for name, value in case.model.items() if name in kept})


@each_isa
@drawing
@given(cases(), st.sampled_from([8, 12]), st.integers(1, 3))
def test_the_bits_of_the_definition(isa, drawn, x_bits, count):
    case, call = drawn
    with kernels_of(isa, _core.engine), threads(count):
        model = family.build(case, F32).quantize("int8", x_bits)
        assert_bits(results(model, **call), defined(case, call, weights="int8", x_bits=x_bits))


@each_isa
@each_bits
@pytest.mark.parametrize("sizes, rows", [((64, 256), 1), ((300, 129), 5), ((3, 600), 2),
                                         ((513, 70), 67), ((4, 16), 300)], ids=str)
def test_the_bits_of_larger_layers(isa, x_bits, sizes, rows, reset_after):
    """Several panels, rows that fill microtiles or not, both ways to share work."""
    case = family.case(4, rows, sizes, reset_after=reset_after, layers=2)
    call = {name: family.converted(case.call[name], F32) for name in ("x", "h_0")}
    wanted = defined(case, call, weights="int8", x_bits=x_bits)
    with kernels_of(isa, _core.engine):
        model = family.build(case, F32).quantize("int8", x_bits)
        for count in (1, 2):
            with threads(count):
                assert_bits(results(model, **call), wanted)


@drawing
@given(cases(activation=True), st.sampled_from([8, 12]))
def test_the_same_bits_on_every_instruction_set(drawn, x_bits):
    """Whatever the activations."""
    case, call = drawn
    found = []
    for isa in ISAS:
        with kernels_of(isa, _core.engine):
            found.append(results(family.build(case, F32).quantize("int8", x_bits), **call))
    for other in found[1:]:
        assert_bits(other, found[0])


def digest():
    """The bits that models give in this process."""
    import hashlib

    import numpy as np

    import gru_c

    bits = hashlib.sha256()
    for options in ({}, {"reset_after": False}, {"bidirectional": True}, {"activation": "elu"}):
        for x_bits in (8, 12):
            gru = gru_c.GRU(70, 130, num_layers=2, rng=0, **options).quantize("int8", x_bits)
            x = np.random.default_rng(0).standard_normal((5, 3, 70), np.float32)
            for a in (*gru(x), *gru.state_dict().values()):
                bits.update(a.tobytes())
    return bits.hexdigest()


@pytest.mark.parametrize("environment", [
    *({"GRU_C_ISA": isa} for isa in ISAS), {"GRU_C_NUM_THREADS": "1"},
    {"GRU_C_ENGINE": "blas"}], ids=lambda value: "=".join(*value.items()))
def test_the_same_bits_in_another_process(environment):
    code = f"{inspect.getsource(digest)}\nprint(digest())"
    assert python(code, **environment).strip() == digest()


FUNCTIONS = [("sigmoid", "tanh", None), ("hard_sigmoid", "relu", 2.0),
             ("sigmoid", "softsign", None), ("sigmoid", "tanh", 0.5),
             ("hard_sigmoid", {"name": "elu", "alpha": 0.5}, None)]


@each_kind
@pytest.mark.parametrize("functions", FUNCTIONS, ids=str)
@pytest.mark.parametrize("options", [
    {}, {"layers": 2, "bidirectional": True}, {"bias": False, "reverse": True},
    {"ragged": ("lengths", "resets")}, {"ragged": ("mask",), "layers": 2}], ids=str)
def test_near_the_float_model(kind, functions, options, reset_after):
    recurrent, new, clip = functions
    case = family.case(9, 4, (5, 33), reset_after=reset_after, scale=0.5, activation=new,
                       recurrent_activation=recurrent, clip=clip, **options)
    model = family.build(case, F32).eval()
    call = family.arguments(model, case, backward=False)
    wanted, found = results(model, **call), results(model.quantize(*kind), **call)
    for name, value in found.items():
        off = np.abs(value - wanted[name]).max()
        assert 1e-5 < off < {"int8": 0.04, "bfloat16": 0.01}[kind[0]], name


def test_more_bits_are_nearer():
    gru, x = GRU(40, 50, rng=0).eval(), 10 * normal(20, 8, 40)
    eight, twelve = (np.square(gru.quantize("int8", bits)(x)[0] - gru(x)[0]).mean()
                     for bits in (8, 12))
    assert twelve < eight / 2


# ---- weights -------------------------------------------------------------------------------------

any_weights = st.one_of(st.floats(-1, 1, width=32), st.floats(width=32),
                        st.sampled_from([0.0, -0.0, 2.0**-100, 2.0**-101, 1e-42, 3.4e38]))


@drawing
@given(st.lists(any_weights, min_size=1, max_size=9), st.sampled_from([*KINDS.values()]))
@example([2.0**-100], ("int8",))
@example([127 * 2.0**-107], ("int8",))
@example([-3.4028234663852886e38], ("int8",))
@example([3.4028234663852886e38], ("bfloat16",))
def test_weights_as_defined(row, kind):
    """Of any row; and what a model says its weights are makes them again, with all its results."""
    rows = np.zeros((3, len(row)), F32)
    rows[1] = row
    cell = GRUCell(len(row), 1, rng=0)
    cell.weight_ih = rows
    small = cell.quantize(*kind)
    with np.errstate(invalid="ignore"):
        wanted = reference_quantized.effective(cell.state_dict(), kind[0])
    assert_bits(small.state_dict(), wanted)
    again = copy.deepcopy(small)
    again.load_state_dict(small.state_dict())
    assert_bits(again.state_dict(), wanted)
    for model in (cell, small):
        assert all(a.dtype == F32 and not a.flags.writeable for a in model.state_dict().values())


@each_kind
def test_a_weight_is_rounded_as_it_comes(kind):
    """By assignment, by load_state_dict, block by block: as if quantized at the end."""
    gru, small = GRU(5, 7, 2, rng=0), make(5, 7, 2, rng=1, kind=kind)
    small.load_state_dict(gru.state_dict())
    wanted = gru.quantize(*kind)
    assert_same_bits(small.state_dict(), wanted.state_dict())
    gru.weight_hh_l1 = normal(21, 7)
    small.weight_hh_l1 = normal(21, 7)
    small.bias_ih_l0 = gru.bias_ih_l0 = normal(21)
    x = normal(4, 3, 5)
    assert_same_bits(results(small, x), results(gru.quantize(*kind), x))
    cell, small = GRUCell(5, 7, rng=0), GRUCell(5, 7, rng=1).quantize(*kind)
    blocks = {name: getattr(cell, name) for name in BLOCKS}
    small.init_weights(**blocks)
    assert_same_bits(small.state_dict(), cell.quantize(*kind).state_dict())
    for name in BLOCKS:
        value = normal(*blocks[name].shape, seed=ord(name[1]))
        setattr(cell, name, value)
        setattr(small, name, value)
    wanted = cell.quantize(*kind)
    assert_same_bits(small.state_dict(), wanted.state_dict())
    for name in BLOCKS:
        assert (getattr(small, name) == getattr(wanted, name)).all()
    same([small(x[0])], [wanted(x[0])])


@each_kind
def test_other_parameters_are_left_alone(kind):
    """An assignment rounds nothing a second time, a load that is refused changes nothing."""
    model, x = make(kind=kind), normal(4, 3, 5)
    before, output = model.state_dict(), model(x)[0]
    model.weight_ih_l0 = model.weight_ih_l0
    assert_same_bits(model.state_dict(), before)
    for wrong in (before | {"bias_hh_l0": np.zeros(3, F32)}, before | {"extra": 1}):
        with pytest.raises(ValueError, match="cannot load into GRU"):
            model.load_state_dict(wrong)
    with pytest.raises(TypeError, match="does not match weight dtype"):
        model.weight_ih_l0 = before["weight_ih_l0"].astype(F64)
    same([model(x)[0]], [output])


# ---- bfloat16 ------------------------------------------------------------------------------------

def with_rounded_weights(case):
    gru = family.build(case, F32)
    gru.load_state_dict(reference_quantized.effective(gru.state_dict(), "bfloat16"))
    return gru.eval()


@each_isa
@drawing
@given(family.cases(dropout=(), reverse=True, least_hidden=3))
def test_bfloat16_is_a_float_model_of_rounded_weights(isa, case):
    """Sums are in another order in small layers alone."""
    with kernels_of(isa, _core.engine):
        model = family.build(case, F32).quantize("bfloat16")
        wanted = with_rounded_weights(case)
        assert_same_bits(model.state_dict(), wanted.state_dict())
        call = family.arguments(model, case, backward=False)
        found, wanted = results(model, **call), results(wanted, **call)
    for name, value in wanted.items():
        assert error(found[name], value) <= 4 * tolerance(F32, 66, 7 * 3), name


@pytest.mark.parametrize("sizes, rows", [((64, 256), 1), ((300, 128), 5), ((7, 600), 2),
                                         ((1024, 72), 67), ((63, 68), 300)], ids=str)
def test_bits_of_bfloat16(sizes, rows, reset_after):
    """Of layers beyond the small ones, where sums have blocks of even length, or one block."""
    case = family.case(4, rows, sizes, reset_after=reset_after, layers=2, ragged=("lengths",))
    wanted, model = with_rounded_weights(case), family.build(case, F32).quantize("bfloat16")
    call = family.arguments(model, case, backward=False)
    for count in (1, 2):
        with threads(count):
            if promises_bits():
                assert_bits(results(model, **call), results(wanted, **call))


# ---- both factors in bfloat16 --------------------------------------------------------------------

@each_isa
@pytest.mark.parametrize("sizes, rows", [
    ((64, 256), 1), ((301, 129), 5), ((3, 600), 2), ((513, 70), 67), ((4, 16), 31), ((1, 1), 3),
    ((17, 5), 6), ((70, 40), 4), ((130, 1001), 9)], ids=str)
def test_a_step_of_both_in_bfloat16(isa, sizes, rows, reset_after):
    """Half vectors, odd sums, all heights of microtiles. r is 1, so that q is rounded as h is."""
    case, H = family.case(1, rows, sizes, reset_after=reset_after), sizes[1]
    if not reset_after:
        case.parameters["bias_ih_l0"][:H] = 200
    call = {name: family.converted(case.call[name], F32) for name in ("x", "h_0")}
    wanted = defined(case, call, weights="bfloat16", x_bits=16)
    with kernels_of(isa, _core.engine):
        model = family.build(case, F32).quantize("bfloat16", 16)
        for count in (1, 2):
            with threads(count):
                found = results(model, **call)
        weights_alone = results(family.build(case, F32).quantize("bfloat16"), **call)
    for name, value in wanted.items():
        assert error(found[name], value) < tolerance(F32, max(sizes)), name
        assert error(weights_alone[name], value) > 1e-4, name


@each_isa
@drawing
@given(cases())
def test_both_in_bfloat16_near_the_definition(isa, drawn):
    """A state at the middle between two numbers may be rounded to the other one."""
    case, call = drawn
    with kernels_of(isa, _core.engine):
        found = results(family.build(case, F32).quantize("bfloat16", 16), **call)
    for name, value in defined(case, call, weights="bfloat16", x_bits=16).items():
        assert (np.isnan(found[name]) == np.isnan(value)).all(), name
        largest = np.nanmax(np.abs(value), initial=1)
        assert np.nanmax(np.abs(found[name] - value), initial=0) < 0.02 * largest, name


@each_isa
@pytest.mark.parametrize("bits", [0x7F800001, 0xFFBFFFFF, 0x7FFFFFFF, 0x7F800000, 0xFF800000])
def test_numbers_that_are_not_finite_stay_so_in_bfloat16(isa, bits):
    """A NaN stays one even if its high half is that of an infinity."""
    with kernels_of(isa, _core.engine):
        cell = GRUCell(2, 1, bias=False, rng=0)
        cell.weight_ih = np.array([[1, 0]] * 3, F32)
        x = np.array([[bits, 0], [0, 0]], np.uint32).view(F32)
        h = cell.quantize("bfloat16", 16)(x)
    wanted = cell.eval()(x)
    np.testing.assert_allclose(h, wanted, rtol=1e-6)
    assert np.isnan(wanted[0, 0]) == (bits & 0x7FFFFFFF > 0x7F800000) and wanted[1, 0] == 0


@each_isa
def test_processors_with_products_of_bfloat16_use_them(isa):
    """They take denormals for zero, which nothing else does."""
    try:
        flags = re.findall("^flags.*", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        pytest.skip("only Linux says what a processor has")
    uses = isa == "avx512" and " avx512_bf16" in flags[0]
    assert _core.core.bfloat16_products(isa) == ("avx512bf16" if uses else "as float32")
    with kernels_of(isa, _core.engine):
        cell = GRUCell(1, 1, bias=False, rng=0)
        cell.weight_ih = np.array([[0], [0], [2.0**120]], F32)
        h = cell.quantize("bfloat16", 16)(np.full((1, 1), 2.0**-130, F32))
    assert h[0, 0] == (0 if uses else pytest.approx(2.0**-11, rel=1e-3))


# ---- rows, steps, threads ------------------------------------------------------------------------

@drawing
@given(cases(activation=True), st.sampled_from([*KINDS.values()]))
def test_rows_are_independent(drawn, kind):
    """A row alone, of its own length, has the bits that it has in the batch; a NaN stays in it."""
    case, call = drawn
    model = family.build(case, F32).quantize(*kind)
    found = results(model, **call)
    for i in range(call["x"].shape[1]):
        stop = call["lengths"][i] if "lengths" in call else len(call["x"])
        if not stop:
            continue
        own = {name: a[:stop, i:i + 1] if name in family.SEQUENCES else a[:, i:i + 1]
               for name, a in call.items() if name != "lengths"}
        assert_bits(results(model, **own), {"output": found["output"][:stop, i:i + 1],
                                            "h_n": found["h_n"][:, i:i + 1]})


@each_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_nan_does_not_leave_its_row(kind, bad, reset_after):
    model, x = make(5, 17, kind=kind, reset_after=reset_after), normal(6, 4, 5)
    wanted = model(x)[0]
    x[2, 1, 3] = bad
    output = model(x)[0]
    same([np.delete(output, 1, axis=1), output[:2]], [np.delete(wanted, 1, axis=1), wanted[:2]])
    assert np.isnan(output[2:, 1]).all() or kind[0] == "bfloat16"
    h_0 = np.zeros((1, 4, 17), F32)
    h_0[0, 2, 5] = bad
    output = model(x, h_0)[0]
    same([output[:, [0, 3]]], [wanted[:, [0, 3]]])


@each_kind
@pytest.mark.parametrize("sizes, rows, steps", [((64, 256), 1, 20), ((5, 17, 2), 67, 9),
                                                ((300, 130), 6, 5), ((3, 4), 1100, 3)], ids=str)
def test_threads_and_streams(kind, sizes, rows, steps, reset_after):
    model = make(*sizes, kind=kind, reset_after=reset_after)
    x = normal(steps, rows, sizes[0])
    with threads(1):
        output, h_n = model(x)
    for count in (2, 3):
        with threads(count):
            same(model(x), (output, h_n))
    first, again = (model(part, h) for part, h in ((x[:2], None), (x[2:], model(x[:2])[1])))
    same([np.concatenate([first[0], again[0]]), again[1]], [output, h_n])
    same(model(x, return_output=False)[1:], [h_n])
    h = None
    for t in range(2):
        h = model.step(x[t], h)
        same([h[-1]], [output[t]])
    for num_threads in (1, 2):
        stream = model.stream(rows, num_threads)
        same([stream.step(x[0]), stream.run(x[1:]), stream.state], [output[0], output[1:], h_n])
        assert repr(model) in repr(stream)
        same([pickle.loads(pickle.dumps(stream)).step(x[0])], [stream.step(x[0])])


@each_kind
def test_cells_and_layouts(kind):
    """A cell, batch_first, an unbatched x and a model in C give the bits of the plain call."""
    gru, x = GRU(5, 17, rng=0), normal(6, 3, 5)
    model = gru.quantize(*kind)
    output, h_n = model(x)
    cell = GRUCell.from_state_dict({name.removesuffix("_l0"): a
                                    for name, a in gru.state_dict().items()}).quantize(*kind)
    h = cell(x[0])
    same([h, cell(x[1], h), cell(x[1, 0], h[0])], [*output[:2], output[1, 0]])
    first = GRU.from_state_dict(gru.state_dict(), batch_first=True).quantize(*kind)
    same(first(x.swapaxes(0, 1)), (output.swapaxes(0, 1), h_n))
    same(model(x[:, 0]), (output[:, 0], h_n[:, 0]))
    for count in (1, 2):
        calls = handled(model, count)
        assert_same_bits(calls.forward_of({"x": x}), {"output": output, "h_n": h_n})
        assert_same_bits(calls.stream_of({"x": x}, 4, begin=2), {"output": output, "h_n": h_n})
    out, h_n_out = np.zeros((6, 17, 3), F32).swapaxes(1, 2), np.zeros_like(h_n)
    model(x, out=out, h_n_out=h_n_out)
    same([out, h_n_out], [output, h_n])


def test_callers_at_once():
    model, x = make(32, 200), normal(20, 4, 32)
    wanted = model(x)
    for found in at_once(*[lambda: [model(x) for _ in range(20)]] * 4):
        for one in found:
            same(one, wanted)


def test_pad_sequences():
    model = make(5, 17)
    sequences = [normal(steps, 5) for steps in (3, 7, 1)]
    x, lengths = gru_c.pad_sequences(sequences)
    output, _ = model(x, lengths=lengths)
    for found, sequence in zip(gru_c.unpad_sequences(output, lengths), sequences, strict=True):
        same([found], [model(sequence)[0]])


# ---- memory --------------------------------------------------------------------------------------

@pytest.mark.parametrize("sizes", [(64, 256), (256, 256), (512, 1024), (64, 256, 2)], ids=str)
@pytest.mark.parametrize("kind, most", [(("int8",), 0.28), (("int8", 12), 0.28),
                                        (("bfloat16",), 0.52)], ids=str)
def test_memory_of_weights(sizes, kind, most):
    gru = GRU(*sizes, rng=0).eval()
    arrays = sum(a.nbytes for a in gru.state_dict().values())
    assert gru.nbytes > 1.9 * arrays                       # as arrays, and packed
    assert gru.train().nbytes > 2.9 * arrays
    small = gru.quantize(*kind)
    biases = sum(a.nbytes for name, a in small.state_dict().items() if "bias" in name)
    assert small.nbytes - biases <= most * (gru.eval().nbytes - arrays)


@each_kind
def test_no_float_copy_is_kept(kind):
    """What a model holds is what `nbytes` says, after calls and reads of its weights, too."""
    make(kind=kind)(normal(2, 2, 5))                       # what the first call loads
    x = normal(2, 1, 64)
    gc.collect()
    tracemalloc.start()
    try:
        model = make(64, 256, kind=kind)
        model(x)
        assert len(model.state_dict()) == 4
        model.weight_hh_l0 = model.weight_hh_l0
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert model.nbytes <= held < model.nbytes + 60_000
    assert not any(isinstance(a, np.ndarray) and a.nbytes >= 4 * 64 * 256
                   for a in gc.get_referents(*model._layers))


RESIDENT = """
import os, sys
import numpy as np, gru_c
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
gru_c.GRU(3, 4).quantize("int8")
before = resident()
model = gru_c.GRU(1024, 1024, rng=0).quantize(sys.argv[1])
model(np.zeros((1, 1, 1024), np.float32))
print(resident() - before - model.nbytes)
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="only on Linux")
@pytest.mark.parametrize("weights", ["int8", "bfloat16"])
def test_resident_memory(weights):
    """The float model is given back to the system: 25 MB as arrays, as much packed."""
    # Else glibc raises the threshold to 25 MB, and what is free lies below what is not.
    assert int(python(RESIDENT, weights, MALLOC_MMAP_THRESHOLD_="65536")) < 5e6


# ---- the model -----------------------------------------------------------------------------------

@each_kind
@pytest.mark.parametrize("training", [True, False])
def test_the_float_model_is_not_changed(kind, training):
    gru, x = GRU(5, 7, 2, rng=0).train(training), normal(4, 3, 5)
    before, output = gru.state_dict(), gru(x)[0]
    small = gru.quantize(*kind)
    small.weight_ih_l0 = np.ones((21, 5), F32)
    small(x)
    assert gru.training is training and small.training is False
    assert (gru.quantization, gru.x_bits) == (None, None)
    assert_same_bits(gru.state_dict(), before)
    same([gru(x)[0]], [output])
    if training:
        gru.backward(output)
        assert gru.grads.keys() == before.keys()
    with pytest.raises(RuntimeError, match="no gradients yet"):
        _ = small.grads
    gru.metadata["a"] = "1"
    assert small.metadata == {}


def test_attributes_and_repr():
    for kind, shown in ((("int8",), ", quantization='int8', x_bits=8)"),
                        (("int8", np.int64(12)), ", quantization='int8', x_bits=12)"),
                        (("bfloat16", None), ", quantization='bfloat16')"),
                        (("bfloat16", 16), ", quantization='bfloat16', x_bits=16)")):
        for model in (GRU(3, 4, clip=2.0, checkpoint=3), ReverseGRU(3, 4, 2), GRUCell(3, 4)):
            plain = repr(model)
            small = model.quantize(*kind)
            assert repr(small) == plain.removesuffix(")") + shown
            assert repr(model) == plain and "quantization" not in plain
            assert type(small) is type(model) and small.dtype == F32
            assert (small.quantization, small.x_bits) == (kind if len(kind) > 1 else ("int8", 8))
            assert type(small.x_bits) in (int, type(None))
            assert type(small.nbytes) is int


@pytest.mark.parametrize("name", ["quantization", "x_bits", "nbytes"])
@pytest.mark.parametrize("model", [GRU(3, 4), make(), GRUCell(3, 4).quantize("int8")], ids=repr)
def test_what_cannot_be_assigned(model, name):
    kind = type(model).__name__
    before = getattr(model, name)
    with pytest.raises(AttributeError, match=f"^{name} of a {kind} cannot change: make a new mod"):
        setattr(model, name, before)
    with pytest.raises(AttributeError, match=f"^{name} of a {kind} cannot be deleted"):
        delattr(model, name)
    assert getattr(model, name) == before


@pytest.mark.parametrize("arguments, kind, message", [
    (("int4",), ValueError, "weights must be 'int8' or 'bfloat16', got 'int4'"),
    ((None,), ValueError, "weights must be 'int8' or 'bfloat16', got None"),
    ((np.int8,), ValueError, "weights must be 'int8' or 'bfloat16', got <class 'numpy.int8'>"),
    (("int8", 9), ValueError, "x_bits must be 8 or 12 with int8, 16 or None with bfloat16; got 9 "
     "with int8"),
    (("int8", 16), ValueError, "8 or 12 with int8, 16 or None with bfloat16; got 16 with int8"),
    (("int8", 12.0), TypeError, "x_bits should be of type int, got: float"),
    (("int8", True), TypeError, "x_bits should be of type int, got: bool"),
    (("bfloat16", 8), ValueError, "16 or None with bfloat16; got 8 with bfloat16"),
    (("bfloat16", "16"), TypeError, "x_bits should be of type int, got: str"),
], ids=str)
def test_arguments_that_are_wrong(arguments, kind, message):
    for model in (GRU(3, 4), GRUCell(3, 4)):
        with pytest.raises(kind, match=re.escape(message)):
            model.quantize(*arguments)


@each_kind
def test_models_that_cannot_be_quantized(kind):
    for model in (GRU(3, 4, dtype=F64), GRUCell(3, 4, dtype=F64)):
        with pytest.raises(ValueError, match=r"only a float32 model.* this one is float64"):
            model.quantize(*kind)
    with pytest.raises(ValueError, match="the model has int8 weights already: quantize the float"):
        make().quantize(*kind)


@pytest.mark.parametrize("x_bits, most", [(8, 133_144), (12, 8_260)])
def test_columns(x_bits, most):
    """As many as have exact sums in 32 bits, all of the largest integers; and no more."""
    assert most * 127 * (2**(x_bits - 1) - 1) < 2**31 <= (most + 1) * 127 * (2**(x_bits - 1) - 1)
    cell = GRUCell(most, 1, bias=False, rng=0)
    cell.init_weights(**{name: np.full(getattr(cell, name).shape, 1 / most, F32)
                         for name in BLOCKS if name[0] == "W"})
    for isa in ISAS:
        with kernels_of(isa, _core.engine):
            small = cell.quantize("int8", x_bits)
            for sign in (1, -1):
                x, h = np.full((1, most), sign, F32), np.zeros((1, 1), F32)
                none = np.zeros(3, F32)
                wanted, _ = reference_quantized.forward(x[None], h, cell.weight_ih, cell.weight_hh,
                                                        none, none, x_bits=x_bits)
                same([small(x, h)], [wanted[0]])
    wide = GRUCell(most + 1, 1, rng=0)
    with pytest.raises(ValueError, match=f"^weight_ih has {most + 1} columns: with x_bits={x_bits} "
                                         f"sums of int8 are exact up to {most}"):
        wide.quantize("int8", x_bits)
    assert wide.quantize("bfloat16").quantization == "bfloat16"


@each_kind
def test_training_is_refused(kind):
    for model, x in ((make(kind=kind), normal(4, 3, 5)),
                     (GRUCell(5, 7).quantize(*kind), normal(3, 5))):
        before = model(x)
        for train in (model.train, lambda model=model: setattr(model, "training", True)):
            with pytest.raises(ValueError, match=f"a model with {kind[0]} weights cannot be train"):
                train()
        assert model.training is False and model.eval() is model.train(False) is model
        with pytest.raises(RuntimeError, match=f"a model with {kind[0]} weights has no backward"):
            model.backward(before[0] if isinstance(model, GRU) else before)
        with pytest.raises(RuntimeError, match="no gradients yet"):
            _ = model.grads
        same(model(x), before)
        assert model.handle().training is False


@each_kind
def test_options_of_training_stay(kind):
    """They have no effect, and a generator is not advanced."""
    gru = GRU(5, 7, 2, dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5, checkpoint=3, rng=0)
    plain = GRU.from_state_dict(gru.state_dict()).quantize(*kind)
    small, x = gru.quantize(*kind), normal(9, 3, 5)
    state = gru.rng.bit_generator.state
    same(small(x), plain(x))
    assert (small.dropout, small.recurrent_dropout, small.checkpoint) == (0.5, 0.5, 3)
    assert gru.rng.bit_generator.state == state
    with pytest.raises(ValueError, match="dropout_masks"):
        small(x, dropout_masks={})


FRESH = """
import pickle, sys
import numpy as np
with open(sys.argv[1], "rb") as file:
    model, x = pickle.load(file)
assert "gru_c._core.kernels_avx2" not in sys.modules or True
with open(sys.argv[1], "wb") as file:
    pickle.dump((repr(model), model(x)), file)
"""


class Doubled(GRU):
    """A subclass with a forward and an attribute of its own, at the top of the file for pickle."""

    note = "mine"

    def forward(self, x, *arguments, **options):
        output, h_n = super().forward(x, *arguments, **options)
        return 2 * output, h_n


@each_kind
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy,
                                       lambda model: pickle.loads(pickle.dumps(model))],
                         ids=["copy", "deepcopy", "pickle"])
def test_copies(kind, duplicate):
    x = normal(3, 5)
    for model in (make(kind=kind), ReverseGRU(5, 7).quantize(*kind), GRUCell(5, 7).quantize(*kind)):
        model.metadata = {"a": "1"}
        model.other = [1]
        again = duplicate(model)
        assert repr(again) == repr(model) and again.training is False
        assert again.metadata == {"a": "1"} and again.other == [1] and again.nbytes == model.nbytes
        assert_same_bits(again.state_dict(), model.state_dict())
        same([*again(x)], [*model(x)])
        before = model.state_dict()
        again.load_state_dict({name: 0 * a for name, a in before.items()})
        assert_same_bits(model.state_dict(), before)
        with pytest.raises(ValueError, match="cannot be trained"):
            again.train()


@each_kind
def test_a_pickle_in_a_fresh_process(kind, tmp_path):
    model, x, path = make(70, 80, kind=kind), normal(4, 3, 70), tmp_path / "pickle"
    path.write_bytes(pickle.dumps((model, x)))
    assert python(FRESH, str(path)) == ""
    text, found = pickle.loads(path.read_bytes())
    assert text == repr(model)
    same(found, model(x))


@each_kind
def test_a_subclass(kind):
    model, x = Doubled(5, 7, rng=0), normal(4, 3, 5)
    model.extra = [1]
    small, plain = model.quantize(*kind), GRU(5, 7, rng=0).quantize(*kind)
    assert type(small) is Doubled and small.extra == [1] and small.note == "mine"
    same([small(x)[0]], [2 * plain(x)[0]])
    assert repr(small) == repr(plain).replace("GRU", "Doubled", 1)


def test_a_model_whose_init_did_not_run():
    model = GRU.__new__(GRU)
    with pytest.raises(AttributeError):
        model.quantize("int8")


@each_kind
def test_a_call_keeps_its_weights(kind):
    """While another thread loads others: one model or the other, nothing between."""
    model, x = make(20, 30, kind=kind), normal(50, 2, 20)
    states = [make(20, 30, kind=kind, rng=seed).state_dict() for seed in range(2)]
    wanted = []
    for state in states:
        model.load_state_dict(state)
        wanted.append(model(x)[0].tobytes())

    def load():
        for i in range(100):
            model.load_state_dict(states[i % 2])

    _, found = at_once(load, lambda: {model(x)[0].tobytes() for _ in range(100)})
    assert found <= set(wanted)


# ---- other formats -------------------------------------------------------------------------------

def to_file(method, suffix, read):
    def through(model, folder):
        path = folder / f"model.{suffix}"
        getattr(model, method)(path)
        return getattr(GRU, read)(path)
    return through


THROUGH = {
    "a state dict": lambda model, _: GRU.from_state_dict(model.state_dict()),
    "PyTorch": lambda model, _: GRU.from_torch(model.to_torch()),
    "a file of PyTorch": lambda model, folder: (
        model.to_torch(path=folder / "model.pt"), GRU.from_torch(folder / "model.pt"))[1],
    "Keras": lambda model, _: GRU.from_keras(model.to_keras(), batch_first=False),
    "Flax": lambda model, _: GRU.from_flax(model.to_flax()),
    "Equinox": lambda model, _: GRU.from_equinox(model.to_equinox()),
    "RTNeural": to_file("to_rtneural", "json", "from_rtneural"),
    "ONNX": to_file("to_onnx", "onnx", "from_onnx"),
}


@each_kind
@pytest.mark.parametrize("through", THROUGH.values(), ids=THROUGH)
def test_other_formats_get_the_weights_that_products_use(kind, through, tmp_path):
    if through is THROUGH["ONNX"]:
        pytest.importorskip("onnx")
    model = make(5, 7, kind=kind)
    found = through(model, tmp_path)
    assert found.quantization is None and found.dtype == F32
    assert_same_bits(weights_of(found), weights_of(model))
    assert_same_bits(weights_of(found.quantize(*kind)), weights_of(model))


# ---- files ---------------------------------------------------------------------------------------

SUFFIXES = ("npz", "safetensors")
each_suffix = pytest.mark.parametrize("suffix", SUFFIXES)
BIG = 2**32
MAKE = {"GRU": partial(GRU, 5, 7), "ReverseGRU": partial(ReverseGRU, 5, 7),
        "GRUCell": partial(GRUCell, 5, 7), "classifier": partial(SequenceClassifier, 5, 7, 3)}
each_model = pytest.mark.parametrize("name", MAKE)


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    """Of a file of either container."""
    if request.param == "safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"model.{request.param}"


@st.composite
def models(draw):
    case = draw(family.cases(dropout=(), ragged=(), reverse=True))
    options = {"dropout": 0.5 if case.layers > 1 else 0.0, "batch_first": draw(booleans),
               "checkpoint": draw(st.none() | st.just(3))} if draw(booleans) else {}
    model = family.build(case, F32, **options)
    model.metadata = draw(st.dictionaries(st.sampled_from(["a", "x_bits", "quantization"]),
                                          st.text("ab"), max_size=2))
    return model.quantize(*draw(st.sampled_from([*KINDS.values()])))


@given(models(), st.sampled_from(SUFFIXES))
def test_round_trips(tmp_path_factory, model, suffix):
    """All options, the bits of parameters and results, the metadata; and the same file again."""
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path_factory.getbasetemp() / f"quantized.{suffix}"
    model.save(path)
    again = type(model).load(path)
    assert type(again) is type(model) and repr(again) == repr(model)
    assert again.training is False and again.metadata == model.metadata
    assert again.nbytes == model.nbytes
    assert_same_bits(again.state_dict(), model.state_dict())
    x = normal(3, 2, model.input_size)
    assert_bits(results(again, x), results(model, x))
    first = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == first


@each_kind
@each_model
def test_files_of_every_class(kind, name, path):
    model = MAKE[name](rng=0).quantize(*kind)
    model.save(path, {"a": "1"})
    again = type(model).load(path)
    assert_same_bits(again.state_dict(), model.state_dict())
    x = normal(2, 5) if name == "GRUCell" else normal(4, 2, 5)
    same([*again(x)], [*model(x)])
    assert again.metadata == {"a": "1"}
    found, = find(path)
    assert found.quantization == kind and repr(kind) in repr(found)
    gru = model.gru if name == "classifier" else model
    assert_same_bits(found.parameters, {key if "_l0" in key else f"{key}_l0": a
                                        for key, a in gru.state_dict().items()})


def test_classes(path):
    """As of float models."""
    make(5, 7, kind=("int8", 12)).save(path)
    cell = GRUCell.load(path)
    assert (cell.quantization, cell.x_bits, cell.training) == ("int8", 12, False)
    cell.save(path)
    assert GRU.load(path).x_bits == 12
    with pytest.raises(ValueError, match="runs forwards"):
        ReverseGRU.load(path)
    Doubled(5, 7).quantize("int8").save(path)
    assert type(Doubled.load(path)) is Doubled


@each_kind
@pytest.mark.parametrize("name", ["GRU", "classifier"])
def test_files_are_small(kind, name, path):
    large = {"GRU": partial(GRU, 64, 256), "classifier": partial(SequenceClassifier, 64, 256, 3)}
    model = large[name](rng=0)
    model.save(path)
    size = path.stat().st_size
    model.quantize(*kind).save(path)
    assert path.stat().st_size < {"int8": 0.27, "bfloat16": 0.51}[kind[0]] * size


@each_kind
def test_layout(kind, path):
    """As docs/interop/files.md has it."""
    model = make(5, 7, kind=kind)
    model.save(path)
    arrays, metadata = files.read_container(path, BIG)
    options = json.loads(metadata["options"])
    assert metadata["format_version"] == "1" and options["dtype"] == "float32"
    assert options["quantization"] == kind[0]
    assert options["x_bits"] == model.x_bits
    for name, a in model.state_dict().items():
        stored = arrays.pop(name)
        if "bias" in name or (kind[0] == "bfloat16" and path.suffix == ".safetensors"):
            assert stored.dtype == F32 and (stored == a).all()
        elif kind[0] == "bfloat16":
            assert stored.dtype == np.uint16
            assert ((stored.astype(np.uint32) << 16).view(F32) == a).all()
        else:
            scale = arrays.pop(f"{name}_scale")
            assert stored.dtype == np.int8 and scale.dtype == F32 and scale.shape == (21,)
            assert (stored * scale[:, None] == a).all() and (abs(stored).max(axis=1) == 127).all()
    assert not arrays
    if path.suffix == ".safetensors" and kind[0] == "bfloat16":
        assert path.read_bytes().count(b'"dtype":"BF16"') == 2


def changed(path, change_arrays=None, **options):
    """Rewrite a file with other arrays and options ("gone": taken away)."""
    arrays, metadata = files.read_container(path, BIG)
    own = json.loads(metadata["options"]) | options
    metadata["options"] = json.dumps({name: value for name, value in own.items()
                                      if value != "gone"})
    arrays = change_arrays(dict(arrays)) if change_arrays else arrays
    path.write_bytes(files.container_of(path).pack(
        arrays, metadata, [name for name, a in arrays.items() if a.dtype == np.uint16]))


@pytest.mark.parametrize("options, message", [
    ({"quantization": "int4"}, "quantization='int4' with x_bits=8, expected 'int8' with 8 or 12,"),
    ({"quantization": ["int8"]}, "quantization=['int8'] with x_bits=8, expected"),
    ({"quantization": None}, "quantization=None with x_bits=8, expected"),
    ({"quantization": "gone"}, "quantization=None with x_bits=8, expected"),
    ({"quantization": "bfloat16"}, "quantization='bfloat16' with x_bits=8, expected"),
    ({"x_bits": 9}, "quantization='int8' with x_bits=9, expected"),
    ({"x_bits": "8"}, "quantization='int8' with x_bits='8', expected"),
    ({"x_bits": None}, "quantization='int8' with x_bits=None, expected"),
    ({"x_bits": "gone"}, "quantization='int8' with x_bits=None, expected"),
    ({"dtype": "float64"}, "quantization='int8' with dtype float64, expected float32"),
    ({"quantization": "gone", "x_bits": "gone"}, "weight_ih_l0 has dtype int8, expected"),
    ({"quantization": "bfloat16", "x_bits": None}, "l0 is int8, the metadata say bfloat16"),
    ({"hidden_size": 8}, "the metadata say hidden_size=8, names and shapes of the arrays 7"),
    ({"another": 1}, "metadata options should be a JSON object with the names"),
], ids=lambda value: str(value)[:40])
def test_options_that_are_wrong(options, message, path):
    make(5, 7).save(path)
    changed(path, **options)
    with pytest.raises(ModelFileError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        GRU.load(path)


def array_of(name, change):
    """What changes one array."""
    return lambda arrays: arrays | {name: change(arrays[name].copy())}


def at(index, value):
    def change(a):
        a[index] = value
        return a
    return change


def without(name):
    return lambda arrays: {key: a for key, a in arrays.items() if key != name}


WRONG = {
    "no scale": (without("weight_hh_l0_scale"), "weight_hh_l0_scale is missing"),
    "no weight": (without("weight_ih_l0"), "missing 'weight_ih_l0'"),
    "short": (array_of("weight_ih_l0_scale", lambda a: a[1:]),
              "weight_ih_l0_scale has shape (20,) and dtype float32, expected (21,) and float32"),
    "column": (array_of("weight_ih_l0_scale", lambda a: a[:, None]), "has shape (21, 1) and dtype"),
    "float64": (array_of("weight_ih_l0_scale", lambda a: a.astype(F64)), "and dtype float64, "),
    "negative": (array_of("weight_ih_l0_scale", at(3, -1e-3)),
                 "weight_ih_l0_scale holds what is negative or not finite"),
    "NaN": (array_of("weight_ih_l0_scale", at(3, np.nan)), "negative or not finite"),
    "infinite": (array_of("weight_hh_l0_scale", at(3, np.inf)), "negative or not finite"),
    "-128": (array_of("weight_hh_l0", at((2, 3), -128)), "weight_hh_l0 holds -128, expected -127"),
    "other scale": (array_of("weight_hh_l0_scale", at(3, 0.1)), "in row 3 and the scale 0.1, "),
    "zero": (array_of("weight_hh_l0_scale", at(3, 0)), "in row 3 and the scale 0.0, "),
    "tiny": (array_of("weight_hh_l0_scale", at(3, 2.0**-120)), "in row 3 and the scale 7.52"),
    "huge": (array_of("weight_hh_l0_scale", at(3, 2.0**127)), "in row 3 and the scale 1.7"),
    "126": (array_of("weight_hh_l0", at(3, 126)), "has integers up to 126 in row 3 and"),
    "floats": (array_of("weight_hh_l0", lambda a: a.astype(F32)),
               "weight_hh_l0 is float32, the metadata say int8"),
    "uint8": (array_of("weight_hh_l0", lambda a: a.view(np.uint8)), "is uint8, the metadata say"),
    "flat": (array_of("weight_hh_l0", np.ravel), "weight_hh_l0 has shape (147,), expected"),
    "empty": (array_of("weight_hh_l0", lambda a: a[:, :0]), "weight_hh_l0 has shape (21, 0), "),
    "narrow": (array_of("weight_hh_l0", lambda a: np.full_like(a[:, 1:], 127)), ""),
    "bias": (array_of("bias_hh_l0", lambda a: a.astype(np.int8)), "bias_hh_l0 has dtype int8, "),
    "double": (array_of("bias_hh_l0", lambda a: a.astype(F64)), "bias_hh_l0 is float64, "),
    "surplus": (lambda arrays: arrays | {"bias_ih_l0_scale": arrays["weight_ih_l0_scale"]},
                "'bias_ih_l0_scale' beside the parameters of a GRU"),
    "lone": (lambda arrays: arrays | {"weight_ih_l1_scale": arrays["weight_ih_l0_scale"]},
             "'weight_ih_l1_scale' beside the parameters of a GRU"),
}


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_arrays_that_are_wrong(change, message, path):
    make(5, 7).save(path)
    changed(path, change)
    with pytest.raises(ModelFileError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        GRU.load(path)


@pytest.mark.parametrize("change, message", [
    (array_of("weight_hh_l0", lambda a: a.astype(np.int16)), "weight_hh_l0 is int16, the metadata"),
    (array_of("weight_hh_l0", lambda a: np.full(a.shape, 0.1, F32)), "weight_hh_l0 is float32, "),
    (array_of("weight_hh_l0", lambda a: a[1:]), "weight_hh_l0 has shape (20, 7)"),
    (lambda arrays: arrays | {"weight_ih_l0_scale": np.zeros(21, F32)}, "beside the parameters"),
], ids=["int16", "float32", "shape", "scale"])
def test_bfloat16_that_is_wrong(change, message, path):
    make(5, 7, kind=("bfloat16",)).save(path)
    changed(path, change)
    with pytest.raises(ModelFileError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        GRU.load(path)


def test_too_many_columns(path, monkeypatch):
    make(20, 7).save(path)
    monkeypatch.setitem(_checks.MOST_COLUMNS, 8, 19)
    with pytest.raises(ModelFileError, match=re.escape(f"{path}: weight_ih_l0 has 20 columns:")):
        GRU.load(path)


@pytest.mark.parametrize("texts, message", [
    ({"quantization": "int4"}, "metadata quantization='int4' with x_bits=8, expected"),
    ({"x_bits": "9"}, "metadata quantization='int8' with x_bits='9', expected"),
    ({"dtype": "float64"}, "metadata quantization='int8' with dtype float64"),
    ({"quantization": None}, "metadata quantization=None with x_bits=8"),
    ({"quantization": None, "x_bits": None}, "tensor gru.weight_ih_l0 is int8, the meta"),
], ids=str)
def test_classifiers_that_are_wrong(texts, message, path):
    SequenceClassifier(5, 7, 3, rng=0).quantize("int8").save(path)
    arrays, metadata = files.read_container(path, BIG)
    metadata = {name: text for name, text in (metadata | texts).items() if text is not None}
    path.write_bytes(files.container_of(path).pack(arrays, metadata))
    with pytest.raises(ModelFileError, match=re.escape(f"{path}: {message}")):
        SequenceClassifier.load(path)


@each_kind
@each_model
def test_max_bytes(kind, name, path):
    model = MAKE[name](rng=0).quantize(*kind)
    model.save(path)
    if path.suffix == ".npz":
        declared = sum(a.nbytes for a in files.read_arrays(path, BIG).values())
    else:
        data = path.read_bytes()
        declared = len(data) - 8 - int.from_bytes(data[:8], "little")
    with pytest.raises(ModelFileError, match=f"take {declared:,} bytes, more than max_bytes="):
        type(model).load(path, max_bytes=declared - 1)
    type(model).load(path, max_bytes=declared)


@each_kind
@pytest.mark.parametrize("name", ["GRU", "classifier"])
def test_truncated_at_every_byte(kind, name, path):
    model = MAKE[name](rng=0).quantize(*kind)
    model.save(path)
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(ModelFileError, match=re.escape(f"{path}: ")):
            type(model).load(path)


@each_kind
@each_model
def test_flipped_bits(kind, name, path):
    """A clear error, or in the numbers of safetensors other numbers."""
    model = MAKE[name](rng=0).quantize(*kind)
    model.save(path)
    data, rng = path.read_bytes(), random.Random(0)
    for _ in range(300):
        spoiled = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            spoiled[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        with path.open("r+b") as file:
            file.write(spoiled)
        try:
            again = type(model).load(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert again.state_dict().keys() == model.state_dict().keys()


def test_a_nan_is_not_saved_as_int8(path):
    model = make(5, 7)
    model.weight_ih_l0 = np.full((21, 5), np.nan, F32)
    with pytest.raises(ValueError, match=r"not saved: weight_ih_l0 has a NaN or an infinity"):
        model.save(path)
    assert not path.exists()
    model = make(5, 7, kind=("bfloat16",))
    model.weight_ih_l0 = np.full((21, 5), np.nan, F32)
    model.bias_ih_l0 = np.full(21, np.inf, F32)
    model.save(path)
    assert_bits(GRU.load(path).state_dict(), model.state_dict())


def test_rows_of_zeros_are_saved(path):
    model = make(5, 7)
    model.load_state_dict({name: 0 * a for name, a in model.state_dict().items()})
    model.save(path)
    assert_same_bits(GRU.load(path).state_dict(), model.state_dict())


@each_kind
def test_convert(kind, path, tmp_path):
    gru, target = GRU(5, 7, rng=0), tmp_path / "new.npz"
    gru.save(path)
    assert convert(path, target, quantization=kind).quantization == kind
    model = GRU.load(target)
    assert repr(model) == repr(gru.quantize(*kind))
    assert convert(target, path).quantization == kind      # it stays
    assert_same_bits(GRU.load(path).state_dict(), model.state_dict())
    with pytest.raises(ValueError, match="already: quantize the float model"):
        convert(target, path, quantization=kind)
    gru.save(path)
    assert convert(path, target, quantization=kind[0]).quantization[0] == kind[0]
    convert(target, path, dtype=F64)
    again = GRU.load(path)
    assert again.dtype == F64 and again.quantization is None
    assert all((a == model.state_dict()[name]).all() for name, a in again.state_dict().items())


# ---- the classifier ------------------------------------------------------------------------------

@each_kind
def test_classifier(kind):
    model, x = SequenceClassifier(5, 7, 3, 2, rng=0), normal(4, 6, 5)
    model.metadata = {"a": "1"}
    small = model.quantize(*kind)
    assert small.gru.quantization == kind[0] and model.gru.quantization is None
    assert model.gru.training and model.head.training
    assert not small.gru.training and not small.head.training
    same([small(x)], [model.head(model.gru.quantize(*kind)(x)[1][-1])])
    assert np.abs(small.predict_proba(x) - model.predict_proba(x)).max() < 0.02
    with pytest.raises(ValueError, match="cannot be trained"):
        small.train()
    small.head.bias = np.zeros(3, F32)
    assert model.head.bias.any() and small.metadata == {"a": "1"}
    small.metadata["b"] = "2"
    assert model.metadata == {"a": "1"}
    with pytest.raises(ValueError, match="only a float32 model"):
        SequenceClassifier(5, 7, 3, dtype=F64).quantize(*kind)
