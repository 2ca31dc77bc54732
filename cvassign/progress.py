# LLM-assisted: prompt P12, see report.md
"""A progress bar that is gone when the work is done."""

import sys

from tqdm import tqdm


class _Cell:
    """The output of a notebook's cell as tqdm's file: each line takes the last one's place. What is
    written to stderr would be saved with the notebook, the blanks that erase a bar included."""

    def __init__(self, display):
        self._handle = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> None:
        self._handle.update({"text/plain": text.strip()}, raw=True)

    def flush(self) -> None:
        """A display has nothing to flush; tqdm asks for it."""


def bar(total: int, text: str, shown: bool = True) -> tqdm:
    """A bar that estimates the time left: in a notebook in the cell's output, else on stderr."""
    ipython = sys.modules.get("IPython")  # whoever runs in a notebook has it imported
    in_notebook = shown and ipython and hasattr(ipython.get_ipython(), "kernel")
    file = _Cell(ipython.display.display) if in_notebook else None
    return tqdm(desc=text, total=total, leave=False, disable=not shown, file=file)
