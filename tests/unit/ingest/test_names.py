"""The attribute names that ingest reads are the conventions' own, or of somebody who is named here."""

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from leyden.ingest.dialects import names

OF_OTHERS = {
    "gen_ai.evaluation.result": "the conventions' event",
    "gen_ai.memory.query.text": "the conventions' own repository, later than the package",
    "gen_ai.memory.records": "the conventions' own repository, later than the package",
    "gen_ai.request.": "the beginning of names",
    "gen_ai.response.finish_reason": "Semantic Kernel",
    "gen_ai.retrieval.query": "the conventions, earlier",
    "gen_ai.tool.json_schema": "Strands",
    "gen_ai.usage.cache_creation_input_tokens": "OpenLLMetry",
    "gen_ai.usage.cache_read_input_tokens": "OpenLLMetry",
    "gen_ai.usage.input_tokens.cached": "Sentry's SDK",
    "leyden.tool.parameters_schema": "our own",
    "session.id": "OpenTelemetry's conventions for sessions",
}


def written_out() -> set[str]:
    values = [value for name, value in vars(names).items() if name.isupper()]
    return {one for value in values for one in ([value] if isinstance(value, str) else value)}


def test_every_name_is_the_conventions_or_somebodys_who_is_named() -> None:
    known = {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)}
    assert written_out() - known == set(OF_OTHERS)
