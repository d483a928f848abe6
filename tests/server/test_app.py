"""What each address answers: predictions as the offline predictor's, mistakes in one shape."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from starlette.testclient import TestClient

import tailbind
from tailbind.server import model as model_room
from tailbind.server.app import create_app
from tailbind.server.batching import BusyError
from tailbind.server.limits import Limits
from tailbind.server.model import ServedModel

CHAINS = ("heavy", "light", "antigen")
HEAVY = "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKG"


def pairs_of(frame: pl.DataFrame) -> list[dict[str, str]]:
    return frame.select(CHAINS).to_dicts()


def upload(content: bytes, name: str = "designs.csv") -> dict[str, Any]:
    return {"files": {"file": (name, content)}}


# --- predictions -------------------------------------------------------------------------------------


def test_pairs_are_predicted_as_offline_and_in_order(
    client: TestClient, run: Path, frame: pl.DataFrame, tmp_path: Path
) -> None:
    some = frame.sample(50, seed=1)
    some.select(CHAINS).write_csv(tmp_path / "new.csv")
    offline = tailbind.predict(run, tmp_path / "new.csv", device="cpu")
    answer = client.post("/api/predict", json={"pairs": pairs_of(some)})
    assert answer.status_code == 200
    found = answer.json()["predictions"]
    assert [one["pkd"] for one in found] == pytest.approx(offline["predicted_pkd"].to_list(), abs=1e-4)
    assert [one["affinity_bin"] for one in found] == offline["affinity_bin"].to_list()
    assert [one["unseen"] for one in found] == offline["unseen"].to_list()
    assert found[0]["kd_nm"] == pytest.approx(10 ** (9 - found[0]["pkd"]))


def test_sequences_may_be_in_lower_case_with_gaps(client: TestClient) -> None:
    odd = "\n".join([HEAVY[:30].lower(), HEAVY[30:40], "--", HEAVY[40:]])
    found = client.post("/api/predict", json={"pairs": [{"heavy": HEAVY}, {"heavy": odd}]}).json()["predictions"]
    assert found[0] == found[1]


def test_columns_that_a_predictor_adds_are_handed_on(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch, client: TestClient
) -> None:
    plain = type(model.predictor).predict

    def more(self: Any, table: Any) -> pl.DataFrame:
        known = [column for column in ("pkd_low", "domain") if column in plain(self, table).columns]
        low, domain = pl.lit(float("nan")).alias("pkd_low"), pl.lit("edge").alias("domain")
        return plain(self, table).drop(known).with_columns(low, domain)

    monkeypatch.setattr(type(model.predictor), "predict", more)
    (found,) = client.post("/api/predict", json={"pairs": [{"heavy": HEAVY}]}).json()["predictions"]
    assert found["pkd_low"] is None
    assert found["domain"] == "edge"


@pytest.mark.parametrize(
    ("pair", "path", "words"),
    [
        ({"heavy": "EVX1"}, "pairs[0].heavy", "twenty amino acids' letters only; got 'X' at 3, '1' at 4."),
        ({"heavy": "E" * 1001}, "pairs[0].heavy", "must have at most 1,000 letters; it has 1,001."),
        ({"heavy": "EVQL", "antigen": "E" * 10_000}, "pairs[0].antigen", "at most 5,000 letters; it has 10,000."),
        ({"light": "ACGT" * 20}, "pairs[0].light", "it looks like DNA or RNA. Translate it."),
        ({"antigen": "EVQL"}, "pairs[0].heavy", "must be given, or light; both are empty."),
        ({"heavy": "EVQL\u00df"}, "pairs[0].heavy", "got 'ß' at 5."),
        ({"heavy": "E V\u017fQ*L"}, "pairs[0].heavy", "got 'ſ' at 3, '*' at 5."),
        ({"heavy": 3}, "pairs[0].heavy", "valid string"),
        ({"heavy": "E" * 20_000}, "pairs[0].heavy", "at most 2000 characters"),
        ({"heavy": "EVQL", "vh": "EVQL"}, "pairs[0].vh", "not permitted"),
    ],
)
def test_a_bad_sequence_is_told_with_its_place(client: TestClient, pair: dict[str, Any], path: str, words: str) -> None:
    answer = client.post("/api/predict", json={"pairs": [pair]})
    assert answer.status_code == 422
    (fault,) = answer.json()["fields"]
    assert fault["path"] == path
    assert words in fault["message"]


def test_of_many_bad_sequences_the_first_are_told(client: TestClient) -> None:
    answer = client.post("/api/predict", json={"pairs": [{"heavy": "1"}] * 30}).json()
    assert len(answer["fields"]) == 20
    assert "(30 are not, of which the first 20 are told)" in answer["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"pairs": [{"heavy": NaN}]}', 422),
        (b'{"pairs": [{"heavy": "EVQL", "x": NaN}]}', 422),
        (b'{"pairs": [{"heavy": "EVQL\\ud800"}]}', 422),
        (b'{"pairs": [{"heavy": "EVQL", "\\ud800": 1}]}', 422),
        (b'{"pairs": []}', 422),
        (b"{", 422),
        (b"\xff\xfeabc", 400),
        (b"[" * 200_000, 400),
        (b'{"pairs": ' + b"9" * 10_000 + b"}", 400),
    ],
)
def test_what_is_no_request_is_a_mistake_of_the_client(client: TestClient, body: bytes, status: int) -> None:
    answer = client.post("/api/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["message"]


def test_a_model_of_columns_takes_tables_alone(columns_model: ServedModel, table_file: Path, columns_run: Path) -> None:
    offline = tailbind.predict(columns_run, table_file, device="cpu")
    with TestClient(create_app(columns_model), base_url="http://localhost") as client:
        assert client.get("/api/health").json()["reads"] == "columns"
        assert not client.get("/api/health").json()["scans"]
        for address in ("predict", "scan"):
            asked = {"pairs": [{"heavy": HEAVY}]} if address == "predict" else {"heavy": HEAVY}
            answer = client.post(f"/api/{address}", json=asked)
            assert answer.status_code == 422
            assert "reads feature columns (esm2_pca_0, esm2_pca_1, …)" in answer.json()["message"]
        answer = client.post("/api/predict-file?format=json", **upload(table_file.read_bytes()))
    found = [one["pkd"] for one in answer.json()["predictions"]]
    assert found == pytest.approx(offline["predicted_pkd"].to_list(), abs=1e-4)


@pytest.fixture(scope="module")
def sure_model(table_file: Path, tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """A ridge whose intervals are of 80 %."""
    out = tmp_path_factory.mktemp("runs") / "sure"
    overrides = ["features.sites.numbering=false", "calibration.rows=validation", "calibration.level=0.8"]
    tailbind.train(table_file, recipe="ridge", out=out, overrides=overrides, device="cpu")
    return ServedModel.of_run(out, "cpu", Limits())


def test_the_level_of_intervals_is_told(sure_model: ServedModel) -> None:
    with TestClient(create_app(sure_model), base_url="http://localhost") as client:
        answers = [
            client.get("/api/health"),
            client.post("/api/predict", json={"pairs": [{"heavy": HEAVY}]}),
            client.post("/api/predict-file?format=json", **upload(f"heavy\n{HEAVY}\n".encode())),
            client.post("/api/scan", json={"heavy": HEAVY}),
        ]
    assert [answer.json()["level"] for answer in answers] == [0.8] * 4
    found = answers[1].json()["predictions"][0]
    assert found["pkd_low"] < found["pkd"] < found["pkd_high"]


def test_a_run_without_intervals_has_no_level(model: ServedModel) -> None:
    unsure = replace(model, predictor=replace(model.predictor, intervals=None))
    with TestClient(create_app(unsure), base_url="http://localhost") as client:
        assert client.get("/api/health").json()["level"] is None
        assert client.post("/api/predict", json={"pairs": [{"heavy": HEAVY}]}).json()["level"] is None


def test_limits_that_a_user_sets_hold_and_are_told(model: ServedModel) -> None:
    limits = Limits.asked(pairs=3, rows=4, upload_mib=1)
    with TestClient(create_app(replace(model, limits=limits)), base_url="http://localhost") as client:
        told = client.get("/api/health").json()["limits"]
        assert (told["pairs"], told["upload_rows"], told["upload_bytes"]) == (3, 4, 2**20)
        shape = client.get("/openapi.json").json()["components"]["schemas"]["PairsAsked"]
        assert shape["properties"]["pairs"]["maxItems"] == 3
        assert client.post("/api/predict", json={"pairs": [{"heavy": HEAVY}] * 3}).status_code == 200
        refused = [
            client.post("/api/predict", json={"pairs": [{"heavy": HEAVY}] * 4}),
            client.post("/api/predict-file", **upload(b"heavy\n" + f"{HEAVY}\n".encode() * 5)),
            client.post("/api/predict-file", **upload(b"x" * 2**20)),
        ]
    assert [answer.status_code for answer in refused] == [413] * 3
    words = ("at most 3 pairs", "at most 4 rows", "at most 1 MiB")
    assert all(word in answer.json()["message"] for word, answer in zip(words, refused, strict=True))


def test_more_pairs_may_be_asked_for_than_by_default(model: ServedModel) -> None:
    limits = Limits.asked(pairs=10_001)
    pairs = [{"heavy": "EVQL"}] * 10_001
    for served, status in ((model, 413), (replace(model, limits=limits), 200)):
        with TestClient(create_app(served), base_url="http://localhost") as client:
            assert client.post("/api/predict", json={"pairs": pairs}).status_code == status


# --- tables ------------------------------------------------------------------------------------------


def test_a_table_is_predicted_as_offline(client: TestClient, run: Path, table_file: Path) -> None:
    offline = tailbind.predict(run, table_file, device="cpu")
    answer = client.post("/api/predict-file", **upload(table_file.read_bytes()))
    assert answer.headers["content-type"].startswith("text/csv")
    found = pl.read_csv(answer.content, schema_overrides={"row_id": pl.String})
    assert found.columns == offline.columns
    assert found["predicted_pkd"].to_list() == pytest.approx(offline["predicted_pkd"].to_list())


def test_parquet_and_tsv_are_read_and_what_reading_did_is_told(client: TestClient, frame: pl.DataFrame) -> None:
    parquet, tsv = io.BytesIO(), io.BytesIO()
    some = frame.head(5).select("heavy", pl.col("light").str.to_lowercase())
    some.write_parquet(parquet)
    some.write_csv(tsv, separator="\t")
    answers = [
        client.post("/api/predict-file?format=json", **upload(file.getvalue(), name)).json()
        for file, name in ((parquet, "a.parquet"), (tsv, "C:\\my designs\\a.tsv"))
    ]
    assert answers[0]["predictions"] == answers[1]["predictions"]
    assert answers[1]["notes"][0] == "Read 5 rows from a.tsv."
    assert "Normalised 5 light sequences" in answers[1]["notes"][-1]


def test_no_cell_of_the_csv_is_a_formula(client: TestClient) -> None:
    rows = ["=1+2", "+cmd|' /C calc'!A0", "@SUM(A1)", "-2+3", "-5", "plain", "\t=1"]
    table = pl.DataFrame({"row_id": rows, "heavy": [HEAVY] * len(rows)}).write_csv().encode()
    answer = client.post("/api/predict-file", **upload(table))
    found = pl.read_csv(answer.content, schema_overrides={"row_id": pl.String})["row_id"].to_list()
    assert found == ["'=1+2", "'+cmd|' /C calc'!A0", "'@SUM(A1)", "'-2+3", "-5", "plain", "'=1"]


@pytest.mark.parametrize(
    ("content", "name", "status", "words"),
    [
        (b"PK\x03\x04" + b"x" * 50, "table.csv", 422, "it is a zip archive"),
        (b"PK\x03\x04", "table.zip", 422, "must end in .csv, .tsv, .txt or .parquet; got '.zip'"),
        (b"\x1f\x8b\x08" + b"x" * 50, "table.csv", 422, "it is a gzip file"),
        (b"x\x9c" + b"x" * 50, "table.csv", 422, "it is a zlib file"),
        (b"heavy\nEV\0QL", "table.csv", 422, "it has zero bytes"),
        ("heavy\nEVQLé".encode("latin-1"), "table.csv", 422, "must be UTF-8 text; byte 11 is not"),
        (b"", "table.csv", 422, "the file is empty"),
        (b"heavy\n", "table.csv", 422, "must hold rows; it has a header only"),
        (b"a,b\n1,2\n", "table.csv", 422, "must have antibody sequences in a column heavy or light"),
        (b"heavy\n" + b"E" * 10_000, "table.csv", 422, "heavy must have at most 1,000 letters; row 1 has 10,000"),
        (b"heavy," + b"x," * 6_000 + b"\nE", "table.csv", 422, "at most 5,000 columns"),
        (b"heavy\n1234567\n", "table.csv", 422, "must hold protein sequences in one-letter code"),
        (b"not parquet at all, by far", "table.parquet", 422, "must be a whole Parquet file"),
        (b"PAR1" + b"\0" * 40 + b"\x10\0\0\0PAR1", "table.parquet", 422, "must be a whole Parquet file"),
        (b"PAR1\0\0\0\0\xff\xff\xff\x7fPAR1", "table.parquet", 422, "must be a whole Parquet file"),
        (b"heavy\nEVQL", "../../../etc/passwd", 422, "got 'no ending'"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line_without_a_path(
    client: TestClient, content: bytes, name: str, status: int, words: str
) -> None:
    answer = client.post("/api/predict-file", **upload(content, name))
    assert answer.status_code == status
    message = answer.json()["message"]
    assert words in message
    assert not re.search(r"/tmp|upload-|\.\./|Traceback|\n", message)


def test_names_with_folders_are_only_names(client: TestClient, frame: pl.DataFrame, tmp_path: Path) -> None:
    content = frame.head(2).select("heavy").write_csv().encode()
    name = f"../../../../../../../..{tmp_path}/evil.csv"
    answer = client.post("/api/predict-file?format=json", **upload(content, name))
    assert answer.status_code == 200
    assert answer.json()["notes"][0] == "Read 2 rows from evil.csv."
    assert not list(tmp_path.iterdir())


def test_infinite_features_are_refused_and_nan_is_no_prediction(
    columns_model: ServedModel, frame: pl.DataFrame
) -> None:
    features = frame.head(3).select(pl.selectors.starts_with("esm2_pca_"))
    with TestClient(create_app(columns_model), base_url="http://localhost") as client:
        bad = features.with_columns(esm2_pca_1=pl.Series([1.0, float("inf"), 1.0])).write_csv().encode()
        answer = client.post("/api/predict-file", **upload(bad))
        assert answer.status_code == 422
        assert "finite" in answer.json()["message"]
        empty = features.with_columns(esm2_pca_1=pl.Series([1.0, float("nan"), 1.0])).write_csv().encode()
        answer = client.post("/api/predict-file?format=json", **upload(empty))
    found = [one["pkd"] for one in answer.json()["predictions"]] if answer.status_code == 200 else None
    assert answer.status_code == 422 or (found is not None and found[1] is None and found[0] is not None)


def test_a_table_with_too_many_rows_is_refused(run: Path, frame: pl.DataFrame) -> None:
    model = ServedModel.of_run(run, "cpu", Limits(upload_rows=10))
    some = frame.head(11).select("heavy")
    parquet = io.BytesIO()
    some.write_parquet(parquet)
    with TestClient(create_app(model), base_url="http://localhost") as client:
        for content, name in ((some.write_csv().encode(), "a.csv"), (parquet.getvalue(), "a.parquet")):
            answer = client.post("/api/predict-file", **upload(content, name))
            assert answer.status_code == 413
            assert "at most 10 rows" in answer.json()["message"]


# --- scans, card, health, metrics ----------------------------------------------------------------------


def test_a_scan_has_every_substitution(client: TestClient, frame: pl.DataFrame) -> None:
    pair = pairs_of(frame.head(1))[0]
    answer = client.post("/api/scan", json={**pair, "chains": ["heavy"]})
    assert answer.status_code == 200
    found = answer.json()
    assert len(found["substitutions"]) == 19 * len(pair["heavy"])
    assert {
        "chain",
        "position",
        "imgt",
        "region",
        "wild_type",
        "residue",
        "mutation",
        "predicted_pkd",
        "delta_pkd",
    } <= {*found["substitutions"][0]}
    assert found["wild_type"] == client.post("/api/predict", json={"pairs": [pair]}).json()["predictions"][0]


@pytest.mark.parametrize(
    ("asked", "path", "words"),
    [
        ({"heavy": HEAVY, "chains": ["light"]}, "light", "is empty"),
        ({"heavy": HEAVY, "chains": ["tail"]}, "chains[0]", "'heavy', 'light' or 'antigen'"),
        ({"heavy": HEAVY, "antigen": "E" * 1001, "chains": ["antigen"]}, "chains", "1,000 letters together"),
        ({"heavy": "EV QL?"}, "heavy", "got '?' at 5"),
    ],
)
def test_a_scan_that_cannot_be_is_refused(client: TestClient, asked: dict[str, Any], path: str, words: str) -> None:
    answer = client.post("/api/scan", json=asked)
    assert answer.status_code == 422
    (fault,) = answer.json()["fields"]
    assert fault["path"] == path
    assert words in fault["message"]


def test_the_card_is_the_run_s_own_or_its_figures(client: TestClient, run: Path, tmp_path: Path) -> None:
    card = client.get("/api/model-card").json()
    assert card["name"] == "ridge"
    own = run / "model_card.md"
    assert card["markdown"] == own.read_text() if own.exists() else "| all |" in card["markdown"]
    copy = tmp_path / "ridge"
    copy.mkdir()
    for file in run.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "model_card.md").write_text("# Its own card")
    assert ServedModel.of_run(copy, "cpu", Limits()).card == "# Its own card"
    (copy / "model_card.md").unlink()
    figures = ServedModel.of_run(copy, "cpu", Limits()).card
    assert re.search(r"\| all \| \d+ \| \d\.\d\d \|", figures)
    (copy / "metrics.json").unlink()
    assert "no figures yet" in ServedModel.of_run(copy, "cpu", Limits()).card
    assert "single checkpoint" in ServedModel.of_run(copy / "best_model_ridge.pth", "cpu", Limits()).card


def test_health_and_counts(client: TestClient) -> None:
    assert client.get("/api/health").json()["status"] == "ok"
    client.post("/api/predict", json={"pairs": [{"heavy": HEAVY}] * 3})
    client.get("/no/such/page")
    text = client.get("/metrics").text
    assert 'tailbind_requests_total{path="/api/predict",status="200"} 1.0' in text
    assert 'tailbind_requests_total{path="other",status="404"} 1.0' in text
    assert "tailbind_predictions_total 3.0" in text
    assert "tailbind_waiting_pairs 0.0" in text


def test_the_page_asks_for_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=|https?://", page.text)
    for address in re.findall(r'(?:src|href)="(/[^"]*)"', page.text):
        assert client.get(address).status_code == 200, address
    for name in ("page", "element", "results", "heatmap", "card"):
        assert "innerHTML" not in client.get(f"/static/{name}.js").text


# --- keys, hosts, load, mistakes of its own --------------------------------------------------------------


def test_a_key_is_asked_for_and_never_told(model: ServedModel) -> None:
    key = "correct-horse-battery"
    asked = {"pairs": [{"heavy": HEAVY}]}
    with TestClient(create_app(model, key=key), base_url="http://localhost") as client:
        for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Basic x"}, {"authorization": f"Bearer {key}x"}):
            answer = client.post("/api/predict", json=asked, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert key not in answer.text
        for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
            assert client.post("/api/predict", json=asked, headers=headers).status_code == 200
        assert client.get("/metrics").status_code == client.get("/api/model-card").status_code == 401
        assert client.get("/").status_code == client.get("/api/health").status_code == 200
        assert key not in client.get("/openapi.json").text


@pytest.mark.parametrize(("host", "status"), [("evil.example", 421), ("127.0.0.1:8000", 200), ("[::1]:80", 421)])
def test_only_its_own_hosts_are_answered(client: TestClient, host: str, status: int) -> None:
    assert client.get("/api/health", headers={"host": host}).status_code == status


def test_a_full_queue_says_when_to_come_again(model: ServedModel) -> None:
    app = create_app(model)
    with TestClient(app, base_url="http://localhost") as client:

        async def busy(*_: object) -> None:
            raise BusyError(7)

        api = app.state.api
        api.batcher.predict = busy
        api.jobs.do = busy
        for answer in (
            client.post("/api/predict", json={"pairs": [{"heavy": HEAVY}]}),
            client.post("/api/predict-file", **upload(b"heavy\nEVQL")),
        ):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "7"


def test_a_mistake_of_its_own_tells_nothing(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(model_room, "answers", broken)
    answer = client.post("/api/predict", json={"pairs": [{"heavy": HEAVY}]})
    assert answer.status_code == 500
    assert answer.json() == {"message": "The server could not compute this. Its log says why.", "fields": []}


def test_the_openapi_document_names_every_status(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    posts = [path["post"] for path in document["paths"].values() if "post" in path]
    assert len(posts) == 3
    for operation in posts:
        assert {"200", "400", "408", "413", "421", "422", "503"} <= set(operation["responses"])
    assert "HTTPValidationError" not in json.dumps(document)
