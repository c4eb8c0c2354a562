"""Count the instructions of a fixed list of calls, and fail where a call or a kernel grew.

Time on a shared machine is noise; the number of instructions is not. valgrind's callgrind counts
those inside the shared objects of `gru_c._core`, on one thread, for AVX2 (valgrind shows a program
no AVX-512). Python, NumPy, libc and BLAS are not counted. The core reads no cache size at run time,
so none has to be set.

    python tools/count_instructions.py                       compare with the committed counts
    python tools/count_instructions.py --accept --reason "..."      record what is counted now

A call fails at more than LIMIT above its committed count, and at DRIFT above its first one. A rise
that is accepted is stored with its reason beside the counts. Counts depend on the compiler, Cython
and NumPy: where one differs from the recorded one, growth is reported but does not fail. The first
counts are kept for good; only a file made anew starts them again.

Products make up most of a call, and one more load in the loop of `gates_forward` is lost in it. So
each function that KERNELS names is counted by itself, too: its own instructions in all calls, as
"kernel gates_forward_f32". KERNEL_LIMIT is lower, for one more instruction in a loop of a hundred
is to fail. What a compiler inlines counts for the function that it stands in (`microtile` for the
products, `pack_a` for `backward_rank`); what it splits off, such as `pack_b.constprop.0`, counts
for the function that it was split from.

Needs valgrind with its headers (Debian: `valgrind`) and a C compiler.
"""

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

FILE = Path(__file__).resolve().parent / "instruction_counts.json"
LIMIT = 0.02                                               # of the committed count of a call,
KERNEL_LIMIT = 0.005                                       # of a kernel,
DRIFT = 0.05                                               # of the first count of either
KERNELS = {"kernels_avx2": r"\w+",                         # module: functions that are counted
           "core": r"gemm|(pack|copy)_\w+|backward_rank"}
LEAST = 10_000                                             # of a function: small helpers are not

# T, N, I, H of the shapes of README's table, and of one whose products prefetch. T, and N where a
# step is large, are cut: valgrind takes 50 ns for each multiply-add of each lane.
SHAPES = (
    (3, 1, 1, 16),                                         # 1000,1,1,16
    (3, 1, 42, 128),                                       # 200,1,42,128
    (2, 8, 80, 256),                                       # 50,8,80,256
    (1, 13, 128, 256),                                     # 64,64,128,256
    (1, 75, 64, 100),                                      # 20,256,64,100
    (1, 1, 256, 1024),                                     # 100,1,256,1024
    (1, 1, 161, 1760),                                     # 10,64,161,1760
    (2, 32, 8, 64),                                        # 24,32,8,64
    (1, 6, 128, 512),                                      # weights beyond L2, few rows
)
DTYPES = ("float32", "float64")
CONVENTIONS = {"after": True, "before": False}

MARKS = r"""
#include <valgrind/callgrind.h>
void start(void) { CALLGRIND_START_INSTRUMENTATION; }
void zero(void) { CALLGRIND_ZERO_STATS; }
void dump(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
"""


# ---- the calls, inside valgrind -----------------------------------------------------------------

def model_calls(shape, dtype, reset_after):
    """(name, function) of one model, in the order in which they have to run."""
    import numpy as np

    from gru_c import GRU

    T, N, I, H = shape  # noqa: E741  (the names that the shapes have everywhere)
    gru = GRU(I, H, dtype=dtype, reset_after=reset_after, rng=0)
    x, d_output = np.ones((T, N, I), dtype), np.ones((T, N, H), dtype)
    h_0, d_h_n = np.ones((1, N, H), dtype), np.ones((1, N, H), dtype)
    yield "forward", lambda: gru(x, h_0)
    yield "backward", lambda: gru.backward(d_output, d_h_n)
    gru.eval()
    yield "inference", lambda: gru(x, h_0)
    layer, = gru.train()._layers
    yield "packing", lambda: layer.replaced({})            # of all weights


