# LLM-assisted: prompts P10, P15, see report.md
"""The command lines of the package."""

import argparse


class Parser(argparse.ArgumentParser):
    """The arguments of `python -m MODULE`. A user's mistake is told in one line, exit code 2."""

    def __init__(self, module: str = "", description: str | None = None, **options):
        options.setdefault("prog", f"python -m {module}")  # subparsers bring a name of their own
        options["formatter_class"] = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, **options)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}\n")
