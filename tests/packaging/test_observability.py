"""Metrics as they are documented, from a running agent; rules and dashboard against a running Prometheus."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from agent.web.families import FAMILIES, PREFIX, Family
from tests.brokers import MOSQUITTO, Mosquitto, Service, free_port, tail_of
from tests.end_to_end.rig import Process, wait_for

FOLDER = Path(__file__).parents[2] / "packaging" / "observability"
ALERTS = (FOLDER / "alerts.yml").read_text()
NAMES = {PREFIX + family.name: family for family in FAMILIES}
ELSEWHERE = {f"{PREFIX}fusion_{name}" for name in ("quality", "input_quality", "late_samples_total")}
"""Only of a pipeline that fuses sensors: tests/end_to_end/test_fusion.py."""
IN_A_SYNCHRONISED_DEVICE = {f"{PREFIX}clock_{name}" for name in ("uncertainty_seconds", "last_known_timestamp_seconds")}
UNITS = "seconds bytes hertz"


@dataclass
class Agent:
    """One that decides, has a sensor that is not there, a broker, and a mirror with certificates whose peer is away."""

    url: str
    process: Process

    def get(self, path: str, accept: str = "") -> str:
        with urlopen(Request(self.url + path, headers={"Accept": accept}), timeout=10) as answer:
            return answer.read().decode()

    def scrape(self) -> dict[str, Metric]:
        return {metric.name: metric for metric in parse_text(self.get("/metrics"))}


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    if MOSQUITTO is None or shutil.which("openssl") is None:
        pytest.skip("mosquitto or openssl is not installed")
    folder = tmp_path_factory.mktemp("observed")
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=ca -days 7 -keyout ca.key"
    subprocess.run([*make.split(), "-out", "ca.crt"], cwd=folder, check=True, capture_output=True)
    broker = Mosquitto(folder / "broker").start()
    port = free_port()
    config = folder / "axond.toml"
    config.write_text(f"""
