"""Make a static library of the C interface, for programs without Python, and what finds it.

    python tools/make_static_library.py OUT [--isa avx2] [--cc CC] [--cflags "FLAGS"]

writes OUT/lib/libgru_c.a, OUT/include/gru_c.h, OUT/lib/pkgconfig/gru_c.pc and
OUT/lib/cmake/gru_c/gru_c-config.cmake; OUT may be moved. It needs Cython, the headers of Python
(they are read, nothing of Python is linked), a C compiler (gcc from version 9, or clang) and GNU
binutils. A program that links the library needs a C library with pthreads and libm.

The kernels for AVX-512, AVX2 and any processor are all in it, and the first call chooses; --isa
leaves out those that need more. Those of int8 weights for AVX-VNNI need gcc 11, or clang 12, and
are left out with an older one. For another machine give its compiler and the prefix of its
binutils:

    python tools/make_static_library.py OUT --cc aarch64-linux-gnu-gcc --binutils aarch64-linux-gnu-

Python's headers are then those of this machine, so the other has to have the same sizes of C's
types: 64 bits. --cflags come last, and may turn off what is set here.

The steps: Cython makes C; each file is compiled with a section for each function; a partial link
keeps what the functions of gru_c.h reach, and drops all else, what needs Python among it; all names
but those of gru_c.h become local.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "gru_c"
CORE = SOURCE / "_core"
HEADER = SOURCE / "include" / "gru_c.h"
CMAKE_VERSION = SOURCE / "share" / "cmake" / "gru_c" / "gru_cConfigVersion.cmake"
CONTEXTS = Path(__file__).resolve().parent / "static_library" / "contexts.c"

# As in setup.py; a section for each function lets the linker drop what needs Python.
DIRECTIVES = ("language_level=3", "cdivision=True", "boundscheck=False", "wraparound=False",
              "initializedcheck=False")
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-w", "-fPIC",
         "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections",
         "-DCYTHON_WITHOUT_ASSERTIONS", "-DNDEBUG", "-DGRU_C_STANDALONE"]
AVX2 = ["-mavx2", "-mfma"]
ISA_FLAGS = {
    "baseline": [],
    "avx2": AVX2,
    "avx512": [*AVX2, "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw"],
}
# Kernels of int8 weights, and the instruction set that each belongs to.
INT8_FLAGS = {
    "int8_baseline": ("baseline", []),
    "int8_avx2": ("avx2", ["-mavx2"]),
    "int8_avxvnni": ("avx2", ["-mavx2", "-mavxvnni"]),
    "int8_avx512vnni": ("avx512", [*ISA_FLAGS["avx512"], "-mavx512vnni"]),
}

PKG_CONFIG = """\
prefix=${{pcfiledir}}/../..

