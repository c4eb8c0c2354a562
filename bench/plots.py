"""Plots of a run, with matplotlib: ratio by shape, and the roofline. One file an (isa, dtype)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .roofline import Roofline
from .summary import NAMES, Row, geometric_mean, groups, rooflines, rows, threads_text

KINDS = ("inference", "training")
COLOURS = {
    "torch": "#d1495b",
    "onnxruntime": "#3d7ea6",
    "openvino": "#8e6bbf",
    "tensorflow": "#e9a03b",
    "tensorflow_xla": "#b5651d",
    "onednn": "#3a9a5b",
}
KIND_COLOURS = {"inference": "#3d7ea6", "training": "#d1495b"}
WORKING_SETS = {1 << 15: "L1", 1 << 19: "L2", 1 << 23: "L3", 1 << 28: "memory"}


def _style():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
            "grid.alpha": 0.3, "figure.dpi": 100,
        }
    )
    return plt


def by_figure(results: dict[str, Any]) -> dict[tuple[str, str], dict[tuple[int, str], list[Row]]]:
    """{(isa, dtype): {(threads, kind): rows}} of the kinds that are drawn."""
    found: dict[tuple[str, str], dict[tuple[int, str], list[Row]]] = {}
    for (dtype, isa, threads, kind), members in groups(rows(results)).items():
        if kind in KINDS and any(row.ratio for row in members):
            found.setdefault((isa, dtype), {})[threads, kind] = members
    return found


def plot_all(results: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Draws everything into `folder`: {title: file}."""
    plt, made = _style(), {}
    limits = rooflines(results)
    for (isa, dtype), panels in by_figure(results).items():
        where = f"{isa}, {dtype}"
        for name, figure in {
            "Ratio by shape": _ratios(plt, panels, where),
            "Roofline": _rooflines(plt, panels, where, limits),
        }.items():
            path = folder / f"{name.split()[0].lower()}-{isa}-{dtype}.png"
            figure.savefig(path, bbox_inches="tight")
            plt.close(figure)
            made[f"{name}: {where}"] = path
    return made


def _grid(plt, panels, height: float, width: float):
    """A figure with a row a number of threads and a column a kind; {(threads, kind): axes}."""
    lines = sorted({threads for threads, _ in panels})
    columns = [kind for kind in KINDS if any(k == kind for _, k in panels)]
    size = (width * len(columns), height * len(lines))
    figure, axes = plt.subplots(
        len(lines), len(columns), figsize=size, squeeze=False, layout="constrained"
    )
    places = {(t, k): axes[i][j] for i, t in enumerate(lines) for j, k in enumerate(columns)}
    for place, ax in places.items():
        if place not in panels:
            ax.set_axis_off()
    return figure, {place: ax for place, ax in places.items() if place in panels}


# ---- ratio by shape ----------------------------------------------------------------------------


def _ratios(plt, panels, where: str):
    most = max(len(members) for members in panels.values())
    figure, places = _grid(plt, panels, 1.2 + 0.21 * most, 5.6)
    for (threads, kind), ax in places.items():
        _ratio_panel(ax, panels[threads, kind])
        mean = geometric_mean(row.ratio for row in panels[threads, kind])
        ax.set_title(
            f"{kind}, {threads_text(threads)}: {mean:.2f} times the fastest peer", loc="left"
        )
    figure.suptitle(f"Time of each library over gru_c's ({where}; 1 = as fast as gru_c)")
    seen = [name for name in COLOURS if any(name in r.times for m in panels.values() for r in m)]
    handles = [
        plt.Line2D([], [], marker="o", linestyle="", color=COLOURS[name], label=NAMES[name])
        for name in seen
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(seen), frameon=False)
    return figure


FARTHEST = 200  # ratios beyond are drawn here


