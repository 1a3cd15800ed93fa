"""The functions by which programs talked to the REST service, with the same names, arguments and answers.

``host_url`` names a spool: its path, or ``ssh://user@host:port/path``. ``username`` is whom the work
belongs to; ``password`` is not used. Where the service could not be reached these functions raise, as they
did: SpoolError, Unreachable, TransferFailed, NoAnswer.

Source: the positions and defaults are those of the REST service's own client.
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datarun_daemon.client import rest_rows as rows
from datarun_daemon.client.errors import Rejected, UnknownFolds
from datarun_daemon.client.making import row_numbers
from datarun_daemon.client.response import Response, created, found, invalid, not_found
from datarun_daemon.client.rest_fields import (
    FORCES,
    PRIORITIES,
    is_split_already,
    is_there_already,
    missing,
    no_choice,
    no_object,
    refusal,
    told,
)
from datarun_daemon.client.rest_session import Session, session
from datarun_daemon.core.errors import Problem, Rejection
from datarun_daemon.core.model import FoldState, SplitState, json_id
from datarun_daemon.spool.index_files import BadIndices
from datarun_daemon.spool.indices import indices_from_base64
from datarun_daemon.spool.names import file_name_fault, id_fault


def post_data(
    host_url: str,
    username: str | None,
    password: str | None,
    data_name: str,
    target_column: str,
    workflow_elements: str,
    data_file: str | Path,
    extra_files: Sequence[str | Path] | None = None,
) -> Response:
    """The dataset is registered, and is to be split next.

    Args:
        data_file: a path. Alone, it is a CSV file with a header row.
        extra_files: paths; with them one file must be Python, with prepare_data, get_train_data and get_test_data.

    Returns:
        201 with its row, whose ``id`` is what the other functions take as raw_data_id.
    """
    if errors := missing(name=data_name, target_column=target_column, workflow_elements=workflow_elements):
        return invalid(errors)
    files = {Path(file).name: Path(file) for file in (data_file, *(extra_files or ()))}
    for file in files.values():
        file.open("rb").close()  # of a file that is not there, open says so, as it did
    if len(files) > 1 and not any(name.endswith(".py") for name in files):
        error = "Submit a specific.py when submitting several files"
        return Response.of(HTTPStatus.NOT_ACCEPTABLE, {"error": error})
    first, *others = files.values()
    there = session(host_url)
    with TemporaryDirectory(prefix="datarun-data-") as folder:
        csv_name = f"{data_name}.csv"
        if not others and not file_name_fault(csv_name):
            Path(folder, csv_name).symlink_to(first.resolve())
            first = Path(folder, csv_name)
        try:
            receipt = there.spool.add_dataset(
                data_name,
                target_column=target_column,
                workflow_elements=workflow_elements,
                data_file=first,
                extra_files=others,
                user=there.user(username),
            )
        except Rejected as rejected:
            if is_there_already(rejected):
                there.await_dataset(data_name)  # its number is asked for next
            return refusal(rejected)
    there.remember(receipt.id, receipt.dataset)
    named = workflow_elements.split(",") if isinstance(workflow_elements, str) else workflow_elements
    about = {
        "id": receipt.id,
        "name": receipt.dataset,
        "workflow_elements": [element.strip() for element in named],
        "target_column": target_column,
        "state": SplitState.UNSPLIT,
        "reason": None,
    }
    return created(rows.raw_data_row(about))


def post_split(
    host_url: str,
    username: str | None,
    password: str | None,
    held_out_test: float,
    raw_data_id: int,
    random_state: int = 42,
) -> Response:
    """The dataset is being split as ``train_test_split(rows, test_size=held_out_test, random_state=random_state)``.

    Returns:
        200 with a ``task_id``. ``get_raw_data`` tells when it is done.
    """
    return _split(host_url, username, raw_data_id, held_out_test=held_out_test, random_state=random_state)


def custom_post_split(host_url: str, username: str | None, password: str | None, raw_data_id: int) -> Response:
    """The dataset is being split by its own prepare_data; else as :func:`post_split`."""
    return _split(host_url, username, raw_data_id, custom=True)


def post_submission_fold(
    host_url: str,
    username: str | None,
    password: str | None,
    sub_id: int,
    sub_fold_id: int,
    train_is: Any,
    test_is: Any,
    priority: str = "L",
    raw_data_id: int | None = None,
    list_submission_files: Sequence[str | Path] | None = None,
    force: str | None = None,
) -> Response:
    """The fold is registered, and runs when its turn comes.

    Args:
        train_is, test_is: row numbers of the training set: an array, a list, or base64(zlib(int64)).
        priority: H or L; high and low are the same.
        raw_data_id, list_submission_files: with the first fold of a submission. One without the other counts
            for nothing.
        force: ``submission_fold`` runs a fold that is there again, ``submission, submission_fold`` replaces the
            submission's files besides.

    Returns:
        201 with its row and a ``task_id``.
    """
    errors = missing(databoard_sf_id=sub_fold_id, databoard_s=sub_id, train_is=train_is, test_is=test_is)
    if str(priority).lower() not in PRIORITIES:
        errors["priority"] = no_choice(priority)
    if not {word.strip() for word in (force or "submission").split(",")} <= FORCES:
        errors["force"] = no_choice(force)
    numbers: dict[str, array[int]] = {}
    for field, given in (("train_is", train_is), ("test_is", test_is)):
        if field in errors:
            continue
        try:
            numbers[field] = _row_numbers(given, field)
        except Rejection as rejection:
            errors[field] = [told(problem) for problem in rejection.problems]
    if errors:
        return invalid(errors)
    there = session(host_url)
    dataset = None
    files = [Path(file) for file in list_submission_files or ()] if raw_data_id else []
    for file in files:
        file.open("rb").close()
    if files:
        dataset = there.dataset_name(raw_data_id)
        if dataset is None:
            return invalid({"raw_data": no_object(raw_data_id)})
    try:
        receipt = there.spool.submit_fold(
            sub_id,
            sub_fold_id,
            numbers["train_is"],
            numbers["test_is"],
            dataset=dataset,
            files=files,
            priority=priority,
            force=force,
            user=there.user(username),
        )
    except Rejected as rejected:
        return refusal(rejected)
    about = {
        "id": json_id(str(sub_fold_id)),
        "submission": json_id(str(sub_id)),
        **{field: rows.packed_rows(values) for field, values in numbers.items()},
        "priority": priority[0].upper(),
        "state": FoldState.TODO,
        "new": False,
        "sequence": receipt.sequence,
    }
    return created(rows.fold_row(about))


def get_prediction_list(
    host_url: str, username: str | None, password: str | None, list_submission_fold_id: Iterable[int]
) -> Response:
    """200 with a row for each of these folds that is there, in this order; results are not new afterwards.

    A fold that has not ended has state TODO, and stays new.
    """
    try:
        wanted = [_id(fold) for fold in list_submission_fold_id]
    except TypeError:
        error = f"Found {list_submission_fold_id!r:.60}; expected a list of ids of folds."
        return invalid({"list_submission_fold": [error]})
    # what cannot be an id is not there
    folds = [fold for fold in dict.fromkeys(wanted) if not id_fault(str(fold))]
    return found([rows.prediction_row(each) for each in session(host_url).delivered(folds, username)])


def get_prediction_new(
    host_url: str, username: str | None, password: str | None, raw_data_id: int | None
) -> Response:
    """200 with a row for each TESTED fold whose result nobody was given yet: each result once.

    Args:
        raw_data_id: only folds of this dataset; None: of all.
    """
    there = session(host_url)
    waiting = [fold for fold in there.spool.folds() if fold["new"] and fold["state"] == FoldState.TESTED]
    if waiting and raw_data_id is not None:
        dataset = there.dataset_name(raw_data_id)
        waiting = [fold for fold in waiting if fold["dataset"] == dataset]
    delivered = there.delivered([fold["id"] for fold in waiting], username)
    # the views may be older than the last delivery
    new = (each for each in delivered if each.new and each.state is FoldState.TESTED)
    return found([rows.prediction_row(each) for each in new])


def get_raw_data(host_url: str, username: str | None, password: str | None) -> Response:
    """200 with a row for each dataset; its ``state`` is SPLIT once folds can run, FAILED for a ``reason``."""
    datasets = sorted(session(host_url).spool.datasets(), key=lambda dataset: dataset["id"])
    return found([rows.raw_data_row(dataset) for dataset in datasets])


def get_submission_fold(host_url: str, username: str | None, password: str | None) -> Response:
    """200 with every fold and all about it, predictions too: much to read; the light form tells how they are."""
    there = session(host_url)
    return found(_whole_rows(there, [fold["id"] for fold in there.spool.folds()], username))


def get_submission_fold_light(host_url: str, username: str | None, password: str | None) -> Response:
    """200 with id, submission, state and ``new`` of every fold."""
    return found([rows.light_row(fold) for fold in session(host_url).spool.folds()])


def get_submission_fold_detail(
    host_url: str, username: str | None, password: str | None, submission_fold_id: int
) -> Response:
    """200 with all about one fold, whose result stays new if it is; 404: there is none of this id."""
    if id_fault(str(submission_fold_id)):
        return not_found()
    try:
        (row,) = _whole_rows(session(host_url), [submission_fold_id], username)
    except UnknownFolds:
        return not_found()
    return found(row)


def _whole_rows(there: Session, folds: Iterable[int | str], username: str | None) -> list[dict[str, object]]:
    views, outcomes = there.outcomes((there.spool.fold(fold) for fold in folds), username)
    return [rows.fold_row(view, outcomes.get(view["id"])) for view in views]


def _split(host_url: str, username: str | None, raw_data_id: int, **how: Any) -> Response:
    if errors := missing(raw_data_id=raw_data_id, **how):
        return invalid(errors)
    there = session(host_url)
    dataset = there.dataset_name(raw_data_id)
    if dataset is None:
        return not_found()
    try:
        receipt = there.spool.split(dataset, **how, user=there.user(username))
    except Rejected as rejected:
        if rejected.receipt is None or not is_split_already(rejected):
            return refusal(rejected)
        receipt = rejected.receipt
    return found({"task_id": f"datarun-split-{receipt.content['ticket']}"})


def _row_numbers(given: Any, field: str) -> array[int]:
    """Raises Rejection: they are none."""
    if isinstance(given, bytes):
        given = given.decode("ascii", "replace")
    if not isinstance(given, str):
        return row_numbers(given, field)
    try:
        return indices_from_base64(given).values
    except BadIndices as bad:
        raise Rejection([Problem(field, bad.found, bad.expected)]) from bad


def _id(given: Any) -> int | str:
    """Of an integer of any kind, or a text. Raises TypeError."""
    return given if isinstance(given, str) else operator.index(given)
