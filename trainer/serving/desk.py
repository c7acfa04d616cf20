"""Where requests of many threads meet one model: each is written further in turn with all others.

Invariant: only the desk's own thread touches the model; a request that is given up stops costing with the next token.
New requests join between two tokens, so nobody waits for a long text of another to end. Trade-off: reading a long new
prompt holds up the others for the time that it takes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

from storage.errors import ResourceError
from trainer.checkpoints.trained import Trained
from trainer.serving.continuation import Continuation, Continuations
from trainer.serving.generate import AT_ONCE, open_tokenizer
from trainer.serving.sampling import Sampling

IDLE_SECONDS = 0.5


@dataclass(eq=False)
class Order:
    """A continuation that somebody waits for; `news` gets its sure text after every token, None at the end."""

    continuation: Continuation
    news: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue)
    given_up: bool = False

    def follow(self) -> Iterator[str]:
        """The text in pieces as it is written; whoever stops listening gives the order up."""
        shown = 0
        try:
            while (text := self.news.get()) is not None:
                if len(text) > shown:
                    yield text[shown:]
                    shown = len(text)
        finally:
            self.given_up = True


class Desk:
    """Use as a context: the thread that writes lives as long."""

    def __init__(self, trained: Trained, *, at_once: int = AT_ONCE, waiting: int = 256) -> None:
        self.trained = trained
        self.tokenizer = open_tokenizer(trained.tokenizer_file)
        self._at_once = at_once
        self._waiting: queue.Queue[Order] = queue.Queue(waiting)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._write, name="desk", daemon=True)

    def __enter__(self) -> Desk:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    def order(self, prompt: str, sampling: Sampling) -> Order:
        """Ask for a continuation. Raises ResourceError when too many wait already."""
        ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        order = Order(Continuation(ids, sampling, self.tokenizer))
        try:
            self._waiting.put_nowait(order)
        except queue.Full:
            raise ResourceError(
                f"{self._waiting.maxsize} requests are waiting already", hint="ask again in a moment"
            ) from None
        return order

    def _write(self) -> None:
        orders: list[Order] = []
        running = self._fresh()
        while not self._closed.is_set():
            new = self._take(self._at_once - len(orders), block=not orders)
            orders += new
            try:
                running.add([order.continuation for order in new])
                running.step()
            except Exception as error:  # a fault of one request must not end the service: all who wait are told
                for order in orders:
                    order.continuation.finish = f"error: {type(error).__name__}"
                running = self._fresh()
            orders = [order for order in orders if not self._tell(order)]
        for order in orders:
            order.news.put(None)

    def _fresh(self) -> Continuations:
        return Continuations(self.trained.model, self.trained.vocabulary, self.trained.training)

    def _take(self, most: int, *, block: bool) -> list[Order]:
        taken: list[Order] = []
        while len(taken) < most:
            try:
                taken.append(self._waiting.get(block=block and not taken, timeout=IDLE_SECONDS))
            except queue.Empty:
                break
        return taken

    def _tell(self, order: Order) -> bool:
        """Send what is sure; whether the order is done."""
        if order.given_up and not order.continuation.finish:
            order.continuation.finish = "given up"
        order.news.put(order.continuation.sure_text)
        if order.continuation.finish:
            order.news.put(None)
        return bool(order.continuation.finish)
