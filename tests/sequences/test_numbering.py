import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailbind.errors import SequenceError
from tailbind.sequences import numbering
from tailbind.sequences.numbering import Domain, can_number, number

#: Trastuzumab.
VH = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAMDY"
    "WGQGTLVTVSS"
)
VL = "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATYYCQQHYTTPPTFGQGTKVEIK"
CH1 = "ASTKGPSVFPLAPSSKSTSGGTAALGCLVKDYFPEPVTVSWNSGALTSGVHTFPAVLQSSGLYSLSSVVTVPSSSLGTQTYICNVNHKPSNTKVDKKVEPKSCDKTHT"
FC = (
    "CPPCPAPELLGGPSVFLFPPKPKDTLMISRTPEVTCVVVDVSHEDPEVKFNWYVDGVEVHNAKTKPREEQYNSTYRVVSVLTVLHQDWLNGKEYKCKVSNKALPAPIEK"
    "TISKAKGQPREPQVYTLPPSRDELTKNQVSLTCLVKGFYPSDIAVEWESNGQPENNYKTTPPVLDSDGSFFLYSKLTVDKSRWQQGNVFSCSVMHEALHNHYTQKSLSL"
    "SPGK"
)
CL = "RTVAAPSVFIFPPSDEQLKSGTASVVCLLNNFYPREAKVQWKVDNALQSGNSQESVTEQDSKDSTYSLSSTLTLSKADYEKHKVYACEVTHQGLSSPVTKSFNRGEC"
LINKER = "GGGGS" * 3
SIGNAL = "MKYLLPTAAAGLLLLAAQPAMA"

