"""Schemas of the gateway's replies, and of the fields that it reads of model API requests. Others pass through."""

from leyden.gateway.http.operations import JsonDict, ref

TEXT: JsonDict = {"type": "string"}
COUNT: JsonDict = {"type": "integer", "minimum": 0}
MAYBE_TEXT: JsonDict = {"type": ["string", "null"]}
MODEL: JsonDict = {
    "type": "string",
    "minLength": 1,
    "description": "`<policy>`, `<policy>@<version>`, or an upstream's model.",
    "examples": ["policy"],
}


def record(required: JsonDict, optional: JsonDict | None = None, *, closed: bool = False) -> JsonDict:
    """An object with these fields, and others unless `closed`."""
    shape: JsonDict = {"type": "object", "required": list(required), "properties": required | (optional or {})}
    return shape | ({"additionalProperties": False} if closed else {})


def listed(schema: JsonDict) -> JsonDict:
    """A list of this schema."""
    return {"type": "array", "items": schema}


MESSAGES: JsonDict = listed({"type": "object"}) | {"examples": [[{"role": "user", "content": "Say hi"}]]}
REQUESTS: dict[str, JsonDict] = {
    "ChatRequest": record({"model": MODEL, "messages": MESSAGES}, {"stream": {"type": ["boolean", "null"]}}),
    "CompletionRequest": record(
        {"model": MODEL, "prompt": {"anyOf": [TEXT, listed(COUNT)], "examples": ["Once"]}},
        {"stream": {"type": ["boolean", "null"]}},
    ),
    "ResponsesRequest": record(
        {"model": MODEL, "input": {"anyOf": [TEXT, {"type": "array", "items": {"type": "object"}, "minItems": 1}]}},
        {"instructions": MAYBE_TEXT, "stream": {"type": ["boolean", "null"]}},
    ),
    "MessagesRequest": record(
        {"model": MODEL, "messages": MESSAGES, "max_tokens": {"type": "integer", "minimum": 1}},
        {"stream": {"type": ["boolean", "null"]}},
    ),
    "CountTokensRequest": record({"model": MODEL, "messages": MESSAGES}),
    "EmbeddingsRequest": record(
        {"model": MODEL, "input": {"anyOf": [TEXT, listed(TEXT), listed(COUNT)], "examples": ["Once"]}}
    ),
}
REPLIES: dict[str, JsonDict] = {
    "ChatCompletion": record(
        {"id": TEXT, "object": {"const": "chat.completion"}, "model": TEXT, "choices": listed(ref("ChatChoice"))},
        {"created": COUNT, "usage": {"type": "object"}},
    ),
    "ChatChoice": record({"index": COUNT, "message": {"type": "object"}, "finish_reason": MAYBE_TEXT}),
    "Deleted": record({"id": TEXT, "object": {"const": "response"}, "deleted": {"const": True}}),
    "ItemList": record(
        {"object": {"const": "list"}, "data": listed({"type": "object"}), "has_more": {"type": "boolean"}},
        {"first_id": MAYBE_TEXT, "last_id": MAYBE_TEXT},
    ),
    "InputTokens": record({"object": {"const": "response.input_tokens"}, "input_tokens": COUNT}),
    "Completion": record(
        {"id": TEXT, "object": {"const": "text_completion"}, "model": TEXT, "choices": listed({"type": "object"})}
    ),
    "Response": record(
        {
            "id": TEXT,
            "object": {"const": "response"},
            "created_at": COUNT,
            "status": {"enum": ["completed", "incomplete", "failed", "in_progress"]},
            "model": TEXT,
            "output": listed(ref("ResponseItem")),
            "parallel_tool_calls": {"type": "boolean"},
            "tool_choice": {},
            "tools": listed({"type": "object"}),
        }
    ),
    "ResponseItem": record({"id": TEXT, "type": {"enum": ["message", "function_call", "reasoning"]}, "status": TEXT}),
    "Message": record(
        {
            "id": TEXT,
            "type": {"const": "message"},
            "role": {"const": "assistant"},
            "model": TEXT,
            "content": listed({"type": "object"}),
            "stop_reason": MAYBE_TEXT,
            "usage": {"type": "object"},
        }
    ),
    "Event": record({"data": TEXT}, {"event": TEXT})
    | {"description": "One of the stream's server-sent events, as its API has them."},
    "TokenCount": record({"input_tokens": COUNT}),
    "Embeddings": record({"object": {"const": "list"}, "data": listed({"type": "object"}), "model": TEXT}),
    "Models": record({"data": listed(ref("Model"))}),
    "Model": record({"id": TEXT}),
}
ERRORS: dict[str, JsonDict] = {
    "OpenAIError": record({"error": record({"message": TEXT, "type": MAYBE_TEXT}, {"param": MAYBE_TEXT, "code": {}})}),
    "AnthropicError": record({"type": {"const": "error"}, "error": record({"type": TEXT, "message": TEXT})}),
    "LeydenError": record({"error": record({"type": TEXT, "message": TEXT})}, closed=True),
    "Health": record({"status": {"enum": ["ok", "unavailable"]}}, {"reason": TEXT}),
}
LEYDEN: dict[str, JsonDict] = {
    "Tasks": record(
        {"tasks": listed(record({"task_id": TEXT, "group_id": TEXT, "rollout_ids": listed(TEXT)}))}, closed=True
    ),
    "Attempt": record(
        {
            "rollout_id": TEXT,
            "attempt": COUNT,
            "trace_id": TEXT,
            "traceparent": TEXT,
            "base_url": TEXT,
            "api_key": TEXT,
            "task_id": MAYBE_TEXT,
            "group_id": TEXT,
            "input": {},
            "mode": {"enum": ["train", "validation"]},
            "timeout_s": {"type": "number"},
            "lease_s": {"type": "number"},
        }
    ),
    "Claim": record({"rollouts": listed(ref("Attempt"))}),
    "CancelledTasks": record(
        {"tasks": listed(record({"task_id": TEXT, "rollouts": COUNT, "cancelled": COUNT}))}, closed=True
    ),
    "CancelledRollouts": record(
        {"rollouts": listed(record({"rollout_id": TEXT, "cancelled": {"type": "boolean"}}))}, closed=True
    ),
    "Paused": record({"project": MAYBE_TEXT, "paused": {"type": "boolean"}}, closed=True),
    "Lease": record({"lease_s": {"type": "number"}}),
    "End": record(
        {
            "rollout_id": TEXT,
            "attempt": COUNT,
            "status": {"enum": ["succeeded", "failed"]},
            "final": {"type": "boolean"},
            "calls": COUNT,
        }
    ),
    "Rollout": record({"rollout_id": TEXT, "attempt": COUNT, "state": TEXT}, {"status": TEXT}),
    "Policies": record({"policies": listed(ref("Policy"))}, closed=True),
    "Policy": record(
        {
            "policy": TEXT,
            "promoted_version": {"type": ["integer", "null"]},
            "live_version": {"type": ["integer", "null"]},
            "replicas": listed(record({"replica": TEXT, "version": COUNT, "engine": TEXT})),
        }
    ),
    "Queue": record({"queued": COUNT, "running": COUNT, "ended": COUNT}),
    "CallsInFlight": record(
        {
            "calls": listed(
                record({"call_id": TEXT, "trace_id": MAYBE_TEXT, "model": TEXT, "seconds": {"type": "number"}})
            )
        },
        closed=True,
    ),
    "Key": record(
        {"key_id": TEXT, "name": TEXT, "revoked_at": MAYBE_TEXT},
        {"scopes": listed(TEXT), "project": MAYBE_TEXT, "models": listed(TEXT), "expires_at": MAYBE_TEXT},
    ),
    "NewKey": {"allOf": [ref("Key"), record({"key": TEXT})]},
    "Keys": record({"keys": listed(ref("Key"))}, closed=True),
}
SCHEMAS: JsonDict = {**REQUESTS, **REPLIES, **ERRORS, **LEYDEN}
"""Schemas by name."""