[device]
id = "observed"
state_dir = "{folder / "state"}"
[http]
listen = "127.0.0.1:{port}"
[uplink]
host = "127.0.0.1"
port = {broker.port}
ack = "broker"
[mirrors.away]
kind = "homeassistant"
host = "127.0.0.1"
port = {free_port()}
ca_file = "{folder / "ca.crt"}"
cert_file = "{folder / "ca.crt"}"
key_file = "{folder / "ca.key"}"
[sensors.imu0]
driver = "synthetic"
[sensors.imu1]
driver = "imu.witmotion"
port = "{folder / "unplugged"}"
[pipelines.move]
sensors = ["imu0"]
model = "activity"
[log]
format = "text"
""")
    made = Agent(f"http://127.0.0.1:{port}", Process("agent", folder, "run", "--config", str(config)))
    try:
        wait_for("a result", lambda: made.process.child.poll() is not None or _has_result(made))
        assert made.process.child.poll() is None, made.process.text()
        yield made
    finally:
        code, _ = made.process.stop()
        broker.stop()
    assert code == 0, made.process.text()


def _has_result(agent: Agent) -> bool:
    try:
        pipeline = json.loads(agent.get("/status"))["pipelines"]["move"]
        return pipeline["latency"] != {} and pipeline["drift"]["scores"] != {}
    except OSError:
        return False


def _used(text: str) -> set[str]:
    """Metrics in PromQL expressions."""
    return {re.sub("_(bucket|count|sum)$", "", name) for name in re.findall(rf"\b{PREFIX}[a-z_]+", text)}


def _expressions(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_the_table_is_what_the_code_has() -> None:
    """``make observability`` writes it anew."""
    command = [sys.executable, FOLDER / "metrics_table.py"]
    path = {"PYTHONPATH": str(FOLDER.parents[1])}
    made = subprocess.run(command, capture_output=True, text=True, check=True, env=path)
    assert made.stdout == (FOLDER / "METRICS.md").read_text()


def test_names_are_as_prometheus_wants_them() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        _check(family)


def _check(family: Family) -> None:
    assert re.fullmatch("[a-z]+(_[a-z]+)+|ready|trouble|drifting", family.name)
    assert family.name.endswith("_total") == (family.kind == "counter")
    assert family.name.endswith("_info") == (family.kind == "info")
    assert not re.search("_(ms|us|ns|s|kib|mib|hz|percent)(_|$)", family.name), "base units only"
    assert family.help.endswith(".") and '"' not in family.help


def test_rules_and_dashboard_use_metrics_that_there_are() -> None:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    assert _used(ALERTS) - {"axond_"} <= NAMES.keys()
    assert _used(json.dumps(dashboard)) <= NAMES.keys()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ()))


def test_every_alert_is_tested() -> None:
    tested = (FOLDER / "alerts_test.yml").read_text()
    alerts = re.findall(r"- alert: (\w+)", ALERTS)
    assert len(alerts) == len(set(alerts)) >= 20
    for alert in alerts:
        assert re.search(rf'alertname(: |=~?"[^"]*\b){alert}\b', tested), alert


def test_a_scrape_has_what_is_documented(agent: Agent) -> None:
    found = agent.scrape()
    shown = {sample.name for metric in found.values() for sample in metric.samples}
    plain = {re.sub("_(bucket|count|sum)$", "", name) if name not in NAMES else name for name in shown}
    assert NAMES.keys() - ELSEWHERE - IN_A_SYNCHRONISED_DEVICE <= plain <= NAMES.keys()
    for metric in found.values():
        for sample in metric.samples:
            name = sample.name if sample.name in NAMES else re.sub("_(bucket|count|sum)$", "", sample.name)
            assert set(sample.labels) - {"le"} == set(NAMES[name].labels), sample


def test_a_scrape_tells_what_the_status_tells(agent: Agent) -> None:
    before, found, after = (json.loads(agent.get("/status")), agent.scrape(), json.loads(agent.get("/status")))

    def value(name: str, **labels: str) -> float:
        samples = [s for m in found.values() for s in m.samples if s.name == PREFIX + name and s.labels == labels]
        assert len(samples) == 1, (name, samples)
        return samples[0].value

    first, last = (status["pipelines"]["move"] for status in (before, after))
    assert first["inferences"] <= value("inferences_total", pipeline="move") <= last["inferences"]
    assert value("requests_total", pipeline="move") == value("inferences_total", pipeline="move") + 1
    assert value("spikes_total", pipeline="move") > 0
    assert value("inference_duration_seconds_count", pipeline="move") == value("inferences_total", pipeline="move")
    assert 0 < value("inference_duration_seconds_sum", pipeline="move") < 10
    assert 1 <= value("result_latency_seconds_count", pipeline="move") <= value("results_total", pipeline="move")
    assert value("pipeline_info", pipeline="move", model=first["model"], backend=first["backend"]) == 1
    produced = value("ledger_produced_rows_total", stream="move")
    parts = [f"ledger_{part}_rows_total" for part in ("delivered", "evicted", "refused")]
    assert produced == sum(value(part, stream="move") for part in parts) + value("ledger_pending_rows", stream="move")
    assert value("ledger_unbalanced") == 0
    assert value("sensor_state", sensor="imu1", state="missing") == value("trouble", part="sensor imu1") == 1
    assert value("sensor_state", sensor="imu0", state="live") == value("ready") == value("outbox_open") == 1
    assert value("health_state", state="degraded") == 1
    assert before["sensors"]["imu0"]["samples"] <= value("sensor_samples_total", sensor="imu0")
    assert 1e6 < value("process_pss_bytes", process="agent") < 1e9
    assert value("process_threads", process="agent") > 5 and value("process_open_fds", process="agent") > 5
    assert value("process_cpu_seconds_total", process="agent") > 0
    days = (value("certificate_expiry_timestamp_seconds", file="mirrors.away.cert_file") - _now_s(agent)) / 86400
    assert 6.9 < days <= 7


def _now_s(agent: Agent) -> float:
    """By the agent's own clock."""
    found = agent.scrape()
    start_s, up_s = (found[PREFIX + name].samples[0].value for name in ("start_time_seconds", "uptime_seconds"))
    return start_s + up_s


