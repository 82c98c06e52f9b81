"""What the user decides about failures, against the real Job controller and scheduler."""

import pytest

from tests.kube import eventually

pytestmark = pytest.mark.cluster


def test_the_first_rule_that_matches_decides_and_is_named(flowers):
    rules = [{"exitCodes": [17], "action": "RestartForFree"}, {"exitCodes": [3], "action": "Fail"}]
    job = flowers(restart={"maxRestarts": 0, "backoffSeconds": 0, "rules": rules})
    job.reaches("Running")
    job.end(1, 0, 17)
    eventually(lambda: job.status.get("attempt") == 2, within=30, what="second attempt")
    assert job.status["restarts"] == 0
    assert job.status["attempts"][0]["message"].startswith("restart.rules[0]: exit code 17 -> RestartForFree; ")
    job.reaches("Running")
    job.end(2, 3)
    job.reaches("Failed")
    status, reason, message = job.condition("Failed")
    assert (status, reason) == ("True", "RestartRule")
    assert message.startswith("restart.rules[1]: exit code 3 -> Fail; node 0 in pod flowers-2-0")
