"""What follows from checkpoints."""

from leyden.registry.core import decide
from registry_support import checkpoint


def test_a_checkpoint_becomes_a_version_with_its_lineage() -> None:
    saved = checkpoint(2)
    [version] = decide([saved], {}, automatic=True).registered
    assert (version.policy, version.version, version.merged_weights, version.adapter) == ("p", 2, "w/2", "a/2")
    assert version.lineage.parent_version == 1
    assert version.lineage.checkpoint_event == saved.event_id
    assert version.lineage.manifest_event == saved.manifest_id
    assert version.lineage.weights_sha256 == saved.weights_sha256
    assert version.event_time == saved.event_time


def test_a_newer_version_is_promoted() -> None:
    [promoted] = decide([checkpoint(2)], {"p": 1}, automatic=True).promoted
    assert (promoted.policy, promoted.version, promoted.merged_weights) == ("p", 2, "w/2")


def test_an_older_or_equal_version_is_not_promoted() -> None:
    assert decide([checkpoint(1), checkpoint(2)], {"p": 2}, automatic=True).promoted == []


def test_of_a_batch_only_the_newest_is_promoted_in_any_order() -> None:
    for order in ([1, 2, 3], [3, 1, 2], [2, 3, 3]):
        decision = decide([checkpoint(n) for n in order], {}, automatic=True)
        assert [one.version for one in decision.promoted] == [3]
        assert len(decision.registered) == 3


def test_policies_are_promoted_each_on_its_own() -> None:
    decision = decide([checkpoint(1), checkpoint(5, "q")], {"q": 5}, automatic=True)
    assert [(one.policy, one.version) for one in decision.promoted] == [("p", 1)]


def test_manual_promotion_leaves_a_candidate() -> None:
    decision = decide([checkpoint(1)], {}, automatic=False)
    assert (len(decision.registered), decision.promoted) == (1, [])


def test_the_same_checkpoint_gives_the_same_events() -> None:
    assert decide([checkpoint(1)], {}, automatic=True) == decide([checkpoint(1)], {}, automatic=True)
