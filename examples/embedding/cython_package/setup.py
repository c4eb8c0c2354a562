"""The extension module; everything else about the package is in pyproject.toml."""

import gru_c
from Cython.Build import cythonize
from setuptools import Extension, setup

module = Extension(
    "gru_digits.classifier",
    ["src/gru_digits/classifier.pyx"],
    include_dirs=[gru_c.get_include()],
    extra_compile_args=["-O3", "-fopenmp"],                # for prange
    extra_link_args=["-fopenmp"],
)
setup(ext_modules=cythonize([module]))
