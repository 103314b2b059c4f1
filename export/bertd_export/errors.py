"""What can go wrong with an export."""


class ExportError(Exception):
    """The model cannot be exported. The message says why, and what to do where that is known.

    The message is one line, whatever the library wrote from which it quotes.
    """

    def __init__(self, message: str) -> None:
        self.message = " ".join(message.split())
        super().__init__(self.message)


def shortened(text: str) -> str:
    """The text, cut to 80 characters, as a message quotes it."""
    return text if len(text) <= 80 else text[:79] + "…"
