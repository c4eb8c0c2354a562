"""The benchmark's arithmetic on made-up records: ratios, means, targets, report, comparison.

Nothing is timed and no peer is needed. Without bench/ (an installed package alone) the tests are
skipped.
"""

import copy
import gzip
import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

import gru_c

bench = pytest.importorskip("bench", reason="bench/ is not here")
for name in ("__main__", "quality", "quantized", "ratios", "step", "worker"):  # and their imports
    importlib.import_module(f"bench.{name}")

ROOT = Path(__file__).resolve().parents[1]


def record(library, best, shape="50,8,80,256", **changes):
    made = {
        "threads": 1, "isa": "native", "dtype": "float32", "kind": "inference", "shape": shape,
        "library": library, "way": "", "best": best, "median": 2 * best, "rounds": 5,
        "calls_per_batch": 1, "build_seconds": 0.1, "held": True, "caller": "Python",
    }
    return made | changes


LONE = "1,1,16,32"


@pytest.fixture
def results():
    """Two shapes, one thread and two: a win, a loss, a lone step."""
    records = [
        record("gru_c", 1e-3),
        record("torch", 8e-3),
        record("onednn", 2e-3, caller="C"),
        record("gru_c", 2e-6, LONE),
        record("torch", 1e-5, LONE),
        record("onednn", 1e-6, LONE, caller="C"),
        record("gru_c", 1e-3, threads=2),
        record("gru_c (1 thread)", 1.5e-3, threads=2),
        record("torch", 9e-3, threads=2),
        record("onednn", 0.8e-3, threads=2, caller="C"),
        record("gru_c", 1e-3, isa="avx2"),
        record("onnxruntime", 0.5e-3, isa="avx2", held=False),
        record("torch", 3e-3, isa="avx2"),
        record("gru_c", 1e-6, LONE, kind="step", way="cell(x, h, out=h)"),
        record("gru_c", 3e-6, LONE, kind="step", way="cell(x, h)"),
        record("onnxruntime", 8e-6, LONE, kind="step", way="run"),
        record("onnxruntime", 6e-6, LONE, kind="step", way="io_binding"),
        record("torch", 5e-6, LONE, kind="step", way="GRUCell"),
    ]
    roofline = {"dtype": "float32", "isa": "native", "threads": 1, "vector_bytes": 32,
                "flops": 1e12, "bandwidth": {"16384": 2e11, "1048576": 1e11}}
    return {
        "schema": 2,
        "started": "2020-01-01T00:00:00+00:00",
        "finished": None,
        "command": ["--quick"],
        "revision": "abc",
        "machine": {
            "processor": "amd-epyc-zen4", "cpu": "a processor", "architecture": "x86_64",
            "cores": 2, "caches": {"L2": "1024K"}, "vectors": ["avx2"], "virtual": True,
            "memory_gb": 8.0, "system": "a system", "python": "3.11.0",
        },
        "versions": {"numpy": "2.0"},
        "peers": {"torch": "2.0"},
        "missing": {"openvino": "openvino is not installed"},
        "shapes": {"50,8,80,256": [50, 8, 80, 256, "peers"], LONE: [1, 1, 16, 32, "peers"]},
        "rooflines": [roofline, roofline | {"flops": 5e11}],
        "records": records,
        "skipped": [{"library": "openvino", "kind": "training", "reason": "does not train"}],
        "errors": [],
        "disturbance": [{"config": "1 thread", "others": 0.2, "stolen": 0.0}],
        "footprint": {
            "memory": {
                "gru_c": {"peak": 40e6, "first": 30e6, "at_rest": 0},
                "torch": {"peak": 100e6, "first": 50e6, "at_rest": 0},
            },
            "sizes": {"gru_c": 1e6, "torch": 7e8},
            "wheel": {"bytes": 400_000},
            "imports": {"gru_c": 0.2, "gru_c over scipy.linalg": 0.03, "torch": 1.0},
        },
    }


def targets(results):
    return bench.targets.targets(results, bench.summary.rows(results))


def verdicts(results):
    return {(t.what, t.wanted): t.verdict for t in targets(results) if "fastest peer" in t.what}


@pytest.fixture
def row(results):
    """A function that finds the row of a case."""
    found = {row.case: row for row in bench.summary.rows(results)}
    return lambda shape="50,8,80,256", kind="inference", threads=1, isa="native": (
        found["float32", isa, threads, kind, shape])


# ---- shapes ------------------------------------------------------------------------------------


def test_shapes_are_unique_and_their_subsets_are_subsets():
    assert len({s.label for s in bench.shapes.ALL}) == len(bench.shapes.ALL)
    assert len({s[1:5] + s[6:] for s in bench.shapes.ALL}) == len(bench.shapes.ALL)
    assert len(bench.shapes.PEERS) == 17
    assert set(bench.shapes.QUICK) < set(bench.shapes.ALL)
    assert len(bench.shapes.QUICK) == len(bench.shapes._QUICK)
    assert {s.sizes for s in bench.shapes.ALL} > bench.plan.FLOAT64_SIZES


def test_smallest_shapes_have_cited_times(results):
    labels = [s.label for s in bench.shapes.SMALLEST]
    assert labels == [f"1000,1,1,{H}" for H in (8, 16, 24, 32, 40, 64)]
    assert {*bench.shapes.SMALLEST} < {*bench.shapes.ALL}
    processor = results["machine"] | {"processor": "amd-epyc-zen5"}
    [entry] = bench.results.cited(results | {"machine": processor})
    assert entry["library"] == "RTNeural" and [*entry["seconds"]] == labels
    assert entry["case"].keys() < {*bench.summary.Case._fields}
    assert bench.results.cited(results) == []


def test_cited_times_are_shown_beside_ours(results):
    records = [record(library, best, "1000,1,1,8", threads=threads)
               for threads in (1, 2) for library, best in (("gru_c", 40e-6), ("onednn", 90e-6))]
    changed = results | {
        "machine": results["machine"] | {"processor": "amd-epyc-zen5"}, "records": records,
        "shapes": {"1000,1,1,8": [1000, 1, 1, 8, "smallest"]}}
    found = bench.report.summary_of(changed, bench.summary.rows(changed))
    [table, source] = found["The smallest layers"]
    assert table == [["T,N,I,H", "gru_c", "fastest peer", "RTNeural (cited)", "RTNeural / gru_c"],
                     ["1000,1,1,8", "40.0", "90.0", "45.0", "1.12"]]
    assert "Not run by the benchmark" in source and source in bench.report.text(changed)
    assert "RTNeural" not in bench.report.text(results)


