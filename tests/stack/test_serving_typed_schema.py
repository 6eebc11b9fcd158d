"""The typed API answers whatever its own description allows, and more, as it says it does."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS

from tests.stack.served_world import ServedWorld

pytestmark = pytest.mark.stack
UNAVAILABLE = 503
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
"""Requests that fit the description, and requests that break it in one place."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", ["/predict", "/predict_batch"])
def test_no_generated_request_is_the_servers_fault_and_each_answer_fits_the_description(
    long_served: ServedWorld, path, mode
):
    described = schemathesis.openapi.from_url(f"{long_served.url}/docs.json")
    (operation,) = described[path].values()
    statuses: set[int] = set()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=150,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case) -> None:
        response = case.call(timeout=30)
        statuses.add(response.status_code)
        assert response.status_code < 500 or response.status_code == UNAVAILABLE, response.text
        if response.status_code == 200:
            fits = CHECKS.get_one("response_schema_conformance")
            case.validate_response(response, checks=[fits])

    ask()
    assert statuses <= {200, 400, 415, UNAVAILABLE}
    assert (200 in statuses) == (mode is schemathesis.GenerationMode.POSITIVE)
