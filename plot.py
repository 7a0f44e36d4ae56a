"""Fit the laws to a study, draw its figures and write its report.

The same as `kdlaws report`, with the same arguments.
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
    main(["report", *sys.argv[1:]])
