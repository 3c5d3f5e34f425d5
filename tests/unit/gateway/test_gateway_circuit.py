"""The circuit's states, by example and for any order of calls and outcomes."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leyden.gateway.core.resilience import Circuit, CircuitRules, CircuitState

RULES = CircuitRules(failures=3, pause_s=10.0)


def opened(at: float = 0.0) -> Circuit:
    circuit = Circuit(RULES)
    for _ in range(RULES.failures):
        circuit.failed(circuit.begin(at), at)
    return circuit


def test_it_opens_after_so_many_failures_in_a_row_and_an_answer_starts_the_count_anew() -> None:
    circuit = Circuit(RULES)
    for _ in range(2):
        circuit.failed(circuit.begin(0), 0)
    circuit.succeeded(circuit.begin(0))
    for _ in range(2):
        circuit.failed(circuit.begin(0), 0)
    assert (circuit.state, circuit.opens_in_s(0)) == (CircuitState.CLOSED, 0)
    circuit.failed(circuit.begin(1), 1)
    assert (circuit.state, circuit.opens_in_s(4)) == (CircuitState.OPEN, 7)


def test_after_the_pause_one_call_tries_and_its_outcome_decides() -> None:
    circuit = opened()
    assert circuit.opens_in_s(10) == 0
    probe = circuit.begin(10)
    assert (circuit.state, circuit.opens_in_s(10)) == (CircuitState.HALF_OPEN, 10)
    circuit.failed(probe, 12)
    assert (circuit.state, circuit.opens_in_s(12)) == (CircuitState.OPEN, 10)
    circuit.succeeded(circuit.begin(22))
    assert (circuit.state, circuit.opens_in_s(22)) == (CircuitState.CLOSED, 0)


def test_an_answer_that_comes_late_does_not_close_an_open_circuit() -> None:
    circuit = Circuit(RULES)
    slow = circuit.begin(0)
    for _ in range(3):
        circuit.failed(circuit.begin(1), 1)
    circuit.succeeded(slow)
    assert circuit.state is CircuitState.OPEN


def test_a_failure_from_before_the_pause_says_nothing_about_the_trying_call() -> None:
    circuit = Circuit(RULES)
    slow = circuit.begin(0)
    for _ in range(3):
        circuit.failed(circuit.begin(0), 0)
    probe = circuit.begin(10)
    states = [circuit.state]
    circuit.failed(slow, 11)
    states.append(circuit.state)
    circuit.succeeded(probe)
    assert [*states, circuit.state] == [CircuitState.HALF_OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED]


def test_a_trying_call_that_nobody_waited_for_leaves_the_next_one_to_try() -> None:
    circuit = opened()
    circuit.let_go(circuit.begin(10))
    assert (circuit.state, circuit.opens_in_s(10)) == (CircuitState.OPEN, 0)


def test_a_server_that_says_it_is_up_is_asked_again_and_earlier_failures_are_forgotten() -> None:
    circuit = opened()
    circuit.reset()
    assert (circuit.state, circuit.opens_in_s(0)) == (CircuitState.CLOSED, 0)
    old = circuit.begin(0)
    circuit.failed(old, 0)
    circuit.reset()
    for _ in range(2):
        circuit.failed(circuit.begin(0), 0)
    circuit.failed(old, 0)
    assert circuit.state is CircuitState.CLOSED


def test_answers_that_break_off_open_it_although_each_had_begun() -> None:
    circuit = Circuit(RULES)
    for _ in range(2):
        circuit.broke(circuit.begun(circuit.begin(0)), 0)
    assert circuit.state is CircuitState.CLOSED
    circuit.broke(circuit.begun(circuit.begin(1)), 1)
    assert (circuit.state, circuit.opens_in_s(1)) == (CircuitState.OPEN, 10)


def test_only_a_whole_answer_makes_up_for_a_broken_one_but_a_begun_one_for_none() -> None:
    circuit = Circuit(RULES)
    for _ in range(2):
        circuit.broke(circuit.begun(circuit.begin(0)), 0)
    circuit.succeeded(circuit.begun(circuit.begin(0)))
    for _ in range(2):
        circuit.failed(circuit.begin(0), 0)
    circuit.begun(circuit.begin(0))
    for _ in range(2):
        circuit.failed(circuit.begin(0), 0)
    assert circuit.state is CircuitState.CLOSED
    circuit.broke(circuit.begun(circuit.begin(0)), 0)
    for _ in range(2):
        circuit.failed(circuit.begin(0), 0)
    assert circuit.state is CircuitState.OPEN, "the broken answer still counts"


def test_a_trying_call_lets_others_through_as_soon_as_it_is_answered_and_is_on_probation_until_its_end() -> None:
    circuit = opened()
    probe = circuit.begun(circuit.begin(10))
    assert (circuit.state, circuit.opens_in_s(10)) == (CircuitState.CLOSED, 0)
    circuit.broke(probe, 11)
    assert (circuit.state, circuit.opens_in_s(11)) == (CircuitState.OPEN, 10)
    circuit.succeeded(circuit.begun(circuit.begin(21)))
    circuit.failed(circuit.begin(22), 22)
    assert circuit.state is CircuitState.CLOSED


class AnyCalls(RuleBasedStateMachine):
    """Calls that begin and end in any order, at any time; a call begins only where one may."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit(RULES)
        self.now = 0.0
        self.tickets: list[int] = []

    @rule(seconds=st.floats(0, 25))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.circuit.opens_in_s(self.now) == 0)
    @rule()
    def a_call_begins(self) -> None:
        was_open = self.circuit.state is CircuitState.OPEN
        self.tickets.append(self.circuit.begin(self.now))
        assert self.circuit.state is (CircuitState.HALF_OPEN if was_open else CircuitState.CLOSED)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), how=st.sampled_from(["succeeded", "failed", "broke", "let_go"]))
    def a_call_ends(self, data: st.DataObject, how: str) -> None:
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        arguments = (ticket, self.now) if how in ("failed", "broke") else (ticket,)
        getattr(self.circuit, how)(*arguments)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def an_answer_begins(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.tickets) - 1))
        self.tickets[at] = self.circuit.begun(self.tickets[at])

    @rule()
    def it_reports(self) -> None:
        self.circuit.reset()
        assert self.circuit.opens_in_s(self.now) == 0

    @invariant()
    def nobody_is_shut_out_for_ever(self) -> None:
        half_open = self.circuit.state is CircuitState.HALF_OPEN
        assert not half_open or self.tickets, "a circuit that is trying has a call under way that tries"
        assert 0 <= self.circuit.opens_in_s(self.now) <= RULES.pause_s + 1e-9, "but for rounding"
        assert half_open or self.circuit.opens_in_s(self.now + RULES.pause_s) == 0


AnyCalls.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyCalls = AnyCalls.TestCase
