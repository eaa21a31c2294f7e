"""Entry point of `python -m pghotd`."""

from pghotd.cli.program import main

main()
