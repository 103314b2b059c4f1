"""What can go wrong with an export."""


class ExportError(Exception):
    """The model cannot be exported. The message says why, and what to do where that is known."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
