"""Entry point of `python -m pghotd`."""

from pghotd.program import main

main()
