"""Start the command line from a checkout: `python cli.py rank …`, `torchrun cli.py …`.

The commands themselves are in probe/cli/, one file each.
"""

from probe.cli import main

if __name__ == "__main__":
    main()
