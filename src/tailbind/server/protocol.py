"""Connections that do not keep the server waiting: uvicorn's HTTP, where a request's head must be there in time."""

import asyncio
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class PatientProtocol(H11Protocol):
    """uvicorn's protocol; a connection that has no request in progress, and sends none in time, is closed.

    That of an idle connection after an answer is uvicorn's own, shorter, time.
    """

    head_seconds: ClassVar[float] = 10.0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        self._waiting: asyncio.TimerHandle | None = None
        self._spoke = False
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what came; a request whose head is whole stops the clock."""
        self._spoke = True
        super().data_received(data)
        between = self.conn.their_state is h11.IDLE
        unwanted = self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY
        if not between and not unwanted:
            self._stop_waiting()
            self._spoke = False
        elif self._waiting is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if not self.transport.is_closing():
            if self._spoke and self.conn.our_state is h11.IDLE:
                self.transport.write(_TOO_SLOW)
            self.transport.close()


def protocol_with(head_seconds: float) -> type[PatientProtocol]:
    """Return the protocol with another time.

    >>> protocol_with(2.0).head_seconds
    2.0
    """
    return type("PatientProtocol", (PatientProtocol,), {"head_seconds": head_seconds})
