"""Models in and out of PyTorch, Keras, ONNX, Flax, Equinox and RTNeural, without any of them.

Class methods of `gru_c.GRU` and `gru_c.GRUCell` reach all of it: ``from_torch`` and so on. Files
as a whole are the business of `read_arrays`, `find` and `convert`, which are here.

arrays.py       arrays of any library and dtype
errors.py       MissingExtraError, ModelFileError; the limit of bytes
found.py        Found: a GRU between two formats; a model from it, and it from a model
state_dict.py   parameters by PyTorch's names; nested.py: checkpoints that hold them under a key
torch.py        modules, state dicts and files of PyTorch
keras/          layers, weights and files of Keras
onnx/           GRU nodes of ONNX
gates.py        separate matrices; flax.py equinox.py rtneural.py: those of others;
                layers.py: what they share
files.py        files of our own; quantized.py: weights of fewer bits in them
containers/     files and the arrays in them, without a GRU
formats.py      what a file is; read_arrays, find and convert over all formats
"""

from gru_c.interop.errors import MissingExtraError, ModelFileError
from gru_c.interop.formats import convert, find, read_arrays
from gru_c.interop.found import Found

__all__ = ["Found", "MissingExtraError", "ModelFileError", "convert", "find", "read_arrays"]
