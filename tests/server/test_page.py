"""The page in a real browser: typed and uploaded, seen and downloaded, wrong and by keyboard, wide and narrow."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from playwright import sync_api as playwright

from tailbind.server.app import create_app
from tailbind.server.limits import Limits
from tailbind.server.model import ServedModel

from .conftest import LOCAL, listening

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

CHAINS = ("heavy", "light", "antigen")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 375, "height": 720}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        one = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture
def address(model: ServedModel) -> Iterator[str]:
    with listening(create_app(model, hosts=LOCAL), model.limits) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    yield from opened(browser, address, WIDE)


def opened(browser: Any, address: str, size: dict[str, int]) -> Iterator[Any]:
    """Yield the page, on which nothing may go wrong that is not an answer of the server's."""
    context = browser.new_context(viewport=size, accept_downloads=True)
    one = context.new_page()
    wrong: list[str] = []
    elsewhere: list[str] = []
    one.on("pageerror", lambda error: wrong.append(str(error)))
    one.on("console", lambda said: wrong.append(said.text) if "Security Policy" in said.text else None)
    own = (address, "blob:")
    one.on("request", lambda asked: None if asked.url.startswith(own) else elsewhere.append(asked.url))
    one.goto(address)
    one.wait_for_selector("#model:not([hidden])")
    yield one
    context.close()
    assert not wrong
    assert not elsewhere


def fill(page: Any, pair: dict[str, Any]) -> None:
    for chain in CHAINS:
        page.fill(f"#{chain}", pair[chain])


def test_a_pair_is_typed_and_predicted(page: Any, frame: pl.DataFrame, model: ServedModel) -> None:
    pair = frame.row(3, named=True)
    fill(page, pair)
    page.click("#predict")
    page.wait_for_selector("#predictions tbody tr")
    assert page.inner_text("#status") == "Done: one pair predicted."
    from tailbind.server.checking import Pairs

    (offline,) = model.predict_pairs(Pairs({chain: (pair[chain],) for chain in CHAINS}))
    assert page.inner_text("#predictions tbody td:nth-child(2)") == f"{offline['pkd']:.2f}"
    assert page.locator("#predictions svg rect").count() >= 1


def test_intervals_are_shown_with_their_level(page: Any, frame: pl.DataFrame, model: ServedModel) -> None:
    assert model.level is not None
    fill(page, frame.row(3, named=True))
    page.click("#predict")
    page.wait_for_selector("#predictions tbody tr")
    title = f"{100 * model.level:g} % interval"
    assert title in page.locator("#predictions thead th").all_inner_texts()
    assert title in page.inner_text("#predictions .figure")


def test_a_mistake_is_told_beside_its_field_and_goes_away(page: Any, frame: pl.DataFrame) -> None:
    pair = frame.row(3, named=True)
    fill(page, {**pair, "heavy": pair["heavy"][:20] + "X", "antigen": "B4"})
    page.click("#predict")
    page.wait_for_selector("#heavy[aria-invalid=true]")
    assert page.inner_text("#heavy-error").endswith("got 'X' at 21.")
    assert page.inner_text("#antigen-error").endswith("got 'B' at 1, '4' at 2.")
    assert page.inner_text("#light-error") == ""
    assert page.evaluate("document.activeElement.id") == "heavy"
    assert page.inner_text("#status") == "Please correct what is marked."
    fill(page, pair)
    page.click("#predict")
    page.wait_for_selector("#predictions tbody tr")
    assert page.locator("[aria-invalid]").count() == 0
    assert page.inner_text("#heavy-error") == ""


def test_a_table_is_uploaded_and_its_predictions_downloaded(page: Any, table_file: Path, frame: pl.DataFrame) -> None:
    page.set_input_files("#file", table_file)
    page.click("#predict-table")
    page.wait_for_selector("#predictions tbody tr")
    assert page.inner_text("#predictions h2") == "400 predictions"
    assert "Read 400 rows from table.csv." in page.inner_text("#predictions")
    with page.expect_download() as download:
        page.click("#download-predictions")
    saved = pl.read_csv(download.value.path())
    assert download.value.suggested_filename == "predictions.csv"
    assert len(saved) == len(frame)
    assert {"row_id", "pkd", "kd_nm", "affinity_bin"} <= set(saved.columns)


