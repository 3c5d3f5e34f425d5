"""The graders that run what the answer says, SQL or Python, made to break in every way that there is."""

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from leyden.events import Json, JsonObject
from leyden.reward.functions import RolloutView, TaskView
from leyden.reward.graders import GRADERS, BrokenReferenceError
from leyden.reward.graders.confined.confinement import LANDLOCK_CREATE, LIBC
from unit.reward.reward_builders import ROLLOUT

SCHEMA = """
CREATE TABLE city (name TEXT, people INTEGER, area REAL);
INSERT INTO city VALUES ('Leiden', 127, 23.27), ('Delft', 106, 24.06), ('Gouda', 75, 18.11);
"""
SQL: JsonObject = {"schema": SCHEMA, "sql": "SELECT name, people FROM city WHERE people > 100"}
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
ADD = "def add(a, b):\n    return a + b\n"
TESTS = "def test_small():\n    assert add(1, 2) == 3\n\ndef test_big():\n    assert add(10**9, 1) == 10**9 + 1\n"


def graded(grader: str, output: Json, metadata: JsonObject, **parameters: Any) -> Any:
    view = RolloutView(ROLLOUT, 0, TaskView(metadata=metadata), (), (), output, "succeeded", None)
    return GRADERS[grader].model_validate(parameters)(view)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select name, people from city where people >= 106", 1.0),
        ("Here it is:\n```sql\nSELECT name, people * 1.0 FROM city WHERE area > 20;\n```", 1.0),
        ("SELECT name, people FROM city WHERE people > 100 ORDER BY people", 1.0),
        ("SELECT people, name FROM city WHERE people > 100", 0.0),
        ("SELECT name, people FROM city WHERE people > 100 UNION ALL SELECT 'Delft', 106", 0.0),
        ("SELECT name, people FROM city", 0.0),
        ("SELEKT", 0.0),
        ("", 0.0),
        ("SELECT 1; SELECT 2", 0.0),
        ("SELECT name FROM nowhere", 0.0),
        ("a\x00b", 0.0),
        ("\ud800", 0.0),
        (None, 0.0),
        (["SELECT 1"], 0.0),
    ],
)
def test_the_same_rows_are_the_right_answer(query: Json, expected: float) -> None:
    assert graded("sql_result", query, SQL) == expected


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM city",
        "INSERT INTO city VALUES ('X', 1, 1)",
        "CREATE TABLE x (y)",
        "DROP TABLE city",
        "ATTACH 'other.db' AS other",
        "VACUUM INTO 'copy.db'",
        "PRAGMA writable_schema = ON",
        "PRAGMA query_only = OFF",
        "SELECT load_extension('evil')",
        "SELECT random()",
        "SELECT name, people FROM city WHERE people > 100 AND length(randomblob(1000000000)) > 0",
        "SELECT zeroblob(1000000000)",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x, x FROM n",
    ],
)
def test_a_query_that_writes_or_takes_too_much_is_wrong(
    query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert graded("sql_result", query, SQL) == 0.0
    assert list(tmp_path.iterdir()) == []


def test_an_endless_query_ends_after_its_steps_and_not_after_a_time() -> None:
    began = time.monotonic()
    assert graded("sql_result", ENDLESS, SQL, max_steps=1_000_000) == 0.0
    assert time.monotonic() - began < 5.0
    assert graded("sql_result", ENDLESS.replace("FROM n)", "FROM n LIMIT 9)"), SQL | {"sql": "SELECT 9"}) == 1.0


def test_order_counts_where_the_reference_orders() -> None:
    ordered = SQL | {"sql": "SELECT name FROM city ORDER BY people"}
    assert graded("sql_result", "SELECT name FROM city ORDER BY people", ordered) == 1.0
    assert graded("sql_result", "SELECT name FROM city ORDER BY name DESC", ordered) == 0.0
    assert graded("sql_result", "SELECT name FROM city ORDER BY name DESC", ordered, order="multiset") == 1.0
    inside = SQL | {"sql": "SELECT name FROM (SELECT name FROM city ORDER BY people)"}
    assert graded("sql_result", "SELECT name FROM city ORDER BY name DESC", inside) == 1.0


@pytest.mark.parametrize(
    "metadata",
    [
        {"sql": "SELECT 1"},
        {"sql": "SELECT 1", "schema": "CREATE TABEL"},
        {"sql": "SELEKT", "schema": SCHEMA},
        {"sql": "DELETE FROM city", "schema": SCHEMA},
        {"sql": "SELECT 1", "schema": "ATTACH 'evil.db' AS evil"},
        {"sql": "SELECT 1", "database": "cities.db"},
    ],
)
def test_a_task_that_is_broken_is_the_graders_failure(metadata: JsonObject) -> None:
    with pytest.raises(BrokenReferenceError):
        graded("sql_result", "SELECT 1", metadata)


def test_a_database_file_is_read_and_never_written(tmp_path: Path) -> None:
    folder = tmp_path / "databases"
    folder.mkdir()
    for file in (folder / "cities.db", tmp_path / "outside.db"):
        with sqlite3.connect(file) as connection:
            connection.executescript(SCHEMA)
        connection.close()
    before = (folder / "cities.db").read_bytes()
    metadata: JsonObject = {"database": "cities.db", "sql": "SELECT count(*) FROM city"}
    assert graded("sql_result", "SELECT 3", metadata, folder=str(folder)) == 1.0
    assert graded("sql_result", "DELETE FROM city", metadata, folder=str(folder)) == 0.0
    assert (folder / "cities.db").read_bytes() == before
    assert [file.name for file in folder.iterdir()] == ["cities.db"]
    for name in ("../outside.db", str(tmp_path / "outside.db"), "missing.db"):
        with pytest.raises(BrokenReferenceError):
            graded("sql_result", "SELECT 3", metadata | {"database": name}, folder=str(folder))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (ADD, 1.0),
        (f"Sure!\n```python\n{ADD}```\nDone.", 1.0),
        ("def add(a, b):\n    return 3", 0.5),
        ("def add(a, b)", 0.0),
        ("raise ValueError", 0.0),
        ("", 0.0),
        (None, 0.0),
        ("import os\nos._exit(0)", 0.0),
        ("import sys\nsys.exit(0)", 0.0),
        ("def add(a, b):\n    import os; os._exit(0)", 0.0),
        ("print('passed')\ndef add(a, b):\n    return 0", 0.0),
        ("def add(a, b):\n    return add(a, b)", 0.0),
        ("def add(a, b):\n    return len(bytearray(4 << 30))", 0.0),
    ],
)
def test_the_share_of_passing_tests_is_the_reward(code: Json, expected: float) -> None:
    assert graded("unit_tests", code, {"tests": TESTS}) == expected


