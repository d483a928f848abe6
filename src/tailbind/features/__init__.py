"""Feature blocks, by name. Importing this imports none of them."""

from tailbind.options import Registry

FEATURES = Registry("features", {"columns": "tailbind.features.columns:Columns"})
