# LLM-assisted: prompts P1, P6, P15, see report.md
# make test | notebooks | report; PYTHON=python3 takes an environment that is already there.
PYTHON ?= .venv/bin/python

ifeq ($(PYTHON),.venv/bin/python)
SETUP := .venv/installed
endif

REST := tests $(addprefix --ignore=tests/,test_notebooks.py clip study)

.PHONY: test notebooks report

test: $(SETUP)
	$(PYTHON) -m ruff check --quiet .
	$(PYTHON) -m ruff format --check --quiet .
# Side by side, as one alone leaves a core idle; Ctrl-C ends all.
	trap 'kill 0' INT; code=0; running=; \
	for part in tests/test_notebooks.py "tests/clip tests/study" "$(REST)"; do \
	  $(PYTHON) -m pytest -q $$part & running="$$running $$!"; \
	done; \
	for process in $$running; do wait $$process || code=1; done; exit $$code

notebooks: $(SETUP)
	$(PYTHON) -m nbconvert --to notebook --execute --inplace notebooks/*.ipynb

report: $(SETUP)
	$(PYTHON) -m cvassign.report

.venv/installed: requirements.txt
	python3 -m venv .venv
	.venv/bin/python -m pip install -q -r requirements.txt
	touch $@
