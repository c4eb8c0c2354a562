"""A gated recurrent unit (GRU) for CPUs: inference and training from NumPy arrays."""

from gru_c._config import __version__, get_num_threads, set_num_threads, show_config
from gru_c.cell import GRUCell
from gru_c.complexity import complexity
from gru_c.gru import GRU, ReverseGRU
from gru_c.sequences import pad_sequences, unpad_sequences

__all__ = [
    "GRU", "GRUCell", "ReverseGRU", "__version__", "complexity", "get_num_threads",
    "pad_sequences", "set_num_threads", "show_config", "unpad_sequences",
]
