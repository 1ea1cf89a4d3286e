"""`python -m telemetry`: the command line without its console script."""

from telemetry.cli import main

if __name__ == "__main__":
    main()
