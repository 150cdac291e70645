"`python -m mnsp` is the `mnsp` command."
from mnsp.cli import main

if __name__ == '__main__': main()