def cell_calls(dtype, reset_after):
    """One step from Python, the smallest call that people time; it runs often, so warm."""
    import numpy as np

    from gru_c import GRUCell

    cell = GRUCell(16, 32, dtype=dtype, reset_after=reset_after, rng=0)
    x, h, delta = np.ones((1, 16), dtype), np.ones((1, 32), dtype), np.ones((1, 32), dtype)
    for _ in range(3):
        cell(x, h)
        cell.backward(delta)
    yield "forward", lambda: cell(x, h)
    yield "backward", lambda: cell.backward(delta)
    cell.eval()
    cell(x, h, out=h)
    yield "step", lambda: cell(x, h, out=h)


def calls():
    """(name, function) of every call that is counted."""
    for dtype in DTYPES:
        for convention, reset_after in CONVENTIONS.items():
            kind = f"{dtype} {convention}"
            for name, call in cell_calls(dtype, reset_after):
                yield f"GRUCell {kind} {name}", call
            for shape in SHAPES:
                for name, call in model_calls(shape, dtype, reset_after):
                    yield f"{','.join(map(str, shape))} {kind} {name}", call


def run_calls(marks):
    """What runs under valgrind: each call leaves a file of counts with its name."""
    import gc

    marks = ctypes.CDLL(marks)
    todo = calls()
    gc.disable()
    marks.start()
    for name, call in todo:
        marks.zero()
        call()
        marks.dump(name.encode())


# ---- counting -----------------------------------------------------------------------------------

def parse(text):
    """The name of the call, and {(module, function): its own instructions} of the core, from a file
    of callgrind; None where it has no name."""
    name = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.M)
    if name is None:
        return None
    counts, module, function, called = Counter(), None, None, False
    for line in text.splitlines():
        if line.startswith("ob="):
            ours = re.search(r"/gru_c/_core/(?:\w+/)*(\w+)[^/]*$", line)
            module = ours and ours[1]
        elif line.startswith("fn="):
            function = line[3:]
        elif line.startswith("calls="):                    # the next line is of the callee
            called = True
        elif line[:1].isdigit():
            if module and not called:
                counts[module, function] += int(line.split()[-1])
            called = False
    return name[1], counts


def plain_name(module, function):
    """gates_f32 for __pyx_fuse_0__pyx_f_5gru_c_5_core_12kernels_avx2_gates, or a clone of it; of
    several fused types the dtype is the last."""
    function = function.partition(".")[0]
    fused = re.match(r"__pyx_fuse_(?:\d_)*(\d)__", function)
    suffix = f"_{('f32', 'f64')[int(fused[1])]}" if fused else ""
    return re.sub(rf"^__pyx_.*{len(module)}{module}_", "", function) + suffix


def totals(found):
    """{call or kernel: instructions} of what `parse` made of all calls."""
    calls, kernels = {}, Counter()
    for name, functions in found:
        calls[name] = functions.total()
        for (module, function), instructions in functions.items():
            kernel = plain_name(module, function)
            if re.fullmatch(KERNELS.get(module, ""), kernel):
                kernels[f"kernel {kernel}"] += instructions
    if not calls or min(calls.values()) == 0:
        sys.exit("no instruction of the core was counted")
    if not any(name.startswith("kernel gates_forward") for name in kernels):
        sys.exit("the core has no names of functions: it was linked with -s")
    kernels = {name: count for name, count in kernels.items() if count >= LEAST}
    return dict(sorted((calls | kernels).items()))


def count():
    """{call or kernel: instructions}, from one run of all calls under valgrind."""
    fixed = {"GRU_C_ISA": "avx2", "GRU_C_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
             "PYTHONHASHSEED": "0", "GRU_C_ENGINE": "panel"}
    with tempfile.TemporaryDirectory() as folder:
        source, marks = Path(folder, "marks.c"), Path(folder, "marks.so")
        source.write_text(MARKS)
        compiler = os.environ.get("CC", "cc").split()
        subprocess.run([*compiler, "-O1", "-shared", "-fPIC", "-o", marks, source], check=True)
        command = ["valgrind", "--tool=callgrind", "-q", "--instr-atstart=no",
                   "--compress-strings=no", "--compress-pos=no",
                   f"--callgrind-out-file={folder}/counts", sys.executable, __file__,
                   "--calls", str(marks)]
        done = subprocess.run(command, env=os.environ | fixed, capture_output=True, text=True,
                              check=False)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        found = [parse(path.read_text()) for path in sorted(Path(folder).glob("counts.*"))]
    return totals(entry for entry in found if entry)


