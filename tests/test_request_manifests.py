"""What a request may ask for, and what a client is told who asked for something else."""

from __future__ import annotations

import pytest

from datarun_daemon.core.model import BundleKind, Priority, Split
from datarun_daemon.spool.manifest import (
    CancelRequest,
    PredictionsRequest,
    PriorityRequest,
    RequestManifest,
    RerunRequest,
    SplitRequest,
    parse_manifest,
)
from tests.bundle_cases import refused


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ("{action: split, dataset: 7, held_out_test: 0.25}", SplitRequest("7", Split(0.25, 42))),
        ("{action: split, dataset: iris, held_out_test: 0.5, random_state: 57, force: true}",
         SplitRequest("iris", Split(0.5, 57), force=True)),
        ("{action: split, dataset: iris, held_out_test: 0.5, user: bob}", SplitRequest("iris", Split(0.5), user="bob")),
        ("{action: custom_split, dataset: stars}", SplitRequest("stars", Split(None))),
        ("{action: custom_split, dataset: stars, force: true, user: a@b.org}",
         SplitRequest("stars", Split(None), force=True, user="a@b.org")),
        ("{action: predictions, folds: [11, team_a-0]}", PredictionsRequest(("11", "team_a-0"), new=False)),
        ("{action: predictions, folds: 11, new: false}", PredictionsRequest(("11",), new=False)),
        ("{action: predictions, new: true}", PredictionsRequest((), new=True)),
        ("{action: predictions, new: true, folds: , dataset: iris, user: 7}",
         PredictionsRequest((), new=True, dataset="iris", user="7")),
        ("{action: cancel, folds: [11]}", CancelRequest(("11",))),
        ("{action: cancel, submission: 24, user: bob}", CancelRequest((), "24", user="bob")),
        ("{action: priority, folds: a-1, priority: high}", PriorityRequest(("a-1",), None, Priority.HIGH)),
        ("{action: priority, submission: a, priority: L, user: bob}",
         PriorityRequest((), "a", Priority.LOW, user="bob")),
        ("{action: rerun, folds: ['007', 8]}", RerunRequest(("007", "8"))),
        ("{action: rerun, submission: a, user: bob}", RerunRequest((), "a", user="bob")),
    ],
)  # fmt: skip
def test_requests_become_values(manifest: str, expected: RequestManifest) -> None:
    request = parse_manifest(BundleKind.REQUESTS, manifest.encode())

    assert expected == request
    assert (request.named_files, request.files, request.digested) == ((), {}, True)


def test_a_request_may_be_for_ten_thousand_folds() -> None:
    manifest = parse_manifest(BundleKind.REQUESTS, f"{{action: cancel, folds: {list(range(10_000))}}}".encode())

    assert isinstance(manifest, CancelRequest)
    assert tuple(map(str, range(10_000))) == manifest.folds


def test_an_unknown_action_is_told_with_those_that_there_are() -> None:
    [problem] = refused(BundleKind.REQUESTS, "{action: cancle, folds: [..], colour: blue}")

    assert "split, custom_split, predictions, cancel, priority, rerun (did you mean cancel?)" in problem.expected


def test_all_errors_of_a_request_are_told_at_once() -> None:
    problems = refused(
        BundleKind.REQUESTS,
        "{action: priority, folds: [11, 1.5, 11, a/b], submission: 24, priority: M, user: a b, colour: 1}",
    )

    expected = {"folds[1]", "folds[2]", "folds[3]", "submission", "priority", "user", "colour"}
    assert expected == {problem.field for problem in problems}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("action: cancel, folds: {id: 11}", "a list of ids of folds"),
        ("action: cancel, submission: {id: 24}", "a submission's id"),
        ("action: split, held_out_test: 0.5, dataset: iris, force: submission_fold", "true or false"),
        ("action: predictions, dataset: iris", "`new: true`"),
    ],
)
def test_what_a_request_expects_is_not_what_a_fold_bundle_expects_in_a_field_of_that_name(
    fields: str, expected: str
) -> None:
    problems = refused(BundleKind.REQUESTS, f"{{{fields}}}")

    assert expected in problems[0].expected
    assert not [problem for problem in problems if "train_is" in problem.expected]


def test_an_action_that_can_not_be_read_is_told_once() -> None:
    problems = refused(BundleKind.REQUESTS, "action: 2024-05-01\nfolds: [11]\n")

    assert ["action"] == [problem.field for problem in problems]
