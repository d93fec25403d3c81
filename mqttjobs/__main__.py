"""The program `mqttjobs`, also started by `python -m mqttjobs`."""

from __future__ import annotations

from mqttjobs.cli.app import app


def main() -> None:
    """Run the command line and exit."""
    app(prog_name="mqttjobs")


if __name__ == "__main__":
    main()
