"""Write src/gru_c/datasets/digits.npz from the digits as comma-separated text.

    python tools/make_digits.py DIGITS.csv.gz [OUTPUT.npz]

The text holds one image a line: 64 pixel values 0..16, row by row, then the label 0..9. The archive
holds `images` (1797, 8, 8) and `labels` (1797,), both uint8. The same text gives the same bytes
with the same zlib: the entries carry no time stamp, and the order and the level are fixed here.
"""

import gzip
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

DEFAULT_OUTPUT = Path(__file__).parents[1] / "src" / "gru_c" / "datasets" / "digits.npz"


def read_table(path):
    """Return the images (M, 8, 8) and labels (M,) of the text at `path`, checked, as uint8."""
    with gzip.open(path, "rt", encoding="ascii") as text:
        table = np.loadtxt(text, delimiter=",", ndmin=2)
    if table.shape != (1797, 65):
        raise SystemExit(f"{path}: expected 1797 lines of 65 values, got {table.shape}")
    images, labels = table[:, :64], table[:, 64]
    if not np.isin(images, np.arange(17)).all() or not np.isin(labels, np.arange(10)).all():
        raise SystemExit(f"{path}: expected whole pixel values 0..16 and labels 0..9")
    return images.reshape(-1, 8, 8).astype(np.uint8), labels.astype(np.uint8)


def write_archive(path, arrays):
    """Write the mapping `arrays` as an .npz archive whose bytes depend on nothing else."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            file = io.BytesIO()
            np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(name + ".npy")  # made from a name alone: dated 1980-01-01
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # otherwise it names the operating system that ran this
            archive.writestr(entry, file.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def main(arguments):
    if len(arguments) not in (1, 2):
        raise SystemExit(__doc__)
    output = Path(arguments[1]) if len(arguments) == 2 else DEFAULT_OUTPUT
    images, labels = read_table(arguments[0])
    write_archive(output, {"images": images, "labels": labels})
    print(f"{output}: {len(images)} images, {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
