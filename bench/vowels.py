"""Japanese vowels: utterances by nine speakers, in vowels.npz beside this file.

    python -m bench.vowels TRAIN.ts.gz TEST.ts.gz        makes vowels.npz of the text

"Japanese Vowels", M. Kudo, J. Toyama and M. Shimbo, 1999, UCI Machine Learning Repository,
https://doi.org/10.24432/C5NS47, CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). Changed:
the coefficients are rounded to thousandths and stored as integers, the speakers counted from 0.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

ARCHIVE = Path(__file__).with_name("vowels.npz")
TRAINING = 270                                             # utterances; the other 370 are for test


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (640, 29, 12) float32, the frames padded with zeros, lengths 7..29 and labels 0..8, (640,).
    """
    with np.load(ARCHIVE) as archive:
        frames, lengths, labels = (archive[key] for key in ("frames", "lengths", "labels"))
    x = np.zeros((len(lengths), lengths.max(), frames.shape[1]), np.float32)
    x[np.arange(x.shape[1]) < lengths[:, None]] = frames / np.float32(1000)
    return x, lengths.astype(np.int64), labels.astype(np.int64)


def read(path: str) -> list[tuple[np.ndarray, int]]:
    """The utterances of a text: thousandths (frames, 12) and the speaker 0..8.

    A line is one: channels with colons between, their frames with commas, and the speaker.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().partition("@data")[2].split()
    found = []
    for line in lines:
        *channels, speaker = line.split(":")
        values = np.array([channel.split(",") for channel in channels], np.float64)
        found.append((np.rint(1000 * values.T).astype(np.int16), int(speaker) - 1))
    return found


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    frames, speakers = zip(*read(sys.argv[1]), *read(sys.argv[2]), strict=True)
    np.savez_compressed(ARCHIVE, frames=np.concatenate(frames), labels=np.uint8(speakers),
                        lengths=np.uint8([len(one) for one in frames]))
    print(f"{ARCHIVE}: {len(frames)} utterances, {ARCHIVE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
