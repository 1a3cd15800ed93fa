"""The one way in which a dataset or a splitter is refused."""

from __future__ import annotations


class Unusable(Exception):
    """The data or the splitter can't be used; the text tells its sender what to mend."""
