"""What the verbs print: results on standard output, remarks and mistakes on standard error."""

from rich.console import Console


def say(text: str) -> None:
    """Print a result on standard output, as it is.

    >>> say("[bold] is no markup here")
    [bold] is no markup here
    """
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def tell(text: str) -> None:
    """Print a remark on standard error, so that standard output is the result alone."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print one line on standard error, in red where there are colours."""
    Console(stderr=True).print(
        f"tailbind: {' '.join(message.split())}", style="red", markup=False, highlight=False, soft_wrap=True
    )
