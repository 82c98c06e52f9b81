"""What is read from the raw objects of the API server."""

import pytest

from darkroom_operator.core.training_job.observe import is_managed_here


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, True, id="nobody said"),
        pytest.param(None, True, id="no spec at all: an error of ours to tell"),
        pytest.param({"managedBy": "darkroom.dev/operator"}, True, id="this operator"),
        pytest.param({"managedBy": "kueue.x-k8s.io/multikueue"}, False, id="another controller"),
        pytest.param({"managedBy": "darkroom.dev/operator2"}, False, id="nearly this operator"),
    ],
)
def test_whose_job_it_is(spec, expected):
    assert is_managed_here({"spec": spec}) == expected
