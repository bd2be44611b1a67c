"""`python -m radnode`."""

from radnode.cli import main

main()
