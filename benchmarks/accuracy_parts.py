"""The three parts of the accuracy benchmark: which rows, which figures, which page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from benchmarks.accuracy_figures import (
    ABSOLUTE,
    BINS,
    ONE_SIDED,
    RELATIVE,
    Figure,
    Labels,
    Scores,
    averaged,
    over_landscapes,
    pool_scores,
    scores,
)
from benchmarks.accuracy_pages import (
    HELD,
    bins_table,
    cell,
    held_table,
    overall_table,
    predicted_bins_table,
    relative_note,
    retrieval_table,
    seconds_table,
    splits_table,
)
from benchmarks.accuracy_pictures import Panel, forest
from benchmarks.accuracy_runs import Bench, Data, Outcome, Task
from matplotlib.figure import Figure as Page
from numpy.typing import NDArray

from tailbind.evaluation.metrics import rmse, spearman
from tailbind.evaluation.retrieval import THRESHOLDS
from tailbind.reporting.tables import Table
from tailbind.scale import BIN_NAMES, bin_label
from tailbind.table.grouping import find_families, numbered, pair_index
from tailbind.table.schema import AffinityTable
from tailbind.table.splitting import TEST, TRAIN, VALIDATION, GroupSplit, PairSplit, RandomSplit, part_rows

Array = NDArray[np.float64]
Outcomes = Sequence[Mapping[str, Outcome]]
#: Landscape, training rows, repeat.
Key = tuple[str, int, int]

#: Options of the splits that every recipe gets, whatever its own say.
SHARES: Final = ("split.test_fraction=0.15", "split.val_fraction=0.15", "split.n_folds=0", "split.fold=0")
N_FOLDS: Final = 5
ANTIGENS: Final = "ag_cluster"
MEAN, MEDIAN = "training-mean", "training-median"
#: At most so many rows of a landscape are predicted.
MOST_PREDICTED: Final = 10_000


@dataclass(frozen=True)
class Settings:
    """What is asked for.

    Attributes
    ----------
    recipes : names or files
    baselines : the names of those that the others are held against
    seeds : of the pool's splits
    sizes, repeats : of the training sets with few labels, and how many of each
    fewest : measured rows from which a source is a landscape
    n_resamples : of every bootstrap
    once : of the recipes those that are trained on the pool's first split alone
    """

    recipes: tuple[str, ...]
    baselines: tuple[str, ...]
    seeds: tuple[int, ...]
    sizes: tuple[int, ...]
    repeats: int
    fewest: int
    n_resamples: int
    once: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """What a part of the benchmark found: the tables of its page under an introduction, and its picture."""

    title: str
    introduction: str
    tables: tuple[Table, ...]
    picture: Page


def pool_task(data: Data, seed: int) -> Task:
    """Return the pool split by pairs, 70/15/15."""
    rows = part_rows(PairSplit(seed=seed)(data.table.frame))
    return Task("pool", f"pair-{seed}", rows, ("split.kind=pair", f"split.seed={seed}", *SHARES))


def pool(data: Data, bench: Bench, settings: Settings) -> Part:
    """Train on the pool, split by pairs, and score the test rows of all splits together."""
    families = find_families(data.table.frame).index
    tasks = [pool_task(data, seed) for seed in settings.seeds]
    often = [recipe for recipe in settings.recipes if recipe not in settings.once]
    outcomes = [bench.outcomes(task, often if number else settings.recipes, data) for number, task in enumerate(tasks)]
    names = _finished(outcomes)
    of_splits = [labels_of(data.table, task.rows[TEST], families) for task in tasks]
    together = labels_of(data.table, np.concatenate([task.rows[TEST] for task in tasks]), families)
    predictions = {name: np.concatenate([outcome[name].predicted for outcome in outcomes]) for name in names}
    bench.tell("pool: bootstrap …")
    found = pool_scores(together, predictions, settings.n_resamples)
    measured = together.measured
    absolute = measured & ~np.isin(together.source, RELATIVE)
    drawn = f"Intervals: 95 %, by bootstrap of {together.of(measured).drawn} (families of near-identical antibodies)."
    n_measured = int(measured.sum())
    note = f"n = {n_measured:,} measured test rows. {drawn}"
    alone = [
        {name: {m: Figure(f(of.pkd[of.measured], outcome[name].predicted[of.measured])) for m, f in ALONE.items()}
         for name in names}
        for of, outcome in zip(of_splits, outcomes, strict=True)
    ]  # fmt: skip
    for name in names:  # a constant in each split, though another in each, has no order
        if not np.isfinite([split[name]["spearman"].value for split in alone]).all():
            found[name]["spearman"] = Figure(float("nan"))
    rivals, baselines = _sides(names, settings.baselines)
    tables = (
        overall_table("Measured rows", found, ("rmse", "mae", "spearman", "macro_rmse"), note),
        bins_table("RMSE by affinity bin, measured rows", found, together.pkd[measured], note),
        predicted_bins_table(together, predictions),
        bins_table(
            "RMSE by affinity bin on an absolute scale", found, together.pkd[absolute],
            relative_note(together.pkd[absolute]), ABSOLUTE,
        ),
        overall_table(
            "Marked rows", found, (ONE_SIDED,),
            f"n = {int((~measured).sum()):,} test rows marked < or >: a prediction on the stated side is no error. "
            f"Intervals by bootstrap of {together.of(~measured).drawn}.",
        ),
        *(retrieval_table(threshold, together, found, predictions) for threshold in THRESHOLDS),
        *(held_table(found, name, baselines, HELD) for name in rivals if baselines),
        *(_first_split(of_splits[0], outcomes[0], settings) if settings.once else ()),
        splits_table([str(seed) for seed in settings.seeds], alone, list(ALONE), "split (its random seed)"),
        _seconds(outcomes, names),
    )  # fmt: skip
    introduction = (
        f"{len(data.table):,} public measurements; 70/15/15 of the pairs, identical pairs on one side, "
        f"{len(settings.seeds)} splits. The test rows of all splits are taken together, each predicted by the model of "
        "its own split; a row may be in several. Validation rows choose, test rows are read once."
    )
    panels = [
        [_panel("RMSE", "rmse", found), _panel("Spearman", "spearman", found),
         *(_panel(f"Avg. precision, pKd ≥ {t:g}", f"{t:g}.average_precision", found) for t in THRESHOLDS)],
        [_panel(bin_label(name), metric, found) for name, metric in zip(BIN_NAMES, BINS, strict=True)],
    ]  # fmt: skip
    title = f"The pool, {n_measured:,} measured test rows; below: RMSE by affinity bin"
    return Part("Accuracy on the pool", introduction, tables, forest(title, NOTE, names, baselines, panels))


def _first_split(labels: Labels, outcome: Mapping[str, Outcome], settings: Settings) -> tuple[Table, ...]:
    """Return the figures of the first split alone, with the recipes that were trained there only."""
    found = pool_scores(labels, {name: one.predicted for name, one in outcome.items()}, settings.n_resamples)
    measured = labels.measured
    note = (
        f"n = {int(measured.sum()):,} measured test rows of split {settings.seeds[0]}, the only one that "
        f"{' and '.join(settings.once)} were trained on: they take long. Intervals as above."
    )
    title = f"Split {settings.seeds[0]} alone"
    metrics = ("rmse", "mae", "spearman", "macro_rmse", ONE_SIDED)
    return (
        overall_table(f"{title}, all recipes", found, metrics, note),
        bins_table(f"{title}: RMSE by affinity bin", found, labels.pkd[measured], note),
    )


#: What is shown of every split alone.
ALONE: Final[Mapping[str, Callable[[Array, Array], float]]] = {"rmse": rmse, "spearman": spearman}
NOTE: Final = (
    "Bars: 95 % bootstrap intervals. Grey: baselines, with a thin line at the best of them; blue: the others. Errors "
    "are better\nat the left, correlations and precision at the right. An arrow is beyond the axis."
)


def random_split(data: Data, bench: Bench, settings: Settings) -> tuple[Table, ...]:
    """Return the figures of the training notebook's own split, every row taken as stated."""
    rows = part_rows(RandomSplit()(data.table.frame))
    task = Task("pool", "random-42", rows, ("split.kind=random", "split.seed=42", *SHARES))
    outcome = bench.outcomes(task, [one for one in settings.recipes if one not in settings.once], data)
    predictions = {name: one.predicted for name, one in outcome.items()}
    labels = labels_of(data.table, rows[TEST], find_families(data.table.frame).index)
    found = scores(labels, predictions, settings.n_resamples)
    note = (
        f"n = {len(labels.pkd):,} test rows, of which {int((~labels.measured).sum()):,} are marked and count as if "
        "measured; near-twins and replicates of a row are on both sides; a recipe that takes bounds predicts below "
        "floors and is charged for it here. Beside the training notebook's figures, and for nothing else. Intervals "
        f"by bootstrap of {labels.drawn}."
    )
    title = "The training notebook's random split, all rows as stated"
    return (
        overall_table(title, found, ("rmse", "mae", "spearman", "pearson", "r2", "macro_rmse"), note),
        bins_table(f"{title}: RMSE by affinity bin", found, labels.pkd, note),
    )


