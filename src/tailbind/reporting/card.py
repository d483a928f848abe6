"""A run's model card: what it is, learned from and is good for, as Markdown with metadata that Hugging Face reads."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tailbind.evaluation.criteria import MEASURED_ROWS, metric_label, of_rows
from tailbind.evaluation.metrics import OVERALL, figure
from tailbind.reporting.intervals import interval_tables
from tailbind.reporting.limits import file_name, limits, without_folder
from tailbind.reporting.report import audit_table, labels_table, leakage_table, parts_table, run_report
from tailbind.reporting.tables import (
    NOTHING,
    Table,
    as_stated_tables,
    bin_table,
    binders_table,
    censored_table,
    criteria_table,
    interval_text,
    number,
    overall_table,
)
from tailbind.scale import BIN_NAMES, bin_label

#: What the card leaves to whoever shares the model stands behind this word.
TO_FILL_IN: Final = "To fill in"
_LICENCE: Final = (
    f"# {TO_FILL_IN}: an identifier of https://huggingface.co/docs/hub/repositories-licenses in place of unknown.\n"
    "license: unknown\n"
)
#: Metric → Hugging Face's name for it.
HUB_METRICS: Final = {"rmse": "rmse", "mae": "mae", "spearman": "spearmanr", "pearson": "pearsonr", "r2": "r_squared"}
#: Kinds of feature blocks that number antibodies, where they are not told not to.
NUMBERING: Final = ("sites", "descriptors", "residues")
#: Kinds of feature blocks that read columns of the table, not sequences.
OF_THE_TABLE: Final = ("columns", "category")
#: Findings of the audit that a card shows at most, errors and warnings alone.
_MOST_FINDINGS: Final = 20


def model_card(metrics: Mapping[str, Any], config: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """Return a run's model card; files are named without their folders.

    Parameters
    ----------
    metrics, config, environment : contents of the run's JSON files of these names, with the file's own numbers: what is
        no finite number is None
    """
    report = run_report(metrics, title="", subtitle="", pictures={}, steps=(), facts=())
    name = config["name"]
    sections = [
        f"# {name}: how strongly an antibody binds its antigen",
        f"{_sentence(config['description'])} It predicts pKd = −log10(Kd in mol/L) of antibody–antigen pairs; larger "
        "is stronger, and 9 is 1 nM. Trained, evaluated and described by tailbind; every figure below "
        "is from this training.",
        report.headline,
        f"> **{TO_FILL_IN}** by whoever shares this model, for tailbind cannot know it: the licence (here and in the "
        "first lines of this file), what to cite for the data, and whom to ask.",
        "## Intended use",
        _uses(config),
        "## Limits",
        "\n".join(f"- {line}" for line in limits(metrics, config, environment)),
        "## How to use it",
        _commands(config, environment),
        "## Training data",
        *_data(metrics, environment),
        "## Split and leakage",
        _split(metrics, config),
        leakage_table(metrics["leakage"]).markdown(),
        "## Results",
        *(table.markdown() for table in _results(metrics)),
        *_calibration(metrics.get("calibration")),
        "## Training",
        _training(metrics, config, environment),
        *(table.markdown() for table in parts_table(metrics.get("parts"))),
        "## Licence, citation and contact",
        f"- Licence of the model: **{TO_FILL_IN}**. The terms of the training data may decide it.\n"
        f"- Data, to be cited: **{TO_FILL_IN}**, for each of {_names(environment)}.\n"
        f"- Contact: **{TO_FILL_IN}**.",
    ]
    return _front_matter(metrics, config, environment) + "\n\n".join(part.strip() for part in sections) + "\n"


def bare_card(config: Mapping[str, Any]) -> str:
    """Return the card of a model of which nothing is known but its recipe: its figures are lost, or of an older form.

    Parameters
    ----------
    config : content of the run's JSON file of this name
    """
    document = {"library_name": "tailbind", "pipeline_tag": "tabular-regression", "tags": ["biology", "antibody"]}
    environment = {"columns": dict.fromkeys(("heavy", "light", "antigen")), "versions": {}}
    sections = [
        f"# {config['name']}: how strongly an antibody binds its antigen",
        f"{_sentence(config['description'])} It predicts pKd = −log10(Kd in mol/L) of antibody–antigen pairs.",
        "## Intended use",
        _uses(config),
        "## Limits",
        "- **How good it is, and on what it was trained, is not told here**: the run's figures are missing, or of an "
        "earlier tailbind. Hold it against measurements of your own before you rely on it.",
        "## How to use it",
        _commands(config, environment),
        f"Licence, citation of the data, contact: **{TO_FILL_IN}**.",
    ]
    return f"---\n{_LICENCE}{_yaml(document)}\n---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(metrics: Mapping[str, Any], config: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """Return the metadata as YAML, figures as the hub's `model-index` has them."""
    test = of_rows(metrics["test"], metrics["criteria"]["rows"])
    intervals = test.get("intervals") or {}
    flat = [(metric, HUB_METRICS[metric], intervals.get(metric)) for metric in OVERALL]
    of_bins = intervals.get("bins") or {}
    flat += [(f"{name}.rmse", "rmse", (of_bins.get(name) or {}).get("rmse")) for name in BIN_NAMES]
    figures = []
    for metric, kind, interval in flat:
        if (value := figure(test, metric)) is not None:
            limits_text = f" (95 % interval {interval_text(interval)})" if interval else ""
            figures.append({"type": kind, "name": metric_label(metric) + limits_text, "value": round(value, 4)})
    which = "measured rows of the test part" if metrics["criteria"]["rows"] == MEASURED_ROWS else "test part"
    data = {
        "name": f"{', '.join(_files(environment))}, {which}",
        "type": _slug(_files(environment)[0]),
        "split": "test",
        "revision": str(environment["data_sha256"]),
    }
    task = {"type": "tabular-regression", "name": "Antibody–antigen affinity (pKd)"}
    document = {
        "library_name": "tailbind",
        "pipeline_tag": "tabular-regression",
        "tags": ["biology", "antibody", "antigen", "binding-affinity", "regression", _slug(config["model"]["kind"])],
        "model-index": [{"name": config["name"], "results": [{"task": task, "dataset": data, "metrics": figures}]}],
    }
    return f"---\n{_LICENCE}{_yaml(document)}\n---\n\n"