def test_operations_of_a_shape():
    shape = bench.shapes.shape(2, 3, 5, 7)
    assert shape.flop() == 2 * 3 * 2 * (3 * 7) * (5 + 7)
    assert shape.flop(training=True) == 3 * shape.flop()


def test_operations_of_layers_and_directions():
    make, plain = bench.shapes.shape, 2 * 3 * 2 * (3 * 7)
    assert make(2, 3, 5, 7, directions=2).flop() == plain * 2 * (5 + 7)
    assert make(2, 3, 5, 7, layers=2).flop() == plain * ((5 + 7) + (7 + 7))
    assert make(2, 3, 5, 7, layers=3, directions=2).flop() == plain * 2 * ((5 + 7) + 2 * (14 + 7))


def test_lengths_are_uniform_and_in_no_order():
    shape = bench.shapes.shape(100, 64, 5, 7, **bench.shapes.VARIANTS["ragged"])
    lengths = shape.lengths
    assert shape.label == "ragged 100,64,5,7" and len(lengths) == 64
    assert min(lengths) >= 1 and max(lengths) <= 100
    assert sum(lengths) / 64 == pytest.approx((100 + 1) / 2, abs=0.5)
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))
    assert lengths == shape.lengths
    assert shape.flop() == 6 * sum(lengths) * 7 * (5 + 7)
    assert shape._replace(ragged=False).lengths == [100] * 64


def test_every_variant_is_smoked_and_has_the_shapes_of_the_readme():
    shapes = bench.shapes
    assert {s.variant for s in shapes.SMOKE} == {"", *shapes.VARIANTS}
    table = (ROOT / "README.md").read_text().partition("| T,N,I,H |")[2].partition("\n\n")[0]
    labels = [line.split("|")[1].strip() for line in table.splitlines() if "inference" in line]
    readme = {label for label in labels if label.replace(",", "").isdecimal()}  # plain layers
    for variant in shapes.VARIANTS:
        labels = {s.label for s in shapes.FAMILY if s.variant == variant}
        wanted = {f"{variant} {sizes}" for sizes in readme
                  if variant != "ragged" or sizes.split(",")[1] != "1"}
        assert len(wanted) >= 5 and labels >= wanted


def test_shapes_by_name():
    choose, shapes = bench.__main__.chosen_shapes, bench.shapes
    assert choose(["all"]) == shapes.ALL
    assert choose(["peers", "smallest", "realistic", *shapes.VARIANTS]) == shapes.ALL
    assert choose(["smallest"]) == shapes.SMALLEST
    assert {s.label.split()[0] for s in choose(["audio"])} == {"audio"}
    assert choose(["2,3,4,5"])[0].sizes == (2, 3, 4, 5)
    assert [s.label for s in choose(["50,8,80,256"])] == ["50,8,80,256"]
    [known, own] = choose(["ragged 50,8,80,256", "2-layer bidirectional 2,3,4,5"])
    assert known in shapes.ALL and known.ragged
    assert (own.layers, own.directions, own.ragged, own.sizes) == (2, 2, False, (2, 3, 4, 5))
    for wrong in ("raged 2,3,4,5", "ragged 2,3,4"):
        with pytest.raises(SystemExit, match=f"unknown shapes '{wrong}'"):
            choose([wrong])
    with pytest.raises(SystemExit, match="unknown shapes 'nonsense'"):
        choose(["nonsense"])


# ---- plan --------------------------------------------------------------------------------------


def test_options_of_a_mode_give_way_to_those_given():
    def plan(*arguments):
        return bench.__main__.options(list(arguments))[1]

    assert plan("--quick").isas == ("native",)
    assert plan("--quick", "--isa", "avx2").isas == ("avx2",)
    assert plan("--smoke", "--peers", "none").peers == ()
    assert plan().peers == bench.peers.NAMES
    assert plan("--smoke", "--shapes", "audio").shapes[0].family == "realistic"
    with pytest.raises(SystemExit):
        plan("--peers", "nonsense")


def test_no_path_of_this_machine_is_written():
    command = bench.__main__.command
    for given in (["--output", "/a/b", "--report=/c"], ["--report", "--wheel", "/d"], ["--report"]):
        assert command(["--quick", *given, "--rounds", "3"]) == ["--quick", "--rounds", "3"]


def test_plan():
    plan, shapes = bench.plan, bench.shapes
    made = plan.FULL
    assert len(made.configs()) == 8
    single, double = (made.tasks(plan.Config(1, "native", d)) for d in ("float32", "float64"))
    assert len(single) == 2 * len(shapes.ALL) + len(plan.STEPS)
    assert len(double) == 2 * len(plan.FLOAT64_SIZES) + len(plan.STEPS)
    task = single[-1]
    assert task.kind == "step" and task.shape.sizes[:2] == (1, 1)
    job = json.loads(json.dumps(made.job(made.configs()[-1], [task])))
    assert (job["threads"], job["isa"], job["dtype"]) == (2, "avx2", "float64")
    [(kind, shape)] = job["tasks"]
    assert plan.Task(kind, shapes.Shape(*shape)) == task
    for shape in shapes.FAMILY:
        assert shapes.Shape(*json.loads(json.dumps(shape))) == shape


def test_environment_of_a_worker(monkeypatch):
    monkeypatch.setenv("GRU_C_ISA", "baseline")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    native = bench.machine.worker_environment(2, "native")
    assert native["OMP_NUM_THREADS"] == native["GRU_C_NUM_THREADS"] == "2"
    assert "GRU_C_ISA" not in native and "ONEDNN_MAX_CPU_ISA" not in native
    held = bench.machine.worker_environment(1, "avx2")
    assert held["GRU_C_ISA"] == "avx2" and held["ONEDNN_MAX_CPU_ISA"] == "AVX2"


# ---- timing ------------------------------------------------------------------------------------


def test_rounds_are_interleaved_in_rotating_order():
    timing, calls = bench.timing, []

    def contender(key, seconds):
        def timer(repeats, number):
            calls.append(key)
            return seconds

        return timing.Contender(timer)

    field = [contender("a", 1e-3), contender("b", 2e-3), contender("slow", 1.0)]
    timing.run_rounds(field, seconds=1e9, rounds=5, pause=lambda: None)
    a, b, slow = field
    assert "".join(key[0] for key in calls) == "absabsbsaababbsa"
    assert (len(a.samples), len(slow.samples)) == (5, 3)
    assert a.best == a.median == 1e-3
    assert (a.number, b.number, slow.number) == (2, 1, 1)


