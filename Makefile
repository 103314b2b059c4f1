# Two commands do it all on a fresh machine: `make serve` and `make test`.
# Both make the environment first, if it is missing or out of date.

PYTHON ?= python3
PEERS  ?= main optimum infinity fastembed vllm triton mosec mlserver litserve
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SERVES := $(VENV)/.serves
NATIVE := $(VENV)/.native
KERNELS := server/native

.PHONY: help install serve test test-all test-fast robustness folders clusters coverage native sanitize lint format protos bench peers comparison report footprint sbom clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

# What exporting and serving the default model needs; $(READY) adds the rest.
$(SERVES): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[server,export,demo]'
	touch $@

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(SERVES) $@

install: $(READY)  ## make the environment in .venv, for all targets

# Kernels in C++, which are a gain and no need: without them ONNX Runtime's own operators serve.
$(NATIVE): $(KERNELS)/pyproject.toml $(KERNELS)/CMakeLists.txt $(wildcard $(KERNELS)/src/* $(KERNELS)/src/*/* $(KERNELS)/bertd_native/*.py) | $(SERVES)
	@if ! command -v $${CXX:-c++} >/dev/null; then \
	  echo "bertd-native is not built: there is no C++ compiler; ONNX Runtime's own operators serve"; \
	elif ! $(BIN)/python -m pip install --quiet --disable-pip-version-check ./$(KERNELS) 2>$@.log; then \
	  echo "bertd-native is not built: $@.log says why; ONNX Runtime's own operators serve"; \
	fi
	@touch $@

native: $(NATIVE)  ## build the kernels into .venv, where there is a C++ compiler; serve and test do so too

sanitize:  ## run the kernels' C++ tests under AddressSanitizer, UBSan and ThreadSanitizer
	for sanitizers in address,undefined thread; do \
	  cmake -S $(KERNELS) -B build/$$sanitizers -DBERTD_TESTS=ON -DBERTD_SANITIZE=$$sanitizers && \
	  cmake --build build/$$sanitizers --target kernel_tests && build/$$sanitizers/kernel_tests \
	    || exit 1; \
	done

serve: $(SERVES) $(NATIVE)  ## export the default model once, then serve it in the foreground
	@exec $(BIN)/bertd serve

test: $(READY) $(NATIVE)  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

test-all: $(READY) $(NATIVE)  ## run the tests, the slow ones too: every family, command and document
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(READY)  ## run what needs no export and no server process, under a minute
	$(BIN)/python -m pytest -q tests/unit

coverage: $(READY)  ## run the tests, and say which lines of each file no test runs
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report term-missing:skip-covered

robustness: $(READY)  ## an hour of malformed requests, random traffic, model swaps, restarts and batches
	ROBUSTNESS_SCALE=250 $(BIN)/python -m pytest tests/robustness

folders: $(READY)  ## 300 checkpoint folders made at random: right from raw text on, or refused by name
	FOLDERS=300 $(BIN)/python -m pytest -n 2 --show-capture no tests/export/test_generated_folders.py

clusters: $(READY) $(NATIVE)  ## install Ray and Spark into .venv, and run what needs them
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray,spark]'
	$(BIN)/python -m pytest tests/bulk tests/ray

lint: $(READY)  ## check style, types, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/mypy examples
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/tools/owners.py
	$(BIN)/python tests/tools/rooms.py

format: $(READY)  ## format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

protos: $(READY)  ## generate the Python code of the .proto files, docs/api.md's reference, the clients' methods
	$(BIN)/python protos/generate.py
	$(BIN)/python protos/document.py
	$(BIN)/python client/generate.py

bench: $(READY)  ## compare with every installed peer on the default model, about 10 minutes
	$(BIN)/bertd bench compare

# One environment each, since they exclude each other. The lists are whole: what they leave out is not wanted.
peers:  ## install what `make bench` and `make comparison` compare with, in .peers: 14 GB; one by PEERS=vllm
	for name in $(PEERS); do \
	  $(PYTHON) -m venv .peers/$$name && \
	  .peers/$$name/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	    -r benchmarks/peers/$$name.txt || exit 1; \
	done

# A result that is there is not measured again: an interrupted run goes on where it was.
comparison: $(READY)  ## the whole comparison under load, twice, an hour apart, into benchmarks/results: a night
	for run in "" -again; do for result in load load-base; do \
	  model=minilm; objective=100; test $$result = load || { model=base; objective=250; }; \
	  result=benchmarks/results/$$result$$run.json; \
	  test -e $$result || test -e $$result.gz || \
	    $(BIN)/bertd bench load --model $$model --objective-ms $$objective --sweep --outside --json $$result || exit 1; \
	done; test -n "$$run" || sleep 3600; done
	$(BIN)/bertd bench docs
	for result in load load-base; do \
	  $(BIN)/bertd bench agree $$(ls benchmarks/results/$$result.json*) \
	    $$(ls benchmarks/results/$$result-again.json*) || exit 1; \
	done

report: $(READY)  ## make benchmarks/results/report and the measured parts of documents from the results
	$(BIN)/bertd bench report
	$(BIN)/bertd bench docs

footprint: $(READY)  ## install .[server] into a fresh environment; write down its size, imports and cold start
	$(BIN)/bertd bench footprint --json benchmarks/results/footprint.json
	$(BIN)/bertd bench docs

# A wheel's own list of what is compiled into it (PEP 770) is in no list of an environment.
sbom:  ## list what the serving install holds, in CycloneDX: build/sbom/*.json
	rm -rf build/sbom && mkdir -p build/sbom
	$(PYTHON) -m venv build/sbom/tool && $(PYTHON) -m venv --without-pip build/sbom/env
	build/sbom/tool/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
	build/sbom/tool/bin/python -m pip --python build/sbom/env/bin/python install --quiet \
	  --disable-pip-version-check -c constraints.txt '.[server]'
	build/sbom/tool/bin/cyclonedx-py environment build/sbom/env/bin/python --pyproject pyproject.toml \
	  --output-reproducible --output-file build/sbom/bertd.cdx.json
	for file in build/sbom/env/lib/python*/site-packages/*.dist-info/sboms/*.json; do \
	  package=$$(basename "$$(dirname "$$(dirname "$$file")")" .dist-info); \
	  cp "$$file" "build/sbom/$$package.$$(basename "$$file")" || exit 1; \
	done
	rm -rf build/sbom/tool build/sbom/env

clean:  ## remove the environment and caches
	rm -rf $(VENV) build .peers .mypy_cache .ruff_cache .pytest_cache .hypothesis
