"""Feature blocks, by name. Importing this imports none of them."""

from tailbind.options import Registry

FEATURES = Registry(
    "features",
    {
        "columns": "tailbind.features.columns:Columns",
        "sites": "tailbind.features.sites:Sites",
        "composition": "tailbind.features.composition:Composition",
        "descriptors": "tailbind.features.descriptors:Descriptors",
        "category": "tailbind.features.category:Category",
        "language_model": "tailbind.features.language_model:LanguageModel",
        "residues": "tailbind.features.residues:Residues",
        "kmers": "tailbind.features.kmers:Kmers",
    },
)
