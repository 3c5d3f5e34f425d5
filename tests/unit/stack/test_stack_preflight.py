"""A machine that is not ready is refused with one sentence and a remedy each; nothing is started."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from leyden.stack.preflight import GIB, Needs, Problem, ThisMachine, check


@dataclass
class FakeMachine:
    """A machine that is ready unless told otherwise."""

    version: tuple[int, int] = (3, 11)
    kind: tuple[str, str] = ("Linux", "x86_64")
    memory_gib: float = 16.0
    disk_gib: float = 100.0
    taken: frozenset[int] = frozenset()
    network: bool = True
    programs: tuple[str, ...] = ()

    def python(self) -> tuple[int, int]:
        return self.version

    def system(self) -> tuple[str, str]:
        return self.kind

    def free_memory(self) -> int:
        return int(self.memory_gib * GIB)

    def free_disk(self, folder: Path) -> int:
        return int(self.disk_gib * GIB)

    def port_is_free(self, port: int) -> bool:
        return port not in self.taken

    def has_program(self, name: str) -> bool:
        return name in self.programs

    def has_network(self) -> bool:
        return self.network


NEEDS = Needs(folders=(Path("/somewhere"),), ports={"Kafka": 9092, "Redis": 6379}, fetch=("Kafka's jars",))


def test_a_ready_machine_has_no_problem() -> None:
    assert check(NEEDS, FakeMachine()) == []


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (FakeMachine(version=(3, 9)), "needs Python 3.11 or newer; this is 3.9"),
        (FakeMachine(kind=("Darwin", "arm64")), "this machine has Darwin on arm64"),
        (FakeMachine(kind=("Linux", "aarch64")), "this machine has Linux on aarch64"),
        (FakeMachine(memory_gib=2.5), "2.5 GiB are free"),
        (FakeMachine(disk_gib=1), "1.0 GiB are free"),
        (FakeMachine(taken=frozenset({9092})), "Port 9092, for Kafka, is in use"),
        (FakeMachine(network=False), "no network, and Kafka's jars must be downloaded"),
    ],
)
def test_each_lack_is_one_sentence_with_a_remedy(machine: FakeMachine, said: str) -> None:
    (problem,) = check(NEEDS, machine)
    assert said in problem.what
    assert problem.what.endswith(".") and problem.remedy.endswith(".")
    assert len(re.findall(r"\.(\s|$)", problem.what)) == 1


def test_a_wrong_python_is_reported_alone() -> None:
    assert len(check(NEEDS, FakeMachine(version=(3, 8), memory_gib=0, network=False))) == 1


def test_all_lacks_are_reported_together() -> None:
    found = check(NEEDS, FakeMachine(memory_gib=1, disk_gib=1, taken=frozenset({9092, 6379}), network=False))
    assert len(found) == 5


def test_no_network_is_fine_when_nothing_is_fetched() -> None:
    assert check(Needs(fetch=()), FakeMachine(network=False)) == []


def test_this_machine_knows_its_facts(tmp_path: Path) -> None:
    machine = ThisMachine()
    assert machine.python() == sys.version_info[:2]
    assert machine.free_memory() > 0
    assert machine.free_disk(tmp_path / "not" / "there") > 0


def test_a_missing_program_is_named_with_what_it_is_for() -> None:
    needs = Needs(programs={"lscpu": "Install util-linux."})
    assert [str(problem) for problem in check(needs, FakeMachine())] == [
        "The program lscpu is not on PATH. Install util-linux."
    ]
    assert check(needs, FakeMachine(programs=("lscpu",))) == []
    assert ThisMachine().has_program("sh") and not ThisMachine().has_program("no-such-program")


def test_a_problem_reads_as_sentence_and_remedy() -> None:
    assert str(Problem("It is so.", "Do that.")) == "It is so. Do that."
