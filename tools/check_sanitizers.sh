#!/usr/bin/env bash
# The compiled core under AddressSanitizer with UndefinedBehaviorSanitizer, then under ThreadSanitizer;
# last, a C program of eight threads and the static library under ThreadSanitizer.
# Any report fails. Python, numpy and BLAS are not instrumented, and ThreadSanitizer leaves out what
# happens inside them. --short runs a part of the tests. The active Python needs what builds the
# package and what its tests want; gcc must be there.
# Usage: tools/check_sanitizers.sh [--short]
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset OPENBLAS_CORETYPE OMP_NUM_THREADS GRU_C_ISA GRU_C_ENGINE GRU_C_NATIVE GRU_C_DEBUG

build() {  # FOLDER FLAGS: in place, with symbols
    mkdir "$work/$1"
    git ls-files --cached --others --exclude-standard | tar -cf - -T - | tar -xf - -C "$work/$1"
    (cd "$work/$1" && CC=gcc LDFLAGS=$2 GRU_C_CFLAGS="-O1 -g -fno-omit-frame-pointer $2" \
        python setup.py -q egg_info build_ext --inplace > build.log 2>&1) ||
        { tail -n 20 "$work/$1/build.log"; exit 1; }
}
library() { gcc -print-file-name="lib$1.so"; }
# A report goes to the standard error, which pytest must not swallow: -s.
# Left out: times, which mean nothing here, and children and memory, which the sanitizers change.
slow="stall or import_ or processes or leak or grow or fork or never_threads or environment"

addresses() {
    local files=(tests/test_{known_answers,interface,options}.py)
    [ "$1" = --short ] || files+=(
        tests/test_{kernels,gemm,activations,numerics,family,robustness,state}.py)
    cd "$work/address"
    export LD_PRELOAD PYTHONMALLOC=malloc PYTHONPATH=src
    LD_PRELOAD="$(library asan) $(library ubsan)"
    export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
    python -c '
import numpy as np, gru_c
cell = gru_c.GRUCell(16, 32)
for rows in (1, 3):                                    # out= that is not aligned
    out = np.zeros(rows * 128 + 1, np.uint8)[1:].view(np.float32).reshape(rows, 32)
    for mode in (True, False):
        cell.train(mode)(np.ones((rows, 16), np.float32), np.ones((rows, 32), np.float32), out=out)
'
    python -m pytest -q -s -p no:cacheprovider "${files[@]}" -k "not ($slow)"
}

threads() {
    local files=(tests/test_robustness.py tests/test_options.py)
    local select="(thread or side_by_side or share or ragged_batches or long_row)"
    [ "$1" = --short ] || files+=(tests/test_interface.py tests/test_numerics.py)
    cd "$work/thread"
    export TSAN_OPTIONS=ignore_noninstrumented_modules=1:die_after_fork=0:exitcode=66:halt_on_error=1
    export LD_PRELOAD; LD_PRELOAD=$(library tsan)
    # -R: ThreadSanitizer of GCC 12 wants the addresses where older kernels put them.
    export PYTHONPATH=src GRU_C_NUM_THREADS=3
    setarch -R python -c '
import threading, numpy as np, gru_c
model = gru_c.GRU(16, 128).eval()
x = np.ones((20, 32, 16), np.float32)
def call():
    for _ in range(20):
        model(x)
        trained = gru_c.GRU(16, 32)
        trained(x)
        trained.backward(np.ones((20, 32, 32), np.float32))
        two = gru_c.GRU(16, 32, bidirectional=True)
        output, h_n = two(x, lengths=np.arange(32) % 21)
        two.backward(output, h_n)
def change():
    for number in range(200):
        gru_c.set_num_threads(1 + number % 3)
        model.weight_hh_l0 = -model.weight_hh_l0
threads = [threading.Thread(target=target) for target in (call, call, change)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]'
    setarch -R python -m pytest -q -s -p no:cacheprovider "${files[@]}" -k "$select and not ($slow)"
}

# The C interface without Python: eight threads that share a model.
c_threads() {
    unset LD_PRELOAD
    local flags="-O1 -g -fno-omit-frame-pointer -fsanitize=thread"
    python tools/make_static_library.py "$work/static" --cc gcc --cflags "$flags"
    # shellcheck disable=SC2086
    gcc -std=c99 $flags -I"$work/static/include" tests/c/threads.c "$work/static/lib/libgru_c.a" \
        -lm -pthread -o "$work/threads"
    TSAN_OPTIONS=exitcode=66:halt_on_error=1 setarch -R "$work/threads"
}

build address "-fsanitize=address,undefined -fno-sanitize-recover=undefined"
build thread "-fsanitize=thread"
(addresses "${1:-}")
echo "AddressSanitizer, UndefinedBehaviorSanitizer: no report"
(threads "${1:-}")
(c_threads)
echo "ThreadSanitizer: no report"
