"""Drawings of a report, as SVG."""

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 360, 200
MARGIN = 8
SHADES = 8


def raster(spikes: npt.NDArray[np.uint8]) -> str:
    """Time from left to right, one row per neuron, (steps, neurons) 0/1."""
    steps, neurons = spikes.shape
    t, n = np.nonzero(spikes)
    marks = "".join(f"M{a} {b}h1" for a, b in zip(t.tolist(), n.tolist(), strict=True))
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 -0.5 {steps} {neurons}" preserveAspectRatio="none">'
        f'<path d="{marks}" stroke="#235" stroke-width="1" fill="none"/></svg>'
    )


def picture(shares: npt.NDArray[np.floating], *, lying: bool) -> str:
    """Cells (rows, columns) of 0..1, the darker the more. ``lying``: rows from left to right, columns upwards, as the
    spectra of sound are drawn."""
    if lying:
        shares = shares.T[::-1]
    rows, columns = shares.shape
    shades = np.ceil(shares / max(float(shares.max()), 1e-9) * SHADES).astype(int)
    paths = []
    for shade in range(1, SHADES + 1):
        r, c = np.nonzero(shades == shade)
        marks = "".join(f"M{a} {b}h1" for a, b in zip(c.tolist(), r.tolist(), strict=True))
        paths.append(f'<path d="{marks}" stroke="#235" stroke-opacity="{shade / SHADES:g}" fill="none"/>')
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 -0.5 {columns} {rows}" preserveAspectRatio="none">'
        f"{''.join(paths)}</svg>"
    )


def reliability(points: list[tuple[float, float]]) -> str:
    """(score, share of right decisions) beside the line on which both are the same."""
    size = HEIGHT - 2 * MARGIN

    def at(x: float, y: float) -> str:
        return f"{MARGIN + x * size:.1f} {MARGIN + (1 - y) * size:.1f}"

    line = "M" + "L".join(at(x, y) for x, y in points) if points else ""
    dots = "".join(
        f'<circle cx="{at(x, y).split()[0]}" cy="{at(x, y).split()[1]}" r="3" fill="#235"/>' for x, y in points
    )
    return (
        f'<svg width="{HEIGHT}" height="{HEIGHT}"><path d="M{at(0, 0)}L{at(1, 1)}" stroke="#bbb"/>'
        f'<path d="{line}" stroke="#235" fill="none"/>{dots}</svg>'
    )


def bars(counts: list[int]) -> str:
    """A histogram."""
    most, wide = max([1, *counts]), (HEIGHT - 2 * MARGIN) / max(1, len(counts))
    boxes = []
    for i, count in enumerate(counts):
        tall = count / most * (HEIGHT - 2 * MARGIN)
        x, y = MARGIN + i * wide, HEIGHT - MARGIN - tall
        boxes.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide - 1:.1f}" height="{tall:.1f}" fill="#468"/>')
    return f'<svg width="{HEIGHT}" height="{HEIGHT}">{"".join(boxes)}</svg>'
