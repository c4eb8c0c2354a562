"""The examples in the docstrings of the installed package."""

import doctest
import importlib
import pkgutil

import pytest

import gru_c

MODULES = ["gru_c"] + [
    found.name for found in pkgutil.walk_packages(gru_c.__path__, "gru_c.")
    if "_core" not in found.name and not found.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0
