"""The shell commands of the documentation in reading order, and which of them other tests or CI run."""

import re
from dataclasses import dataclass
from pathlib import Path

from roots import ROOT

READING_ORDER = (
    "README.md",
    "docs/connect.md",
    "docs/commands.md",
    "docs/client.md",
    "docs/errors.md",
    "CONTRIBUTING.md",
)
"""As the links of the README lead. Every document with shell commands must be here."""
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELLS = {"sh", "bash", "shell", "console", ""}


@dataclass(frozen=True)
class Elsewhere:
    """A command that the documentation test does not run itself."""

    why: str
    file: str
    """The test or CI step that runs it, and a text in it that shows so."""
    shown_by: str


ELSEWHERE = {
    "make demo": Elsewhere("minutes of training on an idle machine", ".ci/run", "bare make demo"),
    "make test": Elsewhere("it would run this very test", ".ci/run", "bare make test"),
    "make setup": Elsewhere(
        "it makes the environment that this test runs in; every target below depends on it", ".ci/run", "bare make"
    ),
    "./leyden train my_agent.py:agent --tasks tasks.jsonl --reward my_rewards.py:score --updates 20": Elsewhere(
        "twenty updates; the test trains an agent of its own with two", "tests/integration/test_train.py",
        '"train", "tiny_agent.py:agent", "--tasks", "tasks.jsonl", "--reward", "tiny_rewards.py:score"',
    ),
    "leyden train my_agent.py:agent --tasks tasks.jsonl --reward my_rewards.py:score --updates 20": Elsewhere(
        "as above", "tests/integration/test_train.py",
        '"train", "tiny_agent.py:agent", "--tasks", "tasks.jsonl", "--reward", "tiny_rewards.py:score"',
    ),
    "./leyden replay --name again": Elsewhere(
        "it reads the topics of a whole demo", ".ci/run", "bare ./leyden replay --name again"
    ),
    "./leyden replay --name shaped --settings examples/calculator/shaped.yaml": Elsewhere(
        "as above; the e2e loop calls the same code with another reward", "tests/e2e/test_loop.py", "inverted.yaml"
    ),
    "leyden enqueue hf:openai/gsm8k --config main --split test --input-column question --metadata-columns answer"
    " --mode validation": Elsewhere(
        "it streams a data set from the internet; the test has one on disk in the same form",
        "tests/service/cli/test_enqueue_data_sets.py", "hf:",
    ),
    'leyden run --model policy -- claude -p "Fix the failing test" --allowedTools Bash,Edit,Read': Elsewhere(
        "its prompt is longer than the context of the small model; the test runs it on a scripted engine",
        "tests/frameworks/test_coding_agents.py", "test_claude_code_is_a_rollout",
    ),
    'leyden run -- codex exec --skip-git-repo-check --sandbox workspace-write "Fix the failing test"': Elsewhere(
        "as above", "tests/frameworks/test_coding_agents.py", "test_codex_is_a_rollout",
    ),
}  # fmt: skip
"""Each entry is checked: the command is in a document, and the file shows that it is run there."""


def commands(document: Path) -> list[str]:
    """The commands of a document's shell blocks in order, without comments; of a console block what follows `$`."""
    found = []
    for language, block in FENCE.findall(document.read_text()):
        if language not in SHELLS:
            continue
        lines = block.replace("\\\n", " ").splitlines()
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        found += [stripped for line in lines if (stripped := re.sub(r"(^|\s+)#.*", "", line).strip())]
    return found


def documents() -> list[str]:
    """Every document for readers that has shell commands."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("services/leyden/*/README.md")]
    found += [*ROOT.glob("examples/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in found if commands(path))
