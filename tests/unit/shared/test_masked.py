"""Placeholders for content that was not exported, and texts that only look like them."""

import pytest

from leyden.events.masked import has_mask, is_masked


@pytest.mark.parametrize(
    "mask",
    ["__REDACTED__", "[REDACTED]", "<elided>", "<not specified>", "<not serializable>", "N/A", "***", "<masked>",
     "[Scrubbed due to 'password']", "REDACTED", "(redacted)", "<LITELLM_REDACTED>", "redacted-by-litellm"],
)  # fmt: skip
def test_what_stands_for_content_is_a_mask(mask: str) -> None:
    assert is_masked(mask)
    assert is_masked(f" {mask}\n")
    assert has_mask([{"city": ["Oslo", mask]}])


@pytest.mark.parametrize(
    "text",
    ["the hidden room", "[1, 2]", "* hidden *x", "na", "(hidden files: 3) more", "**bold**", "", "Elided", "__init__",
     "filtered 3 rows", "<p>hidden</p>", "Oslo", "[REDACTED] and more"],
)  # fmt: skip
def test_a_text_is_not(text: str) -> None:
    assert not has_mask({"a": [text, 1, None, True]})


def test_deep_nesting_ends() -> None:
    nested: list[object] = ["<elided>"]
    for _ in range(5000):
        nested = [nested]
    assert not has_mask(nested)  # type: ignore[arg-type]
