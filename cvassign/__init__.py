# LLM-assisted: prompts P1, P6, P15, P16, see report.md
"""A Vision Transformer, a Differential Vision Transformer and CLIP, for one assignment."""

import os
import sys
import warnings

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(f"cvassign needs Python 3.11 or newer, this is {sys.version.split()[0]}")

# Before torch is imported: how often GNU OpenMP's waiting threads look for work before they sleep.
# By default so often that training drops to a fifth where another process wants the cores; never
# would lose a fifth on a free machine. This bridges the gap from one operation to the next.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# A terminal or a pipe of another encoding shows λ as an escape; printing it never ends a program.
for _stream in (sys.stdout, sys.stderr):
    if hasattr(_stream, "reconfigure"):
        _stream.reconfigure(errors="backslashreplace")

# pooch and open_clip import tqdm's widgets, which tell a notebook that they are not installed.
warnings.filterwarnings("ignore", "IProgress not found")
