"""The OpenAPI document keeps its word: requests made from it, right and wrong, to a server that listens."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
import torch
from hypothesis import HealthCheck, given, settings

from tailbind.server.app import create_app
from tailbind.server.model import ServedModel

from .conftest import LOCAL, listening

schemathesis.checks.load_all_checks()
positive_data_acceptance = schemathesis.checks.CHECKS.get_one("positive_data_acceptance")
rejection = schemathesis.checks.CHECKS.get_one("negative_data_rejection")

OPERATIONS = (
    ("/api/predict", "POST"),
    ("/api/predict-file", "POST"),
    ("/api/scan", "POST"),
    ("/api/model-card", "GET"),
    ("/api/health", "GET"),
    ("/metrics", "GET"),
)


@pytest.fixture
def api(model: ServedModel) -> Iterator[Any]:
    with listening(create_app(model, hosts=LOCAL), model.limits) as port:
        torch.set_flush_denormal(False)  # loading the model set it in this thread, where hypothesis makes numbers
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


def test_these_are_all_operations(api: Any) -> None:
    found = {(one.ok().path, one.ok().method.upper()) for one in api.get_all_operations()}
    assert found == set(OPERATIONS)


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_no_answer_is_a_failure_or_undocumented(api: Any, path: str, method: str, mode: str) -> None:
    if mode == "negative" and method == "GET":
        pytest.skip("a request without parameters cannot be wrong")
    operation = api[path][method]
    # A file that the document makes up is no table, and a chain to scan may be one that is not given.
    unsure = [positive_data_acceptance] if path in ("/api/predict-file", "/api/scan") else []
    statuses: set[int] = set()

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def ask(case: Any) -> None:
        answer = case.call()
        # Too many pairs are told as too much (413), which the check does not know for a refusal.
        case.validate_response(answer, excluded_checks=[*unsure, *([rejection] if answer.status_code == 413 else [])])
        statuses.add(answer.status_code)

    ask()
    assert max(statuses) < 500
    assert 200 in statuses or mode == "negative" or path == "/api/predict-file"  # a made-up file is no table
