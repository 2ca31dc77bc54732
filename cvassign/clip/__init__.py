# LLM-assisted: prompt P8, see report.md
"""Part 3: ResNet-50 by ImageNet and by CLIP."""
