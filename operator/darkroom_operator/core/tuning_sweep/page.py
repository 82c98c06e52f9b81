"""A sweep as one HTML page: history, parallel coordinates, importances, Pareto front, trials. Pure: text in, text out.

Pictures are SVG in the page itself; nothing is loaded, no script runs.
"""

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from optuna.trial import FrozenTrial, TrialState

from darkroom_operator.core.tuning_sweep.history import stored_sweep_status
from darkroom_operator.core.tuning_sweep.prune import is_maximized
from darkroom_operator.core.tuning_sweep.study import Seen
from darkroom_operator.core.types import Body

WIDTH, HEIGHT, EDGE = 720, 260, 44
Scale = Callable[[float], float]
_COLORS = {TrialState.COMPLETE: "#1f77b4", TrialState.PRUNED: "#ff7f0e", TrialState.FAIL: "#d62728"}
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2em .7em;text-align:left;border-bottom:1px solid #ddd}"
    "svg{background:#fafafa;border:1px solid #ddd}svg text{font:11px system-ui,sans-serif;fill:#444}"
)


def page(body: Body, seen: Seen, importances: Mapping[str, float]) -> str:
    """The whole page."""
    done = [trial for trial in seen.trials if trial.state == TrialState.COMPLETE]
    several = len(seen.spec.objectives) > 1
    parts = [
        _summary(body),
        _section("History", _history(seen, done)),
        _section("Pareto front", _front(seen, done)) if several else "",
        _section("Parameters and values", _coordinates(seen, done)),
        _section("Importance of parameters", _bars(importances)),
        _section("Trials", _table(seen)),
    ]
    title = html.escape(seen.name)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1>{''.join(parts)}</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>{content or '<p>There is too little to show yet.</p>'}"


def _summary(body: Body) -> str:
    status = stored_sweep_status(body)
    best = status.best
    facts = {
        "State": status.state,
        "Trials": status.trials.summary if status.trials else None,
        "Best value": f"{best.value} (trial {best.trial})" if best else None,
        "Best parameters": ", ".join(f"{k} = {v}" for k, v in best.parameters.items()) if best else None,
        "GPU-hours": status.gpu_hours,
        "GPU-hours that pruning saved": status.saved_gpu_hours,
        "Cost": status.cost,
        "Last training": f"{status.refit.job}: {status.refit.state}" if status.refit else None,
    }
    rows = "".join(f"<tr><th>{key}<td>{html.escape(value)}" for key, value in facts.items() if value)
    return f"<table>{rows}</table>"


# --- Pictures ---


def _history(seen: Seen, done: Sequence[FrozenTrial]) -> str:
    """Values by number, and the best so far as a line; pruned trials at their last value."""
    if not done:
        return ""
    maximize = is_maximized(seen.spec.objectives[0].direction)
    marks = [(t, v) for t in seen.trials if t.state in _COLORS and (v := _value(t)) is not None]
    x = _scale([0, max(len(seen.trials) - 1, 1)], EDGE, WIDTH - 12)
    y = _scale([value for _, value in marks], HEIGHT - 24, 12)
    best, line = done[0].values[0], []
    for trial in done:
        best = max(best, trial.values[0]) if maximize else min(best, trial.values[0])
        line.append(f"{x(trial.number):.1f},{y(best):.1f}")
    dots = "".join(
        f'<circle cx="{x(t.number):.1f}" cy="{y(v):.1f}" r="3.5" fill="{_COLORS[t.state]}">'
        f"<title>trial {t.number}: {v:.6g}</title></circle>"
        for t, v in marks
    )
    path = f'<polyline points="{" ".join(line)}" fill="none" stroke="#888"/>'
    legend = "blue: complete, orange: pruned at this value; the line is the best so far"
    return _svg(path + dots + _ticks(y, [value for _, value in marks]), legend)


def _value(trial: FrozenTrial) -> float | None:
    """The first objective's, or the last of a trial that ended early."""
    value = trial.values[0] if trial.values else trial.last_step and trial.intermediate_values[trial.last_step]
    return value if value is not None and math.isfinite(value) else None


def _front(seen: Seen, done: Sequence[FrozenTrial]) -> str:
    """The first two objectives; those that no other beats are filled."""
    if not done:
        return ""
    signs = [1 if is_maximized(o.direction) else -1 for o in seen.spec.objectives]
    points = {t.number: [s * v for s, v in zip(signs, t.values, strict=True)] for t in done}
    x = _scale([t.values[0] for t in done], EDGE, WIDTH - 12)
    y = _scale([t.values[1] for t in done], HEIGHT - 24, 12)
    dots = []
    for t in done:
        beaten = any(
            other != points[t.number] and all(o >= m for o, m in zip(other, points[t.number], strict=True))
            for other in points.values()
        )
        fill = "none" if beaten else "#1f77b4"
        title = html.escape(f"trial {t.number}: {', '.join(f'{v:.6g}' for v in t.values)}")
        dots.append(
            f'<circle cx="{x(t.values[0]):.1f}" cy="{y(t.values[1]):.1f}" r="4" fill="{fill}" stroke="#1f77b4">'
            f"<title>{title}</title></circle>"
        )
    names = [html.escape(o.metric) for o in seen.spec.objectives]
    return _svg("".join(dots) + _ticks(y, [t.values[1] for t in done]), f"across: {names[0]}; up: {names[1]}")


