"""The measured table: read, split, simulated. Needs no torch."""

from tailbind.options import Registry

SPLITS = Registry(
    "split",
    {
        "random": "tailbind.table.splitting:RandomSplit",
        "stratified": "tailbind.table.splitting:StratifiedSplit",
        "pair": "tailbind.table.splitting:PairSplit",
        "group": "tailbind.table.splitting:GroupSplit",
        "antibody_cluster": "tailbind.table.splitting:AntibodyClusterSplit",
        "antigen_cluster": "tailbind.table.splitting:AntigenClusterSplit",
        "both_cold": "tailbind.table.splitting:BothColdSplit",
        "parent": "tailbind.table.splitting:ParentSplit",
        "date": "tailbind.table.splitting:DateSplit",
        "column": "tailbind.table.splitting:ColumnSplit",
    },
)
