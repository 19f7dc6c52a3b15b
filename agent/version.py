"""The version of this program."""

from importlib.metadata import PackageNotFoundError, version


def agent_version() -> str:
    """As the installed package says; ``0+source`` when run from a tree that was not installed."""
    try:
        return version("axond")
    except PackageNotFoundError:
        return "0+source"
