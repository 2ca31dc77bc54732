# LLM-assisted: prompts P15, P16, see report.md
"""Progress bars that leave nothing behind."""

import sys
import threading

from tqdm import tqdm


def bar(about: str, show: bool = True, **options) -> tqdm:
    """A progress bar where somebody looks, on a terminal or in a notebook; then it is gone."""
    file, ipython = sys.stderr, sys.modules.get("IPython")
    shown = file is not None and file.isatty()
    if not shown and ipython and hasattr(ipython.get_ipython(), "kernel"):
        file, shown = _Cell(), True
    shown = shown and threading.current_thread() is threading.main_thread()  # not in a pool
    return tqdm(desc=about, file=file, leave=False, disable=not (shown and show), **options)


class _Cell:
    """A notebook's output for tqdm to write to: one, replaced at each step, empty at the end. Text
    on stderr would stay in the notebook."""

    encoding, handle = "utf-8", None

    def write(self, text: str) -> None:
        data = {"text/plain": text.strip()}
        if self.handle:
            self.handle.update(data, raw=True)
        elif data["text/plain"]:
            from IPython.display import display

            self.handle = display(data, raw=True, display_id=True)
