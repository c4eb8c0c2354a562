"""Make the committed corpus of a target from a larger one.

    python tools/fuzz/minimise.py TARGET FOLDER...

Of the committed inputs and the files in the folders (what `run.py --out` wrote), few are kept that
reach all the lines of `gru_c.interop` that all of them reach, in TARGET.zip of tests/fixtures/
interop/fuzz. Those whose names begin with "found" or "crash" stay: a reader, or a library, has
failed on them.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from run import Harness
from targets import CORPUS, TARGETS


class Lines:
    """The lines of `gru_c.interop` that are run in a with block."""

    def __enter__(self) -> set[tuple[str, int]]:
        self.found: set[tuple[str, int]] = set()
        sys.settrace(self.call)
        return self.found

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def call(self, frame: FrameType, event: str, argument: object) -> Any:
        return self.line if "interop" in frame.f_code.co_filename else None

    def line(self, frame: FrameType, event: str, argument: object) -> Any:
        self.found.add((frame.f_code.co_filename, frame.f_lineno))
        return self.line


def inputs(name: str, folders: list[str]) -> Iterator[tuple[str, bytes]]:
    archive = CORPUS / f"{name}.zip"
    if archive.exists():
        with zipfile.ZipFile(archive) as corpus:
            yield from ((member, corpus.read(member)) for member in corpus.namelist())
    for folder in folders:
        yield from ((path.name, path.read_bytes()) for path in Path(folder).iterdir())


def main() -> None:
    name, *folders = sys.argv[1:]
    warnings.simplefilter("ignore")                        # of readers, about what they leave out
    all_inputs = list(inputs(name, folders))
    kept = {data: member for member, data in all_inputs if member.startswith(("found", "crash"))}
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(TARGETS[name], Path(folder))
        reached = {}
        for data in {data for _, data in all_inputs} - kept.keys():
            with Lines() as reached[data], suppress(Exception):
                harness.run(data)
    todo = total = set().union(*reached.values())
    while todo:
        best = max(sorted(reached), key=lambda data: (len(reached[data] & todo), -len(data)))
        todo = todo - reached[best]
        kept[best] = f"{zlib.crc32(best):08x}"
    with zipfile.ZipFile(CORPUS / f"{name}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for data, member in sorted(kept.items(), key=lambda item: item[1]):
            out.writestr(zipfile.ZipInfo(member), data, zipfile.ZIP_DEFLATED)
    print(f"{name}: {len(kept)} of {len(all_inputs)} inputs, {len(total)} lines")


if __name__ == "__main__":
    main()