def _ratio_panel(ax, members: list[Row]) -> None:
    """A line a shape, a dot a peer; hollow where it does not count, > if it is farther out."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for y, row in enumerate(members):
        if row.ratio is not None:
            ax.plot(
                [1, min(row.ratio, FARTHEST)],
                [y, y],
                color="#888888",
                linewidth=2.5,
                alpha=0.5,
                zorder=1,
            )
        for name, seconds in row.times.items():
            colour, ratio = COLOURS[name], seconds / row.best
            face = colour if name in row.eligible else "white"
            marker = ">" if ratio > FARTHEST else "o"
            ax.scatter(
                min(ratio, FARTHEST), y, s=22, marker=marker, color=face, edgecolors=colour,
                zorder=3 if name in row.eligible else 2,
            )  # fmt: skip
    ax.axvline(1, color="black", linewidth=1)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.5), high)
    ax.axvspan(ax.get_xlim()[0], 1, color="#d1495b", alpha=0.07)
    ax.set_yticks(range(len(members)), [row.shape.label for row in members])
    ax.set_ylim(len(members) - 0.5, -0.5)


# ---- roofline ----------------------------------------------------------------------------------


def intensity(row: Row) -> float:
    """Operations a byte of recurrent weights, which each step reads (training: twice)."""
    training = row.case.kind == "training"
    item = 8 if row.case.dtype == "float64" else 4
    bytes_read = 3 * row.shape.H**2 * item * row.shape.T * (2 if training else 1)
    return row.shape.flop(training) / bytes_read


def _rooflines(plt, panels, where: str, limits):
    """A column a number of threads: the roofline above, the fraction of it by shape below."""
    isa, dtype = where.split(", ")
    lines = sorted({threads for threads, _ in panels})
    most = max(len(members) for members in panels.values())
    heights = (3.8, 0.8 + 0.21 * most)
    figure, axes = plt.subplots(
        2, len(lines), figsize=(5.6 * len(lines), sum(heights)), squeeze=False,
        layout="constrained", height_ratios=heights,
    )  # fmt: skip
    for column, threads in enumerate(lines):
        here = {kind: panels[threads, kind] for kind in KINDS if (threads, kind) in panels}
        limit = limits.get((dtype, isa, threads))
        if limit is not None:
            _roofline_panel(axes[0][column], here, limit)
            _fraction_panel(axes[1][column], here)
        axes[0][column].set_title(threads_text(threads), loc="left")
    figure.suptitle(f"gru_c under the roofline of the same run ({where})")
    return figure


def _roofline_panel(ax, here: dict[str, list[Row]], limit: Roofline) -> None:
    peak, right = limit.flops / 1e9, 4096
    for (size, name), dash in zip(WORKING_SETS.items(), ("-", "--", "-.", ":"), strict=True):
        rate = limit.rate(size) / 1e9
        xs = [0.25, peak / rate, right]
        label = f"{name}: {rate:.0f} GB/s"
        ax.plot(xs, [rate * xs[0], peak, peak], dash, color="#555555", linewidth=1, label=label)
    ax.annotate(f"{peak:.0f} GFLOP/s", (right, peak), ha="right", va="bottom", fontsize=8)
    for kind, members in here.items():
        ax.scatter(
            [intensity(row) for row in members], [row.gflops for row in members],
            s=18, color=KIND_COLOURS[kind], alpha=0.8, label=kind, zorder=3,
        )  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel("operations a byte of recurrent weights")
    ax.set_ylabel("GFLOP/s")
    ax.legend(loc="lower right", fontsize=7, framealpha=1)


def _fraction_panel(ax, here: dict[str, list[Row]]) -> None:
    labels = list(dict.fromkeys(row.shape.label for members in here.values() for row in members))
    for kind, members in here.items():
        ax.scatter(
            [100 * row.roofline for row in members if row.roofline is not None],
            [labels.index(row.shape.label) for row in members if row.roofline is not None],
            s=22, color=KIND_COLOURS[kind], alpha=0.8, zorder=3,
        )  # fmt: skip
    ax.set_xlim(0, max(100, ax.get_xlim()[1]))  # beyond: the limit was measured too low
    ax.set_xlabel("per cent of the roofline: least possible time over gru_c's")
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)
