"""Work that waits its turn: pairs of several requests predicted together, and long jobs one after the other.

What is computed is computed in threads, so that the server answers meanwhile; what waits is bounded, so that more
requests than can be computed are told to come again instead of filling the memory.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from tailbind.server.checking import Pairs

Done = TypeVar("Done")
Answer = dict[str, Any]

#: Pairs a second that are assumed until some are predicted.
FIRST_GUESS: Final = 500.0
LONGEST_WAIT: Final = 60


class BusyError(Exception):
    """More waits than may; `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"retry after {retry_after} s")
        self.retry_after = retry_after


class Batcher:
    """Predicts the pairs of several requests together.

    Parameters
    ----------
    compute : returns an answer for each of the pairs; called in a thread, by one at a time
    most_pairs : predicted together
    most_waiting : pairs that wait
    patience : seconds that the first request of a batch waits for others
    on_batch : told how many pairs a batch had, and the seconds it took
    """

    def __init__(
        self,
        compute: Callable[[Pairs], list[Answer]],
        *,
        most_pairs: int,
        most_waiting: int,
        patience: float,
        on_batch: Callable[[int, float], None] = lambda n, seconds: None,
    ) -> None:
        self.compute, self.most_pairs, self.most_waiting, self.patience = compute, most_pairs, most_waiting, patience
        self.on_batch = on_batch
        self.waiting = 0
        self._rate = FIRST_GUESS
        self._queue: asyncio.Queue[tuple[Pairs, asyncio.Future[list[Answer]]]] = asyncio.Queue()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="predict", initializer=_as_the_main_thread)
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work, in the loop that runs."""
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stop when the batch in hand is done; nobody waits any more when this is called."""
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        self._pool.shutdown()

    async def predict(self, pairs: Pairs) -> list[Answer]:
        """Return an answer for each of the pairs.

        Raises
        ------
        BusyError
            When too many wait.
        """
        if self.waiting and self.waiting + len(pairs) > self.most_waiting:
            raise BusyError(min(LONGEST_WAIT, max(1, math.ceil(self.waiting / self._rate))))
        self.waiting += len(pairs)
        try:
            parts: list[asyncio.Future[list[Answer]]] = []
            for start in range(0, len(pairs), self.most_pairs):
                future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
                self._queue.put_nowait((pairs.slice(start, start + self.most_pairs), future))
                parts.append(future)
            return [answer for part in await asyncio.gather(*parts) for answer in part]
        finally:
            self.waiting -= len(pairs)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        held = await self._queue.get()
        while True:
            batch, n = [held], len(held[0])
            until = loop.time() + self.patience
            following = None
            while n < self.most_pairs:
                try:
                    following = self._queue.get_nowait()
                except asyncio.QueueEmpty:
                    try:
                        async with asyncio.timeout_at(until):
                            following = await self._queue.get()
                    except TimeoutError:
                        break
                if n + len(following[0]) > self.most_pairs:
                    break
                batch.append(following)
                n += len(following[0])
                following = None
            await self._answer(batch)
            held = following or await self._queue.get()

    async def _answer(self, batch: list[tuple[Pairs, asyncio.Future[list[Answer]]]]) -> None:
        """Compute a batch; where it cannot be, each request alone, so that none suffers from another's."""
        wanted = [(pairs, future) for pairs, future in batch if not future.done()]
        if not wanted:
            return
        loop = asyncio.get_running_loop()
        chains = {
            name: tuple(value for pairs, _ in wanted for value in pairs.chains[name]) for name in wanted[0][0].chains
        }
        together, began = Pairs(chains), loop.time()
        try:
            answers = await loop.run_in_executor(self._pool, self.compute, together)
        except Exception as error:  # noqa: BLE001 (told to the request it belongs to)
            if len(wanted) == 1:
                _settle(wanted[0][1], error)
            else:
                for one in wanted:
                    await self._answer([one])
            return
        seconds = loop.time() - began
        self.on_batch(len(together), seconds)
        self._rate += 0.2 * (len(together) / max(seconds, 1e-6) - self._rate)
        start = 0
        for pairs, future in wanted:
            _settle(future, answers[start : start + len(pairs)])
            start += len(pairs)


def _settle(future: "asyncio.Future[list[Answer]]", result: "list[Answer] | Exception") -> None:
    if future.done():  # whoever asked is gone
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


class Jobs:
    """Does long jobs, tables and scans, one after the other in a thread of their own.

    Parameters
    ----------
    most_waiting : jobs that wait
    """

    def __init__(self, most_waiting: int) -> None:
        self.most_waiting = most_waiting
        self.waiting = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="job", initializer=_as_the_main_thread)

    async def do(self, work: Callable[[], Done]) -> Done:
        """Return what `work` returns, when its turn has come.

        Raises
        ------
        BusyError
            When too many wait.
        """
        if self.waiting > self.most_waiting:  # one is being done
            raise BusyError(min(LONGEST_WAIT, 5 * self.waiting))
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self.waiting -= 1

    def stop(self) -> None:
        """Stop when what is in hand is done."""
        self._pool.shutdown()


def _as_the_main_thread() -> None:
    """Have PyTorch compute as where the model was loaded: the setting is each thread's own on some systems."""
    import torch

    torch.set_flush_denormal(True)
