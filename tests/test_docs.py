"""The documents: their examples run, and what docs/gru_backward.md quotes stands in the source.

Examples are the ```python blocks of README.md and docs/. Each runs in a namespace of its own,
unless the comment `<!-- no test -->` stands before it: tests/test_interop_*_live.py run those. With
`<!-- needs NAME -->` before it, it is skipped where the package NAME is not installed.

Blocks of any language with `<!-- from FILE -->` before them are parts of that file, a line `...`
standing for what was left out; those of Python do not run here, but with the file.

Quotations name the functions that they come from, in a comment before them:

    <!-- quoted from reference.backward, pointwise.gates_backward -->

- Before a table with the columns formula, NumPy, Cython. Each code span of the NumPy column is a
  whole line, or a whole statement, of a named function of reference.py, each of the Cython column
  one of another named function. Text outside code spans is not a quotation.
- Before a ```cython block: lines that follow one another in one of the named functions.

White space does not count, nor do the source's comments where the quotation leaves them out. `...`
before a closing parenthesis stands for the arguments left out.

Relative links lead to files. In CONTRIBUTING.md the floor plan has each file of the core once, and
the last column of the table of options quotes lines of the files beside it.
"""

import re
import textwrap
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DERIVATION = ROOT / "docs" / "gru_backward.md"
FLOOR_PLAN = ROOT / "CONTRIBUTING.md"
CORE = ROOT / "src" / "gru_c" / "_core"
SOURCES = {
    "reference": ROOT / "src" / "gru_c" / "reference.py",
    "pointwise": CORE / "rnn" / "pointwise.pxi",
    "forward": CORE / "rnn" / "forward.pxi",
    "backward": CORE / "rnn" / "backward.pxi",
    "weight_gradients": CORE / "rnn" / "weight_gradients.pxi",
}
EXAMPLE = re.compile(
    r"^(?:<!-- (?:(?P<skip>no test|from [^\n]*)|needs (?P<needs>\w+)) -->\s*)?"
    r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL)
EXCERPT = re.compile(r"^<!-- from (?P<path>\S+) -->\n```\w+\n(?P<code>.*?)^```",
                     re.MULTILINE | re.DOTALL)
TABLE = "| formula | NumPy | Cython |\n"
QUOTATION = re.compile(
    r"^<!-- quoted from (?P<names>[^\n]*) -->\n"
    r"(?:```cython\n(?P<block>.*?)^```|(?P<table>" + re.escape(TABLE) + r"(?:\|[^\n]*\n)+))",
    re.MULTILINE | re.DOTALL)


def line_number(text, position):
    return text.count("\n", 0, position) + 1


