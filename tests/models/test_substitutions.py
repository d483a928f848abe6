import numpy as np
import pytest

from tailbind.features.chain_sites import fit_chain
from tailbind.models.substitutions import GAP, RESIDUE, _coordinates, site_vectors
from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.sequences.residues import BLOSUM62


def test_likenesses_are_blosum62_s_and_identity_s() -> None:
    coordinates = _coordinates()
    for residue in (*AMINO_ACIDS, GAP):
        assert coordinates[residue] @ coordinates[residue] == pytest.approx(1)
    scores = np.array([[BLOSUM62[ord(a), ord(b)] for a in AMINO_ACIDS] for b in AMINO_ACIDS], np.float64)
    own = np.sqrt(np.diag(scores))
    found = np.array([[coordinates[a] @ coordinates[b] for a in AMINO_ACIDS] for b in AMINO_ACIDS])
    off = ~np.eye(20, dtype=bool)
    # BLOSUM62 is no product of anything: what makes it one lifts all of its likenesses, the lowest most.
    assert np.corrcoef(found[off], (scores / np.outer(own, own))[off])[0, 1] > 0.95
    assert found[off].max() < 1
    assert coordinates["W"] @ coordinates[GAP] == pytest.approx(0)


def test_the_columns_of_a_row_add_up_to_its_residues() -> None:
    """From sequences, through the names that the block gives, to distances that BLOSUM62 has between the sequences."""
    rng = np.random.default_rng(0)
    wild = "EVQLVESGGGLVQPGGSLRLSCAAS"
    sequences = [wild]
    for _ in range(60):
        letters = list(wild)
        for place in rng.choice([3, 8, 12, 17], 2, replace=False):
            letters[place] = rng.choice(list("ADFKLW"))
        sequences.append("".join(letters))
    chain = fit_chain("antigen", sequences, np.ones(len(sequences), np.intp), identity=0.8, numbering=False)
    encoded = chain.encode(sequences).sparse
    found = site_vectors(chain.sparse_names)
    points = encoded @ found.vectors
    coordinates = _coordinates()
    for first, second in rng.integers(0, len(sequences), (40, 2)):
        expected = sum(
            np.square(coordinates[a] - coordinates[b]).sum()
            for a, b in zip(sequences[first], sequences[second], strict=True)
        )
        assert np.square(points[first] - points[second]).sum() == pytest.approx(expected)


def test_a_site_with_one_residue_and_a_column_that_is_none() -> None:
    found = site_vectors(["heavy 0 H52 FR2 S>Y", "light 0 12 S>-", "antigen of source x A>B", "s0"])
    coordinates = _coordinates()
    assert sorted(set(found.site.tolist())) == [0, 1, 2, 3]
    squares = np.square(found.vectors).sum(axis=1)
    expected = [2 - 2 * coordinates["S"] @ coordinates["Y"], 2 - 2 * coordinates["S"] @ coordinates["-"], 0.5, 0.5]
    np.testing.assert_allclose(squares, expected)
    products = (found.vectors @ found.vectors.T).toarray()
    np.testing.assert_allclose(products, np.diag(squares), atol=1e-12)


def test_an_unknown_letter_is_in_the_middle_and_nothing_is_nothing() -> None:
    squares = np.square(site_vectors(["heavy 0 H52 FR2 S>X"]).vectors).sum()
    coordinates = _coordinates()
    assert squares == pytest.approx(np.square(coordinates["any"] - coordinates["S"]).sum())
    assert site_vectors([]).vectors.shape == (0, 0)
    assert RESIDUE.fullmatch("heavy 0 before H52 +GG") is None
