"""The example of docs/interop/whole-model.md, with PyTorch: its own lines, on a file PyTorch wrote.
"""

import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

PAGE = Path(__file__).parent.parent / "docs" / "interop" / "whole-model.md"
FORMS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}


def blocks():
    """The code of the page: PyTorch's part, and the class that does without it."""
    theirs, ours = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return theirs, ours.partition("\n# A file")[0]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_results_of_pytorch(form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs, ours = ({}, {})
    for code, space in zip(blocks(), (theirs, ours), strict=True):
        exec(code, space)
    model = theirs["model"].eval()
    torch.save(model.state_dict(), "tagger.pt", **form)
    tokens = np.random.default_rng(0).integers(0, 1000, (3, 7))
    with torch.no_grad():
        wanted = model(torch.tensor(tokens)).numpy()
    found = ours["Tagger"]("tagger.pt")(tokens)
    assert found.dtype == wanted.dtype
    assert np.abs(found - wanted).max() < 1e-6


def test_what_inspect_prints(tmp_path, monkeypatch, capsys):
    """The page shows it as it is."""
    from gru_c import cli

    monkeypatch.chdir(tmp_path)
    exec(blocks()[0], {})
    assert cli.main(["inspect", "tagger.pt"]) == 0
    shown = re.search(r"^```text\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert capsys.readouterr().out == shown[1]
