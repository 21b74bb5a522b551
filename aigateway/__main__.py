"""`python -m aigateway`: the same program as the `aigateway` script."""

from aigateway.cli.main import main

if __name__ == "__main__":
    main()
