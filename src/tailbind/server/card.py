"""The model card that is shown: the run's own, or what its figures say where it has none."""

from pathlib import Path
from typing import Any

from tailbind.errors import RunError
from tailbind.predictor import Predictor
from tailbind.run_folder import RunFolder, open_run


def card_of(run: Path, predictor: Predictor) -> str:
    """Return the card of a run folder, or of the checkpoint of one, in Markdown."""
    if run.is_file():
        return f"# {predictor.checkpoint.recipe_name}\n\nA single checkpoint: the figures are in its run folder.\n"
    folder = open_run(run)
    if folder.model_card.is_file():
        return folder.model_card.read_text(encoding="utf-8", errors="replace")
    return _from_figures(folder)


def _from_figures(folder: RunFolder) -> str:
    """Return a short card from `config.json` and `metrics.json`."""
    config = folder.read_json(folder.config)
    lines = [f"# {folder.name}", "", str(config.get("description", "")), ""]
    try:
        metrics = folder.read_json(folder.metrics)
    except RunError:
        return "\n".join([*lines, "The run has not finished: there are no figures yet.", ""])
    test, split = metrics["test"], config.get("split", {})
    lines += [
        "## What it was trained on",
        "",
        f"{metrics['train']['n']:,} rows, with {test['n']:,} kept apart to test it (split: {split.get('kind', '?')}).",
        "",
        "## How good it is",
        "",
        "| Test rows | n | RMSE | MAE | Spearman |",
        "|---|---|---|---|---|",
        _row("all", test),
        *(_row(name.replace("_", " "), figures) for name, figures in test["bins"].items() if figures),
        *(
            _row(f"baseline: {name.replace('_', ' ')}", figures)
            for name, figures in metrics["baselines"].items()
            if figures
        ),
        "",
        "## What it is not for",
        "",
        "Antibodies and antigens unlike those of training. pKd is −log10(Kd in mol/L): larger binds more strongly.",
        "",
    ]
    return "\n".join(lines)


def _row(name: str, figures: dict[str, Any]) -> str:
    cells = [_number(figures.get(key)) for key in ("rmse", "mae", "spearman")]
    return f"| {name} | {figures['n']:,} | {' | '.join(cells)} |"


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else "–"