def _yaml(value: Any, indent: str = "") -> str:
    """Return mappings, lists and plain values as YAML; text is quoted as JSON quotes it, which YAML reads, too.

    >>> print(_yaml({"tags": ["a: b"], "results": [{"n": 1, "of": {"x": 0.5}}]}))
    tags:
    - "a: b"
    results:
    - n: 1
      of:
        x: 0.5
    """
    lines = []
    if isinstance(value, Mapping):
        for key, item in value.items():
            nested = isinstance(item, Mapping | list)
            deeper = indent + ("  " if isinstance(item, Mapping) else "")
            lines.append(f"{indent}{key}:" + (f"\n{_yaml(item, deeper)}" if nested else f" {_scalar(item)}"))
    else:
        for item in value:
            text = _yaml(item, f"{indent}  ").lstrip() if isinstance(item, Mapping) else _scalar(item)
            lines.append(f"{indent}- {text}")
    return "\n".join(lines)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        value = "".join(letter if letter.isprintable() else " " for letter in value)
    return json.dumps(value, ensure_ascii=False)


def _slug(text: str) -> str:
    """Return text as a name on the hub: lower case, words joined by hyphens.

    >>> _slug("My table (v2).csv"), _slug("…")
    ('my-table-v2-csv', 'table')
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "table"


def _uses(config: Mapping[str, Any]) -> str:
    reads = _reads_sequences(config)
    flagged = (
        " The column `unseen` of its predictions names what of a row training never saw: trust these less."
        if reads
        else ""
    )
    return (
        "To rank and to choose among antibodies like those it learned from, against antigens like those it learned "
        "from, before they are measured. A prediction is a reason to measure, not a measurement.\n\n"
        "Not for antibodies or antigens unlike those of training without measurements of one's own to check it by, nor "
        "for what is no affinity: kinetics, specificity, stability, expression, immunogenicity; nor for decisions "
        f"about patients.{flagged}"
    )


def _reads_sequences(config: Mapping[str, Any]) -> bool:
    return any(block["kind"] not in OF_THE_TABLE for block in config["features"].values())


def _commands(config: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """Return how to predict, with what has to be installed for it."""
    blocks = config["features"].values()
    extras = ["sequences"] if any(b["kind"] in NUMBERING and b.get("numbering", True) for b in blocks) else []
    extras += ["language-model"] if any(block.get("encoder") for block in blocks) else []
    package = f"'tailbind[{','.join(extras)}]'" if extras else "tailbind"
    reads = []
    if _reads_sequences(config):
        chains = [chain for chain in ("heavy", "light", "antigen") if chain in environment["columns"]]
        reads.append(f"the sequences {', '.join(f'`{chain}`' for chain in chains)} in one-letter code")
    if any(block["kind"] == "columns" for block in blocks):
        reads.append("the numbered feature columns that it was trained on, in any order")
    reads += [f"the column `{block['column']}`" for block in blocks if block["kind"] == "category"]
    version = environment["versions"].get("tailbind")
    return (
        "`RUN` is the folder with this card.\n\n"
        f"```sh\npip install {package}\ntailbind predict RUN pairs.csv --out predictions.csv\n"
        "tailbind evaluate RUN measured.csv        # how it does on measurements of your own\n```\n\n"
        '```python\nimport tailbind\n\npredictions = tailbind.predict("RUN", "pairs.csv")\n```\n\n'
        f"`pairs.csv` (or TSV, or Parquet) has a row per pair and {'; '.join(reads)}."
        + (f" Trained with tailbind {version}." if version else "")
    )


def _data(metrics: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    """Return which files it learned from, and what is known to be wrong with them."""
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in environment["dropped"].items() if count)
    taken = ", ".join(f"`{own}` as {name}" for name, own in environment["columns"].items() if own != name)
    counts = ", ".join(f"{bin_label(name)}: {count:,}" for name, count in metrics["train"]["bins"].items())
    lines = [
        ("Files", _names(environment)),
        ("SHA-256 of their content", f"`{environment['data_sha256']}`"),
        ("Rows", f"{environment['n_read']:,} read; dropped: {dropped or 'none'}"),
        ("Columns", taken or "under tailbind's own names"),
        (
            "Labels of training rows",
            f"mean pKd {number(metrics['train']['label_mean'], 2)}, SD {number(metrics['train']['label_sd'], 2)}",
        ),
        ("Training rows by affinity bin (pKd)", counts),
        *([("Remarks of reading", " ".join(environment["notes"]))] if environment["notes"] else []),
    ]
    tables = [labels_table(metrics["labels"], metrics.get("audit")), *audit_table(_worst(metrics.get("audit")))]
    return [_facts(lines), *(table.markdown() for table in tables)]


def _worst(audit: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return an audit with its gravest findings alone, as many as a person reads."""
    if audit is None:
        return None
    order = {"error": 0, "warning": 1}
    grave = [entry for entry in audit["findings"] if entry["severity"] in order]
    return {**audit, "findings": sorted(grave, key=lambda entry: order[entry["severity"]])[:_MOST_FINDINGS]}