def test_all_or_nothing() -> None:
    assert graded("unit_tests", "def add(a, b):\n    return 3", {"tests": TESTS}, reward="all") == 0.0
    assert graded("unit_tests", ADD, {"tests": TESTS}, reward="all") == 1.0


@pytest.mark.parametrize(
    "tests",
    [
        ["assert add(1, 2) == 3", "assert add(2, 2) == 4"],
        "assert add(1, 2) == 3",
        "def check(candidate):\n    assert candidate(1, 2) == 3",
    ],
)
def test_tests_come_in_the_forms_of_the_known_data_sets(tests: Json) -> None:
    metadata: JsonObject = {"tests": tests, "entry_point": "add"}
    assert graded("unit_tests", ADD, metadata) == 1.0
    assert graded("unit_tests", "def add(a, b):\n    return a - b", metadata) == 0.0


@pytest.mark.parametrize("tests", ["def test_x(:", [], [1], "", {"a": 1}, ["def ("], "def check(candidate):\n    pass"])
def test_tests_that_are_no_tests_are_the_graders_failure(tests: Json) -> None:
    with pytest.raises(BrokenReferenceError):
        graded("unit_tests", ADD, {"tests": tests})


@pytest.mark.parametrize("code", ["while True: pass", "import time\ntime.sleep(1000)"])
def test_endless_code_passes_nothing_and_is_ended(code: str) -> None:
    began = time.monotonic()
    assert graded("unit_tests", code, {"tests": ["1", "2", "3", "4"]}, case_s=1, time_s=3) == 0.0
    assert time.monotonic() - began < 10.0


MARK = "leyden-test-left-behind"


def left_behind() -> list[str]:
    """Other processes that carry the mark in their command line; pytest's workers name their test in theirs."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and int(folder.name) != os.getpid() and MARK in (folder / "cmdline").read_text():
                found.append(folder.name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import os\nwhile True: os.fork()",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)",
        f"import subprocess\nsubprocess.Popen(['sleep', '1000', '{MARK}'])",
        f"import os\nif os.fork() == 0:\n    os.setsid()\n    os.execvp('sh', ['sh', '-c', 'sleep 1000 # {MARK}'])",
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
        "import socket\nsocket.create_connection(('127.0.0.1', 9))",
    ],
)
def test_code_starts_no_process_signals_nobody_and_opens_no_socket(code: str) -> None:
    """Forbidden where there is seccomp: the code ends with an error. Without it, what is left running is killed."""
    graded("unit_tests", code, {"tests": ["1"]}, case_s=1, time_s=2)
    assert graded("unit_tests", ADD, {"tests": TESTS}) == 1.0
    assert left_behind() == []


def test_code_writes_in_its_own_folder_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    inside = "open('x', 'w').write('1')\nimport tempfile\ntempfile.TemporaryFile().write(b'1')"
    assert graded("unit_tests", inside, {"tests": ["assert open('x').read() == '1'"]}) == 1.0
    huge = "open('x', 'w').write('1' * 10**9)"
    assert graded("unit_tests", huge, {"tests": ["1"]}) == 0.0
    assert list(tmp_path.iterdir()) == []


def test_code_sees_nothing_of_the_services_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_SECRET", "hunter2")
    code = "import os, sys\nnames = [*os.environ.values(), *sys.path]"
    tests = ["assert not any('hunter2' in name for name in names)", "import leyden", "import pydantic"]
    assert graded("unit_tests", code, {"tests": tests}) == pytest.approx(1 / 3)


@pytest.mark.skipif(LIBC.syscall(LANDLOCK_CREATE, None, 0, 1) < 1, reason="this kernel has no Landlock")
def test_code_writes_nowhere_else(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    for code in (f"open({str(target)!r}, 'w')", f"import os\nos.remove({str(target)!r})"):
        assert graded("unit_tests", code, {"tests": ["1"]}) == 0.0
    assert target.read_text() == "kept"


def test_the_same_answer_gets_the_same_reward() -> None:
    code = "def add(a, b):\n    return a + b if sorted({'a', 'b', 'c'}) and hash('x') == h else 0\nh = hash('x')"
    assert {graded("unit_tests", code, {"tests": TESTS}) for _ in range(3)} == {1.0}
    assert len({graded("unit_tests", "x = hash('x') % 97", {"tests": [f"assert x < {n}"]}) for n in (48, 48, 48)}) == 1
