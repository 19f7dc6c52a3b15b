"""``axond run``: the agent itself."""

import argparse
import faulthandler
import gc
import os
import signal
from threading import Event

from agent.cli.command import Command, add_config


def _configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def _run(options: argparse.Namespace) -> int:
    # First of all, so that a stop during the imports is a clean one as well.
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    os.umask(0o027)
    gc.disable()  # imports make no garbage, and looking for it is a fifth of the start; ``settle`` turns it on
    # What systemd's watchdog sends is SIGABRT: where each thread stood is then in the journal.
    faulthandler.enable()
    from agent import config, log
    from agent.app import App

    settings = config.load(options.config)
    log.set_up(settings.log.level, settings.log.format)
    return App(settings).run(stop)


COMMAND = Command(
    "run",
    "run the agent (what systemd starts)",
    """Run the agent until SIGTERM or Ctrl-C; it then drains and stops within 10 seconds.

Exit codes: 0 stopped as asked, 1 failed, 78 the configuration or a model is wrong (do not restart).

  axond run --config axond.toml
""",
    _configure,
    _run,
)
