import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbind.errors import SequenceError
from tailbind.runtime import remarks_to
from tailbind.sequences import families as module
from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.sequences.families import Families, Placement, find_families
from tailbind.sequences.laying import GAP, OTHER, REGIONS, aligned

#: Trastuzumab.
VH = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAMDY"
    "WGQGTLVTVSS"
)
VL = "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATYYCQQHYTTPPTFGQGTKVEIK"
LINKER = "GGGGS" * 3
RANDOM = random.Random(3)
STRANGER = "".join(RANDOM.choices(AMINO_ACIDS, k=130))


def mutated(sequence: str, place: int, letter: str) -> str:
    return sequence[:place] + letter + sequence[place + 1 :]


def region_of(families: Families, sequence: str, name: str) -> str:
    (regions,) = families.regions([sequence])
    return "".join(letter for letter, region in zip(sequence, regions, strict=True) if REGIONS[region] == name)


@pytest.fixture(scope="module")
def antibodies() -> Families:
    """Families of VH variants, of VL variants and of an scFv; numbered."""
    variants = [mutated(VH, place, "A") for place in (3, 30, 60)]
    return find_families([VH, *variants, VH[:100] + "GG" + VH[100:], VL, VH + LINKER + VL, ""])


def test_a_family_is_represented_by_the_member_nearest_to_its_consensus() -> None:
    parent = STRANGER[:40]
    variants = [mutated(parent, place, "W") for place in range(10, 20) if parent[place] != "W"]
    families = find_families([*variants, parent, parent + "W"], numbering=False)
    assert [member.sequence for member in families.members] == [parent]
    assert families.members[0].reach == pytest.approx(0.9)


def test_representatives_do_not_depend_on_the_order_of_rows() -> None:
    sequences = [mutated(STRANGER, place, "W") for place in range(0, 60, 3)] + [VH, VL]
    shuffled = random.Random(1).sample(sequences, len(sequences))
    one, other = (find_families(some, numbering=False).state() for some in (sequences, shuffled))
    assert one["sequences"] == other["sequences"]
    assert one["reach"].tolist() == other["reach"].tolist()


def test_cdrs_of_trastuzumab_are_those_of_imgt(antibodies: Families) -> None:
    assert region_of(antibodies, VH, "VH.CDR1") == "GFNIKDTY"
    assert region_of(antibodies, VH, "VH.CDR2") == "IYPTNGYT"
    assert region_of(antibodies, VH, "VH.CDR3") == "SRWGGDGFYAMDY"
    assert region_of(antibodies, VL, "VL.CDR1") == "QDVNTA"
    assert region_of(antibodies, VL, "VL.CDR2") == "SAS"
    assert region_of(antibodies, VL, "VL.CDR3") == "QQHYTTPPT"


def test_an_scfv_has_the_regions_of_both_domains_and_a_linker(antibodies: Families) -> None:
    scfv = VH + LINKER + VL
    assert region_of(antibodies, scfv, "VH.CDR3") == "SRWGGDGFYAMDY"
    assert region_of(antibodies, scfv, "VL.CDR3") == "QQHYTTPPT"
    assert region_of(antibodies, scfv, "other") == LINKER
    member = next(member for member in antibodies.members if len(member) == len(scfv))
    assert member.positions[0] == "H1"
    assert member.positions[-1].startswith("K12")


def test_variants_carry_the_regions_of_their_representative(antibodies: Families) -> None:
    assert region_of(antibodies, mutated(VH, 29, "W"), "VH.CDR1") == "GFNIWDTY"
    longer = VH[:102] + "GG" + VH[102:]
    assert len(region_of(antibodies, longer, "VH.CDR3")) == 15
    shorter = VH[:101] + VH[103:]
    assert len(region_of(antibodies, shorter, "VH.CDR3")) == 11
    assert region_of(antibodies, shorter, "VH.FR4") == "WGQGTLVTVSS"


