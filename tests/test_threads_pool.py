"""The pool of threads beside others: signals, rounding, crowded processors, settings."""

import ctypes
import ctypes.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gru_c
from gru_c._core import cpus

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

START = """
import os, signal, sys, time
import numpy as np
import gru_c
from gru_c._core import core
def model(T, N, I, H, count):
    gru_c.set_num_threads(count)
    gru = gru_c.GRU(I, H, rng=0)
    x = np.random.default_rng(0).random((T, N, I), dtype=np.float32)
    return gru, x
"""


def python(script, start=START, **environment):
    """Run a script in a new interpreter; its standard output. Anything on stderr is an error."""
    done = subprocess.run([sys.executable, "-c", start + script], env=os.environ | environment,
                          capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_names_collide_with_no_system_header():
    """<stdatomic.h>, which Cython's C includes after it, has names like atomic_load."""
    header = Path(__file__).parents[1] / "src" / "gru_c" / "_core" / "platform.h"
    if not header.exists():
        pytest.skip("the source is not here")
    names = re.findall(r"#define (\w+)", header.read_text())
    assert names
    assert [name for name in names if not name.lower().startswith("gru_")] == []


@LINUX
def test_workers_take_no_signals():
    """Not one that the host has blocked in its own threads, nor any other."""
    out = python("""
gru, x = model(20, 32, 64, 128, 4)
gru(x)
assert core.num_workers() == 3
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()       # the caller's mask is as before
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.kill(os.getpid(), signal.SIGUSR1)
gru(x)
masks = []
for task in os.listdir("/proc/self/task"):
    status = open(f"/proc/self/task/{task}/status").read()
    masks.append(int(status.partition("SigBlk:")[2].split()[0], 16))
print(len([mask for mask in masks if mask >> 14 & 1 and mask >> 1 & 1]), signal.sigpending())
""", OPENBLAS_NUM_THREADS="1")                             # its threads take any
    assert out == f"3 {{<Signals.SIGUSR1: {int(signal.SIGUSR1)}>}}\n"


MODES = {                                                  # how the host turns one on and off
    "upwards": """
up = 0x800 if platform.machine() in ("x86_64", "AMD64") else 0x400000
def turn(on):
    assert libm.fesetround(up if on else 0) == 0
""",
    "flush": """
usual, flush = (ctypes.c_char * 64)(), (ctypes.c_char * 64)()
at, bits = (28, 0x8040) if platform.machine() == "x86_64" else (0, 0x1000000)   # of Linux's fenv_t
assert libm.fegetenv(usual) == libm.fegetenv(flush) == 0
control = ctypes.c_uint32.from_buffer(flush, at)
control.value |= bits
def turn(on):
    assert libm.fesetenv(flush if on else usual) == 0
""",
}


@pytest.mark.skipif(not ctypes.util.find_library("m"), reason="no libm of its own")
@pytest.mark.parametrize("shape", ["6, 64, 64, 128", "6, 1, 64, 512"], ids=["rows", "units"])
@pytest.mark.parametrize("mode", ["upwards", pytest.param("flush", marks=LINUX)])
def test_workers_compute_in_the_mode_of_the_caller(mode, shape):
    """The bits of one thread, each time that the mode changes. Often, for while others have the
    processors, a task of many barriers runs on the caller alone."""
    python(f"""
import ctypes, ctypes.util, platform
libm = ctypes.CDLL(ctypes.util.find_library("m"))
{MODES[mode]}
gru, x = model({shape}, 1)
def results(on, count):
    gru_c.set_num_threads(count)
    turn(on)
    y = gru(x)[0]
    d = gru.backward(np.full_like(y, {1 if mode == "upwards" else 2e-38}))
    turn(False)
    return [y, *d, *(g.copy() for g in gru.grads.values())]
def same(one, two):
    return [np.array_equal(a, b) for a, b in zip(one, two, strict=True)]
want = [results(on, 1) for on in (False, True)]
assert not all(same(*want))
for _ in range(10):
    for on in (False, True):
        assert all(same(results(on, 2), want[on]))
    time.sleep(0.02)
assert core.num_workers() == 1
""")


@pytest.mark.parametrize("count", [65, 2**31, 2**63, 10**5000],
                         ids=["65", "int", "long", "huge"])
def test_more_than_the_most_threads(count):
    before = gru_c.get_num_threads()
    try:
        gru_c.set_num_threads(count)
        assert gru_c.get_num_threads() == 64
    finally:
        gru_c.set_num_threads(before)


@pytest.mark.parametrize(("count", "shown"), [(-1, "-1"), (-10**5000, r"-10\*\*5000 or so")],
                         ids=["one", "huge"])
def test_less_than_one_thread(count, shown):
    """Python refuses to print thousands of digits."""
    before = gru_c.get_num_threads()
    with pytest.raises(ValueError, match=f"n must be greater than zero, got {shown}$"):
        gru_c.set_num_threads(count)
    assert gru_c.get_num_threads() == before


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("GRU_C_NUM_THREADS", "8", 3),
    ("GRU_C_NUM_THREADS", "2", 2),
    ("OMP_NUM_THREADS", "8", 3),
    ("OMP_NUM_THREADS", "2", 2),
    ("OMP_NUM_THREADS", "", 3),
])
def test_the_environment_and_the_default_use_no_more_than_the_processors(name, value, expected):
    """Where mask and quota leave three. BLAS, whose number counts for the default, does not say
    here: the system has fewer than three, perhaps."""
    out = python("import gru_c; print(gru_c.get_num_threads())", start="""
import sys, types, ctypes
sys.modules["gru_c._core.cpus"] = types.SimpleNamespace(available=lambda: 3)
ctypes.CDLL = lambda _: None
""", **{"GRU_C_NUM_THREADS": "", "OMP_NUM_THREADS": "", name: value})
    assert int(out) == expected


