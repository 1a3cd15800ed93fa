"""Side-by-side measurements; see README.md here for the last figures. Run by ``make bench``."""
