"""Torch's rendezvous tells the living from the dead by comparing wall clocks of different nodes."""

from datetime import UTC, datetime, timedelta

import pytest
import torch.distributed as dist
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import _NodeDesc, create_handler

from darkroom_trainer.rendezvous import Rendezvous


@pytest.mark.parametrize(
    ("nodes", "kept"),
    [
        pytest.param("2", True, id="a gang of fixed size goes by nobody's clock"),
        pytest.param("2:3", False, id="an elastic one takes it for lost: docs/guides/elastic.md says so"),
    ],
)
def test_a_node_whose_clock_is_an_hour_behind(nodes, kept):
    told = Rendezvous.read({"PET_NNODES": nodes, "PET_RDZV_ENDPOINT": "localhost:0"})
    parameters = RendezvousParameters("c10d", told.endpoint, "id", told.min_nodes, told.max_nodes, **told.configs())
    store = dist.HashStore()
    handler = create_handler(store, C10dRendezvousBackend(store, "id"), parameters)
    holder, other = handler._state_holder, _NodeDesc("other", 1, 0)
    holder.state.participants[other] = 0
    holder.state.last_heartbeats[other] = datetime.now(UTC) - timedelta(hours=1)
    holder._sanitize()
    assert (other in holder.state.participants) == kept
