"""The way in: `gpt2cli` and `python -m gpt2cli`."""

import signal


def main() -> None:
    """Runs the command line; see cli.py."""
    # Until the command line stands, Ctrl-C ends the process as TERM does: without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from gpt2cli import cli

    cli.main()


if __name__ == "__main__":
    main()
