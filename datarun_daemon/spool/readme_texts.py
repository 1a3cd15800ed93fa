"""What a person reads who meets a folder of the spool on a network share.

Keys are folders relative to the spool; ``""`` is the spool itself.
"""

from __future__ import annotations

README_TEXTS: dict[str, str] = {
    "": """\
This folder is a datarun spool. Put machine-learning submissions in, take results out.

  incoming/   put datasets, folds and requests here (see the README.txt in each)
  receipts/   what became of them
  rejected/   what could not be accepted, with the reason beside it
  outbox/     results, waiting to be picked up
  status/     what the daemon is doing now
  catalog/    everything that ever happened, one JSON object a line
  store/ runs/ .datarun-*    the daemon's own; please leave them alone
""",
    "incoming": """\
Put bundles into the folder of their kind:

  datasets/   data to train on
  folds/      a submission and the cross-validation folds to train it on
  requests/   anything else you ask for, as one YAML file

A bundle is a folder with a file manifest.yaml and the files it names, or the same packed as
NAME.zip or NAME.tar.gz. It disappears from here once it is taken. receipts/ then says what
became of it; a bundle that is not complete yet stays here and its receipt says what is missing.
""",
    "incoming/datasets": """\
One folder a dataset: manifest.yaml and the files it names, for example

  iris/manifest.yaml:
      name: iris
      target_column: species
      workflow_elements: [classifier]
      data_file: iris.csv
      split: {held_out_test: 0.7, random_state: 42}
  iris/iris.csv

The CSV file is UTF-8, has a header row, and one sample a row. Data of any other form comes with a
Python file that reads and splits it: extra_files: [specific.py, ...] and split: custom.
""",
    "incoming/folds": """\
One folder a submission with its folds: manifest.yaml and the files it names, for example

  team_a/manifest.yaml:
      submission: {id: 24, dataset: iris, files: [classifier.py]}
      folds:
        - {id: 11, train_is: fold_11_train.npy, test_is: fold_11_test.npy, priority: H}
        - {id: 12, train_is: [0, 1, 2, 5], test_is: [3, 4]}
  team_a/classifier.py, team_a/fold_11_train.npy, team_a/fold_11_test.npy

test_is are validation rows of the training set, not the held-out test set.
A bundle may arrive before its dataset: it waits.
""",
    "incoming/requests": """\
One YAML file a request, for example

  split_iris.yaml:
      action: split
      dataset: iris
      held_out_test: 0.7
      random_state: 42

  stop_team_a.yaml:
      action: cancel
      submission: team_a

Actions are split, custom_split, predictions, cancel, priority and rerun. Instead of submission
(all of its folds) the last three take folds, as predictions does: folds: [team_a-0, team_a-1].
""",
    "receipts": """\
What became of each bundle, as KIND/NAME.yaml: accepted (with the ids it got), rejected (with every
problem that was found), or incomplete (with what is missing). The daemon writes these; removing one
does no harm.
""",
    "rejected": """\
Bundles that could not be accepted, as they came, each with a REASON.txt.
Mend the bundle and move it back into the folder of incoming/ that it came from; REASON.txt may stay
in it. Or delete it: the daemon does not need it any more.
""",
    "outbox": """\
Results, as DATASET/SUBMISSION/FOLD/. A folder appears here when it is complete.
Taking it away (move it, or rsync --remove-source-files, or delete it) is the receipt: the daemon
keeps a copy of its own. The test predictions are for the held-out test set; the full-train
predictions are for all rows of the training set.
""",
    "status": """\
What the daemon knows, for people and programs to read:

  overview.json   the queue, what runs, the last results
  datasets.json   all datasets
  folds.jsonl     all folds, one JSON object a line
  folds/ID.json   everything about one fold

Files are replaced as a whole when something changed. Removing them does no harm: a running daemon
writes all of them again.
""",
    "catalog": """\
catalog.jsonl holds everything that happened, one JSON object a line, in order. Read it with any
tool, at any time; never edit it while a daemon runs. `datarun fsck` checks and explains it.
""",
    "store": """\
The daemon's own: the datasets and submissions it accepted, and all results. Nothing here is meant to
be changed by hand; the catalog names what lies here.
""",
    "runs": """\
The daemon's own: one folder a running attempt. Nothing here outlives its attempt.
""",
}
