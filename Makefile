# LLM-assisted: prompts P1, P6, P15, see report.md
# make test | notebooks | report; PYTHON=python3 takes an environment that is already there.
PYTHON ?= .venv/bin/python

ifeq ($(PYTHON),.venv/bin/python)
SETUP := .venv/installed
endif

.PHONY: test notebooks report

test: $(SETUP)
	$(PYTHON) -m ruff check --quiet .
	$(PYTHON) -m ruff format --check --quiet .
# The notebooks run beside the other tests, as either alone leaves a core idle.
	$(PYTHON) -m pytest -q tests/test_notebooks.py & notebooks=$$!; \
	$(PYTHON) -m pytest -q tests --ignore=tests/test_notebooks.py; code=$$?; \
	wait $$notebooks && exit $$code

notebooks: $(SETUP)
	$(PYTHON) -m nbconvert --to notebook --execute --inplace notebooks/*.ipynb

report: $(SETUP)
	$(PYTHON) -m cvassign.report

.venv/installed: requirements.txt
	python3 -m venv .venv
	.venv/bin/python -m pip install -q -r requirements.txt
	touch $@
