"""The calculator demo's agent against a scripted model server, and that it knows nothing of Leyden."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from calculator import agent, rollout

from roots import ROOT

FOLDER = ROOT / "examples" / "calculator"


class ScriptedModel:
    """An OpenAI-compatible server that says what it is told to, and keeps what it was asked."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                model.asked.append(body)
                model.keys.add(self.headers["authorization"])
                message = {"role": "assistant", "content": model.lines.pop(0)}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                answer = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
                payload = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/rollouts/x/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    scripted = ScriptedModel()
    yield scripted
    scripted.close()


def test_the_agent_calculates_and_answers(model: ScriptedModel) -> None:
    model.lines = ["CALC(23+45)", "ANSWER: 68"]
    assert agent.solve("Tom has …", model.base_url, "lrk-1", "policy") == "ANSWER: 68"
    first, second = (asked["messages"] for asked in model.asked)
    assert first == [*agent.PROMPT, {"role": "user", "content": "Tom has …"}]
    assert second == [
        *first,
        {"role": "assistant", "content": "CALC(23+45)"},
        {"role": "user", "content": "RESULT: 68"},
    ]
    assert {(asked["model"], asked["temperature"]) for asked in model.asked} == {("policy", 1.0)}
    assert not {"stop", "top_p", "top_k"} & set(model.asked[0])
    assert model.keys == {"Bearer lrk-1"}


@pytest.mark.parametrize(
    "line", ["I do not know.", "CALC(apples)", "CALC(4/2)", "ANSWER: 5", "CALC(1+1) ANSWER: 2", ""]
)
def test_a_line_that_is_no_valid_tool_call_ends_the_conversation(model: ScriptedModel, line: str) -> None:
    model.lines = [line]
    assert agent.solve("?", model.base_url, "k", "policy") == line
    assert len(model.asked) == 1


def test_the_agent_takes_three_turns_at_most(model: ScriptedModel) -> None:
    model.lines = ["CALC(1+1)"] * 5
    agent.solve("?", model.base_url, "k", "policy")
    assert len(model.asked) == 3


def test_a_model_that_cannot_be_reached_is_the_openai_clients_error(model: ScriptedModel) -> None:
    with pytest.raises(openai.APIError):
        agent.solve("?", "http://127.0.0.1:1/v1", "k", "policy", max_retries=0)


def test_the_binding_unpacks_the_claim(model: ScriptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_MODEL", "policy-x")
    model.lines = ["ANSWER: 3"]
    claim = SimpleNamespace(input={"question": "1+2?"}, base_url=model.base_url, api_key="k")
    assert rollout.run(claim) == {"answer": "ANSWER: 3"}
    assert model.asked[0]["model"] == "policy-x"


def test_the_agent_neither_names_nor_loads_leyden() -> None:
    for name in ("agent.py", "tool.py"):
        assert "leyden" not in (FOLDER / "calculator" / name).read_text().lower()
    program = "import sys, calculator.agent; print([name for name in sys.modules if name.startswith('leyden')])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert done.stdout.strip() == "[]"
