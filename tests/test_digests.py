"""The same bits on every instruction set with fused multiply-adds: compared with a file of digests.

After a change of the arithmetic: `python tools/make_digests.py`.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from gru_c import _core

FIXTURE = Path(__file__).parent / "fixtures" / "digests.json"
TOOL = Path(__file__).parents[1] / "tools" / "make_digests.py"
ARM64 = platform.machine().lower() in ("arm64", "aarch64")


def _has_fma(isa):
    return isa != "baseline" or ARM64


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", _core.core.instruction_sets())
def test_digests(isa, threads):
    if not _has_fma(isa):
        pytest.skip("baseline x86-64 has no fused multiply-adds: its bits are others")
    chosen = {"GRU_C_ISA": isa, "GRU_C_ENGINE": "panel"}
    done = subprocess.run([sys.executable, str(TOOL), "--print", str(threads)], text=True,
                          env=os.environ | chosen, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    found, wanted = json.loads(done.stdout), json.loads(FIXTURE.read_text())
    assert found.keys() == wanted.keys(), "another list of cases"
    wrong = [f"{case}: {name}" for case in wanted for name in wanted[case]
             if found[case].get(name) != wanted[case][name]]
    assert not wrong, "other bits than tests/fixtures/digests.json:\n" + "\n".join(wrong)
