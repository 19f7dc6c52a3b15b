"""Prints METRICS.md, from the agent's own table of metrics; ``make observability`` writes it."""

from agent.latency import BOUNDS_S
from agent.web.families import FAMILIES, PREFIX


def main() -> None:
    print("# Metrics of axond\n")
    print("What `http://127.0.0.1:10473/metrics` gives, in the text format of Prometheus or as OpenMetrics. Made from")
    print(
        "`agent/web/families.py` by `make observability`. Counters begin with the process where nothing else is said;"
    )
    print("a metric that does not apply (no uplink, no fusion, no certificate) is absent.\n")
    print("| metric | type | labels | meaning |")
    print("|---|---|---|---|")
    for family in FAMILIES:
        labels = " ".join(f"`{label}`" for label in family.labels)
        print(f"| `{PREFIX}{family.name}` | {family.kind} | {labels} | {family.help} |")
    print(f"\nBuckets of the histograms, in seconds: {', '.join(f'{bound:g}' for bound in BOUNDS_S)}.")


if __name__ == "__main__":
    main()
