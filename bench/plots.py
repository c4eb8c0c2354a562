"""Plots of a run, with matplotlib: ratio by shape, and the roofline.

A file an (isa, dtype), and one a variant beside it.
"""

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
    "jax": "#5c5c5c",
    "onednn": "#3a9a5b",
}
KIND_COLOURS = {"inference": "#3d7ea6", "training": "#d1495b"}
WORKING_SETS = {1 << 15: "L1", 1 << 19: "L2", 1 << 23: "L3", 1 << 28: "memory"}


def _style():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {
        "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "grid.alpha": 0.3, "figure.dpi": 100,
    }
    return plt


Panels = dict[tuple[int, str], list[Row]]  # by threads and kind


def by_figure(results: dict[str, Any]) -> dict[tuple[str, ...], Panels]:
    """The panels of each (isa, dtype) or (isa, dtype, variant), of the kinds that are drawn."""
    found: dict[tuple[str, ...], Panels] = {}
    for (dtype, isa, threads, kind, variant), members in groups(rows(results)).items():
        if kind in KINDS and any(row.ratio for row in members):
            where = tuple(filter(None, (isa, dtype, variant)))
            found.setdefault(where, {})[threads, kind] = members
    return found


def plot_all(results: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Draws everything into `folder`: {title: file}."""
    plt, made = _style(), {}
    limits = rooflines(results)
    for place, panels in by_figure(results).items():
        isa, dtype, *_ = place
        where, ending = ", ".join(place), "-".join(place).replace(" ", "-")
        here = {threads: limits.get((dtype, isa, threads)) for threads, _ in panels}
        figures = {"Ratio by shape": _ratios(plt, panels, where),
                   "Roofline": _rooflines(plt, panels, where, here)}
        for name, figure in figures.items():
            path = folder / f"{name.split()[0].lower()}-{ending}.png"
            figure.savefig(path, bbox_inches="tight")
            plt.close(figure)
            made[f"{name}: {where}"] = path
    return made


def _grid(plt, lines: int, columns: int, heights: list[float]):
    """A figure and its axes, the same heights of all lines or one each."""
    return plt.subplots(
        lines, columns, figsize=(5.6 * columns, sum(heights)), squeeze=False,
        layout="constrained", height_ratios=heights,
    )  # fmt: skip


def _height(panels: Panels) -> float:
    """Inches for a line a shape."""
    return 0.21 * max(map(len, panels.values()))


def _label_shapes(ax, labels: list[str]) -> None:
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)


# ---- ratio by shape ----------------------------------------------------------------------------


def _ratios(plt, panels: Panels, where: str):
    """A line a number of threads, a column a kind."""
    lines = sorted({threads for threads, _ in panels})
    columns = [kind for kind in KINDS if any(k == kind for _, k in panels)]
    figure, axes = _grid(plt, len(lines), len(columns), [1.2 + _height(panels)] * len(lines))
    for i, threads in enumerate(lines):
        for ax, kind in zip(axes[i], columns, strict=True):
            if (threads, kind) not in panels:
                ax.set_axis_off()
                continue
            _ratio_panel(ax, panels[threads, kind])
            mean = geometric_mean(row.ratio for row in panels[threads, kind])
            title = f"{kind}, {threads_text(threads)}: {mean:.2f} times the fastest peer"
            ax.set_title(title, loc="left")
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
            ends = [1, min(row.ratio, FARTHEST)]
            ax.plot(ends, [y, y], color="#888888", linewidth=2.5, alpha=0.5, zorder=1)
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
    _label_shapes(ax, [row.shape.label for row in members])


# ---- roofline ----------------------------------------------------------------------------------


def intensity(row: Row) -> float:
    """Operations a byte of recurrent weights, which each step reads (training: twice)."""
    training = row.case.kind == "training"
    item = 8 if row.case.dtype == "float64" else 4
    passes = max(row.shape.lengths) * row.shape.layers * row.shape.directions
    bytes_read = 3 * row.shape.H**2 * item * passes * (2 if training else 1)
    return row.shape.flop(training) / bytes_read


def _rooflines(plt, panels: Panels, where: str, limits: dict[int, Roofline | None]):
    """A column a number of threads: the roofline above, the fraction of it by shape below."""
    figure, axes = _grid(plt, 2, len(limits), [3.8, 0.8 + _height(panels)])
    for threads, above, below in zip(sorted(limits), *axes, strict=True):
        here = {kind: panels[threads, kind] for kind in KINDS if (threads, kind) in panels}
        limit = limits[threads]
        if limit is not None:
            _roofline_panel(above, here, limit)
            _fraction_panel(below, here)
        above.set_title(threads_text(threads), loc="left")
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
    _label_shapes(ax, labels)