def versions():
    """What the counts depend on: read from the compiled kernels, and from NumPy."""
    import numpy

    from gru_c._core import binding, kernels_avx2

    binary = Path(kernels_avx2.__file__).read_bytes()
    clang = re.search(rb"clang version (\d+[\d.]*)", binary)
    gcc = re.search(rb"GCC: \([^)]*\) (\d+[\d.]*)", binary)
    compiler = clang or gcc
    cython = re.search(rb"_cython_(\d+_\d+_\d+)", Path(binding.__file__).read_bytes())
    return {
        "compiler": f"{'clang' if clang else 'gcc'} {compiler[1].decode()}" if compiler else "?",
        "Cython": cython[1].decode().replace("_", ".") if cython else "?",
        "numpy": numpy.__version__,
    }


def series(version):
    """The part of a version that the counts may depend on: gcc 12, Cython 3.3, numpy 2.4."""
    parts = version.split(".")
    return parts[0] if version.startswith(("gcc", "clang")) else ".".join(parts[:2])


# ---- comparing ----------------------------------------------------------------------------------

def compare(counts, recorded):
    """Sentences about what fails, and about what else changed."""
    problems, notes = [], []
    for name in sorted(counts.keys() ^ recorded.keys()):
        what = "is not recorded" if name in counts else "is recorded, but was not counted"
        problems.append(f"{name} {what}")
    for name in sorted(counts.keys() & recorded.keys()):
        now, before, first = counts[name], recorded[name]["count"], recorded[name]["first"]
        change = f"{name}: {before} -> {now} ({now / before - 1:+.2%}; first {first})"
        limit = KERNEL_LIMIT if name.startswith("kernel ") else LIMIT
        if now / before - 1 > limit or now / first - 1 >= DRIFT:
            problems.append(change)
        elif now != before:
            notes.append(change)
    return problems, notes


def accept(counts, recorded, made_with, reason):
    """Write the counts; refused where one would be DRIFT above its first."""
    calls = recorded["calls"] if recorded else {}
    new = {name: {"first": calls.get(name, {}).get("first", now), "count": now}
           for name, now in counts.items()}
    for name, entry in new.items():
        if entry["count"] / entry["first"] - 1 >= DRIFT:
            sys.exit(f"{name}: {entry['count']} is {DRIFT:.0%} or more above the first count, "
                     f"{entry['first']}: no reason is good enough")
    ratios = [entry["count"] / calls[name]["count"] for name, entry in new.items() if name in calls]
    reasons = recorded["reasons"] if recorded else []
    change = {"largest": f"{max(ratios) - 1:+.2%}", "least": f"{min(ratios) - 1:+.2%}"} \
        if ratios else {}
    reasons = [*reasons, {"reason": reason, **change}]
    data = {"versions": made_with, "reasons": reasons, "calls": new}
    FILE.write_text(json.dumps(data, indent=1) + "\n")
    print(f"{len(new)} counts recorded in {FILE.name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--accept", action="store_true", help="record the counts of now")
    parser.add_argument("--reason", help="why, stored beside the counts")
    parser.add_argument("--calls", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.calls:
        return run_calls(args.calls)
    if args.accept and not (args.reason or "").strip():
        parser.error("--accept needs --reason")
    recorded = json.loads(FILE.read_text()) if FILE.exists() else None
    if recorded is None and not args.accept:
        sys.exit(f"{FILE.name} is missing: make it with --accept")
    made_with, counts = versions(), count()
    if args.accept:
        return accept(counts, recorded, made_with, args.reason)
    problems, notes = compare(counts, recorded["calls"])
    others = [f"{name} {made_with[name]}, recorded with {version}"
              for name, version in recorded["versions"].items()
              if series(made_with[name]) != series(version)]
    print(*notes, *others, *problems, sep="\n")
    print(f"{len(counts)} calls and kernels counted, {len(problems)} grew or are missing"
          + (": reported only, for the tools differ" if others else ""))
    return 1 if problems and not others else 0


if __name__ == "__main__":
    sys.exit(main())
