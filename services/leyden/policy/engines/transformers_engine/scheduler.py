"""The thread that runs the model: admits waiting sequences between steps, samples tokens, delivers them.

Only this thread uses the model, so jobs that change weights (`exclusive`) never run during a forward pass.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Rows
from concurrent.futures import Future
from typing import Any

import torch

from leyden.events.tokens import NO_LOGPROB
from leyden.policy.engines.transformers_engine.batch import Batch
from leyden.policy.engines.transformers_engine.sampling import draw
from leyden.policy.engines.transformers_engine.sequence import Delta, Sequence
from leyden.policy.engines.transformers_engine.text import TextStream

logger = logging.getLogger(__name__)

GATHER_S = 0.005
"""How long an idle engine waits for more requests after the first one, so that they share one prefill."""


class Scheduler:
    """Runs sequences on its own thread, from `start()` to `close()`. `submit` and `exclusive` are thread-safe."""

    def __init__(self, model: Any, tokenizer: Any, eos: frozenset[int], max_rows: int = 64) -> None:
        self._batch = Batch(model)
        self._tokenizer = tokenizer
        self._eos = eos
        self._max_rows = max_rows
        self._wake = threading.Condition()
        self._waiting: deque[Sequence] = deque()
        self._jobs: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._state: dict[Sequence, tuple[TextStream, torch.Generator | None]] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread after the current step. Running sequences get no further tokens."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def submit(self, sequences: Rows[Sequence]) -> None:
        """Queue sequences. Their `deliver` is called with each token."""
        with self._wake:
            self._waiting.extend(sequences)
            self._wake.notify()

    def exclusive(self, job: Callable[[], None]) -> "Future[None]":
        """Run `job` on the engine's thread, between two steps."""
        future: Future[None] = Future()
        with self._wake:
            self._jobs.append((job, future))
            self._wake.notify()
        return future

    def _run(self) -> None:
        with torch.inference_mode():
            while self._wait_for_work():
                try:
                    self._admit()
                    if self._batch.rows:
                        self._advance()
                except Exception as problem:  # a failed step (out of memory, say) ends its sequences, not the engine
                    logger.exception("a model step failed; all running sequences end with an error")
                    self._fail_all(str(problem))

    def _wait_for_work(self) -> bool:
        with self._wake:
            idle = not self._batch.rows
            while idle and not (self._waiting or self._jobs or self._closed):
                self._wake.wait()
            if idle and self._waiting and not self._jobs:
                self._wake.wait_for(lambda: self._closed, GATHER_S)
            jobs = list(self._jobs)
            self._jobs.clear()
        for job, future in jobs:
            _run_job(job, future)
        return not self._closed

    def _admit(self) -> None:
        with self._wake:
            room = self._max_rows - len(self._batch.rows)
            taken = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        joining = [sequence for sequence in taken if not sequence.cancelled]
        if not joining:
            return
        for sequence in joining:
            seed = sequence.sampling.seed
            generator = None if seed is None else torch.Generator().manual_seed(seed % 2**63)
            text = TextStream(self._tokenizer, sequence.sampling.stops, sequence.sampling.special_tokens)
            self._state[sequence] = text, generator
        self._batch.join(joining)

    def _advance(self) -> None:
        rows, logits_BV = self._batch.rows, self._batch.logits_BV
        assert logits_BV is not None, "rows have logits"
        generators = [self._state[row][1] for row in rows]
        logits_BV = logits_BV.cpu()
        tokens_B, logprobs_BV = draw(logits_BV, [row.sampling for row in rows], generators)
        tokens = tokens_B.tolist()
        logprobs = logprobs_BV.gather(-1, tokens_B[:, None])[:, 0].tolist()
        going = [
            index
            for index, row in enumerate(rows)
            if self._report(row, tokens[index], logprobs[index], logprobs_BV[index])
        ]
        self._batch.keep(going)
        if going:
            self._batch.step([tokens[index] for index in going])

    def _report(self, row: Sequence, token: int, logprob: float, logprobs_V: torch.Tensor) -> bool:
        """Deliver one token. Returns whether the sequence continues."""
        row.tokens.append(token)
        stream = self._state[row][0]
        ended = token in self._eos and not row.sampling.ignore_eos
        text = "" if ended else stream.push(token)
        finish = None
        if ended or stream.stopped:
            finish = "stop"
        elif len(row.tokens) >= row.sampling.max_tokens:
            finish = "length"
        if finish:
            text += stream.flush()
        if not row.cancelled:
            top = _top(logprobs_V, row.sampling.top_logprobs)
            row.deliver(Delta(index=row.index, token=token, logprob=logprob, top=top, text=text, finish=finish))
        if finish or row.cancelled:
            del self._state[row]
            return False
        return True

    def _fail_all(self, problem: str) -> None:
        for row in list(self._state):
            if not row.cancelled:
                row.deliver(Delta(index=row.index, error=problem))
        self._state.clear()
        self._batch.clear()


def _top(logprobs_V: torch.Tensor, count: int) -> tuple[tuple[int, float], ...]:
    if not count:
        return ()
    best = logprobs_V.clamp(min=NO_LOGPROB).topk(count)
    return tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def _run_job(job: Callable[[], None], future: "Future[None]") -> None:
    try:
        job()
    except Exception as problem:  # noqa: BLE001  (raised where the future is awaited)
        future.set_exception(problem)
    else:
        future.set_result(None)
