"""How much one request may ask for, how many may wait, and how long a client may take."""

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What the server takes.

    Attributes
    ----------
    pairs : in one request
    chain_letters, antigen_letters : of one sequence
    json_bytes, upload_bytes : of one request's body
    held_bytes : of all bodies that are being received at a time
    upload_rows, upload_columns : of one table
    unpacked_bytes : that the cells of a Parquet file may have, each written out
    unpacking_bytes, unpacking_seconds : that the process has which unpacks it
    scan_letters : of the chains that one scan substitutes
    waiting_pairs : that wait to be predicted, beyond which a request is answered with 503
    waiting_jobs : tables and scans that wait, likewise
    batch_pairs : that are predicted together
    batch_seconds : that the first of them waits for others
    head_seconds, body_seconds : in which a request's head and its body must be there
    send_seconds : in which a client must take a piece of the answer
    stop_seconds : that requests in flight have when the server is to stop
    connections : that are open at a time
    """

    pairs: int = 10_000
    chain_letters: int = 1_000
    antigen_letters: int = 5_000
    json_bytes: int = 16 * MIB
    upload_bytes: int = 32 * MIB
    held_bytes: int = 256 * MIB
    upload_rows: int = 200_000
    upload_columns: int = 5_000
    unpacked_bytes: int = 256 * MIB
    unpacking_bytes: int = 1024 * MIB
    unpacking_seconds: float = 60.0
    scan_letters: int = 1_000
    waiting_pairs: int = 20_000
    waiting_jobs: int = 8
    batch_pairs: int = 1_024
    batch_seconds: float = 0.003
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    send_seconds: float = 60.0
    stop_seconds: int = 30
    connections: int = 500

    @classmethod
    def asked(cls, *, pairs: int | None = None, upload_mib: int | None = None, rows: int | None = None) -> "Limits":
        """Return limits of which a user sets some, and of the others what is needed to reach these.

        >>> Limits.asked(pairs=50_000).json_bytes // MIB, Limits.asked(upload_mib=4).upload_bytes // MIB
        (80, 4)
        """
        usual = cls()
        pairs = pairs or usual.pairs
        upload_bytes = usual.upload_bytes if upload_mib is None else upload_mib * MIB
        larger, longer = max(1.0, upload_bytes / usual.upload_bytes), max(1.0, pairs / usual.pairs)
        return cls(
            pairs=pairs,
            json_bytes=int(usual.json_bytes * longer),
            waiting_pairs=int(usual.waiting_pairs * longer),
            upload_rows=rows or usual.upload_rows,
            upload_bytes=upload_bytes,
            held_bytes=int(usual.held_bytes * max(larger, longer)),
            unpacked_bytes=int(usual.unpacked_bytes * larger),
            unpacking_bytes=int(usual.unpacking_bytes * larger),
        )

    def letters(self, chain: str) -> int:
        """Return how many letters a sequence of this chain may have.

        >>> Limits().letters("heavy")
        1000
        """
        return self.antigen_letters if chain == "antigen" else self.chain_letters
