"""Fail where a word that the compiled core has given up comes back: the field has another.

`python tools/check_words.py`, from anywhere. Words are whole words or parts of a name, in any case.
"""

import re
import sys
from pathlib import Path

CORE = Path(__file__).resolve().parents[1] / "src" / "gru_c" / "_core"
SUFFIXES = (".py", ".pyx", ".pxd", ".pxi", ".h")
GENERATED = r"core\.h|kernels_\w+\.h"

# What not to say: what to say.
WORDS = {
    r"ahead": "prefetch distance",
    r"(?<!atomic_add_)fetch(es|ed|ing)?": "prefetch, load",
    r"are_(far|near)": "cache-resident, exceeds L2",
    r"walk(s|ed|ing)?": "macrokernel",
    r"(?<![.])strips?": "micropanel",
    r"tiles?": "microtile, packed A",
    r"most_\w+": "max_",
    r"[ag]_row|c_row": "lda, ld_gates, ldc",
    r"(?<!max_)block_rows": "KC",
    r"from_(input|hidden|row)": "w_ih, w_hh, c_init",
    r"d_(input|hidden)": "w_ih_t, w_hh_t",
    r"crews?": "team",
    r"jobs?": "task",
    r"tapes?|traces?": "saved activations, training state",
    r"infer(s|red)?|records?|recorded|differentiate[sd]?": "forward_inference, forward_training",
    r"lends?|lent|give_back|gives? back|given back": "acquire, release, recycle",
    r"scatter(s|ed)?|gather(s|ed)?|copy_output": "load, store",
    r"pieces?|allots?|allotted|lay_out": "ceil_div, bump allocation, place",
    r"fits?_rows|rows_of": "matches, as_view",
    r"twins?|put_output|add_d_output|d_gates": "pointwise_backward, store_rows, add_rows",
    r"tables?": "context",
}
PATTERNS = {re.compile(f"(?<![a-z])(?:{words})(?![a-z])", re.I): say
            for words, say in WORDS.items()}


def main() -> int:
    problems = [
        f"{path.relative_to(CORE.parents[2])}:{number}: {match[0]!r}: say {say}"
        for path in sorted(CORE.rglob("*"))
        if path.suffix in SUFFIXES and not re.fullmatch(GENERATED, path.name)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for pattern, say in PATTERNS.items() for match in pattern.finditer(line)
    ]
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
