"""Check the size and the contents of the built wheel and sdist, given as arguments."""

import re
import sys
import tarfile
import zipfile
from pathlib import Path

WHEEL_LIMIT = 1_500_000        # bytes, without the data
DATA_LIMIT = 150_000
EMBEDDING = ("__init__.pxd", "cython_gru.pxd", "include/gru_c.h", "share/pkgconfig/gru_c.pc",
             "share/cmake/gru_c/gru_cConfig.cmake", "share/cmake/gru_c/gru_cConfigVersion.cmake")
NEEDED = {
    ".whl": ("gru_c/py.typed", "gru_c/_core/core.pxd", "gru_c/_core/rnn/call.pxd",
             "gru_c/_core/surface/types.pxd", "gru_c/datasets/digits.npz",
             "gru_c/datasets/CREDITS.md", *(f"gru_c/{name}" for name in EMBEDDING)),
    ".gz": ("setup.py", "src/gru_c/_core/core.pyx", "src/gru_c/_core/kernels.h",
            "src/gru_c/_core/gemm/microkernel.h", "src/gru_c/_core/parallel/pool.pxi",
            "src/gru_c/_core/rnn/forward.pxi", "src/gru_c/_core/vmath/math.h", "LICENSE",
             "src/gru_c/datasets/digits.npz", "tests/test_numerics.py", "tests/c/family.c",
             "tools/static_library/contexts.c", "examples/embedding/c_program/stream.c",
             *(f"src/gru_c/{name}" for name in EMBEDDING)),
}
# What is generated or compiled; in a wheel no sources but the .pxd files and gru_c.h.
UNWANTED = {
    ".whl": r"(?!gru_c/include/).*\.(c|h|pxi|pyx|html|pyc)",
    ".gz": r"src/.*\.c|.*\.(html|pyc|so)|.*/(blas_int\.pxi|core\.h|kernels_\w+\.h)",
}
MODULES = ("cython_gru", "_core/core", "_core/binding", "_core/testing", "_core/gemm/blas",
           "_core/kernels_baseline", "_core/kernels_int8_baseline")


def sizes(path: Path) -> dict[str, int]:
    """Bytes that each member takes in the archive (the sdist's: unpacked)."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return {info.filename: info.compress_size for info in archive.infolist()}
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2]: member.size for member in archive.getmembers()}


def check(path: Path) -> list[str]:
    members = sizes(path)
    problems = [f"{path.name} lacks {name}" for name in NEEDED[path.suffix] if name not in members]
    problems += [f"{path.name} holds {name}" for name in members
                 if re.fullmatch(UNWANTED[path.suffix], name)]
    if path.suffix == ".whl":
        problems += [f"{path.name} lacks the module {name}" for name in MODULES
                     if not any(member.startswith(f"gru_c/{name}.") and
                                member.endswith(".so") for member in members)]
        data = sum(size for name, size in members.items() if name.startswith("gru_c/datasets/"))
        rest = path.stat().st_size - data
        print(f"{path.name}: {rest / 1000:.0f} kB and {data / 1000:.0f} kB of data")
        if rest > WHEEL_LIMIT or data > DATA_LIMIT:
            problems.append(f"{path.name} is too large")
    return problems


if __name__ == "__main__":
    found = [problem for name in sys.argv[1:] for problem in check(Path(name))]
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)
