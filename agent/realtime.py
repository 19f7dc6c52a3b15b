"""Settings of the interpreter that keep latencies short."""

import gc
import sys

SWITCH_INTERVAL_S = 0.0005


def settle() -> None:
    """Call at the end of start-up: what lives now lives for ever, so the collector need not look at it again."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
