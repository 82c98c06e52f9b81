"""A search whose record is too long for its status, on a real control plane."""

import json

import pytest

from darkroom_operator.core.tuning_sweep.ledger import KEPT_BYTES
from tests.controlplane.sweeps import Hopeless
from tests.kube import eventually
from tests.operator_process import OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_the_oldest_rows_move_out_and_come_back_after_a_restart(operator: OperatorProcess, kube, namespace):
    sweep = Hopeless(kube, namespace, trials=60)
    eventually(lambda: sweep.status.get("finished"), within=200, what=f"the end: {sweep.status.get('trials')}")
    assert sweep.numbers() == list(range(60))
    assert len(json.dumps(sweep.status["ledger"])) < 1.2 * KEPT_BYTES
    (page, *_) = sweep.pages()
    assert (page["metadata"]["name"], page["immutable"]) == ("long-ledger-00000", True)
    assert page["metadata"]["ownerReferences"][0]["uid"] == sweep.body["metadata"]["uid"]
    operator.stop()
    operator.start()
    kube.merge("TuningSweep", namespace, "long", {"spec": {"stopping": {"maxTrials": 62}}})
    eventually(lambda: sweep.status["trials"]["created"] == 62, within=60, what="it goes on")
    assert sweep.numbers() == list(range(62))
