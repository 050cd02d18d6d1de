"""The way in: `gpt2cli` and `python -m gpt2cli`."""

# Not `signal`, which takes 5 ms to load: until this is done, Ctrl-C is a traceback.
import _signal  # type: ignore[import-not-found]

# Until the command line stands, Ctrl-C ends the process as TERM does: quietly.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def main() -> None:
    """Runs the command line; see cli.py."""
    from gpt2cli import cli

    cli.main()


if __name__ == "__main__":
    main()
