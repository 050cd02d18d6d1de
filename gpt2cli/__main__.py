"""`python -m gpt2cli` is `gpt2cli`."""

from gpt2cli.cli import main

if __name__ == "__main__":
    main()
