"""GPT-2 from the command line: fine-tune it on your text and generate from it."""

__version__ = "0.1.0"
