"""With PyTorch: what it writes now and we read, what we write and it reads, modules and tensors."""

import io
import re
import warnings
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from helpers import error, normal
from test_interop_torch import Exporter

import gru_c
from gru_c.interop import ModelFileError
from gru_c.interop import torch as interop

torch = pytest.importorskip("torch")
nn = torch.nn

F64 = torch.float64
MODULES = {
    "gru": lambda: nn.GRU(3, 4),
    "float64": lambda: nn.GRU(3, 4, dtype=F64),
    "no biases": lambda: nn.GRU(3, 4, bias=False),
    "layers": lambda: nn.GRU(3, 4, 3, batch_first=True, dropout=0.5),
    "directions": lambda: nn.GRU(5, 2, 2, bidirectional=True, dtype=F64),
    "cell": lambda: nn.GRUCell(3, 4),
    "cell without biases": lambda: nn.GRUCell(3, 4, bias=False, dtype=F64),
}


def made(name):
    torch.manual_seed(0)
    module = MODULES[name]()
    return module, gru_c.GRUCell if isinstance(module, nn.GRUCell) else gru_c.GRU


def assert_same_results(model, module):
    """To 1e-6 in float32, 1e-12 in float64, in eval mode; without a state, too."""
    own = np.random.default_rng(0)
    cell = isinstance(module, nn.GRUCell)
    x = own.standard_normal((3, module.input_size) if cell else (4, 3, module.input_size))
    rows = 4 if getattr(module, "batch_first", False) else 3
    D = 1 if cell else (1 + module.bidirectional) * module.num_layers
    h = own.standard_normal((rows, module.hidden_size) if cell else (D, rows, module.hidden_size))
    x, h = x.astype(model.dtype), h.astype(model.dtype)
    with torch.no_grad():
        for state in ((), (h,)):
            found, wanted = model.eval()(x, *state), module.eval()(*map(torch.tensor, (x, *state)))
            for a, b in zip(found, wanted, strict=True):
                assert error(a, b.numpy()) < (1e-6 if model.dtype == np.float32 else 1e-12)


def written(found, **options):
    """The bytes of a file with `found`."""
    buffer = io.BytesIO()
    torch.save(found, buffer, **options)
    return buffer.getvalue()


# ---- modules -------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", MODULES)
def test_module(name):
    module, kind = made(name)
    model = kind.from_torch(module)
    assert model.training == (not getattr(module, "dropout", 0.0))
    assert_same_results(model, module)
    for option in ("batch_first", "dropout", "bidirectional", "num_layers", "bias"):
        if kind is gru_c.GRU:
            assert getattr(model, option) == getattr(module, option)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("mode", [True, False])
def test_module_and_back(name, mode):
    module, kind = made(name)
    again = kind.from_torch(module).train(mode).to_torch(module=True)
    assert type(again) is type(module)
    assert again.training == mode
    assert repr(again) == repr(module)
    for parameter, a in module.state_dict().items():
        assert again.state_dict()[parameter].dtype == a.dtype
        assert torch.equal(again.state_dict()[parameter], a)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.encoder = nn.ModuleDict({"gru": nn.GRU(3, 4, 2, batch_first=True)})
        self.decoder = nn.GRUCell(3, 4)
        self.lstm = nn.LSTM(3, 4)


def test_submodules():
    tagger = Tagger()
    for prefix in ("encoder.gru.", "encoder.gru"):
        model = gru_c.GRU.from_torch(tagger, prefix=prefix)
        assert model.batch_first
        assert_same_results(model, tagger.encoder["gru"])
    assert_same_results(gru_c.GRUCell.from_torch(tagger, prefix="decoder"), tagger.decoder)
    assert_same_results(gru_c.GRU.from_torch(nn.DataParallel(tagger), "module.encoder.gru"),
                        tagger.encoder["gru"])
    for prefix, got in (("", "a Tagger"), ("lstm", "a LSTM"), ("encoder.lstm", "no module")):
        with pytest.raises(ValueError, match=re.escape(
                f"the Tagger: there is {got} at {prefix!r}, expected a GRU or GRUCell; prefixes of "
                "these are 'encoder.gru.', 'decoder.'")):
            gru_c.GRU.from_torch(tagger, prefix)
    with pytest.raises(TypeError, match="key is of a mapping or a file"):
        gru_c.GRU.from_torch(tagger, key="encoder")
    with pytest.raises(ValueError, match="num_layers=2, which a GRUCell does not have"):
        gru_c.GRUCell.from_torch(nn.GRU(3, 4, 2))


def test_weight_norm_is_computed():
    module = nn.utils.parametrizations.weight_norm(nn.GRU(3, 4), "weight_hh_l0")
    with torch.no_grad():
        module.parametrizations.weight_hh_l0.original0.mul_(2)
    assert_same_results(gru_c.GRU.from_torch(module), module)


# ---- state dicts ---------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_state_dict(dtype):
    module = nn.GRU(3, 4, 2).to(dtype)
    for found in (module.state_dict(), dict(module.named_parameters()),
                  {name: p.detach().t().contiguous().t() for name, p in module.named_parameters()}):
        model = gru_c.GRU.from_torch(found)
        assert model.dtype == (np.float64 if dtype == F64 else np.float32)
        assert_same_results(model, module.to(F64 if dtype == F64 else torch.float32))
        assert_same_results(gru_c.GRU.from_state_dict(found), module)