def cold(data: Data, bench: Bench, settings: Settings) -> Part:
    """Train on all antigens but a fifth, fold by fold, and average the figures of the folds."""
    clusters = numbered(data.table.frame.select(ANTIGENS))
    tasks = []
    for fold in range(N_FOLDS):
        rows = part_rows(GroupSplit(column=ANTIGENS, n_folds=N_FOLDS, fold=fold)(data.table.frame))
        split = ("split.kind=group", f"split.column={ANTIGENS}", "split.seed=42", "split.stratify=true")
        tasks.append(Task("cold", f"fold-{fold}", rows, (*split, f"split.n_folds={N_FOLDS}", f"split.fold={fold}")))
    outcomes = [bench.outcomes(task, settings.recipes, data) for task in tasks]
    names = list(dict.fromkeys([*_finished(outcomes), MEAN, MEDIAN]))
    of_folds = []
    for fold, (task, outcome) in enumerate(zip(tasks, outcomes, strict=True)):
        trained = data.table.pkd[task.rows[TRAIN]]
        n_test = len(task.rows[TEST])
        constants = {MEAN: np.full(n_test, trained.mean()), MEDIAN: np.full(n_test, np.median(trained))}
        given = {name: outcome[name].predicted if name in outcome else constants[name] for name in names}
        labels = labels_of(data.table, task.rows[TEST], clusters)
        of_folds.append(scores(labels, given, settings.n_resamples, seed=fold))
    shown = ("mae", "spearman", "pearson", "rmse")
    found = averaged(of_folds, shown)
    rivals, baselines = _sides(names, (*settings.baselines, MEAN, MEDIAN))
    sizes = ", ".join(f"{len(task.rows[TEST]):,}" for task in tasks)
    n_clusters = clusters.max() + 1
    note = (
        f"Means over {N_FOLDS} folds of {sizes} test rows. Intervals: 95 %, by bootstrap of the {n_clusters:,} "
        "clusters of antigens, fold by fold. A constant has no rank correlation."
    )
    tables = (
        overall_table("New antigens", found, shown, note),
        _against_constants(found, [name for name in names if name not in (MEAN, MEDIAN)], rivals),
        *(held_table(found, name, baselines, ("mae", "spearman", "pearson")) for name in rivals),
        splits_table([f"fold {fold}" for fold in range(N_FOLDS)], of_folds, ("mae", "spearman"), "fold"),
        _seconds(outcomes, [name for name in names if name in outcomes[0]]),
    )
    introduction = (
        f"{len(data.table):,} measured pairs; {N_FOLDS} folds that share no cluster of antigens. Each fold is tested "
        "once; the next one is its validation part and the other three its training part, so that nothing is chosen on "
        "an antigen that is tested. A recipe may learn from validation rows too once it has chosen by them: v3 does. "
        f"The split is `split.kind=group split.column={ANTIGENS} split.n_folds={N_FOLDS}`."
    )
    panels = [[_panel("MAE", "mae", found), _panel("Spearman", "spearman", found)]]
    picture = forest(f"{len(data.table):,} pairs, antigens never seen in training", NOTE, names, baselines, panels)
    return Part("Accuracy on new antigens", introduction, tables, picture)


