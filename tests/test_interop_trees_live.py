"""Flax and Equinox, where they are installed: their own objects in, ours back in them.

Stored results for other environments: test_interop_trees.py. RTNeural has no Python package: its
results are stored alone.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers import F32, error

import gru_c

jax = pytest.importorskip("jax")
flax = pytest.importorskip("flax")
equinox = pytest.importorskip("equinox")
import flax.linen as nn  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from flax import nnx, serialization, traverse_util  # noqa: E402

I, H, T, N = 3, 4, 6, 2  # noqa: E741
PAGE = Path(__file__).parents[1] / "docs" / "interop" / "jax.md"


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape))


def redrawn(tree):
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [normal(*a.shape, seed=i).astype(a.dtype)
                                          for i, a in enumerate(leaves)])


def linen_rnn(**options):
    """An RNN, its variables, x and output."""
    rnn, x = nn.RNN(nn.GRUCell(H, param_dtype=jnp.float64, **options)), normal(N, T, I)
    variables = redrawn(rnn.init(jax.random.key(0), x))
    return rnn, variables, x, rnn.apply(variables, x)


def test_linen():
    _, variables, x, output = linen_rnn()
    params = variables["params"]
    for source in (variables, params, params["cell"], flax.core.freeze(variables),
                   traverse_util.flatten_dict(variables),
                   traverse_util.flatten_dict(variables, sep="/"),
                   traverse_util.flatten_dict(variables, sep="."),
                   serialization.msgpack_restore(serialization.to_bytes(variables))):
        gru = gru_c.GRU.from_flax(source, batch_first=True)
        assert error(gru(np.asarray(x))[0], output) <= 1e-12


@pytest.mark.parametrize(("theirs", "ours"), [
    (nn.hard_sigmoid, "hard_sigmoid"), (nn.tanh, "tanh")])
def test_linen_activations(theirs, ours):
    _, variables, x, output = linen_rnn(gate_fn=theirs, activation_fn=nn.soft_sign)
    gru = gru_c.GRU.from_flax(variables, batch_first=True, recurrent_activation=ours,
                              activation="softsign")
    assert error(gru(np.asarray(x))[0], output) <= 1e-12


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_dtypes(dtype):
    _, variables, _, _ = linen_rnn()
    variables = jax.tree.map(lambda a: a.astype(dtype), variables)
    gru = gru_c.GRU.from_flax(variables)
    assert gru.dtype == F32
    kernel = variables["params"]["cell"]["hz"]["kernel"].astype(jnp.float32)
    assert (gru.weight_hh_l0[H:2 * H] == np.asarray(kernel).T).all()


def test_nnx():
    rngs = nnx.Rngs(0)
    halves = [nnx.RNN(nnx.GRUCell(I, H, param_dtype=jnp.float64, rngs=rngs), rngs=rngs)
              for _ in range(2)]
    model, x = nnx.Bidirectional(*halves, rngs=rngs), normal(N, T, I)
    nnx.update(model, redrawn(nnx.state(model, nnx.Param)))
    output = model(x)
    states = [nnx.state(half) for half in halves]
    for trees in (states, [nnx.to_pure_dict(state) for state in states]):
        gru = gru_c.GRU.from_flax(tuple(trees), batch_first=True)
        assert error(gru(np.asarray(x))[0], output) <= 1e-12
    one = gru_c.GRU.from_flax(nnx.state(model), "backward_rnn")
    assert (one.weight_ih_l0 == gru.weight_ih_l0_reverse).all()


def test_other_cells_of_flax():
    """Cells whose parameters look alike in part."""
    x, h = normal(N, I), normal(N, H)
    mgu = nn.MGUCell(H).init(jax.random.key(0), h, x)
    lstm = nn.OptimizedLSTMCell(H).init(jax.random.key(0), (h, h), x)
    rngs = nnx.Rngs(0)
    for tree in (mgu, lstm, nnx.state(nnx.OptimizedLSTMCell(I, H, rngs=rngs)),
                 nnx.state(nnx.LSTMCell(I, H, rngs=rngs)),
                 nnx.state(nnx.SimpleCell(I, H, rngs=rngs))):
        with pytest.raises(ValueError, match=r"missing|unexpected|no GRU cell|expected W"):
            gru_c.GRU.from_flax(tree)


@pytest.mark.parametrize("bias", [True, False])
def test_to_flax(bias):
    gru, x = gru_c.GRU(I, H, bias=bias, batch_first=True, dtype=np.float64, rng=0), normal(N, T, I)
    rnn = nn.RNN(nn.GRUCell(H, param_dtype=jnp.float64))
    tree = {"params": {"cell": gru.to_flax()}}
    assert jax.tree.structure(tree) == jax.tree.structure(rnn.init(jax.random.key(0), x))
    assert error(gru(np.asarray(x))[0], rnn.apply(tree, x)) <= 1e-12


@pytest.mark.parametrize("bias", [True, False])
def test_equinox(bias):
    cell = redrawn(equinox.nn.GRUCell(I, H, use_bias=bias, dtype=jnp.float64,
                                      key=jax.random.key(0)))
    x, h = normal(I), normal(H)
    expected = cell(x, h)
    ours = gru_c.GRUCell.from_equinox(cell)
    assert error(ours(np.asarray(x), np.asarray(h)), expected) <= 1e-12
    ours = gru_c.GRUCell(I, H, bias=bias, dtype=np.float64, rng=0)
    names, arrays = zip(*ours.to_equinox().items(), strict=True)
    theirs = equinox.tree_at(lambda cell: [getattr(cell, name) for name in names], cell, arrays,
                             is_leaf=lambda leaf: leaf is None)
    assert error(theirs(x, h), ours(np.asarray(x), np.asarray(h))) <= 1e-12


@pytest.mark.parametrize("line", [
    match.start() for match in re.finditer("<!-- no test -->", PAGE.read_text())])
def test_examples_of_the_page(line):
    with jax.enable_x64(False):
        code = PAGE.read_text()[line:].partition("```python\n")[2].partition("```")[0]
        exec(compile(code, PAGE, "exec"), {"__name__": "__main__"})
