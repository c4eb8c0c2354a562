"""Write tests/fixtures/interop/torch: files of PyTorch, and what it computes with their models.

    python tools/make_interop_torch.py [OUTPUT_FOLDER]

Needs torch. results.npz has for each file x, output and h_n (of a cell: h), in float64; the
parameters are those that the file holds. tests/test_interop_torch.py reads all.
"""

import copy
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures" / "interop" / "torch"
STEPS, ROWS = 5, 2


class Tagger(nn.Module):
    """A model with a GRU in it."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.encoder = nn.ModuleDict({"gru": nn.GRU(3, 4, 2, batch_first=True), "norm":
                                      nn.BatchNorm1d(4)})
        self.linear = nn.Linear(4, 2)


def shared(module):
    """A state dict whose tensors are places in one storage."""
    flat = torch.cat([p.detach().flatten() for p in module.parameters()])
    parts = flat.split([p.numel() for p in module.parameters()])
    return {name: part.view_as(p) for (name, p), part
            in zip(module.named_parameters(), parts, strict=True)}


def strided(module):
    """A state dict of transposed, sliced and expanded tensors; it changes the module's biases."""
    with torch.no_grad():
        module.bias_ih_l0.fill_(0.25)
    found = dict(module.state_dict())
    found["weight_ih_l0"] = found["weight_ih_l0"].T.contiguous().T
    found["weight_hh_l0"] = torch.stack([found["weight_hh_l0"]] * 2, 2)[:, :, 1]
    found["bias_ih_l0"] = torch.tensor(0.25).expand(12)
    return found


def checkpoint(module):
    """What a training loop saves, after a step of Adam."""
    optimizer = torch.optim.Adam(module.parameters())
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3])
    module(torch.ones(STEPS, ROWS, module.input_size))[0].sum().backward()
    optimizer.step()
    return {"epoch": 3, "best": np.float64(0.5), "history": [np.float32(1.5), 2.5], "seen": {1, 2},
            "curve": np.arange(3.0), "rng": torch.get_rng_state()[:16], "dtype": torch.float32,
            "shape": torch.Size([2, 3]), "key": b"\xff\x00", "phase": 2.5 + 1j, "seed": 2**80,
            "state": {"model": module.state_dict()}, "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict()}


def with_attributes(module):
    """Parameters and tensors that have attributes of their own."""
    found = dict(module.named_parameters())
    found["bias_ih_l0"].tag = "input"
    tensor = found["bias_hh_l0"].detach()
    tensor.tag = "hidden"
    return found | {"bias_hh_l0": tensor}


def saved(found, **options):
    buffer = io.BytesIO()
    torch.save(found, buffer, **options)
    return buffer.getvalue()


def zipped_again(data):
    """The same members deflated, in another folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, \
            zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            info = zipfile.ZipInfo(name.replace("archive/", "my model/"))
            new.writestr(info, old.read(name), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def files():
    """Name, bytes and the GRU of each."""
    legacy = {"_use_new_zipfile_serialization": False}
    for form, options in (("zip", {}), ("legacy", legacy)):
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            gru = nn.GRU(3, 4).to(dtype)
            yield f"{form}_{str(dtype).partition('.')[2]}", saved(gru.state_dict(), **options), gru
        for make in (shared, strided, checkpoint, with_attributes):
            gru = nn.GRU(3, 4)
            yield f"{form}_{make.__name__}", saved(make(gru), **options), gru
        gru = nn.GRU(3, 4, 2, bidirectional=True, bias=False)
        yield f"{form}_bidirectional", saved(gru.state_dict(), **options), gru
    tagger = Tagger()
    yield "prefix", saved(nn.DataParallel(tagger).state_dict()), tagger.encoder["gru"]
    cell = nn.GRUCell(3, 4)
    yield "cell", saved(cell.state_dict()), cell
    gru = nn.GRU(3, 4)
    yield "deflated", zipped_again(saved(gru.state_dict())), gru
    yield "protocol_5", saved(checkpoint(gru), pickle_protocol=5), gru
    torch.serialization.set_crc32_options(False)
    yield "no_checksums", saved(gru.state_dict()), gru
    torch.serialization.set_crc32_options(True)
    yield "module", saved(gru), None
    yield "script", scripted(gru), None
    two = {"model": gru.state_dict(), "average": nn.GRU(3, 4).state_dict()}
    yield "two", saved(two), gru


def scripted(gru):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(gru, torch.ones(STEPS, ROWS, 3)), buffer)
    return buffer.getvalue()


def results(module, rng):
    """Of a copy in float64."""
    module = copy.deepcopy(module).double()
    cell = isinstance(module, nn.GRUCell)
    x = torch.tensor(rng.standard_normal((ROWS, 3) if cell else (STEPS, ROWS, 3)))
    with torch.no_grad():
        found = module(x)
    arrays = {"x": x, "h": found} if cell else dict(
        zip(("x", "output", "h_n"), (x, *found), strict=True))
    return {name: a.numpy() for name, a in arrays.items()}


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    arrays = {}
    for name, data, module in files():
        (folder / f"{name}.pt").write_bytes(data)
        if module is not None:
            arrays |= {f"{name}/{key}": a for key, a in results(module, rng).items()}
    np.savez_compressed(folder / "results.npz", **arrays)


if __name__ == "__main__":
    main()
