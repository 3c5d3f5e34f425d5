"""The claim store: content has its own name, a claim of elsewhere or with other content is refused."""

from pathlib import Path

import pytest

from leyden.kafka.claims import ClaimStore


def test_a_value_comes_back_and_is_stored_once(tmp_path: Path) -> None:
    store = ClaimStore(f"file://{tmp_path}/claims")
    claims = {store.put(b"big"), store.put(b"big")}
    assert [store.get(claim) for claim in claims] == [b"big"]
    assert len(list((tmp_path / "claims").iterdir())) == 1


def test_a_claim_of_another_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"not yours")
    store = ClaimStore(f"file://{tmp_path}/claims")
    for url in (f"file://{tmp_path}/secret", f"file://{tmp_path}/claims/../secret", "http://127.0.0.1/x"):
        with pytest.raises((ValueError, FileNotFoundError)):
            store.get(url)


def test_content_that_was_changed_is_noticed(tmp_path: Path) -> None:
    store = ClaimStore(f"file://{tmp_path}/claims")
    claim = store.put(b"big")
    Path(claim.removeprefix("file://")).write_bytes(b"bad")
    with pytest.raises(ValueError, match="does not match its hash"):
        store.get(claim)