@given(st.lists(st.text(alphabet=AMINO_ACIDS + "X-*?", min_size=0, max_size=60), max_size=8))
def test_every_residue_has_a_region_whatever_the_sequence(sequences: list[str]) -> None:
    families = find_families([STRANGER, STRANGER[:50], *sequences[:2]], numbering=False)
    found = families.regions(sequences)
    assert [len(regions) for regions in found] == [len(sequence) for sequence in sequences]
    assert all((regions == OTHER).all() for regions in found)


@given(st.text(alphabet=AMINO_ACIDS, max_size=30), st.text(alphabet=AMINO_ACIDS, max_size=30))
def test_an_alignment_holds_the_whole_sequence(sequence: str, reference: str) -> None:
    residues, insertions = aligned(sequence, reference)
    assert len(residues) == len(reference)
    before = dict(insertions)
    spelled = "".join(
        before.get(place, "") + (chr(letter) if letter != GAP else "")
        for place, letter in enumerate([*residues.tolist(), GAP])
    )
    assert spelled == sequence


def test_sequences_of_one_length_are_laid_letter_by_letter() -> None:
    families = find_families([STRANGER], numbering=False)
    shifted = "W" + STRANGER[:-1]  # the same length, but shifted: by edits it is far nearer than letter by letter
    variant = mutated(STRANGER, 5, "-")  # a letter like any other: what is absent has a code of its own
    placement = families.place([variant, shifted, "", "MKT"])
    assert placement.in_place.tolist() == [True, False, False, False]
    assert placement.family.tolist() == [0, 0, -1, 0]
    assert placement.identity[1] == pytest.approx(1 - 2 / 130)
    assert np.isnan(placement.identity[2])
    (laid,) = families.lay([variant, shifted, "", "MKT"], placement)
    assert laid.which.tolist() == [0, 1, 3]
    assert laid.residues[0].tobytes().decode() == variant
    assert (1, 0, "W") in laid.insertions


def test_no_families_place_nothing() -> None:
    families = find_families(["", ""], numbering=False)
    assert len(families) == 0
    placement = families.place(["EVQL", ""])
    assert placement.family.tolist() == [-1, -1]
    assert families.lay(["EVQL", ""], placement) == []
    assert [regions.tolist() for regions in families.regions(["EVQL", ""])] == [[OTHER] * 4, []]


def test_families_survive_their_state(antibodies: Families) -> None:
    again = Families.from_state(antibodies.state())
    for one, other in zip(antibodies.members, again.members, strict=True):
        assert (one.sequence, one.positions, one.reach) == (other.sequence, other.positions, other.reach)
        assert one.regions.tolist() == other.regions.tolist()
    assert len(Families.from_state(Families(()).state())) == 0


def test_beyond_the_most_that_are_numbered_the_nearest_lends_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NUMBERED", 1)
    far = "".join(letter if place % 4 or 25 < place < 116 else "A" for place, letter in enumerate(VH))
    longer = far[:104] + "WKWK" + far[104:]  # in CDR3
    told: list[str] = []
    with remarks_to(told.append):
        families = find_families([VH, mutated(VH, 0, "Q"), far, longer + "AAA"], identity=0.98)
    assert len(families) == 3
    assert region_of(families, far, "VH.CDR3") == "SRWGGDGFYAMDY"
    assert region_of(families, longer + "AAA", "VH.CDR3") == "SRWGGDGF" + "WKWK" + "YAMDY"
    assert region_of(families, longer + "AAA", "other") == "AAA"
    by_sequence = {member.sequence: member for member in families.members}
    positions = by_sequence[longer + "AAA"].positions
    assert (positions[0], positions[103], positions[104], positions[108]) == ("H1", "H112", "105", "H113")
    assert len(set(positions)) == len(positions)
    assert told == [
        "Numbered 1 representatives of families; 2 more, of the smallest families, carry the numbers of the nearest."
    ]


