"""The MQTT integration of a real Home Assistant (2024.3) on a broker; prints what it shows as JSON. Not run by pytest.

Run by the Python of an environment that has ``homeassistant==2024.3.3 paho-mqtt==1.6.1 janus==1.0.0 numpy``: these pins
exclude what axond itself needs. Arguments: port, how many sensors to wait for, seconds.
"""

import asyncio
import json
import logging
import os
import sys
import tempfile
import types
from pathlib import Path

from homeassistant import auth, config_entries, core, loader
from homeassistant.helpers import (
    area_registry,
    device_registry,
    entity,
    entity_registry,
    issue_registry,
    restore_state,
    translation,
)


class Kept(logging.Handler):
    """Warnings and errors, to be shown at the end."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")


async def start(folder: Path, port: int) -> core.HomeAssistant:
    """Home Assistant with the MQTT integration and nothing else; the web server is left out."""
    (folder / "configuration.yaml").touch()
    hass = core.HomeAssistant(str(folder))
    hass.config.skip_pip = True
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    loader.async_setup(hass)
    entity.async_setup(hass)
    translation.async_setup(hass)
    await area_registry.async_load(hass)
    await device_registry.async_load(hass)
    await entity_registry.async_load(hass)
    await issue_registry.async_load(hass)
    await restore_state.async_load(hass)
    await hass.config_entries.async_initialize()
    hass.auth = await auth.auth_manager_from_config(hass, [], [])
    hass.config.components.update({"http", "file_upload"})
    hass.http = types.SimpleNamespace(register_view=lambda *_: None)
    hass.set_state(core.CoreState.running)
    data = {"broker": "127.0.0.1", "port": port, "discovery": True, "discovery_prefix": "homeassistant"}
    entry = config_entries.ConfigEntry(
        version=1, minor_version=1, domain="mqtt", title="mqtt", data=data, source="user", options={}, entry_id="one"
    )
    hass.config_entries._entries[entry.entry_id] = entry
    if not await hass.config_entries.async_setup(entry.entry_id):
        raise SystemExit("the MQTT integration did not start")
    return hass


async def main(port: int, wanted: int, seconds: float) -> None:
    kept = Kept()
    logging.getLogger().addHandler(kept)
    hass = await start(Path(tempfile.mkdtemp()), port)
    end_s = hass.loop.time() + seconds
    while hass.loop.time() < end_s:
        await hass.async_block_till_done()
        if sum(s.state not in ("unknown", "unavailable") for s in hass.states.async_all("sensor")) >= wanted:
            break
        await asyncio.sleep(0.1)
    states = {
        state.entity_id: {"state": state.state, **{name: str(value) for name, value in state.attributes.items()}}
        for state in hass.states.async_all("sensor")
    }
    devices = [[d.name, d.manufacturer, d.sw_version] for d in device_registry.async_get(hass).devices.values()]
    print(json.dumps({"states": states, "devices": devices, "log": kept.lines}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
