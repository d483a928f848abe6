"""Where an encoder's files are: in a folder, or in the cache of the Hugging Face hub, filled where there is internet.

What the files are is told by their content, so that a folder copied from the cache is the same encoder.
"""

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tailbind.errors import FeatureError
from tailbind.runtime import remark

CONFIG: Final = "config.json"
#: The weights in one file; in several they have an index beside them. The first that is there is taken.
WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")
#: Any one of these holds an encoder's letters.
VOCABULARIES: Final = ("vocab.txt", "tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
_VOCABULARY: Final = "tokenizer files (vocab.txt or tokenizer.json)"
TOKENIZER: Final = (*VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

#: Names the folder of the encoder that a trained model reads, where that is no longer what its recipe says.
ENCODER_VARIABLE: Final = "TAILBIND_ENCODER"
INSTALL: Final = "pip install 'tailbind[language-model]'"
REMEDY: Final = (
    "Run once with internet access, or copy the files into a folder and name it with --encoder FOLDER "
    "(in a recipe --set features.language_model.encoder=FOLDER; for a trained model TAILBIND_ENCODER=FOLDER)."
)


@dataclass(frozen=True)
class Pretrained:
    """An encoder's files on this machine.

    Attributes
    ----------
    name : as it was asked for
    folder : where the files are
    commit : of the hub's repository; "" for a folder
    """

    name: str
    folder: Path
    commit: str = ""

    def check_same(self, identity: str, commit: str = "") -> None:
        """Refuse to stand in for another encoder.

        Parameters
        ----------
        identity : of the encoder that a model was trained with
        commit : its own, where it had one

        Raises
        ------
        FeatureError
            When these files are others.
        """
        if self.identity == identity:
            return
        was = f", commit {commit}" if commit else ""
        raise FeatureError(
            f"Encoder {self.name} must be the one that the model was trained with (SHA-256 {identity[:12]}{was}); the "
            f"files in {self.folder} are others ({self.identity[:12]}). Name the folder of the original with "
            f"{ENCODER_VARIABLE}=FOLDER."
        )

    @property
    def config(self) -> dict[str, Any]:
        """What its `config.json` says."""
        try:
            config = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FeatureError(f"{self.folder / CONFIG} must be JSON; {error}. Fetch the encoder again.") from error
        return dict(config)

    @property
    def identity(self) -> str:
        """SHA-256 of the configuration, the weights and the tokenizer's files, whole."""
        digest = hashlib.sha256()
        present = [name for name in TOKENIZER if (self.folder / name).is_file()]
        for name in (CONFIG, *sorted(weight_files(self.folder)), *sorted(present)):
            stat = (self.folder / name).stat()
            digest.update(f"{name}:{_file_digest(self.folder / name, stat.st_size, stat.st_mtime_ns)}\n".encode())
        return digest.hexdigest()


@functools.lru_cache(maxsize=256)
def _file_digest(path: Path, size: int, changed: int) -> str:
    """Return a file's SHA-256, once a process for each state of the file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def short_name(name: str) -> str:
    """Return what an encoder's feature columns are called.

    >>> short_name("facebook/esm2_t33_650M_UR50D"), short_name("Exscientia/IgBert")
    ('esm2', 'igbert')
    """
    base = re.sub(r"[^a-z0-9]+", "_", Path(name).name.lower()).strip("_")
    return "esm2" if base.startswith("esm2") else base or "encoder"


def find_encoder(name: str, revision: str = "") -> Pretrained:
    """Return the files of an encoder, fetched from the hub where they are not here and it can be reached.

    Parameters
    ----------
    name : a folder, or a name on the Hugging Face hub ("facebook/esm2_t6_8M_UR50D")
    revision : branch, tag or commit on the hub; its main branch unless given

    Raises
    ------
    FeatureError
        Naming what is missing, where it was looked for, and what to do.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if missing := missing_files(folder):
            raise FeatureError(f"Encoder {name} must have its files in {folder}; {_listing(missing)} missing. {REMEDY}")
        if revision:
            raise FeatureError(f"A revision is of the hub; encoder {name} is a folder. Leave the revision out.")
        return Pretrained(name, folder)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise FeatureError(
            f"Encoder {name} must be a folder or a name on the Hugging Face hub; there is no such folder."
        )
    try:
        import huggingface_hub
    except ImportError:
        raise not_installed(name) from None
    found, reason = _snapshot(name, revision, fetch=False)
    if found is None or missing_files(found):
        remark(f"Fetching encoder {name} from the Hugging Face hub, where it can be reached …")
        fetched, reason = _snapshot(name, revision, fetch=True)
        found = fetched or found
    missing = [CONFIG, WEIGHTS[0], _VOCABULARY] if found is None else missing_files(found)
    if found is None or missing:
        cache = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
        at = f" at revision {revision}" if revision else ""
        raise FeatureError(
            f"Encoder {name}{at} must have its files on this machine; {_listing(missing)} missing in "
            f"{found or cache}, and the Hugging Face hub did not give them ({reason}). {REMEDY}"
        )
    return Pretrained(name, found, found.name)


def _snapshot(name: str, revision: str, *, fetch: bool) -> tuple[Path | None, str]:
    """Return the folder that the hub's cache keeps an encoder in, None where there is none, and why."""
    import huggingface_hub

    patterns = ["*.json", "*.txt", "spiece.model", "tokenizer.model", "model*.safetensors"]
    rounds = [patterns, ["pytorch_model*.bin*"]] if fetch else [patterns]
    found = None
    for allowed in rounds:
        if found is not None and not missing_files(found):
            break
        try:
            with _without_bars():
                folder = huggingface_hub.snapshot_download(
                    name, revision=revision or None, allow_patterns=allowed, local_files_only=not fetch
                )
        except (OSError, ValueError) as error:  # of the hub's own errors, all are either
            return found, " ".join(str(error).split("\n")[0].split())[:120] or type(error).__name__
        found = Path(folder)
    return found, "it has no such files"


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def weight_files(folder: Path) -> list[str]:
    """Return the files that hold the weights; those that an index names may be missing."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (OSError, ValueError, LookupError, TypeError, AttributeError):
                return [name]
    return [WEIGHTS[0]]


def missing_files(folder: Path) -> list[str]:
    """Return what a folder lacks to be an encoder.

    >>> missing_files(Path("no such folder"))
    ['config.json', 'model.safetensors', 'tokenizer files (vocab.txt or tokenizer.json)']
    """
    missing = [name for name in (CONFIG, *weight_files(folder)) if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in VOCABULARIES):
        missing.append(_VOCABULARY)
    return missing


def not_installed(name: str) -> FeatureError:
    """Return the error for a machine without transformers."""
    return FeatureError(f"Encoder {name} needs the package transformers; it is not installed. Run: {INSTALL}")


def _listing(missing: list[str]) -> str:
    many = missing if len(missing) <= 4 else [*missing[:3], f"{len(missing) - 3} more"]
    return f"{', '.join(many)} {'is' if len(missing) == 1 and missing[0] != _VOCABULARY else 'are'}"
