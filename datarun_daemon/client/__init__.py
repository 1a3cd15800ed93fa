"""What a client imports: ``Spool`` sends datasets and folds to a spool, local or over ssh, and takes results.

Nothing of it is needed to use a spool: it does what a person would do with plain folders. Importing
it imports neither numpy nor pandas nor scikit-learn; predictions need numpy.
"""

from datarun_daemon.client.answers import DatasetReceipt, FoldRows, FoldsReceipt, Receipt
from datarun_daemon.client.errors import (
    NameTaken,
    NoAnswer,
    NotDone,
    Rejected,
    TransferFailed,
    UnknownFolds,
    Unreachable,
)
from datarun_daemon.client.predictions import Predictions
from datarun_daemon.client.spool import Spool

__all__ = [
    "DatasetReceipt",
    "FoldRows",
    "FoldsReceipt",
    "NameTaken",
    "NoAnswer",
    "NotDone",
    "Predictions",
    "Receipt",
    "Rejected",
    "Spool",
    "TransferFailed",
    "UnknownFolds",
    "Unreachable",
]
