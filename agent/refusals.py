"""How to speak of a peer that refuses some of what it is sent and takes the rest, in turns, for as long as it likes."""

import logging
import math
import time

from agent.outage import Outage

QUIET_S = 60.0
"""Refusals are over when none came for so long."""
MAX_SAID = 8
"""Sentences that are said loudly until then."""


class Refusals(Outage):
    """An outage that refusals are part of: the next success does not end them, and each sentence is new only once."""

    def __init__(self, log: logging.Logger, recovery: str) -> None:
        super().__init__(log, recovery)
        self._said: set[str] = set()
        self._refused_s = -math.inf

    def failed(self, sentence: str) -> None:
        """Say that nothing is taken: this ends with the next success."""
        super().failed(sentence)
        self._refused_s = -math.inf

    def refused(self, sentence: str) -> None:
        """Say that something was refused: loudly if this is a new sentence, and one of the first."""
        if sentence in self._said or len(self._said) >= MAX_SAID:
            self.log.debug("%s", sentence)
            self.sentence = sentence
        else:
            self._said.add(sentence)
            super().failed(sentence)
        self._refused_s = time.monotonic()

    def taken(self) -> None:
        """Something was taken: all is well if nothing was refused for a while."""
        if time.monotonic() - self._refused_s >= QUIET_S:
            self.over()

    def over(self) -> None:
        """Say that all of it works again."""
        super().over()
        self._said.clear()
