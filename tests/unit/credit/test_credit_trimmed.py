"""Credit reads of a call what it uses, and never the texts."""

from credit_support import call
from leyden.credit.core.evidence import AnsweredCall, Evidence, KeptCall, TrimmedCall, pack, unpack
from leyden.events.codec import batch_decoder, encode
from leyden.events.replies import replies_of_call

CALL = call("1", [1, 2, 3], [4, 5], [6]).model_copy(update={"request": {"messages": ["long text"]}})


def test_a_trimmed_call_is_the_call_without_its_texts() -> None:
    [read] = batch_decoder((TrimmedCall,))([encode(CALL)])
    bare = [choice.model_copy(update={"message": {}}) for choice in CALL.choices]
    assert read.model_dump() == CALL.model_copy(update={"request": {}, "choices": bare}).model_dump()


def test_it_is_kept_as_the_same_bytes_as_the_whole_call() -> None:
    trimmed = TrimmedCall.model_validate_json(encode(CALL))
    kept = pack(Evidence(trimmed, "model-calls.v1/0/1", "t"))
    assert kept == pack(Evidence(CALL, "model-calls.v1/0/1", "t"))
    assert b"text" not in kept


def test_where_spans_tell_agents_the_reply_is_recognised_and_no_text_is_kept() -> None:
    said = call("2", [1, 2], [3]).model_copy(update={"request": {"messages": ["long prompt"]}})
    [read] = batch_decoder((AnsweredCall,))([encode(said)])
    assert isinstance(read, AnsweredCall)
    kept = pack(Evidence(read, "model-calls.v1/0/1", "t"))
    assert kept == pack(Evidence(said, "model-calls.v1/0/1", "t"))
    assert b'text"' not in kept
    assert b"prompt" not in kept.replace(b"prompt_token", b"")
    again = unpack(kept).event
    assert isinstance(again, KeptCall)
    assert again.replies == replies_of_call(said)
    assert pack(Evidence(again, "model-calls.v1/0/1", "t")) == kept
