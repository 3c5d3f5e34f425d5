"""Builds the nested records of a span event as plain objects, with all fields in the model's order.

tests/unit/ingest/test_dialects.py compares them with the models of `leyden.events`.
"""

from leyden.events import Json, JsonObject


def llm_call(
    *,
    operation: str | None = None,
    provider: str | None = None,
    response_id: str | None = None,
    finish_reasons: list[str] | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    cached_tokens: int | None = None,
    parameters: JsonObject | None = None,
    input_messages: list[JsonObject] | None = None,
    output_messages: list[JsonObject] | None = None,
) -> JsonObject:
    """`LlmCall`."""
    return {
        "operation": operation,
        "provider": provider,
        "response_id": response_id,
        "finish_reasons": finish_reasons or [],  # type: ignore[dict-item]  # list is invariant
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cached_tokens": cached_tokens,
        "parameters": parameters or {},
        "input_messages": input_messages or [],  # type: ignore[dict-item]
        "output_messages": output_messages or [],  # type: ignore[dict-item]
    }


def tool_call(
    name: str,
    *,
    call_id: str | None = None,
    arguments: Json = None,
    result: Json = None,
    parameters_schema: JsonObject | None = None,
    type_: str | None = None,
    description: str | None = None,
    error: str | None = None,
) -> JsonObject:
    """`ToolCall`."""
    return {
        "name": name,
        "call_id": call_id,
        "arguments": arguments,
        "result": result,
        "parameters_schema": parameters_schema,
        "type": type_,
        "description": description,
        "error": error,
    }


def evaluation(
    name: str, value: float | None = None, label: str | None = None, explanation: str | None = None
) -> JsonObject:
    """`Evaluation`."""
    return {"name": name, "value": value, "label": label, "explanation": explanation}


def retrieval(query: Json = None, documents: list[Json] | None = None) -> JsonObject:
    """`Retrieval`."""
    return {"query": query, "documents": documents}


def outcome(
    *,
    http_status: int | None = None,
    db_status: str | None = None,
    returned_rows: int | None = None,
    exit_code: int | None = None,
    rpc_code: str | None = None,
) -> JsonObject:
    """`Outcome`."""
    return {
        "http_status": http_status,
        "db_status": db_status,
        "returned_rows": returned_rows,
        "exit_code": exit_code,
        "rpc_code": rpc_code,
    }