def test_rounds_end_with_the_time():
    only = bench.timing.Contender(lambda repeats, number: 1e-3)
    bench.timing.run_rounds([only], seconds=0, rounds=50, pause=lambda: None)
    assert len(only.samples) == bench.timing.FEWEST_ROUNDS
    assert bench.timing.wait_until_idle(limit=5)


# ---- summary -----------------------------------------------------------------------------------


def test_geometric_mean():
    mean = bench.summary.geometric_mean
    assert mean([2, 8]) == pytest.approx(4)
    assert mean([None, 3]) == pytest.approx(3)
    assert mean([]) is None


def test_ratios(row):
    found = row()
    assert found.fastest == "onednn"
    assert found.ratio == pytest.approx(2)
    assert found.ratio_of_medians == pytest.approx(2)
    assert found.ratio_torch == pytest.approx(8)
    assert found.gflops == pytest.approx(6 * 50 * 8 * 256 * (80 + 256) / 1e-3 / 1e9)
    assert found.roofline == pytest.approx(6 * 50 * 8 * 256 * (80 + 256) / 1e12 / 1e-3)
    assert found.scaling is None and found.ratio_any_threads is None


def test_a_loop_in_c_is_no_peer_of_a_lone_call_from_python(row):
    found = row(LONE)
    assert found.fastest == "torch" and found.ratio == pytest.approx(5)
    assert found.times["onednn"] == 1e-6


def test_a_library_that_is_not_held_to_the_instruction_set_is_no_peer(row):
    found = row(isa="avx2")
    assert found.fastest == "torch" and found.eligible == ("torch",)
    assert found.roofline is None


def test_two_threads(row):
    found = row(threads=2)
    assert found.scaling == pytest.approx(1.5)
    assert found.ratio == pytest.approx(0.8)
    assert found.ratio_torch == pytest.approx(8)  # with one thread: faster than with two
    assert found.ratio_any_threads == pytest.approx(0.8)


def test_a_peer_may_be_faster_with_one_thread(results):
    results["records"][9]["best"] = 4e-3
    found = next(r for r in bench.summary.rows(results) if r.case.threads == 2)
    assert found.ratio == pytest.approx(4)
    assert found.ratio_any_threads == pytest.approx(2)
    assert found.fastest_any_threads == "onednn"


def test_the_fastest_way_counts(row):
    found = row(LONE, kind="step")
    assert found.best == 1e-6
    assert found.times == {"onnxruntime": 6e-6, "torch": 5e-6}


RAGGED = "ragged 100,64,128,256"


@pytest.fixture
def with_ragged(results):
    """The results with a case of ragged rows: gru_c 1 ms, padded 2 ms; peers in both forms."""
    records = [
        record("gru_c", 1e-3, RAGGED),
        record("gru_c (padded)", 2e-3, RAGGED, way="padded"),
        record("torch", 5e-3, RAGGED, way="packed"),
        record("torch", 7e-3, RAGGED, way="padded"),
        record("openvino", 4e-3, RAGGED, way="packed"),
        record("openvino", 3e-3, RAGGED, way="padded"),
    ]
    shapes = results["shapes"] | {RAGGED: [100, 64, 128, 256, "ragged", 1, 1, True]}
    return results | {"records": results["records"] + records, "shapes": shapes}


def test_ragged_rows(with_ragged):
    found = bench.summary.rows(with_ragged)[-1]
    assert found.times == {"torch": 5e-3, "openvino": 3e-3}  # the faster form of each
    assert (found.fastest, found.ratio) == ("openvino", pytest.approx(3))
    assert found.of_padded == pytest.approx(0.5)
    assert found.gflops < 0.6 * 6 * 100 * 64 * 256 * (128 + 256) / 1e-3 / 1e9
    plain = bench.summary.rows(with_ragged)[0]
    assert plain.shape.variant == "" and plain.of_padded is None


def test_variants_have_tables_and_means_of_their_own(with_ragged):
    group = "float32", "native", 1, "inference"
    grouped = bench.summary.groups(bench.summary.rows(with_ragged))
    assert len(grouped[*group, ""]) == 2 and len(grouped[*group, "ragged"]) == 1
    blocks = bench.report.details(with_ragged, grouped[*group, "ragged"])
    [[table, ways]] = blocks.values()
    assert [*blocks] == ["inference, ragged, float32, native, 1 thread"]
    assert table[0][-1] == "of padded" and table[1][-1] == "50%"
    assert ["OpenVINO: padded", "3000"] in ways and ["gru_c", "1000"] in ways
    assert RAGGED in bench.report.text(with_ragged)


@pytest.mark.parametrize(("padded", "got", "verdict"), [
    (2e-3, "50%", "met"), (1.6584e-3, "60%", "met"), (1.6e-3, "62%", "MISSED")])
def test_the_target_of_ragged_rows(with_ragged, padded, got, verdict):
    next(r for r in with_ragged["records"] if r["way"] == "padded")["best"] = padded
    found = [t for t in targets(with_ragged) if "padded" in t.what]
    assert [(t.got, t.verdict, t.wanted) for t in found] == [(got, verdict, "at most 60%")]


def test_a_comparison_counts_no_form_of_our_own_as_a_peer(with_ragged):
    new = copy.deepcopy(with_ragged)
    for r in new["records"]:
        r["best"] *= 2 if r["library"] in bench.summary.BESIDE else 1
    assert all(c.drift == 1 for c in bench.results.changes(with_ragged, new)[0] if c.drift)


def test_the_limit_of_layers_and_directions():
    limit = bench.roofline.Roofline("float32", "native", 1, 32, 1e30, {1 << 14: 1e9})
    make, recurrent = bench.shapes.shape, 3 * 64 * 64 * 4 / 1e9
    for variant, passes in (({}, 1), ({"directions": 2}, 2), ({"layers": 3, "directions": 2}, 6)):
        shape = make(1000, 1, 1, 64, **variant)
        assert limit.gru_limit(shape) == pytest.approx(1000 * passes * recurrent)
        assert limit.gru_limit(shape, training=True) == pytest.approx(2000 * passes * recurrent)


def test_derived_is_plain(results):
    derived = json.loads(json.dumps(bench.summary.derived(results)))
    assert derived[0]["shape"] == "50,8,80,256" and derived[0]["ratio"] == pytest.approx(2)
    assert derived[0]["flop"] == 6 * 50 * 8 * 256 * (80 + 256)


# ---- targets -----------------------------------------------------------------------------------