def _against_constants(found: Scores, names: Sequence[str], rivals: Sequence[str]) -> Table:
    """Return how the MAE of every recipe differs from that of two constants, and in words what that means."""
    rows = tuple((name, *(cell(found[name]["mae"].minus(found[of]["mae"])) for of in (MEAN, MEDIAN))) for name in names)
    header = ("Recipe", f"MAE minus {MEAN}'s", f"MAE minus {MEDIAN}'s")
    words = [
        f"In plain words: {name} is off by a factor of {10 ** found[name]['mae'].value:.0f} in Kd on average, the "
        f"{MEAN} by {10 ** found[MEAN]['mae'].value:.0f}; its RMSE is "
        f"{100 * found[name]['rmse'].value / found[MEAN]['rmse'].value:.0f} % of that one's."
        for name in rivals
    ]
    note = " ".join(["Paired intervals; below 0 is better than the constant.", *words])
    return Table("MAE against a constant", header, rows, note)


def few(data: Data, bench: Bench, settings: Settings) -> Part:
    """Train on a few rows of one landscape at a time, and average the figures over landscapes and repeats."""
    tasks = {
        (source, size, repeat): task
        for source in landscapes(data.table, settings.fewest)
        for repeat in range(settings.repeats)
        for size, task in few_tasks(data.table, source, repeat, settings.sizes).items()
    }
    outcomes = {key: bench.outcomes(task, settings.recipes, data) for key, task in tasks.items()}
    names = _finished(list(outcomes.values()))
    sources = list(dict.fromkeys(source for source, _, _ in tasks))
    found: Scores = {name: {} for name in names}
    of_landscapes = []
    for size in settings.sizes:
        values = {metric: few_values(data.table.pkd, tasks, outcomes, names, size, metric) for metric in ALONE}
        for metric, of_recipes in values.items():
            for name, mean in over_landscapes(of_recipes, settings.n_resamples).items():
                found[name][f"{size}.{metric}"] = mean
        of_landscapes.append(_landscapes_table(size, sources, values["spearman"]))
    called = {f"{size}.{m}": f"{word}, {size:,} rows" for size in settings.sizes for m, word in WORDS.items()}
    rivals, baselines = _sides(names, settings.baselines)
    n_test = [len(task.rows[TEST]) for task in tasks.values()]
    note = (
        f"Means over {len(sources)} landscapes and {settings.repeats} repeats; {min(n_test):,} to {max(n_test):,} test "
        "rows each. Intervals: 95 %, by bootstrap of landscapes and of the repeats in each. A constant counts as 0."
    )
    tables = (
        *(_few_table(found, [f"{size}.{m}" for size in settings.sizes], called, note, WORDS[m]) for m in WORDS),
        *(held_table(found, name, baselines, [f"{size}.spearman" for size in settings.sizes], called)
          for name in rivals if baselines),
        *of_landscapes,
        *(replace(_seconds([outcomes[key] for key in tasks if key[1] == size], names), title=f"Seconds, {size:,} rows")
          for size in settings.sizes),
    )  # fmt: skip
    introduction = (
        f"Each source with at least {settings.fewest:,} measured rows by itself. A training set is drawn at random "
        "from its measured rows, a fifth of it for validation; the smaller ones are part of the larger. A recipe may "
        "learn from validation rows too once it has chosen by them: v3 does. Of the other "
        f"rows at most {MOST_PREDICTED:,} are predicted, the same ones for every size; a row whose pair is in the "
        "largest training set is none of them."
    )
    panels = [[_panel(f"{size:,} rows", f"{size}.spearman", found) for size in settings.sizes]]
    title = f"Mean Spearman over {len(sources)} landscapes after training on so many measured rows"
    return Part("Accuracy with few labels", introduction, tables, forest(title, NOTE, names, baselines, panels))


