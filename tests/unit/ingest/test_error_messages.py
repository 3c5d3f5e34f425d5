"""Error messages of spans: a stack that an exporter of Node appended goes, every other line stays."""

from hypothesis import given
from hypothesis import strategies as st

from unit.ingest.test_real_traffic import one

FRAMES = st.lists(
    st.sampled_from(
        [
            "at tool (agent.mjs:17:36)",
            "at Object.execute [as run] (/home/me/my agent/agent.mjs:18:36)",
            "at async file:///srv/agent.mjs:2465:24",
            "at async Promise.all (index 0)",
            "at executeTool.next (<anonymous>)",
            "at Array.map (native)",
            "at AsyncLocalStorage.run (node:internal/async_local_storage/async_context_frame:63:14)",
            "at eval (eval at run (agent.js:1:2), <anonymous>:1:7)",
        ]
    ),
    min_size=1,
    max_size=5,
).map(lambda frames: "".join(f"\n    {frame}" for frame in frames))
SAID = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)
NO_FRAME = st.one_of(
    SAID.map(lambda text: f"at host {text} after 3 tries, reason: certificate expired"),
    st.sampled_from(
        ["at host db1 (10.0.0.1:5432)", "at 12:30:45", "at 2026-01-01T12:30:45", "at (index 0) of the list", "at b:7"]
    ),
)


@given(said=SAID, frames=FRAMES, end=st.sampled_from(["", "\n"]))
def test_a_stack_of_node_in_an_error_message_goes(said: str, frames: str, end: str) -> None:
    stack = f"Error: {said}{frames}{end}"
    for message in (f"{said}\n\n{stack}", said):
        assert one({}, error=message).error_message == said
    assert one({}, error=stack).error_message == f"Error: {said}"


@given(said=SAID, frames=st.one_of(st.just(""), FRAMES), line=NO_FRAME)
def test_lines_of_an_error_message_that_are_no_stack_of_node_stay(said: str, frames: str, line: str) -> None:
    message = f"{said}{frames}\n    {line}"
    assert one({}, error=message).error_message == message
    assert one({}, error=f"{message}\n    at tool (agent.mjs:17:36)").error_message == message
