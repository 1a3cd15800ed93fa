"""Contestants in turn, A B C A B C …, so that a machine whose speed drifts is fair to all; medians are told."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping


def in_turn(contestants: Mapping[str, Callable[[], float]], *, rounds: int) -> dict[str, list[float]]:
    """What each contestant returned in each round."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, measure in contestants.items():
            figures[name].append(measure())
            print(f"  round {number + 1}/{rounds}  {name}: {figures[name][-1]:.4g}", flush=True)
    return figures


def table(title: str, unit: str, figures: Mapping[str, list[float]], *, against: str) -> str:
    """A Markdown table of median, least and most, and the median of the ratios round by round."""
    lines = [f"| {title} | median {unit} | min, max | ratio to {against} |", "|---|---|---|---|"]
    for name, values in figures.items():
        ratio = statistics.median(a / b for a, b in zip(values, figures[against], strict=True))
        spread = f"{min(values):.4g}, {max(values):.4g}"
        lines.append(f"| {name} | {statistics.median(values):.4g} | {spread} | {ratio:.2f} |")
    return "\n".join(lines)