WORDS: Final = {"spearman": "Spearman", "rmse": "RMSE"}


def few_values(
    pkd: Array,
    tasks: Mapping[Key, Task],
    outcomes: Mapping[Key, Mapping[str, Outcome]],
    names: Sequence[str],
    size: int,
    metric: str,
) -> dict[str, Array]:
    """Return recipe → (n_landscapes, n_repeats) of a metric after training on `size` rows.

    A constant orders nothing: where there is no rank correlation it counts as 0.
    """
    keys = [key for key in tasks if key[1] == size]
    n_landscapes = len({source for source, _, _ in keys})
    found = {}
    for name in names:
        values = [ALONE[metric](pkd[tasks[key].rows[TEST]], outcomes[key][name].predicted) for key in keys]
        found[name] = np.nan_to_num(values, nan=0.0).reshape(n_landscapes, -1)
    return found


def landscapes(table: AffinityTable, fewest: int) -> list[str]:
    """Return the sources with enough measured rows, the largest first."""
    names, counts = np.unique(table.source[table.relation == "="], return_counts=True)
    return [str(name) for name in names[np.argsort(-counts, kind="stable")][: int((counts >= fewest).sum())]]


def few_tasks(table: AffinityTable, source: str, repeat: int, sizes: Sequence[int]) -> dict[int, Task]:
    """Return a task for each number of training rows: nested training sets, the same test rows."""
    rows = np.flatnonzero((table.source == source) & (table.relation == "="))
    order = rows[np.random.default_rng([repeat, len(rows)]).permutation(len(rows))]
    largest, rest = order[: max(sizes)], order[max(sizes) :]
    pairs = pair_index(table.frame[order.tolist()])
    rest = rest[~np.isin(pairs[max(sizes) :], pairs[: len(largest)])][:MOST_PREDICTED]
    tasks = {}
    for size in sizes:
        n_validation = size // 5
        chosen = largest[:size]
        parts = {TRAIN: np.sort(chosen[n_validation:]), VALIDATION: np.sort(chosen[:n_validation]), TEST: np.sort(rest)}
        # The parts are dealt out here; the split that a recipe states has no say, and is the same for all.
        overrides = ("split.kind=random", "split.seed=42", *SHARES, f"training.seed={42 + repeat}")
        tasks[size] = Task("few", f"{source}-{size}-{repeat}", parts, overrides)
    return tasks


