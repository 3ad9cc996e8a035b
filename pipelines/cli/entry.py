"""The program's entry: what a user can mend becomes one message on standard error and an exit code."""

import errno
import io
import os
import signal
import sys
import time
import warnings

from pipelines.advice import advice
from pipelines.cli.app import app

INTERRUPTED = 130  # what Typer exits with after Ctrl-C
TERMINATED = 143
_PATIENCE = 10.0  # seconds
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PLACE = (errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
# Deprecations inside the pinned stack are nothing that its user can mend.
_QUIET = ("mmengine", "mmcv", "mmdet", "mmpose", "torch", "timm", "lightning_fabric")


def main() -> None:
    """Run the command line."""
    from csip.errors import UserError

    if sys.platform == "win32":
        _fail("Windows is not supported: use the Windows Subsystem for Linux (`wsl --install`)")
    warnings.filterwarnings("ignore", category=SyntaxWarning)  # of packages that are compiled as they are imported
    # Threads that wait for each other sleep: on a busy machine, spinning makes a stage take several times as long. OpenMP
    # reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for module in _QUIET:
        warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
    # A name that the terminal's encoding cannot say must not end a run.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # A job that is told to end leaves its files and workers in order, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        app()
    except UserError as error:
        _fail(_own_words(error) + advice(error.parameter))
    except OSError as error:
        if error.filename is None and error.errno not in (*_FULL, *_PLACE):
            raise  # about no file: a fault of the program
        _fail(_about_file(error))
    except SystemExit as stop:
        if stop.code in (INTERRUPTED, TERMINATED):
            from pipelines.console import is_first_process

            if is_first_process():
                _say("stopped; finished work is kept: rerun the command to resume")
        raise


def _fail(message: str) -> None:
    from pipelines.console import is_first_process

    if not is_first_process():
        # Most errors are met by every process, and the first one says so; its end ends this one meanwhile.
        time.sleep(_PATIENCE)
    _say(f"error: {message}")
    sys.exit(1)


def _say(message: str) -> None:
    from pipelines.console import errors

    errors.print(message, soft_wrap=True)


def _own_words(error: Exception) -> str:
    """Return an error's message without the traceback that torch puts around one from a worker of its loaders."""
    text, name = str(error), f"{type(error).__module__}.{type(error).__qualname__}: "
    return text.rpartition(name)[2].strip() if text.startswith("Caught ") and name in text else text


def _about_file(error: OSError) -> str:
    """Return the file and the system's reason; what libraries say instead is long."""
    words = [error.filename2 or error.filename, os.strerror(error.errno) if error.errno else str(error)]
    kept = "; finished work is kept: free some space and rerun the command" if error.errno in _FULL else ""
    return f"{': '.join(str(word) for word in words if word)}{kept}"
