"""Questions: to a person at a terminal, or answered by what is the default."""

from collections.abc import Callable, Sequence
from getpass import getpass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


class Ask:
    """Answers every question with its default, and asks nobody."""

    def text(self, question: str, default: str, wrong: Callable[[str], str | None] = lambda text: None) -> str:
        """``wrong``: None for a right answer, or what is wrong with it."""
        return default

    def secret(self, question: str) -> str:
        return ""

    def yes(self, question: str, default: bool = True) -> bool:
        return default

    def choice(self, question: str, options: Sequence[str], default: int = 0) -> int:
        """The number of the chosen option."""
        return default

    def say(self, text: str = "") -> None:
        """A line for whoever reads."""


class Person(Ask):
    """Asks at a terminal, a dumb one too. ``KeyboardInterrupt`` when the answers end."""

    def __init__(self, console: "Console") -> None:
        self._console = console

    def text(self, question: str, default: str, wrong: Callable[[str], str | None] = lambda text: None) -> str:
        from rich.prompt import Prompt

        while True:
            answer = self._asked(lambda: Prompt.ask(_plain(question), console=self._console, default=default)).strip()
            problem = wrong(answer)
            if problem is None:
                return answer
            self.say(problem)

    def secret(self, question: str) -> str:
        # Not rich's: that shows the question before the terminal has stopped to show what is typed.
        return self._asked(lambda: getpass(f"{question}: "))

    def yes(self, question: str, default: bool = True) -> bool:
        from rich.prompt import Confirm

        return self._asked(lambda: str(Confirm.ask(_plain(question), console=self._console, default=default))) == "True"

    def choice(self, question: str, options: Sequence[str], default: int = 0) -> int:
        for number, option in enumerate(options, start=1):
            self.say(f"  {number}  {option}")

        def wrong(text: str) -> str | None:
            fits = text.isdecimal() and 1 <= int(text) <= len(options)
            return None if fits else f"a number from 1 to {len(options)}"

        return int(self.text(question, str(default + 1), wrong)) - 1

    def say(self, text: str = "") -> None:
        self._console.print(text, markup=False)

    def _asked(self, ask: Callable[[], str]) -> str:
        try:
            return ask()
        except EOFError:
            raise KeyboardInterrupt from None


def _plain(question: str) -> "Text":
    """What a device says of itself is no markup."""
    from rich.text import Text

    return Text(question, style="prompt")
