"""Credit reads of a call what it uses, and never the texts."""

from credit_support import call
from leyden.credit.core.evidence import Exhibit, TrimmedCall, pack
from leyden.events.codec import batch_decoder, encode

CALL = call("1", [1, 2, 3], [4, 5], [6]).model_copy(update={"request": {"messages": ["long text"]}})


def test_a_trimmed_call_is_the_call_without_its_texts() -> None:
    [read] = batch_decoder((TrimmedCall,))([encode(CALL)])
    bare = [choice.model_copy(update={"message": {}}) for choice in CALL.choices]
    assert read.model_dump() == CALL.model_copy(update={"request": {}, "choices": bare}).model_dump()


def test_it_is_kept_as_the_same_bytes_as_the_whole_call() -> None:
    trimmed = TrimmedCall.model_validate_json(encode(CALL))
    kept = pack(Exhibit(trimmed, "model-calls.v1/0/1", "t"))
    assert kept == pack(Exhibit(CALL, "model-calls.v1/0/1", "t"))
    assert b"text" not in kept
