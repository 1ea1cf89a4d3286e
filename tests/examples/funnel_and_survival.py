"""Draw the funnel and the survival curve of a store in the terminal: `python -m tests.examples.funnel_and_survival`.

In a notebook the two calls of `reports` are all there is to it; they return DataFrames to plot as you like.
The argument is a store's file or a server's address; without one the usual place is asked.
"""

import sys

import pandas as pd

from telemetry import reports

WIDTH = 50


def main(store: str | None = None, since: str = "7d", until: str = "now") -> str:
    funnel = reports.funnel(store=store, since=since, until=until)
    curve = reports.survival(store=store, since=since, until=until, resolution="500ms")
    return f"{draw_funnel(funnel)}\n\n{draw_curve(curve)}"


def draw_funnel(funnel: pd.DataFrame) -> str:
    lines = ["How far do attempts get?"]
    for row in funnel.itertuples():
        bar = "█" * round(WIDTH * row.reached_ratio)
        lines.append(f"{row.step:<26} {bar:<{WIDTH}} {row.attempts:>7} {row.reached_ratio:7.1%}")
    return "\n".join(lines)


def draw_curve(curve: pd.DataFrame) -> str:
    lines = ["Who still waits for the first video frame? (Kaplan-Meier, with its 95 % interval)"]
    for row in curve[curve["after"] <= pd.Timedelta("10s")].itertuples():
        bar = "█" * round(WIDTH * row.waiting_ratio)
        known = pd.notna(row.waiting_low_ratio)
        interval = f"({row.waiting_low_ratio:.1%} to {row.waiting_high_ratio:.1%})" if known else ""
        lines.append(f"{row.after.total_seconds():5.1f} s {bar:<{WIDTH}} {row.waiting_ratio:7.1%} {interval}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(main(*sys.argv[1:2]))