def _few_table(found: Scores, metrics: Sequence[str], called: Mapping[str, str], note: str, word: str) -> Table:
    rows = tuple((name, *(cell(figures[metric]) for metric in metrics)) for name, figures in found.items())
    header = ("Recipe", *(called[metric].partition(", ")[2] for metric in metrics))
    return Table(f"Mean {word}", header, rows, note)


def _landscapes_table(size: int, sources: Sequence[str], values: Mapping[str, Array]) -> Table:
    """Return the mean Spearman of every recipe on every landscape, with its SD over repeats."""
    rows = tuple(
        (source, *(f"{of[place].mean():.3f} ± {of[place].std():.3f}".replace("-", "−") for of in values.values()))
        for place, source in enumerate(sources)
    )
    return Table(f"Spearman by landscape, {size:,} rows", ("Landscape", *values), rows, "Mean ± SD over the repeats.")


def labels_of(table: AffinityTable, rows: NDArray[np.intp], clusters: NDArray[np.intp] | None) -> Labels:
    """Return what predictions of some rows are held against."""
    drawn = None if clusters is None else clusters[rows]
    return Labels(table.pkd[rows], table.relation[rows], table.source[rows], drawn)


def _finished(outcomes: Outcomes) -> list[str]:
    """Return the recipes that gave something on every task."""
    return [name for name in outcomes[0] if all(name in outcome for outcome in outcomes)]


def _sides(names: Sequence[str], baselines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the recipes that are no baseline, and those that are."""
    return [name for name in names if name not in baselines], [name for name in names if name in baselines]


def _seconds(outcomes: Outcomes, names: Sequence[str]) -> Table:
    learning = {name: [outcome[name].learning for outcome in outcomes] for name in names}
    return seconds_table(learning, {name: [outcome[name].predicting for outcome in outcomes] for name in names})


def _panel(title: str, metric: str, found: Scores) -> Panel:
    return Panel(title, metric, [figures[metric] for figures in found.values()])
