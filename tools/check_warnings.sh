#!/usr/bin/env bash
# Build with -Wall -Wextra -Werror, the C of Cython included. The active Python needs what builds the
# package. Unused functions are no fault: testing.pyx includes more than it uses (setup.py allows
# them, but to clang the last flag counts).
# Usage: tools/check_warnings.sh [COMPILER]
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files --cached --others --exclude-standard | tar -cf - -T - | tar -xf - -C "$work"
cd "$work"
CC=${1:-gcc} GRU_C_CFLAGS="-Wall -Wextra -Werror -Wno-unused-function" python setup.py -q build_ext > build.log 2>&1 ||
    { grep -E 'error' build.log | head -n 40; exit 1; }
echo "${1:-gcc}: no warning"
