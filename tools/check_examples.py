"""Build and run every example of examples/embedding against an installed wheel.

`python tools/check_examples.py [WHEEL]`, from anywhere; without WHEEL one is built. Makes a fresh
virtual environment with the wheel and what the examples want, copies examples/ out of the checkout
(and src/ and tools/, from which those without Python make the static library), and runs the
commands of each README.md, which are indented by four spaces, in the example's folder. Each example
compares its results with those of `gru(x)` itself. Then the Cython package is built once more as
pip builds by default, in an environment of its own that has only what its pyproject.toml requires,
and the examples of docs/embedding.md are run.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "embedding"
WANTED = ("setuptools>=77", "cython>=3.1", "numba", "cffi", "safetensors")
SHORTER = ("--seconds 60", "--seconds 2")
GENERATED = shutil.ignore_patterns("build", "*.egg-info", "*.so", "*.o", "__pycache__")


def examples() -> list[str]:
    """The folders of examples/embedding."""
    return sorted(path.parent.name for path in EXAMPLES.glob("*/README.md"))


def commands(name: str) -> list[str]:
    """The commands in README.md of the example `name`; those that build come before the last."""
    readme = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^    (\S.*)$", readme, re.MULTILINE)
    assert found, f"{name}/README.md has no command"
    return [command.replace(*SHORTER) for command in found]


def copy(name: str, folder: Path) -> Path:
    """Copy the example `name` into `folder`, without what a build has left; return where it is."""
    return Path(shutil.copytree(EXAMPLES / name, folder / name, ignore=GENERATED))


def run(lines: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Run commands of a shell in `folder`. Returns what they printed, or raises."""
    done = subprocess.run(["sh", "-e", "-c", "\n".join(lines)], cwd=folder, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def make_environment(work: Path, wheel: Path | None) -> dict[str, str]:
    """A virtual environment with the wheel, as variables; in work/wheels, what a build requires."""
    subprocess.run([sys.executable, "-m", "venv", work / "env"], check=True)
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    environment["PATH"] = f"{work / 'env' / 'bin'}{os.pathsep}{environment['PATH']}"
    environment["PIP_QUIET"] = "1"
    wanted = " ".join(f"'{name}'" for name in WANTED)
    run([f"pip wheel -w wheels '{wheel or ROOT}' {wanted}",
         "pip install --no-index --find-links wheels wheels/*.whl"], work, environment)
    return environment


def check_example(name: str, work: Path, environment: dict[str, str]) -> str:
    """Run the commands of the example `name` in a copy."""
    return run(commands(name), copy(name, work / "examples" / "embedding"), environment)


def check_isolated_build(work: Path, environment: dict[str, str]) -> str:
    """Build cython_package from its own pyproject.toml, from work/wheels alone."""
    offline = {**environment, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(work / "wheels")}
    folder = copy("cython_package", work / "isolated")
    return run(["pip wheel --no-deps -w built .", "ls built"], folder, offline)


def check_documentation(work: Path, environment: dict[str, str]) -> str:
    """Run the blocks of Python in docs/embedding.md that are not parts of an example."""
    text = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    found = re.findall(r"^([^\n]*)\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    blocks = [code for mark, code in found if not mark.startswith("<!-- from")]
    for i, code in enumerate(blocks):
        (work / f"block_{i}.py").write_text(code)
    return run([f"python -W error block_{i}.py" for i in range(len(blocks))]
               + [f"echo {len(blocks)} blocks"], work, environment)


def report(name: str, part: Callable[[], str]) -> bool:
    """Run one part, print how it went, return whether it passed."""
    start = time.perf_counter()
    try:
        output, verdict = part(), "passed"
    except RuntimeError as error:
        output, verdict = str(error), "FAILED"
    print(f"== {name}: {verdict}, {time.perf_counter() - start:.0f} s\n{output}", flush=True)
    return verdict == "passed"


def main() -> int:
    wheel = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        variables = make_environment(work, wheel)
        for folder in ("src", "tools"):
            shutil.copytree(ROOT / folder, work / folder, ignore=GENERATED)
        parts = {name: partial(check_example, name, work, variables) for name in examples()}
        parts["isolated build"] = partial(check_isolated_build, work, variables)
        parts["docs/embedding.md"] = partial(check_documentation, work, variables)
        failed = [name for name, part in parts.items() if not report(name, part)]
    print("failed:" if failed else f"all {len(parts)} passed", *failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
