"""Divides a user's text file into lines, as other tools count them."""


def split_lines(raw: bytes) -> list[str]:
    r"""The lines of UTF-8 text, without their ends and without a byte order mark.

    Only ``\n`` and ``\r\n`` end a line: JSON strings may hold the other characters at which
    ``str.splitlines`` divides, such as U+2028 and U+0085.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    return [line.removesuffix("\r") for line in raw.decode("utf-8-sig").split("\n")]
