"""ReverseGRU: what it is to the other models, and what it refuses.

test_family.py draws its cases with all options against reference.py, test_onnx.py and test_keras.py
have the peers.
"""

import copy
import pickle

import numpy as np
import pytest
from family import arguments, build, case, run_case
from helpers import F64, assert_same_array, assert_same_bits, equal, error

from gru_c import GRU, ReverseGRU

ROWS = ("lengths", "mask", "resets")


def reverse_half(drawn):
    """The reverse direction of a bidirectional case of one layer, as a case of a ReverseGRU."""
    H = drawn.model["hidden_size"]
    alone = case(*drawn.call["x"].shape[:2], (drawn.model["input_size"], H), reverse=True,
                 reset_after=drawn.model["reset_after"], bias=drawn.model["bias"])
    alone.parameters = {name.removesuffix("_reverse"): a for name, a in drawn.parameters.items()
                        if name.endswith("_reverse")}
    alone.call = drawn.call | {
        "h_0": drawn.call["h_0"][1:], "d_h_n": drawn.call["d_h_n"][1:],
        "d_output": drawn.call["d_output"][:, :, H:]}
    alone.call["dropout_masks"] = {
        name.removesuffix("_reverse"): mask
        for name, mask in drawn.call.get("dropout_masks", {}).items() if name.endswith("_reverse")}
    return alone


