"""The model card: metadata that Hugging Face reads, every figure of the run, no folder of the machine."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

import tailbind
from tailbind.reporting.card import TO_FILL_IN, model_card

Files = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def run(simulated_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tailbind.RunSummary:
    out = tmp_path_factory.mktemp("card") / "ridge"
    return tailbind.train(simulated_csv, recipe="ridge-columns", out=out, device="cpu")


@pytest.fixture
def files(run: tailbind.RunSummary) -> Files:
    """The JSON files that a card is made of, to be changed at will."""
    return {name: json.loads((run.path / f"{name}.json").read_text()) for name in ("metrics", "config", "environment")}


def head(text: str) -> dict[str, Any]:
    """Return the metadata of a card."""
    _, metadata, _ = text.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(metadata)
    return found


def test_a_run_ends_with_its_card(run: tailbind.RunSummary, files: Files) -> None:
    assert (run.path / "model_card.md").read_text() == model_card(**files)


def test_the_hub_s_own_reader_takes_it(run: tailbind.RunSummary) -> None:
    card = ModelCard.load(run.path / "model_card.md")
    results = {(entry.metric_type, entry.metric_name): entry for entry in card.data.eval_results}
    assert card.data.model_name == "ridge-columns"
    assert card.data.library_name == "tailbind"
    assert card.data.license == "unknown"
    overall = next(entry for (kind, name), entry in results.items() if kind == "rmse" and name.startswith("RMSE"))
    assert overall.metric_value == pytest.approx(run.metrics["test"]["rmse"], abs=5e-5)
    assert overall.dataset_name == "simulated.csv, test part"
    assert "95 % interval" in overall.metric_name
    assert {kind for kind, _ in results} == {"rmse", "mae", "spearmanr", "pearsonr", "r_squared"}


def test_every_section_of_a_card_is_there(files: Files) -> None:
    text = model_card(**files)
    for title in (
        "Intended use", "Limits", "How to use it", "Training data", "Split and leakage", "Results", "Training",
        "Licence, citation and contact",
    ):  # fmt: skip
        assert f"\n## {title}\n" in text
    test, ridge = files["metrics"]["test"], files["metrics"]["baselines"]["ridge"]
    low, high = test["intervals"]["rmse"]
    assert f"| RMSE | {test['rmse']:.3f} | {low:.3f} to {high:.3f} |" in text
    assert f"| {ridge['rmse']:.3f} |" in text
    assert files["environment"]["data_sha256"] in text
    assert f"{files['environment']['n_read']:,} read; dropped: 1" in text
    assert "tailbind predict RUN pairs.csv --out predictions.csv" in text
    assert text.count(f"**{TO_FILL_IN}**") == 4


def test_no_folder_of_the_machine_is_in_it(files: Files, simulated_csv: Path) -> None:
    assert str(simulated_csv.parent) in json.dumps(files)
    files["environment"]["data"].append("C:\\Users\\me\\more.csv")
    files["environment"]["overrides"] = ["features.lm.encoder=/home/me/esm2", 'features.lm.store="~/vectors"']
    files["config"]["features"]["lm"] = {"kind": "language_model", "encoder": "/home/me/esm2", "store": "~/vectors"}
    text = model_card(**files)
    for place in (str(simulated_csv.parent), "/home", "Users", "~/"):
        assert place not in text
    assert "`simulated.csv`, `more.csv`" in text
    assert "features.lm.encoder=esm2" in text


def test_odd_names_leave_the_metadata_readable(files: Files) -> None:
    files["environment"]["data"] = ['/x/a: "b" #c\n---\n|d`e.csv']
    files["config"]["name"] = "mine: yes"
    files["config"]["description"] = "---\n# not a title"
    text = model_card(**files)
    found = head(text)
    assert found["model-index"][0]["name"] == "mine: yes"
    assert found["model-index"][0]["results"][0]["dataset"]["name"].startswith('a: "b" #c ---')
    assert ModelCard(text).data.model_name == "mine: yes"


def test_what_intervals_held_is_shown(files: Files) -> None:
    files["metrics"]["calibration"] = None
    assert "Intervals that are to hold" not in model_card(**files)
    weak = {"n": 1234, "coverage": 0.9, "width": 0.71, "median_width": None}
    files["metrics"]["calibration"] = {
        "level": 0.9,
        "calibrated_on": "out_of_fold",
        "n_calibration": 321,
        "landscapes": 0,
        "coverage": {"measured": weak, "censored": None, "bins": {"very_weak": None, "weak": weak}},
        "probabilities": {"p_above_9": {"n": 10, "ece": 0.013, "steps": []}},
    }
    text = model_card(**files)
    assert "### Intervals that are to hold 90 %" in text
    for line in (
        "| Measured very weak (< 5) | 0 | – | – | – |",
        "| Measured weak (5–7) | 1,234 | 90.0 % | 0.71 | – |",
        "| pKd above 9 | 10 | 0.013 | – | – |",
        "Calibrated on 321 training and validation rows",
    ):
        assert line in text


def test_figures_that_there_are_not_are_left_out_of_the_metadata(files: Files) -> None:
    for metric in ("spearman", "pearson"):
        files["metrics"]["test"][metric] = None
    files["metrics"]["test"]["bins"]["very_strong"] = None
    figures = head(model_card(**files))["model-index"][0]["results"][0]["metrics"]
    assert {entry["type"] for entry in figures} == {"rmse", "mae", "r_squared"}
    assert not any("Very strong" in entry["name"] for entry in figures)


def test_the_card_of_a_run_on_sequences_says_what_it_reads(files: Files) -> None:
    files["config"]["features"] = {
        "sites": {"kind": "sites", "identity": 0.9, "numbering": True},
        "lm": {"kind": "language_model", "encoder": "facebook/esm2_t6_8M_UR50D"},
        "source": {"kind": "category", "column": "source"},
    }
    text = model_card(**files)
    assert "pip install 'tailbind[sequences,language-model]'" in text
    assert "the sequences `heavy`, `light`, `antigen` in one-letter code; the column `source`" in text
    assert "**Needs the encoder** facebook/esm2_t6_8M_UR50D, which" in text
    assert "The column `unseen` of its predictions" in text
    plain = copy.deepcopy(files)
    plain["config"]["features"] = {"sites": {"kind": "sites", "numbering": False}}
    assert "pip install tailbind\n" in model_card(**plain)


def test_at_most_twenty_findings_are_shown_the_gravest_first(files: Files) -> None:
    finding = {"source": "s", "n_rows": 7}
    files["metrics"]["audit"]["findings"] = [
        *({**finding, "rule": f"note_{i}", "severity": "info"} for i in range(9)),
        *({**finding, "rule": f"warned_{i}", "severity": "warning"} for i in range(30)),
        {**finding, "rule": "wrong_unit", "severity": "error"},
    ]
    text = model_card(**files)
    table = text.partition("### What the audit found in the table")[2].partition("Training left")[0]
    assert table.count("| s |") == 20
    assert table.index("wrong unit") < table.index("warned 0")
    assert "note" not in table
