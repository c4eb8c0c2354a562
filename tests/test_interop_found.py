"""Models from what a reader has found, and back: gru_c.interop.found."""

import numpy as np
import pytest
from helpers import F32, F64

import gru_c
from gru_c.interop.found import Found, build, described

F16 = np.dtype(np.float16)
OPTIONS = {
    "batch_first": True, "reset_after": False, "clip": 3.0, "checkpoint": 4,
    "activation": {"name": "leaky_relu", "alpha": 0.25}, "recurrent_activation": "hard_sigmoid",
}
MODELS = {
    "cell": gru_c.GRUCell(3, 4, rng=0),
    "cell with options": gru_c.GRUCell(3, 4, False, F64, False, 0, activation="relu", clip=2.0),
    "gru": gru_c.GRU(3, 4, rng=0),
    "two layers, two directions": gru_c.GRU(3, 4, 2, bidirectional=True, dtype=F64, rng=0),
    "options": gru_c.GRU(3, 4, 2, bias=False, rng=0, **OPTIONS),
    "reverse": gru_c.ReverseGRU(3, 4, 2, rng=0),
    "dropout": gru_c.GRU(3, 4, 2, dropout=0.25, input_dropout=0.5, recurrent_dropout=0.125, rng=0),
}


def found_of(dtype=F32, **options):
    """Of a new GRU(3, 4), with other options."""
    model = gru_c.GRU(3, 4, dtype=F64 if dtype == F64 else F32, rng=0)
    found = described(model)
    parameters = {name: a.astype(dtype) for name, a in found.parameters.items()}
    return Found(found.options | options, parameters, "here")


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_model_comes_back(model):
    again = build(type(model), described(model))
    assert type(again) is type(model)
    assert repr(again) == repr(model)
    for name, a in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], a, strict=True)


def test_a_model_with_dropout_comes_back_in_eval_mode():
    assert not build(gru_c.GRU, described(MODELS["dropout"])).training
    assert build(gru_c.GRU, described(MODELS["options"])).training


@pytest.mark.parametrize(("stored", "dtype", "wanted"), [
    (F16, None, F32), (F32, None, F32), (F64, None, F64), (F16, F64, F64), (F64, F32, F32),
    (F32, "float64", F64), (">f4", None, F32), (">f8", None, F64)])
def test_dtype(stored, dtype, wanted):
    found = found_of(stored)
    model = build(gru_c.GRU, found, dtype)
    assert model.dtype == wanted
    for name, a in found.parameters.items():
        np.testing.assert_array_equal(model.state_dict()[name], a.astype(wanted), strict=True)


def test_one_double_makes_the_model_double():
    found = found_of()
    found.parameters["bias_hh_l0"] = found.parameters["bias_hh_l0"].astype(F64)
    assert build(gru_c.GRU, found).dtype == F64


def test_what_float32_cannot_hold():
    found = found_of(F64)
    found.parameters["bias_ih_l0"][3] = 1e300
    with pytest.raises(ValueError, match="here: bias_ih_l0 holds values that float32 cannot hold"):
        build(gru_c.GRU, found, F32)
    found.parameters["bias_ih_l0"][3] = np.inf             # is held
    assert np.isinf(build(gru_c.GRU, found, F32).bias_ih_l0[3])


@pytest.mark.parametrize("dtype", [np.int32, bool, complex, np.longdouble])
def test_other_dtypes(dtype):
    with pytest.raises(ValueError, match=r"here: weight_ih_l0 has dtype .*, expected a floating"):
        build(gru_c.GRU, found_of(dtype))


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers", "bias",
                                  "bidirectional"])
def test_what_shapes_tell_is_not_given(name):
    with pytest.raises(TypeError, match=f"{name} is found from the parameters"):
        build(gru_c.GRU, found_of(), **{name: 3})


def test_given_options_win():
    model = build(gru_c.GRU, found_of(clip=2.0), clip=3.0, batch_first=True, rng=5)
    assert (model.clip, model.batch_first) == (3.0, True)
    assert model.rng.random() == gru_c.GRU(3, 4, rng=5).rng.random()


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True}, {"reverse": True},
                                     {"recurrent_dropout": 0.5}], ids=str)
def test_a_cell_refuses_what_it_would_drop(options):
    name, value = *options, *options.values()
    with pytest.raises(ValueError, match=f"here: {name}={value}, which a GRUCell does not have"):
        build(gru_c.GRUCell, found_of(**options))


def test_a_cell_of_a_layer():
    model = build(gru_c.GRUCell, found_of(batch_first=True, dropout=0.5))
    np.testing.assert_array_equal(model.weight_ih, found_of().parameters["weight_ih_l0"])


def test_subclasses():
    class Mine(gru_c.GRU):
        pass

    assert type(build(Mine, found_of())) is Mine
    assert type(build(gru_c.GRU, found_of(reverse=True))) is gru_c.ReverseGRU
    with pytest.raises(ValueError, match="here: the GRU runs in reverse, which a Mine does not"):
        build(Mine, found_of(reverse=True))


@pytest.mark.parametrize("name", ["batch_first", "dropout", "checkpoint", "input_dropout"])
def test_what_a_cell_does_not_take(name):
    """Of a source it may be left out, but not if it is asked for."""
    with pytest.raises(TypeError, match=f"{name} is no argument of a GRUCell"):
        build(gru_c.GRUCell, found_of(), **{name: None})


def test_reverse_is_no_argument():
    with pytest.raises(TypeError, match=r"the class gru_c\.ReverseGRU runs in reverse"):
        build(gru_c.GRU, found_of(), reverse=True)


def test_the_error_state_of_numpy_does_not_matter():
    found = found_of(F64)
    found.parameters["bias_ih_l0"][:2] = 1e-310, -1e-310
    with np.errstate(all="raise"):
        assert not build(gru_c.GRU, found, F32).bias_ih_l0[:2].any()


@pytest.mark.parametrize("read", [
    gru_c.GRU.from_state_dict, gru_c.GRU.from_torch, gru_c.GRU.from_rtneural,
    lambda arrays: gru_c.GRU.from_keras(list(masked(gru_c.GRU(3, 4).to_keras()))),
    lambda arrays: gru_c.GRU.from_equinox(dict(zip(
        ("weight_ih", "weight_hh"), arrays.values(), strict=False)))],
    ids=["state dict", "torch", "rtneural", "keras", "equinox"])
def test_masked_arrays_are_refused(read):
    """As by a model itself: the mask would be lost."""
    arrays = gru_c.GRU(3, 4).state_dict()
    with pytest.raises((TypeError, ValueError), match="is a masked array; fill it first"):
        read(dict(zip(arrays, masked(arrays.values()), strict=True)))


def masked(arrays):
    return (np.ma.masked_array(a, mask=True) for a in arrays)


def test_the_dtype_is_looked_for_once():
    """Not for each array again: a model of a thousand layers took seconds to save."""
    class Counted(dict):
        looked = 0

        def values(self):
            self.looked += 1
            return super().values()

    arrays = Counted(found_of(F64).parameters)
    found = Found({}, arrays, "here")
    assert all(found.dtype == F64 for _ in range(10))
    assert arrays.looked == 1