@pytest.mark.parametrize("checkpoint", [None, 2])
@pytest.mark.parametrize("dropout", [(), ("input", "recurrent")], ids=str)
@pytest.mark.parametrize("ragged", [(), *((name,) for name in ROWS), ROWS], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
def test_the_reverse_direction_of_two(ragged, dropout, bias, checkpoint, dtype, reset_after):
    """The same bits, also of the gradients; those of the forward direction are zero here."""
    drawn = case(150, 3, (5, 17), bidirectional=True, bias=bias, ragged=ragged, dropout=dropout,
                 reset_after=reset_after)
    drawn.call["d_output"][:, :, :17] = 0
    drawn.call["d_h_n"][0] = 0
    both = run_case(build(drawn, dtype, checkpoint=checkpoint), drawn)
    found = run_case(build(reverse_half(drawn), dtype, checkpoint=checkpoint), reverse_half(drawn))
    wanted = {"output": both["output"][:, :, 17:], "h_n": both["h_n"][1:], "dh_0": both["dh_0"][1:]}
    wanted |= {name.removesuffix("_reverse"): a for name, a in both.items()
               if name.endswith("_reverse")}
    assert equal(found.pop("dx"), both["dx"])              # there 0.0 is added: -0.0 is 0.0
    assert_same_bits(found, wanted)


@pytest.mark.parametrize("ragged", [(), ("mask",), ("resets",), ("mask", "resets")], ids=str)
def test_a_gru_of_reversed_time(ragged, dtype, reset_after):
    """As Keras computes `go_backwards`, but for output in the order of time."""
    drawn = case(6, 4, (5, 17), layers=2, reverse=True, ragged=ragged, reset_after=reset_after)
    model = build(drawn, dtype)
    forward = GRU(5, 17, 2, dtype=dtype, reset_after=reset_after)
    forward.load_state_dict(model.state_dict())
    call = arguments(model, drawn, backward=False)
    output, h_n = model(**call)
    flipped = {name: a if name == "h_0" else a[::-1] for name, a in call.items()}
    other, other_h_n = forward(**flipped)
    assert_same_array(output, other[::-1])
    assert_same_array(h_n, other_h_n)


@pytest.mark.parametrize("checkpoint", [None, 2])
@pytest.mark.parametrize("ragged", [(), ROWS], ids=str)
def test_layers_one_by_one(ragged, checkpoint, dtype, reset_after):
    """A stack has the bits of models of one layer, each of which reads the output of the last."""
    drawn = case(140, 3, (5, 17), layers=3, reverse=True, ragged=ragged, reset_after=reset_after)
    model = build(drawn, dtype, checkpoint=checkpoint)
    wanted = run_case(model, drawn)
    rows = {name: drawn.call[name] for name in ragged}
    h_0, d_h_n = (drawn.call[name].astype(dtype) for name in ("h_0", "d_h_n"))
    layers, x = [], drawn.call["x"].astype(dtype)
    for i in range(3):
        layers.append(ReverseGRU(x.shape[2], 17, dtype=dtype, reset_after=reset_after))
        layers[i].load_state_dict({f"{name[:-1]}0": a for name, a in model.state_dict().items()
                                   if name.endswith(f"l{i}")})
        x, h_n = layers[i](x, h_0[i:i + 1], **rows)
        assert_same_array(h_n, wanted["h_n"][i:i + 1])
    assert_same_array(x, wanted["output"])
    d = drawn.call["d_output"].astype(dtype)
    for i in (2, 1, 0):
        d, dh_0 = layers[i].backward(d, d_h_n[i:i + 1])
        assert_same_array(dh_0, wanted["dh_0"][i:i + 1])
        for name, grad in layers[i].grads.items():
            assert_same_array(grad, wanted[f"{name[:-1]}{i}"])
    assert_same_array(d, wanted["dx"])


def test_output_is_at_its_own_step(dtype):
    """h_n is the state after step 0, in rows of any length; a row begins at its own end."""
    gru = ReverseGRU(3, 4, dtype=dtype, rng=0)
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(dtype)
    output, h_n = gru(x, lengths=[5, 3])
    assert_same_array(h_n[0], output[0])
    assert not output[3:, 1].any()
    assert_same_array(output[:3, 1:], gru(x[:3, 1:])[0])


def test_gradients_add_up(dtype):
    """In two parts of a batch, with a stack of layers and checkpoints."""
    drawn = case(5, 6, (4, 9), layers=2, reverse=True)
    for checkpoint in (None, 2):
        gru = build(drawn, dtype, checkpoint=checkpoint)
        whole = run_case(gru, drawn)
        for i, rows in enumerate((slice(0, 2), slice(2, 6))):
            part = {name: a[:, rows].astype(dtype) for name, a in drawn.call.items()}
            gru(part["x"], part["h_0"])
            gru.backward(part["d_output"], part["d_h_n"], accumulate=i > 0)
        allowed = 1e-12 if dtype == F64 else 1e-5
        for name in drawn.parameters:
            assert error(gru.grads[name], whole[name]) <= allowed, name


def test_copies():
    """A pickle and a copy are a ReverseGRU, too, with the same results."""
    gru = ReverseGRU(3, 4, num_layers=2, dropout=0.5, batch_first=True, rng=0, clip=3.0)
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    state = gru.rng.bit_generator.state
    wanted, _ = gru(x)
    gru.rng.bit_generator.state = state
    for other in (copy.deepcopy(gru), pickle.loads(pickle.dumps(gru))):
        assert type(other) is ReverseGRU
        assert repr(other) == repr(gru)
        assert_same_array(other(x)[0], wanted)


def test_names():
    """Parameters and masks have the names of a GRU of one direction; so it is shown, too."""
    gru, other = ReverseGRU(3, 4, 2, rng=0), GRU(3, 4, 2, rng=0)
    assert isinstance(gru, GRU)
    assert [*gru.state_dict()] == [*other.state_dict()]
    assert repr(gru) == f"Reverse{other!r}"
    assert all((a == b).all() for a, b in zip(gru.state_dict().values(),
                                              other.state_dict().values(), strict=True))
    gru.weight_hh_l1 = np.zeros((12, 4), np.float32)
    assert not gru.weight_hh_l1.any()
    x, masks = np.ones((5, 2, 3), np.float32), {"input_l0_reverse": np.ones((2, 3), np.float32)}
    with pytest.raises(ValueError, match=r"unexpected names: 'input_l0_reverse'"):
        gru(x, dropout_masks=masks)


def test_refused():
    """A step, which would have to be the last one; a second direction."""
    gru = ReverseGRU(3, 4)
    with pytest.raises(ValueError, match="a ReverseGRU has no step: it begins at the last step"):
        gru.step(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="one direction: bidirectional must be False"):
        ReverseGRU(3, 4, bidirectional=True)
