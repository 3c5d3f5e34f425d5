"""The file of upstreams: what it may say, and how its faults are told."""

from pathlib import Path

import pytest

from leyden.gateway.adapters.upstreams_file import load_upstreams
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.upstreams import Timeouts, Upstreams, passed_on
from leyden.settings import RunFileError

DEFAULTS = Timeouts(5.0, None, 600.0)
GOOD = """
upstreams:
  - name: judge
    models: [judge-1, "judge-large-*"]
    base_url: https://judge.example/v1/
    api_key_env: JUDGE_KEY
    rename: {judge-1: vendor/judge-1-2026}
    headers: {x-team: rl}
    timeouts: {first_byte_s: 20, total_s: 60}
  - name: local
    models: ["*"]
    base_url: http://127.0.0.1:9000/openai
    apis: [chat]
"""


def load(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Upstreams:
    path = tmp_path / "upstreams.yaml"
    path.write_text(text)
    return load_upstreams(path, {"JUDGE_KEY": "sekret"} if environment is None else environment, DEFAULTS)


def test_no_file_is_no_upstream() -> None:
    assert load_upstreams(None, {}, DEFAULTS).find("any") is None


def test_the_first_pattern_that_fits_names_the_server(tmp_path: Path) -> None:
    upstreams = load(tmp_path, GOOD)
    found = {model: upstreams.find(model) for model in ("judge-1", "judge-large-2", "Judge-1", "any/thing")}
    assert {model: each.name for model, each in found.items() if each} == {
        "judge-1": "judge", "judge-large-2": "judge", "Judge-1": "local", "any/thing": "local",
    }  # fmt: skip
    assert upstreams.models() == [("judge-1", "judge")]


def test_a_server_is_asked_under_its_own_names_with_its_key_and_times(tmp_path: Path) -> None:
    judge, local = (load(tmp_path, GOOD).find(model) for model in ("judge-1", "x"))
    assert judge is not None and local is not None
    assert judge.url("/v1/chat/completions") == "https://judge.example/v1/chat/completions"
    assert local.url("/v1/chat/completions") == "http://127.0.0.1:9000/openai/chat/completions"
    assert (judge.model("judge-1"), judge.model("judge-large-2")) == ("vendor/judge-1-2026", "judge-large-2")
    assert judge.headers == {"x-team": "rl", "authorization": "Bearer sekret"}
    assert local.headers == {}
    assert judge.timeouts == Timeouts(5.0, 20.0, 60.0)
    assert "sekret" not in repr(judge)
    with pytest.raises(Refusal, match="does not serve /v1/embeddings"):
        local.url("/v1/embeddings")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("upstreams: [", "cannot be read as YAML"),
        ("- a", "the file"),
        ("servers: []", "servers: Extra inputs"),
        ("upstreams: [{name: a, models: [m]}]", r"upstreams\.0 \(a\)\.base_url: Field required"),
        ("upstreams: [{name: a, models: [m], base_url: 'ftp://x'}]", r"0 \(a\)\.base_url: URL scheme"),
        ("upstreams: [{name: a, models: [], base_url: 'http://x'}]", r"0 \(a\)\.models"),
        ("upstreams: [{name: a/b, models: [m], base_url: 'http://x'}]", r"\.name: String should match"),
        ("upstreams: [{name: a, model: [m], base_url: 'http://x'}]", r"\.model: Extra inputs"),
        ("upstreams: [{name: a, models: [m], base_url: 'http://x', rename: {n: x}}]", "rename: n matches none"),
        ("upstreams: [{name: a, models: [m], base_url: 'http://x', headers: {Authorization: s3}}]", "api_key_env"),
        ("upstreams: [{name: a, models: [m], base_url: 'http://u:s3@x'}]", r"base_url: .*no query, fragment or cred"),
        ("upstreams: [{name: a, models: [m], base_url: 'http://x?k=s3'}]", r"base_url: .*no query, fragment or cred"),
        ('upstreams: [{name: a, models: [m], base_url: "http://x", headers: {x-a: "s3\\nb"}}]', "'x-a' is not a valid"),
        ("upstreams: [{name: a, models: [m], base_url: 'http://x', headers: {x a: s3}}]", "'x a' is not a valid"),
        ("upstreams: [{name: a, models: [m], base_url: 'http://x', apis: [embeddings]}]", "chat is always served"),
        ("upstreams: [{name: a, models: [m], base_url: 'http://x', timeouts: {total_s: 0}}]", r"timeouts\.total_s"),
        ("upstreams: [{name: a, models: [m], base_url: 'http://x', api_key_env: GONE}]", "GONE, which is not set"),
        ("upstreams: [{name: a, models: [m], base_url: 'http://x'}, {name: a, models: [n], base_url: 'http://y'}]",
         "duplicate names: a"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place_and_without_its_value(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RunFileError, match=says) as told:
        load(tmp_path, text, {})
    assert str(told.value).startswith("LEYDEN_GATEWAY_UPSTREAMS")
    assert "s3" not in str(told.value)


def test_a_request_is_passed_on_as_it_is_but_that_a_stream_tells_its_usage() -> None:
    plain = {"model": "m", "messages": [], "top_p": 0.3, "odd": {"x": None}, "none": None}
    assert passed_on(plain).body == plain
    assert passed_on(plain).sampling.top_p == 0.3
    streamed = passed_on({"model": "m", "stream": True, "stream_options": {"odd": 1}})
    assert streamed.body["stream_options"] == {"odd": 1, "include_usage": True}
    assert not streamed.visible.usage_chunk


def test_the_example_of_the_readme_is_a_good_file(tmp_path: Path) -> None:
    readme = Path(__file__).parents[3] / "services/leyden/gateway/README.md"
    (example,) = [block for block in readme.read_text().split("```yaml\n")[1:] if block.startswith("upstreams:")]
    upstreams = load(tmp_path, example.partition("```")[0], {"JUDGE_API_KEY": "k"})
    judge = upstreams.find("judge-1")
    assert judge is not None
    assert (judge.timeouts, judge.model("judge-1")) == (Timeouts(5, 60, 300), "vendor/judge-1-2026")
