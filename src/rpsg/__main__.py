"""`python -m rpsg`: the command line without its script on the path."""

from rpsg.cli import main

main()
