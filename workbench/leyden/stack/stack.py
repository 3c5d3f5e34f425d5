"""A whole stack as one object: `with Stack(config) as stack: …` runs it and leaves no process behind.

Orders the steps of a start and measures each. `plan` says which processes there are, `processes` runs them, `daemon`
has stacks that outlive the shell.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from leyden.stack import plan, sweep
from leyden.stack.config import StackConfig
from leyden.stack.errors import AlreadyRunningError, FetchError, PreflightError, StackError, how_it_ended
from leyden.stack.kafka import KafkaBroker, ensure_jars
from leyden.stack.locks import lock_within
from leyden.stack.models import model_is_cached
from leyden.stack.ports import hold_port
from leyden.stack.preflight import Machine, check
from leyden.stack.processes import ProcessState, Supervisor
from leyden.stack.program import as_typed
from leyden.stack.redis import RedisServer
from leyden.stack.requirements import needs_of, own_kafka, own_redis
from leyden.stack.run_file import run_file_problems
from leyden.stack.state import DataFolder, ProcessStatus, StackState

__all__ = ["OnProgress", "Stack"]

OnProgress = Callable[[str], None]
"""Called with a progress line; a line may come again with more seconds in it."""

LOADS = {"engine": " (loads the model)", "trainer": " (loads torch and the model)"}
"""What takes these processes long."""
_LOCK_WAIT_S = 5.0
_TELL_EVERY_S = 1.0


class Stack:
    """One local stack. Call `up` and `down` once each; use a new object for another run."""

    def __init__(
        self, config: StackConfig, on_progress: OnProgress = lambda line: None, machine: Machine | None = None
    ) -> None:
        self.config = config.absolute()
        self.folder = DataFolder(self.config.data_dir)
        self.engine = plan.choose_engine(self.config.engine)
        self.inputs: plan.StartInputs | None = None
        self._progress = on_progress
        self._machine = machine
        self._lock: int | None = None
        self._supervisor: Supervisor | None = None
        self._state = StackState(phase="starting", supervisor_pid=os.getpid(), engine=self.engine)
        self._state_guard = threading.RLock()

    @property
    def kafka_servers(self) -> str:
        """`KAFKA_BOOTSTRAP_SERVERS` of the environment, else the stack's own broker."""
        return os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or f"127.0.0.1:{self.config.ports.kafka}"

    @property
    def redis_url(self) -> str:
        """`REDIS_URL` of the environment, else the stack's own server."""
        return os.environ.get("REDIS_URL") or f"redis://127.0.0.1:{self.config.ports.redis}/0"

    @property
    def gateway_url(self) -> str:
        return plan.gateway_url(self.config)

    @property
    def engine_url(self) -> str:
        return plan.engine_url(self.config)

    @property
    def api_key(self) -> str:
        """A key that the gateway accepts."""
        return (self.config.api_keys or (self.folder.secrets().api_key,))[0]

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, StackError):
            self._write_if_possible(phase="failed", error=str(error))
        self.down()

    def up(self) -> None:
        """Check the machine, fetch what is missing, start everything, and wait until it is ready.

        Raises StackError; then nothing is left running.
        """
        self._take_lock()
        try:
            self._claim_folder()
            with self._step("total"):
                self._check_machine()
                self._start()
            self._write(phase="up", doing="")
        except (KeyboardInterrupt, SystemExit):
            self._stop()
            self._write_if_possible(phase="down", error="its start was interrupted")
            raise
        except BaseException as error:
            self._write_if_possible(phase="failed", error=str(error) or type(error).__name__)
            self._end()
            raise

    def down(self) -> None:
        """Stop everything. Does nothing if the stack is down."""
        if self._lock is None:
            return
        if self._state.phase == "failed":
            self._end()
        else:
            self._stop()
            self._write_if_possible(phase="down")

    def _stop(self) -> None:
        self._write_if_possible(phase="stopping", doing="")
        try:
            self._progress("stopping the stack; its services finish what they write")
        finally:
            self._end()

    def status(self) -> StackState:
        """The state, as other shells read it."""
        self._write()
        return self._state

    def states(self) -> list[ProcessState]:
        """All processes, in the order of their start."""
        return self._supervisor.states() if self._supervisor is not None else []

    def check(self) -> None:
        """Raise the ProcessError of a process that ended too often."""
        if self._supervisor is not None:
            self._supervisor.check()

    def wait_failed(self, timeout_s: float | None = None) -> bool:
        """Block until a process has failed; False if `timeout_s` passed first."""
        if self._supervisor is None:
            raise StackError("The stack is not up; call up() first.")
        return self._supervisor.wait_failed(timeout_s)

    def _take_lock(self) -> None:
        self._lock = lock_within(self.folder.lock, _LOCK_WAIT_S)
        if self._lock is None:
            raise AlreadyRunningError(
                f"A stack already runs on {self.folder.root}. "
                f"Stop it with `{as_typed()} down`, or choose another --data-dir."
            )

    def _claim_folder(self) -> None:
        sweep.sweep(self.folder.stack_id)
        self.folder.config.write_text(self.config.model_dump_json(indent=2))
        self._write()

    def _check_machine(self) -> None:
        if self.config.run_file is not None:
            with self._step("run file", f"checking {self.config.run_file}"):
                wrong = run_file_problems(self.config.run_file, plan.python_env(self.config) | self.config.env)
            if wrong:
                raise PreflightError("The run file is wrong:\n" + "\n".join(wrong))
        needs = needs_of(self.config, self.folder.root)
        with self._step("preflight"):
            problems = check(needs, self._machine)
        if problems:
            raise PreflightError("\n".join(str(problem) for problem in problems))
        for what, port in needs.ports.items():
            try:
                hold_port(port)
            except OSError as error:
                raise PreflightError(
                    f"Port {port}, for {what}, was taken during the start. Start again, or with --auto-ports."
                ) from error

    def _start(self) -> None:
        assert self._lock is not None
        supervisor = Supervisor(self.folder.stack_id, self.folder.logs, held=(self._lock,), on_change=self._write)
        self._supervisor = supervisor
        model = self._prepare_model()
        self.inputs = self._start_inputs(model)
        self._tell(f"engine: {self.engine}")
        servers = self._start_servers(supervisor)
        supervisor.start(plan.engine_spec(self.config, model))
        if servers:
            self._wait(supervisor, *servers)
        with self._step("topics", "creating topics"):
            self._create_topics(self.inputs)
        services = plan.service_specs(self.config, self.inputs)
        for spec in services:
            supervisor.start(spec)
        self._wait(supervisor, "engine", *(spec.name for spec in services))

    def _prepare_model(self) -> Path:
        """Run in another process: a conversion loads torch, which would stay in this one."""
        model = self.config.model
        doing = f"preparing the model {model}" if model_is_cached(model) else f"fetching the model {model}"
        with self._step("model", doing):
            done = self._helper((sys.executable, "-m", "leyden.stack.models", self.config.model), {})
        if done.returncode != 0:
            raise FetchError(_last_line(done.stderr) or "The model could not be prepared; no reason was given.")
        return Path(done.stdout.strip().splitlines()[-1])

    def _start_inputs(self, model: Path) -> plan.StartInputs:
        kept = self.folder.secrets()
        self._write(
            model=str(model),
            gateway_url=self.gateway_url,
            engine_url=self.engine_url,
            kafka_servers=self.kafka_servers,
            redis_url=self.redis_url,
        )
        return plan.StartInputs(
            kafka_servers=self.kafka_servers,
            redis_url=self.redis_url,
            model=model,
            api_keys=self.config.api_keys or (kept.api_key,),
            gateway_secret=kept.gateway_secret,
        )

    def _start_servers(self, supervisor: Supervisor) -> list[str]:
        started = []
        if own_kafka():
            with self._step("jars", "fetching Kafka, if it is not here yet"):
                ensure_jars()
            ports = self.config.ports
            broker = KafkaBroker(self.folder.root / "kafka", ports.kafka, ports.kafka_controller)
            with self._step("kafka format", "preparing Kafka's folder"):
                broker.prepare()
            supervisor.start(broker.spec())
            started.append("kafka")
        if own_redis():
            server = RedisServer(self.folder.root / "redis", self.config.ports.redis)
            server.prepare()
            supervisor.start(server.spec())
            started.append("redis")
        return started

    def _create_topics(self, inputs: plan.StartInputs) -> None:
        command, env = plan.topics_command(self.config, inputs)
        done = self._helper(command, env)
        if done.returncode != 0:
            raise StackError(_last_line(done.stderr) or "The topics could not be created; no reason was given.")

    def _helper(self, command: tuple[str, ...], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        marked = os.environ | plan.python_env(self.config) | env | {sweep.MARKER: self.folder.stack_id}
        return subprocess.run(command, env=marked, capture_output=True, text=True, check=False)

    def _wait(self, supervisor: Supervisor, *names: str) -> None:
        supervisor.wait_ready(
            *names,
            on_wait=lambda waited, seconds: self._tell(f"waiting for {self._named(waited)} ({seconds:.0f} s)"),
            on_ready=self._ready,
        )

    def _named(self, names: Sequence[str]) -> str:
        return ", ".join(f"{name}{LOADS.get(name, '')}{self._restarts(name)}" for name in names)

    def _restarts(self, name: str) -> str:
        """For a process that ended while it was starting: how, and where its log is."""
        [process] = [each for each in self.states() if each.name == name]
        if process.last_death is None:
            return ""
        return f", which {how_it_ended(process.last_death.returncode)} and was restarted; log: {process.log}"

    def _ready(self, name: str, seconds: float) -> None:
        with self._state_guard:
            self._state.timings_s.setdefault(name, round(seconds, 2))
        self._tell(f"{name} is ready after {self._state.timings_s[name]:.1f} s")

    @contextmanager
    def _step(self, name: str, doing: str = "") -> Iterator[None]:
        """Measure a step, and tell what it does and for how long it has done so."""
        began = time.monotonic()
        with self._telling(doing) if doing else nullcontext():
            yield
        with self._state_guard:
            self._state.timings_s[name] = round(time.monotonic() - began, 2)

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        began, done = time.monotonic(), threading.Event()

        def tell() -> None:
            while not done.wait(_TELL_EVERY_S):
                self._tell(f"{doing} ({time.monotonic() - began:.0f} s)")

        self._tell(doing)
        teller = threading.Thread(target=tell, name="leyden-stack-progress", daemon=True)
        teller.start()
        try:
            yield
        finally:
            done.set()
            teller.join()

    def _tell(self, line: str) -> None:
        self._write(doing=line)
        self._progress(line)

    def _write(self, **changes: Any) -> None:
        with self._state_guard:
            processes = [
                ProcessStatus(name=s.name, pid=s.pid, deaths=s.deaths, log=s.log, waits_for=s.waits_for)
                for s in self.states()
            ]
            self._state = self._state.model_copy(update={**changes, "processes": processes})
            self.folder.write_state(self._state)

    def _write_if_possible(self, **changes: Any) -> None:
        """As `_write`, on the way to `_end`: a full disk must not keep the processes running."""
        with suppress(OSError):
            self._write(**changes)

    def _end(self) -> None:
        if self._supervisor is not None:
            self._supervisor.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
