"""The loop on real parts: two updates, and what must be true of them; then every service killed; then a replay.

The tests share one stack and run in order: each starts from what the one before left in the log.
"""

import asyncio
import json
import os
import secrets
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest

from e2e_support import GROUPS_PER_STEP, POLICY, SAMPLES, Loop
from leyden.events import (
    CheckpointSaved,
    Event,
    GroupCredited,
    ModelCallRecorded,
    RolloutEnded,
    SequenceCredited,
    TrainingStepCompleted,
    VersionRegistered,
    unpack_floats,
    unpack_ints,
)
from leyden.replay.run import ReplayPlan, run_replay
from leyden.stack.config import SERVICES
from leyden.stack.requirements import own_kafka, own_redis

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

STATE = "state in Redis"
"""Not a process: what reward and credit keep is deleted, as after the loss of Redis' files."""
KILLED = [STATE, *SERVICES, "engine", *["redis"] * own_redis(), *["kafka"] * own_kafka()]
"""Every process of the stack; servers that run elsewhere are not ours to kill."""
PROBE = [{"role": "user", "content": "a probe of the weights"}]


def of(events: Sequence[Event], kind: type) -> list:  # type: ignore[type-arg]
    return [event for event in events if isinstance(event, kind)]


def engine_logprobs(loop: Loop) -> tuple[list[int], list[int], np.ndarray]:
    """Greedy tokens and their logprobs for the probe, straight from the engine."""
    body = {"model": POLICY, "messages": PROBE, "max_tokens": 12, "temperature": 0, "logprobs": True}
    answer = httpx.post(
        f"{loop.stack.engine_url}/v1/chat/completions", json=body | {"return_token_ids": True}, timeout=60
    )
    choice = answer.raise_for_status().json()["choices"][0]
    logprobs = [token["logprob"] for token in choice["logprobs"]["content"]]
    return answer.json()["prompt_token_ids"], choice["token_ids"], np.array(logprobs)


