"""examples/embedding: each is built and run with the packages at hand, in a copy.

tools/check_examples.py does the same against a wheel in a fresh environment, with pip.
"""

import importlib.util
import os
import re
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

import gru_c

TOOL = Path(__file__).parents[1] / "tools" / "check_examples.py"
specification = importlib.util.spec_from_file_location("check_examples", TOOL)
tool = importlib.util.module_from_spec(specification)
specification.loader.exec_module(tool)

COMPILED = ("setuptools", "compiler")
STATIC = {"c_program", "cpp_plugin"}       # tests/test_c_program.py links and runs them
NEEDS = {
    "c_extension": COMPILED,
    "ctypes_script": (),
    "cython_package": (*COMPILED, "Cython"),
    "numba_cell": ("numba",),
    "realtime": (*COMPILED, "Cython"),
}
# gru(x) and gru.step, a little wrong.
PERTURBED = """
import gru_c, gru_c.learn.classifier

class Perturbed(gru_c.GRU):
    def forward(self, *args, **options):
        output, h_n = super().forward(*args, **options)
        return output[..., ::-1], h_n

    def step(self, *args, **options):
        return super().step(*args, **options) * 1.01

gru_c.GRU = gru_c.learn.classifier.GRU = Perturbed
"""


def missing(need):
    if need == "compiler":
        compiler = shlex.split(os.environ.get("CC") or "cc")[0]
        header = Path(sysconfig.get_path("include"), "Python.h")
        return shutil.which(compiler) is None or not header.exists()
    return importlib.util.find_spec(need) is None


def in_place(command):
    """The command with this Python, for a short time, and a build that installs nothing."""
    command = command.replace("pip install --no-build-isolation .",
                              "python setup.py -q build_ext --inplace")
    command = command.replace("--seconds 2", "--seconds 0.2")
    return re.sub(r"^python\b", shlex.quote(sys.executable), command)


@pytest.fixture(scope="module", params=NEEDS)
def built(request, tmp_path_factory):
    """A built copy of an example: its name, folder and the command that runs it."""
    for need in NEEDS[request.param]:
        if missing(need):
            pytest.skip(f"no {need}")
    folder = tool.copy(request.param, tmp_path_factory.mktemp("examples"))
    *build, last = map(in_place, tool.commands(request.param))
    tool.run(build, folder, environment())
    return request.param, folder, last


def test_every_example_is_run():
    assert set(tool.examples()) == NEEDS.keys() | STATIC


def test_the_tool_reports_what_fails(tmp_path):
    assert tool.report("passes", lambda: tool.run(["true"], tmp_path, environment()))
    assert not tool.report("fails", lambda: tool.run(["false", "true"], tmp_path, environment()))


def environment(*paths):
    """In which gru_c is this one, and what is built in place is found."""
    paths = (*paths, Path(gru_c.__file__).parents[1], "src")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def test_example_agrees_with_python(built):
    _, folder, command = built
    assert "differs" not in tool.run([command], folder, environment())


def test_example_fails_where_results_differ(built, tmp_path):
    _, folder, command = built
    (tmp_path / "sitecustomize.py").write_text(PERTURBED)
    with pytest.raises(RuntimeError, match="exit code 1\n") as error:
        tool.run([command], folder, environment(tmp_path))
    assert "Traceback" not in str(error.value)
