#!/usr/bin/env bash
# The C interface under random arguments, with AddressSanitizer and UndefinedBehaviorSanitizer. Any
# report fails. The active Python needs Cython; gcc must be there.
# Usage: tools/fuzz/run_c_surface.sh SECONDS [SEED]
set -euo pipefail
cd "$(dirname "$0")/../.."
seed=${2:-0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# asan-globals=0: its lists of globals would keep those of Python, which the partial link drops.
flags="-O1 -g -fno-omit-frame-pointer --param asan-globals=0"
flags+=" -fsanitize=address,undefined -fno-sanitize-recover=undefined"
python tools/make_static_library.py "$work/gru_c" --cc gcc --cflags "$flags"
# shellcheck disable=SC2086
gcc -std=c99 -Wall -Wextra -pedantic $flags -I"$work/gru_c/include" tools/fuzz/c_surface.c \
    "$work/gru_c/lib/libgru_c.a" -lm -pthread -o "$work/c_surface"
export UBSAN_OPTIONS=print_stacktrace=1
"$work/c_surface" --seconds "$1" --seed "$seed"
