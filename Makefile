# `make help` lists what there is to do. Works with GNU Make 3.81 (macOS) and later.
#
# Texts reach the shell through the environment only, never as part of a command, so that quotes, $ and ; in them are
# just characters. `$(value …)` is the text as typed: a plain $(TEXT) would let make expand a $ inside it.

PYTHON ?= python3
VENV ?= .venv

export DITAR_MAKE_TEXT := $(value TEXT)
export DITAR_MAKE_VOICE := $(value VOICE)
export DITAR_MAKE_VOICE_TEXT := $(value VOICE_TEXT)
export DITAR_MAKE_TEMPERATURE := $(value TEMPERATURE)
# Make would export them in expanded form otherwise.
unexport TEXT VOICE VOICE_TEXT TEMPERATURE
MAKEOVERRIDES :=

# One stamp per set of extras: pip runs again when the requirements change.
SPEAK_READY := $(VENV)/.installed-plot
DEV_READY := $(VENV)/.installed-dev

# Files of tests run side by side; each is whole within a process, for its tests may share a model.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help speak test test-slow test-quantization style quality
# Two runs of pip in one environment would get in each other's way.
.NOTPARALLEL:

help:
	@echo 'make speak TEXT="Hello there."    say it: writes speech.wav and its spectrogram, speech.png'
	@echo '    [VOICE=name]                         ... in a voice of the model: $(VENV)/bin/ditar speak --list-voices'
	@echo '    [VOICE=random TEMPERATURE=1]         ... in a voice that the model makes up'
	@echo '    [VOICE=voice.wav VOICE_TEXT="what is said in voice.wav"]    ... in the voice of a recording'
	@echo 'make test         run the tests that are quick and need no GPU'
	@echo 'make test-slow    run the slow tests'
	@echo 'make test-quantization    run those of weights in 8 and 4 bits, with packages that other tests must do without'
	@echo 'make style        format the code and repair what the linter can repair'
	@echo 'make quality      check format and lint, change nothing'
	@echo
	@echo 'The first run installs everything needed into $(VENV) with $(PYTHON) (PYTHON=... picks another one, 3.11 or'
	@echo 'newer). Write a $$ in single quotes, or the shell takes it first: TEXT='"'"'It costs $$5.'"'"

# Without a text nothing is installed: the recipe only says what is missing.
speak: $(if $(strip $(DITAR_MAKE_TEXT)),$(SPEAK_READY))
	@case "$$DITAR_MAKE_TEXT" in \
	    *[![:space:]]*) ;; \
	    *) echo 'error: there is no text to speak; try: make speak TEXT="Hello there."' >&2; exit 2 ;; \
	esac; \
	set -- --out speech.wav --plot speech.png; \
	if [ -n "$$DITAR_MAKE_VOICE" ]; then set -- "$$@" --voice="$$DITAR_MAKE_VOICE"; fi; \
	if [ -n "$$DITAR_MAKE_VOICE_TEXT" ]; then set -- "$$@" --voice-text="$$DITAR_MAKE_VOICE_TEXT"; fi; \
	if [ -n "$$DITAR_MAKE_TEMPERATURE" ]; then set -- "$$@" --temperature="$$DITAR_MAKE_TEMPERATURE"; fi; \
	printf '%s\n' "$$DITAR_MAKE_TEXT" | "$(VENV)/bin/ditar" speak - "$$@"

test: $(DEV_READY)
	"$(VENV)/bin/python" -m pytest $(SIDE_BY_SIDE)

test-slow: $(DEV_READY)
	"$(VENV)/bin/python" -m pytest -m "slow and not gpu"

# torchao prints lines when it is imported, which the tests of `ditar` would find
test-quantization: $(DEV_READY)
	"$(VENV)/bin/python" -m pip install --quiet --upgrade --no-deps -c constraints.txt --target build/quantization \
	    torchao bitsandbytes
	PYTHONPATH=build/quantization "$(VENV)/bin/python" -m pytest tests/modeling/test_loading_options_ditar.py \
	    tests/pipelines/test_pipeline_adapters.py

style: $(DEV_READY)
	"$(VENV)/bin/ruff" check --fix .
	"$(VENV)/bin/ruff" format .

quality: $(DEV_READY)
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/ruff" format --check .

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo 'error: ditar-hf needs Python 3.11 or newer and "$(PYTHON)" is not; try: make PYTHON=python3.12 ...' >&2; \
	    exit 2; }
	@$(PYTHON) -m venv "$(VENV)" || { \
	    echo 'error: could not create $(VENV); on Debian and Ubuntu install the package python3-venv first' >&2; \
	    exit 2; }
	@touch "$@"

$(SPEAK_READY): pyproject.toml constraints.txt $(VENV)/.created
	@echo 'installing ditar-hf with its requirements into $(VENV) (once; a few minutes)' >&2
	@"$(VENV)/bin/python" -m pip install --quiet -c constraints.txt -e ".[plot]"
	@touch "$@"

$(DEV_READY): pyproject.toml constraints.txt $(VENV)/.created
	@echo 'installing ditar-hf with its requirements into $(VENV) (once; a few minutes)' >&2
	@"$(VENV)/bin/python" -m pip install --quiet -c constraints.txt -e ".[dev,plot]"
	@touch "$(SPEAK_READY)" "$@"