SEQUENCES = {
    "heavy": VH,
    "light": VL,
    "scfv": VH + LINKER + VL,
    "reversed scfv": VL + LINKER + VH,
    "fab heavy": VH + CH1,
    "fab light": VL + CL,
    "igg heavy": VH + CH1 + FC,
    "constant": CH1 + FC,
    "constant light": CL,
    "tagged": SIGNAL + VH + "HHHHHH",
    "stop": VH + "*",
    "unknown": VH[:50] + "X" + VH[51:],
    "two chains": VH + "/" + VL,
    "random": "".join(random.Random(1).choices("ACDEFGHIKLMNPQRSTVWY", k=120)),
    "short": "EVQLVESGGG",
    "empty": "",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Domain, ...]]]:
    """The domains of the sequences above, numbered once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAILBIND_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield dict(zip(SEQUENCES, number(list(SEQUENCES.values())), strict=True))


@pytest.mark.parametrize(
    ("name", "chains"),
    [
        ("heavy", "H"),
        ("light", "K"),
        ("scfv", "HK"),
        ("reversed scfv", "KH"),
        ("fab heavy", "H"),
        ("fab light", "K"),
        ("igg heavy", "H"),
        ("constant", ""),
        ("constant light", ""),
        ("tagged", "H"),
        ("stop", "H"),
        ("unknown", "H"),
        ("two chains", "HK"),
        ("random", ""),
        ("short", ""),
        ("empty", ""),
    ],
)
def test_variable_domains_are_found_and_nothing_else(
    found: dict[str, tuple[Domain, ...]], name: str, chains: str
) -> None:
    assert "".join(domain.chain for domain in found[name]) == chains


@pytest.mark.parametrize(
    "name", ["heavy", "light", "scfv", "reversed scfv", "fab heavy", "igg heavy", "tagged", "two chains"]
)
def test_a_domain_reaches_from_its_first_to_its_last_residue(found: dict[str, tuple[Domain, ...]], name: str) -> None:
    for domain in found[name]:
        assert SEQUENCES[name][domain.start : domain.end] == (VH if domain.chain == "H" else VL)
        assert (domain.imgt_first, domain.imgt_last) == (1, 128 if domain.chain == "H" else 127)


def test_a_domain_without_its_ends_says_which_numbers_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILBIND_CACHE", str(tmp_path))
    (domain,) = number([VH[8:105]])[0]
    assert (domain.start, domain.end) == (0, 97)
    assert domain.imgt_first == 9
    assert 110 < domain.imgt_last < 128


def test_nothing_is_printed_and_no_thread_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setenv("TAILBIND_CACHE", str(tmp_path))
    before = torch.get_num_threads()
    number([VH + "*", VL])
    assert torch.get_num_threads() == before
    assert capfd.readouterr() == ("", "")


def test_every_residue_of_a_domain_has_its_position(found: dict[str, tuple[Domain, ...]]) -> None:
    for name, domains in found.items():
        for domain in domains:
            assert len(domain.positions) == domain.end - domain.start, name
            assert len(set(domain.positions)) == len(domain.positions)
    (heavy,) = found["heavy"]
    by_position = dict(zip(heavy.positions, VH, strict=True))
    assert (by_position["23"], by_position["41"], by_position["104"], by_position["118"]) == ("C", "W", "C", "W")


def test_progress_is_told_a_chunk_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILBIND_CACHE", str(tmp_path))
    monkeypatch.setattr(numbering, "CHUNK", 2)
    monkeypatch.setattr(numbering, "_domains", lambda sequences: [()] * len(sequences))
    told: list[tuple[int, int]] = []
    number([VH[:100], VH[:90], VH[:80]], notify=lambda done, of: told.append((done, of)))
    assert told == [(0, 3), (2, 3), (3, 3)]


class TestStore:
    """What is kept between runs; the model itself is not needed for it."""

    @pytest.fixture
    def asked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The sequences that the model was asked for so far."""
        asked: list[str] = []

        def domains(sequences: list[str]) -> list[tuple[Domain, ...]]:
            asked.extend(sequences)
            return [(Domain("H", 29.5, 0, len(sequence), ("1", "111A")),) for sequence in sequences]

        monkeypatch.setenv("TAILBIND_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(numbering, "_domains", domains)
        return asked

    def stored(self, tmp_path: Path) -> Path:
        (path,) = (tmp_path / "cache" / "numbering").iterdir()
        return path

    def test_a_sequence_is_numbered_once(self, asked: list[str]) -> None:
        first = number([VH, VL, VH])
        assert first[0] == first[2] == (Domain("H", 29.5, 0, 120, ("1", "111A")),)
        assert number([VL, VH]) == [first[1], first[0]]
        assert sorted(asked) == sorted([VH, VL])

    def test_what_was_known_stays_known(self, asked: list[str]) -> None:
        number([VH])
        number([VL])
        number([VH, VL])
        assert asked == [VH, VL]

    def test_results_are_on_disk_after_each_chunk(self, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        ask = numbering._domains

        def interrupted(sequences: list[str]) -> list[tuple[Domain, ...]]:
            if asked:
                raise KeyboardInterrupt
            return ask(sequences)

        monkeypatch.setattr(numbering, "CHUNK", 1)
        monkeypatch.setattr(numbering, "_domains", interrupted)
        with pytest.raises(KeyboardInterrupt):
            number([VH, VL])
        monkeypatch.setattr(numbering, "_domains", ask)
        number([VH, VL])
        assert sorted(asked) == sorted([VH, VL])

    @pytest.mark.parametrize(
        "damage",
        [
            b"{",
            b"\xff\xfe",
            b"[]\n",
            b'{"sequence": "abc"}\n',
            b'{"sequence": "abc", "domains": [["H", 29.5, 0, 120]]}\n',
            b'{"sequence": "abc", "domains": [["H", "high", 0, 1, "2 3"]]}\n',
            b'{"sequence": "abc", "domains": 3}\n',
            b'{"sequence": "abc", "domains": [["H", 29.5, 0, Infinity, "1"]]}\n',
        ],
    )
    def test_a_damaged_store_is_made_anew(self, asked: list[str], tmp_path: Path, damage: bytes) -> None:
        expected = number([VH])
        path = self.stored(tmp_path)
        whole = path.read_bytes()
        path.write_bytes(damage)
        assert number([VH]) == expected
        assert asked == [VH, VH]
        assert path.read_bytes() == whole
        assert [json.loads(line)["domains"] for line in whole.splitlines()] == [[["H", 29.5, 0, 120, "1 111A"]]]

    def test_beside_a_damaged_line_the_others_stay(self, asked: list[str], tmp_path: Path) -> None:
        number([VH, VL])
        path = self.stored(tmp_path)
        first, second = path.read_bytes().splitlines()
        path.write_bytes(first + b"\n" + second[: len(second) // 2])
        del asked[:]
        number([VH, VL])
        assert len(asked) == 1
        assert path.read_bytes().splitlines() == [first, second]

    def test_what_another_program_has_added_is_kept(
        self, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask = numbering._domains

        def beside(sequences: list[str]) -> list[tuple[Domain, ...]]:
            monkeypatch.setattr(numbering, "_domains", ask)
            number([VL])  # while VH is being numbered
            return ask(sequences)

        monkeypatch.setattr(numbering, "_domains", beside)
        number([VH])
        assert len(self.stored(tmp_path).read_bytes().splitlines()) == 2

    def test_where_nothing_can_be_written_numbering_goes_on(
        self, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("not a folder")
        monkeypatch.setenv("TAILBIND_CACHE", str(tmp_path / "file"))
        assert number([VH]) == number([VH]) == [(Domain("H", 29.5, 0, 120, ("1", "111A")),)]
        assert asked == [VH, VH]

    def test_the_users_cache_folder_is_taken_unless_another_is_named(
        self, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("TAILBIND_CACHE")
        monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "users" / name))
        number([VH])
        (path,) = (tmp_path / "users" / "tailbind" / "numbering").iterdir()
        assert path.suffix == ".jsonl"


def test_without_anarcii_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_number()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not can_number()
    assert number(["", "EVQL"]) == [(), ()]
    with pytest.raises(SequenceError, match=r"1 distinct sequences needs anarcii.*pip install 'tailbind\[sequences\]'"):
        number([VH, VH])
