"""What is wrong with what the user gave is said before anything starts, with the place and what to do."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leyden.client.executors import Command
from leyden.client.named import Named
from leyden.credit.core.section import CreditSection
from leyden.reward.settings import RewardSection
from leyden.settings import load_section
from leyden.stack.config import StackConfig
from leyden.stack.errors import StackError
from leyden.stack.plan import python_env
from leyden.trainer.settings import TrainerSettings
from leyden.training.door import Asked, plan_of
from leyden.training.run_file import mark_started

AGENT = "def agent(claim):\n    return 1.0\n\n\ndef solve():\n    return 1\n\n\nLIMIT = 3\n"
REWARDS = "def score(rollout):\n    return 1.0\n\n\ndef nothing():\n    return 1.0\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's working directory. Names are the test's own: modules stay imported."""
    name = f"of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"agent_{name}.py").write_text(AGENT)
    (tmp_path / f"rewards_{name}.py").write_text(REWARDS)
    (tmp_path / f"needy_{name}.py").write_text("import not_installed_anywhere\n")
    (tmp_path / f"raising_{name}.py").write_text("raise ValueError('no key')\n")
    (tmp_path / "tasks.jsonl").write_text("".join(f'{{"input": {n}}}\n' for n in range(10)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def asked(folder: Path, **changes: Any) -> Asked:
    name = f"of_{folder.name.replace('-', '_')}"
    given_: dict[str, Any] = {
        "agent": f"agent_{name}.py:agent",
        "tasks": "tasks.jsonl",
        "data_dir": folder / "stack",
    } | changes
    given_ = {key: v.replace("NAME", name) if isinstance(v, str) else v for key, v in given_.items()}
    return Asked(**given_)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agent": "nowhere.py:agent"}, r"agent: 'nowhere.py:agent': there is no file /.*/nowhere.py"),
        ({"agent": "nowhere_at_all:agent"}, r"there is no module 'nowhere_at_all' in /.* or on PYTHONPATH"),
        ({"agent": "agent_NAME.py"}, "names no function; write package.module:function or file.py:function"),
        ({"agent": "agent_NAME.py:agnt"}, r"agent_.*\.py has no 'agnt'; its functions: agent, solve"),
        ({"agent": "agent_NAME.py:solve"}, r"solve\(\) cannot be called with \(claim\): .* must take one argument"),
        ({"agent": "agent_NAME.py:LIMIT"}, "is a int, not a function"),
        ({"agent": "needy_NAME.py:agent"}, "needs the module 'not_installed_anywhere', which is not installed"),
        ({"agent": "raising_NAME.py:agent"}, "importing raising_.* failed: ValueError: no key"),
        ({"agent": "my-agent.py:agent"}, "there is no file"),
        ({"agent": lambda: 1}, r"cannot be called with \(claim\)"),
        ({"reward": "rewards_NAME.py:scor"}, r"reward function: .* has no 'scor'; its functions: score, nothing"),
        ({"reward": "rewards_NAME.py:nothing"}, r"nothing\(\) cannot be called with \(rollout\)"),
        ({"reward": "nothing_installed"}, r"'nothing_installed' is not installed \(exact_match is\)"),
        ({"reward": lambda rollout: 1.0}, "it must be importable by another process: put it into a file of its own"),
        ({"tasks": "nowhere.jsonl"}, "No such file: nowhere.jsonl"),
        ({"tasks": "tasks.jsonl", "input_columns": ["question"]}, "tasks.jsonl, line 1 has no column question"),
        ({"tasks": []}, "There are no tasks"),
        ({"tasks": [{"input": 1, "answer": 2}]}, "Task 1 has unknown fields: answer"),
        ({"tasks": [1, object()]}, "Task 2 cannot be written as JSON"),
        ({"tasks": [1], "holdout": 1}, "leave none to train on"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_nothing_is_written(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(StackError, match=message):
        plan_of(asked(folder, **changes))
    assert not (folder / "stack").exists()


def test_a_file_that_cannot_be_a_module_is_refused(folder: Path) -> None:
    (folder / "my-agent.py").write_text(AGENT)
    with pytest.raises(StackError, match=r"my-agent\.py cannot be imported; use only letters, digits and _ in it"):
        plan_of(asked(folder, agent="my-agent.py:agent"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(['{"input": 1}', '{"input": "x", "metadata": {"a": 1}}', "", "  "]), max_size=6),
    st.sampled_from(["{", "[1]", "1", '"text"', '{"inpt": 1}', "null", '{"input": 1', "nonsense"]),
)
def test_the_first_bad_line_is_named_by_its_number(folder: Path, before: list[str], bad: str) -> None:
    (folder / "tasks.jsonl").write_text("\n".join([*before, bad, '{"input": 2}']))
    with pytest.raises(StackError, match=rf"^tasks.jsonl, line {len(before) + 1}[ :]"):
        plan_of(asked(folder))


def valid(path: Path, env: dict[str, str]) -> list[str]:
    """The services take every run file."""
    return []


def test_a_plan_has_a_run_file_that_the_services_take_and_a_path_to_the_reward_function(folder: Path) -> None:
    plan = plan_of(asked(folder, reward="rewards_NAME.py:score", groups=4, learning_rate=1e-3, updates=7))
    file = plan.stack.run_file
    assert file is not None
    [function] = load_section(file, "reward", RewardSection).functions
    assert (function.entry, function.name) == (f"rewards_of_{folder.name.replace('-', '_')}:score", "outcome")
    trainer = load_section(file, "trainer", TrainerSettings)
    assert (trainer.groups_per_step, trainer.learning_rate, trainer.max_staleness) == (4, 1e-3, 0)
    assert load_section(file, "credit", CreditSection).policies == ["policy"]
    assert python_env(plan.stack)["PYTHONPATH"].split(":")[0] == str(folder)
    assert (plan.schedule.updates, plan.schedule.groups_per_step, len(plan.tasks.held_out)) == (7, 4, 2)
    assert plan.agent == Named(f"agent_of_{folder.name.replace('-', '_')}", "agent", folder, Path(str(plan.agent.file)))  # type: ignore[union-attr]


def test_the_users_run_file_is_kept_and_the_reward_function_takes_the_place_of_its_functions(folder: Path) -> None:
    own = {"reward": {"functions": [{"entry": "x:y"}], "grace_s": 5.0}, "credit": {"advantage": "rloo"}}
    (folder / "own.yaml").write_text(yaml.safe_dump(own | {"trainer": {"mode": "full"}}))
    plan = plan_of(asked(folder, run_file=folder / "own.yaml", reward="rewards_NAME.py:score"), valid)
    made = yaml.safe_load(plan.stack.run_file.read_text())  # type: ignore[union-attr]
    assert made["reward"]["grace_s"] == 5.0
    assert [one["name"] for one in made["reward"]["functions"]] == ["outcome"]
    assert made["credit"] == {"advantage": "rloo", "policies": ["policy"]}
    assert made["trainer"]["mode"] == "full"
    (folder / "own.yaml").write_text("rewards: {}\n")
    with pytest.raises(StackError, match=r"own.yaml: expected the sections .*; found \['rewards'\]"):
        plan_of(asked(folder, run_file=folder / "own.yaml"), valid)


def test_the_same_again_goes_on_and_other_settings_need_another_folder(folder: Path) -> None:
    assert plan_of(asked(folder, groups=3)).schedule.groups_per_step == 3, "no training has started yet"
    first = plan_of(asked(folder, updates=2))
    assert first.stack.run_file is not None
    mark_started(first.stack.run_file)
    again = plan_of(asked(folder, updates=9))
    assert first.tasks == again.tasks
    with pytest.raises(StackError, match=r"trainer.groups_per_step was 8, now 3\. Go on with the same settings, or"):
        plan_of(asked(folder, groups=3))


def test_a_program_can_be_the_agent(folder: Path) -> None:
    command = Command(("python", "my agent.py"), "score")
    assert plan_of(asked(folder, agent=command)).agent == command


def test_inputs_alone_are_tasks_and_equal_ones_are_one(folder: Path) -> None:
    plan = plan_of(
        asked(folder, tasks=["3 1 2", {"input": "3 1 2"}, {"input": 7, "metadata": {"answer": 8}}], holdout=0)
    )
    assert [(task["input"], task["metadata"]) for task in plan.tasks.train] == [("3 1 2", {}), (7, {"answer": 8})]
    assert json.dumps(plan.tasks.train)


def test_folders_of_reward_functions_come_before_the_run_files(tmp_path: Path) -> None:
    config = StackConfig(run_file=tmp_path / "run" / "run.yaml", python_path=(tmp_path / "mine",))
    assert python_env(config)["PYTHONPATH"].split(":")[:2] == [str(tmp_path / "mine"), str(tmp_path / "run")]


def test_a_wrong_run_file_is_told_before_anything_is_written(folder: Path) -> None:
    (folder / "own.yaml").write_text("credit:\n  advantage: gpro\n")
    wrong = f"{folder / 'own.yaml'}:2: credit.advantage: 'gpro'"
    with pytest.raises(StackError, match=wrong):
        plan_of(asked(folder, run_file=folder / "own.yaml"), lambda path, env: [f"{path}:2: credit.advantage: 'gpro'"])
    assert not (asked(folder).data_dir / "run").exists()