def test_targets(results):
    met = {(t.what, t.wanted): t.met for t in targets(results)}
    one, two = "inference, native, 1 thread: ", "inference, native, 2 threads: "
    assert met[one + "against the fastest peer", "no shape below 1"]
    assert met[one + "against the fastest peer", "geometric mean at least 1.4"]
    assert not met[two + "against the fastest peer", "no shape below 1"]
    assert not met[one + "of the roofline at N >= 8, H >= 128", "no shape below 0.8"]
    assert not met[two + "against one thread at N >= 8, H >= 64", "no shape below 1.85"]
    assert met[two + "against one thread anywhere", "no shape below 0.95"]
    step = "one step from Python, 1 thread: against "
    assert met[step + "ONNX Runtime", "at least 3 times as fast"]
    assert not met[step + "PyTorch", "at least 6 times as fast"]
    assert met["peak memory of training, against PyTorch", "at most 60%"]
    assert met["wheel", "at most 1.5 MB"]
    assert not met["import, over scipy.linalg", "at most 20 ms"]


@pytest.fixture
def of_all_peers(results):
    """A function that gives results in which every peer takes `theirs` seconds, gru_c 1 ms."""
    def make(theirs, *without):
        libraries = [name for name in bench.peers.NAMES if name not in without]
        records = [record("gru_c", 1e-3, kind="training")]
        records += [record(name, theirs, kind="training") for name in libraries]
        return results | {"records": records}
    return make


def test_a_target_that_is_met_within_rounding_is_not_missed(of_all_peers):
    what = "training, native, 1 thread: against the fastest peer"
    shown = "no shape below 1.15", "geometric mean at least 2"
    found = [verdicts(of_all_peers(theirs)) for theirs in (1.1496e-3, 1.1449e-3, 1.996e-3)]
    assert [said[what, shown[0]] for said in found] == ["met", "MISSED", "met"]
    assert [said[what, shown[1]] for said in found] == ["MISSED", "MISSED", "met"]


def test_what_is_rounded_is_judged_as_it_is_shown(results):
    changed = results | {"footprint": {
        "memory": {"gru_c": {"peak": 60.4, "first": 60.4}, "torch": {"peak": 100, "first": 100}},
        "wheel": {"bytes": 1_504_000}, "imports": {"gru_c over scipy.linalg": 0.02004}}}
    found = {t.what: t.verdict for t in targets(changed)}
    for what in ("peak memory of training, against PyTorch", "wheel", "import, over scipy.linalg"):
        assert found[what] == "met"


def test_nothing_is_met_against_the_fastest_peer_where_a_peer_was_not_measured(of_all_peers):
    def said(*arguments):
        return set(verdicts(of_all_peers(*arguments)).values())

    assert said(14e-3) == {"met"}
    assert said(14e-3, "onnxruntime", "openvino") == {"met"}
    assert said(14e-3, "onednn") == {"not judged: without oneDNN (C++)"}
    assert said(1e-3, "onednn") == {"MISSED"}
    assert "14.00" in bench.report.text(of_all_peers(14e-3, "onednn"))


def test_every_loss_is_named(results):
    lost = bench.targets.losses(bench.summary.rows(results))
    found = {(x.peer, x.row.case.threads, x.row.case.isa): x for x in lost}
    losers = {("onednn", 1, "native"), ("onednn", 2, "native"), ("onnxruntime", 1, "avx2")}
    assert set(found) == losers
    assert found["onednn", 2, "native"].note == ""
    assert "C++" in found["onednn", 1, "native"].note
    assert "not held" in found["onnxruntime", 1, "avx2"].note


# ---- report ------------------------------------------------------------------------------------


def test_texts(results):
    text = bench.report.text(results)
    for part in ("2.00", "500*", "1.00*", "MISSED", "openvino is not installed", "does not train",
                 "20%"):
        assert part in text
    assert bench.report.duration(1.234e-6) == "1.23"
    assert bench.report.duration(1.234e-3) == "1234"
    assert bench.report.aligned([["a", "bb"], ["ccc", "d"]]) == "a    bb\n-------\nccc   d"


def test_markdown(results):
    page = bench.report.document(results, {"Ratio by shape": "ratio.png"})
    assert "![Ratio by shape](ratio.png)" in page
    assert "python -m bench --quick" in page
    where_we_lose = page[page.index("## Where we lose") : page.index("## Targets")]
    for part in ("0.80", "0.50", "called in a C++ loop", "wanted at most 20 ms"):
        assert part in where_we_lose
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_a_report_of_nothing(results):
    empty = results | {"records": [], "rooflines": [], "footprint": {}}
    said = bench.report.text(empty)
    assert "not measured" in said and "No other library was measured." in said
    assert "# Performance" in bench.report.document(empty, {})


# ---- comparison --------------------------------------------------------------------------------


def test_comparison_divides_the_drift_of_the_machine_out(results):
    results_of, new = bench.results, copy.deepcopy(results)
    for r in new["records"]:
        r["best"] *= 2  # the machine is half as fast
        if r["library"] == "gru_c" and r["threads"] == 2:
            r["best"] *= 1.5  # and this became slower
    found, *others = results_of.changes(results, new)
    assert found[0].case.threads == 2 and found[0].mark == "SLOWER"
    assert found[0].absolute == pytest.approx(1 / 3)
    assert found[0].drift == pytest.approx(1 / 2)
    assert found[0].normalised == pytest.approx(2 / 3)
    assert [c.mark for c in found[1:]] == [""] * (len(found) - 1)
    text = bench.report.compared(found, *others)
    assert "slower by over 5%: 1" in text


def test_comparison_of_what_both_have(results):
    old, new = (results | {"records": results["records"][part]} for part in (slice(3), slice(6)))
    found, *others = bench.results.changes(old, new)
    assert [c.case.shape for c in found] == ["50,8,80,256"]
    assert others == [0, 1]
    assert "no case" in bench.report.compared([], 1, 1)


# ---- merging -----------------------------------------------------------------------------------


def test_of_merged_runs_the_best_counts(results):
    second = copy.deepcopy(results)
    second["records"] = second["records"][:4]
    second["records"][0]["best"] /= 2
    second["records"][1]["best"] *= 2
    before = copy.deepcopy(results)
    found = bench.results.merged([results, second])
    assert results == before
    assert len(found["records"]) == len(results["records"])
    pairs = zip(found["records"], results["records"], strict=True)
    bests = [record["best"] / old["best"] for record, old in pairs]
    assert bests == [0.5] + [1] * (len(bests) - 1)
    assert found["records"][0]["rounds"] == 2 * results["records"][0]["rounds"]
    assert "best of 2 runs" in bench.report.document(found, {})


