"""The command line: reads it, and hands over to one file in ``commands`` a command.

Nothing but typer is imported before a command is known, so that ``datarun --help`` answers at once.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from datarun_daemon.core.errors import DatarunError, Rejection

EXIT_STATUS = """\b
Exit status:
   0  done; what was checked is right
   1  what was checked, sent or shown is wrong: a bundle with problems, a rejection, a FAIL of doctor
   2  the command line is wrong
  65  the catalog is damaged          70  a mistake of datarun itself
  72  the folder is no usable spool   73  a bundle of that name is there already
  74  the disk failed                 75  another daemon holds the spool, or no answer in time
  78  the configuration is wrong
"""

app = typer.Typer(
    name="datarun",
    help="Trains and tests machine-learning submissions on cross-validation folds: folders in, folders out.",
    epilog=EXIT_STATUS,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Else $DATARUN_CONFIG, ./config.yaml, /etc/datarun/config.yaml, or the defaults.",
    ),
]
_SpoolOption = Annotated[
    Path | None,
    typer.Option("--spool", envvar="DATARUN_SPOOL", help="The spool; else the one of the configuration."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for a person.")]
_Bundle = Annotated[
    Path, typer.Argument(help="A folder with manifest.yaml, that as .zip or .tar.gz, or a request's .yaml.")
]


def _version(wanted: bool) -> None:
    if wanted:
        from datarun_daemon import __version__

        typer.echo(f"datarun {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    _wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


@app.command()
def init(
    spool: Annotated[Path | None, typer.Argument(help="The folder; else the configuration's spool.")] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="The folder's group may drop bundles and take results.")
    ] = False,
    config: _Config = None,
) -> None:
    """Make a spool: the folders that clients and the daemon meet in. What is there already is kept."""
    from datarun_daemon.commands import init as command

    _end(command.init(spool, config, shared=shared))


@app.command()
def run(
    config: _Config = None,
    spool: _SpoolOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Wins over the file; intake.scan_seconds=1."),
    ] = None,
) -> None:
    """Run the daemon in the foreground until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
    from datarun_daemon.commands import run as command

    _end(command.run(config, spool, settings or []))


@app.command()
def pack(folder: Annotated[Path, typer.Argument(help="A bundle's folder.")]) -> None:
    """Write the files' sizes and digests into a bundle's manifest, so that half of it is never taken."""
    from datarun_daemon.commands import sending

    _end(sending.pack_bundle(folder))


@app.command()
def check(bundle: _Bundle, json: _Json = False) -> None:
    """Tell everything for which a daemon would reject a bundle, without sending it."""
    from datarun_daemon.commands import sending

    _end(sending.check_bundle(bundle, json=json))


@app.command()
def submit(
    bundle: _Bundle,
    spool: _SpoolOption = None,
    name: Annotated[str | None, typer.Option(help="Its name in the incoming folder; else its own.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until the daemon says accepted or rejected.")] = False,
    timeout_seconds: Annotated[float, typer.Option("--timeout", help="Seconds to wait at most.")] = 60.0,
    config: _Config = None,
    json: _Json = False,
) -> None:
    """Check a bundle, pack a copy and drop it into a spool."""
    from datarun_daemon.commands import sending

    wait_seconds = timeout_seconds if wait else None
    _end(sending.submit_bundle(bundle, spool, config, name=name, wait_seconds=wait_seconds, json=json))


@app.command()
def kit(
    folder: Annotated[Path, typer.Argument(help="The kit: problem.py, data/, submissions/.")],
    submission: Annotated[
        list[str] | None, typer.Option("--submission", help="A folder in submissions/; may be given again.")
    ] = None,
    spool: Annotated[
        str | None,
        typer.Option("--spool", envvar="DATARUN_SPOOL", help="Its path, or ssh://USER@HOST/PATH; else as configured."),
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Write the bundles into this folder; send nothing.")] = None,
    dataset: Annotated[str | None, typer.Option(help="The dataset's name; else the name of the folder.")] = None,
    priority: Annotated[str, typer.Option(help="Of the folds: H or L.")] = "L",
    wait: Annotated[bool, typer.Option("--wait", help="Until all folds have ended.")] = False,
    timeout_seconds: Annotated[
        float, typer.Option("--timeout", help="Seconds to wait at most until a bundle is accepted.")
    ] = 600.0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the submissions' files, and run the folds again.")
    ] = False,
    fold_files: Annotated[
        list[str] | None,
        typer.Option("--fold-files", help="A file or folder without labels that folds read; may be given again."),
    ] = None,
    config: _Config = None,
) -> None:
    """Run submissions of a RAMP kit: its dataset goes to the spool, and a fold for each of its get_cv."""
    from datarun_daemon.commands import kit as command

    wanted = command.Wanted(tuple(submission or ["starting_kit"]), dataset, priority, force, tuple(fold_files or ()))
    if to is not None:
        _end(command.write_bundles(folder, to, wanted))
    _end(command.send(folder, spool, config, wanted, wait=wait, wait_seconds=timeout_seconds))


@app.command()
def status(spool: _SpoolOption = None, config: _Config = None, json: _Json = False) -> None:
    """Show what the daemon does: datasets, running folds, the queue, the last results and rejections."""
    from datarun_daemon.commands import status as command

    _end(command.status(spool, config, json=json))


@app.command()
def history(
    fold: Annotated[str, typer.Argument(help="The fold's id.")],
    spool: _SpoolOption = None,
    config: _Config = None,
    json: _Json = False,
) -> None:
    """Tell everything that ever happened to a fold: attempts, versions of its submission, requests, results."""
    from datarun_daemon.commands import history as command

    _end(command.tell(fold, spool, config, json=json))


@app.command()
def doctor(spool: _SpoolOption = None, config: _Config = None, json: _Json = False) -> None:
    """Tell whether a daemon can work here, what limits it, and what to do about it."""
    from datarun_daemon.commands import doctor as command

    _end(command.doctor(spool, config, json=json))


@app.command()
def fsck(spool: _SpoolOption = None, config: _Config = None, json: _Json = False) -> None:
    """Compare what the catalog says with what lies in the folders. Changes nothing."""
    from datarun_daemon.commands import fsck as command

    _end(command.fsck(spool, config, json=json))


@app.command()
def demo(
    spool: Annotated[Path | None, typer.Option("--spool", help="Where; else a temporary folder.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the spool there afterwards.")] = False,
) -> None:
    """Run a daemon, send it the example bundles, and show what comes out."""
    from datarun_daemon.commands import demo as command

    _end(command.demo(spool, keep=keep))


def _end(exit_status: int) -> NoReturn:
    raise typer.Exit(exit_status)


def main() -> None:
    """The console script ``datarun``."""
    try:
        app()
    except Rejection as rejection:
        for problem in rejection.problems:
            print(problem, file=sys.stderr)
        sys.exit(1)
    except DatarunError as error:
        print(f"datarun: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # the reader of our output has seen enough; nothing may be flushed to it any more
        sys.stdout = None
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        print("datarun: this is a mistake of datarun itself; please report what is above", file=sys.stderr)
        sys.exit(DatarunError.exit_code)
