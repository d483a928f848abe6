"""The application: what each address answers, and how mistakes are told."""

import json
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, File, Query, Request, Response, Security, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import tailbind
from tailbind.server.batching import Batcher, BusyError, Jobs
from tailbind.server.checking import MOST_FAULTS, RefusedError, checked_pairs
from tailbind.server.guard import OPEN, Guard
from tailbind.server.messages import (
    Health,
    ModelCard,
    PairsAsked,
    Predictions,
    Problem,
    ScanAsked,
    Substitutions,
    TablePredictions,
    pairs_asked,
)
from tailbind.server.metrics import Metrics
from tailbind.server.model import ServedModel, answers
from tailbind.server.pages import FILES, read_page
from tailbind.server.unpacking import unpack
from tailbind.server.uploads import PARQUET, shown_name, spreadsheet_csv, suffix_of

CSV: Final = "text/csv; charset=utf-8"
_WHY: Final = {
    400: "The request cannot be read.",
    401: "A key is needed, or another one.",
    408: "The request was not sent in time.",
    413: "The request, or the table in it, is too large.",
    421: "The request is addressed to another host than this server's.",
    422: "The request is understood, and cannot be done; `fields` says where.",
    503: "Too much waits. Try again after the seconds in Retry-After.",
}


class Api:
    """What the addresses under /api answer.

    Parameters
    ----------
    model : the run that is served
    metrics : told of every batch
    needs_key : whether requests must bring a key
    """

    def __init__(self, model: ServedModel, metrics: Metrics, *, needs_key: bool) -> None:
        limits = model.limits
        self.model, self.metrics, self.limits, self.needs_key = model, metrics, limits, needs_key
        self.jobs = Jobs(limits.waiting_jobs)
        self.batcher = Batcher(
            model.predict_pairs,
            most_pairs=limits.batch_pairs,
            most_waiting=limits.waiting_pairs,
            patience=limits.batch_seconds,
            on_batch=metrics.batch,
        )
        metrics.waiting.set_function(lambda: self.batcher.waiting)

    async def predict(self, asked: PairsAsked) -> Response:
        """Return a prediction for each pair, in the order they came."""
        self.model.check_reads_sequences()
        pairs = checked_pairs([vars(pair) for pair in asked.pairs], self.limits)
        return _json({"level": self.model.level, "predictions": await self.batcher.predict(pairs)})

    async def predict_file(
        self,
        file: Annotated[UploadFile, File(description="CSV, TSV or Parquet; its name's ending says which.")],
        format: Annotated[Literal["csv", "json"], Query(description="Of the answer.")] = "csv",
    ) -> Response:
        """Return a prediction for each row of a table, as `tailbind predict` writes them."""
        name = shown_name(file.filename)
        content = await file.read()
        frame, notes = await self.jobs.do(lambda: self._predict_content(content, name))
        if format == "json":
            return _json({"level": self.model.level, "predictions": answers(frame), "notes": notes})
        disposition = {"content-disposition": 'attachment; filename="predictions.csv"'}
        return Response(spreadsheet_csv(frame), media_type=CSV, headers=disposition)

    def _predict_content(self, content: bytes, name: str) -> Any:
        suffix = suffix_of(name, content, self.limits)
        with tempfile.TemporaryDirectory(prefix="tailbind-") as folder:
            path = Path(folder) / f"upload-{secrets.token_hex(8)}{suffix}"
            path.write_bytes(content)
            if suffix == PARQUET:
                sent, path = path, path.with_name(f"unpacked-{path.name}")
                unpack(sent, path, self.limits)
            frame, notes = self.model.predict_table(path, name)
        self.metrics.predictions.inc(len(frame))
        return frame, notes

    async def scan(self, asked: ScanAsked) -> Response:
        """Return every single substitution of the chains asked for, with its predicted change of pKd."""
        self.model.check_reads_sequences()
        pair = checked_pairs([vars(asked)], self.limits, where="")
        chains = list(dict.fromkeys(asked.chains))
        empty = [chain for chain in chains if not pair.chains[chain][0]]
        if empty:
            raise RefusedError(f"{empty[0]} must be given to be scanned; it is empty.", [(empty[0], "is empty.")])
        n_letters = sum(len(pair.chains[chain][0]) for chain in chains)
        if n_letters > self.limits.scan_letters:
            words = f"must have at most {self.limits.scan_letters:,} letters together; they have {n_letters:,}."
            raise RefusedError(f"The chains to scan {words}", [("chains", words)])
        return _json(await self.jobs.do(lambda: self.model.scan(pair, chains)))

    async def model_card(self) -> ModelCard:
        """Return what the model is, how good it is and what it is not for."""
        return ModelCard(name=self.model.name, markdown=self.model.card)

    async def health(self) -> Health:
        """Return that the server runs, and what it takes."""
        limits = self.limits
        return Health(
            status="ok",
            model=self.model.name,
            version=tailbind.__version__,
            reads="sequences" if self.model.prefix is None else "columns",
            scans=self.model.scans,
            needs_key=self.needs_key,
            level=self.model.level,
            limits={
                "pairs": limits.pairs,
                "json_bytes": limits.json_bytes,
                "heavy": limits.chain_letters,
                "light": limits.chain_letters,
                "antigen": limits.antigen_letters,
                "upload_bytes": limits.upload_bytes,
                "upload_rows": limits.upload_rows,
                "unpacked_bytes": limits.unpacked_bytes,
                "scan_letters": limits.scan_letters,
            },
        )

    async def counted(self) -> Response:
        """Return what the server counts, in Prometheus' text format."""
        return Response(self.metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")


def create_app(model: ServedModel, *, key: str | None = None, hosts: Collection[str] | None = None) -> FastAPI:
    """Return the application that serves a model.

    Parameters
    ----------
    model : the run
    key : that requests must bring; None lets all in
    hosts : names that requests may be addressed to; None allows any
    """
    metrics = Metrics()
    api = Api(model, metrics, needs_key=key is not None)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        api.batcher.start()
        yield
        await api.batcher.stop()
        api.jobs.stop()

    paths: set[str] = set()
    guard = Middleware(Guard, limits=model.limits, metrics=metrics, key=key, hosts=hosts, paths=paths)
    app = FastAPI(
        title="tailbind",
        summary="Antibody-antigen affinity (pKd) from sequences.",
        version=tailbind.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=[guard],
    )
    app.state.api = api
    secured = [] if key is None else [HTTPBearer(auto_error=False)]
    _add_routes(app, api, secured)
    _add_page(app)
    _add_mistakes(app)
    paths.update(route.path for route in app.routes if hasattr(route, "path"))
    return app


def _add_routes(app: FastAPI, api: Api, secured: list[HTTPBearer]) -> None:
    """Add the addresses of the interface, each with all that it may answer."""
    needed = [Security(scheme) for scheme in secured]
    text, csv = ({"content": {kind: {"schema": {"type": "string"}}}} for kind in ("text/plain", "text/csv"))

    def add(
        path: str, endpoint: Callable[..., Any], method: str, model: type[BaseModel] | None, **options: Any
    ) -> None:
        post, is_open = method == "POST", path in OPEN
        statuses = [*([400, 408, 413, 422, 503] if post else []), *([] if is_open or not needed else [401]), 421]
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            response_model=model,
            dependencies=[] if is_open else needed,
            responses={
                **{status: {"model": Problem, "description": _WHY[status]} for status in statuses},
                **options.pop("responses", {}),
            },
            **options,
        )

    async def predict(asked: PairsAsked) -> Response:
        return await api.predict(asked)

    predict.__annotations__["asked"] = pairs_asked(api.limits.pairs)
    predict.__doc__ = api.predict.__doc__
    add("/api/predict", predict, "POST", Predictions)
    add("/api/predict-file", api.predict_file, "POST", TablePredictions, responses={200: csv})
    add("/api/scan", api.scan, "POST", Substitutions)
    add("/api/model-card", api.model_card, "GET", ModelCard)
    add("/api/health", api.health, "GET", Health)
    add("/metrics", api.counted, "GET", None, response_class=PlainTextResponse, responses={200: text})