def model_logprobs(folder: str, prompt: list[int], response: list[int]) -> np.ndarray:
    """The same tokens' logprobs from the weights in `folder`, by a plain forward pass."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    chosen = torch.log_softmax(logits, -1).gather(1, torch.tensor(response)[:, None])
    return chosen[:, 0].numpy()


async def test_two_updates_go_round_and_the_trained_weights_answer(loop_stack: Loop) -> None:
    loop = loop_stack
    await loop.wait_live(0)
    _, base_tokens, base = engine_logprobs(loop)
    for update in range(2):
        loop.enqueue(f"update{update}")
        await loop.wait_live(update + 1)
    prompt, tokens, served = engine_logprobs(loop)
    saved = {event.version: event for event in of(await loop.events(), CheckpointSaved)}
    trained = model_logprobs(saved[2].merged_weights, prompt, tokens)
    untrained = model_logprobs(saved[2].base_model, prompt, tokens)
    assert np.abs(served - trained).max() < 0.01
    assert np.abs(served - untrained).max() > 0.02
    assert base_tokens != tokens or np.abs(served - base).max() > 0.02


async def test_the_log_holds_the_token_ids_that_the_engine_returned(loop_stack: Loop) -> None:
    events = await loop_stack.events()
    calls = {
        call.choices[0].message.get("content"): call for call in of(events, ModelCallRecorded) if not call.streamed
    }
    assert len(loop_stack.heard.answers) == 2 * GROUPS_PER_STEP * SAMPLES
    by_rollout = {(c.rollout_id, c.attempt): c for c in of(events, ModelCallRecorded) if not c.streamed}
    for answer in loop_stack.heard.answers:
        call = by_rollout[answer["rollout_id"], answer["attempt"]]
        assert unpack_ints(call.prompt_token_ids).tolist() == answer["prompt_token_ids"]
        assert unpack_ints(call.choices[0].token_ids).tolist() == answer["choices"][0]["token_ids"]
        heard = [token["logprob"] for token in answer["choices"][0]["logprobs"]["content"]]
        assert np.allclose(unpack_floats(call.choices[0].logprobs), heard, atol=1e-6)
    assert calls


async def test_every_transition_has_its_calls_tokens_and_logprobs(loop_stack: Loop) -> None:
    events = await loop_stack.events()
    calls = {call.call_id: call for call in of(events, ModelCallRecorded)}
    sequences = {sequence.event_id: sequence for sequence in of(events, SequenceCredited)}
    assert sequences
    seen = Counter()
    for sequence in sequences.values():
        tokens, logprobs = unpack_ints(sequence.token_ids), unpack_floats(sequence.behaviour_logprobs)
        outside = np.ones(len(tokens), dtype=bool)
        for turn in sequence.transitions:
            call, choice = calls[turn.call_id], calls[turn.call_id].choices[turn.choice]
            assert tokens[: turn.start].tolist() == unpack_ints(call.prompt_token_ids).tolist()
            assert tokens[turn.start : turn.end].tolist() == unpack_ints(choice.token_ids).tolist()
            assert np.array_equal(logprobs[turn.start : turn.end], unpack_floats(choice.logprobs))
            assert turn.policy_version == call.policy_version
            outside[turn.start : turn.end] = False
            seen[turn.call_id] += 1
        assert not logprobs[outside].any()
    assert set(seen.values()) == {1}


async def test_every_finished_rollout_gave_transitions_exactly_once(loop_stack: Loop) -> None:
    events = await loop_stack.events()
    ended = [end for end in of(events, RolloutEnded) if end.final]
    assert (
        len({end.rollout_id for end in ended}) == len({end.event_id for end in ended}) == 2 * GROUPS_PER_STEP * SAMPLES
    )
    assert {end.status for end in ended} == {"succeeded"}
    credited = Counter(
        turn.call_id
        for sequence in {s.event_id: s for s in of(events, SequenceCredited)}.values()
        for turn in sequence.transitions
    )
    assert credited == Counter(call_id for end in ended for call_id in end.call_ids)
    assert all(len(end.call_ids) == 2 for end in ended)


async def test_each_call_names_the_version_that_answered_it(loop_stack: Loop) -> None:
    events = await loop_stack.events()
    ended = {(end.rollout_id, end.attempt): end for end in of(events, RolloutEnded)}
    versions = Counter()
    for call in of(events, ModelCallRecorded):
        task_id = ended[call.rollout_id, call.attempt].task.task_id
        assert call.policy_version == int(task_id.removeprefix("update").split("-")[0])
        assert call.policy == POLICY
        versions[call.policy_version] += 1
    assert versions == {0: 2 * GROUPS_PER_STEP * SAMPLES, 1: 2 * GROUPS_PER_STEP * SAMPLES}
    for answer in loop_stack.heard.answers:
        assert answer["model"].startswith(f"{POLICY}@")


async def test_a_version_is_traced_back_to_the_offsets_that_made_it(loop_stack: Loop) -> None:
    events = await loop_stack.events()
    steps = {step.event_id: step for step in of(events, TrainingStepCompleted)}
    versions = {version.version: version for version in of(events, VersionRegistered)}
    assert sorted(versions) == [1, 2]
    sequences = {sequence.event_id: sequence for sequence in of(events, SequenceCredited)}
    for version in versions.values():
        manifest = steps[version.lineage.manifest_event].manifest
        origins = {turn.origin for one in manifest.sequence_ids for turn in sequences[one].transitions}
        assert origins == set(manifest.origins)
        assert all(origin.startswith("model-calls.v1/") for origin in origins)


@pytest.mark.parametrize("process", KILLED)
async def test_a_process_killed_in_the_middle_changes_no_count(loop_stack: Loop, process: str) -> None:
    loop = loop_stack
    version = loop.live_version()
    assert version is not None
    before = await loop.events()
    rollouts = loop.enqueue(f"kill-{process}")
    await asyncio.sleep(0.4)
    if process == STATE:
        await loop.forget_state("reward", "credit")
    else:
        pid = next(one.pid for one in loop.stack.status().processes if one.name == process)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    await loop.wait_live(version + 1)
    events = (await loop.events())[:]
    final = {end.rollout_id: end for end in of(events, RolloutEnded) if end.final and end.rollout_id in rollouts}
    assert set(final) == set(rollouts)
    assert {end.status for end in final.values()} == {"succeeded"}
    trained = Counter(
        turn.call_id
        for sequence in {s.event_id: s for s in of(events, SequenceCredited) if s.rollout_id in final}.values()
        for turn in sequence.transitions
    )
    answered = {call.call_id for call in of(events, ModelCallRecorded) if not call.error}
    assert trained == Counter(call_id for end in final.values() for call_id in end.call_ids if call_id in answered)
    assert sum(trained.values()) >= 2 * len(rollouts)
    groups = {g.group_id for g in of(events, GroupCredited)} - {g.group_id for g in of(before, GroupCredited)}
    assert len(groups) == GROUPS_PER_STEP
    steps = Counter(
        group
        for step in {s.step: s for s in of(events, TrainingStepCompleted)}.values()
        for group in step.manifest.group_ids
    )
    assert all(steps[group] == 1 for group in groups)


def new_name(what: str) -> str:
    """A replay's name is a topic prefix: on a broker that outlives the tests each needs one of its own."""
    return f"{what}-{secrets.token_hex(4)}"


