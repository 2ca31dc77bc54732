# LLM-assisted: prompt P3, see report.md
"""Attention maps of ViTs pre-trained by DINO (arXiv 2104.14294), written for this project."""
