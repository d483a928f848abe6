"""What requests and answers look like: the shapes that the OpenAPI document shows."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.server.checking import SPACES
from tailbind.server.limits import Limits

LIMITS: Final = Limits()
LETTERS: Final = f"^[{AMINO_ACIDS}{AMINO_ACIDS.lower()}{SPACES}]*[*{SPACES}]*$"
#: White space and gaps may stand between the letters, and are left out; so a text may be longer than the sequence.
SPACED: Final = 2


def _sequence(chain: str, words: str) -> Any:
    """Return the field of a chain's sequence; its letters are looked at in `checking`, which tells bad ones' places."""
    most = LIMITS.letters(chain)
    return Field(default="", max_length=SPACED * most, description=words, json_schema_extra={"pattern": LETTERS})


class Strict(BaseModel):
    """A request in which a name that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid")


class Pair(Strict):
    """An antibody and its antigen, as protein sequences in one-letter code."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [chain], "properties": {chain: {"pattern": "[A-Za-z]"}}} for chain in ("heavy", "light")
            ]
        }
    )

    heavy: str = _sequence("heavy", "Heavy chain; empty where there is none.")
    light: str = _sequence("light", "Light chain; empty where there is none. Heavy or light must be there.")
    antigen: str = _sequence("antigen", "Antigen; empty where it is not known.")


class PairsAsked(Strict):
    """Pairs to predict."""

    pairs: Annotated[list[Pair], Field(min_length=1)]


def pairs_asked(most: int) -> type[PairsAsked]:
    """Return the shape of a request with at most so many pairs: more are not even looked at.

    >>> pairs_asked(2).model_json_schema()["properties"]["pairs"]["maxItems"]
    2
    """
    pairs = Annotated[list[Pair], Field(min_length=1, max_length=most)]
    return create_model("PairsAsked", __base__=PairsAsked, __doc__=PairsAsked.__doc__, pairs=(pairs, ...))


Chain = Literal["heavy", "light", "antigen"]


class ScanAsked(Pair):
    """A pair of which every single substitution is to be predicted."""

    chains: Annotated[
        list[Chain], Field(min_length=1, max_length=3, description="Chains to substitute, each at most once.")
    ] = ["heavy"]


class Prediction(BaseModel):
    """What the model says of one pair; null where it has nothing to say."""

    model_config = ConfigDict(extra="allow")

    pkd: float | None = Field(description="Predicted −log10(Kd in mol/L).")
    kd_nm: float | None = Field(description="The same as Kd in nM.")
    affinity_bin: str | None = Field(description="very_weak, weak, moderate, strong or very_strong.")
    sd: float | None = Field(None, description="Standard deviation over the members of an ensemble, in pKd.")
    pkd_low: float | None = Field(None, description="Lower end of the interval.")
    pkd_high: float | None = Field(None, description="Upper end of the interval.")
    p_below_5: float | None = Field(None, description="Probability that pKd is below 5.")
    p_above_9: float | None = Field(None, description="Probability that pKd is above 9.")
    p_above_11: float | None = Field(None, description="Probability that pKd is above 11.")
    unseen: str | None = Field(None, description="What of the pair training never saw, in words.")


class Told(BaseModel):
    """What is said beside predictions."""

    level: float | None = Field(
        None, description="Share of measured values that pkd_low to pkd_high is to hold; null without intervals."
    )


class Predictions(Told):
    """A prediction for each pair, in the order they came."""

    predictions: list[Prediction]


class RowPrediction(Prediction):
    """What the model says of one row of a table."""

    row_id: str


class TablePredictions(Told):
    """A prediction for each row, and what a person should know of how the table was read."""

    predictions: list[RowPrediction]
    notes: list[str]


class Substitution(BaseModel):
    """One substitution: what it is, and what the model says of the mutant."""

    model_config = ConfigDict(extra="allow")

    chain: Chain
    position: int = Field(description="In the sequence, from 1.")
    imgt: str | None = Field(None, description="The position's IMGT number, where known.")
    region: str | None = Field(None, description="Framework or CDR, where known.")
    wild_type: str
    residue: str
    mutation: str
    predicted_pkd: float | None
    delta_pkd: float | None = Field(description="Predicted pKd of the mutant less that of the wild type.")


class Substitutions(Told):
    """Every single substitution of the chains asked for, and the prediction for the wild type."""

    wild_type: Prediction
    substitutions: list[Substitution]


class ModelCard(BaseModel):
    """What the model is, what it was trained on, how good it is and what it is not for, in Markdown."""

    name: str
    markdown: str


class Health(BaseModel):
    """That the server runs, and what it takes."""

    status: Literal["ok"]
    model: str
    version: str
    reads: Literal["sequences", "columns"]
    scans: bool
    needs_key: bool
    level: float | None = Field(description="Of the intervals, as beside predictions; null without intervals.")
    limits: dict[str, int]


class Fault(BaseModel):
    """What is wrong with one field of a request."""

    path: str = Field(description="Where, as in pairs[0].heavy.")
    message: str


class Problem(BaseModel):
    """Why a request was not answered: one line, and the fields that are to blame where there are any."""

    message: str
    fields: list[Fault] = []
