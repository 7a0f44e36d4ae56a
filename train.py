"""Train every run of a study: teachers first, then students.

The same as `kdlaws train`, with the same arguments.
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
    main(["train", *sys.argv[1:]])
