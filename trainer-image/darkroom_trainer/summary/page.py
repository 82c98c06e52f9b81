"""summary.html: one file that shows a run to whoever opens it, without a server and without the network."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom_api.report import ExitCode
from darkroom_trainer.files import replace_text
from darkroom_trainer.report import METRICS_FILE, duration
from darkroom_trainer.summary.charts import COLORS, Curve, line_chart, stacked_bar
from darkroom_trainer.summary.history import History, Line, read_history
from darkroom_trainer.summary.review import Review

if TYPE_CHECKING:
    from jinja2 import Template

PAGE_FILE = "summary.html"
_MOST_CLASSES = 30  # a larger matrix is not read by anybody
_MOST_CONFUSIONS = 15


def write_page(run_dir: Path) -> Path:
    """Replace the run's page by one of what its folder holds now; raises OSError."""
    page = run_dir / PAGE_FILE
    replace_text(page, render(read_history(run_dir), Review.read(run_dir)))
    return page


def render(history: History, review: Review | None) -> str:
    """The page as HTML; whatever was not measured is left out."""
    start = history.starts[-1] if history.starts else {}
    recipe = start.get("recipe", {})
    buckets = _buckets(history.time, start.get("pricePerHour"), start.get("currency", ""))
    return _template().render(
        title=f"{recipe.get('task', 'Training')} with {recipe.get('model', {}).get('architecture', 'a network')}",
        subtitle=_subtitle(history),
        facts=_facts(history, start),
        charts=list(_charts(history)),
        buckets=buckets,
        has_price=bool(start.get("pricePerHour")),
        time_bar=stacked_bar({bucket.name: bucket.seconds for bucket in buckets}),
        starts=[{**line, "clock": _clock(line["at"])} for line in history.starts],
        recipe=json.dumps(recipe, indent=2, ensure_ascii=False),
        **(_reviewed(review) if review else {}),
    )


@cache
def _template() -> "Template":
    from jinja2 import Environment

    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(text)


def main(arguments: Sequence[str]) -> int:
    """`darkroom-trainer summary RUN`: for a run whose page is switched off, or that ended without one."""
    parser = argparse.ArgumentParser(
        prog="darkroom-trainer summary", description="Write RUN/summary.html from what the run's folder holds."
    )
    parser.add_argument("run", type=Path, help="a run's folder: the one with metrics.jsonl")
    run_dir = parser.parse_args(arguments).run
    if not (run_dir / METRICS_FILE).is_file():
        print(f"{run_dir} is no folder of a run: {METRICS_FILE} is missing", file=sys.stderr)
        return ExitCode.CONFIG_ERROR
    try:
        print(write_page(run_dir))
    except OSError as error:
        print(f"{run_dir / PAGE_FILE} cannot be written: {error.strerror}", file=sys.stderr)
        return ExitCode.SOFTWARE_ERROR
    return ExitCode.DONE


# --- The result ---


def _subtitle(history: History) -> str:
    lines = [*history.starts, *history.progress, *history.evaluations, *([history.ended] if history.ended else [])]
    if not lines:
        return "Nothing was measured yet."
    return f"from {_clock(lines[0]['at'])} to {_clock(max(line['at'] for line in lines))}"


def _facts(history: History, start: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("state", _state(history))]
    if best := history.best:
        facts.append(("best", f"epoch {best['epoch']}: {_values(best)}"))
    tested = [line for line in history.evaluations if any(name.startswith("test/") for name in line["metrics"])]
    facts += [("test", _values(line)) for line in tested]
    if history.progress:
        last = history.progress[-1]
        facts.append(("steps", f"{last['step']} of {last['steps']}, epoch {last['epoch']} of {last['epochs']}"))
        if last.get("imagesPerSecond"):
            facts.append(("speed", f"{last['imagesPerSecond']:.0f} images/s"))
    if start:
        facts.append(("processes", f"{start['world']} on {start['device']}"))
    seconds = sum(history.time.values())
    if seconds:
        facts.append(("time", duration(seconds)))
        if price := start.get("pricePerHour"):
            facts.append(("cost", f"about {float(price) * seconds / 3600:.2f} {start.get('currency', '')}".strip()))
    return facts


