"""`python -m dunetrace`: the server's command line."""

from dunetrace.cli import main

if __name__ == "__main__":
    main(prog_name="dunetrace")
