"""The model APIs, each also under `/rollouts/{rollout}`.

Not told: the same without `/v1` or with one too many, which is served for clients whose base URL is another.
"""

from leyden.gateway.http.openapi.operation import JsonDict, Operation, json, ref

EVENTS: JsonDict = {"text/event-stream": {"schema": ref("Event")}}
ERRORS = (400, 401, 403, 404, 409, 413, 429, 502, 503, 504)


def _call(path: str, summary: str, request: str, reply: str, *, streams: bool, error: str = "OpenAIError") -> Operation:
    content = json(reply) | (EVENTS if streams else {})
    return Operation(
        "post", path, summary, "model API", {200: content}, ERRORS, json(error), body=json(request), bound=True
    )


def _look(path: str, summary: str, reply: str, errors: tuple[int, ...]) -> Operation:
    return Operation("get", path, summary, "model API", {200: json(reply)}, errors, json("OpenAIError"), bound=True)


OPERATIONS = [
    _call("/v1/chat/completions", "OpenAI chat completions.", "ChatRequest", "ChatCompletion", streams=True),
    _call("/v1/responses", "OpenAI responses; nothing is stored.", "ResponsesRequest", "Response", streams=True),
    _call("/v1/messages", "Anthropic messages.", "MessagesRequest", "Message", streams=True, error="AnthropicError"),
    _call(
        "/v1/messages/count_tokens", "How long a prompt is.", "CountTokensRequest", "TokenCount",
        streams=False, error="AnthropicError",
    ),
    _call("/v1/completions", "OpenAI text completions.", "CompletionRequest", "Completion", streams=True),
    _call("/v1/embeddings", "OpenAI embeddings, from who has them.", "EmbeddingsRequest", "Embeddings", streams=False),
    _look("/v1/models", "The models that are live.", "Models", (401, 403)),
    _look("/v1/models/{model}", "One model.", "Model", (401, 403, 404)),
]  # fmt: skip
