#!/usr/bin/env bash
# Build with -Wall -Wextra -Werror. Left out is what Cython's own C says everywhere: parameters that it
# does not use, tables that it begins and does not finish. The active Python needs what builds the package.
# Usage: tools/check_warnings.sh [COMPILER]
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files --cached --others --exclude-standard | tar -cf - -T - | tar -xf - -C "$work"
cd "$work"
CC=${1:-gcc} GRU_C_CFLAGS="-Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers -Wno-unused-function" \
    python setup.py -q build_ext > build.log 2>&1 ||
    { grep -E 'error' build.log | head -n 40; exit 1; }
echo "${1:-gcc}: no warning"
