"""The command line, as ``stapes`` or ``python -m stapes``."""

import signal
import sys


def main() -> None:
    """Run it; Ctrl-C is silent from the first import on."""
    try:
        from stapes import cli
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    cli.main()


if __name__ == "__main__":
    main()
