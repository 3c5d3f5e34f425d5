"""Keys, scopes, allowed models, limits: the decisions."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.events import KeyCreated, KeyLimits, KeyRevoked
from leyden.gateway.core.keys import (
    AGENT_SCOPES,
    Caller,
    KeyRing,
    Level,
    NewKey,
    Scope,
    limit_headers,
    new_key,
    rate_limited,
    rollout_key,
)
from leyden.gateway.core.refusals import Refusal
from leyden.ids import AttemptRef, rollout_id_of

SECRET = b"0123456789abcdef"
REF = AttemptRef(rollout_id_of("t", 0), 2)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = new_key(bytes(range(6)), bytes(range(32)))


def created(key: NewKey = KEY, **changes: object) -> KeyCreated:
    fields: dict[str, object] = {
        "event_id": "c", "event_time": NOW, "producer": "gateway", "key_id": key.key_id, "name": "n",
        "digest": key.digest, "scopes": ["agent"], "project": "p", "models": ["policy*"],
        "limits": KeyLimits(concurrency=2),
    }  # fmt: skip
    return KeyCreated.model_validate(fields | changes)


def revoked(key: NewKey = KEY) -> KeyRevoked:
    return KeyRevoked(event_id="r", event_time=NOW, producer="gateway", key_id=key.key_id, name="n")


def ring(*events: KeyCreated | KeyRevoked, now: datetime = NOW) -> KeyRing:
    made = KeyRing(["bootstrap"], SECRET, lambda: now)
    for event in events:
        made.note_created(event) if isinstance(event, KeyCreated) else made.note_revoked(event)
    return made


def refused(made: KeyRing, token: str) -> tuple[int, str]:
    with pytest.raises(Refusal) as info:
        made.caller(f"Bearer {token}")
    return info.value.status, info.value.code


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([], "none was sent; send `Authorization: Bearer"),
        (["", " "], "none was sent"),
        (["Basic eDp5", KEY.text], "must be `Authorization: Bearer"),
        (["Bearer rubbish"], "does not know the key that was sent"),
        ([f"Bearer lk-{KEY.key_id}-guessed"], "does not know the key that was sent"),
        ([f"Bearer {KEY.text}"], f"key {KEY.key_id} was revoked; use another"),
        (["Bearer rubbish", f"Bearer {KEY.text}"], "was revoked"),
        ([f"Bearer {rollout_key(SECRET, REF, KEY.key_id)}"], f"key {KEY.key_id} was revoked"),
    ],
)
def test_a_refusal_says_whether_a_key_is_missing_unknown_or_revoked(headers: list[str], said: str) -> None:
    for made in (ring(created(), revoked()), ring(revoked(), created())):
        with pytest.raises(Refusal) as info:
            made.caller(*headers)
        assert (info.value.status, info.value.code) == (401, "invalid_api_key")
        assert said in info.value.message


def test_a_created_key_opens_what_it_was_created_for() -> None:
    caller = ring(created()).caller(f"Bearer {KEY.text}")
    assert (caller.key_id, caller.project, caller.models) == (KEY.key_id, "p", ("policy*",))
    assert (caller.scopes, caller.limits.concurrency, caller.attempt) == (AGENT_SCOPES, 2, None)
    assert ring().caller("Bearer bootstrap") == Caller()


def test_neither_another_secret_nor_the_id_nor_the_digest_opens_anything() -> None:
    other = new_key(bytes(range(6)), bytes(32))
    made = ring(created())
    for token in (other.text, f"lk-{KEY.key_id}", f"lk-{KEY.key_id}-", KEY.digest, f"lk-{KEY.key_id}-{KEY.digest}"):
        assert refused(made, token) == (401, "invalid_api_key")
    assert refused(ring(), KEY.text) == (401, "invalid_api_key")


def test_revoked_is_for_ever_whatever_the_order_and_takes_the_keys_rollouts_along() -> None:
    mine = rollout_key(SECRET, REF, KEY.key_id)
    for made in (ring(created(), revoked()), ring(revoked(), created()), ring(created(), revoked(), created())):
        assert refused(made, KEY.text) == (401, "invalid_api_key")
        assert refused(made, mine) == (401, "invalid_api_key")
        (state,) = made.states()
        assert state.revoked_at == NOW


def test_a_key_that_expired_says_so_only_to_who_holds_it() -> None:
    made = ring(created(expires_at=NOW), now=NOW)
    assert refused(made, KEY.text) == (401, "expired_api_key")
    assert refused(made, f"lk-{KEY.key_id}-x") == (401, "invalid_api_key")
    assert refused(made, rollout_key(SECRET, REF, KEY.key_id)) == (401, "expired_api_key")
    early = ring(created(expires_at=NOW), now=NOW - timedelta(seconds=1))
    assert early.caller(f"Bearer {KEY.text}").key_id == KEY.key_id


def test_a_rollout_key_has_the_project_models_and_limits_of_the_key_that_claimed_it_and_no_more() -> None:
    made = ring(created(scopes=["admin"]))
    caller = made.caller(f"Bearer {rollout_key(SECRET, REF, KEY.key_id)}")
    assert (caller.attempt, caller.project, caller.key_id) == (REF, "p", KEY.key_id)
    assert (caller.scopes, caller.models, caller.limits.concurrency) == (AGENT_SCOPES, ("policy*",), 2)
    freed = rollout_key(SECRET, REF, KEY.key_id).replace(f"-{KEY.key_id}", "")
    assert refused(made, freed) == (401, "invalid_api_key")


def test_while_keys_are_being_read_an_unknown_one_is_told_to_come_again() -> None:
    made = ring()
    made.complete = lambda: False
    assert refused(made, KEY.text) == (503, "starting")
    assert refused(made, rollout_key(SECRET, REF, KEY.key_id)) == (503, "starting")
    assert refused(made, "rubbish") == (401, "invalid_api_key")
    assert made.caller("Bearer bootstrap") == Caller()
    made.note_created(created())
    made.note_revoked(revoked())
    assert refused(made, KEY.text) == (401, "invalid_api_key"), "known to be revoked: no reason to wait"


def test_nothing_that_is_printed_shows_a_key() -> None:
    made = ring(created())
    secret = KEY.text.rpartition("-")[2]
    caller = made.caller(f"Bearer {KEY.text}")
    texts = [repr(KEY), str(KEY), repr(made), repr(caller), repr(made.states()), repr(created()), str(vars(made))]
    assert not any(secret in text or "bootstrap" in text.replace("_bootstrap", "") for text in texts)


@pytest.mark.parametrize(
    ("scope", "may"), [("agent", {"agent"}), ("runner", {"agent", "runner"}), ("admin", {"agent", "runner", "admin"})]
)
def test_a_scope_includes_the_lesser_ones(scope: str, may: set[str]) -> None:
    caller = ring(created(scopes=[scope])).caller(f"Bearer {KEY.text}")
    assert {str(one) for one in Scope if not _refuses(caller, one)} == may
    bound = ring(created(scopes=[scope])).caller(f"Bearer {rollout_key(SECRET, REF, KEY.key_id)}")
    assert {str(one) for one in Scope if not _refuses(bound, one)} == {"agent"}


def _refuses(caller: Caller, scope: Scope) -> bool:
    try:
        caller.must(scope)
    except Refusal as refusal:
        return refusal.status == 403
    return False


def test_a_caller_that_was_made_for_one_attempt_is_no_api_key_whatever_its_scopes() -> None:
    assert [_refuses(Caller(attempt=REF), scope) for scope in Scope] == [False, True, True]
    with pytest.raises(Refusal, match="per-rollout key"):
        Caller(attempt=REF).must_be_unbound()


@pytest.mark.parametrize(
    ("patterns", "model", "may"),
    [
        ((), "anything", True),
        (("policy*",), "policy", True),
        (("policy*",), "policy@3", True),
        (("policy*",), "gpt-5", False),
        (("policy",), "policy@3", True),
        (("policy@3",), "policy@3", True),
        (("policy@3",), "policy", False),
        (("policy@3",), "policy@4", False),
        (("a", "b/*"), "b/c@1", True),
        (("Policy",), "policy", False),
    ],
)
def test_allowed_models_are_patterns_of_a_policy_or_of_one_version(
    patterns: tuple[str, ...], model: str, may: bool
) -> None:
    caller = Caller(models=patterns)
    assert caller.may_use(model) is may
    if not may:
        with pytest.raises(Refusal, match=patterns[0].replace("*", r"\*")) as info:
            caller.must_use(model)
        assert (info.value.status, info.value.param) == (403, "model")


def test_what_names_no_model_is_left_to_who_reads_it() -> None:
    Caller(models=("policy",)).must_use(None)
    Caller(models=("policy",)).must_use(["policy"])


@given(st.text(max_size=80))
def test_no_token_is_too_odd_to_be_refused(token: str) -> None:
    for text in (token, f"lk-{token}", f"lrk-{token}", f"lk-{KEY.key_id}-{token}", f"lrk-{REF.trace_id}-{token}"):
        with pytest.raises(Refusal):
            ring(created()).caller(f"Bearer {text}")


@given(st.binary(min_size=6, max_size=6), st.binary(min_size=32, max_size=32))
def test_every_key_that_can_be_made_opens(random_id: bytes, random_secret: bytes) -> None:
    key = new_key(random_id, random_secret)
    made = ring(created(key))
    assert made.caller(f"Bearer {key.text}").key_id == key.key_id
    assert made.caller(f"Bearer {rollout_key(SECRET, REF, key.key_id)}").attempt == REF


def test_limits_are_told_as_openais_clients_read_them() -> None:
    limits = KeyLimits(requests_per_minute=60, tokens_per_minute=6000)
    assert limit_headers(limits, Level(True, 57.5, 0.0)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "57",
        "x-ratelimit-reset-requests": "2s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m0s",
    }
    assert limit_headers(KeyLimits(requests_per_minute=600), Level(True, 599)) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "100ms",
    }


def test_a_refused_call_is_told_when_what_it_lacks_will_be_there() -> None:
    limits = KeyLimits(requests_per_minute=6, tokens_per_minute=60)
    by_requests = rate_limited(limits, Level(False, 0.5, 60))
    assert (by_requests.status, by_requests.retry_after_s) == (429, 5.0)
    assert "6 requests a minute" in by_requests.message
    by_tokens = rate_limited(limits, Level(False, 6, -29))
    assert by_tokens.retry_after_s == 30.0
    assert "60 tokens a minute" in by_tokens.message
