"""The usual way to send results, as a baseline: paho-mqtt, a JSON message for each, no store, no numbers.

``python -m hil.bench.plain PORT DEVICE RATE_HZ SECONDS`` prints one JSON line: the CPU's share of each round, as
``hil.bench.source`` counts it.
"""

import json
import sys

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.realtime import settle
from agent.wire import Row
from hil.bench.source import CONNECT_S, ROUNDS, cpu_share, put_evenly

WARM_UP_S = 1.0


def main() -> None:
    port, device, rate_hz, seconds = sys.argv[1:]
    client = Client(CallbackAPIVersion.VERSION2, client_id=device, protocol=MQTTProtocolVersion.MQTTv5)
    client.connect("127.0.0.1", int(port))
    client.loop_start()

    def put(result: Row) -> None:
        client.publish(f"plain/{device}", json.dumps(result), qos=1)

    settle()
    put_evenly(put, float(rate_hz), WARM_UP_S)
    shares = [cpu_share(put, float(rate_hz), float(seconds)) for _ in range(ROUNDS)]
    client.publish(f"plain/{device}", b"", qos=1).wait_for_publish(CONNECT_S)
    client.disconnect()
    client.loop_stop()
    print(json.dumps({"cpu_shares": shares}))


if __name__ == "__main__":
    main()
