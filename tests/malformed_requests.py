"""Requests that must be refused, and some that must not."""

from __future__ import annotations

from tests.bundle_cases import REQUESTS, Good, Malformed


def _request(name: str, expected_field: str, manifest: str) -> Malformed:
    return Malformed(name, REQUESTS, {"manifest.yaml": manifest.encode()}, expected_field)


MALFORMED_REQUESTS = (
    _request("a request without an action", "action", "{dataset: iris, held_out_test: 0.5}"),
    _request("an unknown action", "action", "{action: slpit, dataset: iris, held_out_test: 0.5}"),
    _request("an action that is a list", "action", "{action: [split], dataset: iris, held_out_test: 0.5}"),
    _request("an action with an underscore too many", "action", "{action: re_run, folds: [11]}"),
    _request("a request for a user without a name", "user", "{action: rerun, folds: [11], user: ''}"),
    _request("a request for a user with markup", "user", "{action: rerun, folds: [11], user: '<b>'}"),
    _request("a split request without a dataset", "dataset", "{action: split, held_out_test: 0.5}"),
    _request("a split request without a share", "held_out_test", "{action: split, dataset: iris}"),
    _request("a split request with a wrong share", "held_out_test",
             "{action: split, dataset: iris, held_out_test: 2}"),
    _request("a split request with custom as share", "held_out_test",
             "{action: split, dataset: iris, held_out_test: custom}"),
    _request("a split request with nothing as share", "held_out_test",
             "{action: split, dataset: iris, held_out_test: null}"),
    _request("a split request forced by a text", "force",
             "{action: split, dataset: iris, held_out_test: 0.5, force: yes}"),
    _request("a split request with folds", "folds",
             "{action: split, dataset: iris, held_out_test: 0.5, folds: [11]}"),
    _request("a custom split without a dataset", "dataset", "{action: custom_split}"),
    _request("a custom split of two datasets", "dataset", "{action: custom_split, dataset: [iris, stars]}"),
    _request("a custom split with a share", "held_out_test",
             "{action: custom_split, dataset: iris, held_out_test: 0.5}"),
    _request("a custom split with a seed", "random_state",
             "{action: custom_split, dataset: iris, random_state: 1}"),
    _request("a custom split forced by a number", "force", "{action: custom_split, dataset: iris, force: 1}"),
    _request("a custom split of a path", "dataset", "{action: custom_split, dataset: ../iris}"),
    _request("predictions of nothing", "folds", "{action: predictions}"),
    _request("predictions of no fold", "folds", "{action: predictions, folds: []}"),
    _request("predictions of folds and new ones", "new", "{action: predictions, folds: [11], new: true}"),
    _request("predictions that are not new", "folds", "{action: predictions, new: false}"),
    _request("predictions, new by a text", "new", "{action: predictions, new: 'true'}"),
    _request("predictions of folds of a dataset", "dataset",
             "{action: predictions, folds: [11], dataset: iris}"),
    _request("predictions of a submission", "submission", "{action: predictions, submission: 24}"),
    _request("predictions of a fold twice", "folds[2]", "{action: predictions, folds: [11, 12, '11']}"),
    _request("predictions of more folds than there may be", "folds",
             f"{{action: predictions, folds: [{', '.join(map(str, range(10_001)))}]}}"),
    _request("a cancellation of nothing", "folds", "{action: cancel}"),
    _request("a cancellation of folds and a submission", "submission",
             "{action: cancel, folds: [11], submission: 24}"),
    _request("a cancellation of a fraction", "folds[0]", "{action: cancel, folds: [1.5]}"),
    _request("a cancellation of a fold elsewhere", "folds", "{action: cancel, folds: ../11}"),
    _request("a cancellation of true", "folds", "{action: cancel, folds: true}"),
    _request("a cancellation of two submissions", "submission", "{action: cancel, submission: [24, 25]}"),
    _request("a cancellation by another name of the field", "fold", "{action: cancel, fold: [11]}"),
    _request("a priority of nothing", "folds", "{action: priority, priority: H}"),
    _request("a request for no priority", "priority", "{action: priority, folds: [11]}"),
    _request("a request for an empty priority", "priority", "{action: priority, folds: [11], priority: }"),
    _request("a request for an unknown priority", "priority", "{action: priority, folds: [11], priority: M}"),
    _request("a priority of a fold in braces", "folds[0]",
             "{action: priority, folds: [{id: 11}], priority: L}"),
    _request("a priority of folds and a submission", "submission",
             "{action: priority, folds: 11, submission: 24, priority: L}"),
    _request("a run again of nothing", "folds", "{action: rerun}"),
    _request("a run again of empty fields", "folds", "{action: rerun, folds: , submission: }"),
    _request("a run again of a mapping", "folds", "{action: rerun, folds: {id: 11}}"),
    _request("a run again of a list in a list", "folds[0]", "{action: rerun, folds: [[11]]}"),
    _request("a run again with force", "force", "{action: rerun, folds: [11], force: true}"),
    _request("a run again of a dataset", "dataset", "{action: rerun, dataset: iris}"),
)  # fmt: skip

def _good(name: str, manifest: str) -> Good:
    return Good(name, REQUESTS, {"manifest.yaml": manifest.encode()})


GOOD_REQUESTS = (
    _good("a split request", "{action: split, dataset: iris, held_out_test: 0.5, random_state: 57, force: true}"),
    _good("a custom split request", "{action: custom_split, dataset: stars}"),
    _good("a request for predictions", "{action: predictions, folds: [11, team_a-0]}"),
    _good("a request for new predictions", "{action: predictions, new: true, dataset: iris, user: bob}"),
    _good("a cancellation", "{action: cancel, folds: 11}"),
    _good("a request for another priority", "{action: priority, submission: 24, priority: high}"),
    _good("a request for a run again", "{action: rerun, submission: team_a}"),
)
