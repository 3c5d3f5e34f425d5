from hypothesis import given
from hypothesis import strategies as st

from leyden.policy.engines.transformers_engine.text import TextStream


class ByteTokenizer:
    """Every byte a token."""

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return bytes(ids).decode("utf-8", "replace")


def run(text: str, stops: list[str]) -> tuple[list[str], str, bool]:
    stream, shown = TextStream(ByteTokenizer(), stops), []
    for byte in text.encode():
        shown.append(stream.push(byte))
        if stream.stopped:
            break
    return shown, "".join(shown) + stream.flush(), stream.stopped


@given(st.text())
def test_what_is_shown_is_the_text(text: str) -> None:
    assert run(text, [])[1] == text


@given(st.text(alphabet="abc"), st.lists(st.text(alphabet="abc", min_size=1, max_size=3), max_size=3))
def test_text_ends_before_its_first_stop_string(text: str, stops: list[str]) -> None:
    shown, whole, stopped = run(text, stops)
    cuts = [cut for cut in range(len(text) + 1) if any(text[:cut].endswith(stop) for stop in stops)]
    if not cuts:
        assert not stopped
        assert whole == text
    else:
        assert stopped
        end = cuts[0]
        assert whole == text[: min(end - len(stop) for stop in stops if text[:end].endswith(stop))]
    assert whole.startswith("".join(shown))


def test_a_character_of_several_tokens_is_shown_when_it_is_whole() -> None:
    shown, whole, _ = run("a€b", [])
    assert shown == ["a", "", "", "€", "b"]
    assert whole == "a€b"


def test_half_a_character_at_the_end_is_not_lost() -> None:
    stream = TextStream(ByteTokenizer())
    assert stream.push(0xE2) == ""
    assert stream.flush() == "�"
