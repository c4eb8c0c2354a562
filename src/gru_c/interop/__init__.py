"""Models in and out of PyTorch, Keras, ONNX, Flax, Equinox and RTNeural, without any of them.

Class methods of `gru_c.GRU` and `gru_c.GRUCell` reach all of it: ``from_torch`` and so on. Here is
what is not about one model: `read_arrays`, `find`, `convert`.

errors.py       MissingExtraError, ModelFileError
found.py        Found: a GRU between two formats; a model from it, and it from a model
state_dict.py   parameters by PyTorch's names
torch.py        modules, state dicts; torch_files.py: .pt files; pickles.py: the unpickler;
                pickle_names.py: what it knows; pickled.py: what it gives; nested.py: checkpoints;
                zips.py: archives
keras.py        layers and their weights; keras_config.py: what a configuration means;
                keras_files.py keras_writing.py: files; hdf5.py: arrays of HDF5 files
onnx.py         GRU nodes; onnx_graph.py: models and their constants; onnx_writer.py
gates.py        separate matrices; flax.py equinox.py rtneural.py: those of others;
                layers.py: what they share
files.py        files of our own; npz.py safetensors.py: their containers; writing.py: atomic writes
formats.py      what a file is; read_arrays, find and convert over all formats
"""

from gru_c.interop.errors import MissingExtraError, ModelFileError
from gru_c.interop.formats import convert, find, read_arrays
from gru_c.interop.found import Found

__all__ = ["Found", "MissingExtraError", "ModelFileError", "convert", "find", "read_arrays"]
