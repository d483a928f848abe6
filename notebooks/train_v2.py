# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training v2 with tailbind
#
# Trains the notebook recipes v1 and v2 on a table of measured affinities and compares them on the same test
# rows. In Colab: *Runtime → Change runtime type → GPU*, set the two paths below, *Runtime → Run all*.
# Interrupted? Run all again: finished runs are kept, an unfinished one goes on where it was.

# %% Install
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("tailbind") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "tailbind"], check=True)

# %% Mount Google Drive, in Colab
IN_COLAB = importlib.util.find_spec("google.colab") is not None if importlib.util.find_spec("google") else False
if IN_COLAB:
    from google.colab import drive

    drive.mount("/content/drive")

# %% Paths and settings
DRIVE_DATA_PATH = os.environ.get("TAILBIND_DATA", "/content/drive/MyDrive/AbAg_data/merged_with_all_features.csv")
OUTPUT_DIR = os.environ.get("TAILBIND_OUT", "/content/drive/MyDrive/AbAg_data/models")

USE_FOCAL_LOSS = True  # False: weighted MSE
EPOCHS = int(os.environ.get("TAILBIND_EPOCHS", "100"))
BATCH_SIZE = 128  # 64 if memory runs out, 256 on a large GPU

# %% Check the GPU
from tailbind.runtime import choose_device, describe_device

print(describe_device(choose_device()))

# %% Train v1
from pathlib import Path

import tailbind

overrides = [f"training.epochs={EPOCHS}", f"training.batch_size={BATCH_SIZE}"]
v1 = tailbind.train(
    DRIVE_DATA_PATH, recipe="v1", out=Path(OUTPUT_DIR) / "models_v1", overrides=overrides, resume=True
)

# %% Train v2
v2 = tailbind.train(
    DRIVE_DATA_PATH,
    recipe="v2" if USE_FOCAL_LOSS else "v2-mse",
    out=Path(OUTPUT_DIR) / "models_v2",
    overrides=overrides,
    resume=True,
)

# %% Look at v2
from IPython.display import Image, display

for picture in sorted(v2.path.glob("*.png")):
    display(Image(filename=str(picture)))

# %% Compare v1 and v2
from tailbind.reporting.comparison_tables import comparison_table

comparison = tailbind.compare([v1.path, v2.path])
print(comparison_table(comparison).text())

# %% Download the results, in Colab
import shutil

archive = shutil.make_archive(str(Path(OUTPUT_DIR) / "tailbind_results"), "zip", v2.path)
print(f"Results: {archive}")
if IN_COLAB:
    from google.colab import files

    files.download(archive)
