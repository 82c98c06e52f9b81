"""A sweep of 9,980 recorded trials (10,000 are allowed) with 10 parameters: what its record takes to read and to decide on.

rebuild: all pages from the API server's JSON to the first plan of a fresh process, with one ask of TPE. look: a later plan of the
same sweep, with one new result, and so one ask; median and worst of LOOKS. Both in CPU seconds of the one thread that
does it. Memory is that of this process, which has no watches.
"""

import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

from darkroom_api.v1alpha1.tuning_sweep_status import TrialRecord
from darkroom_operator.core.tuning_sweep import ledger, space
from darkroom_operator.core.tuning_sweep.history import SweepFacts
from darkroom_operator.core.tuning_sweep.plan import plan
from tests.core.sweep_world import SweepWorld, spec_of

TRIALS, LOOKS = 9_980, 10
PARAMETERS = [
    *({"name": f"x{n}", "env": f"X{n}", "double": {"min": "0", "max": "1"}} for n in range(6)),
    *({"name": f"l{n}", "env": f"L{n}", "double": {"min": "0.0001", "max": "1", "scale": "Log"}} for n in range(2)),
    {"name": "width", "env": "WIDTH", "int": {"min": 1, "max": 64}},
    {"name": "model", "env": "MODEL", "choice": {"values": ["a", "b", "c"]}},
]


def run() -> dict[str, Any]:
    """Findings by name."""
    world, bodies = _searched()
    before = _memory()
    began = time.process_time()
    pages = [page for text in bodies if (page := ledger.read_page(json.loads(text)))]
    _look(world, pages)
    rebuilt = time.process_time() - began
    looks = [_one_more(world, pages) for _ in range(LOOKS)]
    return {
        "trials": TRIALS,
        "pages": len(pages),
        "rebuild_cpu_seconds": round(rebuilt, 2),
        "look_with_ask_cpu_seconds_median": round(statistics.median(looks), 2),
        "look_with_ask_cpu_seconds_worst": round(max(looks), 2),
        "memory_mib_before": round(before),
        "memory_mib_after": round(_memory()),
    }


def _searched() -> tuple[SweepWorld, list[str]]:
    """A sweep that has tried TRIALS configurations, none of which has a TrainingJob left, and its pages as JSON."""
    world = SweepWorld(
        lambda chosen: float(chosen["x0"]),
        parameters=PARAMETERS,
        algorithm={"name": "TPE", "seed": 7},
        stopping={"maxTrials": TRIALS + 2 * LOOKS},
        parallelism=1,
    )
    rows = _rows()
    stored = rows[-ledger.PAGE_ROWS :]
    paged = rows[: -ledger.PAGE_ROWS]
    cuts = range(0, len(paged), ledger.PAGE_ROWS)
    bodies = [ledger.page("search", "vision", "uid-of-search", paged[cut : cut + ledger.PAGE_ROWS]) for cut in cuts]
    entries = [page.entry.to_wire() for body in bodies if (page := ledger.read_page(body))]
    world.body["status"] = {"ledger": [row.to_wire() for row in stored], "ledgerPages": entries}
    world.body["status"]["trials"] = {"created": TRIALS}
    return world, [json.dumps(body) for body in bodies]


def _rows() -> list[TrialRecord]:
    spec, chance = spec_of(parameters=PARAMETERS), random.Random(7)  # noqa: S311

    def drawn() -> dict[str, str]:
        return {
            p.name: chance.choice(p.choice.values) if p.choice else space.from_unit(p, chance.random())
            for p in spec.parameters
        }

    return [
        TrialRecord(
            number=number,
            result="Succeeded",
            parameters=(chosen := drawn()),
            values=[chosen["x0"]],
            curve="3:0.31234 9:0.45678 27:0.56789",
            gpu_hours="1.2500",
            seconds=4500,
        )
        for number in range(TRIALS)
    ]


def _look(world: SweepWorld, pages: list[ledger.Page]) -> None:
    decision = plan(SweepFacts(world.body, tuple(world.jobs.values()), world.now, pages=tuple(pages)))
    for write in world.writes(decision):
        write()
    assert world.running, world.status.get("conditions")


def _one_more(world: SweepWorld, pages: list[ledger.Page]) -> float:
    (name,) = world.running
    world.complete(name)
    began = time.process_time()
    _look(world, pages)
    return time.process_time() - began


def _memory() -> float:
    """MiB that the process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