def test_openmetrics_for_who_asks_for_it(agent: Agent) -> None:
    text = agent.get("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    assert {metric.name for metric in parse_openmetrics(text)} >= {f"{PREFIX}inferences", f"{PREFIX}build"}


def test_health_and_readiness(agent: Agent) -> None:
    health, ready = json.loads(agent.get("/health")), json.loads(agent.get("/ready"))
    assert health["alive"] is True and health["state"] == "degraded" and "sensor imu1" in health["reasons"]
    assert ready == {"ready": True, "waits_for": []}


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (apt install prometheus)")
    return found


def test_promtool_finds_nothing(promtool: str, agent: Agent) -> None:
    for arguments in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [promtool, "check", "config", "prometheus.yml"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = agent.get("/metrics")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


class Prometheus(Service):
    """A real one that watches an agent with our rules; they wait for nothing, since a test cannot wait for minutes."""

    def __init__(self, folder: Path, agent: Agent) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        (folder / "alerts.yml").write_text(re.sub(r"\n +for: \w+", "", ALERTS))
        config = (FOLDER / "prometheus.yml").read_text().replace("15s", "1s")
        (folder / "prometheus.yml").write_text(config.replace("http://", "").replace("127.0.0.1:10473", agent.url[7:]))

    def start(self) -> "Prometheus":
        arguments = [f"--web.listen-address={self.url[7:]}", "--storage.tsdb.path=data", "--config.file=prometheus.yml"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(["prometheus", *arguments], cwd=self._folder, stdout=log, stderr=log)
        wait_for("Prometheus has scraped the agent", self._has_scraped)
        return self

    def get(self, path: str, **parameters: str) -> Any:
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:
            found = json.loads(answer.read())
        assert found["status"] == "success"
        return found["data"]

    def _has_scraped(self) -> bool:
        try:
            return bool(self.get("query", query="rate(axond_inferences_total[30s])")["result"])
        except OSError as error:
            assert self._process is not None and self._process.poll() is None, tail_of(self._folder / "log") or error
            return False

    def firing(self) -> list[dict[str, str]]:
        return [alert["labels"] for alert in self.get("alerts")["alerts"] if alert["state"] == "firing"]


@pytest.fixture
def prometheus(tmp_path: Path, agent: Agent) -> Iterator[Prometheus]:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (apt install prometheus)")
    made = Prometheus(tmp_path, agent)
    try:
        yield made.start()
    finally:
        made.stop()


def test_a_running_prometheus(prometheus: Prometheus) -> None:
    """One test, so that workers of the test run start only one."""
    _check_target_and_rules(prometheus)
    _check_the_alert_of_a_missing_sensor(prometheus)
    _check_the_queries_of_the_dashboard(prometheus)


def _check_target_and_rules(prometheus: Prometheus) -> None:
    (target,) = prometheus.get("targets")["activeTargets"]
    assert target["health"] == "up" and target["lastError"] == "" and target["labels"]["job"] == "axond"
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(re.findall("- alert:", ALERTS))
    assert not [rule["lastError"] for rule in rules if rule.get("lastError")]


def _check_the_alert_of_a_missing_sensor(prometheus: Prometheus) -> None:
    def silent() -> list[str]:
        return [alert["sensor"] for alert in prometheus.firing() if alert["alertname"] == "AxondSensorSilent"]

    wait_for("the alert", lambda: bool(silent()))
    assert silent() == ["imu1"]
    known = {"AxondSensorSilent", "AxondTrouble", "AxondCertificateExpires", "AxondClockUnknown"}
    # A test may run on a small or full disk, and on a slow one.
    allowed = known | {"AxondDiskFull", "AxondResultsLate", "AxondInferenceSlow"}
    assert {alert["alertname"] for alert in prometheus.firing()} <= allowed


def _check_the_queries_of_the_dashboard(prometheus: Prometheus) -> None:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    expressions = _expressions(dashboard["panels"]) + [one["expr"] for one in dashboard["annotations"]["list"]]
    assert len(expressions) > 25
    for expression in expressions:
        query = expression.replace("$device", ".*").replace("$__rate_interval", "30s").replace("$__interval", "30s")
        found = prometheus.get("query", query=query)["result"]
        # Nothing was started anew, and nothing is fused here.
        assert found or "resets" in query or "fusion" in query, query