@pytest.mark.parametrize("name", ["revision", "versions", "machine"])
def test_runs_that_differ_are_not_merged(results, name):
    other = results["machine"] | {"cores": 64} if name == "machine" else "another"
    with pytest.raises(ValueError, match=f"differ in {name}"):
        bench.results.merged([results, results | {name: other}])


# ---- processors --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["merge", "compare"])
def test_runs_of_different_processors_are_not_mixed(results, tmp_path, command, capsys):
    other = results | {"machine": results["machine"] | {"processor": "amd-epyc-zen5"}}
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, run in zip(files, (results, other), strict=True):
        bench.results.save(run, file)
    arguments = [command, *map(str, files)] + ["--output", str(tmp_path)] * (command == "merge")
    with pytest.raises(SystemExit, match="processors: amd-epyc-zen4 and amd-epyc-zen5"):
        bench.__main__.main(arguments)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "fields"), {
    "amd-epyc-zen4": ("AuthenticAMD", 25, 17, "AMD EPYC"),
    "amd-epyc-zen5": ("AuthenticAMD", 26, 2, "AMD EPYC"),
    "amd-epyc-9r14-zen4": ("AuthenticAMD", 25, 17, "AMD EPYC 9R14 96-Core Processor"),
    "amd-ryzen-7-7840u-zen4": ("AuthenticAMD", 25, 116, "AMD Ryzen 7 7840U w/ Radeon 780M"),
    "amd-epyc-family-99-model-1": ("AuthenticAMD", 99, 1, "AMD EPYC"),
    "intel-xeon-platinum-8375c-icelake-sp":
        ("GenuineIntel", 6, 106, "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz"),
    "intel-xeon-cascadelake": ("GenuineIntel", 6, 85, "Intel(R) Xeon(R) Processor @ 2.50GHz"),
}.items())
def test_name_of_a_processor(name, fields):
    names = ("vendor_id", "cpu family", "model", "model name")
    text = "".join(f"{key}\t: {value}\n" for key, value in zip(names, fields, strict=True))
    processor = bench.processor
    assert processor.slug(processor.fields_of(text + "stepping\t: 7\n\nmodel: 9"), "") == name


def test_name_of_a_processor_without_x86():
    slug = bench.processor.slug
    assert slug({"CPU implementer": "0x41", "CPU part": "0xd0c"}, "") == "arm-neoverse-n1"
    assert slug({"CPU implementer": "0x41", "CPU part": "0xfff"}, "") == "arm-part-0xfff"
    assert slug({}, "Apple M1 Pro").startswith("apple-m1-pro-")


def test_results_and_pages_are_kept_by_processor(results, tmp_path):
    assert bench.results.folder_of(results).parts[-3:] == ("bench", "results", "amd-epyc-zen4")
    page = bench.report.document(results, {})
    assert page.startswith("# Performance on amd-epyc-zen4\n")
    folder = ROOT / "docs" / "performance"
    pages = {path.name for path in folder.glob("*.md")} - {"README.md"}
    assert pages
    for name in pages:
        assert f"({name})" in (folder / "README.md").read_text()
        assert (folder / name).read_text().startswith(f"# Performance on {Path(name).stem}\n")


def test_a_partial_run_does_not_replace_the_published_results():
    made = bench.__main__
    assert made.is_full(made.options(["--seconds", "1"])[1])
    for arguments in (["--quick"], ["--smoke"], ["--peers", "torch"], ["--threads", "1"],
                      ["--shapes", "audio"], ["--dtype", "float32"], ["--kinds", "training"]):
        assert not made.is_full(made.options(arguments)[1])


# ---- the reference -----------------------------------------------------------------------------


VARIANTS = [{}, *bench.shapes.VARIANTS.values(),
            {"ragged": True, "directions": 2}, {"ragged": True, "layers": 3, "directions": 2}]


@pytest.mark.parametrize("sizes, variant", [
    ((1, 1, 3, 5), {}), ((1, 2, 3, 5), {"layers": 2}), *(((4, 3, 2, 9), v) for v in VARIANTS)])
def test_gru_c_behind_the_interface_of_the_peers(sizes, variant):
    peers, threads = bench.peers, gru_c.get_num_threads()
    problem = peers.random_problem(bench.shapes.shape(*sizes, **variant), "float64")
    truth = peers.truth(problem)
    for training in (False, True):
        peer = bench.ours.Peer(problem, threads, training)
        assert math.isfinite(peer.time(1, 2))
        found = peer.results()
        for name, value in found.items():
            assert peers.relative_error(value, truth[name]) < 1e-12, name
    assert found.keys() == truth.keys()
    assert gru_c.get_num_threads() == threads


def test_padded_rows_give_the_results_of_ragged_ones():
    peers = bench.peers
    problem = peers.random_problem(bench.shapes.shape(6, 4, 3, 5, layers=2, ragged=True), "float64")
    peer = bench.ours.Peer(peers.padded(problem), gru_c.get_num_threads(), True)
    peer.run()
    truth = peers.truth(problem)
    assert not peer.shape.ragged and peer.output()[-1].all()
    for name, value in peer.results().items():
        assert peers.relative_error(value, truth[name]) < 1e-12, name
    two = peers.random_problem(bench.shapes.shape(6, 4, 3, 5, directions=2, ragged=True))
    with pytest.raises(peers.Unsupported, match="padding"):
        peers.padded(two)


def test_ragged_rows_are_timed_in_two_forms():
    said = []
    job = {"threads": gru_c.get_num_threads(), "isa": "native", "dtype": "float32", "peers": [],
           "seconds": 0, "rounds": 1}
    worker = bench.worker.Worker(job, lambda **event: said.append(event))

    class NoLengths(bench.ours.Peer):
        takes_lengths = False

    worker.peers = {"onednn": NoLengths}
    worker.task(bench.plan.Task("inference", bench.shapes.shape(5, 3, 3, 5, ragged=True)))
    times = [(e["library"], e["way"]) for e in said if e["event"] == "record"]
    assert {("gru_c (padded)", "padded"), ("onednn", "padded")} <= {*times}
    [skipped] = [e for e in said if e["event"] == "skip"]
    assert skipped["library"] == "onednn" and "takes no lengths" in skipped["reason"]