def blocks_of_code(pattern, start):
    """(path, line, match) of a pattern with a group `code`; each `start` in a text begins one."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        found = list(pattern.finditer(text))
        assert len(found) == text.count(start), f"{path}: a block after {start!r} has no end"
        for match in found:
            yield path, line_number(text, match.start("code")), match


# ---- examples ----------------------------------------------------------------------------------

def examples():
    for path, line, match in blocks_of_code(EXAMPLE, "```python\n"):
        if not match["skip"]:
            yield pytest.param(path, line, textwrap.dedent(match["code"]), match["needs"],
                               id=f"{path.name}:{line}")


@pytest.mark.parametrize(("path", "line", "code", "needs"), list(examples()))
def test_example_runs(path, line, code, needs, tmp_path, monkeypatch):
    if needs:
        pytest.importorskip(needs)
    monkeypatch.chdir(tmp_path)
    # Empty lines first, so that a traceback shows lines of the document.
    program = compile("\n" * (line - 1) + code, path, "exec", dont_inherit=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(program, {"__name__": "__main__"})


def test_examples_of_other_frameworks_are_run_beside_them():
    """By the test, of those that need a framework, that names the page."""
    live = "".join(path.read_text(encoding="utf-8")
                   for path in (ROOT / "tests").glob("test_interop_*_live.py"))
    skipping = [path.name for path in (ROOT / "docs" / "interop").glob("*.md")
                if "<!-- no test -->" in path.read_text(encoding="utf-8")]
    assert len(skipping) > 3
    assert [name for name in skipping if f'"{name}"' not in live] == []


# ---- excerpts ----------------------------------------------------------------------------------

def excerpts():
    for path, line, match in blocks_of_code(EXCERPT, "<!-- from "):
        yield pytest.param(match["path"], match["code"], id=f"{path.name}:{line}")


def test_code_that_does_not_run_here_is_an_excerpt():
    text = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?!python)\w+\n", text, re.MULTILINE)
    assert len(blocks) > 6
    assert re.findall(r"^<!-- from .* -->\n(```(?!python)\w+\n)", text, re.MULTILINE) == blocks


@pytest.mark.parametrize(("name", "code"), list(excerpts()))
def test_excerpt_stands_in_its_file(name, code):
    source = "\n" + (ROOT / name).read_text(encoding="utf-8")
    for part in re.split(r"^\.\.\.\n", code, flags=re.MULTILINE):
        _, found, rest = source.partition("\n" + part)
        assert found, f"{name} does not have these lines, or has them before others:\n{part}"
        source = "\n" + rest


# ---- quotations --------------------------------------------------------------------------------

def functions(path):
    """Name and text of each function of a source file."""
    pieces = re.split(r"^(?=c?def )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    headed = ((re.match(r"c?def [^\n(]*?(\w+)\(", piece), piece) for piece in pieces)
    return {head[1]: piece for head, piece in headed if head}


def without_comments(source):
    return re.sub(r"[ \t]*#.*", "", source)


def pattern(word):
    """A word; `...)` ends a call: anything with balanced parentheses, two deep at most."""
    if word != "...)":
        return re.escape(word)
    inner = r"\([^()]*\)"
    return rf"(?:[^()]|\((?:[^()]|{inner})*\))+\)"


def stands(quote, source):
    """Whether the words of `quote` fill whole lines of `source`."""
    words = r"\s+".join(map(pattern, quote.split()))
    return any(re.search(rf"^[ \t]*{words}[ \t]*$", text, re.MULTILINE)
               for text in (source, without_comments(source)))


def quotations(text):
    """(line number, whether in a NumPy column, quotation, names of functions) for each."""
    for match in QUOTATION.finditer(text):
        names = match["names"].split(", ")
        line = line_number(text, match.start("block" if match["block"] else "table"))
        if match["block"]:
            yield line, False, match["block"], names
        else:
            for i, row in enumerate(match["table"].splitlines()):
                cells = re.split(r"(?<!\\)\|", row)[1:-1]
                assert len(cells) == 3, f"{DERIVATION.name}:{line + i}: not three cells: {row}"
                for is_numpy, cell in ((True, cells[1]), (False, cells[2])):
                    for code in re.findall(r"`([^`]+)`", cell):
                        yield line + i, is_numpy, code.replace(r"\|", "|"), names


def drifted(text, sources):
    """What no longer stands in the source, one message each."""
    for line, is_numpy, quote, names in quotations(text):
        names = [name for name in names if name.startswith("reference.") == is_numpy]
        bodies = [sources[name] for name in names]
        where = " and ".join(names)
        missing = [(line + i, part) for i, part in enumerate(quote.splitlines())
                   if not any(stands(part, body) for body in bodies)]
        for part_line, part in missing:
            yield f"{DERIVATION.name}:{part_line}: {where} has no line\n        {part.strip()}"
        if not missing and not any(stands(quote, body) for body in bodies):
            yield (f"{DERIVATION.name}:{line}: {where} has these lines, but not one after the "
                   f"other:\n{quote}")


def test_quotations_stand_in_the_source():
    text = DERIVATION.read_text(encoding="utf-8")
    sources = {f"{stem}.{name}": body for stem, path in SOURCES.items()
               for name, body in functions(path).items()}
    marked = list(QUOTATION.finditer(text))
    expected = text.count(TABLE) + text.count("```cython\n")
    assert len(marked) == expected, (
        f"{DERIVATION.name}: a table or ```cython block without `<!-- quoted from ... -->`")
    unknown = {name for match in marked for name in match["names"].split(", ")} - sources.keys()
    assert not unknown, f"{DERIVATION.name} quotes functions that are gone: {sorted(unknown)}"
    messages = list(drifted(text, sources))
    assert not messages, "the source has changed, its quotation has not:\n" + "\n".join(messages)


# ---- CONTRIBUTING.md, links --------------------------------------------------------------------

@pytest.mark.parametrize("path", [*DOCUMENTS, FLOOR_PLAN], ids=lambda path: path.name)
def test_links_lead_to_files(path):
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^):#\s]*[./][^):#\s]*)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_floor_plan_has_each_file_of_the_core_once():
    plan = re.findall(r"\b_core/([\w/]+[\w*]*\.\w+)", FLOOR_PLAN.read_text(encoding="utf-8"))
    named = [path.relative_to(CORE) for pattern in plan for path in CORE.glob(pattern)]
    made = {Path("gemm/blas_int.pxi"), Path("core.h")}     # by setup.py and Cython
    made |= {path.relative_to(CORE) for path in CORE.glob("kernels_*.h")}
    there = {path.relative_to(CORE) for path in CORE.rglob("*")
             if path.suffix in {".py", ".pyx", ".pxd", ".pxi", ".h"}}
    packages = {path for path in there if path.name == "__init__.py" and path.parent.name}
    assert len(named) == len(set(named))
    assert set(named) == there - made - packages
