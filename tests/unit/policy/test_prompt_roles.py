"""No message vanishes from a prompt: what a chat template does not write is converted or refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_support import TEMPLATE, byte_tokenizer
from leyden.policy.engines.transformers_engine.prompts import PromptError, render
from leyden.policy.engines.transformers_engine.protocol import Conversation

pytest.importorskip("transformers")
ROLES = ("system", "developer", "user", "assistant", "tool", "function", "critic")


def template_of(roles: tuple[str, ...], otherwise: str = "") -> str:
    """A template that writes the messages of `roles`, and does `otherwise` for others."""
    return (
        f"{{% for m in messages %}}{{% if m.role in {list(roles)} %}}[{{{{ m.role }}}}]{{{{ m.content | trim }}}}"
        f"{{% else %}}{otherwise}{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}[assistant]{{% endif %}}"
    )


def prompt(template: str, messages: list[dict[str, Any]]) -> str:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return str(tokenizer.decode(render(tokenizer, Conversation.model_validate({"messages": messages}))))


KNOWS_TWO = template_of(("system", "user"))
ASKED = [{"role": "developer", "content": "Be brief"}, {"role": "user", "content": "hi"}]


@pytest.mark.parametrize("otherwise", ["", "{{ raise_exception('unknown role') }}"], ids=["drops", "raises"])
def test_a_developers_message_is_a_system_message_where_the_template_knows_no_other(otherwise: str) -> None:
    assert prompt(template_of(("system", "user"), otherwise), ASKED) == "[system]Be brief[user]hi[assistant]"


def test_a_template_that_knows_developers_gets_them() -> None:
    assert prompt(TEMPLATE, ASKED).startswith("<|im_start|>developer\nBe brief<|im_end|>")


@pytest.mark.parametrize("role", ["tool", "function", "assistant", "critic"])
def test_a_message_that_the_template_drops_is_refused(role: str) -> None:
    with pytest.raises(PromptError, match=f"drops messages of role {role}"):
        prompt(KNOWS_TWO, [*ASKED, {"role": role, "content": "42"}])


@given(
    known=st.sets(st.sampled_from(ROLES)),
    messages=st.lists(
        st.tuples(st.sampled_from(ROLES), st.sampled_from(["a", "hi", "[user]", "  ", "", "{{ 1 }}", "x" * 30])),
        min_size=1,
        max_size=5,
    ),
)
def test_every_text_is_in_the_prompt_in_its_order_or_the_request_is_refused(
    known: set[str], messages: list[tuple[str, str]]
) -> None:
    asked = [{"role": role, "content": text and f"{text}{at}"} for at, (role, text) in enumerate(messages)]
    shown = {role: role if role in known or role != "developer" else "system" for role in ROLES}
    vanishing = [one for one in asked if one["content"] and shown[one["role"]] not in known]
    try:
        text = prompt(template_of(tuple(sorted(known))), asked)
    except PromptError:
        assert vanishing
        return
    assert not vanishing
    written = [f"[{shown[one['role']]}]{one['content'].strip()}" for one in asked if one["content"]]
    places = [text.index(one) for one in written]
    assert places == sorted(places)


def test_the_text_beside_a_tool_call_may_be_left_out_as_common_templates_do() -> None:
    template = "{% for m in messages %}{% if m.tool_calls %}CALLS{% else %}{{ m.content }}{% endif %}{% endfor %}"
    called = {"type": "function", "id": "c", "function": {"name": "add", "arguments": "{}"}}
    said = {"role": "assistant", "content": "So.", "tool_calls": [called]}
    assert prompt(template, [{"role": "user", "content": "hi"}, said]) == "hiCALLS"
