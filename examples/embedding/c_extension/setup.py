"""The extension module; everything else about the package is in pyproject.toml."""

import gru_c
from setuptools import Extension, setup

setup(ext_modules=[Extension("gru_blocks", ["gru_blocks.c"], include_dirs=[gru_c.get_include()])])