@pytest.fixture
def ratios(monkeypatch, capsys):
    """A function that runs `python -m bench.ratios` with a limit for 2,3,4,5: (status, lines)."""
    threads = gru_c.get_num_threads()
    limits = {"RAGGED_LIMITS": 0.6, "DIRECTIONS_LIMITS": 1.15, "CHECKPOINT_LIMITS": 1.4}
    for name, limit in limits.items():
        monkeypatch.setattr(bench.ratios, name, {(2, 3, 4, 5): limit})
    monkeypatch.setattr(bench.ratios, "useful_threads", lambda wanted: (wanted, []))

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["ratios", *arguments])
        return bench.ratios.main(), capsys.readouterr().out.splitlines()

    yield run
    gru_c.set_num_threads(threads)


def test_ratios_of_a_shape_without_a_limit(ratios):
    status, lines = ratios("3,4,2,5", "--seconds", "0", "--rounds", "1")
    assert status == 0
    expected = [("ragged", kind, threads) for threads in "12" for kind in ("inference", "training")]
    expected += [("directions", kind, "2") for kind in ("inference", "training")]
    expected += [(what, "training", threads) for what in ("checkpoint", "checkpoint2")
                 for threads in "12"]
    assert [line.split()[:4] for line in lines] == [
        [what, "3,4,2,5", kind, threads] for what, kind, threads in expected]
    assert all(float(line.split()[5]) > 0 for line in lines)


@pytest.mark.parametrize(("found", "status", "missed"), [(0.6, 0, 0), (0.7, 1, 4), (1.2, 1, 6),
                                                         (1.5, 1, 10)])
def test_ratios_are_judged(ratios, monkeypatch, found, status, missed):
    monkeypatch.setattr(bench.ratios, "ratio", lambda sides, seconds, rounds: found)
    said, lines = ratios()
    assert (said, len(lines), "".join(lines).count("MISSED")) == (status, 10, missed)


def test_gru_c_with_one_thread_beside_others():
    threads = gru_c.get_num_threads()
    problem = bench.peers.random_problem(bench.shapes.shape(2, 1, 3, 5))
    try:
        with bench.ours.OneThread(problem, threads=3).scope():
            inside = gru_c.get_num_threads()
        assert (inside, gru_c.get_num_threads()) == (1, 3)
    finally:
        gru_c.set_num_threads(threads)


@pytest.mark.parametrize("kind", ["inference", "training"])
def test_a_wrong_result_is_an_error_and_is_not_timed(kind):
    class Wrong(bench.ours.Peer):
        def output(self):
            return 1.001 * super().output()

    said = []
    job = {"threads": gru_c.get_num_threads(), "isa": "native", "dtype": "float32", "peers": [],
           "seconds": 0, "rounds": 1}
    worker = bench.worker.Worker(job, lambda **event: said.append(event))
    worker.peers = {"wrong": Wrong}
    worker.task(bench.plan.Task(kind, bench.shapes.shape(3, 2, 3, 5)))
    events = {event["library"]: event for event in said}
    assert events["wrong"]["event"] == "error"
    assert "output is off by 1.0e-03" in events["wrong"]["reason"]
    assert events["gru_c"]["event"] == "record" and events["gru_c"]["caller"] == "Python"


@pytest.mark.parametrize("variant", [{}, {"ragged": True, "layers": 2, "directions": 2}])
def test_jax_computes_what_the_reference_does(variant):
    pytest.importorskip("jax")
    jax = bench.peers.load("jax")

    class Wrong(jax):
        def _step(self, weight, bias, h, inputs):
            return super()._step(weight, 1.01 * bias, h, inputs)

    said = []
    job = {"threads": gru_c.get_num_threads(), "isa": "native", "dtype": "float32", "peers": [],
           "seconds": 0, "rounds": 1}
    worker = bench.worker.Worker(job, lambda **event: said.append(event))
    shape = bench.shapes.shape(6, 3, 4, 5, **variant)
    for peer, kind in ((jax, "inference"), (jax, "training"), (Wrong, "inference")):
        worker.peers = {peer.__name__: peer}
        worker.task(bench.plan.Task(kind, shape))
    records = [(e["library"], e["kind"]) for e in said if e["event"] == "record"]
    assert [kind for library, kind in records if library == "Peer"] == ["inference", "training"]
    [error] = [e for e in said if e["event"] == "error"]
    assert error["library"] == "Wrong" and "output is off by" in error["reason"]


# ---- one step ----------------------------------------------------------------------------------

LARGE = "1,1,80,256"
STEP_TIMES = {  # nanoseconds at two sizes
    ("C", 1): (150, 5000),
    ("C", 2): (152, 4000),
    ("Python", 1): (1200, 7000),
    (bench.step.WITHIN, 1): (60, 4950),
    (bench.step.ONEDNN, 1): (1000, 4999),
    (bench.step.ONNX[0], 1): (9000, 20000),
}


@pytest.fixture
def stepped(results):
    """Results of `python -m bench.step`."""
    records = [
        {"shape": label, "way": way, "threads": threads, "best": 1e-9 * taken,
         "median": 1.1e-9 * taken, "rounds": 5}
        for (way, threads), both in STEP_TIMES.items()
        for label, taken in zip(("1,1,1,8", LARGE), both, strict=True)]
    return results | {"records": records, "missing": {"Numba": "numba is not installed"}}


def test_claims_of_a_step(stepped):
    times = bench.step.times_of(stepped, "best")
    values = {claim.what.partition(":")[0]: claim.values(times) for claim in bench.step.CLAIMS}
    assert values["overhead from C, ns"] == {"1,1,1,8": 90, LARGE: 50}
    assert values["overhead from Python, ns"] == {"1,1,1,8": 1140, LARGE: 2050}
    assert values["oneDNN / C"] == {"1,1,1,8": 6.67, LARGE: 1}
    assert values["C, 2 threads / 1 thread"] == {"1,1,1,8": 1.01, LARGE: 0.8}
    assert values["oneDNN / C, 2 threads"] == {}
    assert bench.step.missed(times) == [
        "overhead from Python, ns: at most 1000 with one input: 1140 at 1,1,1,8",
        f"oneDNN / C: above 1: 1.00 at {LARGE}"]


def test_two_threads_are_never_slower(stepped):
    for record in stepped["records"]:
        if record["threads"] == 2:
            record["best"] *= 1.05
    found = bench.step.missed(bench.step.times_of(stepped, "best"))
    assert [line for line in found if line.startswith("C, 2 threads / 1 thread")] == [
        "C, 2 threads / 1 thread: at most 1 (to 3%): 1.06 at 1,1,1,8"]


