"""Schemathesis on the OpenAPI document: whatever is sent, no fault, and answers in the form that it promises."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS, load_all_checks

from leyden.gateway.http.openapi import document
from service.gateway.gateway_fakes import API_KEY, REF, Bench, operations
from service.gateway.gateway_fuzz import fuzzed_gateway

KEY = {"authorization": f"Bearer {API_KEY}"}
HEALTH = ("/healthz", "/readyz")
EXAMPLES = int(os.environ.get("LEYDEN_FUZZ_EXAMPLES", "6"))
"""Cases for each operation and mode: with 6 of them all operations together take half a minute."""
load_all_checks()
ALWAYS = [
    CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    )
]
OPERATIONS = [
    operation
    for found in schemathesis.openapi.from_dict(document(operations())).get_all_operations()
    if (operation := found.ok()).path not in HEALTH
]


@schemathesis.serializer("application/x-protobuf")
def as_it_is(context: Any, value: Any) -> bytes:
    """A body of bytes; what is drawn for one with a wrong type is its text."""
    return value if isinstance(value, bytes) else str(getattr(value, "value", value)).encode("utf-8", "replace")


@pytest.fixture(scope="module")
def gate() -> Iterator[Bench]:
    with fuzzed_gateway() as made:
        yield made


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_answers_are_as_the_document_says(gate: Bench, operation: Any, mode: schemathesis.GenerationMode) -> None:
    @given(
        case=operation.as_strategy(generation_mode=mode),
        model=st.sampled_from([None, "policy", "policy@3"]),
        rollout=st.sampled_from([None, REF.rollout_id, REF.trace_id]),
    )
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any, model: str | None, rollout: str | None) -> None:
        aim(case, model, rollout)
        response = case.call(base_url=gate.url, headers=KEY)
        case.validate_response(response, checks=ALWAYS)

    check()


def aim(case: Any, model: str | None, rollout: str | None) -> None:
    """Most names that are drawn are nobody's: send part of the cases where something is."""
    if isinstance(case.body, dict):
        if model is not None and "model" in case.body:
            case.body["model"] = model
        if "wait_s" in case.body and case.operation.path.endswith("/claim"):
            case.body["wait_s"] = 0
    if rollout is not None and "rollout" in (case.path_parameters or {}):
        case.path_parameters["rollout"] = rollout
