"""datarun: trains and tests machine-learning submissions on CV folds, over the file system."""

__version__ = "0.1.0"