def test_tables_of_a_step(stepped):
    assert bench.step.table_of_times(stepped, "best")[:3] == [
        ["one step, ns", "1,1,1,8", LARGE], ["C", "150", "5000"], ["C, 2 threads", "152", "4000"]]
    assert bench.step.table_of_times(stepped, "median")[1] == ["C", "165", "5500"]
    verdicts = {line[0].partition(":")[0]: line[-1]
                for line in bench.step.table_of_claims(stepped, "best")[1:]}
    assert verdicts == {
        "overhead from C, ns": "met", "overhead from Python, ns": "MISSED",
        "oneDNN / C": "MISSED", "C, 2 threads / 1 thread": "met",
        "ONNX Runtime, run / Python": "met"}


def test_a_way_that_one_size_lacks_has_a_gap(stepped):
    del stepped["records"][1]  # C at the large size
    assert bench.step.table_of_times(stepped, "best")[1] == ["C", "150", "-"]
    assert bench.step.table_of_claims(stepped, "best")[1][1:] == ["90", "-", "met"]


def test_page_of_a_step(stepped, tmp_path, capsys):
    file, page = tmp_path / "steps.json", tmp_path / "made" / "page.md"
    file.write_text(json.dumps(stepped))
    assert bench.step.main(["--show", str(file), "--report", str(page)]) == 1  # a claim is missed
    assert "| C | 150 | 5000 |" in page.read_text()
    for said in (page.read_text(), capsys.readouterr().out):
        assert "not measured: Numba: numba is not installed" in said and "MISSED" in said
    for record in stepped["records"]:
        if record["way"] == "Python" and record["shape"] != LARGE:
            record["best"] = 1e-6  # 2050 ns at the large size are not judged
        elif record["way"] == bench.step.ONEDNN:
            record["best"] *= 2
    file.write_text(json.dumps(stepped))
    assert bench.step.main(["--show", str(file)]) == 0


def test_a_way_is_checked_and_others_go_on(results, monkeypatch):
    def right(problem, threads):
        def run(passes, output=None):
            if output is not None:
                output[:] = bench.peers.truth(problem)["output"][:, 0]

        return {"right": run}

    def wrong(problem, threads):
        run = right(problem, threads)["right"]

        def ends_early(passes, output=None):
            run(passes, output)
            if output is not None:
                output[-1] = np.nan

        return {"wrong": ends_early}

    def absent(problem, threads):
        raise bench.peers.Unsupported("not installed")

    makers = {"right": right, "wrong": wrong, "absent": absent}
    monkeypatch.setattr(bench.step, "MAKERS", makers)
    made = results | {"records": [], "errors": [], "missing": {}}
    bench.step.measure(made, (2, 3), steps=4, seconds=0, rounds=1)
    [found] = made["records"]
    assert (found["way"], found["shape"], found["threads"]) == ("right", "1,1,2,3", 1)
    assert found["best"] >= 0
    assert made["missing"] == {"absent": "not installed"}
    [error] = made["errors"]
    assert error["library"] == "wrong" and "off by nan" in error["reason"]


def test_steps_from_python_are_right_and_begin_with_zeros():
    problem = bench.step.problem_of(3, 5, steps=7)
    truth = bench.peers.truth(problem)["output"][:, 0]
    [run] = bench.step.MAKERS["Python"](problem, 1).values()
    for _ in range(2):
        run(3)
        bench.step.check(run, truth)
    with pytest.raises(RuntimeError, match="off by"):
        bench.step.check(run, truth + 1e-3)


# ---- quantized GRUs ----------------------------------------------------------------------------


def quantized(library, precision, best, shape="100,1,256,512", **changes):
    return {"isa": "native", "threads": 1, "shape": shape, "library": library,
            "precision": precision, "reset_after": True, "best": best, "median": 2 * best,
            "rounds": 5, "max_error": 2e-3, "rms_error": 5e-4, "counts": True} | changes


@pytest.fixture
def small(results):
    """Results of `python -m bench.quantized` at one of the five shapes and at a lone step."""
    records = [
        quantized("gru_c", "float32", 4e-3),
        quantized("gru_c", "bfloat16", 2e-3),
        quantized("gru_c", "bfloat16, 16-bit x", 1.2e-3),
        quantized("gru_c", "int8", 1e-3),
        quantized("torch", "int8", 3e-3),
        quantized("torch", "float16", 5e-3),
        quantized("onednn", "bfloat16", 1.5e-3),
        quantized("gru_c", "int8", 2e-3, reset_after=False),
        quantized("onednn", "int8", 1e-3, reset_after=False),
        quantized("gru_c", "int8", 1e-6, LONE),
        quantized("onednn", "int8", 1e-6, LONE, counts=False),
        quantized("torch", "int8", 1e-5, LONE),
    ]
    sizes = {"100,1,256,512": [100, 1, 256, 512, "peers"], LONE: [1, 1, 16, 32, "peers"]}
    return results | {"records": records, "shapes": sizes}


def test_ratios_of_quantized_grus(small):
    after, before = bench.quantized.by_case(small).items()
    assert [case.reset_after for case, _ in (after, before)] == [True, False]
    first, lone = (bench.quantized.quotients(records) for records in after[1].values())
    assert first == pytest.approx({
        "ratio int8": 3, "ratio int8, 12-bit x": None, "ratio bfloat16": 0.75,
        "ratio bfloat16, 16-bit x": 1.25, "gain bfloat16": 2, "gain bfloat16, 16-bit x": 10 / 3,
        "gain int8": 4, "gain int8, 12-bit x": None})
    assert lone["ratio int8"] == pytest.approx(10)  # a loop in C++ does not count
    table = bench.quantized.table_of_ratios(after[1], small["shapes"])
    assert table[0] == ["T,N,I,H", "ratio int8", "ratio bfloat16", "ratio bfloat16, 16-bit x",
                        "gain bfloat16", "gain bfloat16, 16-bit x", "gain int8"]
    assert table[1:3] == [["100,1,256,512", "3.00", "0.75", "1.25", "2.00", "3.33", "4.00"],
                          [LONE, "10.0", "-", "-", "-", "-", "-"]]
    for line, name in zip(table[3:], ("the five", "H >= 256"), strict=True):
        assert line == [f"geometric mean, {name} (1)", *table[1][1:]]