def _coordinates(seen: Seen, done: Sequence[FrozenTrial]) -> str:
    """Parallel coordinates: an axis for each parameter, then the value; darker is better."""
    names = [p.name for p in seen.spec.parameters if any(p.name in t.params for t in done)]
    if not done or not names:
        return ""
    step = (WIDTH - 2 * EDGE) / len(names)
    axes = [_axis(p.name, seen, done) for p in seen.spec.parameters if p.name in names]
    y = _scale([t.values[0] for t in done], HEIGHT - 40, 24)
    better = sorted(done, key=lambda t: t.values[0], reverse=not is_maximized(seen.spec.objectives[0].direction))
    lines = []
    for rank, trial in enumerate(better):
        spots = [
            f"{EDGE + step * n:.1f},{axis(trial):.1f}"
            for n, (name, axis) in enumerate(zip(names, axes, strict=True))
            if name in trial.params
        ]
        spots.append(f"{WIDTH - EDGE},{y(trial.values[0]):.1f}")
        shade = 0.15 + 0.75 * (rank + 1) / len(better)
        lines.append(
            f'<polyline points="{" ".join(spots)}" fill="none" stroke="#1f77b4" stroke-opacity="{shade:.2f}">'
            f"<title>trial {trial.number}: {trial.values[0]:.6g}</title></polyline>"
        )
    labels = [
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="24" y2="{HEIGHT - 40}" stroke="#bbb"/>'
        f'<text x="{at:.1f}" y="{HEIGHT - 20}" text-anchor="middle">{html.escape(name)}</text>'
        for name, at in zip([*names, "value"], [EDGE + step * n for n in range(len(names) + 1)], strict=True)
    ]
    return _svg("".join([*labels, *lines]), "a line for each complete trial; the darker, the better")


def _axis(name: str, seen: Seen, done: Sequence[FrozenTrial]) -> Callable[[FrozenTrial], float]:
    """Where a trial's parameter is on its axis."""
    parameter = next(p for p in seen.spec.parameters if p.name == name)
    if parameter.choice:
        place = _scale([0, max(len(parameter.choice.values) - 1, 1)], HEIGHT - 40, 24)
        values = parameter.choice.values
        return lambda trial: place(values.index(str(trial.params[name])))
    given = parameter.double or parameter.int
    log = given is not None and given.scale == "Log"
    move = math.log if log else float
    place = _scale([move(float(t.params[name])) for t in done if name in t.params], HEIGHT - 40, 24)
    return lambda trial: place(move(float(trial.params[name])))


def _bars(importances: Mapping[str, float]) -> str:
    if not importances:
        return ""
    rows = "".join(
        f'<tr><td>{html.escape(name)}<td><svg width="{max(1, 300 * share):.0f}" height="12"><rect width="100%" height="12" '
        f'fill="#1f77b4"/></svg> {share:.0%}'
        for name, share in sorted(importances.items(), key=lambda item: -item[1])
    )
    return f"<table>{rows}</table>"


def _table(seen: Seen) -> str:
    names = [p.name for p in seen.spec.parameters]
    head = "".join(
        f"<th>{html.escape(text)}" for text in ("trial", "result", *(o.metric for o in seen.spec.objectives), *names)
    )
    rows = []
    for trial in seen.trials:
        values = [f"{value:.6g}" for value in trial.values or []] or [""] * len(seen.spec.objectives)
        cells = [str(trial.number), str(trial.user_attrs.get("result", "Running")), *values]
        cells += [str(trial.params.get(name, "")) for name in names]
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in cells))
    return f"<table><tr>{head}{''.join(rows)}</table>"


def _scale(values: Iterable[float], low: float, high: float) -> Scale:
    """From values to pixels."""
    known = list(values)
    least, most = min(known, default=0.0), max(known, default=1.0)
    span = most - least or 1.0
    return lambda value: low + (value - least) / span * (high - low)


def _ticks(y: Scale, values: Sequence[float]) -> str:
    return "".join(f'<text x="4" y="{y(value) + 4:.1f}">{value:.4g}</text>' for value in {min(values), max(values)})


def _svg(content: str, legend: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" aria-label="{legend}">{content}</svg><p>{legend}</p>'
