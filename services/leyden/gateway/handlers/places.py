"""What this gateway knows about the servers it asks: calls in flight at each, and each one's circuit."""

from collections import Counter
from collections.abc import Callable, Mapping

from leyden.gateway.core.resilience import Circuit, CircuitRules, CircuitState
from leyden.gateway.metrics import CIRCUIT_OPENED, CIRCUIT_STATE

STATES = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 0.5, CircuitState.OPEN: 1}


class Visit:
    """One call at one server: counted until `leave`, which twice does no harm. Before it comes what became of it.

    That is `answered` or `failed`, or `begun` and then, where the answer's end is seen, `ended`.
    """

    def __init__(self, places: "Places", place: str, ticket: int) -> None:
        self._places = places
        self._place = place
        self._ticket = ticket
        self._told = self._left = self._answering = False

    def answered(self) -> None:
        """The server is up, whatever it said."""
        self._told = True
        self._places.tell(self._place, lambda circuit, _: circuit.succeeded(self._ticket))

    def begun(self) -> None:
        """The server has begun to answer."""
        self._told = self._answering = True
        self._places.tell(self._place, self._begun)

    def _begun(self, circuit: Circuit, _: float) -> None:
        self._ticket = circuit.begun(self._ticket)

    def ended(self, whole: bool) -> None:
        """The answer that had begun came to its end, or broke off; nothing where none had begun."""
        if not self._answering:
            return
        self._answering = False
        if whole:
            self.answered()
        else:
            self._places.tell(self._place, lambda circuit, now: circuit.broke(self._ticket, now))

    def failed(self) -> None:
        """The server is down, or cannot do its work."""
        self._told = True
        self._places.tell(self._place, lambda circuit, now: circuit.failed(self._ticket, now))

    def leave(self) -> None:
        """The call is over, or nobody waits for it any more."""
        if not self._left:
            self._left = True
            self._places.left(self._place)
            if not self._told:
                self._places.tell(self._place, lambda circuit, _: circuit.let_go(self._ticket))


class Places:
    """All servers by name: `<policy>/<replica>` or an upstream's. One that was never asked is up and idle."""

    def __init__(self, rules: CircuitRules, now: Callable[[], float]) -> None:
        self._rules = rules
        self._now = now
        self._circuits: dict[str, Circuit] = {}
        self._load: Counter[str] = Counter()

    @property
    def load(self) -> Mapping[str, int]:
        """Calls in flight by place."""
        return self._load

    def opens_in_s(self, place: str) -> float:
        """Seconds until a place may be asked; 0 when it may now."""
        circuit = self._circuits.get(place)
        return circuit.opens_in_s(self._now()) if circuit else 0.0

    def enter(self, place: str) -> Visit:
        """A call goes to a place that may be asked."""
        circuit = self._circuits.get(place)
        if circuit is None:
            circuit = self._circuits[place] = Circuit(self._rules)
            _show(place, circuit)
        self._load[place] += 1
        before = circuit.state
        visit = Visit(self, place, circuit.begin(self._now()))
        if circuit.state is not before:
            _show(place, circuit)
        return visit

    def reported(self, place: str) -> None:
        """A place says itself that it answers."""
        if place in self._circuits:
            self.tell(place, lambda circuit, _: circuit.reset())

    def left(self, place: str) -> None:
        """One call fewer in flight."""
        self._load[place] -= 1
        if not self._load[place]:
            del self._load[place]

    def tell(self, place: str, outcome: Callable[[Circuit, float], None]) -> None:
        """Tell a place's circuit what became of a call."""
        circuit = self._circuits[place]
        before = circuit.state
        outcome(circuit, self._now())
        if circuit.state is not before:
            _show(place, circuit)
            if circuit.state is CircuitState.OPEN:
                CIRCUIT_OPENED.labels(place=place).inc()


def _show(place: str, circuit: Circuit) -> None:
    CIRCUIT_STATE.labels(place=place).set(STATES[circuit.state])
