"""The readers of model files on the inputs of fuzzers, and on random mutations of them.

`tools/fuzz/run.py` says what is checked. It runs in a process of its own: a library may crash it.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "fuzz" / "run.py"
PACKAGES = {"metadata-safetensors": "safetensors", "safetensors": "safetensors",
            "hdf5": "h5py", "keras": "h5py", "onnx": "onnx", "any": "h5py"}
RUNS = {"hdf5": 100, "keras": 100, "any": 300}             # h5py is slow
TARGETS = ("pt", "pt-legacy", "npz", "metadata-npz", "rtneural", *PACKAGES)

pytestmark = [
    pytest.mark.skipif(not TOOL.exists(), reason="tools/ is not here"),
    pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux does"),
]


def fuzz(*arguments):
    return subprocess.run([sys.executable, TOOL, "--plain", *arguments],
                          capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("target", TARGETS)
def test_inputs_are_read_or_refused(target, tmp_path):
    package = PACKAGES.get(target)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    runs = RUNS.get(target, 1000)
    result = fuzz(target, "--runs", str(runs), "--out", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout)["executions"] >= runs


# What a reader must not do, and what the harness says then.
BAD = {
    "return {}": "fine",
    "raise ModelFileError(f'{path}: damaged')": "fine",
    "raise KeyError(path)": "KeyError",
    "raise ModelFileError('damaged')": "says 'damaged'",
    "open('/etc/hosts').close()": "does open",
    "exec('1 + 1')": "does compile",
    "import colorsys": "does import",
    "os.system('true')": "does os.system",
    "return {'a': np.zeros(2**18 + 1, np.uint8)}": "gives 262145 bytes",
    "bytearray(2**22)": "takes 41",
    "end = time.process_time() + 1.1\n    while time.process_time() < end: pass": "takes 1.1 s",
}
SCRIPT = """
import os, sys, time, types
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
import run, targets
from gru_c.interop.errors import ModelFileError

harness = run.Harness(targets.TARGETS["npz"], Path(sys.argv[2]))
for body in sys.argv[3:]:
    exec(f"def read_arrays(path, max_bytes):\\n    {body}\\n    return {{}}")
    harness.reader = types.SimpleNamespace(read_arrays=read_arrays, find=lambda *_: [])
    # Either time or memory is measured.
    harness.count = 0 if "process_time" in body else run.TRACED - 1
    try:
        harness.run(b"")
        print("fine")
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_what_is_not_fine_is_found(tmp_path):
    result = subprocess.run([sys.executable, "-c", SCRIPT, TOOL.parent, tmp_path, *BAD],
                            capture_output=True, text=True, timeout=100, check=True)
    said = result.stdout.splitlines()
    assert len(said) == len(BAD)
    assert [text for text, expected in zip(said, BAD.values(), strict=True)
            if expected not in text] == []
