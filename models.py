"""List the ladder of students: shape, parameters by every convention, FLOPs per token.

The same as `kdlaws models`, with the same arguments.
"""

import sys

if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036
        found = sys.version.split()[0]
        sys.stderr.write(f"kdlaws needs Python 3.11 or newer; this is {found}\n")
        sys.exit(2)
    try:
        from kdlaws.cli import main
    except ModuleNotFoundError as missing:
        sys.stderr.write(f"{missing}; to install it: pip install -r requirements.txt\n")
        sys.exit(2)
    main(["models", *sys.argv[1:]])