Name: gru_c
Description: A gated recurrent unit (GRU) for CPUs
Version: {version}
Cflags: -I${{prefix}}/include
Libs: -L${{prefix}}/lib -lgru_c -lm -pthread
"""
CMAKE = """\
# find_package(gru_c), then target_link_libraries(program gru_c::gru_c).
include(CMakeFindDependencyMacro)
find_dependency(Threads)
get_filename_component(gru_c_PREFIX "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET gru_c::gru_c)
  add_library(gru_c::gru_c STATIC IMPORTED)
  set_target_properties(gru_c::gru_c PROPERTIES
    IMPORTED_LOCATION "${gru_c_PREFIX}/lib/libgru_c.a"
    INTERFACE_INCLUDE_DIRECTORIES "${gru_c_PREFIX}/include"
    INTERFACE_LINK_LIBRARIES "Threads::Threads;m")
endif()
"""


def run(*command, **options) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          check=False, **options)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def version() -> str:
    return re.search(r'__version__.* = "(.+)"', (SOURCE / "_config.py").read_text())[1]


def public_names() -> list[str]:
    """The functions of gru_c.h."""
    names = re.findall(r"\bF\((gru_\w+)", HEADER.read_text())
    found = [name for name in names if not name.endswith("_")]
    found += [name + dtype for name in names if name.endswith("_") for dtype in ("f32", "f64")]
    return [*found, "gru_status_text"]


def instruction_sets(best: str, compiler: list[str]) -> list[str]:
    """Those that the compiler's target has, up to the best that is wanted."""
    if "__x86_64__" not in run(*compiler, "-dM", "-E", "-x", "c", os.devnull):
        return ["baseline"]
    names = list(ISA_FLAGS)
    return names[:names.index(best) + 1]


def kernels(isas: list[str], compiler: list[str]) -> dict[str, list[str]]:
    """The flags of each module of kernels, of those that the compiler knows."""
    found = {isa: ISA_FLAGS[isa] for isa in isas}
    for name, (isa, flags) in INT8_FLAGS.items():
        if isa in isas and (name != "int8_avxvnni" or knows(compiler, flags)):
            found[name] = [*flags, "-ffp-contract=off", "-fwrapv", "-DGRU_C_INT8"]
    return found


def knows(compiler: list[str], flags: list[str]) -> bool:
    return subprocess.run([*compiler, *flags, "-E", "-x", "c", os.devnull], capture_output=True,
                          check=False).returncode == 0


def copy_public(work: Path) -> Path:
    """A copy of the package's Cython files, in which C can call the functions of gru_c.h."""
    copy = work / "src" / "gru_c"
    shutil.copytree(SOURCE, copy, ignore=lambda folder, names: [
        name for name in names
        if "." in name and not name.endswith((".pyx", ".pxd", ".pxi", ".py"))])
    functions = copy / "_core" / "surface" / "functions.pxi"
    functions.write_text(re.sub(r"^cdef ", "cdef public ", functions.read_text(), flags=re.M))
    return copy


def compile_objects(work: Path, compiler: list[str], isas: list[str],
                    flags: list[str]) -> list[Path]:
    """Object files of the interface, of the kernels, and of what chooses among these."""
    copy = copy_public(work)
    chosen = kernels(isas, compiler)
    modules = {"standalone": []} | {f"kernels_{name}": extra for name, extra in chosen.items()}
    options = [word for directive in DIRECTIVES for word in ("-X", directive)]
    includes = [f"-I{CORE}", f"-I{HEADER.parent}", f"-I{sysconfig.get_path('include')}"]

    def to_object(source, name, extra):
        run(*compiler, *FLAGS, *extra, *flags, *includes, "-c", source, "-o", work / f"{name}.o")
        return work / f"{name}.o"

    def from_cython(name):
        run(sys.executable, "-m", "cython", *options, "-I", copy.parent,
            copy / "_core" / f"{name}.pyx", "-o", work / f"{name}.c")
        return to_object(work / f"{name}.c", name, modules[name])

    with ThreadPoolExecutor(2) as threads:
        objects = list(threads.map(from_cython, modules))
    defines = [f"-DGRU_HAVE_{name.upper()}" for name in chosen]
    return [*objects, to_object(CONTEXTS, "contexts", defines)]


def link(work: Path, compiler: list[str], binutils: str, objects: list[Path]) -> Path:
    """One object file, without Python, in which only the names of gru_c.h are global."""
    names, whole = public_names(), work / "gru_c.o"
    (work / "names").write_text("\n".join(names) + "\n")
    run(*compiler, "-r", "-nostdlib", "-Wl,--gc-sections", *(f"-Wl,-u,{name}" for name in names),
        *objects, "-o", whole)
    # Of what was dropped, undefined names are left. Where one of Python is in use, this fails.
    run(f"{binutils}objcopy", f"--keep-global-symbols={work / 'names'}", "--wildcard",
        "--strip-symbol=Py*", "--strip-symbol=_Py*", whole)
    defined = run(f"{binutils}nm", "--defined-only", whole)
    missing = [name for name in names if not re.search(rf"\bT {name}$", defined, re.M)]
    if missing:
        sys.exit(f"not defined: {', '.join(missing)}")
    return whole


def install(whole: Path, archiver: str, out: Path) -> None:
    """The archive, the header, and files for pkg-config and CMake."""
    cmake = out / "lib" / "cmake" / "gru_c"
    for folder in (out / "include", out / "lib" / "pkgconfig", cmake):
        folder.mkdir(parents=True, exist_ok=True)
    library = out / "lib" / "libgru_c.a"
    library.unlink(missing_ok=True)
    run(archiver, "rcs", library, whole)
    shutil.copy(HEADER, out / "include")
    (out / "lib" / "pkgconfig" / "gru_c.pc").write_text(PKG_CONFIG.format(version=version()))
    (cmake / "gru_c-config.cmake").write_text(CMAKE)
    shutil.copy(CMAKE_VERSION, cmake / "gru_c-config-version.cmake")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--isa", choices=ISA_FLAGS, default="avx512",
                        help="the most that it may use, default avx512")
    parser.add_argument("--cc", default=os.environ.get("CC", "cc"), help="default $CC or cc")
    parser.add_argument("--cflags", default=os.environ.get("CFLAGS", ""), help="default $CFLAGS")
    parser.add_argument("--binutils", default="", metavar="PREFIX",
                        help="of ar, nm and objcopy: aarch64-linux-gnu-")
    options = parser.parse_args()
    compiler = shlex.split(options.cc)
    isas = instruction_sets(options.isa, compiler)
    with tempfile.TemporaryDirectory() as folder:
        objects = compile_objects(Path(folder), compiler, isas, shlex.split(options.cflags))
        whole = link(Path(folder), compiler, options.binutils, objects)
        install(whole, f"{options.binutils}ar", options.out)
    print(f"{options.out}: gru_c {version()} for {', '.join(isas)}")


if __name__ == "__main__":
    main()
