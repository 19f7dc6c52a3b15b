# Everything a newcomer needs: `make run` shows the main job, `make test` tests it. Both do all set-up by themselves.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
SECONDS_TO_RUN ?=
PYTHON_MINOR ?= 311

MODELS := spoken-digits wake-words sound-events activity wall-following event-digits pump-condition fused-digits
COMPARED := spoken-digits sound-events activity event-digits

.PHONY: run test check kill chaos interop outage failover observability exact lava fuzz soak replug compare service deb lock wheel package-test arm64 format $(MODELS:%=train-%) train-all clean help
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 24

run: $(STAMP) ## set up, then the live demo: sensors -> spikes -> outbox -> MQTT -> hub (Ctrl-C ends it)
	@packaging/system-packages
	$(BIN)/axond demo $(if $(SECONDS_TO_RUN),--seconds $(SECONDS_TO_RUN))

test: $(STAMP) ## set up, then all tests
	@packaging/system-packages test
	@$(BIN)/python -c 'import faery' 2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[events]' 2>/dev/null \
	    || echo "axond: the packages of the extra 'events' cannot be installed here: tests of event cameras are skipped"
	@$(BIN)/python -c 'import alsaaudio' 2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[alsa]' 2>/dev/null \
	    || echo "axond: pyalsaaudio cannot be built here (needs a C compiler and libasound2-dev): tests of live audio are skipped"
	$(BIN)/python -m pytest -n $$(( $$(nproc) + 1 )) --dist worksteal  # most tests wait for a process or a clock

check: $(STAMP) ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

kill: $(STAMP) ## kill -9 of the agent at 20 random moments; the hub must hold every committed result, none twice
	AXOND_KILLS=20 $(BIN)/python -m pytest -k kill_nine tests/end_to_end/test_run.py

chaos: $(STAMP) ## 200 kill -9 of agent, broker and hub, and other faults (15 minutes): nothing lost, nothing stored twice
	$(BIN)/axond bench chaos --kills 200 --seeds 3 --json

interop: $(STAMP) ## agent and hub through mosquitto, ejabberd, RabbitMQ and NATS, as far as they are installed
	$(BIN)/axond bench interop --json

outage: $(STAMP) ## the uplink's numbers, and a minute without a broker at 500 results/s: how soon is the present back?
	$(BIN)/axond bench uplink --outage-s 60 --json

failover: $(STAMP) ## a backend killed, stopped and filled up 100 times: next result within 1 s, none lost, nothing left over
	AXOND_FAILOVERS=100 $(BIN)/python -m pytest -s tests/end_to_end/test_failover.py

soak: $(STAMP) ## five sensors at full speed under a real agent for ten minutes: nothing may be lost
	$(BIN)/axond bench sensors --seconds 600 --json

replug: $(STAMP) ## a sensor unplugged and plugged in again 1000 times: back within 1 s each time, nothing left over
	$(BIN)/axond bench replug --cycles 1000 --json

observability: $(STAMP) ## the table of metrics anew; rules and dashboard with promtool and a running Prometheus
	$(BIN)/python packaging/observability/metrics_table.py > packaging/observability/METRICS.md
	@packaging/system-packages test
	$(BIN)/python -m pytest tests/packaging/test_observability.py

exact: $(STAMP) ## 1 000 random networks: the same spikes and state on reference, ONNX Runtime and TFLite
	AXOND_NETWORKS=1000 $(BIN)/python -m pytest tests/models/test_same_spikes.py

lava: $(STAMP) ## install Lava (needs Python 3.10), then 50 random networks and the contract suite on it
	$(BIN)/axond lava install
	AXOND_LAVA_NETWORKS=50 $(BIN)/python -m pytest tests/models/test_lava.py tests/agent/test_lava_command.py tests/contract/test_backend.py -k lava

fuzz: $(STAMP) ## a million damaged inputs into every parser (an hour)
	$(BIN)/python -m tests.drivers.fuzz_parsers

service: deb ## axond under a systemd that really booted, installed from its package, at its own pace, and on an emulated PC (15 minutes; root)
	@packaging/system-packages service
	AXOND_SERVICE=full AXOND_DEB=$$(ls -t dist/axond_*_$$(dpkg --print-architecture).deb | head -n 1) \
	    $(BIN)/python -m pytest -s tests/end_to_end/test_service.py tests/end_to_end/test_service_devices.py tests/end_to_end/test_service_memory.py tests/end_to_end/test_setup.py \
	    tests/end_to_end/test_doctor.py tests/packaging/test_units.py

deb: $(STAMP) ## Debian packages for amd64 and arm64 in dist/ (PYTHON_MINOR=310 or 312 for Ubuntu 22.04, JetPack 6, Ubuntu 24.04)
	@packaging/system-packages deb
	$(BIN)/python packaging/deb/build.py --python $(PYTHON_MINOR)

lock: $(STAMP) ## renew the versions that the packages bring: packaging/deb/locked-*.txt
	$(BIN)/python packaging/deb/lock.py

wheel: $(STAMP) ## wheel and source archive in dist/, for pipx and pip; the same commit gives the same bytes
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(BIN)/python -m hatchling build -d dist -t sdist -t wheel

package-test: $(STAMP) ## the package's whole life in a booted Debian, built twice and compared, lintian (10 minutes; root)
	@packaging/system-packages deb
	AXOND_PACKAGES=1 $(BIN)/python -m pytest -s tests/packaging

arm64: $(STAMP) ## the arm64 package live on an emulated arm64 machine: the same inferences as on this one (half an hour; root)
	@packaging/system-packages deb arm64
	AXOND_ARM64=1 $(BIN)/python -m pytest -s tests/packaging/test_deb_arm64.py

format: $(STAMP) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

train-all: $(MODELS:%=train-%) ## train all shipped models anew (PyTorch, two hours on one core)

$(MODELS:%=train-%): train-%: $(STAMP)
	@packaging/system-packages train
	@$(BIN)/python -c 'import torch, nir' 2>/dev/null || \
	    $(BIN)/python -m pip install --quiet --editable '.[train]' --constraint packaging/train-constraints.txt
	$(BIN)/python -m models.train.$(subst -,_,$*) --out build/$*
	$(BIN)/axond model build build/$* -o models/zoo/$*

compare: $(STAMP) ## the shipped models beside small int8 CNNs on TFLite, trained here (TensorFlow, 1.6 GB, 17 minutes to two hours)
	@$(BIN)/python -c 'import torch' 2>/dev/null || \
	    $(BIN)/python -m pip install --quiet --editable '.[train]' --constraint packaging/train-constraints.txt
	@test -x build/tensorflow/bin/python || { $(PYTHON) -m venv build/tensorflow && build/tensorflow/bin/pip install -q 'tensorflow-cpu==2.21.*'; }
	@mkdir -p build/compare
	for name in $(COMPARED); do $(BIN)/python -m hil.compare.features $$name build/compare/$$name.npz && \
	    build/tensorflow/bin/python hil/compare/cnn.py build/compare/$$name.npz build/compare/$$name.tflite || exit 1; done
	$(BIN)/axond bench compare --json

clean: ## remove the environment and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(STAMP): pyproject.toml
	@packaging/make-venv $(PYTHON) $(VENV)
	@echo "axond: installing axond and its tools from PyPI into $(VENV) (see pyproject.toml)"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
