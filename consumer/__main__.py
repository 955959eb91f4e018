"""`python -m consumer` is `full-pass`."""

from consumer.commands import main

main()
