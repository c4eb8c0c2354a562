"""Write the files of our own that tests/test_interop_files.py reads.

    python tools/make_interop_files.py

A later version has to read them, and to write the same bytes. classifier_earlier.safetensors is not
made here: commit 2b1250e wrote it, a ``SequenceClassifier(3, 5, 4, 2, np.float64, False, rng=7)``
with ``save(path, {"note": "h\u00e9llo", "epoch": "3"})``.
"""

from pathlib import Path

import numpy as np

import gru_c
from gru_c.learn import SequenceClassifier

FOLDER = Path(__file__).parent.parent / "tests" / "fixtures" / "interop" / "files"
MODELS = {
    "gru": gru_c.GRU(2, 3, num_layers=2, bidirectional=True, batch_first=True, dropout=0.25,
                     activation={"name": "elu", "alpha": 0.3}, clip=4.0, checkpoint=8, rng=1),
    "reverse": gru_c.ReverseGRU(2, 3, reset_after=False, dtype=np.float64, rng=2),
    "cell": gru_c.GRUCell(2, 3, bias=False, recurrent_activation="hard_sigmoid", rng=3),
    "classifier": SequenceClassifier(2, 3, 4, rng=4),
    "int8": gru_c.GRU(2, 3, num_layers=2, rng=5).quantize("int8", x_bits=12),
    "bfloat16": gru_c.GRUCell(2, 3, rng=6).quantize("bfloat16"),
    "classifier_int8": SequenceClassifier(2, 3, 4, rng=7).quantize("int8"),
}

if __name__ == "__main__":
    for name, model in MODELS.items():
        for suffix in ("npz", "safetensors"):
            model.save(FOLDER / f"{name}.{suffix}", {"note": "h\u00e9llo", "a": "1"})
