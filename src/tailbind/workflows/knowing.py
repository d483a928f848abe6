"""What a run's training knew: found out once, and kept in the run folder."""

from tailbind.features.domain import Domain, fit_domain
from tailbind.features.pipeline import reads_sequences
from tailbind.runtime import writing
from tailbind.table.splitting import TRAIN, VALIDATION
from tailbind.workflows.featurising import Computed, learned_rows
from tailbind.workflows.preparing import Prepared


def find_domain(prepared: Prepared, inputs: Computed) -> Domain:
    """Return what a run's training rows know, and write it into the run folder."""
    rows = prepared.rows
    domain = fit_domain(
        prepared.table,
        inputs.features,
        rows[TRAIN],
        rows[VALIDATION],
        learned=learned_rows(prepared.plan, rows),
        reads_sequences=reads_sequences(inputs.pipeline.blocks),
    )
    with writing(prepared.run.domain) as handle:
        domain.frame().write_parquet(handle)
    return domain
