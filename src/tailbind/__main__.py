"""`python -m tailbind` is the `tailbind` command."""

from tailbind.cli import run

run()