def _values(evaluation: Line) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in evaluation["metrics"].items())


def _state(history: History) -> str:
    if history.ended:
        return str(history.ended["reason"])
    return "running, or ended without a word" if history.starts else "not started"


# --- Curves and time ---


def _charts(history: History) -> Iterable[tuple[str, str]]:
    """Losses in one picture, every other metric with its splits in one of its own, then rate and speed."""
    by_name: dict[str, list[str]] = {}
    for metric in history.metrics():
        by_name.setdefault(metric.partition("/")[2] or metric, []).append(metric)
    for name, metrics in sorted(by_name.items(), key=lambda item: item[0] != "loss"):
        curves = [Curve(metric, history.curve(metric)) for metric in metrics if len(history.curve(metric)) > 1]
        if chart := line_chart(curves, x="step", y=name):
            yield name, chart
    for key, name in (("learningRate", "learning rate"), ("imagesPerSecond", "images/s")):
        points = [(line["step"], line[key]) for line in history.progress if line.get(key) is not None]
        if len(points) > 1 and (chart := line_chart([Curve(name, points)], x="step", y=name)):
            yield name, chart


@dataclass(frozen=True)
class _Bucket:
    name: str
    seconds: float
    time: str
    share: str
    cost: str
    color: str


def _buckets(time: Mapping[str, float], price_per_hour: str | None, currency: str) -> list[_Bucket]:
    total, price = sum(time.values()), float(price_per_hour or 0)
    largest = sorted(((name, seconds) for name, seconds in time.items() if seconds > 0), key=lambda item: -item[1])
    return [
        _Bucket(
            name,
            seconds,
            duration(seconds),
            f"{100 * seconds / total:.1f} %",
            f"{price * seconds / 3600:.2f} {currency}".strip(),
            COLORS[number % len(COLORS)],
        )
        for number, (name, seconds) in enumerate(largest)
    ]


def _clock(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S} UTC"


# --- What it gets wrong ---


def _reviewed(review: Review) -> dict[str, Any]:
    wrong = {pair: count for pair, count in review.counts.items() if pair[0] != pair[1]}
    shown = _shown_classes(review, wrong)
    return {
        "split": review.split,
        "pictures": review.pictures,
        "matrix_classes": [review.classes[number] for number in shown],
        "matrix": [_row(review, truth, shown) for truth in shown],
        "hidden_classes": len(review.classes) - len(shown),
        "confusions": [
            (review.classes[truth], review.classes[found], count)
            for (truth, found), count in sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:_MOST_CONFUSIONS]
        ],
        "mistakes": [
            {
                "truth": review.classes[mistake.truth],
                "found": review.classes[mistake.found],
                "confidence": f"{100 * mistake.confidence:.0f} %",
                "loss": f"{mistake.loss:.2f}",
                "name": mistake.name,
                "picture": mistake.picture,
            }
            for mistake in review.mistakes
        ],
    }


def _shown_classes(review: Review, wrong: Mapping[tuple[int, int], int]) -> list[int]:
    """All of them, or those that take part in most errors; none of a task whose answers are not counted by class."""
    if not review.counts:
        return []
    if len(review.classes) <= _MOST_CLASSES:
        return list(range(len(review.classes)))
    errors = Counter[int]()
    for pair, count in wrong.items():
        errors.update(dict.fromkeys(pair, count))
    return sorted(number for number, _ in errors.most_common(_MOST_CLASSES))


def _row(review: Review, truth: int, shown: Sequence[int]) -> dict[str, Any]:
    counts = [review.counts.get((truth, found), 0) for found in shown]
    total = sum(count for (is_, _), count in review.counts.items() if is_ == truth) or 1
    cells = [
        {
            "count": count,
            "color": "5,150,105" if found == truth else "220,38,38",
            "strength": f"{0.65 * count / total:.2f}",
        }
        for found, count in zip(shown, counts, strict=True)
    ]
    return {"name": review.classes[truth], "cells": cells}