def test_tables_of_quantized_grus(small, tmp_path, capsys):
    file = tmp_path / "quantized.json"
    file.write_text(json.dumps(small))
    assert bench.quantized.main(["show", str(file)]) == 0
    said = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    lines = {tuple(filter(None, map(str.strip, line))) for line in said}
    assert ("gru_c int8", "1000", "1.00") in lines
    assert ("PyTorch int8", "2.0e-03", "2.0e-03") in lines
    assert ("PyTorch float16", "5000", "-") in lines
    assert ("native, 1 thread, reset gate before the product",) in lines


def test_shapes_of_the_quantized_benchmark():
    usual, every = (bench.quantized.SETS[name] for name in ("usual", "all"))
    assert len(bench.quantized.FIVE) == 5 and set(usual) < set(every)
    assert len({s.sizes for s in every}) == len({s.label for s in every}) == len(every)
    assert all(s.N <= 64 and not s.variant for s in every)
    assert bench.__main__.chosen_shapes(["five"], bench.quantized.SETS) == bench.quantized.FIVE


def test_a_quantized_gru_is_checked_and_others_go_on(monkeypatch):
    class Rounded(bench.ours.Peer):
        precision = "bfloat16"

        def output(self):
            return super().output() * (1 + 2**-8)

    class Wrong(Rounded):
        def output(self):
            return super().output() * 1.1

    class Before(bench.ours.Peer):
        reset_after = False

    class Absent(bench.ours.Peer):
        def build(self):
            raise bench.peers.Unsupported("not installed")

    class Crash(bench.ours.Peer):
        def build(self):
            raise ValueError("no such weights")

    classes = {"gru_c": (Rounded, Wrong, Before, Absent, Crash)}
    monkeypatch.setattr(bench.quantized, "CLASSES", classes)
    threads = gru_c.get_num_threads()
    found = bench.quantized.measure(bench.shapes.shape(4, 2, 3, 5), ["gru_c"], threads, 0, 1)
    rounded, before = found["records"]
    assert (rounded["precision"], rounded["reset_after"]) == ("bfloat16", True)
    assert 1e-4 < rounded["rms_error"] < rounded["max_error"] < 2**-8
    assert (before["precision"], before["reset_after"]) == ("float32", False)
    assert before["max_error"] < 1e-6
    assert [skip["reason"] for skip in found["skipped"]] == ["not installed"]
    wrong, crash = (error["reason"] for error in found["errors"])
    assert "WrongResult: off by" in wrong and crash == "ValueError: no such weights"


def test_kinds_of_our_quantized_grus():
    found = [(cls.precision, cls.reset_after) for cls in bench.quantized.CLASSES["gru_c"]]
    assert len(found) == len(set(found)) == 10
    options = {cls.precision: (cls.weights_in, cls.x_bits)
               for cls in bench.quantized.CLASSES["gru_c"] if cls.precision != "float32"}
    assert options == {"bfloat16": ("bfloat16", None), "bfloat16, 16-bit x": ("bfloat16", 16),
                       "int8": ("int8", None), "int8, 12-bit x": ("int8", 12)}


def test_an_instruction_set_holds_products_of_int8_too():
    environment = bench.machine.worker_environment(1, "avx2")
    assert environment["FBGEMM_ENABLE_INSTRUCTIONS"] == "AVX2"
    assert "FBGEMM_ENABLE_INSTRUCTIONS" not in bench.machine.worker_environment(1, "native")


# ---- quality of quantized models ---------------------------------------------------------------

def test_vowels():
    x, lengths, labels = bench.vowels.load()
    assert (x.shape, x.dtype) == ((640, 29, 12), np.float32)
    assert (lengths.min(), lengths.max(), lengths.sum()) == (7, 29, 9961)
    assert np.bincount(labels[:bench.vowels.TRAINING]).tolist() == [30] * 9
    assert x[0, :3, 0].tolist() == [np.float32(value) for value in (1.861, 1.892, 1.939)]
    assert not x[np.arange(29) >= lengths[:, None]].any()


def test_vowels_of_a_text(tmp_path):
    path = tmp_path / "vowels.ts.gz"
    path.write_bytes(gzip.compress(b"@classLabel true 1 2\n@data\n.5,1:-2,0.0004:2\n3:4:1\n"))
    (first, speaker), (second, other) = bench.vowels.read(path)
    assert (first.tolist(), speaker) == ([[500, -2000], [1000, 0]], 1)
    assert (second.tolist(), other) == ([[3000, 4000]], 0)


def test_quality_of_random_models():
    """The errors are of the size that the bits let expect, and the limits hold."""
    quality = bench.quality
    found = {"16, 32": quality.errors(*quality.random_case((16, 32), 20))}
    found["16, 32"].pop(quality.TORCH, None)
    sizes = {"float32": (1e-8, 1e-6), "int8": (1e-4, 2e-2), "int8, x 12": (1e-4, 1e-2),
             "bfloat16": (5e-5, 5e-3), "bfloat16, x 16": (1e-4, 5e-3)}
    assert found["16, 32"].keys() == sizes.keys()
    for form, (least, most) in sizes.items():
        highest, rms = found["16, 32"][form]
        assert least < rms < highest < most
    assert quality.errors_missed(found) == []
    found["16, 32"]["int8"] = (1.0, np.nan)
    assert quality.errors_missed(found) == ["16, 32, int8: RMS nan, at most 0.003 wanted"]
    lines = quality.table_of_errors(found)
    assert lines[1][:3] == ["16, 32", lines[1][1], "1.0e+00 nan"]


def test_quality_of_trained_models():
    accuracies = {"vowels": {"float32": 95.0, "int8": 94.75, "int8, x 12": 94.6, "bfloat16": 95.5,
                             "bfloat16, x 16": 95.0}}
    assert bench.quality.losses_missed(accuracies) == [
        "vowels, int8, x 12: 0.40 points lost, at most 0.3 wanted"]
    assert bench.quality.table_of_accuracies(accuracies)[1] == [
        "vowels", "95.00", "94.75 (+0.25)", "94.60 (+0.40)", "95.50 (-0.50)", "95.00 (+0.00)"]


def test_wide_rows_keep_their_norm():
    gru, x = bench.quality.random_case((40, 64), 2)
    before = gru.state_dict()
    bench.quality.wide_rows(gru, x, np.random.default_rng(0))
    for name in ("weight_ih_l0", "weight_hh_l0"):
        w, wide = before[name], gru.state_dict()[name]
        np.testing.assert_allclose(*(np.linalg.norm(one, axis=1) for one in (w, wide)), rtol=1e-5)
        ratio = np.abs(wide / w).max(axis=1) / np.abs(wide / w).min(axis=1)
        assert np.isclose(np.median(ratio), 30)
