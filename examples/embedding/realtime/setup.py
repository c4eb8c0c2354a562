"""The loop in Cython; `python setup.py build_ext --inplace` puts it beside realtime.py."""

import gru_c
from Cython.Build import cythonize
from setuptools import Extension, setup

module = Extension("block_loop", ["block_loop.pyx"], include_dirs=[gru_c.get_include()],
                   extra_compile_args=["-O3"])
setup(ext_modules=cythonize([module]))
