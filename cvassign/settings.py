# LLM-assisted: prompts P1, P15, P16, see report.md
"""What a user may set in the environment: CVASSIGN_SMOKE=1 makes notebooks train tiny models on
generated pictures (`make test`), CVASSIGN_RETRAIN=1 first train what has no stored result."""

import os

WORDS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


def switch(name: str) -> bool:
    """Whether an environment variable is set to yes; ValueError if it says neither yes nor no."""
    value = os.environ.get(name, "").strip().lower()
    if value not in WORDS:
        raise ValueError(f"expected {name} to be 1 or 0, got {os.environ[name]!r}")
    return WORDS[value]


SMOKE = switch("CVASSIGN_SMOKE")
RETRAIN = switch("CVASSIGN_RETRAIN")
