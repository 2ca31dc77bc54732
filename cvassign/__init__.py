# LLM-assisted: prompts P1, see report.md
"""A Vision Transformer, a Differential Vision Transformer and CLIP, for one assignment."""

import os

# Before torch is imported: GNU OpenMP's threads spin while they wait. Alone on a machine that
# costs nothing; as soon as another process wants the cores, each spinning thread holds one that
# the others need, and training drops to a fifth. Zero lets a waiting thread sleep at once.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
