#!/usr/bin/env bash
# Build and test in fresh environments: every Python given (default: python3.11 ... python3.14 where
# they run), with the oldest numpy and scipy that have wheels for it and with the newest.
# Usage: tools/check_versions.sh [python ...]
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- python3.11 python3.12 python3.13 python3.14
for python in "$@"; do
    "$python" -c '' 2>/dev/null || { echo "-- $python: not here"; continue; }
    for numeric in "numpy==2.1.* scipy==1.15.*" "numpy scipy"; do
        [[ $python == *3.14* && $numeric == *==* ]] && continue        # no such wheels
        echo "-- $python with $numeric"
        rm -rf "$work/env" "$work/tree"
        "$python" -m venv "$work/env"
        git clone -q . "$work/tree"
        (
            cd "$work/tree"
            . "$work/env/bin/activate"
            # shellcheck disable=SC2086
            pip install -q 'setuptools>=77' 'cython>=3.1' $numeric
            pip install -q --no-build-isolation '.[test]'
            python -m gru_c info
            pytest -q
        )
    done
done
