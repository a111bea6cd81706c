"""The one error that analysis raises on purpose."""


class TraceError(Exception):
    """A trace that can't be analysed: what was found (`str(error)`) and what to do about it (`hint`)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
