"""Command-line tools around the packages; nothing imports them."""