def test_dlpack_of_tensors():
    module = nn.GRU(3, 4)
    found = {name: Exporter(a) for name, a in module.state_dict().items()}
    assert_same_results(gru_c.GRU.from_torch(found), module)


def test_a_checkpoint_as_a_mapping():
    module = nn.GRU(3, 4)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(2, 2, 3))[0].sum().backward()
    optimizer.step()
    found = {"epoch": 1, "net": module.state_dict(), "optimizer": optimizer.state_dict(),
             "accuracy": np.float64(0.5)}
    assert_same_results(gru_c.GRU.from_torch(found), module)
    with pytest.raises(ValueError, match="meta"):
        gru_c.GRU.from_torch(nn.GRU(3, 4, device="meta").state_dict())


def test_to_state_dict():
    model = gru_c.GRU(3, 4, 2, dtype=np.float64, rng=0)
    found = model.to_torch()
    module = nn.GRU(3, 4, 2, dtype=F64)
    module.load_state_dict(found)
    assert_same_results(model, module)
    found["weight_ih_l0"].zero_()
    assert model.weight_ih_l0.any()
    cell = nn.GRUCell(3, 4)
    cell.load_state_dict(gru_c.GRUCell(3, 4, rng=0).to_torch())


# ---- files ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zip_form", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_read(name, zip_form, protocol, tmp_path):
    module, kind = made(name)
    path = tmp_path / "model.pt"
    torch.save({"a": 1, "net": module.state_dict()}, path, pickle_protocol=protocol,
               _use_new_zipfile_serialization=zip_form)
    given = {"batch_first": True} if getattr(module, "batch_first", False) else {}
    assert_same_results(kind.from_torch(path, **given), module)
    assert_same_results(kind.from_torch(path, prefix="net", **given), module)
    assert_same_results(kind.from_torch(path, key="net", **given), module)


@pytest.mark.parametrize("name", MODULES)
def test_write(name, tmp_path):
    module, kind = made(name)
    model = kind.from_torch(module)
    path = tmp_path / "model.pt"
    model.to_torch(path=path)
    for options in ({}, {"mmap": True}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = torch.load(path, weights_only=True, **options)
        assert list(found) == list(module.state_dict())
        module.load_state_dict(found)
        for parameter, a in model.state_dict().items():
            np.testing.assert_array_equal(found[parameter].numpy(), a, strict=True)
    assert_same_results(model, module)


TENSORS = {
    **{str(dtype): torch.tensor([[0, 1, 2], [3, 4, 5]]).to(dtype) for dtype in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
        torch.float32, F64, torch.bfloat16, torch.complex64, torch.complex128, torch.uint16,
        torch.uint32, torch.uint64)},
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "sliced": torch.arange(24.0).reshape(4, 6)[1::2, ::3],
    "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 5),
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(2.5),
    "conjugate": torch.complex(torch.arange(3.0), torch.ones(3)).conj(),
    "negative": torch.complex(torch.arange(3.0), torch.ones(3)).conj().imag,
    "parameter": nn.Parameter(torch.arange(3.0)),
}


@pytest.mark.parametrize("zip_form", [True, False])
@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_tensors(tensor, zip_form):
    data = written({"it": [tensor, tensor]}, _use_new_zipfile_serialization=zip_form)
    found = interop.read_pt(io.BytesIO(data), "it.pt", 2**20)
    wanted = tensor.detach().resolve_conj().resolve_neg()
    wanted = wanted.float() if wanted.dtype == torch.bfloat16 else wanted
    assert list(found) == ["it.0", "it.1"]
    for a in found.values():
        np.testing.assert_array_equal(a, wanted.numpy(), strict=True)


@pytest.mark.parametrize(("found", "message"), [
    (torch.eye(2).to_sparse(), "_rebuild_sparse_tensor"),
    (torch.ones(2, device="meta"), "_rebuild_meta_tensor_no_storage"),
    (torch.ones(2).to(torch.float8_e4m3fn), "float8_e4m3fn"),
    (nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    ({"time": timedelta(1)}, "datetime.timedelta"),
], ids=["sparse", "meta", "float8", "module", "time"])
def test_what_is_not_read(found, message):
    with pytest.raises(ModelFileError, match=f"it.pt: it holds .*{message}"):
        interop.read_pt(io.BytesIO(written(found)), "it.pt", 2**20)


# ---- the document --------------------------------------------------------------------------------

PAGE = Path(__file__).parents[1] / "docs" / "interop" / "pytorch.md"


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
def test_examples_of_the_document(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, PAGE, "exec", dont_inherit=True), {"__name__": "__main__"})


@pytest.mark.parametrize("model", [gru_c.GRU(3, 4, 2, bidirectional=True), gru_c.GRUCell(3, 4)])
def test_a_module_is_made_without_random_numbers(model):
    before = torch.random.get_rng_state().clone()
    module = model.to_torch(module=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    x = normal(*(2, 3) if isinstance(model, gru_c.GRUCell) else (5, 2, 3))
    wanted, found = model(x), module(torch.from_numpy(x))
    if isinstance(model, gru_c.GRU):
        wanted, found = wanted[0], found[0]
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=0, atol=1e-6)
