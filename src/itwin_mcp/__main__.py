"""`python -m itwin_mcp` is the command line."""

from itwin_mcp.cli import main

if __name__ == "__main__":
    main()
