"""A MemoryError, whatever allocation it comes from, leaves a model as it was before the call.

What is done to a model, and what is looked at then, stands in failing_allocations.py.
"""

import os
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from failing_allocations import KINDS

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc",
                                reason="the failing malloc is written for glibc")


def run(kind, **environment):
    return subprocess.run(
        [sys.executable, HERE / "failing_allocations.py", kind], env=os.environ | environment,
        capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def environment(failing_malloc):
    """Variables with which every allocation can fail, also of Python's objects where that does not
    crash the interpreter itself. A free-threaded one has no choice of allocators."""
    variables = {"LD_PRELOAD": str(failing_malloc), "PYTHONFAULTHANDLER": "1"}
    objects = {"PYTHONMALLOC": "malloc"}
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return variables
    whole = run("closures", **variables, **objects).returncode == 0
    if sys.version_info < (3, 12):
        assert whole
    return variables | objects if whole else variables


@pytest.mark.parametrize("kind", KINDS)
def test_each_allocation_fails_in_turn(kind, environment):
    done = run(kind, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
