"""On public measurements: a probe calls a model on composition what it is, and one on sites what it is."""

from pathlib import Path

import polars as pl
import pytest

import tailbind
from tailbind.workflows import Probe, probe

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not DATA.is_dir(), reason=f"no public measurements in {DATA.parent.name}/data beside the checkout"
    ),
]

#: Measured rows of each source: combinations of mutations, a mutational scan, and antibodies with several antigens.
ROWS = {"ch65_si06": 900, "cr9114_h3": 500, "cr9114_fluB": 198, "abbibench_aayl49": 700, "skempi2_ab": 700}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pool = pl.read_parquet(DATA / "affinity_pool.parquet").filter(pl.col("relation") == "=")
    parts = [pool.filter(pl.col("source") == source) for source in ROWS]
    drawn = [part.sample(min(n, len(part)), seed=1) for part, n in zip(parts, ROWS.values(), strict=True)]
    path = tmp_path_factory.mktemp("public") / "public.parquet"
    pl.concat(drawn).write_parquet(path)
    return path


def probed(data: Path, out: Path, recipe: str, *changes: str) -> Probe:
    run = tailbind.train(data, recipe=recipe, out=out, overrides=changes, device="cpu")
    return probe(run.path, antibodies=1, device="cpu")


def test_the_notebook_s_model_on_shares_of_residues_tells_no_places_apart(data: Path, tmp_path: Path) -> None:
    changes = ("features.sites=false", "features.composition.dipeptides=false", "training.epochs=10")
    result = probed(data, tmp_path / "run", "v2-sequence", *changes)
    found = {verdict.key: verdict for verdict in result.verdicts}
    assert not result.passes
    assert found["places"].answer == "no"
    assert "tells 100 % of the variance" in found["places"].evidence
    assert found["size"].answer in ("barely", "no")
    assert found["order"].answer in ("barely", "no")
    assert result.figures["mutants"]["n"] >= 100


def test_a_model_on_sites_sees_both(data: Path, tmp_path: Path) -> None:
    result = probed(data, tmp_path / "run", "ridge", "features.composition=false")
    found = {verdict.key: verdict.answer for verdict in result.verdicts}
    assert result.passes
    assert {found[key] for key in ("responds", "order", "size", "antigen")} == {"yes"}
