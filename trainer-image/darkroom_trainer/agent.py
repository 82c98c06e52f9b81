"""Torch's elastic agent for this launcher: when workers are started again, and who may end the rendezvous for all.

Without elasticity workers are never started again: restarts are the operator's, whole attempts at a time. With it they
are, but only after a change of the group: a node joins, leaves, or is gone. A crash of a worker's own stays the end.
"""

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch.distributed.elastic.agent.server import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import LogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler, _RendezvousExitOp
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from darkroom_trainer.rendezvous import Rendezvous

_LAST_WORDS = 5  # seconds for workers whose group is broken
_OFTEN = 10**6  # as often as the group changes


class Agent(LocalElasticAgent):
    """goes_on: whether failed workers (exit codes by global rank) only lost their group, and are to be started again."""

    def __init__(
        self, spec: WorkerSpec, logs_specs: LogsSpecs, goes_on: Callable[[Mapping[int, int]], bool], *, grace: int
    ) -> None:
        super().__init__(spec=spec, logs_specs=logs_specs, shutdown_timeout=grace)
        self._goes_on = goes_on

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        if result.state == WorkerState.FAILED and self._remaining_restarts:
            self._remaining_restarts = _OFTEN if self._goes_on(exit_codes(result.failures)) else 0
        if result.state == WorkerState.HEALTHY and self._remaining_restarts and self._has_lost_a_node():
            self._shutdown(signal.SIGTERM, _LAST_WORDS)
            return RunResult(state=WorkerState.FAILED)
        return result

    def _has_lost_a_node(self) -> bool:
        """A node without power says nothing: its peers would wait for it in a collective. Its keep-alives stop, though.

        Torch drops it from the rendezvous, and asks nobody to meet again for it.
        """
        state = self._worker_group.spec.rdzv_handler._state_holder.state
        return state.complete and len(state.participants) < self._worker_group.group_world_size

    def _stop_workers(self, _worker_group: WorkerGroup) -> None:
        """Torch's own waits 30 s whatever the agent was given."""
        self._shutdown(signal.SIGTERM, self._shutdown_timeout)


def exit_codes(failures: Mapping[int, Any]) -> dict[int, int]:
    """By global rank, from torch's ProcessFailures."""
    return {rank: failure.exitcode for rank, failure in failures.items()}


def run(
    rendezvous: Rendezvous,
    command: Sequence[str],
    logs: LogsSpecs,
    goes_on: Callable[[Mapping[int, int]], bool],
    *,
    grace: int,
) -> None:
    """Until all workers have ended well. Raises ChildFailedError with the failures of this node's, or RendezvousError.

    Torch's launch_agent closes the rendezvous however its node ends; an elastic group goes on without it.
    """
    parameters = RendezvousParameters(
        backend=rendezvous.backend,
        endpoint=rendezvous.endpoint,
        run_id=rendezvous.run_id,
        min_nodes=rendezvous.min_nodes,
        max_nodes=rendezvous.max_nodes,
        local_addr=rendezvous.local_addr,
        **rendezvous.configs(),
    )
    handler = get_rendezvous_handler(parameters)
    host, _, port = rendezvous.endpoint.rpartition(":") if rendezvous.backend == "static" else ("", "", "")
    spec = WorkerSpec(
        role="trainer",
        local_world_size=rendezvous.processes,
        entrypoint=sys.executable,
        args=tuple(command),
        rdzv_handler=handler,
        max_restarts=_OFTEN if rendezvous.elastic else 0,
        monitor_interval=0.1,
        master_addr=host or None,
        master_port=int(port) if port else None,
        local_addr=rendezvous.local_addr,
    )
    over = not rendezvous.elastic
    try:
        result = Agent(spec, logs, goes_on, grace=grace).run()
        if result is not None and result.is_failed():  # None: everything was over before this node got in
            raise ChildFailedError(name="darkroom_trainer", failures=result.failures)
        over = True
    finally:
        if over:
            handler.shutdown()
        else:
            _leave(handler)


def _leave(handler: DynamicRendezvousHandler) -> None:
    """Tell the others, who would wait for three keep-alives otherwise. Torch does this only before it joins again."""
    with suppress(Exception):  # the store may be gone, and then so are they
        handler._stop_heartbeats()
        deadline = handler._get_deadline(handler._settings.timeout.heartbeat)
        handler._op_executor.run(_RendezvousExitOp(), deadline)
