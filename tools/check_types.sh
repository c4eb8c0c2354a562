#!/usr/bin/env bash
# The type hints: mypy (strict) and basedpyright (strict) find nothing in tests/typing/right_uses.py,
# and in wrong_uses.py exactly the errors that its comments name; no public name lacks a type.
# Needs mypy, basedpyright, numpy and matplotlib in the environment of `python`.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src" MYPYPATH="$PWD/src"
python=$(command -v "${PYTHON:-python}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m mypy --strict --follow-imports=silent --show-error-codes --no-error-summary \
    tests/typing/right_uses.py
"$python" -m mypy --strict --follow-imports=silent --show-error-codes --no-error-summary \
    tests/typing/wrong_uses.py > "$work/mypy" || [ $? = 1 ]
"$python" -m basedpyright --pythonpath "$python" tests/typing/right_uses.py
"$python" -m basedpyright --pythonpath "$python" --outputjson tests/typing/wrong_uses.py \
    > "$work/pyright" || [ $? = 1 ]

"$python" - "$work" << 'COMPARE'
import json
import re
import sys
from pathlib import Path

wrong, work = Path("tests/typing/wrong_uses.py"), Path(sys.argv[1])
expected = {(number, code)
            for number, line in enumerate(wrong.read_text().splitlines(), 1) if "  # error: " in line
            for code in line.partition("  # error: ")[2].split(", ")}
found = {(int(line), code) for line, code in re.findall(
    r"^[^:]*wrong_uses\.py:(\d+): error: .*\[([\w-]+)\]$", (work / "mypy").read_text(), re.M)}
for error in json.loads((work / "pyright").read_text())["generalDiagnostics"]:
    if not error.get("rule", "").startswith("reportUnknown"):      # follow from another error
        found.add((error["range"]["start"]["line"] + 1, error.get("rule", "error")))
for title, difference in (("missing", expected - found), ("not expected", found - expected)):
    for line, code in sorted(difference):
        print(f"{wrong}:{line}: {title}: {code}")
if found != expected or not expected:
    sys.exit("the errors found are not those that the comments name")
print(f"{len(found)} errors in {wrong}, as its comments say")
COMPARE

"$python" -m basedpyright --pythonpath "$python" --verifytypes gru_c --ignoreexternal \
    > "$work/complete" || { cat "$work/complete"; exit 1; }
grep "Type completeness score" "$work/complete"
