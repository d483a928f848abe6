"""Protein language models: sequences in, vectors out, for each residue or pooled over them.

A sequence's vectors do not depend on what else is in its batch, beyond rounding. transformers and its models are
imported where they are used.
"""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import FeatureError
from tailbind.features.pretrained import Pretrained, not_installed
from tailbind.features.tokens import Letters, Window, read_letters, windows

if TYPE_CHECKING:
    import torch

PRECISIONS: Final = ("auto", "fp32", "bf16", "fp16")
#: Residues and special tokens, padding included, that a batch has at most unless told otherwise: on a GPU, and for each
#: thread of a processor, whose caches hold no more (4,096 take 15 to 40 % longer on the 8M shape).
GPU_TOKENS: Final = 32_768
THREAD_TOKENS: Final = 1_024
MOST_CPU_TOKENS: Final = 16_384
#: Parts of a model that come after the residues' vectors: files without them are whole.
_HEADS: Final = ("pooler", "contact_head", "lm_head", "cls.", "inv_freq", "position_ids")


@dataclass(frozen=True)
class Reading:
    """How an encoder reads sequences.

    Attributes
    ----------
    layers : whose vectors are averaged: 0 what goes into the first layer, −1 the last
    precision : "fp32", "bf16" or "fp16"; "auto" takes half precision on a GPU
    window : residues read at a time at most; 0 takes the encoder's own maximum
    overlap : residues that neighbouring windows of a long sequence share
    batch_tokens : tokens in a batch at most, padding included; 0 takes what suits the device
    """

    layers: tuple[int, ...] = (-1,)
    precision: str = "auto"
    window: int = 0
    overlap: int = 128
    batch_tokens: int = 0

    def on(self, device: "torch.device") -> "Reading":
        """Return the reading with what depends on the device decided."""
        import torch

        on_gpu = device.type == "cuda"
        precision = self.precision
        if precision == "auto":
            half = "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
            precision = half if on_gpu else "fp32"
        on_cpu = min(THREAD_TOKENS * torch.get_num_threads(), MOST_CPU_TOKENS)
        tokens = self.batch_tokens or (GPU_TOKENS if on_gpu else on_cpu)
        return Reading(self.layers, precision, self.window, self.overlap, tokens)


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder.

    Attributes
    ----------
    files : where it is from
    module : the PyTorch module, in evaluation mode on its device; for fine-tuning it is all there is to train
    letters : its tokens
    reading : how it reads, all decided
    window : residues that it reads at a time, 0 for any number
    """

    files: Pretrained
    module: "torch.nn.Module"
    letters: Letters
    reading: Reading
    window: int

    @property
    def dim(self) -> int:
        """How long the vector of a residue is."""
        return int(self.module.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def device(self) -> "torch.device":
        """Where the module is."""
        return next(self.module.parameters()).device

    def windows(self, length: int) -> list[Window]:
        """Return the windows that a sequence of so many residues is read in."""
        return windows(length, self.window, self.reading.overlap)

    def plan(self, sequences: Sequence[str]) -> list[NDArray[np.intp]]:
        """Return the batches that sequences are read in: of like length, longest first, the same for any order.

        Returns
        -------
        list of (batch_size,) indices into `sequences`
        """
        order = sorted(range(len(sequences)), key=lambda index: (-len(sequences[index]), sequences[index]))
        batches: list[list[int]] = []
        longest = used = 0
        for index in order:
            rows = self.windows(len(sequences[index]))
            if not batches or used + len(rows) * longest > self.reading.batch_tokens:
                batches.append([])
                longest = rows[0].end + self.letters.n_special  # the others are padded to it
                used = 0
            batches[-1].append(index)
            used += len(rows) * longest
        return [np.array(batch, np.intp) for batch in batches]

    def residues(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return the vectors of every residue of each sequence: a list of (length, dim).

        Special tokens have none. Residues of windows that overlap are taken as `windows` says.
        """
        found: list[NDArray[np.float32]] = [np.empty((0, self.dim), np.float32) for _ in sequences]
        filled = [index for index, sequence in enumerate(sequences) if sequence]
        before = len(self.letters.prefix)
        for batch in self.plan([sequences[index] for index in filled]):
            members = [filled[index] for index in batch]
            rows = [(index, window) for index in members for window in self.windows(len(sequences[index]))]
            for index in members:
                found[index] = np.empty((len(sequences[index]), self.dim), np.float32)
            for part in self._parts(rows):
                hidden = self._hidden(*self._tokens(sequences, part)).float().cpu().numpy()
                for (index, window), vectors in zip(part, hidden, strict=True):
                    own = slice(before + window.own_start - window.start, before + window.own_end - window.start)
                    found[index][window.own_start : window.own_end] = vectors[own]
        _check_finite(found, self)
        return found

    def pooled(
        self, sequences: Sequence[str], weights: Sequence[NDArray[np.float32]], batches: Iterable[NDArray[np.intp]]
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the weighted sums of residues' vectors, batch after batch; the next begins when it is asked for.

        Parameters
        ----------
        sequences : (n,) none empty
        weights : of each sequence (n_pools, length), as in `mean_weights`
        batches : indices of sequences, as `plan` makes them

        Yields
        ------
        (batch_size, n_pools · dim)
        """
        import torch

        waiting = iter(batches)
        batch = next(waiting, None)
        ready = None if batch is None else self._prepared(sequences, weights, batch)
        while batch is not None and ready is not None:
            n_pools = len(weights[batch[0]])
            sums = torch.zeros((len(batch), n_pools, self.dim), device=self.device)
            with _enough_memory(self):
                for members, tokens, mask, shares in ready:
                    sums.index_add_(0, members, torch.bmm(shares, self._hidden(tokens, mask).float()))
            done = len(batch)
            batch = next(waiting, None)  # made ready while a GPU still computes
            ready = None if batch is None else self._prepared(sequences, weights, batch)
            values: NDArray[np.float32] = sums.reshape(done, n_pools * self.dim).cpu().numpy()
            _check_finite([values], self)
            yield values

    def _prepared(
        self, sequences: Sequence[str], weights: Sequence[NDArray[np.float32]], batch: NDArray[np.intp]
    ) -> list[tuple["torch.Tensor", ...]]:
        """Return what a batch needs on the device: the places of windows in the batch, tokens, mask and shares."""
        place = {int(index): position for position, index in enumerate(batch)}
        rows = [(int(index), window) for index in batch for window in self.windows(len(sequences[index]))]
        before = len(self.letters.prefix)
        prepared = []
        for part in self._parts(rows):
            tokens, mask = self._tokens(sequences, part)
            shares = np.zeros((len(part), len(weights[part[0][0]]), tokens.shape[1]), np.float32)
            for row, (index, window) in enumerate(part):
                at = before + window.own_start - window.start
                own = weights[index][:, window.own_start : window.own_end]
                shares[row, :, at : at + own.shape[1]] = own
            members = np.array([place[index] for index, _ in part])
            prepared.append(tuple(self._moved(array) for array in (members, tokens, mask, shares)))
        return prepared

    def _parts(self, rows: Sequence[tuple[int, Window]]) -> list[Sequence[tuple[int, Window]]]:
        """Return the windows of a batch in parts that keep to the tokens, where one sequence has too many."""
        longest = max(window.end - window.start for _, window in rows) + self.letters.n_special
        size = max(1, self.reading.batch_tokens // longest)
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _tokens(
        self, sequences: Sequence[str], rows: Sequence[tuple[int, Window]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.letters.batch([sequences[index][window.start : window.end] for index, window in rows])

    def _moved(self, array: NDArray[Any]) -> "torch.Tensor":
        import torch

        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def _hidden(self, tokens: Any, mask: Any) -> "torch.Tensor":
        """Return the chosen layers' vectors of all tokens, averaged: (n, longest, dim)."""
        import torch

        if isinstance(tokens, np.ndarray):
            tokens, mask = self._moved(tokens), self._moved(mask)
        last_only = self.reading.layers == (-1,)
        with torch.inference_mode(), _enough_memory(self):
            out = self.module(input_ids=tokens, attention_mask=mask, output_hidden_states=not last_only)
            if last_only:
                last: torch.Tensor = out.last_hidden_state
                return last
            return torch.stack([out.hidden_states[layer].float() for layer in self.reading.layers]).mean(dim=0)


def mean_weights(length: int, chosen: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Return (length,) weights of the mean over the chosen residues; over all where none is.

    >>> mean_weights(4, np.array([False, True, True, False])).tolist()
    [0.0, 0.5, 0.5, 0.0]
    """
    if chosen is None or not chosen.any():
        return np.full(length, 1 / length, np.float32)
    weights: NDArray[np.float32] = (chosen / chosen.sum()).astype(np.float32)
    return weights


def load_encoder(files: Pretrained, reading: Reading, device: "torch.device") -> Encoder:
    """Return an encoder ready to read on a device.

    Raises
    ------
    FeatureError
        When transformers is not installed or cannot load the files, or the reading does not fit the encoder.
    """
    reading = reading.on(device)
    with _quiet(files.name):
        import torch
        import transformers

        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[reading.precision]
        form: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        try:
            # What the files lack is drawn at random: of the program's own draws, none may change for that.
            with torch.random.fork_rng(devices=[]):
                config = transformers.AutoConfig.from_pretrained(files.folder, **form)
                auto = transformers.AutoModelForTextEncoding if config.is_encoder_decoder else transformers.AutoModel
                module, report = auto.from_pretrained(files.folder, dtype=dtype, output_loading_info=True, **form)
            tokenizer = transformers.AutoTokenizer.from_pretrained(files.folder, **form)
        except Exception as error:  # each architecture fails in its own way, and all are the files'
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise FeatureError(
                f"Encoder {files.name} must be one that transformers {transformers.__version__} can load without "
                f"running code of its own ({files.folder}); got: {first} Fetch it again or choose another."
            ) from error
        letters = read_letters(tokenizer, files.name)
    lacking = [key for key in report["missing_keys"] if not any(head in key for head in _HEADS)]
    if lacking:
        raise FeatureError(
            f"Encoder {files.name} must have all its weights in {files.folder}; {len(lacking)} are not in the files, "
            f"such as {sorted(lacking)[0]}. Fetch it again."
        )
    module = module.eval().requires_grad_(False).to(device)
    _check_layers(files, reading, module.config.num_hidden_layers)
    window = _window(files, reading, module, letters, tokenizer.model_max_length)
    return Encoder(files, module, letters, reading, window)


def _check_layers(files: Pretrained, reading: Reading, n_layers: int) -> None:
    wrong = [layer for layer in reading.layers if not -n_layers - 1 <= layer <= n_layers]
    if wrong or not reading.layers:
        raise FeatureError(
            f"Layers must be from {-n_layers - 1} to {n_layers} for encoder {files.name}, where −1 is the last; "
            f"got {', '.join(map(str, wrong)) or 'none'}."
        )


def _window(
    files: Pretrained, reading: Reading, module: "torch.nn.Module", letters: Letters, tokenizer_limit: int
) -> int:
    """Return how many residues the encoder reads at a time; 0 for any number."""
    limits = []
    positions = getattr(module.config, "max_position_embeddings", None)
    if positions:
        # Encoders that number positions after the padding's token (ESM, RoBERTa) have that many fewer.
        padding = getattr(getattr(module, "embeddings", None), "padding_idx", None)
        limits.append(positions - (0 if padding is None else padding + 1) - letters.n_special)
    if tokenizer_limit < 1_000_000:  # transformers says 1e30 where there is none
        limits.append(tokenizer_limit - letters.n_special)
    own = min(limits, default=0)
    if reading.window and own and reading.window > own:
        raise FeatureError(
            f"window must be at most {own:,}, what encoder {files.name} reads at a time; got {reading.window:,}."
        )
    window = reading.window or own
    if window and reading.overlap >= window:
        raise FeatureError(
            f"overlap must be below the window of {window:,} residues; got {reading.overlap:,}. Lower it."
        )
    return window


def _check_finite(arrays: Sequence[NDArray[np.float32]], encoder: Encoder) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise FeatureError(
            f"Encoder {encoder.files.name} must give finite numbers; it does not at {encoder.reading.precision}. "
            "Use --precision fp32 (in a recipe features.language_model.precision=fp32), or check its files."
        )


@contextlib.contextmanager
def _enough_memory(encoder: Encoder) -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FeatureError(
            f"A batch of {encoder.reading.batch_tokens:,} tokens must fit the memory of the GPU; it does not. "
            f"Use --batch-tokens {encoder.reading.batch_tokens // 4} (in a recipe: batch_tokens)."
        ) from error


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep from the user what transformers prints while it loads."""
    try:
        from transformers.utils import logging
    except ImportError:
        raise not_installed(name) from None
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