def _split(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    split, calibration = config["split"], metrics.get("calibration") or {}
    of_folds = {"fold"} if split.get("n_folds") else set()
    options = {
        key: value
        for key, value in split.items()
        if key in {"seed", *of_folds} or (key != "kind" and value not in ("", 0, None))
    }
    listing = ", ".join(f"{key} {value}" for key, value in options.items())
    again = any("n_refitted" in part for part in metrics.get("parts", {}).values())
    apart = calibration.get("calibrated_on") == "own"
    n = {part: metrics[part]["n"] for part in ("train", "validation", "test")}
    purposes = [
        f"{n['train']:,} rows to learn from",
        f"{n['validation']:,} to choose by{' and then to learn from too' if again else ''}",
        *([f"{calibration['n_calibration']:,} to calibrate intervals"] if apart else []),
        f"{n['test']:,} to test by",
    ]
    return (
        f"Split `{split['kind']}`{f' ({listing})' if listing else ''}: {', '.join(purposes)}. "
        "Test rows were looked at once, at the end."
    )


def _results(metrics: Mapping[str, Any]) -> list[Table]:
    test, criteria, ridge = metrics["test"], metrics["criteria"], metrics["baselines"]["ridge"]
    return [
        overall_table(metrics),
        bin_table(metrics),
        *censored_table(test, ridge, criteria["rows"]),
        *as_stated_tables(metrics),
        *binders_table(test, ridge),
        criteria_table(criteria),
    ]


def _calibration(figures: Mapping[str, Any] | None) -> list[str]:
    """Return what intervals held, and which probabilities came true; nothing where there are none."""
    return [table.markdown() for table in interval_tables(figures)]


def _figure(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "":
        return NOTHING
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return " to ".join(map(_figure, value))
    return number(value) if isinstance(value, float) else str(value)


def _training(metrics: Mapping[str, Any], config: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    changes = [f"`--set {without_folder(change)}`" for change in environment["overrides"]]
    lines = [
        ("Recipe", " ".join([f"`{config['name']}`", *changes])),
        ("Model", _section(config["model"])),
        ("Features", "; ".join(_section(block, name) for name, block in config["features"].items())),
        *((name.capitalize(), _section(config[name])) for name in ("loss", "optimizer", "schedule") if name in config),
        *([("Parameters", f"{metrics['parameters']:,}")] if metrics.get("parameters") else []),
    ]
    if metrics["epochs"]:
        best = f"; best on validation: {metrics['best_epoch']}" if "best_epoch" in metrics else ""
        batch = f"; batches of {metrics['batch_size']:,}" if "batch_size" in metrics else ""
        lines.append(("Epochs", f"{metrics['epochs']:,}{best}{batch}"))
    seed = config["split"].get("seed")
    lines += [
        ("Time", f"{metrics['seconds']:,.1f} s"),
        ("Random seeds", f"training {environment['seed']}, split {'none' if seed is None else seed}"),
        ("Device", environment["device"]),
        ("Python", f"{environment['python']} on {environment['platform'].partition('-')[0]}"),
        ("Versions", ", ".join(f"{package} {version}" for package, version in environment["versions"].items())),
    ]
    return _facts(lines)


def _section(section: Mapping[str, Any], name: str = "") -> str:
    """Return a section of a recipe in words: its kind and what is set in it."""
    options = ", ".join(
        f"{key} {without_folder(json.dumps(value, ensure_ascii=False).strip(chr(34)))}"
        for key, value in section.items()
        if key not in ("kind", "seed") and value not in ("", None, False)
    )
    kind = section["kind"].replace("_", " ")
    title = kind if name in ("", section["kind"]) else f"{name} ({kind})"
    return f"{title}: {options}" if options else title


def _facts(lines: Sequence[tuple[str, str]]) -> str:
    rows = "\n".join(f"| {name} | {' '.join(text.split()).replace('|', chr(92) + '|')} |" for name, text in lines)
    return f"| | |\n|---|---|\n{rows}"


def _sentence(text: str) -> str:
    """Return text with a full stop at its end.

    >>> _sentence("A blend"), _sentence("")
    ('A blend.', '')
    """
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def _files(environment: Mapping[str, Any]) -> list[str]:
    """Return the names of the files it learned from, without their folders."""
    return [file_name(path) for path in environment["data"]]


def _names(environment: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name.replace('`', chr(39))}`" for name in _files(environment))
