"""Why a sign-in did not come about: a code for the log, a sentence for the person."""

__all__ = ["NoRole", "SignInFailed"]


class SignInFailed(Exception):
    """Nobody was signed in.

    Args:
        code: stable and from a fixed list, for the log; nothing that the provider or a stranger wrote.
        text: for the person at the browser; names the remedy.
        status: HTTP status of the page that says so.
    """

    def __init__(self, code: str, text: str, *, status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.text = text
        self.status = status


class NoRole(SignInFailed):
    """The provider knows the person, and the settings give them nothing.

    Attributes:
        claim: name of the claim that decides.
        values: what it had, cut to a length that a page can show.
        count: how many values it had.
    """

    def __init__(self, code: str, text: str, *, claim: str, values: list[str], count: int) -> None:
        super().__init__(code, text, status=403)
        self.claim = claim
        self.values = values
        self.count = count
