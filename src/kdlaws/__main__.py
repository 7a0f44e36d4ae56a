"""`python -m kdlaws` is the command line."""

from kdlaws.cli import main

if __name__ == "__main__":
    main()