@pytest.mark.parametrize("value", ["9999999999", "9" * 5000, "0" * 5000 + "64"],
                         ids=["ten", "thousands", "zeros"])
@pytest.mark.parametrize("name", ["GRU_C_NUM_THREADS", "OMP_NUM_THREADS"])
def test_large_numbers_in_the_environment(name, value):
    out = python("print(gru_c.get_num_threads())", **{"GRU_C_NUM_THREADS": "", name: value})
    assert 1 <= int(out) <= cpus.available()


@pytest.mark.parametrize("value", ["0" * 5000, "²", "٣", "\udcff", "-1" + "0" * 5000, "1e3", "two"],
                         ids=["zeros", "square", "arabic", "bytes", "minus", "float", "word"])
def test_senseless_numbers_in_the_environment(value):
    """Ours is an error that names it; of others it is ignored."""
    out = python("print(gru_c.get_num_threads())", GRU_C_NUM_THREADS="", OMP_NUM_THREADS=value)
    assert 1 <= int(out) <= cpus.available()
    done = subprocess.run([sys.executable, "-c", "import gru_c"], capture_output=True, text=True,
                          env=os.environ | {"GRU_C_NUM_THREADS": value}, check=False)
    assert "ImportError: GRU_C_NUM_THREADS must be a positive integer" in done.stderr


