"""Models, by name. Importing this imports none of them.

Each entry is the options: of a network, with `build`, which gives an untrained one; of a model that learns without
epochs, with `fit`, which gives one that has learned.
"""

from tailbind.options import Registry

MODELS = Registry(
    "model",
    {
        "mlp": "tailbind.models.mlp:Mlp",
        "ensemble_mlp": "tailbind.models.ensemble:EnsembleMlp",
        "attention": "tailbind.models.attention:Attention",
        "training_mean": "tailbind.models.baselines:TrainingMeanOptions",
        "source_mean": "tailbind.models.baselines:SourceMeanOptions",
        "nearest_neighbour": "tailbind.models.baselines:NearestNeighbourOptions",
        "ridge": "tailbind.models.baselines:RidgeOptions",
        "trees": "tailbind.models.trees:Trees",
        "gaussian_process": "tailbind.models.gaussian_process:GaussianProcess",
        "blend": "tailbind.models.blend:Blend",
    },
)
