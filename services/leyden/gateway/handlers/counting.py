"""Counts a prompt's tokens with the engine's tokenizer and template. Samples and records nothing."""

from collections.abc import Mapping

import orjson

from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import JsonDict
from leyden.gateway.core.routing import ENGINE_AWAY_S, ModelName, RoutingTable
from leyden.gateway.core.upstreams import Timeouts
from leyden.gateway.handlers.servers import EngineError
from leyden.gateway.ports import EngineBroke, Engines, EngineUnreachable

NO_LOAD: Mapping[str, int] = {}
NO_ROUTE = (404, 405, 501)
"""Statuses of an engine without `/tokenize`."""
PROMPT_FIELDS = ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs")
"""Fields of a chat request that make its prompt."""
HEADERS = {"content-type": "application/json"}


class TokenCounter:
    """Asks a policy's engine. Other upstreams are not supported, as no OpenAI-compatible route counts tokens."""

    def __init__(self, table: RoutingTable, engines: Engines, timeouts: Timeouts) -> None:
        self._table = table
        self._engines = engines
        self._timeouts = timeouts

    async def count(self, model: object, prompt: JsonDict) -> int:
        """The number of tokens of a prompt (`messages`, `tools`, …). Raises `Refusal` or `EngineError`."""
        if not isinstance(model, str) or not model:
            raise Refusal(400, "missing_model", "`model` must name a policy", param="model")
        for replica in self._table.candidates(ModelName.parse(model), NO_LOAD):
            body = orjson.dumps(prompt | {"model": replica.model})
            url = f"{replica.endpoint.rstrip('/')}/tokenize"
            try:
                reply = await self._engines.post(url, body, HEADERS, self._timeouts)
            except EngineUnreachable:
                continue
            except EngineBroke as error:
                raise _broken(error) from error
            try:
                answer = await reply.read()
            except EngineBroke as error:
                raise _broken(error) from error
            finally:
                reply.close()
            return _count(model, reply.status, answer)
        text = f"no replica of `{model}` can be reached"
        raise Refusal(503, "model_unreachable", text, retry_after_s=ENGINE_AWAY_S)


def _count(model: str, status: int, answer: bytes) -> int:
    if status in NO_ROUTE:
        raise Refusal(404, "not_countable", f"the engine of `{model}` cannot count tokens", param="model")
    if status != 200:
        raise EngineError(status, answer)
    try:
        return int(orjson.loads(answer)["count"])
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(502, "engine_reply", f"the engine's answer is not a token count: {error!r}") from error


def _broken(error: EngineBroke) -> Refusal:
    status, code = (504, "engine_timeout") if error.timed_out else (502, "engine_broke")
    return Refusal(status, code, str(error))