def test_a_table_is_pasted_and_no_formula_of_it_is_downloaded(page: Any, frame: pl.DataFrame) -> None:
    some = frame.head(3).select(pl.Series("row_id", ["=1+1", "<b>x</b>", "a,b"]), "heavy", "light")
    page.fill("#pasted", some.write_csv(separator="\t"))
    page.click("#predict-table")
    page.wait_for_selector("#predictions tbody tr")
    assert page.locator("#predictions tbody td:first-child").all_inner_texts() == ["=1+1", "<b>x</b>", "a,b"]
    with page.expect_download() as download:
        page.click("#download-predictions")
    assert pl.read_csv(download.value.path())["row_id"].to_list() == ["'=1+1", "<b>x</b>", "a,b"]
    page.fill("#pasted", "a,b\n1,2\n")
    page.click("#predict-table")
    page.wait_for_selector("#pasted[aria-invalid=true]")
    assert "heavy or light" in page.inner_text("#pasted-error")


def test_a_file_that_is_no_table_is_told_beside_the_field(page: Any, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04")
    page.set_input_files("#file", tmp_path / "x.zip")
    page.click("#predict-table")
    page.wait_for_selector("#file[aria-invalid=true]")
    assert "Must end in .csv" in page.inner_text("#file-error")


def test_a_scan_is_a_map_that_the_arrow_keys_move_through(page: Any, frame: pl.DataFrame) -> None:
    pair = frame.row(3, named=True)
    fill(page, pair)
    page.click("#scan")
    page.wait_for_selector("#substitutions [role=grid]", timeout=60_000)
    letters = len(pair["heavy"])
    assert page.inner_text("#substitutions h2") == f"{19 * letters:,} substitutions"
    assert page.locator("#map td").count() == 20 * letters
    assert page.locator("#map td.own").count() == letters
    page.locator("#map td[tabindex='0']").focus()
    first = page.inner_text("#readout")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    second = page.inner_text("#readout")
    assert second != first
    assert f":{pair['heavy'][1]}2A" in second
    assert "ΔpKd" in second
    page.keyboard.press("End")
    assert f"{pair['heavy'][-1]}{letters}" in page.inner_text("#readout")
    coloured = page.evaluate("getComputedStyle(document.querySelector('#map td:not(.own)')).backgroundColor")
    assert coloured.startswith("rgb(")
    with page.expect_download() as download:
        page.click("#download-scan")
    assert len(pl.read_csv(download.value.path(), infer_schema_length=None)) == 19 * letters


def test_it_can_be_used_by_keyboard_alone(page: Any, frame: pl.DataFrame) -> None:
    pair = frame.row(5, named=True)

    def tab_to(name: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == name:
                return
        raise AssertionError(f"{name} is not reached by Tab")

    for chain in CHAINS:
        tab_to(chain)
        page.keyboard.insert_text(pair[chain])
    tab_to("predict")
    page.keyboard.press("Enter")
    page.wait_for_selector("#predictions tbody tr")
    assert page.evaluate("document.activeElement.id") == "answer"
    tab_to("download-predictions")
    with page.expect_download():
        page.keyboard.press("Enter")


def test_a_narrow_screen_scrolls_one_way_only(browser: Any, address: str, frame: pl.DataFrame) -> None:
    for page in opened(browser, address, NARROW):
        fill(page, frame.row(3, named=True))
        page.click("#scan")
        page.wait_for_selector("#substitutions [role=grid]", timeout=60_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        assert page.locator("#map").evaluate("map => map.scrollWidth > map.clientWidth")
        for button in ("#predict", "#scan", "#predict-table", "#download-scan"):
            assert page.locator(button).bounding_box()["height"] >= 44


def test_the_card_is_shown_as_text(page: Any) -> None:
    page.click("summary")
    page.wait_for_selector("#card-text h2")
    assert page.locator("#card-text table").count() >= 1
    assert "RMSE" in page.inner_text("#card-text")


def test_a_key_is_asked_for(browser: Any, model: ServedModel, frame: pl.DataFrame) -> None:
    app = create_app(model, key="correct-horse-battery", hosts=LOCAL)
    with listening(app, model.limits) as port:
        for page in opened(browser, f"http://127.0.0.1:{port}", WIDE):
            fill(page, frame.row(3, named=True))
            page.click("#predict")
            page.wait_for_selector("#key[aria-invalid=true]")
            assert page.inner_text("#key-error") == "The server needs a key."
            page.fill("#key", "correct-horse-battery")
            page.keyboard.press("Enter")
            page.click("#predict")
            page.wait_for_selector("#predictions tbody tr")


def test_a_model_of_columns_shows_the_table_alone(browser: Any, columns_model: ServedModel, table_file: Path) -> None:
    with listening(create_app(columns_model, hosts=LOCAL), Limits()) as port:
        for page in opened(browser, f"http://127.0.0.1:{port}", WIDE):
            assert not page.is_visible("#pair-form")
            page.set_input_files("#file", table_file)
            page.click("#predict-table")
            page.wait_for_selector("#predictions tbody tr")
