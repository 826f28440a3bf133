"""`python -m mvl_assets.cli` is `mvl`."""

from mvl_assets.cli import main

main()