def test_what_stands_outside_a_domain_is_of_no_region(antibodies: Families) -> None:
    tagged = "MKYLLPTAA" + VH + "AAAHHHHHH"
    assert region_of(antibodies, tagged, "other") == "MKYLLPTAA" + "AAAHHHHHH"
    assert region_of(antibodies, tagged, "VH.FR4") == "WGQGTLVTVSS"
    assert region_of(antibodies, VH[:100] + "-" + VH[101:], "VH.CDR3") == "SRWG-DGFYAMDY"


def test_a_deletion_and_an_insertion_are_two_edits_however_many_letters_they_shift() -> None:
    families = find_families([VH], numbering=False)
    shifted = VH[:29] + VH[30:47] + "W" + VH[47:]
    placement = families.place([shifted, mutated(mutated(VH, 5, "W"), 60, "W")])
    assert placement.identity.tolist() == pytest.approx([1 - 2 / 120, 1 - 2 / 120])
    assert placement.in_place.tolist() == [False, True]
    (laid,) = families.lay([shifted], families.place([shifted]))
    assert (laid.residues != np.frombuffer(VH.encode(), np.uint8)).sum() == 1
    assert len(laid.insertions) == 1


def test_no_member_is_far_from_its_representative() -> None:
    chain = [STRANGER]
    for place in range(0, 80, 5):  # a chain of relatives, each 96 % like the one before
        chain.append(chain[-1][:place] + "WWWWW" + chain[-1][place + 5 :])
    families = find_families(chain, identity=0.95, numbering=False)
    placement = families.place(chain)
    assert placement.identity.min() >= 0.8
    assert min(member.reach for member in families.members) >= 0.8


def test_an_identity_at_the_limit_is_at_the_limit() -> None:
    families = find_families([VH[:108]], numbering=False)
    assert families.place([VH[:108] + "W" * 12]).identity[0] == pytest.approx(0.9, abs=1e-12)


def test_of_very_many_families_the_nearest_is_found_where_it_is_a_relative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_COMPARED", 2)
    strangers = ["".join(RANDOM.choices(AMINO_ACIDS, k=80 + length)) for length in range(10)]
    families = find_families(strangers, numbering=False)
    variants = [sequence[:40] + "G" + sequence[40:] for sequence in strangers]
    placement = families.place([*variants, "W" * 85])
    found = [families.members[family].sequence for family in placement.family.tolist()]
    assert found[:10] == strangers
    assert placement.identity[10] < 0.3


def test_without_anarcii_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailbind.sequences.numbering.can_number", lambda: False)
    with pytest.raises(SequenceError, match=r"needs anarcii; it is not installed"):
        find_families([VH])
    assert set(find_families([VH], numbering=False).members[0].regions.tolist()) == {OTHER}


def test_place_answers_for_each_sequence_alone(antibodies: Families) -> None:
    sequences = [VH, mutated(VH, 7, "W"), VL, STRANGER, VH[5:], ""]
    together = antibodies.place(sequences)
    for position, sequence in enumerate(sequences):
        alone: Placement = antibodies.place([sequence])
        assert alone.family[0] == together.family[position]
        assert alone.identity[0] == pytest.approx(together.identity[position], nan_ok=True)


def test_a_sequence_has_its_family_s_places_only_where_it_has_its_residues() -> None:
    heavy = "EVQLVESGGGLVQPGGSLRLSCAAS"
    families = find_families([heavy, heavy[:-1] + "T", "MKTAYIAKQRQISFVKSHFSRQ"], identity=0.9, numbering=False)
    changed = families.member_of(heavy[:4] + "W" + heavy[5:])
    assert changed is not None
    assert changed.positions == tuple(str(place) for place in range(1, 26))
    assert families.member_of(heavy[1:]) is None  # a residue less
    assert families.member_of("W" * 25) is None  # of no family
    assert families.member_of("") is None
    assert find_families([], numbering=False).member_of(heavy) is None
