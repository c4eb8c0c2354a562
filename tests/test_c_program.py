"""A C program runs a step of the core without Python: `c/step.c`, linked with two modules' C code.

The linker drops what the program does not reach, and with it all that needs Python. So whatever the
step reaches may hold no call of Python, and no value that is only set when a module is imported.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from helpers import F32, STACKED, error, normal, tolerance

from gru_c import GRUCell

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src"
CORE = SOURCE / "gru_c" / "_core"
MODULES = ("core", "kernels_baseline")
DIRECTIVES = ("language_level=3", "cdivision=True", "boundscheck=False", "wraparound=False",
              "initializedcheck=False")                    # as in setup.py
PYTHON = re.compile(r"\b(?:_?Py[A-Z_]|__pyx_)\w*")

COMPILER = shutil.which(os.environ.get("CC") or "cc")
INCLUDE = sysconfig.get_path("include")

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="options of GNU ld"),
    pytest.mark.skipif(not (CORE / "core.pyx").exists(),
                       reason="core.pyx, which the program links, is not there"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler"),
    pytest.mark.skipif(shutil.which("nm") is None, reason="no nm"),
    pytest.mark.skipif(importlib.util.find_spec("Cython") is None, reason="no Cython"),
    pytest.mark.skipif(not Path(INCLUDE, "Python.h").exists(), reason="no Python.h"),
]


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, check=False, **options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The linked program. Symbols that nothing defines are left to the test to find."""
    folder = tmp_path_factory.mktemp("c_program")
    options = [option for directive in DIRECTIVES for option in ("-X", directive)]
    objects = []
    for module in MODULES:
        run(sys.executable, "-m", "cython", *options, "-I", SOURCE, CORE / f"{module}.pyx",
            "-o", folder / f"{module}.c")
        run(COMPILER, "-O1", "-w", "-ffunction-sections", "-fdata-sections",
            "-DNPY_NO_DEPRECATED_API=NPY_2_0_API_VERSION", "-DCYTHON_WITHOUT_ASSERTIONS",
            f"-I{CORE}", f"-I{CORE.parent / 'include'}", f"-I{INCLUDE}", f"-I{np.get_include()}",
            "-c", folder / f"{module}.c", "-o", folder / f"{module}.o")
        objects.append(folder / f"{module}.o")
    run(COMPILER, "-O1", HERE / "c" / "step.c", *objects, "-Wl,--gc-sections",
        "-Wl,--unresolved-symbols=ignore-all", "-lm", "-pthread", "-o", folder / "step")
    return folder / "step"


def test_no_symbol_of_python_is_wanted(program):
    undefined = run("nm", "-u", program).decode()
    assert "fread" in undefined                            # nm did look
    assert PYTHON.findall(undefined) == []


def test_a_step_is_that_of_the_cell(program):
    cell = GRUCell(5, 17, rng=0)                           # the sizes of step.c
    x, h = normal(3, 5), normal(3, 17)
    arrays = [*(getattr(cell, name) for name in STACKED), x, h]
    out = run(program, input=b"".join(a.tobytes() for a in arrays))
    got = np.frombuffer(out, F32).reshape(3, 17)
    assert error(got, cell(x, h)) <= tolerance(F32, terms=5 + 17)
