"""Exit codes and the error that stops a start."""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: systemd must not restart us (RestartPreventExitStatus=78)."""


class ConfigError(Exception):
    """The configuration is wrong: names file, key path, value, what was expected and what to do."""
