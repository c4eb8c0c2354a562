"""Fixtures that several test files use. Plain functions stand in helpers.py."""

import os
import shutil
import subprocess
from itertools import product
from pathlib import Path

import family
import numpy as np
import pytest
from helpers import kernels_of

from gru_c import GRU, _core, get_num_threads, set_num_threads


@pytest.fixture(
    scope="module",
    params=product(_core.core.instruction_sets(), _core.ENGINES),
    ids="-".join,
)
def kernels(request):
    """(isa, engine): the test runs once on each pair that this processor supports."""
    with kernels_of(*request.param):
        yield request.param


@pytest.fixture(scope="session")
def failing_malloc(tmp_path_factory):
    """The library of c/failing_malloc.c, for LD_PRELOAD."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("memory") / "failing_malloc.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library,
                    Path(__file__).parent / "c" / "failing_malloc.c"], check=True)
    return library


@pytest.fixture
def set_threads():
    """set_num_threads; the number is put back after the test."""
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["after", "before"])
def reset_after(request):
    return request.param


@pytest.fixture
def small(dtype, reset_after):
    """A model of two layers whose sizes are no multiple of anything."""
    return GRU(5, 17, 2, dtype=dtype, reset_after=reset_after, rng=0)


@pytest.fixture(params=[family.by_reference, family.by_package], ids=["reference", "package"])
def results_of(request):
    """A function of a case (see family.py) that a peer's results are compared with."""
    return request.param
