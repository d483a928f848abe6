"""The command line: each verb is a typed call into `workflows`. The only room that parses arguments.

Exit codes: 0 done; 1 the answer is no; 2 a mistake of the user's or of the machine, told in one line; 130
interrupted. What is heavy is imported inside the verbs, so that `--help` is quick.
"""

import sys
from collections.abc import Sequence
from typing import Final

import typer

from tailbind.cli.printing import complain
from tailbind.cli.verbs import app
from tailbind.errors import TailbindError

#: What Typer raises for a wrong command line: BadParameter's ancestor below Exception. Typer brings Click
#: along under a name that has changed between versions.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]

MISTAKE: Final = 2
INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    >>> main(["--version"])
    tailbind ...
    0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="tailbind", standalone_mode=False)
    except TailbindError as error:
        return _fail(str(error))
    except _CommandLineError as error:
        format_message = getattr(error, "format_message", error.__str__)
        verb = f" {arguments[0]}" if arguments[0] in getattr(command, "commands", {}) else ""
        return _fail(f"{format_message()} See tailbind{verb} --help.")
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except OSError as error:
        return _fail(f"{error.filename or 'A file'}: {error.strerror or error}.")
    if code == INTERRUPTED:
        _fail("Interrupted. An unfinished training goes on with --resume, a ladder and embed with the same command.")
    return code if isinstance(code, int) else 0


def run() -> None:
    """Run the command line of this process and leave with its exit code."""
    sys.exit(main())


def _fail(message: str) -> int:
    """Print one line on standard error and return the exit code of a mistake."""
    complain(message)
    return MISTAKE
