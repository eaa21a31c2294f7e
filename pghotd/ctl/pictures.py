"""Draw a heat map, or a report of counters over time, with matplotlib, which comes with the extra `pictures`."""

from pathlib import Path
from typing import Any

import numpy as np

from pghotd.ctl.heatmap import HeatMap
from pghotd.ctl.history import History, hit_ratios
from pghotd.geometry import PAGE_SIZE

SUFFIXES = (".png", ".svg")
_MIB = 1 << 20


class PictureError(ValueError):
    """Reason, in one line, why there is no picture."""


def check(output: Path) -> None:
    """Raise PictureError unless a picture of that name can be drawn here."""
    if output.suffix not in SUFFIXES:
        raise PictureError(f"--output {output}: neither *.png nor *.svg")
    if not output.absolute().parent.is_dir():
        raise PictureError(f"--output {output}: no directory {output.parent}")
    _pyplot()


def draw_heat_map(heat: HeatMap, output: Path) -> None:
    """Draw how hot each part was over time."""
    plot = _pyplot()
    figure, axes = plot.subplots(figsize=(10, 6), layout="constrained")
    seconds = heat.seconds
    step = seconds[-1] / max(len(seconds) - 1, 1) or 1.0
    image = axes.imshow(
        np.sqrt(heat.hotness / heat.highest),
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap="inferno",
        vmin=0,
        vmax=1,
        extent=(0, seconds[-1] + step, 0, len(heat.starts)),
    )
    ticks = np.linspace(0, len(heat.starts) - 1, min(9, len(heat.starts))).astype(int)
    axes.set_yticks(ticks + 0.5, [f"{heat.starts[tick]:#x}" for tick in ticks], family="monospace")
    axes.set_xlabel("time (s)")
    axes.set_ylabel("page frame number (PFN)" if heat.unit == "PFN" else heat.unit)
    axes.set_title(f"How often slow-memory pages of {heat.what} were accessed within {heat.window_ms / 1000:g} s")
    bar = figure.colorbar(image, ax=axes)
    shown = np.linspace(0, 1, 6)
    bar.set_ticks(list(shown), labels=[f"{heat.highest * value * value:.2f}" for value in shown])
    bar.set_label(f"mean accesses per page (at most {heat.highest} are counted; square-root scale)")
    figure.savefig(output)
    plot.close(figure)


def draw_report(history: History, output: Path) -> None:
    """Draw promotions, demotions and refusals in MiB/s, and the hit ratio where it is known."""
    plot = _pyplot()
    ratios = hit_ratios(history)
    figure, axes = plot.subplots(
        2 + bool(ratios), 1, sharex=True, figsize=(10, 7 if ratios else 5), layout="constrained", squeeze=False
    )
    middles = [(first + then) / 2 for first, then in zip(history.seconds, history.seconds[1:], strict=False)]
    # If pages bounce, both rates are equal: with two line styles neither line hides the other.
    for names, label, color, style in (
        (["pgpromote_success"], "promoted", "tab:green", "-"),
        (["pgdemote_kswapd", "pgdemote_direct"], "demoted", "tab:red", "--"),
    ):
        rates = [rate * PAGE_SIZE / _MIB for rate in history.rates(names)]
        axes[0][0].plot(middles, rates, label=label, color=color, linestyle=style)
    axes[0][0].set_ylabel("MiB/s")
    axes[0][0].set_title("Pages moved to fast memory, and back to slow memory")
    axes[0][0].legend()
    refusals = [name for name in history.counters[-1] if name.startswith(("pghotd_refused_", "pghotd_failed_"))]
    grown = [name for name in refusals if history.counters[-1][name] > history.counters[0].get(name, 0)]
    for name in grown:
        rates = [rate * PAGE_SIZE / _MIB for rate in history.rates([name])]
        axes[1][0].plot(middles, rates, label=name.removeprefix("pghotd_").replace("_", ": ", 1))
    axes[1][0].set_ylabel("MiB/s")
    axes[1][0].set_title("Hot pages that were not moved, by reason")
    if grown:
        axes[1][0].legend()
    if ratios:
        axes[2][0].plot(middles, [100 * ratio for ratio in ratios], color="tab:blue")
        axes[2][0].set_ylim(0, 100)
        axes[2][0].set_ylabel("%")
        axes[2][0].set_title("Accesses that hit fast memory")
    for rates_drawn in axes[:2]:
        rates_drawn[0].set_ylim(bottom=0)
    axes[-1][0].set_xlabel("time (s)")
    figure.savefig(output)
    plot.close(figure)


def _pyplot() -> Any:
    try:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot
    except ImportError:
        raise PictureError("--output needs matplotlib: pip install 'pghotd[pictures]'") from None
    return pyplot