async def test_the_same_topics_again_give_the_same_transitions_batches_and_weights(loop_stack: Loop) -> None:
    """After the trainer, like every other process, was killed in the middle."""
    said: list[str] = []
    data_dir = Path(loop_stack.stack.config.data_dir)
    plan = ReplayPlan(
        name=new_name("again"), settings=None, start=None, end=None, data_dir=data_dir, source_prefix=None, train=True
    )
    live = len({version.version for version in of(await loop_stack.events(), VersionRegistered)})
    assert await run_replay(plan, said.append, said.append) == 0
    report = json.loads((data_dir / "replays" / plan.name / "report.json").read_text())
    assert report["comparison"]["identical"] is True
    assert report["comparison"]["same"] >= 2 * GROUPS_PER_STEP * (SAMPLES + 1)
    assert any(line.startswith("identical: ") for line in said)
    assert report["training"] == {
        "steps": live, "same_batches": live, "same_weights": live, "same_state": True, "identical": True
    }  # fmt: skip
    assert f"weights: identical, {live} of {live} steps" in said


async def test_another_reward_rule_retrains_into_a_candidate_of_its_own(loop_stack: Loop) -> None:
    data_dir = Path(loop_stack.stack.config.data_dir)
    settings = data_dir.parent / "run" / "inverted.yaml"
    live_before = loop_stack.live_version()
    calls_before = len(of(await loop_stack.events(), ModelCallRecorded))
    plan = ReplayPlan(
        name=new_name("inverted"),
        settings=settings,
        start=None,
        end=None,
        data_dir=data_dir,
        source_prefix=None,
        train=True,
    )
    assert await run_replay(plan, lambda _: None, lambda _: None) == 0
    report = json.loads((data_dir / "replays" / plan.name / "report.json").read_text())
    assert report["comparison"]["different"] > 0
    assert report["training"]["same_batches"] == report["training"]["steps"], "the same groups, as nothing else changed"
    assert report["training"]["same_weights"] == 0
    live = {v.version: v for v in of(await loop_stack.events(), VersionRegistered)}
    for version in report["versions"]:
        same_number = live[version["version"]]
        assert version["policy"] == f"{same_number.policy}+{plan.name}"
        assert version["lineage"]["weights_sha256"] != same_number.lineage.weights_sha256
    assert len(report["versions"]) == len(live)
    assert loop_stack.live_version() == live_before
    assert len(of(await loop_stack.events(), ModelCallRecorded)) == calls_before