def _add_page(app: FastAPI) -> None:
    """Add the page and what it is made of."""
    for path, name in FILES.items():
        app.router.routes.append(Route(path, _static(*read_page(name)), methods=["GET"]))


def _static(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def show(_: Request) -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return show


def _add_mistakes(app: FastAPI) -> None:
    """Have every mistake told in one shape, and nothing of this machine in it."""

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        return _problem(error.status, error.message, error.faults)

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: Exception) -> Response:
        assert isinstance(error, BusyError)
        headers = {"retry-after": str(error.retry_after)}
        return _problem(503, f"Too much waits here. Try again in {error.retry_after} s.", headers=headers)

    @app.exception_handler(RequestValidationError)
    async def misshapen(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        for one in error.errors():
            if one["type"] == "too_long" and one["loc"] == ("body", "pairs"):
                return _problem(413, f"A request must have at most {one['ctx']['max_length']:,} pairs.")
        faults = [(_place(one["loc"]), str(one["msg"])) for one in error.errors()]
        path, words = faults[0]
        return _problem(422, f"{path or 'The request'}: {words}.", faults[:MOST_FAULTS])

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return _problem(500, "The server could not compute this. Its log says why.")


def _place(where: tuple[int | str, ...]) -> str:
    """Return where in a request something is: the place without `body`, numbers in brackets.

    >>> _place(("body", "pairs", 0, "heavy"))
    'pairs[0].heavy'
    """
    text = ""
    for part in where[1:] if where and where[0] in ("body", "query") else where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")[:200]


def _problem(
    status: int,
    message: str,
    faults: Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    fields = [{"path": path, "message": words} for path, words in faults]
    return _json({"message": message, "fields": fields}, status, headers)


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON, of ASCII alone: half a surrogate pair in a request cannot be written otherwise."""
    body = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(body, status, dict(headers or {}), "application/json")
