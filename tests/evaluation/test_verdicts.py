"""Verdicts: what figures must say for each answer, and the words they come with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tailbind.evaluation.probing import agreement, by_region, changes, scan
from tailbind.evaluation.verdicts import Verdict, judge, passes, yardstick

RNG = np.random.default_rng(0)
MEASURED = RNG.normal(-0.3, 0.6, 300)


def figures(**others: Any) -> dict[str, Any]:
    """Return the figures of a model that does everything as measured, but for what is given."""
    place, letters = np.repeat(np.arange(60), 19), np.tile(np.arange(19), 60)
    of_scan = scan(RNG.normal(size=60)[place] + 0.2 * RNG.normal(size=1140), np.zeros(1140, int), letters)
    regions = by_region(["heavy FR1", "heavy CDR1"], place % 2, np.where(place % 2, 1.0, -0.2))
    return {
        "n_antigens": 3,
        "scan": of_scan,
        "scan_measured": changes(MEASURED),
        "mutants_measured": changes(MEASURED),
        "mutants": {**agreement(MEASURED, MEASURED * 0.8), "spearman_blosum62": 0.12},
        "antigens": agreement(MEASURED, MEASURED * 0.9),
        "regions": regions,
        "regions_measured": regions,
        "probes": {
            "cdrs_to_alanine": probed(-2.0),
            "antigen_swapped": probed(0.7),
            "antigen_removed": probed(0.4),
            "antibody_swapped": probed(1.1),
            "chains_exchanged": probed(-1.5),
        },
        **others,
    }


def probed(change: float, flagged: float | None = None) -> dict[str, Any]:
    return {**changes(np.full(200, change)), "share_flagged": flagged}


def verdict(key: str, found: Mapping[str, Any]) -> Verdict:
    return next(entry for entry in judge(found) if entry.key == key)


def test_a_model_that_answers_as_measured_passes() -> None:
    verdicts = judge(figures())
    assert passes(verdicts)
    assert {entry.key: entry.answer for entry in verdicts if entry.answer != "yes"} == {"new": "unknown"}
    assert "Sees mutations: Spearman 1.00 (1.00 to 1.00)" in verdict("order", figures()).evidence
    assert "BLOSUM62, which knows no data, has 0.12" in verdict("order", figures()).evidence


def test_the_same_answer_for_every_mutant_is_a_collapse() -> None:
    change = np.repeat([0.0, 0.004, 0.008], 380)
    found = figures(scan=scan(change, np.zeros(1140, int), np.arange(1140) % 19))
    answer = verdict("responds", found)
    assert answer.answer == "no"
    assert answer.evidence.startswith("Collapsed: 1,140 substitutions, in 1 training antibody, have 3 distinct answers")
    assert "(SD 0.003 pKd; the measured ones 0.6" in answer.evidence
    assert not passes(judge(found))


def test_without_measured_mutants_a_usual_spread_is_the_yardstick() -> None:
    few = changes(MEASURED[:5])
    found = figures(mutants=agreement(MEASURED[:5], MEASURED[:5]), mutants_measured=few, scan_measured=few)
    assert verdict("responds", found).evidence.endswith("0.5 would be usual; none were measured).")
    assert verdict("order", found).answer == "unknown"
    assert verdict("size", found).answer == "unknown"
    assert passes(judge(found))


@pytest.mark.parametrize(
    ("noise", "answer", "word"),
    [
        (0.0, "yes", "Sees mutations"),
        (2.0, "partly", "Partly sees mutations"),
        (4.5, "barely", "Barely sees mutations"),
        (1e6, "no", "Blind to mutations"),
    ],
)
def test_the_order_of_held_out_mutants_decides(noise: float, answer: str, word: str) -> None:
    predicted = MEASURED + noise * np.random.default_rng(5).normal(0, 0.6, 300)
    found = figures(mutants=agreement(MEASURED, predicted))
    assert verdict("order", found).answer == answer
    assert verdict("order", found).evidence.startswith(f"{word}: Spearman")
    assert passes(judge(found)) == (answer in ("yes", "partly"))


def test_no_change_for_any_mutant_is_a_no() -> None:
    found = figures(mutants=agreement(MEASURED, np.zeros(300)))
    assert verdict("order", found).answer == "no"
    assert verdict("order", found).evidence == "Of 300 held-out single mutants, it predicts no change for any."
    alike = figures(mutants=agreement(np.zeros(300), MEASURED))
    assert verdict("order", alike).answer == "unknown"


@pytest.mark.parametrize(("factor", "answer"), [(0.8, "yes"), (0.4, "partly"), (0.2, "barely"), (0.05, "no")])
def test_the_size_of_changes_is_held_against_the_measured(factor: float, answer: str) -> None:
    found = figures(mutants=agreement(MEASURED, MEASURED * factor))
    assert verdict("size", found).answer == answer
    assert verdict("responds", found).answer == (answer if answer != "no" else "barely")


def test_answers_that_letters_tell_know_no_places() -> None:
    letters = np.arange(1140) % 19
    found = figures(scan=scan(RNG.normal(size=19)[letters], np.zeros(1140, int), letters))
    assert verdict("places", found).answer == "no"
    assert "tells 100 % of the variance" in verdict("places", found).evidence
    assert not passes(judge(found))


def test_silence_on_new_substitutions_is_told() -> None:
    letters, nobody = np.arange(1000) % 19, np.zeros(1000, int)
    silent = {
        "scan_new": scan(np.zeros(1000), nobody, letters),
        "scan_seen": scan(MEASURED, nobody[:300], letters[:300]),
    }
    answer = verdict("new", figures(**silent))
    assert answer.answer == "no"
    assert "100 % of these leave the prediction as it was" in answer.evidence
    assert "300 substitutions that training had" in verdict("responds", figures(**silent)).evidence
    assert passes(judge(figures(**silent)))
    speaks = figures(scan_new=scan(RNG.normal(size=1000), nobody, letters))
    assert verdict("new", speaks).answer == "yes"
    assert verdict("new", figures(scan_new=scan(np.array([]), nobody[:0], letters[:0]))).answer == "unknown"


def test_blindness_to_the_antigen() -> None:
    probes = figures()["probes"]
    blind = figures(probes={**probes, "antigen_swapped": probed(0.0)})
    answer = verdict("antigen", blind)
    assert answer.answer == "no"
    assert answer.evidence.startswith(
        "Blind to the antigen: swapping it for another row's moves predictions by 0.00 pKd in the median of 200, "
        "removing it by 0.40, swapping the antibody by 1.10."
    )
    assert not passes(judge(blind))
    wrong = verdict("antigen", figures(antigens=agreement(MEASURED, -MEASURED)))
    assert (wrong.answer, wrong.evidence[:42]) == ("no", "Moves with the antigen, but not as measure")
    noisy = MEASURED + 2 * np.random.default_rng(5).normal(0, 0.6, 300)
    part = verdict("antigen", figures(antigens=agreement(MEASURED, noisy)))
    assert (part.answer, part.evidence[:46]) == ("partly", "Moves with the antigen, but partly as measured")
    unheld = verdict("antigen", figures(antigens=agreement(MEASURED[:3], MEASURED[:3])))
    assert unheld.answer == "yes"
    assert "Too few antibodies were measured against two antigens" in unheld.evidence


def test_the_yardstick_is_what_is_beside_the_scanned_where_that_is_enough() -> None:
    beside, everywhere = changes(2 * MEASURED[:20]), changes(MEASURED)
    enough = figures(scan_measured=beside)
    assert yardstick(enough) == beside["sd"]
    assert yardstick(figures(scan_measured=changes(2 * MEASURED[:19]))) == everywhere["sd"]
    few = changes(MEASURED[:19])
    assert yardstick(figures(scan_measured=few, mutants_measured=few)) is None


@pytest.mark.parametrize(
    ("n_antigens", "words"),
    [
        (0, "The table names no antigen: nothing can be learned of others."),
        (1, "The table has one antigen: nothing can be learned of others."),
        (2, "The test rows name no antigen: there is none to swap."),
    ],
)
def test_one_antigen_teaches_nothing_of_others(n_antigens: int, words: str) -> None:
    probes = {way: entry for way, entry in figures()["probes"].items() if way != "antigen_swapped"}
    found = figures(probes=probes, n_antigens=n_antigens)
    assert verdict("antigen", found).answer == "unknown"
    assert verdict("antigen", found).evidence.startswith(words)
    assert passes(judge(found))


def test_cdrs_and_frameworks() -> None:
    flat = by_region(["heavy FR1", "heavy CDR1"], np.arange(200) % 2, np.full(200, 0.3))
    assert verdict("regions", figures(regions=flat)).answer == "barely"
    assert verdict("regions", figures(regions=flat, regions_measured={})).answer == "barely"
    against = by_region(["heavy FR1", "heavy CDR1"], np.arange(200) % 2, np.where(np.arange(200) % 2, 0.1, 0.9))
    assert verdict("regions", figures(regions=against)).answer == "no"
    assert verdict("regions", figures(regions=against, regions_measured=against)).answer == "unknown"
    assert verdict("regions", {**figures(), "regions": {}}).answer == "unknown"


@pytest.mark.parametrize(("fall", "answer"), [(-2.0, "yes"), (-0.3, "barely"), (0.4, "no")])
def test_an_antibody_without_cdrs_should_bind_worse(fall: float, answer: str) -> None:
    found = figures(probes={**figures()["probes"], "cdrs_to_alanine": probed(fall, flagged=0.97)})
    assert verdict("cdrs", found).answer == answer
    assert verdict("cdrs", found).evidence.endswith("; 97 % are flagged as something training never saw.")
    assert passes(judge(found))  # the model may say so instead


@pytest.mark.parametrize(
    ("move", "flagged", "answer"), [(1.0, None, "yes"), (0.0, 1.0, "yes"), (0.2, None, "barely"), (0.0, 0.1, "no")]
)
def test_exchanged_chains_are_noticed_or_flagged(move: float, flagged: float | None, answer: str) -> None:
    found = figures(probes={**figures()["probes"], "chains_exchanged": probed(move, flagged)})
    assert verdict("chains", found).answer == answer


def test_what_could_not_be_asked_is_unknown() -> None:
    found = figures(probes={}, scan=scan(np.array([]), np.array([], int), np.array([], int)))
    assert {
        entry.answer for entry in judge({**found, "regions": {}, "mutants": agreement(MEASURED[:2], MEASURED[:2])})
    } == {"unknown"}
