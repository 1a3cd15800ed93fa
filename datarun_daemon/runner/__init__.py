"""Processes in motion: a pool in the daemon; servers, keepers and folds outside of it.

The daemon's side is :mod:`pool` and what it imports. The other side (:mod:`server`, :mod:`keeper`,
:mod:`fold`, :mod:`prepare` …) runs in any environment's interpreter: it uses the standard library,
numpy, pandas, scikit-learn and relative imports, and nothing else of this package.
"""
