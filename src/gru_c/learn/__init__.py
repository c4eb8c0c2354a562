"""Everything around a GRU that a training run needs; the core never imports this.

head.py         Linear: the layer on top, forward and backward
losses.py       softmax and cross-entropy, with gradient
optim.py        Adam, gradient clipping, named arrays in one vector
classifier.py   SequenceClassifier: GRU and head; save and load (safetensors)
trainer.py      fit: the training loop, its history, the best model, Ctrl-C
plots.py        pictures (matplotlib); import it by name

NumPy is enough for all but two things: saving and loading (safetensors) and pictures (matplotlib),
both in `pip install 'gru-c[train]'`.
"""

from ..interop.errors import MissingExtraError, ModelFileError
from .classifier import SequenceClassifier
from .head import Linear
from .losses import cross_entropy, log_softmax, softmax
from .optim import Adam, FlatArrays, clip_grad_norm
from .trainer import Epoch, History, evaluate, fit

__all__ = [
    "Adam",
    "Epoch",
    "FlatArrays",
    "History",
    "Linear",
    "MissingExtraError",
    "ModelFileError",
    "SequenceClassifier",
    "clip_grad_norm",
    "cross_entropy",
    "evaluate",
    "fit",
    "log_softmax",
    "softmax",
]
