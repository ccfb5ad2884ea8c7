"""Requests made up from the OpenAPI document: each is answered as documented, none is a defect of TaskFlow's."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from taskflow.process import ServerProcess
from taskflow.web.app import create_app
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

EXAMPLES: Final = 15
FEWER_EXAMPLES: Final = {"POST /reports": 2}  # each that is valid starts a process
ANSWER_SECONDS: Final = 60

load_all_checks()
CONFORMANCE: Final = CHECKS.get_by_names(["content_type_conformance", "response_schema_conformance"])
OPERATIONS: Final = {
    f"{operation.method.upper()} {operation.path}": operation
    for operation in (
        found.ok() for found in schemathesis.openapi.from_dict(create_app().openapi()).get_all_operations()
    )
}
# An operation without parameters has nothing that could be wrong about it.
KINDS: Final = [
    pytest.param(label, mode, id=f"{label} {mode.value}")
    for label, operation in OPERATIONS.items()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or list(operation.iter_parameters()) or list(operation.body)
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A seeded TaskFlow of this module's own, without faults: what is made up goes into its database."""
    directory = tmp_path_factory.mktemp("schema")
    seeded = taskflow_settings(directory)
    seed_taskflow(seeded, projects=3, tasks=60)
    environment = {
        "DATABASE_URL": seeded.database_url,
        "TASKFLOW_FAULTS": "none",
        "TASKFLOW_STORAGE_URL": str(directory / "files"),
    }
    with ServerProcess(directory, environment) as server:
        yield server.url


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as one:
        one.trust_env = False
        yield one


@pytest.mark.parametrize(("label", "mode"), KINDS)
def test_whatever_is_asked_is_answered_as_documented_and_never_with_500(
    label: str, mode: GenerationMode, address: str, session: requests.Session
) -> None:
    @settings(
        max_examples=FEWER_EXAMPLES.get(label, EXAMPLES),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        response = case.call(base_url=address, session=session, timeout=ANSWER_SECONDS)
        assert response.status_code < 500, (case.as_curl_command(), response.text)
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"]
            assert response.json()["status"] == response.status_code
        else:
            case.validate_response(response, checks=CONFORMANCE)

    ask()
