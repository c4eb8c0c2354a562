#!/usr/bin/env bash
# The suite on one variation at a time: OpenBLAS's kernels, instruction set, compiler, threads, engine.
# One line for each; what fails follows its line. --short runs the tests of numerics and kernels
# alone, without gcc's defaults, with which CI has run all tests. The active Python needs what builds
# the package, and what its tests want.
# Usage: tools/check_matrix.sh [--short]
set -uo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
clang=${CLANG:-$(compgen -c clang- | grep -xE 'clang(-[0-9]+)?' | sort -Vr | head -1)}
clang=${clang:-clang}
tests=()
select=()
if [ "${1:-}" = --short ]; then
    for name in numerics family kernels gemm activations known_answers; do
        if [ -e "tests/test_$name.py" ]; then tests+=("tests/test_$name.py"); fi
    done
fi
unset OPENBLAS_CORETYPE OMP_NUM_THREADS OPENBLAS_NUM_THREADS
unset GRU_C_ISA GRU_C_ENGINE GRU_C_NUM_THREADS GRU_C_CFLAGS GRU_C_NATIVE GRU_C_DEBUG
failures=0

build() {  # FOLDER COMPILER: the tree as it stands, built in place
    mkdir "$work/$1"
    git ls-files --cached --others --exclude-standard | tar -cf - -T - | tar -xf - -C "$work/$1"
    (cd "$work/$1" && CC=$2 python setup.py -q egg_info build_ext --inplace > build.log 2>&1) ||
        {
            echo "$2 does not build it:"
            grep -E 'error' "$work/$1/build.log" | head -n 20
            failures=$((failures + 1))
            return 1
        }
}

short() { [ ${#tests[@]} != 0 ]; }

run() {  # FOLDER NAME [VARIABLE=VALUE]: one line of the result
    local start=$SECONDS status=0 last
    (
        cd "$work/$1"
        env PYTHONPATH=src "${@:3}" python -m pytest -q -p no:cacheprovider "${tests[@]}" "${select[@]}"
    ) > "$work/output" 2>&1 || status=$?
    last=$(tail -n 1 "$work/output" | sed -E 's/ in [0-9.]+s.*//')
    printf '%-32s %s, %d s\n' "$2" "$last" $((SECONDS - start))
    if [ $status != 0 ]; then
        failures=$((failures + 1))
        grep -E '^(FAILED|ERROR|E  )' "$work/output" | head -n 40
    fi
}

has_avx512() { grep -q avx512dq /proc/cpuinfo 2> /dev/null; }

build gcc gcc || exit 1
default=$(cd "$work/gcc" && PYTHONPATH=src python -c '
from gru_c import _core, get_num_threads
print(f"{_core.isa}, {get_num_threads()} threads, {_core.engine}")')
short || run gcc "gcc, $default"
build clang "$clang" && run clang "$clang"
short && select=(-k blas)                     # the rest does not call BLAS
for kernels in Haswell Zen Prescott $(has_avx512 && echo SkylakeX); do
    run gcc "OPENBLAS_CORETYPE=$kernels" "OPENBLAS_CORETYPE=$kernels"
done
# What chooses its kernels itself is the same in all of these.
short && select=(-k "not avx512 and not avx2 and not baseline")
for isa in $(cd "$work/gcc" && PYTHONPATH=src python -c '
from gru_c import _core
print(*_core.core.instruction_sets()[1:])'); do               # the first is the default
    run gcc "GRU_C_ISA=$isa" "GRU_C_ISA=$isa"
done
run gcc "GRU_C_ENGINE=blas" "GRU_C_ENGINE=blas"
select=()
for threads in 1 $(short || echo 2); do
    run gcc "GRU_C_NUM_THREADS=$threads" "GRU_C_NUM_THREADS=$threads"
done
[ $failures = 0 ] || { echo "$failures of the runs failed"; exit 1; }
