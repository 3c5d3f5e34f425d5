"""The documentation's commands, each in the words of its page, in one shell per page, in the order of reading.

Against one local stack with a tiny model. What differs from the page stands in `ADDED` (options) and `replaced` (ports,
keys and ids that the page cannot know).
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from documented_commands import ELSEWHERE, READING_ORDER, commands
from leyden.stack import daemon
from roots import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ADDED = {"./leyden up": "--model tiny --engine transformers --auto-ports"}
"""Options after a command's own: a model that needs no download, and ports that are free."""
UNTIL_CTRL_C = {"leyden watch"}
"""Commands that a reader ends."""
FIRST_LINE_S = 60
"""How long a reader waits for the first line of one of them."""
AGENT = """
import json, os, sys
import openai
client = openai.OpenAI()
reply = client.chat.completions.create(
    model="policy", max_tokens=4, messages=[{"role": "user", "content": os.environ.get("LEYDEN_TASK_INPUT") or "Hello"}]
)
assert os.environ["LEYDEN_ROLLOUT_ID"]
print(json.dumps({"score": 1.0, "arguments": sys.argv[1:], "text": reply.choices[0].message.content}))
"""
CALL = """
import openai
openai.OpenAI().chat.completions.create(model="policy", max_tokens=2, messages=[{"role": "user", "content": "Hi"}])
"""
ROWS = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(3)]


@dataclass
class Reader:
    """Somebody in a clone who types what the pages say. `exports` of one page hold until its end, as in a shell."""

    folder: Path
    environment: dict[str, str]
    replaced: dict[str, str] = field(default_factory=dict)
    exports: list[str] = field(default_factory=list)
    typed: list[str] = field(default_factory=list)

    def type(self, command: str, status: int = 0) -> str:
        """Run a command in the words of its page; its output. An export is kept for the commands after it."""
        line = f"{command} {ADDED.get(command, '')}".strip()
        for old, new in self.replaced.items():
            line = line.replace(old, new)
        script = "\n".join(["set -eu", *self.exports, line])
        is_ended = command in UNTIL_CTRL_C
        shell = subprocess.Popen(
            ["bash", "-c", script], cwd=self.folder, env=self.environment, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            first = first_line(shell) if is_ended else ""
            if is_ended:
                os.killpg(shell.pid, signal.SIGINT)  # as a terminal's Ctrl-C
            out, err = shell.communicate(timeout=60 if is_ended else 400)
        finally:
            if is_ended or shell.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)
        out = first + out
        expected = 130 if is_ended else status
        assert shell.returncode == expected, f"{command}\n→ {line}\n{out[-3000:]}\n{err[-3000:]}"
        assert first.strip() or not is_ended, f"{command} printed nothing in {FIRST_LINE_S} s\n{err[-3000:]}"
        if command.startswith(("export ", ". ")):
            self.exports.append(line)
        self.typed.append(command)
        return out


def first_line(shell: "subprocess.Popen[str]") -> str:
    """The output until its first line is complete; less if it ends, or after `FIRST_LINE_S`."""
    assert shell.stdout is not None
    descriptor, read, deadline = shell.stdout.fileno(), b"", time.monotonic() + FIRST_LINE_S
    while b"\n" not in read and select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not (more := os.read(descriptor, 65_536)):
            break
        read += more
    return read.decode(errors="replace")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A clone's root as far as the pages need it, in a shell without settings of ours."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("leyden", ".venv", "examples", "schemas"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / ".pre-commit-config.yaml", folder)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    (folder / "my_agent.py").write_text(AGENT)
    (folder / "agent").write_text(f"#!{ROOT / '.venv/bin/python'}\n{AGENT}")
    (folder / "agent").chmod(0o755)
    (folder / "call.py").write_text(CALL)
    (folder / "failing.py").write_text("raise TimeoutError('search took 3 s')\n")
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "gsm8k.parquet")
    lines = (json.dumps({"input": row["question"], "metadata": {"answer": row["answer"]}}) for row in ROWS)
    (folder / "tasks.jsonl").write_text("".join(f"{line}\n" for line in lines))
    ours = ("KAFKA_", "REDIS_", "LEYDEN_", "OPENAI_", "OTEL_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["COLUMNS"] = "200"
    environment["PATH"] = f"{ROOT / '.venv/bin'}:{environment['PATH']}"
    yield Reader(folder, environment)
    daemon.down(folder / ".leyden/stack")


def page(reader: Reader, name: str) -> Iterator[str]:
    """The commands of a page that are run here."""
    reader.exports.clear()
    return (command for command in commands(ROOT / name) if command not in ELSEWHERE)


def test_a_reader_can_type_every_command_of_the_documentation(reader: Reader) -> None:
    for command in page(reader, "README.md"):
        printed = reader.type(command)
        if command == "./leyden up":
            [url] = re.findall(r"OPENAI_BASE_URL=(http://\S+)/v1", printed.replace("\n", ""))
            key = json.loads((reader.folder / ".leyden/stack/secrets.json").read_text())["api_key"]
            reader.replaced |= {"http://127.0.0.1:8080": url, "$GATEWAY": url, "lk-…": key, "=…": f"={key}"}
    reader.type("python call.py")

    for command in page(reader, "docs/connect.md"):
        printed = reader.type(command)
        if command.startswith("leyden keys create"):
            made = re.search(r"\b[0-9a-f]{12}\b", printed)
            assert made, printed
            reader.replaced["3f9a0c51d2e4"] = made[0]

    for command in page(reader, "docs/commands.md"):
        printed = reader.type(command)
        if "--dry-run" in command:
            assert "0 + 0?" in printed

    for command in page(reader, "docs/client.md"):
        printed = reader.type(command)
        if command.startswith("leyden run"):
            assert '"score": 1.0' in printed

    reader.type("leyden run -- python failing.py", status=1)
    for command in page(reader, "docs/errors.md"):
        printed = reader.type(command)
        if "--since" in command:
            group = re.search(r"(?<![0-9a-f])[0-9a-f]{8}(?![0-9a-f])", printed)
            assert group, printed
            reader.replaced["5d0c1f9e"] = group[0]

    for command in page(reader, "CONTRIBUTING.md"):
        reader.type(command)
    assert (reader.folder / ".git/hooks/pre-push").exists()

    documented = [c for name in READING_ORDER for c in commands(ROOT / name) if c not in ELSEWHERE]
    assert [command for command in reader.typed if command in documented] == documented