@pytest.mark.parametrize(("files", "expected"), [
    ({}, 9),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 9),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
    ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "800000 100000\n",
      "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 3),
    ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1),
    ({"proc/self/cgroup": "0::/../x\n", "sys/fs/x/cpu.max": "100000 100000\n",
      "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
    ({"proc/self/cgroup": "1:cpuset:/d\n0::/d\n",
      "sys/fs/cgroup/unified/d/cpu.max": "200000 100000\n"}, 2),
    ({"proc/self/cgroup": "3:cpu,cpuacct:/d\n1:cpuset:/\n0::/\n",
      "sys/fs/cgroup/cpu,cpuacct/d/cpu.cfs_quota_us": "250000\n",
      "sys/fs/cgroup/cpu,cpuacct/d/cpu.cfs_period_us": "100000\n"}, 3),
    ({"proc/self/cgroup": "1:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 9),
    ({"proc/self/cgroup": "garbage\n::\n0::/\n", "sys/fs/cgroup/cpu.max": "0 0\n"}, 9),
])
def test_the_quota_of_the_cgroup(tmp_path, monkeypatch, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpus.available(str(tmp_path)) == expected


@pytest.mark.parametrize(("cgroup", "quota", "expected"), [
    ("0::/a\0b\n", "200000 100000\n", 2), ("0::/\n", "9" * 5000 + " 100000\n", 9),
    ("0::/\n", "200000\0 100000\n", 9), ("\0\udcff", "", 9)],
    ids=["NUL in a path", "digits", "NUL in a number", "no text"])
def test_a_cgroup_that_no_kernel_writes(tmp_path, monkeypatch, cgroup, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)), raising=False)
    for name, text in (("proc/self/cgroup", cgroup), ("sys/fs/cgroup/cpu.max", quota)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    assert cpus.available(str(tmp_path)) == expected


@LINUX
def test_the_affinity_mask():
    cpu = min(os.sched_getaffinity(0))
    out = python(f"""
import subprocess
os.sched_setaffinity(0, [{cpu}])
subprocess.run([sys.executable, "-c", "import gru_c; print(gru_c.get_num_threads())"])
from gru_c._core import cpus
print(cpus.available())
""", GRU_C_NUM_THREADS="8")
    assert out.split() == ["1", "1"]


TWO_PROCESSORS = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
"""
TIMES = """
signal.alarm(60)
gru, x = model(100, *map(int, sys.argv[1].split()), int(sys.argv[2]))
gru.eval()
for _ in range(10):
    gru(x)
print("ready", flush=True)
sys.stdin.readline()
best = []
for _ in range(5):
    start = time.perf_counter()
    for _ in range(40):
        gru(x)
    best.append(time.perf_counter() - start)
print(core.num_workers(), sorted(best)[2])
"""


def seconds(shape, count, processes):
    """Of the slowest of the processes."""
    command = [sys.executable, "-c", TWO_PROCESSORS + START + TIMES, shape, str(count)]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                for _ in range(processes)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:                                 # all at once
        child.stdin.write("go\n")
        child.stdin.flush()
    found = [child.communicate()[0].split() for child in children]
    most = 64 if shape == "32 64 128" else 4               # 256 units are four panels
    assert [int(workers) for workers, _ in found] == [min(count, most) - 1] * processes
    return max(float(time) for _, time in found)


@pytest.mark.skipif(cpus.available() < 2, reason="one processor")
@pytest.mark.parametrize("shape", ["32 64 128", "4 64 256"])
@pytest.mark.parametrize(("count", "processes"), [(2, 2), (3, 1), (4, 1), (8, 1)])
def test_more_threads_than_processors(shape, count, processes):
    """At most 1.5 times one thread each; the best of a few tries, for others run here, too."""
    ratios = []
    while len(ratios) < 4 and min(ratios, default=9) > 1.5:
        ratios.append(seconds(shape, count, processes) / seconds(shape, 1, processes))
    assert min(ratios) <= 1.5


@pytest.mark.skipif(cpus.available() < 2, reason="one processor")
def test_threads_that_wait_for_long_steps_are_not_crowded():
    """Steps of 200 us: the threads wait for each other now and then, on free processors, too.

    Rows that share nothing tell whether the processors are free.
    """
    script = """
def times(call, count, calls):
    gru_c.set_num_threads(count)
    found = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return sorted(found)
def ratio(T, N, I, H):
    gru, x = model(T, N, I, H, 2)
    gru.eval()
    return times(lambda: gru(x), 2, 60)[30] / times(lambda: gru(x), 1, 10)[0]
for _ in range(8):
    print(ratio(100, 32, 64, 128), ratio(30, 1, 161, 1760), flush=True)
"""
    lines = python(script, TWO_PROCESSORS + START).splitlines()
    pairs = [tuple(map(float, line.split())) for line in lines]
    free = [steps for rows, steps in pairs if rows < 0.7]
    if not free:
        pytest.skip("others use the processors")
    assert min(free) < 0.85


@LINUX
def test_a_real_time_caller_returns():
    """On one processor its workers run only while it sleeps, if they are not of its priority."""
    out = python("""
gru, x = model(20, 4, 64, 256, 3)
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
gru(x)                                                     # the workers are not of real time
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
except PermissionError:
    print("refused")
else:
    signal.alarm(20)
    for _ in range(20):
        gru(x)
    print(core.num_workers())
""")
    if out == "refused\n":
        pytest.skip("no right to real-time priority")
    assert out == "2\n"
