"""The command line: ``python run_bench.py COMMAND``."""

from bench.cli import main

if __name__ == "__main__":
    main()
