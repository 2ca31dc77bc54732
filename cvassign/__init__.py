# LLM-assisted: prompts P1, P6, P15, P16, see report.md
"""A Vision Transformer, a Differential Vision Transformer and CLIP, for one assignment."""

import os
import sys
import warnings

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(f"cvassign needs Python 3.11 or newer, this is {sys.version.split()[0]}")

# Before torch is imported: how often GNU OpenMP's waiting threads look for work before they sleep.
# The default, some hundred thousand, is right on a machine of one's own; as soon as another process
# wants the cores, each spinning thread holds one that the others need, and training drops to a
# fifth. Never spinning loses a fifth on a free machine: a step is a thousand small operations, and
# waking costs more than some of them take. This bridges the gap from one to the next, no longer.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# A terminal or a pipe of another encoding shows λ as an escape; printing it never ends a program.
for _stream in (sys.stdout, sys.stderr):
    if hasattr(_stream, "reconfigure"):
        _stream.reconfigure(errors="backslashreplace")

# pooch and open_clip import tqdm's widgets, which tell a notebook that they are not installed.
warnings.filterwarnings("ignore", "IProgress not found")
