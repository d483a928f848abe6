"""Training networks: losses, weights, schedules and the loop. Losses, optimizers and schedules by name."""

from tailbind.options import Registry

LOSSES = Registry(
    "loss",
    {
        "mse": "tailbind.training.losses:WeightedMse",
        "focal": "tailbind.training.losses:FocalMse",
        "tobit": "tailbind.training.losses:Tobit",
    },
)
OPTIMIZERS = Registry(
    "optimizer",
    {"adam": "tailbind.training.schedule:Adam", "adamw": "tailbind.training.schedule:AdamW"},
)
SCHEDULES = Registry(
    "schedule",
    {
        "constant": "tailbind.training.schedule:Constant",
        "plateau": "tailbind.training.schedule:Plateau",
        "cosine_restarts": "tailbind.training.schedule:CosineRestarts",
    },
)
