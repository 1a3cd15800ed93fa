"""The runner: real servers, keepers and folds."""
