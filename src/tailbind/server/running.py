"""A server that runs until it is told to stop, and then finishes what is in flight."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tailbind.errors import ServeError
from tailbind.server.limits import Limits

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

KEY_VARIABLE: Final = "TAILBIND_API_KEY"
SHORTEST_KEY: Final = 16
LOCAL: Final = "127.0.0.1"


def serve(
    run: str | Path,
    *,
    host: str = LOCAL,
    port: int = 8000,
    device: str = "auto",
    key_file: str | Path | None = None,
    limits: Limits | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve a run until SIGTERM or SIGINT, and then until what is in flight is answered.

    Parameters
    ----------
    run : run folder, or a `.pth` file of one
    host, port : where to listen; port 0 takes a free one
    device : auto, cpu or cuda
    key_file : file with the key that requests must bring; else the environment variable TAILBIND_API_KEY, else none
    limits : what one request may ask for
    notify : told where the server listens

    Raises
    ------
    ServeError
        When a package is missing, the address cannot be had, or the key is unfit.
    RunError, CheckpointError
        As `tailbind.load` does.
    """
    try:
        import uvicorn

        from tailbind.server.app import create_app
        from tailbind.server.guard import LOOPBACK
        from tailbind.server.model import ServedModel
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tailbind"):
            raise
        raise ServeError(
            f"tailbind serve needs the package {error.name}; it is not installed. Run: pip install 'tailbind[serve]'"
        ) from error
    limits = limits or Limits()
    key = read_key(key_file)
    listening = listen(host, port)
    with contextlib.closing(listening):
        model = ServedModel.of_run(run, device, limits)
        local = host in LOOPBACK
        app = create_app(model, key=key, hosts=LOOPBACK if local else None)
        config = configured(app, limits)
        name = f"[{host}]" if ":" in host else host
        notify(f"Serving {model.name} at http://{name}:{listening.getsockname()[1]} (stop with Ctrl+C).")
        if not local and key is None:
            notify(
                f"Warning: whoever can reach {host} can use it. Give a key with --api-key-file, and put TLS in front."
            )
        with _signals_are_no_end():
            uvicorn.Server(config).run(sockets=[listening])


def configured(app: "FastAPI", limits: Limits) -> "uvicorn.Config":
    """Return how uvicorn is to serve the application: patient with nobody, and silent about itself."""
    import uvicorn

    from tailbind.server.protocol import protocol_with

    return uvicorn.Config(
        app,
        http=protocol_with(limits.head_seconds),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=limits.stop_seconds,
        h11_max_incomplete_event_size=64 * 1024,
    )


def read_key(key_file: str | Path | None) -> str | None:
    """Return the key of a file, else of the environment, else None.

    Raises
    ------
    ServeError
        When the file cannot be read, or the key is short or not of printable ASCII.
    """
    where = str(key_file) if key_file is not None else f"the environment variable {KEY_VARIABLE}"
    if key_file is None:
        key = os.environ.get(KEY_VARIABLE)
        if key is None:
            return None
    else:
        try:
            key = Path(key_file).read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
            raise ServeError(f"--api-key-file {key_file} must be a readable text file; {why}.") from error
    key = key.strip()
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ServeError(
            f"A key must have at least {SHORTEST_KEY} printable ASCII characters and no spaces; in {where} it "
            "has not. "
            "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return key


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises
    ------
    ServeError
        When the address is unknown or taken.

    Examples
    --------
    >>> listen("127.0.0.1", 0).close()
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ServeError(
            f"--host {host} --port {port} must be an address of this machine that is free; {why.lower()}. "
            "Choose another --port."
        ) from error
    listening.setblocking(False)
    return listening


@contextlib.contextmanager
def _signals_are_no_end() -> Iterator[None]:
    """Have the signals that uvicorn repeats when it has stopped do nothing: the server stopped as it was told."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
