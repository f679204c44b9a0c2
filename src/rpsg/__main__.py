"""`python -m rpsg`: the command line without its script on the path."""

from rpsg.cli import main

if __name__ == "__main__":
    main()
