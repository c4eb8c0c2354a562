"""A gated recurrent unit (GRU) for CPUs: inference and training from NumPy arrays."""

import typing as _typing
from importlib import import_module as _import_module

from gru_c._config import __version__, get_num_threads, set_num_threads, show_config
from gru_c.cell import GRUCell
from gru_c.complexity import complexity
from gru_c.gru import GRU, ReverseGRU
from gru_c.sequences import pad_sequences, unpad_sequences
from gru_c.stream import Stream

if _typing.TYPE_CHECKING:
    from gru_c.embedding import ctypes_api, get_include

# What is imported when it is asked for
_SUBPACKAGES = ("datasets", "interop", "learn")
_MODULES = {"_C_API": "cython_gru", "ctypes_api": "embedding", "get_include": "embedding"}

__all__ = [
    "GRU", "GRUCell", "ReverseGRU", "Stream", "__version__", "complexity", "ctypes_api",
    "get_include", "get_num_threads", "pad_sequences", "set_num_threads", "show_config",
    "unpad_sequences",
]


if not _typing.TYPE_CHECKING:                              # a checker would allow any name
    def __getattr__(name):
        if name in _SUBPACKAGES:
            return _import_module(f"gru_c.{name}")
        if name in _MODULES:
            return getattr(_import_module(f"gru_c.{_MODULES[name]}"), name)
        raise AttributeError(f"module 'gru_c' has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *_SUBPACKAGES, *_MODULES})
