"""The measured table: read, split, simulated. Needs no torch."""

from tailbind.options import Registry

SPLITS = Registry(
    "split",
    {
        "random": "tailbind.table.splitting:RandomSplit",
        "stratified": "tailbind.table.splitting:StratifiedSplit",
        "pair": "tailbind.table.splitting:PairSplit",
        "group": "tailbind.table.splitting:GroupSplit",
        "column": "tailbind.table.splitting:ColumnSplit",
    },
)
